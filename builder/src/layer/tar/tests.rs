//! What the reader accepts and refuses, and what the writer writes.

use std::io::{self, Read};

use super::*;
use crate::layer::entry::{Entry, EntryPath, Kind, Mtime};
use crate::layer::testing::{Head, Raw, chain, path, pax_records, read_all};

fn names(archive: &[u8]) -> Vec<String> {
    let entries = read_all(archive).unwrap();
    entries.iter().map(|(entry, _)| entry.path.to_string()).collect()
}

fn error(archive: &[u8]) -> String {
    chain(&read_all(archive).unwrap_err())
}

#[test]
fn long_names_come_in_three_ways() {
    let long = "d/".repeat(80) + "name";
    let shown = format!("/{long}");
    let gnu = Raw::default()
        .special(b"././@LongLink", b'L', format!("{long}\0").as_bytes())
        .file("cut", b"1")
        .end();
    assert_eq!(names(&gnu), [shown.as_str()]);
    let pax = Raw::default().pax(&[("path", long.as_bytes())]).file("cut", b"1").end();
    assert_eq!(names(&pax), [shown.as_str()]);
    let mut head = Head::new(b"name", b'0');
    head.put(345, "d/".repeat(70).trim_end_matches('/').as_bytes());
    let ustar = Raw::default().head(head).end();
    assert_eq!(names(&ustar), [format!("/{}name", "d/".repeat(70))]);
}

#[test]
fn a_gnu_header_has_no_prefix() {
    let mut head = Head::new(b"name", b'0');
    head.put(257, b"ustar  \0").put(345, b"00000000000");
    assert_eq!(names(&Raw::default().head(head).end()), ["/name"]);
}

#[test]
fn long_link_targets_come_in_two_ways() {
    let long = "t".repeat(150);
    let gnu = Raw::default()
        .special(b"././@LongLink", b'K', format!("{long}\0").as_bytes())
        .symlink("link", "cut")
        .end();
    let pax = Raw::default().pax(&[("linkpath", long.as_bytes())]).symlink("link", "cut").end();
    for archive in [gnu, pax] {
        let entries = read_all(&archive).unwrap();
        assert_eq!(entries[0].0.kind, Kind::Symlink { target: long.clone().into_bytes() });
    }
}

#[test]
fn records_for_all_hold_until_overridden() {
    let archive = Raw::default()
        .special(b"g", b'g', &pax_records(&[("uid", b"7"), ("mtime", b"5.5")]))
        .file("a", b"")
        .pax(&[("uid", b"8")])
        .file("b", b"")
        .file("c", b"")
        .end();
    let entries = read_all(&archive).unwrap();
    assert_eq!(entries.iter().map(|(entry, _)| entry.uid).collect::<Vec<_>>(), [7, 8, 7]);
    assert_eq!(entries[0].0.mtime, Mtime { seconds: 5, nanoseconds: 500_000_000 });
}

#[test]
fn a_lone_global_header_is_no_entry() {
    let archive = Raw::default().special(b"g", b'g', &pax_records(&[("comment", b"x")])).end();
    assert_eq!(names(&archive), [""; 0]);
}

#[test]
fn old_directories_are_files_whose_names_end_in_a_slash() {
    let entries = read_all(&Raw::default().special(b"d/", 0, b"").end()).unwrap();
    assert_eq!(entries[0].0.kind, Kind::Directory);
}

#[test]
fn the_size_of_a_link_is_not_content() {
    let mut head = Head::new(b"link", b'1').link(b"a");
    head.size(1000);
    let archive = Raw::default().file("a", b"x").head(head).file("b", b"").end();
    assert_eq!(names(&archive), ["/a", "/link", "/b"]);
}

#[test]
fn names_need_not_be_utf_8() {
    let archive = Raw::default().special(b"\xff\xfe", b'0', b"").end();
    assert_eq!(read_all(&archive).unwrap()[0].0.path.as_bytes(), b"\xff\xfe");
}

fn gnu_sparse() -> Vec<u8> {
    let mut head = Head::new(b"sparse", b'S');
    head.put(257, b"ustar  \0").size(7).put(483, b"00000000024\0");
    head.put(386, b"00000000002\0").put(398, b"00000000003\0");
    head.put(410, b"00000000014\0").put(422, b"00000000002\0");
    head.0[482] = 1;
    let mut more = [0; 512];
    more[..24].copy_from_slice(b"00000000020\x0000000000002\0");
    Raw::default().block(&head.seal()).block(&more).block(b"abcdefg").file("after", b"z").end()
}

#[test]
fn sparse_files_come_in_four_ways() {
    let expected = b"\0\0abc\0\0\0\0\0\0\0de\0\0fg\0\0";
    let list = b"3\n2\n3\n12\n2\n16\n2\n";
    let mut with_map = list.to_vec();
    with_map.resize(512, 0);
    with_map.extend_from_slice(b"abcdefg");
    let pairs: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"20"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.offset", b"2"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"12"),
        ("GNU.sparse.numbytes", b"2"),
        ("GNU.sparse.offset", b"16"),
        ("GNU.sparse.numbytes", b"2"),
    ];
    let in_list: &[(&str, &[u8])] = &[
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.size", b"20"),
        ("GNU.sparse.map", b"2,3,12,2,16,2"),
    ];
    let in_content: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", b"20"),
    ];
    let with = |records, name, content: &[u8]| {
        Raw::default().pax(records).file(name, content).file("after", b"z").end()
    };
    for archive in [
        gnu_sparse(),
        with(pairs, "sparse", b"abcdefg"),
        with(in_list, "GNUSparseFile.1/sparse", b"abcdefg"),
        with(in_content, "GNUSparseFile.1/sparse", &with_map),
    ] {
        assert_eq!(names(&archive), ["/sparse", "/after"]);
        let entries = read_all(&archive).unwrap();
        assert_eq!((entries[0].0.size, entries[0].1.as_slice()), (20, &expected[..]));
        assert_eq!(entries[1].1, b"z");
    }
}

#[test]
fn content_that_is_not_read_is_skipped() {
    let mut archive = Archive::new(io::Cursor::new(gnu_sparse()), Limits::default());
    archive.next_entry().unwrap();
    archive.content().read_exact(&mut [0; 4]).unwrap();
    assert_eq!(archive.next_entry().unwrap().unwrap().path, path("after"));
}

#[test]
fn there_is_one_size() {
    // CVE-2025-62518: the ustar size is 0, the PAX size covers a whole archive that must stay content.
    let inner = Raw::default().file("smuggled", b"x").end();
    let size = inner.len().to_string();
    let outer = Raw::default()
        .pax(&[("size", size.as_bytes())])
        .head(Head::new(b"outer", b'0'))
        .block(&inner)
        .file("last", b"")
        .end();
    assert_eq!(names(&outer), ["/outer", "/last"]);
    // And the reverse: the PAX size is smaller than ustar's.
    let mut head = Head::new(b"outer", b'0');
    head.size(inner.len() as u64);
    let reverse = Raw::default().pax(&[("size", b"0")]).head(head).file("first", b"").end();
    assert_eq!(names(&reverse), ["/outer", "/first"]);
}

#[test]
fn damage_is_refused() {
    let good = Raw::default().file("a", b"content").end();
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert!(error(&flipped).contains("checksum"), "{}", error(&flipped));
    assert!(error(&good[..520]).contains("ends in the middle of /a"), "{}", error(&good[..520]));
    assert!(error(&good[..300]).contains("ends in the middle of a header"));
    let mut lone = Raw::default().block(&[0; 512]).file("after", b"").end();
    assert!(error(&lone).contains("damaged"), "nothing may follow a lone block of zeros");
    lone.drain(..512);
    assert_eq!(names(&lone), ["/after"]);
    // The end may be missing: some writers leave it out, and the diff ID covers it.
    assert_eq!(names(&good[..1024]), ["/a"]);
}

#[test]
fn what_follows_the_end_is_ignored() {
    let mut archive = Raw::default().file("a", b"").end();
    archive.extend_from_slice(&Raw::default().file("b", b"").end());
    assert_eq!(names(&archive), ["/a"]);
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let with = |at, bytes: &[u8]| {
        let mut head = Head::new(b"a", b'0');
        head.put(at, bytes);
        error(&Raw::default().head(head).end())
    };
    assert!(with(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe").contains("size is out"));
    assert!(with(124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").contains("size is out"));
    assert!(with(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff").contains("of content"));
    assert!(with(124, b"-0000000001\0").contains("not a number"));
    assert!(with(108, b"\x80\0\0\x01\0\0\0\0").contains("uid of /a is out of range"));
    assert!(with(108, b"\xff\xff\xff\xff\xff\xff\xff\xff").contains("uid is out of range"));
    let pax =
        |key: &str, value: &[u8]| error(&Raw::default().pax(&[(key, value)]).file("a", b"").end());
    assert!(pax("size", b"-1").contains("size is not a valid value"));
    assert!(pax("size", b"9223372036854775808").contains("size of /a is out of range"));
    assert!(pax("size", b"18446744073709551616").contains("size is not a valid value"));
    assert!(pax("uid", b"4294967295").contains("uid of /a is out of range"));
    assert!(pax("path", b"a\0b").contains("NUL"));
    assert!(pax("path", b"../../etc/passwd").contains("leads out of the root"));
}

#[test]
fn sparse_lies_are_refused() {
    for (size, map) in [
        ("20", "0,8"),
        ("20", "0,4,2,3"),
        ("4", "0,7"),
        ("20", "0"),
        ("20", "18446744073709551615,7"),
        ("9223372036854775808", "0,7"),
    ] {
        let records = [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        let archive = Raw::default().pax(&records).file("a", b"abcdefg").end();
        assert!(error(&archive).contains("sparse file /a"), "{map}");
    }
    let records: [(&str, &[u8]); 2] =
        [("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.map", b"0,0")];
    let bomb = Raw::default().pax(&records).file("a", b"").end();
    assert!(error(&bomb).contains("bytes of content"), "{}", error(&bomb));
}

#[test]
fn unknown_types_are_refused() {
    for kind in [b'V', b'M', b'D', b'Q'] {
        let archive = Raw::default().special(b"a", kind, b"").end();
        assert!(error(&archive).contains("unsupported type"));
    }
}

#[test]
fn no_damage_makes_the_reader_panic() {
    let pax: [(&str, &[u8]); 2] = [("path", b"some/long/path"), ("mtime", b"1.5")];
    let mut archives = vec![gnu_sparse()];
    archives.push(Raw::default().pax(&pax).file("x", b"abc").symlink("l", "x").end());
    for archive in archives {
        for at in (0..archive.len()).filter(|at| at % 512 < 140 || at % 7 == 0) {
            for bits in [0x01, 0x80] {
                let mut damaged = archive.clone();
                damaged[at] ^= bits;
                drop(read_all(&damaged));
                // With a checksum that agrees, the damage reaches the fields.
                let start = at / 512 * 512;
                let block: [u8; 512] = damaged[start..start + 512].try_into().unwrap();
                damaged[start..start + 512].copy_from_slice(&Head(block).seal());
                drop(read_all(&damaged));
            }
        }
        for length in 0..archive.len() {
            drop(read_all(&archive[..length]));
        }
    }
}

#[test]
fn limits_hold() {
    let read = |archive: &[u8], limits| {
        let mut archive = Archive::new(archive, limits);
        while archive.next_entry()?.is_some() {}
        Ok::<_, TarError>(())
    };
    let archive = Raw::default().file("a", b"12").file("b", b"34").end();
    let default = Limits::default();
    read(&archive, Limits { entries_max: 2, content_bytes_max: 4, ..default }).unwrap();
    let error = read(&archive, Limits { entries_max: 1, ..default }).unwrap_err();
    assert_eq!(error.to_string(), "the archive has more than 1 entries");
    assert!(read(&archive, Limits { content_bytes_max: 3, ..default }).is_err());
    let archive = Raw::default().pax(&[("path", &[b'a'; 600])]).file("x", b"").end();
    assert!(read(&archive, Limits { extended_bytes_max: 500, ..default }).is_err());
    // A claim costs nothing until bytes come.
    let mut head = Head::new(b"pax", b'x');
    head.size(1 << 20);
    let error = read(&Raw::default().head(head).0, default).unwrap_err();
    assert!(matches!(error, TarError::Truncated(_)), "{error}");
}

fn written(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, mut content) in entries.iter().map(|(entry, content)| (entry, *content)) {
        writer.append(entry, &mut content).unwrap();
    }
    writer.finish().unwrap()
}

fn file(name: &str, size: u64) -> Entry {
    Entry { size, ..Entry::new(path(name), Kind::File, 0o644) }
}

#[test]
fn what_is_written_reads_back() {
    let mut odd = file("odd", 3);
    (odd.mode, odd.uid, odd.gid, odd.mtime) =
        (0o6755, 3_000_000, 4_000_000_000, Mtime::from_seconds(-5));
    odd.xattrs.insert(b"user.\xff".to_vec(), b"a=b\n\0".to_vec());
    odd.xattrs.insert(b"security.capability".to_vec(), vec![1; 20]);
    let late = Entry { mtime: Mtime::from_seconds(1 << 40), ..file("late", 0) };
    let bytes = EntryPath::parse(b"\xff\xfe").unwrap();
    let entries = [
        (Entry::new(bytes, Kind::Directory, 0o1777), &b""[..]),
        (late, b""),
        (odd, b"abc"),
        (file(&"n".repeat(100), 0), b""),
        (file(&"long/".repeat(60), 1), b"x"),
        (Entry::new(path("s"), Kind::Symlink { target: vec![b't'; 300] }, 0o777), b""),
        (Entry::new(path("h"), Kind::HardLink { target: path(&"odd/".repeat(40)) }, 0), b""),
        (Entry::new(path("c"), Kind::CharDevice { major: 4095, minor: 1_048_575 }, 0o600), b""),
        (Entry::new(path("b"), Kind::BlockDevice { major: 8, minor: 1 }, 0o600), b""),
        (Entry::new(path("p"), Kind::Fifo, 0o600), b""),
    ];
    let read = read_all(&written(&entries)).unwrap();
    let expected: Vec<_> =
        entries.iter().map(|(entry, content)| (entry.clone(), content.to_vec())).collect();
    assert_eq!(read, expected);
}

#[test]
fn only_what_is_needed_is_written() {
    let mut entry = file("dir/plain", 3);
    entry.mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 999 };
    entry.xattrs.insert(b"trusted.x".to_vec(), b"".to_vec());
    entry.xattrs.insert(b"user.overlay.origin".to_vec(), b"".to_vec());
    let archive = written(&[(entry, b"abc")]);
    assert_eq!(archive.len(), 512 + 512 + 1024, "no extended header, no padding to a record");
    assert_eq!(&archive[136..148], b"14524770400\0");
    assert!(archive[265..329].iter().all(|byte| *byte == 0), "no names of owners");
}

#[test]
fn the_root_is_no_entry() {
    let root = Entry::new(EntryPath::root(), Kind::Directory, 0o755);
    assert_eq!(written(&[(root, b"")]), [0; 1024]);
}

#[test]
fn content_of_another_size_fails() {
    for content in [&b"ab"[..], b"abcd"] {
        let mut writer = Writer::new(Vec::new());
        let mut reader = content;
        let error = writer.append(&file("a", 3), &mut reader).unwrap_err().to_string();
        assert!(error.contains("/a became"), "{error}");
    }
}

#[test]
fn sizes_beyond_octal_are_the_same_in_both_headers() {
    let size: u64 = 1 << 33;
    let mut sink = Sink::default();
    let mut writer = Writer::new(&mut sink);
    writer.append(&file("big", size), &mut io::empty()).unwrap_err();
    let archive = sink.0;
    let records = String::from_utf8_lossy(&archive[512..1024]).into_owned();
    assert!(records.starts_with("19 size=8589934592\n"), "{records}");
    let header: [u8; 512] = archive[1024..1536].try_into().unwrap();
    assert_eq!(header::unsigned(&header, header::SIZE, "size"), Ok(size));
}

#[derive(Default)]
struct Sink(Vec<u8>);

impl io::Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
