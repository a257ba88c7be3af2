//! COPY and ADD as an instruction sees them.

mod hostile;
mod random;
mod speed;
mod world;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use fs_err as fs;

use self::world::{CopyOptions, world};
use super::*;

#[test]
fn a_file_goes_to_a_name_or_into_a_directory() {
    let world = world(&[("a", "A")]);
    world.copy(&["a"], "/x/y/b").unwrap();
    world.copy(&["/a"], "/x/z/").unwrap();
    world.copy(&["../../a"], "/x").unwrap();
    assert_eq!(
        (world.read("x/y/b"), world.read("x/z/a"), world.read("x/a")),
        ("A".into(), "A".into(), "A".into())
    );
}

#[test]
fn a_directory_gives_its_contents_and_merges() {
    let world = world(&[("d/a", "1"), ("d/sub/b", "2")]);
    fs::create_dir_all(world.into.path().join("t/sub")).unwrap();
    fs::write(world.into.path().join("t/sub/old"), "old").unwrap();
    world.copy(&["d"], "/t").unwrap();
    assert_eq!(
        (world.read("t/a"), world.read("t/sub/b"), world.read("t/sub/old")),
        ("1".into(), "2".into(), "old".into())
    );
}

#[test]
fn wildcards_match_names_and_may_match_nothing() {
    let world = world(&[("a.txt", "1"), ("b.txt", "2"), ("c.md", "3"), ("d/e.txt", "4")]);
    world.copy(&["*.txt"], "/t/").unwrap();
    assert!(world.exists("t/a.txt") && world.exists("t/b.txt") && !world.exists("t/c.md"));
    world.copy(&["*/e.???"], "/u/").unwrap();
    assert_eq!(world.read("u/e.txt"), "4");
    world.copy(&["*.none"], "/v/").unwrap();
}

#[test]
fn a_link_that_is_ignored_leads_nowhere() {
    let world = world(&[("a", "1")]);
    symlink("a", world.from.path().join("link")).unwrap();
    world.copy(&["link"], "/t").unwrap();
    world.ignore("link\n");
    let error = world.copy(&["link"], "/u").unwrap_err();
    assert!(matches!(error, CopyError::Missing { ignored: true, .. }));
}

#[test]
fn behind_a_wildcard_no_link_to_a_directory_is_entered() {
    let world = world(&[("d/one", "1"), ("d/e/two", "2")]);
    symlink("d", world.from.path().join("dlink")).unwrap();
    world.copy(&["d*/one"], "/t").unwrap();
    assert_eq!(world.read("t"), "1");
    world.copy(&["dlink/o*"], "/u").unwrap();
    assert_eq!(world.read("u"), "1");
}

#[test]
fn a_new_directory_is_made_as_others_are_whatever_it_takes_in() {
    let world = world(&[("d/one", "1")]);
    let mode = std::fs::Permissions::from_mode(0o700);
    fs_err::set_permissions(world.from.path().join("d"), mode).unwrap();
    world.copy(&["d"], "/t").unwrap();
    let made = fs_err::metadata(world.place("t").unwrap()).unwrap().permissions().mode();
    assert_eq!(made & 0o7777, 0o755);
}

#[test]
fn what_is_missing_is_named_and_what_is_ignored_is_said_to_be() {
    let world = world(&[("secret", "x")]);
    let error = world.copy(&["nothing"], "/t").unwrap_err();
    assert_eq!(error.to_string(), "`nothing` is not in the build context");
    world.ignore("secret\n");
    let error = world.copy(&["secret"], "/t").unwrap_err();
    assert!(matches!(error, CopyError::Missing { ignored: true, .. }));
    world.copy(&["."], "/all/").unwrap();
    assert!(!world.exists("all/secret"));
}

#[test]
fn several_sources_need_a_directory() {
    let world = world(&[("a", "1"), ("b", "2")]);
    assert!(matches!(world.copy(&["a", "b"], "/t"), Err(CopyError::NotADirectory { .. })));
    world.copy(&["a", "b"], "/t/").unwrap();
    world.copy(&["a", "b"], "/t").unwrap();
}

#[test]
fn kinds_do_not_replace_each_other() {
    let world = world(&[("f", "1"), ("d/f/x", "2")]);
    world.copy(&["f"], "/f").unwrap();
    assert!(matches!(world.copy(&["d"], "/f"), Err(CopyError::Conflict { .. })));
    assert!(matches!(world.copy(&["d"], "/"), Err(CopyError::Conflict { .. })));
    assert!(matches!(world.copy(&["f"], "/f/"), Err(CopyError::Conflict { .. })));
}

#[test]
fn links_stay_inside_both_trees() {
    let world = world(&[("real", "inside"), ("d/x", "1")]);
    symlink("/real", world.from.path().join("absolute")).unwrap();
    symlink("../../../../real", world.from.path().join("d/up")).unwrap();
    symlink("/etc/passwd", world.from.path().join("d/kept")).unwrap();
    symlink("/landing", world.into.path().join("there")).unwrap();
    world.copy(&["absolute"], "/a").unwrap();
    world.copy(&["d"], "/there/").unwrap();
    assert_eq!(world.read("a"), "inside");
    assert_eq!(world.read("landing/x"), "1");
    let kept = fs::read_link(world.place("landing/kept").unwrap()).unwrap();
    assert_eq!(kept, Path::new("/etc/passwd"));
    symlink("/outside/file", world.into.path().join("dangling")).unwrap();
    world.copy(&["real"], "/dangling").unwrap();
    assert_eq!(world.read("outside/file"), "inside");
}

#[test]
fn owners_modes_and_times() {
    let world = world(&[("bin/tool", "x")]);
    let source = world.from.path().join("bin/tool");
    fs::set_permissions(&source, std::fs::Permissions::from_mode(0o4750)).unwrap();
    let mode = |_: u32, _: bool| 0o604;
    world.copy(&["bin/tool"], "/kept").unwrap();
    let options = CopyOptions { owner: Some((1000, 1001)), mode: Some(&mode), unpack: false };
    world.copy_with(&["bin/tool"], "/new/set", options).unwrap();
    let stat = |path| fs::metadata(world.place(path).unwrap()).unwrap();
    assert_eq!(stat("kept").mode() & 0o7777, 0o4750);
    assert_eq!(stat("kept").mtime(), fs::metadata(&source).unwrap().mtime());
    assert_eq!((stat("new/set").uid(), stat("new/set").gid()), (1000, 1001));
    assert_eq!((stat("new/set").mode() & 0o7777, stat("new").uid()), (0o604, 1000));
}

#[test]
fn hard_links_stay_one_file() {
    let world = world(&[("d/a", "x")]);
    let from = world.from.path();
    fs::hard_link(from.join("d/a"), from.join("d/b")).unwrap();
    world.copy(&["d"], "/t/").unwrap();
    let inode = |path| fs::metadata(world.place(path).unwrap()).unwrap().ino();
    assert_eq!(inode("t/a"), inode("t/b"));
}

#[test]
fn add_unpacks_archives_and_copies_what_is_none() {
    let world = world(&[("plain.tar", "this is no archive"), ("in/hello", "hi")]);
    let status = std::process::Command::new("tar")
        .args(["-C"])
        .arg(world.from.path().join("in"))
        .args(["-czf"])
        .arg(world.from.path().join("a.tgz"))
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    let options = CopyOptions { unpack: true, ..CopyOptions::default() };
    world.copy_with(&["a.tgz"], "/t/", options).unwrap();
    assert_eq!(world.read("t/hello"), "hi");
    world.copy_with(&["plain.tar"], "/t/", options).unwrap();
    assert_eq!(world.read("t/plain.tar"), "this is no archive");
}
