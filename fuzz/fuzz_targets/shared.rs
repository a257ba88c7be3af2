//! What other machines say in a shared cache: the records, and the files of a cache mount. Bytes that are
//! no zstd are packed first, so that what is fuzzed is the text.
#![no_main]

use boatyard_builder::cache::shared::Ledger;
use boatyard_builder::cache::shared::mount::FileList;

fn read(bytes: &[u8]) {
    if let Ok(ledger) = Ledger::from_bytes(bytes) {
        let written = ledger.to_bytes();
        let again = Ledger::from_bytes(&written).unwrap();
        assert_eq!(again.to_bytes(), written, "what is read again is the same");
        let mut merged = Ledger::default();
        merged.merge(&ledger);
        merged.merge(&ledger);
        let _ = merged.manifest(&written, "tag");
    }
    let _ = FileList::from_bytes(bytes);
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    read(data);
    if let Ok(packed) = zstd::bulk::compress(data, 1) {
        read(&packed);
    }
});
