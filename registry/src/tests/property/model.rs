//! What the registry should have, in the simplest form that can say so.

use std::collections::{BTreeMap, BTreeSet};

use boatyard_oci::{Algorithm, Digest, MediaType};
use serde_json::json;

/// Names that are parts of one another, and like endpoints.
pub(super) const REPOSITORIES: [&str; 4] = ["a", "a/b", "a-b", "blobs/uploads"];
pub(super) const BLOBS: usize = 5;
pub(super) const MANIFESTS: usize = 8;
pub(super) const TAGS: usize = 5;

/// All repositories, and the sessions that are open.
#[derive(Default)]
pub(super) struct Model {
    pub(super) repositories: [Repository; REPOSITORIES.len()],
    pub(super) sessions: Vec<Session>,
}

/// One repository: the numbers of what it has.
#[derive(Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeSet<usize>,
    /// Blobs that sessions ended in.
    pub(super) others: BTreeMap<Digest, Vec<u8>>,
    pub(super) manifests: BTreeSet<usize>,
    pub(super) tags: BTreeMap<usize, usize>,
    pub(super) had_blobs: bool,
    pub(super) had_manifests: bool,
}

/// An upload session.
pub(super) struct Session {
    pub(super) repository: usize,
    pub(super) location: String,
    /// Where the last bytes were sent to.
    pub(super) before: Option<String>,
    pub(super) bytes: Vec<u8>,
}

impl Model {
    /// Returns an open session, whatever the number.
    pub(super) fn session(&mut self, number: usize) -> Option<&mut Session> {
        let count = self.sessions.len().max(1);
        self.sessions.get_mut(number % count)
    }

    /// Forgets the session of a Location.
    pub(super) fn end_session(&mut self, location: &str) {
        let key = |location: &str| location.split('?').next().map(str::to_owned);
        self.sessions.retain(|session| key(&session.location) != key(location));
    }

    /// Says whether a blob can be mounted from a repository, or from any.
    pub(super) fn mounts(&self, from: Option<usize>, content: usize) -> bool {
        match from {
            Some(from) => self.repositories[from].blobs.contains(&content),
            None => self.repositories.iter().any(|one| one.blobs.contains(&content)),
        }
    }
}

impl Session {
    pub(super) fn range(&self) -> String {
        format!("0-{}", self.bytes.len().saturating_sub(1))
    }
}

impl Repository {
    pub(super) fn exists(&self) -> bool {
        let has_blobs = !self.blobs.is_empty() || !self.others.is_empty();
        has_blobs || self.had_blobs || self.had_manifests
    }

    /// Adds a blob that a session ended in; an empty one has a number.
    pub(super) fn add(&mut self, digest: Digest, bytes: Vec<u8>) {
        match bytes.is_empty() {
            true => drop(self.blobs.insert(0)),
            false => drop(self.others.insert(digest, bytes)),
        }
    }

    /// Returns the code for what it does not have.
    pub(super) fn absent(&self, code: &'static str) -> &'static str {
        if self.exists() { code } else { "NAME_UNKNOWN" }
    }

    pub(super) fn has_parts_of(&self, manifest: &Known) -> bool {
        manifest.blobs.iter().all(|blob| self.blobs.contains(blob))
            && manifest.children.iter().all(|child| self.manifests.contains(child))
    }

    /// Says whether a manifest needs a blob.
    pub(super) fn needs(&self, content: usize) -> bool {
        self.manifests.iter().any(|number| manifest(*number).blobs.contains(&content))
    }
}

/// Returns a blob: an empty one, small ones, one that is sent as a file; the last by SHA-512.
pub(super) fn blob(number: usize) -> (Vec<u8>, Digest) {
    let bytes = vec![number as u8; [0, 2, 1000, 100_000, 3000][number]];
    let algorithm = if number == 4 { Algorithm::Sha512 } else { Algorithm::Sha256 };
    let digest = Digest::of(algorithm, &bytes);
    (bytes, digest)
}

pub(super) fn tag(number: usize) -> &'static str {
    ["1", "10", "A", "latest", "_x.y-z"][number]
}

/// A manifest that a client can push.
pub(super) struct Known {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) media_type: MediaType,
    pub(super) blobs: Vec<usize>,
    pub(super) children: Vec<usize>,
    pub(super) subject: Option<Digest>,
    pub(super) artifact_type: &'static str,
}

/// Returns a manifest: images, a Docker image, artifacts about an image, indexes, an index of one.
pub(super) fn manifest(number: usize) -> Known {
    let (blobs, children): (Vec<usize>, Vec<usize>) = match number {
        0 => (vec![1, 0], vec![]),
        1 => (vec![1, 2, 3], vec![]),
        2 => (vec![1, 4], vec![]),
        3 | 4 => (vec![1], vec![]),
        5 => (vec![], vec![0, 2]),
        6 => (vec![], vec![5]),
        _ => (vec![], vec![]),
    };
    let (image, index) = match number {
        2 => (MediaType::DOCKER_MANIFEST, MediaType::DOCKER_INDEX),
        _ => (MediaType::OCI_MANIFEST, MediaType::OCI_INDEX),
    };
    let media_type = if number < 5 { image } else { index };
    let subject = matches!(number, 3 | 4 | 7).then(|| manifest(0));
    let artifact_type = match number {
        3 | 7 => "application/vnd.example+json",
        4 => "application/vnd.other",
        _ => "",
    };
    let described = |bytes: &[u8], digest: &Digest, media_type: &str| json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    let mut properties = json!({ "schemaVersion": 2, "mediaType": media_type });
    if number < 5 {
        let blobs: Vec<_> = blobs.iter().map(|number| blob(*number)).collect();
        let blobs = blobs.iter().map(|(bytes, digest)| described(bytes, digest, "a/b"));
        let mut blobs: Vec<_> = blobs.collect();
        properties["config"] = blobs.remove(0);
        properties["layers"] = blobs.into();
    } else {
        let children = children.iter().map(|child| manifest(*child));
        let children =
            children.map(|child| described(&child.bytes, &child.digest, child.media_type.as_str()));
        properties["manifests"] = children.collect::<Vec<_>>().into();
    }
    if let Some(subject) = &subject {
        properties["artifactType"] = artifact_type.into();
        properties["subject"] =
            described(&subject.bytes, &subject.digest, subject.media_type.as_str());
    }
    let bytes = format!("{properties:#}\n").into_bytes();
    let digest = Digest::sha256(&bytes);
    let subject = subject.map(|subject| subject.digest);
    Known { bytes, digest, media_type, blobs, children, subject, artifact_type }
}
