//! Events as docker's registry sends them.
//!
//! ```json
//! {"events": [{"id": "...", "timestamp": "...", "action": "push",
//!   "target": {"mediaType": "...", "digest": "...", "size": 1, "length": 1,
//!              "repository": "team/app", "url": "...", "tag": "1.0"},
//!   "request": {"id": "...", "addr": "...", "host": "...", "method": "PUT", "useragent": "..."},
//!   "actor": {"name": "user:alice"},
//!   "source": {"addr": "registry.example:5000", "instanceID": "..."}}]}
//! ```

use std::fmt;
use std::str::FromStr;

use boatyard_oci::{Digest, MediaType, RepositoryName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The media type of an envelope.
pub const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// What happened to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A manifest was pushed.
    Push,
    /// A manifest was pulled.
    Pull,
    /// A manifest, a tag or a blob was deleted.
    Delete,
    /// A blob was taken from another repository.
    Mount,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 4] = [Action::Push, Action::Pull, Action::Delete, Action::Mount];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Push => "push",
            Action::Pull => "pull",
            Action::Delete => "delete",
            Action::Mount => "mount",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no event: there are push, pull, delete and mount")]
pub struct ActionError {
    word: String,
}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(word: &str) -> Result<Action, ActionError> {
        let known = Action::ALL.into_iter().find(|action| action.as_str() == word);
        known.ok_or_else(|| ActionError { word: word.to_owned() })
    }
}

/// Who asked for something, as the journal keeps it beside what they did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Who: `user:alice`, `anonymous`, `retention`.
    pub who: String,
    /// What the request is called in the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How the client calls the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The URL below which the server's paths are, as the client sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The method of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The client's `User-Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The repository that a blob was taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// The same for the same thing, however often it is told.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub action: Action,
    /// In which repository.
    pub repository: RepositoryName,
    /// To which manifest or blob, as far as that is known.
    pub digest: Option<Digest>,
    /// Of which type.
    pub media_type: Option<MediaType>,
    /// Of which size.
    pub size: Option<u64>,
    /// By which tag.
    pub tag: Option<String>,
    /// For whom; nothing where another process on the machine did it.
    pub note: Option<Note>,
}

/// The server, as events name it.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// Where it listens.
    pub addr: String,
    /// Another one each time that it is started.
    #[serde(rename = "instanceID")]
    pub instance_id: String,
}

/// An event, in docker's form.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    id: String,
    timestamp: Timestamp,
    action: Action,
    target: Target,
    request: Request,
    actor: Actor,
    source: Source,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<MediaType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Request {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    useragent: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Actor {
    name: String,
}

impl Happened {
    /// Returns it in docker's form.
    pub fn event(&self, source: &Source) -> Event {
        // Who has no note wrote to the root without a server: the owner of its files.
        let note = self
            .note
            .clone()
            .unwrap_or_else(|| Note { who: "local".to_owned(), ..Note::default() });
        let kind = if self.action == Action::Mount { "blobs" } else { "manifests" };
        let url = note
            .base
            .as_ref()
            .zip(self.digest.as_ref())
            .map(|(base, digest)| format!("{base}/v2/{}/{kind}/{digest}", self.repository));
        Event {
            id: self.id.clone(),
            timestamp: self.at,
            action: self.action,
            target: Target {
                media_type: self.media_type.clone(),
                digest: self.digest.clone(),
                size: self.size,
                length: self.size,
                repository: self.repository.to_string(),
                from_repository: note.from,
                url,
                tag: self.tag.clone(),
            },
            request: Request {
                id: note.request,
                addr: note.address,
                host: note.host,
                method: note.method,
                useragent: note.agent,
            },
            actor: Actor { name: note.who },
            source: source.clone(),
        }
    }
}

impl Event {
    pub(super) fn nanoseconds(&self) -> i128 {
        self.timestamp.as_nanosecond()
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}
