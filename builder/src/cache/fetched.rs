//! What was fetched for ADD and contexts, as the cache lists and removes it: files of URLs, and Git
//! repositories. Who keeps them is [`crate::source::Fetch`]'s business; this is where they lie.
//!
//! ```text
//! ROOT/cache/http/files/<sha256>/{body,facts}     urls/<hash> and sums/<name> lead there
//! ROOT/cache/git/<hash>/{repository,remote,lock}  held by the lock while it is read
//! ```

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use super::files;

/// How the names of directories begin that are being removed.
const GONE: &str = ".gone-";

/// A directory of something that was fetched.
pub(super) struct Fetched {
    /// What it is, for people.
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) bytes: u64,
    pub(super) used: SystemTime,
    pub(super) is_in_use: bool,
    /// The small files that lead to it.
    pub(super) names: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Facts {
    from: String,
}

#[derive(Deserialize)]
struct Answer {
    sha256: String,
}

/// Lists what was fetched, and names that lead nowhere.
pub(super) fn list(cache: &Path) -> io::Result<(Vec<Fetched>, Vec<PathBuf>)> {
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    let http = cache.join("http");
    let mut at: HashMap<String, usize> = HashMap::new();
    for directory in files::list(&http.join("files"))? {
        let facts = directory.join("facts");
        let Some((_, used)) = files::size_and_time(&facts)? else { continue };
        let text = files::read(&facts)?.unwrap_or_default();
        let name =
            serde_json::from_slice::<Facts>(&text).map_or_else(|_| String::new(), |f| f.from);
        if let Some(sha256) = directory.file_name().and_then(|name| name.to_str()) {
            at.insert(sha256.to_owned(), found.len());
        }
        let bytes = size(&directory)?;
        found.push(Fetched { name, directory, bytes, used, is_in_use: false, names: Vec::new() });
    }
    for path in files::list(&http.join("urls"))?.into_iter().chain(files::list(&http.join("sums"))?)
    {
        let text = files::read(&path)?.unwrap_or_default();
        let sha256 = serde_json::from_slice::<Answer>(&text).map(|answer| answer.sha256);
        let sha256 = sha256.unwrap_or_else(|_| String::from_utf8_lossy(&text).into_owned());
        match at.get(&sha256) {
            Some(place) => found[*place].names.push(path),
            None => lost.push(path),
        }
    }
    for directory in files::list(&cache.join("git"))? {
        let lock = directory.join("lock");
        let Some((_, used)) = files::size_and_time(&lock)? else { continue };
        let name = files::read(&directory.join("remote"))?.unwrap_or_default();
        let name = String::from_utf8_lossy(&name).into_owned();
        let is_in_use = take(&lock)?.is_none();
        let bytes = size(&directory)?;
        found.push(Fetched { name, directory, bytes, used, is_in_use, names: Vec::new() });
    }
    Ok((found, lost))
}

/// Removes something that was fetched; `false` where somebody uses it now.
pub(super) fn remove(directory: &Path) -> io::Result<bool> {
    let lock = directory.join("lock");
    let held = match lock.exists() {
        true => match take(&lock)? {
            Some(held) => Some(held),
            None => return Ok(false),
        },
        false => None,
    };
    // Whoever opens the lock from now on finds that it leads nowhere.
    let parent = directory.parent().unwrap_or(directory);
    let doomed = tempfile::Builder::new().prefix(GONE).tempdir_in(parent)?;
    match fs::rename(directory, doomed.path().join("it")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed?,
    }
    drop(held);
    doomed.close()?;
    Ok(true)
}

/// Removes what killed processes were about to remove.
pub(super) fn sweep(cache: &Path) -> io::Result<()> {
    for directory in [cache.join("http/files"), cache.join("git")] {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
                // Another process may be at it.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    Ok(())
}

/// Takes a lock that nobody else has; `None` where somebody has it.
fn take(path: &Path) -> io::Result<Option<fs::File>> {
    let file = fs::File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn size(directory: &Path) -> io::Result<u64> {
    let (mut bytes, mut waiting) = (0, vec![directory.to_path_buf()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(found) if found.is_dir() => waiting.push(entry.path()),
                Ok(found) => bytes += found.len(),
                // Git removes files of its own at any time.
                Err(_) => {}
            }
        }
    }
    Ok(bytes)
}
