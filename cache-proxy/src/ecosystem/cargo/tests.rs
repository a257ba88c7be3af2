use boatyard_oci::Digest;

use super::address::{Version, directory, file_of, versions};
use super::config::{Changes, Config, rewrite};
use super::listing::{Filter, Listing};

fn version() -> Version {
    Version { name: "MyCrate".to_owned(), number: "1.0.0".to_owned() }
}

#[test]
fn places_of_crates() {
    for (name, file) in [
        ("a", "1/a"),
        ("ab", "2/ab"),
        ("Abc", "3/a/abc"),
        ("Serde_json", "se/rd/serde_json"),
        ("äöü", "\u{e4}/\u{f6}/\u{e4}\u{f6}\u{fc}"),
    ] {
        assert_eq!(file_of(name), file);
    }
    let of = |path| versions(path).map(|version| version.to_string()).collect::<Vec<_>>();
    assert_eq!(of("/api/v1/crates/a/1.0.0/download"), ["a 1.0.0"]);
    assert_eq!(of("/crates/a-b/a-b-1.0.0-rc.1.crate"), ["a-b 1.0.0-rc.1"]);
    assert_eq!(of("/a-1-2.crate"), ["a 1-2", "a-1 2"]);
    assert_eq!(of("/a/1.0.0%2Bx/download"), ["a 1.0.0+x"]);
    assert!(of("/a.crate").is_empty() && of("/download").is_empty() && of("").is_empty());
}

#[test]
fn addresses_are_expanded_and_rewritten() {
    let sum = Digest::sha256(b"x");
    let of = |dl: &str| {
        let config = format!("{{\"dl\":\"{dl}\"}}");
        Config::parse(config.as_bytes()).unwrap().download(&version(), &sum)
    };
    assert_eq!(of("http://r.example/c"), "http://r.example/c/MyCrate/1.0.0/download");
    assert_eq!(
        of("http://r.example/{prefix}/{crate}"),
        "http://r.example/My/Cr/MyCrate".replace("My/Cr/", &format!("{}/", directory("MyCrate")))
    );
    assert_eq!(of("h/{lowerprefix}/{version}"), "h/my/cr/1.0.0");
    assert_eq!(of("h/{sha256-checksum}"), format!("h/{}", sum.hex()));

    let text =
        br#"{"dl":"http://r.example","api":"http://a.example","auth-required":true,"x":[1]}"#;
    let base = "http://proxy.example/one";
    let rewritten = |is_open| {
        let changes = Changes { base: base.to_owned(), is_open, ..Changes::default() };
        String::from_utf8(rewrite(&changes.recipe(), text).unwrap()).unwrap()
    };
    let (dl, api) =
        (format!("{base}/-/crates/{{crate}}/{{version}}/{{sha256-checksum}}.crate"), base);
    let open = format!("{{\"dl\":\"{dl}\",\"api\":\"{api}/-\",\"x\":[1]}}");
    assert_eq!(rewritten(true), open);
    assert!(rewritten(false).contains("\"auth-required\":true"));
    for bad in ["", "[]", "{}", "{\"dl\":1}", "\u{ff}"] {
        assert!(rewrite(base, bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(rewrite(base, &vec![b' '; 1 << 20]).is_err());
}

#[test]
fn sums_of_crates() {
    let sum = "ab".repeat(32);
    let text = format!(
        "{{\"name\":\"a\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{sum}\"}}\nbroken\n\
         {{\"vers\":\"1.1.0\",\"cksum\":\"short\"}}\n{{\"vers\":\"1.2.\\u0030\",\"cksum\":\"{sum}\"}}"
    );
    let listing = Listing::parse(text.as_bytes());
    assert_eq!(listing.version("1.0.0").unwrap().sum.hex(), sum);
    assert!(listing.version("1.2.0").is_some());
    assert!(listing.version("1.1.0").is_none() && listing.version("").is_none());

    let yanked = text.replace("\"deps\":[]", "\"yanked\":true");
    assert!(Listing::parse(yanked.as_bytes()).version("1.0.0").unwrap().is_yanked);
    let of = |filter: Filter| {
        let filter = Filter::of_recipe(&filter.recipe().unwrap()).unwrap();
        String::from_utf8(filter.apply(yanked.as_bytes())).unwrap()
    };
    let rest = yanked.split_once('\n').unwrap().1;
    assert_eq!(of(Filter { yanked: true, after: None }), rest);
    assert_eq!(of(Filter { yanked: false, after: Some(0) }), yanked);
    assert!(Filter::default().recipe().is_none());
    let young = format!(
        "{{\"vers\":\"1.0.0\",\"cksum\":\"{sum}\",\"pubtime\":\"2026-01-01T00:00:00Z\"}}\n"
    );
    let filter = |after| Filter { yanked: false, after: Some(after) }.apply(young.as_bytes());
    assert!(filter(1_700_000_000).is_empty() && filter(1_800_000_000) == young.as_bytes());
}
