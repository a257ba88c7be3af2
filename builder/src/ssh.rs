//! SSH agents of a build: what `--ssh` names, for the steps that ask for it.
//!
//! A step gets a socket of its own. What it asks there is looked at by a [`relay`]: it may list keys
//! and have something signed, and no more than that. Behind the relay is the agent of whoever
//! builds, or one that was started for this build and holds the keys that were named ([`keys`]).

mod keys;
mod relay;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

pub(crate) use keys::KeyAgent;
pub use keys::KeysError;
pub(crate) use relay::Relay;

/// Agents by their ids.
#[derive(Debug, Default)]
pub struct Agents {
    sources: BTreeMap<String, AgentSource>,
    /// Where programs of OpenSSH are looked for.
    pub search: Vec<PathBuf>,
}

/// Who answers for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSource {
    /// An agent that listens on a socket.
    Socket(PathBuf),
    /// One that is started, with these keys.
    Keys(Vec<PathBuf>),
}

/// Why a step cannot have an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The socket for the step cannot be made.
    #[error("cannot make a socket for the agent")]
    Socket(#[source] io::Error),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Agents {
    /// Adds an agent; `false` where there is one of this id already.
    pub fn add(&mut self, id: &str, source: AgentSource) -> bool {
        self.sources.insert(id.to_owned(), source).is_none()
    }

    /// Returns who answers for an agent; `None` where it was not given.
    pub fn get(&self, id: &str) -> Option<&AgentSource> {
        self.sources.get(id)
    }
}
