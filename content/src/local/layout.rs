//! Where everything lies below a root.

use std::path::{Path, PathBuf};

use boatyard_oci::{Algorithm, Digest};

use crate::ingest::IngestKey;

/// The paths of one root. Pure: it touches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Returns the layout below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Layout {
        Layout { root: root.into() }
    }

    /// Returns the root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the file that holds the format's number.
    pub fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    /// Returns the directory of all blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Returns the directory of one algorithm's blobs.
    pub fn algorithm(&self, algorithm: Algorithm) -> PathBuf {
        self.blobs().join(algorithm.name())
    }

    /// Returns the directory in which a blob lies.
    pub fn shard(&self, digest: &Digest) -> PathBuf {
        self.algorithm(digest.algorithm()).join(shard_name(digest))
    }

    /// Returns a blob's file.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.shard(digest).join(digest.hex())
    }

    /// Returns the lock of a blob's shard.
    pub fn shard_lock(&self, shard: &str) -> PathBuf {
        self.root.join("locks/blobs").join(shard)
    }

    /// Returns the directory of all writes in progress.
    pub fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// Returns the directory of one write in progress.
    pub fn ingest(&self, key: &IngestKey) -> PathBuf {
        self.ingests().join(key.as_str())
    }

    /// Returns the directory of all processes' leases.
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// Returns the directory of the journal's segments.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Returns the lock under which the journal changes segment.
    pub fn journal_lock(&self) -> PathBuf {
        self.root.join("locks/journal")
    }

    /// Returns the lock of a shard of the repositories.
    pub fn repository_lock(&self, shard: &str) -> PathBuf {
        self.root.join("locks/repositories").join(shard)
    }

    /// Returns the lock that the running collector has.
    pub fn gc_lock(&self) -> PathBuf {
        self.root.join("locks/gc")
    }

    /// Returns the directory of what was pushed.
    pub fn hosted(&self) -> PathBuf {
        self.root.join("hosted")
    }

    /// Returns the directory of what was mirrored.
    pub fn mirror(&self) -> PathBuf {
        self.root.join("mirror")
    }

    /// Returns the directory of what was built or pulled here.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Returns the directory of unpacked layers of one view: one kind of extended attributes and
    /// id map.
    pub fn layers(&self, view: &str) -> PathBuf {
        self.root.join("layers").join(view)
    }

    /// Returns the directory of snapshots that are being written, of one view.
    pub fn active(&self, view: &str) -> PathBuf {
        self.root.join("active").join(view)
    }

    /// Returns the directory of what builds reuse.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Returns the directory of the cache proxy's entries.
    pub fn entries(&self) -> PathBuf {
        self.root.join("entries")
    }

    /// Returns the directory of index generations that the cache proxy holds.
    pub fn generations(&self) -> PathBuf {
        self.root.join("generations")
    }

    /// Returns the lock under which a set's newest generation changes.
    pub fn generation_lock(&self, set: &str) -> PathBuf {
        self.root.join("locks/generations").join(set)
    }

    /// Returns the directory of private packages.
    pub fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// Returns the lock under which the packages of a repository change.
    pub fn package_lock(&self, repository: &str) -> PathBuf {
        self.root.join("locks/packages").join(repository)
    }

    /// Returns the directory that names the blobs of layers which builds made.
    pub fn encodings(&self) -> PathBuf {
        self.cache().join("encodings")
    }

    /// Returns the directory of locks on steps that are running.
    pub fn step_locks(&self) -> PathBuf {
        self.root.join("locks/steps")
    }

    /// Returns the directory of users, tokens and keys.
    pub fn access(&self) -> PathBuf {
        self.root.join("access")
    }

    /// Returns the directory of blobs that were found damaged.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Returns the directory of indexes that may be deleted at any time.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }
}

/// Returns the name of a blob's shard: its first two hex digits.
pub(crate) fn shard_name(digest: &Digest) -> &str {
    &digest.hex()[..2]
}

/// Writes a host or the name of an upstream as one file name: everything but `a-z`, `0-9`, `.`
/// and `-` becomes `%XX`, and so does a dot at the start.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => escaped.push(char::from(byte)),
            b'.' if at > 0 => escaped.push('.'),
            _ => write!(escaped, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    escaped
}

/// Reads what [`escape`] wrote; `None` where it wrote no such thing.
pub(crate) fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (escape(&text) == name).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_to_one_safe_file_name() {
        for text in ["docker.io", "localhost:5000", "[::1]:5000", "..", ".", "a/b", "_x", "A%é"] {
            let name = escape(text);
            assert!(!name.contains('/') && !name.starts_with(['.', '_']), "{name}");
            assert_eq!(unescape(&name).as_deref(), Some(text));
        }
        for bad in ["%", "%4", "%zz", "a:b", "%61"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
