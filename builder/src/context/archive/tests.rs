use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

/// An entry: type, name, link target, content.
type Row<'a> = (u8, &'a str, &'a str, &'a [u8]);

fn tar(rows: &[Row<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, link, content) in rows {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(*kind));
        // Names that the crate would refuse are what is tested.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o640);
        header.set_mtime(100);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpacked(rows: &[Row<'_>]) -> (tempfile::TempDir, Result<(), ArchiveError>) {
    let place = tempfile::tempdir().unwrap();
    fs_err::create_dir(place.path().join("in")).unwrap();
    fs_err::write(place.path().join("outside"), "outside").unwrap();
    let done = unpack(&tar(rows)[..], &place.path().join("in"));
    (place, done)
}

#[test]
fn files_have_their_modes_and_times() {
    let rows: [Row<'_>; 4] = [
        (b'0', "a/b/file", "", b"one"),
        (b'1', "other", "a/b/file", b""),
        (b'2', "link", "/a/b", b""),
        (b'0', "link/through", "", b"two"),
    ];
    let (place, done) = unpacked(&rows);
    done.unwrap();
    let path = |name: &str| place.path().join("in").join(name);
    let found = fs_err::metadata(path("a/b/file")).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime()), (0o640, 100));
    assert_eq!(found.nlink(), 2);
    // A link on the way is followed inside the archive.
    assert_eq!(fs_err::read(path("a/b/through")).unwrap(), b"two");
    assert_eq!(fs_err::metadata(path("a")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn nothing_leaves_the_directory() {
    let tables: [&[Row<'_>]; 7] = [
        &[(b'0', "../outside", "", b"x")],
        &[(b'2', "up", "..", b""), (b'0', "up/outside", "", b"x")],
        &[(b'2', "up", "../outside", b""), (b'0', "up", "", b"x")],
        &[(b'1', "hard", "../outside", b""), (b'0', "hard", "", b"x")],
        &[(b'2', "up", "..", b""), (b'1', "hard", "up/outside", b"")],
        &[(b'2', "up", "/../../outside", b""), (b'1', "hard", "up", b""), (b'0', "hard", "", b"x")],
        &[(b'3', "device", "", b"")],
    ];
    for rows in tables {
        let (place, _) = unpacked(rows);
        assert_eq!(fs_err::read(place.path().join("outside")).unwrap(), b"outside", "{rows:?}");
        let names: Vec<_> = fs_err::read_dir(place.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "{rows:?}");
    }
    let (_, done) = unpacked(tables[6]);
    assert!(matches!(done, Err(ArchiveError::Device { .. })), "{done:?}");
}

#[test]
fn archives_are_told_from_text() {
    let archive = tar(&[(b'0', "a", "", b"x")]);
    assert!(peek(&archive[..]).unwrap().0);
    assert!(peek(&[0x1f, 0x8b, 8, 0][..]).unwrap().0);
    for text in ["", "FROM scratch\n", &"x".repeat(1000)] {
        let (is_archive, mut whole) = peek(text.as_bytes()).unwrap();
        assert!(!is_archive, "{text}");
        let mut read = String::new();
        whole.read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
    }
    assert!(!peek(&[0; 600][..]).unwrap().0);
}

/// Packs bytes, and zeros that follow them.
fn packed(start: &[u8], zeros: u64) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(start).unwrap();
    io::copy(&mut io::repeat(0).take(zeros), &mut packed).unwrap();
    packed.finish().unwrap()
}

#[test]
fn what_is_made_to_fill_a_disk_is_refused() {
    let file = tar(&[(b'0', "a", "", b"x")]);
    let mut endless = tar(&[(b'0', "big", "", b"")]);
    endless.truncate(512);
    // A size of 100 MiB, and the checksum that goes with it.
    let mut header = tar::Header::from_byte_slice(&endless).clone();
    header.set_size(100 << 20);
    header.set_cksum();
    for start in [&file[..], &header.as_bytes()[..]] {
        let into = tempfile::tempdir().unwrap();
        let bomb = packed(start, 100 << 20);
        let done = unpack(&bomb[..], into.path());
        assert!(matches!(done, Err(ArchiveError::Bomb(_))), "{done:?}");
    }
    let into = tempfile::tempdir().unwrap();
    unpack(&packed(&file, 1 << 20)[..], into.path()).unwrap();
}

#[test]
fn directories_that_no_entry_names_count() {
    let rows = [(b'0', "a/b/c/d/e/file", "", &b""[..])];
    let unpack = |max: u64| {
        let into = tempfile::tempdir().unwrap();
        unpack_within(&tar(&rows)[..], into.path(), max)
    };
    assert!(matches!(unpack(5), Err(ArchiveError::TooMany)));
    unpack(6).unwrap();
}
