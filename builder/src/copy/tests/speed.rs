//! What COPY costs. Run with `cargo test --release -p boatyard-builder speed -- --ignored --nocapture`.

use std::path::Path;
use std::time::Instant;

use fs_err as fs;

use super::world::NOW;
use crate::contents::View;
use crate::context::directory::Directory;
use crate::context::stat_cache::StatCache;
use crate::copy::{Landing, LayerOut, SelectOptions, Source, select, write};
use crate::layer::{ContentTimes, LayerWriter, Restamp, TreeWriter, WriteOptions};

const THREADS: usize = 2;

/// Bytes that no two files share.
fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn tree(files: usize, size: usize) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for number in 0..files {
        let directory = root.path().join(format!("d{}/e{}", number / 1000, number / 100 % 10));
        if number % 100 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(format!("file-{number}")), bytes(number as u64, size)).unwrap();
    }
    root
}

fn large(size: u64) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(root.path().join("large")).unwrap();
    for number in 0..size >> 20 {
        std::io::Write::write_all(&mut file, &bytes(number, 1 << 20)).unwrap();
    }
    root
}

fn measure(name: &str, context: &Path) {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(context, None).unwrap();
    for round in ["cold", "unchanged"] {
        let begun = Instant::now();
        let known = StatCache::open(root.path(), &directory);
        let source = Source::Context { directory: &directory, known: &known };
        let options = SelectOptions { unpack: false, threads: THREADS, ..SelectOptions::default() };
        let selection = select(source, &[".".to_owned()], options).unwrap();
        let id = selection.content_id();
        let selected = begun.elapsed();
        known.save().unwrap();
        let size = selection.table().size_in_memory() / selection.table().len().max(1);
        println!("{name}, {round}: selected in {selected:.2?}, {size} bytes a file, {id:.8}");
        if round == "unchanged" {
            break;
        }
        for with_tree in [false, true] {
            let begun = Instant::now();
            let tree = tempfile::tempdir().unwrap();
            let writer = with_tree.then(|| TreeWriter::new(tree.path()).unwrap());
            let sink = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
            let options = WriteOptions { times: ContentTimes::None, restamp: Restamp::AS_MADE };
            let mut out = LayerOut::new(LayerWriter::new(sink, options), writer);
            let landing = Landing {
                below: &View::default(),
                destination: "/app/",
                owner: None,
                mode: None,
                unpack: false,
                now: NOW,
                threads: THREADS,
                scratch: root.path(),
            };
            write(std::slice::from_ref(&selection), &landing, &mut out).unwrap();
            out.finish().unwrap();
            let place = if with_tree { "archive and tree" } else { "archive" };
            println!("{name}: {place} in {:.2?}", begun.elapsed());
        }
    }
}

#[test]
#[ignore = "a benchmark"]
fn many_files() {
    for (name, files, size) in [
        ("20,000 files, 200 MB", 20_000, 10_000),
        ("50,000 files, 100 MB", 50_000, 2_000),
        ("30,000 files, 60 MB", 30_000, 2_000),
    ] {
        let context = tree(files, size);
        // What changed just now is not remembered.
        std::thread::sleep(std::time::Duration::from_millis(50));
        measure(name, context.path());
    }
}

#[test]
#[ignore = "a benchmark"]
fn one_large_file() {
    let context = large(1 << 30);
    std::thread::sleep(std::time::Duration::from_millis(50));
    measure("one file of 1 GiB", context.path());
}
