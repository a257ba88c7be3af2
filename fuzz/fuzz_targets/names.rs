//! Names that come from outside: what is taken is shown as it was meant, and taken again.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use boatyard_oci::{Digest, ImageName, MediaType, Platform, RepositoryName, Tag};

fn round<T: FromStr + Display + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let shown = value.to_string();
    let again = shown.parse::<T>();
    assert!(again.is_ok_and(|again| again == value), "{text:?} is shown as {shown:?}");
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    round::<Digest>(text);
    round::<ImageName>(text);
    round::<RepositoryName>(text);
    round::<Tag>(text);
    let media_type = MediaType::new(text);
    assert_eq!(media_type.to_string(), text);
    round::<Platform>(text);
    if let Ok(name) = text.parse::<ImageName>() {
        let familiar = name.familiar();
        assert!(familiar.parse::<ImageName>().is_ok_and(|again| again == name), "{familiar}");
    }
});
