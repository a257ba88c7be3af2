//! A disk that knows what a power cut would leave.
//!
//! Every change goes to the real file system at once, so that the store works as always. Beside
//! it the disk keeps a model of what is durable: a file's content as of its last sync, a
//! directory's entries as of theirs. [`CrashingDisk::crash_into`] writes that model out as a
//! new tree: the worst that a disk without reordering may keep. A change counter lets a test cut
//! the power before every single change in turn.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;

use crate::local::disk::{Disk, RealDisk};

/// A disk that remembers what was synced. Meant for small trees: contents are kept in memory.
#[derive(Debug)]
pub struct CrashingDisk {
    root: PathBuf,
    model: Mutex<Model>,
}

type Inode = u64;

#[derive(Debug, Default)]
struct Model {
    /// What each directory durably lists: name to inode.
    directories: BTreeMap<Inode, BTreeMap<std::ffi::OsString, Inode>>,
    /// What each file durably holds. Of a file that is not here, nothing was synced.
    files: BTreeMap<Inode, Vec<u8>>,
    changes: u64,
    cut_at: Option<u64>,
    /// Keeps inode numbers from being used again within a test.
    keep: Vec<fs::File>,
}

impl CrashingDisk {
    /// Returns a disk for what will lie in `root`, a directory that exists and is empty.
    pub fn new(root: &Path) -> CrashingDisk {
        CrashingDisk { root: root.to_path_buf(), model: Mutex::default() }
    }

    /// Cuts the power before the change of this number, counted from zero: it and all later ones
    /// fail.
    pub fn cut_at(&self, change: u64) {
        self.model().cut_at = Some(change);
    }

    /// Returns how many changes were made.
    pub fn changes(&self) -> u64 {
        self.model().changes
    }

    /// Writes what is durable into a new directory.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn crash_into(&self, to: &Path) -> io::Result<()> {
        let root = fs::metadata(&self.root)?.ino();
        self.model().write_out(root, to)
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spend(&self) -> io::Result<()> {
        let mut model = self.model();
        if model.cut_at.is_some_and(|cut| model.changes >= cut) {
            return Err(io::Error::other("the power is cut"));
        }
        model.changes += 1;
        Ok(())
    }
}

impl Model {
    fn write_out(&self, directory: Inode, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for (name, inode) in self.directories.get(&directory).into_iter().flatten() {
            let to = to.join(name);
            if self.directories.contains_key(inode) {
                self.write_out(*inode, &to)?;
            } else {
                fs::write(&to, self.files.get(inode).map_or(&[][..], Vec::as_slice))?;
            }
        }
        Ok(())
    }
}

impl Disk for CrashingDisk {
    fn create(&self, path: &Path) -> io::Result<fs::File> {
        self.spend()?;
        let file = RealDisk.create(path)?;
        self.model().keep.push(fs::File::open(path)?);
        Ok(file)
    }

    fn write(&self, file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
        self.spend()?;
        RealDisk.write(file, bytes)
    }

    fn cut(&self, file: &fs::File, len: u64) -> io::Result<()> {
        self.spend()?;
        RealDisk.cut(file, len)
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        self.spend()?;
        let inode = file.metadata()?.ino();
        let content = fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))?;
        self.model().files.insert(inode, content);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        let mut listed = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            listed.insert(entry.file_name(), entry.metadata()?);
        }
        let inode = fs::metadata(path)?.ino();
        let mut model = self.model();
        for metadata in listed.values().filter(|metadata| metadata.is_dir()) {
            // One that was made without this disk (locks, leases) is durably empty.
            model.directories.entry(metadata.ino()).or_default();
        }
        let listed = listed.into_iter().map(|(name, metadata)| (name, metadata.ino())).collect();
        model.directories.insert(inode, listed);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        RealDisk.rename(from, to)
    }

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        self.spend()?;
        let made = RealDisk.make_directory(path)?;
        if made {
            let inode = fs::metadata(path)?.ino();
            let mut model = self.model();
            model.directories.entry(inode).or_default();
            model.keep.push(fs::File::open(path)?);
        }
        Ok(made)
    }

    fn remove_file(&self, path: &Path) -> io::Result<bool> {
        self.spend()?;
        RealDisk.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        RealDisk.remove_directory(path)
    }
}
