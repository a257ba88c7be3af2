//! TLS: whom a connection to one host trusts, and what it shows.
//!
//! The system's authorities are always trusted; files add to them. A host that is marked insecure
//! is not checked at all, as podman and docker do with that mark.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::certs_d::{CertsDirError, ClientIdentity, HostCertificates};

/// Whom to trust. Paths come in as arguments: the usual ones are the command's business.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM files of authorities to trust for every host, besides the system's.
    pub authorities: Vec<PathBuf>,
    /// PEM files of authorities to trust for one registry (`host:port`, or `host` where the port is
    /// the usual one), besides those.
    pub host_authorities: BTreeMap<String, Vec<PathBuf>>,
    /// Directories in docker's `certs.d` form, looked at in this order.
    pub certs_d: Vec<PathBuf>,
    /// Files in podman's `registries.conf` form, and directories of them.
    pub registries_conf: Vec<PathBuf>,
    /// Hosts of token services that may see credentials though they are not the registry's
    /// kin (see [`crate::realm`]).
    pub realms: BTreeSet<String>,
}

/// Whom a connection to one host trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostTls {
    pub(crate) authorities: Vec<PathBuf>,
    pub(crate) identity: Option<ClientIdentity>,
    pub(crate) unchecked: bool,
}

/// A TLS setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The host's directory in a `certs.d` cannot be used.
    #[error(transparent)]
    CertsDir(#[from] CertsDirError),
    /// A file cannot be read.
    #[error("cannot read a certificate")]
    Read(#[source] std::io::Error),
    /// A file is not what it must be.
    #[error("`{path}` is not PEM of a {expected}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it must be.
        expected: &'static str,
        /// What is wrong with it.
        #[source]
        source: reqwest::Error,
    },
    /// A file holds no certificate at all.
    #[error("`{path}` holds no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The whole cannot be put together.
    #[error("TLS cannot be set up: are the system's certificates (ca-certificates) installed?")]
    Build(#[source] reqwest::Error),
}

impl Trust {
    /// Returns what holds for a host, which `certs.d` may have under each of `names`.
    pub(crate) fn for_host(&self, names: &[String]) -> Result<HostTls, TlsError> {
        let own = HostCertificates::load(&self.certs_d, names)?;
        let given = names.iter().filter_map(|name| self.host_authorities.get(name)).flatten();
        let mut authorities = self.authorities.clone();
        authorities.extend(given.cloned().chain(own.authorities));
        Ok(HostTls { authorities, identity: own.identity, unchecked: false })
    }
}

impl HostTls {
    /// Adds this to a client that is being built.
    pub(crate) fn apply(
        &self,
        mut builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, TlsError> {
        let mut certificates = Vec::new();
        for path in &self.authorities {
            certificates.extend(read_authorities(path)?);
        }
        builder = builder.tls_certs_merge(certificates);
        if let Some(identity) = &self.identity {
            builder = builder.identity(read_identity(identity)?);
        }
        Ok(builder.tls_danger_accept_invalid_certs(self.unchecked))
    }
}

fn read_authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, TlsError> {
    let pem = fs_err::read(path).map_err(TlsError::Read)?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        expected: "certificate",
        source,
    })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

fn read_identity(identity: &ClientIdentity) -> Result<reqwest::Identity, TlsError> {
    let mut pem = fs_err::read(&identity.key).map_err(TlsError::Read)?;
    pem.push(b'\n');
    pem.extend(fs_err::read(&identity.certificate).map_err(TlsError::Read)?);
    reqwest::Identity::from_pem(&pem).map_err(|source| TlsError::Pem {
        path: identity.key.clone(),
        expected: "key with its certificate",
        source,
    })
}
