//! The users: an htpasswd file of ours, which `boatyard user` changes, and one of others'.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::identity::{Name, NameError};
use crate::password::{HashError, PasswordHash};
use crate::private::{self, Doing as _, FileError, Locked};

/// Users, and the hashes of their passwords.
pub type Users = BTreeMap<Name, PasswordHash>;

/// A file of users that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line has no colon.
    #[error("{}, line {line}: it is not NAME:HASH", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
    },
    /// A name is none.
    #[error("{}, line {line}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// Why.
        #[source]
        source: NameError,
    },
    /// A hash cannot be used.
    #[error("{}, line {line}: the password of {name} cannot be used", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// Whose it is.
        name: Name,
        /// Why.
        #[source]
        source: HashError,
    },
    /// A user is there already.
    #[error("there is a user {0} already")]
    Exists(Name),
    /// A user is not there.
    #[error("there is no user {0}")]
    Unknown(Name),
}

/// Reads an htpasswd file; one that is not there has no users.
///
/// # Errors
/// Where it cannot be read, or a line cannot be used.
pub fn read(path: &Path) -> Result<Users, UsersError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Users::new()),
        Err(error) => Err(error).doing("read the users")?,
    }
}

/// As [`read`], of a file that must be there.
///
/// # Errors
/// Where it is not there, too.
pub(crate) fn read_existing(path: &Path) -> Result<Users, UsersError> {
    let text = fs::read_to_string(path).doing("read the users")?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Users, UsersError> {
    let mut users = Users::new();
    let path = || path.to_owned();
    for (at, text) in text.lines().enumerate() {
        let (line, text) = (at + 1, text.trim_end());
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, hash) = text.split_once(':').ok_or(UsersError::Line { path: path(), line })?;
        let name: Name =
            name.parse().map_err(|source| UsersError::Name { path: path(), line, source })?;
        let hash = hash.parse().map_err(|source| {
            let name = name.clone();
            UsersError::Hash { path: path(), line, name, source }
        })?;
        users.insert(name, hash);
    }
    Ok(users)
}

/// Our file of users.
#[derive(Clone, Debug)]
pub struct UsersFile {
    directory: PathBuf,
}

impl UsersFile {
    /// Returns the file in the directory `access` of a root.
    pub fn new(directory: impl Into<PathBuf>) -> UsersFile {
        UsersFile { directory: directory.into() }
    }

    /// Returns where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.join("users")
    }

    /// Returns the users.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(&self) -> Result<Users, UsersError> {
        read(&self.path())
    }

    /// Adds a user; durable when it returns.
    ///
    /// # Errors
    /// Where there is one of this name, or the file cannot be written.
    pub fn add(&self, name: &Name, hash: PasswordHash) -> Result<(), UsersError> {
        self.change(|users| match users.contains_key(name) {
            true => Err(UsersError::Exists(name.clone())),
            false => {
                users.insert(name.clone(), hash);
                Ok(())
            }
        })
    }

    /// Changes a user's password; durable when it returns.
    ///
    /// # Errors
    /// Where there is none of this name, or the file cannot be written.
    pub fn set(&self, name: &Name, hash: PasswordHash) -> Result<(), UsersError> {
        self.change(|users| match users.get_mut(name) {
            None => Err(UsersError::Unknown(name.clone())),
            Some(kept) => {
                *kept = hash;
                Ok(())
            }
        })
    }

    /// Removes a user; durable when it returns.
    ///
    /// # Errors
    /// Where there is none of this name, or the file cannot be written.
    pub fn remove(&self, name: &Name) -> Result<(), UsersError> {
        self.change(|users| match users.remove(name) {
            None => Err(UsersError::Unknown(name.clone())),
            Some(_) => Ok(()),
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Users) -> Result<(), UsersError>,
    ) -> Result<(), UsersError> {
        let _locked = Locked::wait(&self.directory).doing("lock the users")?;
        let mut users = self.read()?;
        change(&mut users)?;
        let lines = users.iter().map(|(name, hash)| format!("{name}:{}\n", hash.as_str()));
        let text: String = lines.collect();
        private::write(&self.path(), text.as_bytes(), false).doing("write the users")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::Cost;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };

    #[test]
    fn users_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let file = UsersFile::new(directory.path().join("access"));
        assert!(file.read().unwrap().is_empty());
        let hash = |password| PasswordHash::of(password, CHEAP).unwrap();
        let (alice, bob): (Name, Name) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        file.add(&alice, hash("one")).unwrap();
        file.add(&bob, hash("two")).unwrap();
        assert!(matches!(file.add(&alice, hash("x")), Err(UsersError::Exists(_))));
        file.set(&alice, hash("three")).unwrap();
        assert!(file.read().unwrap()[&alice].verify("three"));
        file.remove(&alice).unwrap();
        assert!(matches!(file.remove(&alice), Err(UsersError::Unknown(_))));
        assert!(matches!(file.set(&alice, hash("x")), Err(UsersError::Unknown(_))));
        assert_eq!(file.read().unwrap().into_keys().collect::<Vec<_>>(), [bob]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let path = Path::new("/etc/htpasswd");
        let table = [
            ("# x\n\nalice", "/etc/htpasswd, line 3: it is not NAME:HASH"),
            ("a:$apr1$x$y", "/etc/htpasswd, line 1: the password of a cannot be used"),
            ("a b:x", "/etc/htpasswd, line 1"),
        ];
        for (text, message) in table {
            assert_eq!(parse(path, text).unwrap_err().to_string(), message);
        }
    }
}
