//! Files of a client's settings: shown, or put in their places.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::report::{Context as _, Failure, Result};

/// What the first line of our files says, so that we overwrite no other's.
pub const MARK: &str = "# Written by `boatyard client-config`; it may be overwritten.";

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
            put(&path, &text).context("cannot write the settings")?;
            written.push(path);
        }
        Ok(written)
    }
}

/// Writes a file whole, then gives it its name.
fn put(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs_err::create_dir_all(directory)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    fs_err::write(&name, text)?;
    fs_err::rename(&name, path)
}

impl Content {
    /// Returns the text of the file, over what is there.
    fn over(&self, before: Option<&str>, path: &Path) -> Result<String> {
        let before = before.filter(|text| !text.trim().is_empty());
        match self {
            Content::Whole(text) => match before {
                Some(there) if !there.starts_with(MARK) && there != text => {
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
        }
    }
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
