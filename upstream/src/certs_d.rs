//! Docker's `certs.d`: which authorities and which own certificate belong to one registry.
//!
//! ```text
//! certs.d/registry.example:5000/ca.crt        an authority to trust, besides the system's
//! certs.d/registry.example:5000/client.cert   a certificate to show, with
//! certs.d/registry.example:5000/client.key    its key
//! ```
//!
//! Podman reads the same form from its own directories. What does not end in `.crt`, `.cert` or
//! `.key` is left alone (containerd's `hosts.toml` is another format).

use std::path::{Path, PathBuf};

/// What `certs.d` directories hold for one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCertificates {
    /// PEM files of authorities.
    pub authorities: Vec<PathBuf>,
    /// The certificate to show, and its key.
    pub identity: Option<ClientIdentity>,
}

/// A client's certificate and key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, perhaps with its chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A `certs.d` directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertsDirError {
    /// It cannot be read.
    #[error("cannot read the registry's certificates")]
    Read(#[source] std::io::Error),
    /// A certificate lacks its key, or the other way about.
    #[error("`{present}` needs `{missing}` beside it")]
    Unpaired {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
}

impl HostCertificates {
    /// Reads what the directories hold for a host, which is tried under each of `names`
    /// (`host:port`, and `host` where the port is the usual one). Directories that do not exist
    /// hold nothing.
    ///
    /// # Errors
    /// Where a directory exists and cannot be read, or a certificate and its key are not both
    /// there.
    pub fn load(directories: &[PathBuf], names: &[String]) -> Result<Self, CertsDirError> {
        let mut found = HostCertificates::default();
        for directory in directories {
            for name in names.iter().filter(|name| is_safe(name)) {
                found.add(&directory.join(name))?;
            }
        }
        Ok(found)
    }

    /// Says whether nothing was found.
    pub fn is_empty(&self) -> bool {
        *self == HostCertificates::default()
    }

    fn add(&mut self, directory: &Path) -> Result<(), CertsDirError> {
        for path in list(directory)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.push(path),
                Some("cert") => {
                    let key = pair(&path, "key")?;
                    self.identity.get_or_insert(ClientIdentity { certificate: path, key });
                }
                Some("key") => {
                    pair(&path, "cert")?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn pair(path: &Path, extension: &str) -> Result<PathBuf, CertsDirError> {
    let other = path.with_extension(extension);
    match other.exists() {
        true => Ok(other),
        false => Err(CertsDirError::Unpaired { present: path.to_owned(), missing: other }),
    }
}

/// Returns the entries of a directory in the order of their names; none where it does not exist.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CertsDirError> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CertsDirError::Read(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(CertsDirError::Read)?;
    paths.sort();
    Ok(paths)
}

fn is_safe(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_hosts_files_under_each_of_its_names() {
        let root = tempfile::tempdir().unwrap();
        let with_port = root.path().join("r.example:443");
        let without = root.path().join("r.example");
        for directory in [&with_port, &without] {
            fs_err::create_dir(directory).unwrap();
        }
        for file in ["b.crt", "a.crt", "me.cert", "me.key", "hosts.toml"] {
            fs_err::write(without.join(file), "").unwrap();
        }
        fs_err::write(with_port.join("c.crt"), "").unwrap();

        let names = ["r.example:443".to_owned(), "r.example".to_owned(), "../x".to_owned()];
        let found =
            HostCertificates::load(&[root.path().to_owned(), "/nowhere".into()], &names).unwrap();
        assert_eq!(
            found.authorities,
            [with_port.join("c.crt"), without.join("a.crt"), without.join("b.crt")]
        );
        let identity = found.identity.unwrap();
        assert_eq!(identity.key, without.join("me.key"));

        fs_err::remove_file(without.join("me.key")).unwrap();
        let error = HostCertificates::load(&[root.path().to_owned()], &names).unwrap_err();
        assert!(error.to_string().contains("me.key"), "{error}");
    }
}
