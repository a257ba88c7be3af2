//! `maven-metadata.xml` of private artifacts, and checksums.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::Arc;

use boatyard_content::packages::{Package, PackageFile};
use boatyard_content::{Blob, Root};
use boatyard_oci::{Algorithm, Digest};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha1::Digest as _;

use super::layout::{Build, Checksum, build};

/// The ends of names that have a dot within.
const DOUBLE: [&str; 3] = ["tar.gz", "tar.bz2", "tar.xz"];

/// Returns the checksum of some bytes, in hex; `None` for MD5, which vouches for nothing.
pub(super) fn checksum_of(bytes: &[u8], kind: Checksum) -> Option<String> {
    Some(match kind {
        Checksum::Md5 => return None,
        Checksum::Sha1 => hex(&sha1::Sha1::digest(bytes)),
        Checksum::Sha256 => Digest::of(Algorithm::Sha256, bytes).hex().to_owned(),
        Checksum::Sha512 => Digest::of(Algorithm::Sha512, bytes).hex().to_owned(),
    })
}

/// Returns the checksum of a blob, in hex. Blocking.
pub(super) fn checksum_of_blob(root: &Arc<Root>, blob: &Digest, kind: Checksum) -> Option<String> {
    match (kind, blob.algorithm()) {
        (Checksum::Md5, _) => return None,
        (Checksum::Sha256, Algorithm::Sha256) | (Checksum::Sha512, Algorithm::Sha512) => {
            return Some(blob.hex().to_owned());
        }
        _ => {}
    }
    let mut reader = Blob::File(root.store().open_blocking(blob).ok()??).into_reader();
    let mut buffer = vec![0; 64 * 1024];
    let mut sha1 = sha1::Sha1::new();
    let mut other = boatyard_oci::Hasher::new(match kind {
        Checksum::Sha512 => Algorithm::Sha512,
        _ => Algorithm::Sha256,
    });
    loop {
        let read = reader.read(&mut buffer).ok()?;
        let bytes = &buffer[..read];
        match (read, kind) {
            (0, Checksum::Sha1) => return Some(hex(&sha1.finalize())),
            (0, _) => return Some(other.finish().hex().to_owned()),
            (_, Checksum::Sha1) => sha1.update(bytes),
            _ => other.update(bytes),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Returns the metadata of an artifact: its versions, in the order in which they were published,
/// without those that were withdrawn.
pub(super) fn of_artifact(package: &Package) -> Option<String> {
    let (group, artifact) = package.name.split_once(':')?;
    let mut versions: Vec<&str> = Vec::new();
    for file in package.files.iter().filter(|file| file.withdrawn.is_none()) {
        if !versions.contains(&file.version.as_str()) {
            versions.push(&file.version);
        }
    }
    let latest = versions.last()?;
    let updated = package.files.iter().map(|file| file.published).max()?;
    let mut xml = start(group, artifact);
    let _ = writeln!(xml, "  <versioning>\n    <latest>{}</latest>", escaped(latest));
    if let Some(release) = versions.iter().rev().find(|version| !version.ends_with("-SNAPSHOT")) {
        let _ = writeln!(xml, "    <release>{}</release>", escaped(release));
    }
    xml.push_str("    <versions>\n");
    for version in &versions {
        let _ = writeln!(xml, "      <version>{}</version>", escaped(version));
    }
    let _ = writeln!(xml, "    </versions>\n    <lastUpdated>{}</lastUpdated>", stamp(updated));
    xml.push_str("  </versioning>\n</metadata>\n");
    Some(xml)
}

/// Returns the metadata of a snapshot: its last build, and the last file of each kind.
pub(super) fn of_snapshot(package: &Package, version: &str) -> Option<String> {
    let (group, artifact) = package.name.split_once(':')?;
    let base = version.strip_suffix("-SNAPSHOT")?;
    let prefix = format!("{artifact}-{base}-");
    let mut files: BTreeMap<&str, (Build<'_>, &Arc<PackageFile>)> = BTreeMap::new();
    for file in package.version(version) {
        let Some(build) = file.file.strip_prefix(&prefix).and_then(build) else { continue };
        match files.get(build.rest) {
            Some((last, _)) if *last > build => {}
            _ => drop(files.insert(build.rest, (build, file))),
        }
    }
    let (last, _) = files.values().max_by_key(|(build, _)| (build.timestamp, build.number))?;
    let mut xml = start(group, artifact);
    let _ = writeln!(
        xml,
        "  <version>{}</version>\n  <versioning>\n    <snapshot>\n      \
         <timestamp>{}</timestamp>\n      <buildNumber>{}</buildNumber>\n    </snapshot>\n    \
         <lastUpdated>{}</lastUpdated>\n    <snapshotVersions>",
        escaped(version),
        last.timestamp,
        last.number,
        last.timestamp.replace('.', "")
    );
    for (build, _) in files.values() {
        let (classifier, extension) = kind_of(build.rest);
        xml.push_str("      <snapshotVersion>\n");
        if let Some(classifier) = classifier {
            let _ = writeln!(xml, "        <classifier>{}</classifier>", escaped(classifier));
        }
        let _ = writeln!(
            xml,
            "        <extension>{}</extension>\n        <value>{}-{}-{}</value>\n        \
             <updated>{}</updated>\n      </snapshotVersion>",
            escaped(extension),
            escaped(base),
            build.timestamp,
            build.number,
            build.timestamp.replace('.', "")
        );
    }
    xml.push_str("    </snapshotVersions>\n  </versioning>\n</metadata>\n");
    Some(xml)
}

/// Returns the classifier and the extension of `-sources.jar`.
fn kind_of(rest: &str) -> (Option<&str>, &str) {
    let bare = rest.strip_suffix(".asc").unwrap_or(rest);
    let double = DOUBLE.iter().find(|end| bare.ends_with(*end)).map(|end| bare.len() - end.len());
    let start = double.or_else(|| Some(bare.rfind('.')? + 1)).unwrap_or(rest.len());
    let before = rest[..start].trim_end_matches('.');
    (before.strip_prefix('-').filter(|classifier| !classifier.is_empty()), &rest[start..])
}

fn start(group: &str, artifact: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata modelVersion=\"1.1.0\">\n  \
         <groupId>{}</groupId>\n  <artifactId>{}</artifactId>\n",
        escaped(group),
        escaped(artifact)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn stamp(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(files: &[(&str, &str)]) -> Package {
        let file = |(at, (version, file)): (usize, &(&str, &str))| {
            let published: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
            Arc::new(PackageFile {
                package: "com.acme:app".to_owned(),
                version: (*version).to_owned(),
                file: (*file).to_owned(),
                blob: Digest::sha256(b""),
                size: 0,
                published: published + jiff::SignedDuration::from_secs(at as i64),
                by: String::new(),
                metadata: serde_json::Value::Null,
                withdrawn: None,
            })
        };
        let files = files.iter().enumerate().map(file).collect();
        Package { name: "com.acme:app".to_owned(), files }
    }

    #[test]
    fn versions_in_the_order_of_their_publication() {
        let package = package(&[
            ("1.10", "app-1.10.jar"),
            ("1.9", "app-1.9.jar"),
            ("1.9", "app-1.9.pom"),
            ("2-SNAPSHOT", "app-2-20260102.030405-1.jar"),
        ]);
        let xml = of_artifact(&package).unwrap();
        assert_eq!(
            xml,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata modelVersion=\"1.1.0\">\n  \
             <groupId>com.acme</groupId>\n  <artifactId>app</artifactId>\n  <versioning>\n    \
             <latest>2-SNAPSHOT</latest>\n    <release>1.9</release>\n    <versions>\n      \
             <version>1.10</version>\n      <version>1.9</version>\n      \
             <version>2-SNAPSHOT</version>\n    </versions>\n    \
             <lastUpdated>20260102030408</lastUpdated>\n  </versioning>\n</metadata>\n"
        );
    }

    #[test]
    fn the_last_build_of_each_kind() {
        let package = package(&[
            ("2-SNAPSHOT", "app-2-20260102.030405-1.jar"),
            ("2-SNAPSHOT", "app-2-20260102.030405-1-sources.jar"),
            ("2-SNAPSHOT", "app-2-20260103.030405-10.jar"),
            ("2-SNAPSHOT", "app-2-20260103.030405-9.jar"),
        ]);
        let xml = of_snapshot(&package, "2-SNAPSHOT").unwrap();
        assert!(xml.contains("<buildNumber>10</buildNumber>"), "{xml}");
        assert!(xml.contains("<value>2-20260103.030405-10</value>"), "{xml}");
        assert!(xml.contains("<classifier>sources</classifier>\n        <extension>jar<"), "{xml}");
        assert_eq!(xml.matches("<snapshotVersion>").count(), 2, "{xml}");
        assert_eq!(of_snapshot(&package, "3-SNAPSHOT"), None);
    }

    #[test]
    fn kinds_of_files() {
        for (rest, expected) in [
            (".jar", (None, "jar")),
            ("-sources.jar", (Some("sources"), "jar")),
            ("-scala2.12.jar.asc", (Some("scala2.12"), "jar.asc")),
            ("-bin.tar.gz", (Some("bin"), "tar.gz")),
            (".tar.gz", (None, "tar.gz")),
        ] {
            assert_eq!(kind_of(rest), expected, "{rest}");
        }
    }
}
