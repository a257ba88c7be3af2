//! The reader of tar archives: no archive panics it, nor makes it run for ever.
#![no_main]

use std::io::Read as _;

use boatyard_builder::layer::{Archive, Limits};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut archive = Archive::new(data, Limits::default());
    while let Ok(Some(entry)) = archive.next_entry() {
        let _ = entry.path.to_string();
        let mut read = 0;
        let mut buffer = [0; 4096];
        // Holes of sparse files are as long as they say.
        while read < 1 << 20
            && let Ok(some @ 1..) = archive.content().read(&mut buffer)
        {
            read += some;
        }
    }
});
