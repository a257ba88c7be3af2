//! What a check found.

use std::fmt;
use std::path::PathBuf;

use boatyard_oci::{Digest, Tag};

use crate::entries::EntryKey;
use crate::repository::Repository;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct FsckReport {
    /// How many blobs were read.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The blobs that are needed and not there, or not what their names say; by digest.
    pub losses: Vec<Loss>,
    /// What else is wrong.
    pub findings: Vec<Finding>,
}

impl FsckReport {
    /// Says whether nothing was found at all.
    pub fn is_clean(&self) -> bool {
        self.losses.is_empty() && self.findings.is_empty()
    }

    /// Says whether all is well now: nothing was found, or all of it was mended.
    pub fn is_well(&self) -> bool {
        self.losses.iter().all(|loss| loss.mended.is_some())
            && self.findings.iter().all(|finding| finding.mended.is_some())
    }
}

/// A blob that was lost.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Its name.
    pub digest: Digest,
    /// How it was lost.
    pub how: How,
    /// Where its file is now, if it was moved.
    pub quarantined: Option<PathBuf>,
    /// The manifests that lack it, or are it.
    pub breaks: Vec<Broken>,
    /// The entries of the cache proxy whose bytes it has.
    pub entries: Vec<EntryKey>,
    /// Who else holds it, as a person would say it.
    pub holders: Vec<String>,
    /// From where it came again, or what was done instead.
    pub mended: Option<String>,
    /// Why it could not be mended.
    pub trouble: Option<String>,
}

impl Loss {
    pub(super) fn new(digest: Digest, how: How) -> Loss {
        Loss {
            digest,
            how,
            quarantined: None,
            breaks: Vec::new(),
            entries: Vec::new(),
            holders: Vec::new(),
            mended: None,
            trouble: None,
        }
    }

    /// Says whether only caches had it: what they hold is made or fetched again.
    pub(super) fn is_cached_only(&self) -> bool {
        self.breaks.is_empty()
    }
}

/// How a blob was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Its bytes have another digest.
    Wrong {
        /// Which.
        got: Digest,
        /// How many there are.
        size: u64,
    },
    /// Its bytes cannot be read.
    Unreadable,
    /// There is no such file.
    Missing,
}

/// A manifest without which, or without whose blobs, an image cannot be pulled.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The repository.
    pub repository: Repository,
    /// The manifest.
    pub manifest: Digest,
    /// The tags that lead to it: its own, and those of indexes that list it.
    pub tags: Vec<Tag>,
}

/// Something else that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub what: Wrong,
    /// What was done about it; `None` where nothing was.
    pub mended: Option<String>,
}

impl Finding {
    pub(super) fn new(what: Wrong) -> Finding {
        Finding { what, mended: None }
    }
}

/// What can be wrong beside blobs.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// A manifest's bytes are those that were pushed, and no manifest can be read from them.
    Manifest {
        /// The repository.
        repository: Repository,
        /// The manifest.
        manifest: Digest,
        /// The tags that point at it.
        tags: Vec<Tag>,
        /// Why.
        problem: String,
    },
    /// The files beside a manifest do not say what it needs: the collector goes by them.
    Refs {
        /// The repository.
        repository: Repository,
        /// The manifest.
        manifest: Digest,
    },
    /// A manifest gives a blob another size than it has: clients refuse it.
    Size {
        /// The repository.
        repository: Repository,
        /// The manifest.
        manifest: Digest,
        /// The tags that lead to it.
        tags: Vec<Tag>,
        /// The blob.
        blob: Digest,
        /// What the manifest says.
        says: u64,
        /// How many bytes the blob has.
        has: u64,
    },
    /// A tag points at a manifest that the repository does not have.
    Dangling {
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
        /// The manifest.
        manifest: Digest,
    },
    /// A tag's file holds no digest.
    Torn {
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
    },
    /// A repository says that a blob was pushed to it, which is not there and which no manifest
    /// needs.
    Link {
        /// The repository.
        repository: Repository,
        /// The blob.
        blob: Digest,
    },
    /// A file among the blobs is none.
    Stray {
        /// The file.
        path: PathBuf,
    },
}

impl Wrong {
    /// Returns the kind, as programs know it.
    pub fn kind(&self) -> &'static str {
        match self {
            Wrong::Manifest { .. } => "manifest",
            Wrong::Refs { .. } => "refs",
            Wrong::Size { .. } => "size",
            Wrong::Dangling { .. } => "dangling-tag",
            Wrong::Torn { .. } => "torn-tag",
            Wrong::Link { .. } => "link",
            Wrong::Stray { .. } => "stray",
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Manifest { repository, manifest, tags, problem } => {
                write!(
                    f,
                    "{}@{manifest}{} is no manifest: {problem}",
                    repository.key(),
                    Named(tags)
                )
            }
            Wrong::Refs { repository, manifest } => {
                let key = repository.key();
                write!(f, "the files beside {key}@{manifest} do not say what it needs")
            }
            Wrong::Size { repository, manifest, tags, blob, says, has } => write!(
                f,
                "{}@{manifest}{} says that {blob} has {says} bytes, and it has {has}",
                repository.key(),
                Named(tags)
            ),
            Wrong::Dangling { repository, tag, manifest } => write!(
                f,
                "{}:{tag} points at {manifest}, which the repository does not have",
                repository.key()
            ),
            Wrong::Torn { repository, tag } => {
                write!(f, "the file of {}:{tag} holds no digest", repository.key())
            }
            Wrong::Link { repository, blob } => {
                write!(f, "{} lists the blob {blob}, which is not there", repository.key())
            }
            Wrong::Stray { path } => write!(f, "{} is no blob", path.display()),
        }
    }
}

/// Tags in brackets, where there are any.
struct Named<'a>(&'a [Tag]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let tags: Vec<&str> = self.0.iter().map(Tag::as_str).collect();
        write!(f, " ({})", tags.join(", "))
    }
}
