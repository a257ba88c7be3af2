//! Secrets of a build: what `--secret` names, for the steps that ask for it.
//!
//! A value is in the memory of this process and of the step, and nowhere else: no file is written, no
//! key is made of it, and no `Debug` shows it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::execute::Hidden;

/// How large a secret may be: as large as in other tools.
pub const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// Secrets by their ids.
#[derive(Debug, Default)]
pub struct Secrets(BTreeMap<String, SecretSource>);

/// Where a secret is.
#[derive(Debug)]
pub enum SecretSource {
    /// In a file, which is read when a step asks for it.
    File(PathBuf),
    /// Here.
    Value(Hidden),
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file system refused; the error names the path.
    #[error("cannot read the secret `{id}`")]
    Read {
        /// Which secret.
        id: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is larger than anything honest.
    #[error("the secret `{id}` is larger than {SECRET_BYTES_MAX} bytes")]
    TooLarge {
        /// Which secret.
        id: String,
    },
}

impl Secrets {
    /// Adds a secret; `false` where there is one of this id already.
    pub fn add(&mut self, id: &str, source: SecretSource) -> bool {
        self.0.insert(id.to_owned(), source).is_none()
    }

    /// Returns the ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the values of all secrets that can be read: to see that none of them is kept.
    pub fn values(&self) -> Vec<Vec<u8>> {
        self.0.keys().filter_map(|id| self.get(id).ok().flatten()).collect()
    }

    /// Returns the bytes of a secret; `None` where it was not given.
    ///
    /// # Errors
    /// Where it was given, and cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError> {
        let bytes = match self.0.get(id) {
            None => return Ok(None),
            Some(SecretSource::Value(value)) => value.reveal().as_bytes().to_vec(),
            Some(SecretSource::File(path)) => {
                let failed = |source| SecretError::Read { id: id.to_owned(), source };
                let file = fs_err::File::open(path).map_err(failed)?;
                let mut bytes = Vec::new();
                file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
                bytes
            }
        };
        match bytes.len() as u64 > SECRET_BYTES_MAX {
            true => Err(SecretError::TooLarge { id: id.to_owned() }),
            false => Ok(Some(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_value_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs_err::write(&file, "from a file").unwrap();
        let mut secrets = Secrets::default();
        assert!(secrets.add("env", SecretSource::Value(Hidden::new("hunter2".to_owned()))));
        assert!(secrets.add("file", SecretSource::File(file.clone())));
        assert!(!secrets.add("file", SecretSource::File(file.clone())));
        assert!(!format!("{secrets:?}").contains("hunter2"));
        assert_eq!(secrets.get("env").unwrap().unwrap(), b"hunter2");
        assert_eq!(secrets.get("file").unwrap().unwrap(), b"from a file");
        assert!(secrets.get("other").unwrap().is_none());
        fs_err::write(&file, vec![0; 500 * 1024 + 1]).unwrap();
        let error = secrets.get("file").unwrap_err().to_string();
        assert_eq!(error, "the secret `file` is larger than 512000 bytes");
        fs_err::remove_file(&file).unwrap();
        assert!(matches!(secrets.get("file"), Err(SecretError::Read { .. })));
    }
}
