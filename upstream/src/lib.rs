//! Every connection that goes out: TLS, credentials, retries, the client of other registries.
//!
//! No other crate of ours dials. [`transport`] moves one request and one answer; [`credentials`],
//! [`challenge`], [`realm`] and [`token`] decide what is shown to whom; [`distribution`] speaks the
//! OCI Distribution protocol and pulls and pushes whole images from and to a store; [`transfer`]
//! brings objects, each once for all who want it, while they are read. Files that
//! other tools left ([`certs_d`], [`registries_conf`], docker's and podman's credentials) are read
//! where the caller says they are: nothing here reads the environment.

#![forbid(unsafe_code)]

pub mod answer;
pub mod certs_d;
pub mod challenge;
pub mod clock;
pub mod credentials;
pub mod distribution;
pub mod freshness;
pub mod guard;
pub mod http;
pub mod realm;
pub mod redact;
pub mod registries_conf;
pub mod retry;
pub mod tls;
pub mod token;
pub mod transfer;
pub mod transport;

pub use clock::{Clock, SystemClock};
pub use credentials::{Credential, CredentialSources};
pub use distribution::{
    Client, ClientError, ClientOptions, NoProgress, Outcome, PlainHttp, Platforms, Pulled, Pushed,
    TransferProgress, pull, push,
};
pub use redact::Secret;
pub use retry::RetryPolicy;
pub use tls::Trust;
pub use transfer::{Reader, Transfers, Wanted};
pub use transport::{ProxyUse, Timeouts};
