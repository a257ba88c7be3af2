//! All that the commands of failed steps wrote, in files.
//!
//! ```text
//! ROOT/logs/steps/<seconds since 1970>-<process>-<step>.log    0600; there while its step runs, and
//!                                                               kept if that fails
//! ```
//!
//! A file is made with the first byte, and ends at [`LOG_BYTES_MAX`]. Old ones go when builds end
//! ([`prune`]), those of killed builds among them. A log is for people: that it cannot be written stops no build.

use std::collections::VecDeque;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use boatyard_content::Root;
use fs_err::File;

/// The largest log, in bytes; what a command writes beyond is left out, and that is said.
pub const LOG_BYTES_MAX: u64 = 64 << 20;
/// How many logs are kept, and how many bytes of them.
const LOGS_MAX: usize = 100;
const LOGS_BYTES_MAX: u64 = 256 << 20;
/// How many lines of the end are told with a failure, and how long each may be.
const LAST_LINES: usize = 20;
const LAST_LINE_BYTES_MAX: usize = 4096;

/// The log of a step while it runs. Dropped, it is gone; [`StepLog::keep`] keeps it.
#[derive(Debug)]
pub(crate) struct StepLog {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    /// It cannot be written.
    is_lost: bool,
    last: VecDeque<Vec<u8>>,
}

/// What is left of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Where all of it is, if there is any.
    pub path: Option<PathBuf>,
    /// Its last lines.
    pub last_lines: Vec<String>,
}

fn directory(root: &Path) -> PathBuf {
    root.join("logs/steps")
}

impl StepLog {
    /// Begins a log. `number` is one that no other step of this process has.
    pub(crate) fn new(root: &Root, began: i64, number: u32) -> StepLog {
        let name = format!("{began}-{}-{number}.log", std::process::id());
        StepLog {
            path: directory(root.path()).join(name),
            file: None,
            written: 0,
            is_lost: false,
            last: VecDeque::from([Vec::new()]),
        }
    }

    /// Adds what the command wrote.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for (index, part) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.last.push_back(Vec::new());
                if self.last.len() > LAST_LINES + 1 {
                    self.last.pop_front();
                }
            }
            if let Some(line) = self.last.back_mut() {
                let room = LAST_LINE_BYTES_MAX.saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(room)]);
            }
        }
        if !self.is_lost && self.written <= LOG_BYTES_MAX {
            self.is_lost = self.write(bytes).is_err();
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let directory = self.path.parent().unwrap_or(&self.path);
                fs_err::create_dir_all(directory)?;
                fs_err::set_permissions(directory, Permissions::from_mode(0o700))?;
                none.insert(File::create_new(&self.path)?)
            }
        };
        let room = usize::try_from(LOG_BYTES_MAX - self.written).unwrap_or(usize::MAX);
        if bytes.len() > room {
            file.write_all(&bytes[..room])?;
            file.write_all(b"\n[the rest is left out: this log is full]\n")?;
            self.written = LOG_BYTES_MAX + 1;
        } else {
            file.write_all(bytes)?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    /// Keeps the log: its step failed.
    pub(crate) fn keep(mut self) -> Kept {
        let lines = std::mem::take(&mut self.last).into_iter();
        let text = |line: Vec<u8>| String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut last_lines: Vec<String> = lines.map(text).collect();
        while last_lines.last().is_some_and(String::is_empty) {
            last_lines.pop();
        }
        let excess = last_lines.len().saturating_sub(LAST_LINES);
        last_lines.drain(..excess);
        let path = self.file.take().filter(|_| !self.is_lost).map(|_| self.path.clone());
        Kept { path, last_lines }
    }
}

impl Drop for StepLog {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What is left over is pruned by age.
            let _ = fs_err::remove_file(&self.path);
        }
    }
}

/// Removes logs that are older than `age_max`, and the oldest of too many. What cannot be removed
/// stays.
pub fn prune(root: &Path, age_max: Option<Duration>, now: SystemTime) {
    let Ok(entries) = fs_err::read_dir(directory(root)) else { return };
    let mut logs: Vec<(SystemTime, u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    logs.sort_by_key(|log| std::cmp::Reverse(log.0));
    let mut bytes = 0;
    for (index, (modified, size, path)) in logs.into_iter().enumerate() {
        bytes += size;
        let age = now.duration_since(modified).unwrap_or_default();
        let is_old = age_max.is_some_and(|max| age > max);
        if is_old || index >= LOGS_MAX || bytes > LOGS_BYTES_MAX && index > 0 {
            let _ = fs_err::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(directory: &Path) -> StepLog {
        StepLog {
            path: super::directory(directory).join("1-2-3.log"),
            file: None,
            written: 0,
            is_lost: false,
            last: VecDeque::from([Vec::new()]),
        }
    }

    #[test]
    fn is_kept_only_when_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = log(directory.path());
        let path = first.path.clone();
        first.push(b"one\n");
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());
        let mut second = log(directory.path());
        second.push(b"one\ntw");
        second.push(b"o\n\nthree\n\n");
        let kept = second.keep();
        assert_eq!(kept.last_lines, ["one", "two", "", "three"]);
        assert_eq!(fs_err::read_to_string(kept.path.unwrap()).unwrap(), "one\ntwo\n\nthree\n\n");
        assert_eq!(log(directory.path()).keep(), Kept::default());
    }

    #[test]
    fn has_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path());
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..65 {
            log.push(&chunk);
        }
        let path = log.keep().path.unwrap();
        assert!(fs_err::metadata(path).unwrap().len() < LOG_BYTES_MAX + 100);
    }

    #[test]
    fn old_ones_and_too_many_go() {
        let root = tempfile::tempdir().unwrap();
        let logs = directory(root.path());
        fs_err::create_dir_all(&logs).unwrap();
        for number in 0..LOGS_MAX + 3 {
            fs_err::write(logs.join(format!("{number}.log")), "x").unwrap();
        }
        let count = || fs_err::read_dir(&logs).unwrap().count();
        let now = SystemTime::now();
        prune(root.path(), None, now);
        assert_eq!(count(), LOGS_MAX);
        let hour = Duration::from_secs(3600);
        prune(root.path(), Some(hour), now);
        assert_eq!(count(), LOGS_MAX);
        prune(root.path(), Some(hour), now + 2 * hour);
        assert_eq!(count(), 0);
    }
}
