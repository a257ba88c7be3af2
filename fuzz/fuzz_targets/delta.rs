//! The deltas of bundles: none panics who applies it, nor makes more bytes than it should.
#![no_main]

use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;

use boatyard_builder::bundle::apply_delta;

/// What deltas may take from: files that nobody else has.
fn sources() -> &'static [File] {
    static SOURCES: OnceLock<Vec<File>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let source = |length: u16| {
            let path = std::env::temp_dir().join(format!("delta-{}-{length}", std::process::id()));
            let mut options = File::options();
            let mut file = options.read(true).write(true).create_new(true).open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            file.write_all(&bytes).unwrap();
            file
        };
        vec![source(64), source(5000)]
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The size is what the bundle says beside the delta.
    let Some((size, mut delta)) = data.split_first_chunk::<2>() else { return };
    let size = u64::from(u16::from_le_bytes(*size));
    let mut made = Vec::new();
    let applied = apply_delta(&mut delta, sources(), size, &mut made);
    assert!(made.len() as u64 <= size, "{} of {size} bytes", made.len());
    assert!(applied.is_err() || made.len() as u64 == size, "{} of {size} bytes", made.len());
});
