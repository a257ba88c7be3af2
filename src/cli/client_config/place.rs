//! Files of a client's settings: shown, or put in their places.

use std::fmt;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt as _;

use serde_json::Value;

use super::lines::{self, Setting};
use crate::report::{Context as _, Failure, Result};

/// What the first line of our files says, so that we overwrite no other's.
pub const MARK: &str = "# Written by `boatyard client-config`; it may be overwritten.";
/// The same without what makes it a comment.
pub const MARK_TEXT: &str = "Written by `boatyard client-config`; it may be overwritten.";
/// What is added to the name of a file that was there before, for `--undo`.
const BACKUP: &str = ".before-boatyard";

/// A client's settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Its files.
    pub files: Vec<File>,
    /// What is to be done beside.
    pub notes: Vec<String>,
}

/// A file of settings.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Where it belongs.
    pub path: PathBuf,
    /// What it says.
    pub content: Content,
}

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// All of it; ours alone.
    Whole(String),
    /// Keys of a JSON object that may have others: what is there stays, lists grow.
    Keys(Value),
    /// Keys of a file with one to a line, which may have others.
    Lines(Vec<Setting>),
    /// Lines that lie below one of some URLs, by http or https, lie below another one.
    Moved {
        /// The URLs.
        from: Vec<String>,
        /// The other one, with a slash at its end.
        to: String,
    },
}

impl Settings {
    /// Puts the files in their places, below a directory if one is given, and returns where.
    ///
    /// # Errors
    /// Where a file is somebody else's, or cannot be written.
    pub fn write(&self, below: Option<&Path>) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for file in &self.files {
            let path = match below {
                Some(below) => below.join(file.path.strip_prefix("/").unwrap_or(&file.path)),
                None => file.path.clone(),
            };
            let before = match fs_err::read_to_string(&path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(error).context("cannot read what is there"),
            };
            let text = file.content.over(before.as_deref(), &path)?;
            if before.as_deref() != Some(text.as_str()) {
                keep(&path, before.as_deref()).context("cannot keep what is there")?;
                put(&path, &text).context("cannot write the settings")?;
            }
            written.push(path);
        }
        Ok(written)
    }

    /// Puts back what was there before, and returns where; our own files are deleted.
    ///
    /// # Errors
    /// Where a file cannot be read, renamed or deleted.
    pub fn undo(&self, below: Option<&Path>) -> Result<Vec<PathBuf>> {
        let mut undone = Vec::new();
        for file in &self.files {
            let path = match below {
                Some(below) => below.join(file.path.strip_prefix("/").unwrap_or(&file.path)),
                None => file.path.clone(),
            };
            let backup = with(&path, BACKUP);
            let there = match fs_err::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error).context("cannot read what is there"),
            };
            if backup.exists() {
                fs_err::rename(&backup, &path).context("cannot put back what was there")?;
            } else if file.content.made(&there, &path) {
                fs_err::remove_file(&path).context("cannot delete the settings")?;
            } else {
                continue;
            }
            undone.push(path);
        }
        Ok(undone)
    }
}

/// Says whether we made a file, and nobody else.
fn is_ours(text: &str) -> bool {
    text.lines().next().is_some_and(|first| first.contains(MARK_TEXT))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Keeps what somebody else wrote, the first time that it is changed.
fn keep(path: &Path, before: Option<&str>) -> std::io::Result<()> {
    let backup = with(path, BACKUP);
    if before.is_none_or(is_ours) || backup.exists() {
        return Ok(());
    }
    fs_err::copy(path, backup).map(drop)
}

/// Writes a file whole, then gives it its name.
fn put(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs_err::create_dir_all(directory)?;
    let name = with(path, ".new");
    // What was for one user's eyes (`.npmrc` may hold a token) is so at any time.
    let mut file = fs_err::OpenOptions::new();
    file.write(true).create(true).truncate(true).mode(0o600);
    file.open(&name)?.write_all(text.as_bytes())?;
    let permissions = match fs_err::metadata(path) {
        Ok(before) => before.permissions(),
        Err(_) => Permissions::from_mode(0o644),
    };
    fs_err::set_permissions(&name, permissions)?;
    fs_err::rename(&name, path)
}

impl Content {
    /// Says whether a file is as we made it, with nothing of anybody else in it.
    fn made(&self, there: &str, path: &Path) -> bool {
        let is_all_ours = matches!(self, Content::Whole(_))
            || self.over(None, path).is_ok_and(|fresh| fresh == there);
        is_all_ours && is_ours(there)
    }

    /// Returns the text of the file, over what is there.
    fn over(&self, before: Option<&str>, path: &Path) -> Result<String> {
        let before = before.filter(|text| !text.trim().is_empty());
        match self {
            Content::Whole(text) => match before {
                Some(there) if !is_ours(there) && there != text => {
                    Err(Failure::new(format!("{} is somebody else's", path.display()))
                        .hint("move it away, or add by hand what this command prints"))
                }
                _ => Ok(text.clone()),
            },
            Content::Keys(keys) => {
                let mut all = match before {
                    Some(text) => serde_json::from_str(text)
                        .context(format!("{} is not JSON", path.display()))?,
                    None => Value::Object(serde_json::Map::default()),
                };
                merge(&mut all, keys);
                Ok(format!("{}\n", pretty(&all)))
            }
            Content::Lines(settings) => {
                let ours = format!("{MARK}\n");
                Ok(lines::set(before.unwrap_or(&ours), settings))
            }
            Content::Moved { from, to } => match before {
                Some(text) => Ok(moved(text, from, to)),
                None => Err(Failure::new(format!("there is no {}", path.display()))
                    .hint("it is changed where it names the upstream's servers")),
            },
        }
    }
}

/// Returns a text whose lines below one of some URLs are below another one.
fn moved(text: &str, from: &[String], to: &str) -> String {
    let bare = |url: &str| {
        let url = url.trim_end_matches('/');
        url.split_once("://").map_or(url, |(_, rest)| rest).to_owned()
    };
    let from: Vec<String> = from.iter().map(|url| bare(url)).collect();
    let line = |line: &str| {
        // `@tag URL` is a line, too.
        let at = line.find("http").unwrap_or(line.len());
        let (before, url) = line.split_at(at);
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let below =
            from.iter().find_map(|from| rest?.strip_prefix(from.as_str())?.strip_prefix('/'));
        below.map_or_else(|| format!("{line}\n"), |below| format!("{before}{to}{below}\n"))
    };
    text.lines().map(line).collect()
}

/// Adds keys to an object: what is there stays, lists grow by what they lack.
fn merge(all: &mut Value, keys: &Value) {
    match (all, keys) {
        (Value::Object(all), Value::Object(keys)) => {
            for (key, value) in keys {
                match all.get_mut(key) {
                    Some(there) => merge(there, value),
                    None => drop(all.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(all), Value::Array(more)) => {
            for value in more {
                if !all.contains(value) {
                    all.push(value.clone());
                }
            }
        }
        (all, other) => *all = other.clone(),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value can be written")
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, file) in self.files.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            writeln!(f, "==> {} <==", file.path.display())?;
            match &file.content {
                Content::Whole(text) => f.write_str(text)?,
                Content::Keys(keys) => writeln!(f, "{}", pretty(keys))?,
                Content::Lines(settings) => f.write_str(&lines::set("", settings))?,
                Content::Moved { from, to } => {
                    for from in from {
                        writeln!(f, "{}/... -> {to}...", from.trim_end_matches('/'))?;
                    }
                }
            }
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(content: Content) -> Settings {
        let path = PathBuf::from("/etc/x/file");
        Settings { files: vec![File { path, content }], notes: Vec::new() }
    }

    #[test]
    fn keys_are_added_to_those_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/x/file");
        let keys = settings(Content::Keys(json!({"mirrors": ["a"], "on": true})));
        keys.write(Some(root.path())).unwrap();
        fs_err::write(&path, r#"{"mirrors": ["b"], "other": 1}"#).unwrap();
        for _ in 0..2 {
            keys.write(Some(root.path())).unwrap();
            let there: Value =
                serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(there, json!({"mirrors": ["b", "a"], "other": 1, "on": true}));
        }
        fs_err::write(&path, "not JSON").unwrap();
        assert!(keys.write(Some(root.path())).is_err());
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/x/file");
        let ours = settings(Content::Whole(format!("{MARK}\none\n")));
        ours.write(Some(root.path())).unwrap();
        settings(Content::Whole(format!("{MARK}\ntwo\n"))).write(Some(root.path())).unwrap();
        assert!(fs_err::read_to_string(&path).unwrap().ends_with("two\n"));
        fs_err::write(&path, "precious\n").unwrap();
        assert!(ours.write(Some(root.path())).is_err());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "precious\n");
    }
}
