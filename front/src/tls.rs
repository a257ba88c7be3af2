//! TLS for what comes in: a certificate chain and its key from PEM files, HTTP/2 by ALPN.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The protocol that ALPN calls HTTP/2.
pub(crate) const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Where a server's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that vouch for it, in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Whose certificates clients may show, or must.
    pub clients: Option<ClientAuthority>,
}

/// The authorities that sign the certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthority {
    /// Their certificates, in PEM.
    pub certificates: PathBuf,
    /// Who shows none is not let in.
    pub required: bool,
}

/// The certificate that a client has shown, in DER; it is verified. Each request of such a
/// connection carries it as an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(pub Arc<[u8]>);

/// Files that do not make a TLS server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read the TLS {what}")]
    Read {
        /// `certificate`, `client authority` or `key`.
        what: &'static str,
        /// Which file and why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not PEM of the expected kind.
    #[error("{} holds no valid PEM {what}", path.display())]
    Pem {
        /// `certificate`, `client authority` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The authorities of clients cannot be used.
    #[error("the authorities of clients in {} cannot be used", path.display())]
    Clients {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificate and key do not belong together, or are of a kind that cannot be used.
    #[error("the certificate {} and the key {} cannot be used", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// A certificate in use, which can be read again from its files.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// Where they cannot be read or used.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let config = RwLock::new(read(&files)?);
        Ok(Tls { files, config })
    }

    /// Returns where they are.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Reads the files again: connections from now on are given the new certificate. Blocking.
    ///
    /// # Errors
    /// Where they cannot be read or used; the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&files.certificate, "certificate")?;
    let key = private_key(&files.key)?;
    let unusable = |source| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &files.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(clients)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

fn verifier(clients: &ClientAuthority) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = &clients.certificates;
    let unusable = |source| TlsError::Clients { path: path.clone(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "client authority")? {
        roots.add(certificate).map_err(|error| unusable(error.into()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| unusable(error.into()))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |source| TlsError::Pem { what, path: path.to_owned(), source };
    let text = fs_err::read(path).map_err(|source| TlsError::Read { what, source })?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(refuse)?;
    if chain.is_empty() {
        return Err(refuse(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "key";
    let text = fs_err::read(path).map_err(|source| TlsError::Read { what, source })?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| TlsError::Pem {
        what,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: directory.path().join("server.crt"),
            key: directory.path().join("server.key"),
            clients: None,
        };
        let missing = Tls::load(files.clone()).unwrap_err();
        assert!(missing.source().unwrap().to_string().contains("server.crt"), "{missing:?}");
        fs_err::write(&files.certificate, "not PEM").unwrap();
        let empty = Tls::load(files).unwrap_err();
        assert!(empty.to_string().contains("server.crt holds no valid PEM certificate"), "{empty}");
    }
}
