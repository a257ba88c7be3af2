//! What a path of a Maven repository is. Pure.

use crate::hosted::Hosted;

/// The name of what says which versions there are.
const METADATA: &str = "maven-metadata.xml";
/// How the version of a build ends that is not released.
const SNAPSHOT: &str = "-SNAPSHOT";
/// The kinds of file that no other archive has in such a place.
const UNMISTAKABLE: [&str; 5] = [".pom", ".jar", ".aar", ".war", ".module"];

/// A path, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The name of the file, without the end of a checksum.
    pub file: String,
    /// What it is, or what its checksum is of.
    pub what: What,
    /// It is a checksum.
    pub checksum: Option<Checksum>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `maven-metadata.xml`, of what lies beside it: all directories above it, and if it is of a
    /// snapshot, that.
    Metadata {
        /// The directories, without the snapshot's.
        above: Vec<String>,
        /// The version of the snapshot.
        snapshot: Option<String>,
    },
    /// An artifact or its like, that never changes.
    Artifact {
        /// The group: `com.acme`.
        group: String,
        /// The artifact: `app`.
        artifact: String,
        /// The version, by its directory: `1.0`, `1.1-SNAPSHOT`.
        version: String,
    },
    /// A file that is named for a snapshot, not for one build of it: it changes.
    Moving {
        /// The group.
        group: String,
        /// The artifact.
        artifact: String,
    },
}

/// A kind of checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// MD5.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Checksum {
    const ALL: [Checksum; 4] = [Checksum::Md5, Checksum::Sha1, Checksum::Sha256, Checksum::Sha512];

    /// Returns how the names of such files end.
    pub fn extension(self) -> &'static str {
        match self {
            Checksum::Md5 => ".md5",
            Checksum::Sha1 => ".sha1",
            Checksum::Sha256 => ".sha256",
            Checksum::Sha512 => ".sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Checksum::Md5 => 32,
            Checksum::Sha1 => 40,
            Checksum::Sha256 => 64,
            Checksum::Sha512 => 128,
        }
    }

    /// Reads such a file: hex digits, perhaps with the file's name before or behind, as the tools of
    /// thirty years have written it.
    pub fn read(self, bytes: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(bytes).ok()?;
        let is_it = |word: &&str| {
            word.len() == self.hex_len() && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        text.split_ascii_whitespace().find(is_it).map(str::to_ascii_lowercase)
    }
}

impl Place {
    /// Reads a path below the repository; `None` where it is no file of one.
    pub fn of(path: &str) -> Option<Place> {
        let mut parts: Vec<String> =
            path.trim_start_matches('/').split('/').map(plain).collect::<Option<_>>()?;
        let last = parts.pop()?;
        let checksum = Checksum::ALL.into_iter().find(|kind| last.ends_with(kind.extension()));
        let file = match checksum {
            Some(kind) => last.strip_suffix(kind.extension())?.to_owned(),
            None => last,
        };
        if file == METADATA {
            let snapshot = match parts.last() {
                Some(last) if last.ends_with(SNAPSHOT) => parts.pop(),
                _ => None,
            };
            if parts.is_empty() || (snapshot.is_some() && parts.len() < 2) {
                return None;
            }
            return Some(Place { file, what: What::Metadata { above: parts, snapshot }, checksum });
        }
        let (version, artifact) = (parts.pop()?, parts.pop()?);
        if parts.is_empty() {
            return None;
        }
        let group = parts.join(".");
        let rest = file.strip_prefix(artifact.as_str())?.strip_prefix('-')?;
        let ends = |rest: &str| rest.starts_with(['.', '-']);
        if rest.strip_prefix(version.as_str()).is_some_and(ends) {
            let what = if version.ends_with(SNAPSHOT) {
                What::Moving { group, artifact }
            } else {
                What::Artifact { group, artifact, version }
            };
            return Some(Place { file, what, checksum });
        }
        let base = version.strip_suffix(SNAPSHOT)?;
        build(rest.strip_prefix(base)?.strip_prefix('-')?)?;
        Some(Place { file, what: What::Artifact { group, artifact, version }, checksum })
    }

    /// Says whether a path is of such a repository, whoever's.
    pub(super) fn is_unmistakable(&self) -> bool {
        let file = self.file.trim_end_matches(".asc");
        self.file == METADATA || UNMISTAKABLE.iter().any(|end| file.ends_with(end))
    }

    /// Says whether it is a signature: clients check those, against keys that we do not know.
    pub(super) fn is_signature(&self) -> bool {
        self.file.ends_with(".asc")
    }

    /// Returns the names that it may be of: a `maven-metadata.xml` may be of an artifact, or of the
    /// plugins of a group.
    pub(super) fn packages(&self) -> Vec<String> {
        match &self.what {
            What::Artifact { group, artifact, .. } | What::Moving { group, artifact } => {
                vec![format!("{group}:{artifact}")]
            }
            What::Metadata { above, snapshot } => {
                let artifact = above.split_last().filter(|(_, group)| !group.is_empty());
                let artifact =
                    artifact.map(|(artifact, group)| format!("{}:{artifact}", group.join(".")));
                let group = snapshot.is_none().then(|| plugins_of(&above.join(".")));
                artifact.into_iter().chain(group).collect()
            }
        }
    }

    /// Says whether it is of a private artifact.
    pub(super) fn is_private(&self, hosted: &Hosted) -> bool {
        self.packages().iter().any(|name| hosted.is_private(name))
    }
}

/// Returns the name under which the plugins of a group are kept: no artifact has it.
pub(super) fn plugins_of(group: &str) -> String {
    format!("{group}:")
}

/// One build of a snapshot, as its files are named: `20260102.030405-1-sources.jar`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Build<'a> {
    pub(super) timestamp: &'a str,
    pub(super) number: u64,
    /// What follows: `-sources.jar`, `.jar`.
    pub(super) rest: &'a str,
}

/// Reads what follows the version in the name of a build's file.
pub(super) fn build(text: &str) -> Option<Build<'_>> {
    let (timestamp, rest) = text.split_at_checked(15)?;
    let is_time = timestamp.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'.',
        _ => byte.is_ascii_digit(),
    });
    let rest = rest.strip_prefix('-').filter(|_| is_time)?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = rest.split_at(digits);
    rest.starts_with(['.', '-']).then_some(Build { timestamp, number: number.parse().ok()?, rest })
}

/// Returns a segment that is plain text; what would have to be decoded is in no repository.
fn plain(segment: &str) -> Option<String> {
    let fine = |byte: u8| byte.is_ascii_graphic() && !b"%\\\"<>|".contains(&byte);
    let is_plain = !segment.is_empty() && segment.len() <= 255 && segment.bytes().all(fine);
    is_plain.then(|| segment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_maven_means() {
        let artifact = |version: &str| What::Artifact {
            group: "com.acme".to_owned(),
            artifact: "app".to_owned(),
            version: version.to_owned(),
        };
        let moving = What::Moving { group: "com.acme".to_owned(), artifact: "app".to_owned() };
        let metadata = |above: &str, snapshot: Option<&str>| What::Metadata {
            above: above.split('/').map(str::to_owned).collect(),
            snapshot: snapshot.map(str::to_owned),
        };
        for (path, what, checksum) in [
            ("com/acme/app/1.0/app-1.0.jar", artifact("1.0"), None),
            ("com/acme/app/1.0/app-1.0-sources.jar.asc", artifact("1.0"), None),
            ("com/acme/app/1.0/app-1.0.pom.sha1", artifact("1.0"), Some(Checksum::Sha1)),
            ("com/acme/app/1-SNAPSHOT/app-1-20260102.030405-12.jar", artifact("1-SNAPSHOT"), None),
            ("com/acme/app/1-SNAPSHOT/app-1-SNAPSHOT.jar", moving, None),
            (
                "com/acme/app/maven-metadata.xml.sha512",
                metadata("com/acme/app", None),
                Some(Checksum::Sha512),
            ),
            (
                "com/acme/app/1-SNAPSHOT/maven-metadata.xml",
                metadata("com/acme/app", Some("1-SNAPSHOT")),
                None,
            ),
        ] {
            let place = Place::of(path).unwrap();
            assert_eq!((place.what, place.checksum), (what, checksum), "{path}");
        }
        for none in [
            "",
            "app-1.0.jar",
            "app/1.0/app-1.0.jar",
            "com/app/1.0/other-1.0.jar",
            "com/app/1.0/app-1.01.jar",
            "com/app/1-SNAPSHOT/app-1-20260102-1.jar",
            "com/app/1-SNAPSHOT/app-1-20260102.030405.jar",
            "com//app/1.0/app-1.0.jar",
            "com/%61/app/1.0/app-1.0.jar",
            "maven-metadata.xml",
        ] {
            assert_eq!(Place::of(none), None, "{none}");
        }
        let of = |path: &str| Place::of(path).unwrap().packages();
        assert_eq!(of("com/acme/maven-metadata.xml"), ["com:acme", "com.acme:"]);
        assert_eq!(of("acme/maven-metadata.xml"), ["acme:"]);
    }

    #[test]
    fn checksums_stand_alone_or_with_a_name() {
        let hex = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        for text in [
            hex.to_owned(),
            format!("{hex}\n"),
            format!("{hex}  app.jar\n"),
            format!("SHA1(app.jar)= {}", hex.to_uppercase()),
        ] {
            assert_eq!(Checksum::Sha1.read(text.as_bytes()).as_deref(), Some(hex), "{text}");
        }
        assert_eq!(Checksum::Sha1.read(b"<html>"), None);
        assert_eq!(Checksum::Sha256.read(hex.as_bytes()), None);
    }
}
