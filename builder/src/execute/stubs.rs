//! A layer of empty mount points, to lie beneath an image's own layers while a step runs.
//!
//! Mounting takes a place to mount on, and an image may lack `/proc` or `/etc/resolv.conf`.
//! Made in the overlay they would land in its upper directory, which becomes the layer. Instead
//! the snapshotter puts this directory below the image's lowest one, read-only as all of them:
//! what the image has hides the stub, what it lacks is there, and the upper directory stays clean.
//!
//! What cannot be foreseen (`/etc` is a link in the image, a `RUN --mount` somewhere) is made by
//! the step and removed after it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// The mount points of every step.
pub const STANDARD: [Target<'static>; 5] = [
    Target::Directory("/proc"),
    Target::Directory("/sys"),
    Target::Directory("/dev"),
    Target::File("/etc/resolv.conf"),
    Target::File("/etc/hosts"),
];

/// A place to mount something on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// For a directory.
    Directory(&'a str),
    /// For a file.
    File(&'a str),
}

/// Makes empty files and directories at `targets` within `directory`, which must exist.
///
/// The same call made twice is harmless. All have the epoch as their time, so that stubs do not
/// tell when they were made.
///
/// # Errors
///
/// Those of the file system; `InvalidInput` for a target with `..` in it.
pub fn create(directory: &Path, targets: &[Target<'_>]) -> io::Result<()> {
    let mut made = Vec::new();
    for target in targets {
        let (Target::Directory(path) | Target::File(path)) = target;
        let path = inside(directory, path)?;
        let parent = match target {
            Target::Directory(_) => path.as_path(),
            Target::File(_) => path.parent().unwrap_or(directory),
        };
        let between = parent.ancestors().take_while(|ancestor| *ancestor != directory);
        made.extend(between.map(Path::to_owned));
        fs_err::create_dir_all(parent)?;
        if let Target::File(_) = target {
            fs_err::OpenOptions::new().append(true).create(true).open(&path)?;
            made.push(path);
        }
    }
    made.push(directory.to_owned());
    // The deepest first: making what is in a directory changes its time.
    made.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in made {
        settle(&path)?;
    }
    Ok(())
}

fn inside(directory: &Path, path: &str) -> io::Result<PathBuf> {
    let mut inside = directory.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("mount target {path} leads upwards"),
                ));
            }
        }
    }
    Ok(inside)
}

/// Gives a stub the mode and the time that a step sees, whatever our own mask is.
fn settle(path: &Path) -> io::Result<()> {
    let file = fs_err::File::open(path)?;
    let mode = if file.metadata()?.is_dir() { 0o755 } else { 0o644 };
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    file.file().set_modified(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_each_target_with_the_directories_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let targets = [STANDARD.as_slice(), &[Target::Directory("/var/cache/apt")]].concat();
        for _ in 0..2 {
            create(dir.path(), &targets).unwrap();
        }
        let kind = |path: &str| {
            let found = fs_err::metadata(dir.path().join(path)).unwrap();
            assert_eq!(found.modified().unwrap(), SystemTime::UNIX_EPOCH, "{path}");
            (found.is_dir(), found.permissions().mode() & 0o7777)
        };
        for directory in ["", "proc", "sys", "dev", "etc", "var", "var/cache", "var/cache/apt"] {
            assert_eq!(kind(directory), (true, 0o755), "{directory}");
        }
        for file in ["etc/resolv.conf", "etc/hosts"] {
            assert_eq!(kind(file), (false, 0o644), "{file}");
        }
    }

    #[test]
    fn refuses_to_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let error = create(dir.path(), &[Target::File("/etc/../../x")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
