//! SSH agents of a build: what `--ssh` names, for the steps that ask for it.
//!
//! A step gets a socket of its own. What it asks there is looked at by a [`relay`]: it may list keys
//! and have something signed, and no more than that. Behind the relay is the agent of whoever
//! builds, or one that was started for this build and holds the keys that were named ([`keys`]).

mod keys;
mod relay;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) use keys::KeyAgent;
pub use keys::KeysError;
pub(crate) use relay::{Access, Relay};

/// Agents by their ids.
#[derive(Debug, Default)]
pub struct Agents {
    sources: BTreeMap<String, AgentSource>,
    /// Where programs of OpenSSH are looked for.
    pub(crate) search: Vec<PathBuf>,
}

/// Who answers for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSource {
    /// An agent that listens on a socket.
    Socket(PathBuf),
    /// One that is started, with these keys.
    Keys(Vec<PathBuf>),
}

impl Agents {
    /// Returns no agent yet. `search` is where programs of OpenSSH are looked for.
    #[must_use]
    pub fn new(search: Vec<PathBuf>) -> Agents {
        Agents { search, ..Agents::default() }
    }

    /// Adds an agent; `false` where there is one of this id already.
    pub fn add(&mut self, id: &str, source: AgentSource) -> bool {
        self.sources.insert(id.to_owned(), source).is_none()
    }

    /// Returns who answers for an agent; `None` where it was not given.
    pub fn get(&self, id: &str) -> Option<&AgentSource> {
        self.sources.get(id)
    }
}
