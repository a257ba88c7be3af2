//! Package archives that tests make, change and serve, and apt as their client.
//!
//! It needs `apt-get`, `apt-cache` and `gpg`, and nothing of the machine's own apt: sources, keys,
//! lists and caches are the test's.

mod apt;
mod deb;
mod key;
mod origin;

use std::collections::BTreeMap;
use std::io::Write as _;

use boatyard_oci::Digest;

use super::images;

pub use apt::{Apt, Ran};
pub use key::Key;
pub use origin::{Fault, Origin};

/// Files by their paths; `None` deletes one.
pub type Step = BTreeMap<String, Option<Vec<u8>>>;

/// How an archive is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `dists/` and `pool/`, or all in one directory.
    pub is_flat: bool,
    /// Indexes have names by their digests too.
    pub by_hash: bool,
    /// `Release` and `Release.gpg` instead of `InRelease`.
    pub is_split: bool,
    /// Patches lead from one index to the next.
    pub has_patches: bool,
    /// How long a root is valid, in seconds from its date.
    pub valid_for: Option<i64>,
}

impl Layout {
    /// A suite without names by digest.
    pub const PLAIN: Layout = Layout {
        is_flat: false,
        by_hash: false,
        is_split: false,
        has_patches: false,
        valid_for: None,
    };
    /// A suite with names by digest.
    pub const BY_HASH: Layout = Layout { by_hash: true, ..Layout::PLAIN };
    /// A flat repository.
    pub const FLAT: Layout = Layout { is_flat: true, ..Layout::PLAIN };
    /// A suite with a detached signature.
    pub const SPLIT: Layout = Layout { is_split: true, ..Layout::PLAIN };

    /// Returns the line of a client's sources, for the archive at a URL.
    pub fn source(self, url: &str, key: &Key) -> String {
        let signed = key.public().display();
        let suite = if self.is_flat { "./" } else { "sid main" };
        format!("deb [signed-by={signed}] {url} {suite}\n")
    }

    fn suite(self) -> &'static str {
        if self.is_flat { "" } else { "dists/sid/" }
    }

    fn part(self) -> &'static str {
        if self.is_flat { "" } else { "main/binary-amd64/" }
    }

    fn pool(self) -> &'static str {
        if self.is_flat { "./" } else { "pool/main/" }
    }
}

/// One generation of an archive, in the parts that are published one after the other.
#[derive(Clone, Debug, Default)]
pub struct Edition {
    /// The packages.
    pub packages: Step,
    /// `Packages` in all its packings.
    pub indexes: Step,
    /// The names of the indexes by digest.
    pub by_hash: Step,
    /// `InRelease`, or `Release`.
    pub root: Step,
    /// `Release.gpg`.
    pub signature: Step,
}

impl Edition {
    /// Makes the edition of a number: each package of it has that version.
    pub fn new(layout: Layout, key: &Key, number: i64, packages: &[&str]) -> Edition {
        let version = format!("{number}.0");
        let packages = packages.iter().map(|name| (*name, deb::make(name, &version)));
        Edition::of(layout, key, number, packages.collect())
    }

    /// Makes an edition whose packages hold so many bytes each that cannot be packed.
    pub fn large(
        layout: Layout,
        key: &Key,
        number: i64,
        packages: &[&str],
        bytes: usize,
    ) -> Edition {
        let version = format!("{number}.0");
        let noise = |at: usize| images::noise(at as u64, bytes);
        let packages = packages.iter().enumerate();
        let make = packages.map(|(at, name)| (*name, deb::holding(name, &version, &noise(at))));
        Edition::of(layout, key, number, make.collect())
    }

    fn of(layout: Layout, key: &Key, number: i64, packages: Vec<(&str, Vec<u8>)>) -> Edition {
        let mut edition = Edition::default();
        let (mut text, version) = (String::new(), format!("{number}.0"));
        for (name, deb) in packages {
            let file = format!("{name}_{version}_all.deb");
            text.push_str(&stanza(name, &version, &format!("{}{file}", layout.pool()), &deb));
            edition
                .packages
                .insert(format!("{}{file}", layout.pool()).replace("./", ""), Some(deb));
        }
        edition.list(layout, key, number, &text);
        edition
    }

    /// Makes an edition with one package, whose file always has the same name.
    pub fn replacing(layout: Layout, key: &Key, number: i64, name: &str) -> Edition {
        let mut edition = Edition::default();
        let deb = deb::make(name, &format!("{number}.0"));
        let file = format!("{}{name}.deb", layout.pool());
        let text = stanza(name, &format!("{number}.0"), &file, &deb);
        edition.packages.insert(file.replace("./", ""), Some(deb));
        edition.list(layout, key, number, &text);
        edition
    }

    fn list(&mut self, layout: Layout, key: &Key, number: i64, text: &str) {
        let part = layout.part();
        let packings = [
            ("Packages", text.as_bytes().to_vec()),
            ("Packages.gz", gzip(text.as_bytes())),
            ("Packages.xz", xz(text.as_bytes())),
        ];
        let mut release = release_head(layout, number);
        for (name, bytes) in packings {
            let digest = Digest::sha256(&bytes);
            release.push_str(&format!(" {} {} {part}{name}\n", digest.hex(), bytes.len()));
            let directory = format!("{}{part}", layout.suite());
            if layout.by_hash {
                let path = format!("{directory}by-hash/SHA256/{}", digest.hex());
                self.by_hash.insert(path, Some(bytes.clone()));
            }
            self.indexes.insert(format!("{directory}{name}"), Some(bytes));
        }
        if layout.is_split {
            let signature = key.sign(release.as_bytes());
            self.signature.insert(format!("{}Release.gpg", layout.suite()), Some(signature));
            let release = Some(release.into_bytes());
            self.root.insert(format!("{}Release", layout.suite()), release);
        } else {
            let signed = key.clearsign(release.as_bytes());
            self.root.insert(format!("{}InRelease", layout.suite()), Some(signed));
        }
    }

    /// Returns all of it, as one step.
    pub fn whole(&self) -> Step {
        let parts = [&self.packages, &self.indexes, &self.by_hash, &self.root, &self.signature];
        parts.into_iter().flat_map(Clone::clone).collect()
    }

    /// Returns its parts, those without files left out.
    pub fn parts(&self) -> Vec<Step> {
        let mut indexes = self.indexes.clone();
        indexes.extend(self.by_hash.clone());
        let parts = [self.packages.clone(), indexes, self.root.clone(), self.signature.clone()];
        parts.into_iter().filter(|part| !part.is_empty()).collect()
    }
}

fn stanza(name: &str, version: &str, file: &str, deb: &[u8]) -> String {
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A Test <test@example>\n\
         Description: a test\nFilename: {file}\nSize: {}\nSHA256: {}\n\n",
        deb.len(),
        Digest::sha256(deb).hex()
    )
}

fn release_head(layout: Layout, number: i64) -> String {
    // Some hours ago, for dates that lie ahead are refused; a minute for each edition.
    let made = jiff::Timestamp::now().as_second() - 6 * 3600 + number * 60;
    let date = |second| {
        let time = jiff::Timestamp::from_second(second).unwrap();
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap()
    };
    let mut head = format!("Origin: A Test\nSuite: sid\nCodename: sid\nDate: {}\n", date(made));
    if let Some(valid) = layout.valid_for {
        head.push_str(&format!("Valid-Until: {}\n", date(made + valid)));
    }
    if layout.by_hash {
        head.push_str("Acquire-By-Hash: yes\n");
    }
    if !layout.is_flat {
        head.push_str("Architectures: all amd64\nComponents: main\n");
    }
    head + "SHA256:\n"
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut xz = std::process::Command::new("xz")
        .args(["--stdout", "-1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    xz.stdin.take().unwrap().write_all(bytes).unwrap();
    xz.wait_with_output().unwrap().stdout
}
