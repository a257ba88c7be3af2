//! A base image from this machine's own tools: busybox, or else the shell and a few programs with
//! the libraries that they need.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use boatyard_builder::layer::entry::{Entry, EntryPath, Kind};
use boatyard_builder::layer::tar::Writer;

use crate::report::{Context as _, Failure, Result};

/// Where busybox may be.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];

/// The programs that the example needs, if there is no busybox.
const PROGRAMS: [&str; 8] = ["sh", "mkdir", "chmod", "cat", "ls", "wc", "echo", "rm"];

/// Returns a root file system as a tar.
pub fn archive() -> Result<Vec<u8>> {
    let mut files = Files::default();
    for directory in ["bin", "etc", "tmp"] {
        files.directory(directory);
    }
    match BUSYBOX.iter().map(Path::new).find_map(applets) {
        Some((busybox, applets)) => files.busybox(busybox, &applets),
        None => files.programs()?,
    }
    files.text("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
    files.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    files.write()
}

/// Returns a busybox that runs here and needs no libraries, with the names of its tools.
fn applets(busybox: &Path) -> Option<(&Path, String)> {
    let listed = Command::new(busybox).arg("--list").output().ok()?;
    let is_static = libraries(busybox).ok()?.is_empty();
    let works = listed.status.success() && is_static;
    works.then(|| (busybox, String::from_utf8_lossy(&listed.stdout).into_owned()))
}

/// Returns the libraries that a program needs, as the system's `ldd` finds them.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    if !output.status.success() {
        // A program without libraries is "not a dynamic executable".
        return Ok(BTreeSet::new());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().flat_map(str::split_whitespace);
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// What goes into the archive: sorted by path, parents first.
#[derive(Default)]
struct Files {
    entries: std::collections::BTreeMap<String, Content>,
}

enum Content {
    Directory,
    Link(String),
    Text(String),
    Copy(PathBuf),
}

impl Files {
    fn directory(&mut self, path: &str) {
        self.entries.insert(path.to_owned(), Content::Directory);
    }

    fn text(&mut self, path: &str, text: &str) {
        self.entries.insert(path.to_owned(), Content::Text(text.to_owned()));
    }

    fn busybox(&mut self, busybox: &Path, applets: &str) {
        self.entries.insert("bin/busybox".to_owned(), Content::Copy(busybox.to_path_buf()));
        for applet in applets.lines() {
            if !applet.is_empty() && !applet.contains('/') && applet != "busybox" {
                let link = Content::Link("busybox".to_owned());
                self.entries.insert(format!("bin/{applet}"), link);
            }
        }
    }

    fn programs(&mut self) -> Result<()> {
        for program in PROGRAMS {
            let path = ["/bin", "/usr/bin"]
                .iter()
                .map(|directory| Path::new(directory).join(program))
                .find(|path| path.exists())
                .ok_or_else(|| {
                    Failure::new(format!("this machine has no `{program}` to make an image of"))
                        .hint("install busybox-static")
                })?;
            let real = fs_err::canonicalize(&path).context("cannot find a program")?;
            for library in libraries(&real)? {
                self.copy(&library)?;
            }
            self.entries.insert(format!("bin/{program}"), Content::Copy(real));
        }
        Ok(())
    }

    /// Adds a library under its own path, with the directories above it.
    fn copy(&mut self, library: &Path) -> Result<()> {
        let relative = library.strip_prefix("/").context("a library has no path")?;
        let mut above = relative.parent();
        while let Some(directory) = above.filter(|directory| !directory.as_os_str().is_empty()) {
            self.directory(&directory.to_string_lossy());
            above = directory.parent();
        }
        let real = fs_err::canonicalize(library).context("cannot find a library")?;
        self.entries.insert(relative.to_string_lossy().into_owned(), Content::Copy(real));
        Ok(())
    }

    fn write(self) -> Result<Vec<u8>> {
        let failed = "cannot make the base image";
        let mut archive = Writer::new(Vec::new());
        for (path, content) in self.entries {
            let path = EntryPath::parse(path.as_bytes()).context(failed)?;
            let mut reader: Box<dyn Read> = Box::new(std::io::empty());
            let mut entry = match content {
                Content::Directory => Entry::new(path, Kind::Directory, 0o755),
                Content::Link(target) => {
                    Entry::new(path, Kind::Symlink { target: target.into_bytes() }, 0o777)
                }
                Content::Text(text) => {
                    let mut entry = Entry::new(path, Kind::File, 0o644);
                    entry.size = text.len() as u64;
                    reader = Box::new(std::io::Cursor::new(text.into_bytes()));
                    entry
                }
                Content::Copy(from) => {
                    let file = fs_err::File::open(from).context(failed)?;
                    let mut entry = Entry::new(path, Kind::File, 0o755);
                    entry.size = file.metadata().context(failed)?.len();
                    reader = Box::new(file);
                    entry
                }
            };
            if entry.path.as_bytes() == b"tmp" {
                entry.mode = 0o1777;
            }
            archive.append(&entry, &mut *reader).context(failed)?;
        }
        archive.finish().context(failed)
    }
}
