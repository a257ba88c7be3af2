//! A tree of files as a list of lines, so that two of them can be compared and read.
//!
//! ```text
//! made/run f 4755 1000:50 12 sha256:2c26b46b security.capability=0100000200040000...
//! made/to  l 0777 0:0 -> run
//! made/two f 0644 0:0 =made/one
//! ```

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use boatyard_oci::Digest;

/// Returns the lines of everything below a directory, in order.
pub fn list(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    walk(root, Path::new(""), &mut paths);
    paths.sort();
    let mut first_of = BTreeMap::new();
    paths.into_iter().map(|path| line(root, &path, &mut first_of)).collect()
}

/// Returns the lines of what lies below one directory of a tree.
pub fn below(lines: &[String], directory: &str) -> Vec<String> {
    lines.iter().filter(|line| line.starts_with(directory)).cloned().collect()
}

/// Fails the test with the differing lines unless the trees are the same.
#[track_caller]
pub fn assert_same(what: &str, found: &[String], expected: &[String]) {
    let lacks: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
    let extra: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
    let all = found.join("\n");
    assert!(
        lacks.is_empty() && extra.is_empty(),
        "{what}: lacks {lacks:#?}, has {extra:#?}; all of it:\n{all}"
    );
}

fn walk(root: &Path, below: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, paths);
        }
        paths.push(path);
    }
}

fn line(root: &Path, path: &Path, first_of: &mut BTreeMap<u64, String>) -> String {
    let full = root.join(path);
    let metadata = fs_err::symlink_metadata(&full).unwrap();
    let kind = metadata.file_type();
    let name = path.as_os_str().as_bytes().escape_ascii().to_string();
    let (letter, rest) = if kind.is_symlink() {
        let target = fs_err::read_link(&full).unwrap();
        ("l", format!("-> {}", target.as_os_str().as_bytes().escape_ascii()))
    } else if kind.is_dir() {
        ("d", String::new())
    } else if kind.is_file() {
        ("f", content(&full, &metadata, &name, first_of))
    } else if kind.is_fifo() {
        ("p", String::new())
    } else if kind.is_char_device() {
        ("c", device(metadata.rdev()))
    } else {
        ("?", device(metadata.rdev()))
    };
    let mode = metadata.mode() & 0o7777;
    let owner = format!("{}:{}", metadata.uid(), metadata.gid());
    let line = format!("{name} {letter} {mode:04o} {owner} {rest} {}", xattrs(&full));
    line.trim_end().split("  ").collect::<Vec<_>>().join(" ")
}

fn content(
    path: &Path,
    metadata: &std::fs::Metadata,
    name: &str,
    first_of: &mut BTreeMap<u64, String>,
) -> String {
    if metadata.nlink() > 1 {
        if let Some(first) = first_of.get(&metadata.ino()) {
            return format!("={first}");
        }
        first_of.insert(metadata.ino(), name.to_owned());
    }
    let digest = Digest::sha256(&fs_err::read(path).unwrap());
    format!("{} sha256:{}", metadata.len(), &digest.hex()[..8])
}

fn device(number: u64) -> String {
    format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0_u8; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return String::new() };
    let mut pairs: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."))
        .map(|name| xattr(path, &OsString::from_vec(name.to_vec())))
        .collect();
    pairs.sort();
    pairs.join(" ")
}

fn xattr(path: &Path, name: &OsStr) -> String {
    let mut value = vec![0_u8; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    let hex: String = value[..length].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}={hex}", name.to_string_lossy())
}
