//! Trees that lead out, go round, change, or hold names that nobody expects.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use fs_err as fs;

use super::world::{CopyOptions, make, table_of, world};
use crate::contents::{Table, View};
use crate::context::directory::Directory;
use crate::context::stat_cache::StatCache;
use crate::copy::{CopyError, SelectOptions, Source, select};
use crate::layer::EntryPath;

const OPTIONS: SelectOptions<'_> =
    SelectOptions { unpack: false, threads: 2, parents: false, exclude: None };

fn names(table: &Table) -> Vec<String> {
    table.rows().map(|(path, _)| path.to_string()).collect()
}

/// Selects all of a context, does something to it, and copies.
fn changed_in_between(
    files: &[(&str, &str)],
    change: impl FnOnce(&std::path::Path),
) -> Result<Vec<String>, CopyError> {
    let world = world(files);
    let directory = Directory::open(world.from.path(), None).unwrap();
    let known = StatCache::default();
    let source = Source::Context { directory: &directory, known: &known };
    let selection = select(source, &[".".to_owned()], OPTIONS).unwrap();
    change(world.from.path());
    let made = make(&[selection], &View::default(), "/t/", CopyOptions::default())?;
    Ok(names(&made.table))
}

#[test]
fn a_file_that_changed_since_it_was_selected_is_named() {
    let files = [("a", "1"), ("d/file", "12345"), ("z", "1")];
    let large = "x".repeat(3 << 20);
    let same_size = |root: &std::path::Path| fs::write(root.join("d/file"), "54321").unwrap();
    let shorter = |root: &std::path::Path| fs::write(root.join("d/file"), "123").unwrap();
    let longer = |root: &std::path::Path| fs::write(root.join("d/file"), "1234567").unwrap();
    for change in [&same_size as &dyn Fn(&std::path::Path), &shorter, &longer] {
        let error = changed_in_between(&files, change).unwrap_err();
        assert_eq!(error.to_string(), "`d/file` changed while it was copied");
    }
    let files = [("a", "1"), ("d/large", large.as_str()), ("z", "1")];
    for length in [3 << 20, (3 << 20) - 1, (3 << 20) + 1] {
        let change = |root: &std::path::Path| {
            let mut bytes = vec![b'x'; length];
            bytes[1 << 20] = b'y';
            fs::write(root.join("d/large"), bytes).unwrap();
        };
        let error = changed_in_between(&files, change).unwrap_err();
        assert_eq!(error.to_string(), "`d/large` changed while it was copied");
    }
}

#[test]
fn a_new_time_alone_is_no_change() {
    let change = |root: &std::path::Path| {
        let file = fs::OpenOptions::new().write(true).open(root.join("a")).unwrap();
        file.into_file().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    assert_eq!(changed_in_between(&[("a", "1")], change).unwrap(), ["/t", "/t/a"]);
}

#[test]
fn a_directory_that_became_a_link_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "12345").unwrap();
    let change = |root: &std::path::Path| {
        fs::rename(root.join("d"), root.join("moved")).unwrap();
        symlink(outside.path(), root.join("d")).unwrap();
    };
    let error = changed_in_between(&[("d/file", "12345")], change).unwrap_err();
    assert_eq!(error.to_string(), "cannot read d/file");
}

#[test]
fn a_file_that_became_a_pipe_blocks_nobody() {
    let change = |root: &std::path::Path| {
        fs::remove_file(root.join("a")).unwrap();
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("a"), kind, 0o644.into(), 0).unwrap();
    };
    let error = changed_in_between(&[("a", "1")], change).unwrap_err();
    assert_eq!(error.to_string(), "`a` changed while it was copied");
}

#[test]
fn links_that_go_round_are_an_error_at_the_top_and_copied_below() {
    let world = world(&[("d/x", "1")]);
    symlink("loop", world.from.path().join("loop")).unwrap();
    symlink("../../../../../../etc/passwd", world.from.path().join("out")).unwrap();
    symlink("loop", world.from.path().join("d/loop")).unwrap();
    let error = world.copy(&["loop"], "/t").unwrap_err();
    assert_eq!(error.to_string(), "cannot follow the links of loop");
    assert!(matches!(world.copy(&["out"], "/t"), Err(CopyError::Missing { .. })));
    world.copy(&["d"], "/t/").unwrap();
    assert_eq!(names(&world.last()), ["/t", "/t/loop", "/t/x"]);
    symlink("/round", world.into.path().join("about")).unwrap();
    symlink("/about", world.into.path().join("round")).unwrap();
    for destination in ["/round", "/round/", "/round/x"] {
        assert!(matches!(world.copy(&["d/x"], destination), Err(CopyError::Io { .. })));
    }
}

#[test]
fn names_may_hold_anything() {
    let world = world(&[]);
    let root = world.from.path().join("d");
    fs::create_dir(&root).unwrap();
    for name in [&b"new\nline"[..], b"\xff\xfe", b"-rf", b"*", b"a b", &[b'n'; 255]] {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    world.copy(&["d"], "/t/").unwrap();
    assert_eq!(world.last().len(), 7);
    assert_eq!(world.read("t/new\nline"), "new\nline");
    world.copy(&["d/\\*"], "/star/").unwrap();
    assert_eq!(names(&world.last()), ["/star", "/star/*"]);
}

#[test]
fn names_of_whiteouts_are_refused() {
    let world = world(&[("d/.wh.x", "1")]);
    let error = world.copy(&["d"], "/t/").unwrap_err();
    assert!(matches!(&error, CopyError::Reserved { path } if path == "/t/.wh.x"), "{error}");
    let error = world.copy(&["d/.wh.x"], "/.wh.y/").unwrap_err();
    assert!(matches!(&error, CopyError::Reserved { path } if path == "/.wh.y"), "{error}");
}

#[test]
fn what_is_too_deep_is_refused() {
    let world = world(&[]);
    let mut path = world.from.path().to_owned();
    for _ in 0..300 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    assert!(matches!(world.copy(&["."], "/t/"), Err(CopyError::TooDeep { .. })));
    let deep = "/d".repeat(300);
    fs::write(world.from.path().join("f"), "1").unwrap();
    let refused = world.copy(&["f"], &deep).unwrap_err();
    assert!(matches!(refused, CopyError::TooDeep { .. } | CopyError::Io { .. }), "{refused:?}");
}

#[test]
fn sockets_are_left_out() {
    let world = world(&[("d/x", "1")]);
    let _socket =
        std::os::unix::net::UnixListener::bind(world.from.path().join("d/socket")).unwrap();
    world.copy(&["d"], "/t/").unwrap();
    assert_eq!(names(&world.last()), ["/t", "/t/x"]);
}

#[test]
fn what_lies_beneath_is_repeated_only_on_the_way() {
    let world = world(&[("d/x", "1")]);
    let into = world.into.path();
    fs::create_dir_all(into.join("opt/app")).unwrap();
    fs::create_dir_all(into.join("var/lib")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1770);
    fs::set_permissions(into.join("opt"), mode).unwrap();
    std::os::unix::fs::chown(into.join("opt"), Some(5), Some(6)).unwrap();
    let options = CopyOptions { owner: Some((1000, 1000)), ..CopyOptions::default() };
    world.copy_with(&["d"], "/opt/app", options).unwrap();
    let table = world.last();
    assert_eq!(names(&table), ["/opt", "/opt/app", "/opt/app/x"]);
    let opt = table.get(&EntryPath::parse(b"opt").unwrap()).unwrap();
    assert_eq!((opt.mode(), opt.uid(), opt.gid()), (0o1770, 5, 6));
    world.copy_with(&["*.none"], "/opt/app", options).unwrap();
    assert!(world.last().is_empty());
}

#[test]
fn bytes_of_a_stage_are_asked_for_only_to_be_written() {
    let world = world(&[("d/x", "1"), ("d/y", "2")]);
    let stack = View::from_iter([std::sync::Arc::new(table_of(world.from.path()))]);
    let asked = std::sync::Mutex::new(RefCell::new(Vec::new()));
    let open = |layer: usize, path: &EntryPath| {
        asked.lock().unwrap().get_mut().push(format!("{layer}:{path}"));
        let path = world.from.path().join(OsStr::from_bytes(path.as_bytes()));
        Ok(fs::File::open(path)?.into_file())
    };
    let source = Source::Stack { view: &stack, name: "stage build", open: &open };
    let selection = select(source, &["d/x".to_owned()], OPTIONS).unwrap();
    assert!(asked.lock().unwrap().get_mut().is_empty());
    make(&[selection], &View::default(), "/t/", CopyOptions::default()).unwrap();
    assert_eq!(*asked.lock().unwrap().get_mut(), ["0:/d/x"]);
    let missing = select(source, &["gone".to_owned()], OPTIONS).unwrap_err();
    assert_eq!(missing.to_string(), "`gone` is not in stage build");
}

#[test]
fn the_identity_is_that_of_the_content() {
    let world = world(&[("d/x", "1"), ("e/x", "1")]);
    let id = |word: &str| {
        let directory = Directory::open(world.from.path(), None).unwrap();
        let known = StatCache::default();
        let source = Source::Context { directory: &directory, known: &known };
        select(source, &[word.to_owned()], OPTIONS).unwrap().content_id()
    };
    let (file, whole) = (id("d/x"), id("d"));
    let path = world.from.path().join("d/x");
    let open = fs::OpenOptions::new().write(true).open(&path).unwrap().into_file();
    open.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!((id("d/x"), id("d"), id("e/x"), id("e")), (file, whole, file, whole));
    assert_ne!(id("d/*"), id("*"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).unwrap();
    assert_ne!(id("d/x"), file);
    fs::write(world.from.path().join("e/x"), "2").unwrap();
    assert_ne!(id("e"), whole);
}
