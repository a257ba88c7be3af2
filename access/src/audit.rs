//! Who did what: lines of JSON that only grow.
//!
//! ```text
//! ROOT/logs/audit/          0700
//!     <number>.jsonl        the newest has the highest number; 16 MiB each, the last 8 are kept
//!     lock                  held while a new one is begun
//! ```
//!
//! A line is written whole, with one system call, before the deed is answered: what a client was
//! told about survives the end of the process. It survives the end of the machine once it was
//! synced: at once for what changes users and tokens and for what deletes, and at most
//! [`SYNC_SECONDS`] later for the rest. No line has a secret, nor what was tried as a user's name
//! by somebody who is none: people type passwords there.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::caller::Origin;
use crate::private::{self, Locked};

/// How large a file becomes, and how many are kept.
const FILE_BYTES_MAX: u64 = 16 << 20;
const FILES_MAX: u64 = 8;
/// How long a line may wait to be synced, while others follow it.
pub const SYNC_SECONDS: u64 = 1;
/// The most bytes of one line that are read.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// A manifest was pushed; perhaps tags point at it now.
    Push,
    /// A tag points at another manifest now.
    Overwrite,
    /// A manifest, a tag or a blob was deleted.
    Delete,
    /// A rule of retention took a tag or a manifest away.
    Retire,
    /// Somebody may not do what they wanted to do.
    Denied,
    /// A password, a token or a signature was wrong.
    LoginFailed,
    /// A user was added.
    UserAdded,
    /// A user was removed.
    UserRemoved,
    /// A user's password was changed.
    PasswordChanged,
    /// A token was made.
    TokenCreated,
    /// A token was revoked.
    TokenRevoked,
}

impl Deed {
    /// Says whether it must survive a power cut that follows at once.
    fn is_grave(self) -> bool {
        !matches!(self, Deed::Push | Deed::Retire | Deed::Denied | Deed::LoginFailed)
    }

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Deed::Push => "push",
            Deed::Overwrite => "overwrite",
            Deed::Delete => "delete",
            Deed::Retire => "retire",
            Deed::Denied => "denied",
            Deed::LoginFailed => "login-failed",
            Deed::UserAdded => "user-added",
            Deed::UserRemoved => "user-removed",
            Deed::PasswordChanged => "password-changed",
            Deed::TokenCreated => "token-created",
            Deed::TokenRevoked => "token-revoked",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// What.
    pub deed: Deed,
    /// By whom: `user:alice`, `token:ci`, `cert:x`, `anonymous`; on the machine itself `uid:1000`.
    pub who: String,
    /// From which address; nothing for what was done on the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// In which repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// To what: a tag, a digest, a user, a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The digest that it is now, and the one that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest that it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Why, or how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Entry {
    /// Returns an entry of now of a request.
    pub fn from_origin(deed: Deed, who: String, origin: &Origin) -> Entry {
        Entry {
            from: origin.address.map(|address| address.to_string()),
            request: origin.request_id.as_deref().map(str::to_owned),
            ..Entry::new(deed, who)
        }
    }

    /// Returns an entry of now that says no more than who did what.
    pub fn new(deed: Deed, who: String) -> Entry {
        Entry {
            time: Timestamp::now(),
            deed,
            who,
            from: None,
            request: None,
            repository: None,
            target: None,
            digest: None,
            previous: None,
            detail: None,
        }
    }
}

/// The log of a root. Several processes write to it at once.
#[derive(Debug)]
pub struct Audit {
    directory: PathBuf,
    bytes_max: u64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<File>,
    unsynced_since: Option<Instant>,
}

impl Audit {
    /// Returns the log of a root, whose first line makes it.
    pub fn new(root: &Path) -> Audit {
        Audit {
            directory: root.join("logs/audit"),
            bytes_max: FILE_BYTES_MAX,
            open: Mutex::default(),
        }
    }

    /// Writes a line. One that cannot be written stands in the other log instead: a full disk does
    /// not stop those who want to delete something.
    pub fn record(&self, entry: &Entry) {
        if let Err(error) = self.try_record(entry) {
            tracing::error!(
                deed = entry.deed.as_str(),
                who = entry.who,
                target = entry.target,
                "cannot write to the audit log: {error}"
            );
        }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Where it could not be written.
    pub fn try_record(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |file: &File| Ok::<_, io::Error>(file.metadata()?.len() >= self.bytes_max);
        if match &open.file {
            None => true,
            Some(file) => full(file)?,
        } {
            open.file = Some(self.newest()?);
            open.unsynced_since = None;
        }
        let now = Instant::now();
        let since = *open.unsynced_since.get_or_insert(now);
        let Some(mut file) = open.file.as_ref() else { return Ok(()) };
        file.write_all(&line)?;
        if entry.deed.is_grave() || now - since >= Duration::from_secs(SYNC_SECONDS) {
            file.sync_data()?;
            open.unsynced_since = None;
        }
        Ok(())
    }

    /// Makes durable what waits for that; called now and then, and at the end.
    pub fn sync(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.unsynced_since.take().is_some()
            && let Some(file) = &open.file
            && let Err(error) = file.sync_data()
        {
            tracing::error!("cannot sync the audit log: {error}");
        }
    }

    /// Opens the newest file, and begins another where that is full.
    fn newest(&self) -> io::Result<File> {
        let _locked = Locked::wait(&self.directory)?;
        let numbers = self.numbers()?;
        let mut number = numbers.last().copied().unwrap_or(1);
        let mut file = self.append(number)?;
        if file.metadata()?.len() >= self.bytes_max {
            file.sync_data()?;
            number += 1;
            file = self.append(number)?;
        }
        fs::File::open(&self.directory)?.sync_all()?;
        for old in numbers.iter().filter(|old| **old + FILES_MAX <= number) {
            private::remove(&self.path(*old))?;
        }
        // What a crash cut off must not spoil the line that follows it.
        if let Some(end) = file.metadata()?.len().checked_sub(1) {
            let mut last = [0];
            file.seek(SeekFrom::Start(end))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(file)
    }

    fn append(&self, number: u64) -> io::Result<File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).append(true).create(true);
        options.options_mut().mode(0o600);
        Ok(options.open(self.path(number))?.into_file())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:08}.jsonl"))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number: Option<u64> =
                name.to_str().and_then(|name| name.strip_suffix(".jsonl")?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Passes every line that can be read to `each`, the oldest first, as long as it says to go on.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read(&self, mut each: impl FnMut(Entry) -> bool) -> io::Result<()> {
        if !self.directory.is_dir() {
            return Ok(());
        }
        for number in self.numbers()? {
            let file = match fs::File::open(self.path(number)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut lines = io::BufReader::new(file);
            while let Some(line) = next_line(&mut lines)? {
                let Ok(entry) = serde_json::from_slice(&line) else { continue };
                if !each(entry) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Reads a line; of one that is too long, as much as is looked at.
fn next_line(lines: &mut impl io::BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    io::Read::take(&mut *lines, LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    Ok(if line.is_empty() { None } else { Some(line) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: &str) -> Entry {
        Entry::new(Deed::Push, who.to_owned())
    }

    fn all(audit: &Audit) -> Vec<String> {
        let mut all = Vec::new();
        audit
            .read(|entry| {
                all.push(entry.who);
                true
            })
            .unwrap();
        all
    }

    #[test]
    fn what_was_recorded_is_read_in_its_order() {
        let root = tempfile::tempdir().unwrap();
        let audit = Audit::new(root.path());
        assert!(all(&audit).is_empty());
        audit.record(&entry("a"));
        // Another process.
        Audit::new(root.path()).record(&Entry::new(Deed::UserAdded, "b".to_owned()));
        audit.record(&entry("c"));
        audit.sync();
        assert_eq!(all(&audit), ["a", "b", "c"]);
    }

    #[test]
    fn a_torn_line_costs_nothing_but_itself() {
        let root = tempfile::tempdir().unwrap();
        Audit::new(root.path()).record(&entry("a"));
        let path = Audit::new(root.path()).path(1);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"{\"time\":\"20");
        fs::write(&path, bytes).unwrap();
        let audit = Audit::new(root.path());
        audit.record(&entry("b"));
        assert_eq!(all(&audit), ["a", "b"]);
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let root = tempfile::tempdir().unwrap();
        let audit = Audit { bytes_max: 300, ..Audit::new(root.path()) };
        for n in 0..100 {
            audit.record(&entry(&n.to_string()));
        }
        let numbers = audit.numbers().unwrap();
        assert_eq!(numbers.len(), FILES_MAX as usize, "{numbers:?}");
        let kept = all(&audit);
        assert_eq!(kept.last().unwrap(), "99");
        assert!(kept.len() < 50);
    }
}
