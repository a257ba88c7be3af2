//! Finding what package managers left, in the layers of an image.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use boatyard_content::Root;
use boatyard_oci::Descriptor;

use super::package::{Distribution, Package};
use super::sqlite::ReadAt;
use super::{SbomError, apk, dpkg, go, json, lines, rpm};
use crate::image::Image;
use crate::layer::whiteout::{self, Meaning};
use crate::layer::{Archive, DecompressLimits, Decompressor, Entry, EntryPath, Kind, Limits};

const READ_BYTES: usize = 256 << 10;
/// A document: what is larger is cut.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// What is read of a program at once; a multiple of 16.
const PIECE_BYTES: usize = 1 << 20;
/// An rpm database: the largest have some hundred megabytes.
const DATABASE_BYTES_MAX: u64 = 2 << 30;

/// What a file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    OsRelease,
    Dpkg,
    Apk,
    RpmSqlite,
    RpmNdb,
    RpmBerkeley,
    Python,
    NodePackage,
    NodeLock,
    GemfileLock,
    Gemspec,
    CargoLock,
    GoSum,
    Program,
}

/// Returns the packages of an image, each once in each place, sorted.
///
/// # Errors
/// Where a layer cannot be read.
pub fn packages(
    root: &Root,
    image: &Image,
    threads: usize,
    warn: &dyn Fn(&str),
) -> Result<Found, SbomError> {
    let mut scan = Scan { root, warn, hidden: Hidden::default(), found: Found::default() };
    let layers: Vec<&Descriptor> = image.manifest.layers.iter().collect();
    for layer in layers.into_iter().rev() {
        scan.layer(layer, threads)?;
        scan.hidden.end_layer();
    }
    let mut found = scan.found;
    found.packages.sort();
    found.packages.dedup();
    Ok(found)
}

/// What was found in an image.
#[derive(Debug, Default)]
pub struct Found {
    /// The packages.
    pub packages: Vec<Package>,
    pub(super) distribution: Option<Distribution>,
}

struct Scan<'a> {
    root: &'a Root,
    warn: &'a dyn Fn(&str),
    hidden: Hidden,
    found: Found,
}

impl Scan<'_> {
    fn layer(&mut self, layer: &Descriptor, threads: usize) -> Result<(), SbomError> {
        let digest = || layer.digest.clone();
        let read = |source| SbomError::Read { layer: digest(), source };
        let damaged = |source| SbomError::Archive { layer: digest(), source };
        let blob = self.root.store().open_blocking(&layer.digest);
        let blob = blob.map_err(|source| SbomError::Store { layer: digest(), source })?;
        let blob = blob.ok_or_else(|| SbomError::Missing(digest()))?.into_file();
        let plain = Decompressor::new(blob, threads, DecompressLimits::default()).map_err(read)?;
        let buffered = BufReader::with_capacity(READ_BYTES, plain);
        let mut archive = Archive::new(buffered, Limits::default());
        while let Some(entry) = archive.next_entry().map_err(damaged)? {
            let path = entry.path.clone();
            let entry = match whiteout::interpret(entry) {
                Ok(Meaning::Entry(entry)) => entry,
                // What no layer may have, nobody unpacks.
                Ok(Meaning::Ignored) | Err(_) => continue,
            };
            let is_shown = !self.hidden.hides(&path);
            self.hidden.see(&entry);
            if !is_shown || entry.kind != Kind::File {
                continue;
            }
            if let Some(what) = what(&entry) {
                let path = String::from_utf8_lossy(path.as_bytes()).into_owned();
                self.file(what, &path, &mut archive.content()).map_err(read)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, what: What, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let path = format!("/{path}");
        match what {
            What::Program => self.program(&path, content),
            What::RpmSqlite | What::RpmNdb => self.database(what, &path, content),
            What::RpmBerkeley => {
                (self.warn)(&format!(
                    "the SBOM lacks the packages of {path}: Berkeley DB is not read"
                ));
                Ok(())
            }
            what => {
                let mut bytes = Vec::new();
                content.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
                self.text(what, &path, &String::from_utf8_lossy(&bytes));
                Ok(())
            }
        }
    }

    fn text(&mut self, what: What, path: &str, text: &str) {
        let packages = &mut self.found.packages;
        match what {
            What::OsRelease => {
                // /etc's may be a link to /usr/lib's: both say the same.
                self.found.distribution.get_or_insert_with(|| lines::os_release(text));
            }
            What::Dpkg => packages.extend(dpkg::packages(text, path)),
            What::Apk => packages.extend(apk::packages(text, path)),
            What::Python => packages.extend(lines::python(text, path)),
            What::NodePackage => packages.extend(json::package(text, path)),
            What::NodeLock => packages.extend(json::lock(text, path)),
            What::GemfileLock => packages.extend(lines::gemfile_lock(text, path)),
            What::Gemspec => packages.extend(lines::gemspec(text, path)),
            What::CargoLock => packages.extend(lines::cargo_lock(text, path)),
            What::GoSum => packages.extend(lines::go_sum(text, path)),
            What::Program | What::RpmSqlite | What::RpmNdb | What::RpmBerkeley => {}
        }
    }

    /// Looks for what Go writes into programs.
    fn program(&mut self, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut is_first = true;
        loop {
            piece.clear();
            (&mut *content).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            if piece.is_empty() || (is_first && !piece.starts_with(b"\x7fELF")) {
                return Ok(());
            }
            is_first = false;
            if let Some(at) = go::find(&piece) {
                let mut info = piece.split_off(at);
                let rest = go::INFO_BYTES_MAX.saturating_sub(info.len()) as u64;
                content.take(rest).read_to_end(&mut info)?;
                self.found.packages.extend(go::modules(&info, path));
                return Ok(());
            }
        }
    }

    /// Reads a database from a file without a name.
    fn database(&mut self, what: What, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let directory = self.root.layout().ingests();
        fs_err::create_dir_all(&directory)?;
        let mut file = tempfile::tempfile_in(directory)?;
        let size = io::copy(&mut content.take(DATABASE_BYTES_MAX), &mut file)?;
        let spool = Spooled { file, size };
        let packages = match what {
            What::RpmSqlite => rpm::sqlite(&spool, path),
            _ => rpm::ndb(&spool, path),
        };
        match packages {
            Ok(packages) => self.found.packages.extend(packages),
            Err(error) => {
                (self.warn)(&format!("the SBOM lacks the packages of {path}: {error}"));
            }
        }
        Ok(())
    }
}

struct Spooled {
    file: File,
    size: u64,
}

impl ReadAt for Spooled {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Says what a file tells, by its path.
fn what(entry: &Entry) -> Option<What> {
    let path = std::str::from_utf8(entry.path.as_bytes()).ok()?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let parent = path.strip_suffix(name).unwrap_or_default().trim_end_matches('/');
    let directory = parent.rsplit('/').next().unwrap_or(parent);
    Some(match (parent, name) {
        ("etc" | "usr/lib", "os-release") => What::OsRelease,
        ("var/lib/dpkg", "status") => What::Dpkg,
        ("var/lib/dpkg/status.d", name) if !name.ends_with(".md5sums") => What::Dpkg,
        ("lib/apk/db" | "usr/lib/apk/db", "installed") => What::Apk,
        ("var/lib/rpm" | "usr/lib/sysimage/rpm" | "usr/share/rpm", "rpmdb.sqlite") => {
            What::RpmSqlite
        }
        ("var/lib/rpm" | "usr/lib/sysimage/rpm" | "usr/share/rpm", "Packages.db") => What::RpmNdb,
        ("var/lib/rpm", "Packages") => What::RpmBerkeley,
        (_, "METADATA") if directory.ends_with(".dist-info") => What::Python,
        (_, "PKG-INFO") if directory.ends_with(".egg-info") => What::Python,
        (_, name) if name.ends_with(".egg-info") => What::Python,
        (_, "package.json") if is_node_package(parent) => What::NodePackage,
        // What is installed is found by itself; the lock files of packages are those of their authors.
        (_, "package-lock.json") if !parent.contains("node_modules") => What::NodeLock,
        (_, "Gemfile.lock") if !parent.contains("/gems/") => What::GemfileLock,
        (_, name) if name.ends_with(".gemspec") && parent.contains("specifications") => {
            What::Gemspec
        }
        (_, "Cargo.lock") => What::CargoLock,
        (_, "go.sum") => What::GoSum,
        _ if entry.mode & 0o111 != 0 => What::Program,
        _ => return None,
    })
}

/// Says whether a directory is that of an installed package: `node_modules/name`, or
/// `node_modules/@scope/name`.
fn is_node_package(parent: &str) -> bool {
    let mut above = parent.rsplit('/').skip(1);
    match above.next() {
        Some("node_modules") => true,
        Some(scope) if scope.starts_with('@') => above.next() == Some("node_modules"),
        _ => false,
    }
}

/// What upper layers hide of lower ones.
#[derive(Debug, Default)]
struct Hidden {
    /// What is there in upper layers, or was deleted; no directories.
    paths: HashSet<EntryPath>,
    /// Directories whose content in lower layers is hidden.
    opaque: HashSet<EntryPath>,
    /// Those of the layer that is being read: they hide nothing of it.
    new: BTreeMap<Vec<u8>, (EntryPath, bool)>,
}

impl Hidden {
    fn hides(&self, path: &EntryPath) -> bool {
        if self.paths.contains(path) {
            return true;
        }
        let mut above = path.parent();
        while let Some(ancestor) = above {
            if self.paths.contains(&ancestor) || self.opaque.contains(&ancestor) {
                return true;
            }
            above = ancestor.parent();
        }
        false
    }

    fn see(&mut self, entry: &Entry) {
        let is_opaque = entry.kind == Kind::OpaqueWhiteout;
        if entry.kind == Kind::Directory {
            return;
        }
        let mut key = entry.path.as_bytes().to_vec();
        key.push(u8::from(is_opaque));
        self.new.insert(key, (entry.path.clone(), is_opaque));
    }

    fn end_layer(&mut self) {
        for (path, is_opaque) in std::mem::take(&mut self.new).into_values() {
            match is_opaque {
                true => self.opaque.insert(path),
                false => self.paths.insert(path),
            };
        }
    }
}
