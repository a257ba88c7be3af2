//! A package of an image.

/// Whose package it is: the type of its package URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// dpkg's.
    Deb,
    /// Alpine's.
    Apk,
    /// rpm's.
    Rpm,
    /// Node.js's.
    Npm,
    /// Python's.
    Pypi,
    /// Ruby's.
    Gem,
    /// Rust's.
    Cargo,
    /// Go's.
    Golang,
}

impl Kind {
    /// Returns the type of package URLs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Deb => "deb",
            Kind::Apk => "apk",
            Kind::Rpm => "rpm",
            Kind::Npm => "npm",
            Kind::Pypi => "pypi",
            Kind::Gem => "gem",
            Kind::Cargo => "cargo",
            Kind::Golang => "golang",
        }
    }

    /// Says whether a distribution's name belongs to its packages.
    fn is_of_distribution(self) -> bool {
        matches!(self, Kind::Deb | Kind::Apk | Kind::Rpm)
    }
}

/// A package, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Whose.
    pub kind: Kind,
    /// Its name, with what is before it: `@scope/name`, `example.com/module`.
    pub name: String,
    /// Its version, with an epoch of Debian.
    pub version: String,
    /// The file of the image that says so.
    pub found_in: String,
    /// Its architecture, in its own words.
    pub architecture: Option<String>,
    /// Its license, in its own words.
    pub license: Option<String>,
    /// The package that it was built from, where that has another name.
    pub upstream: Option<String>,
    /// The epoch of an rpm.
    pub epoch: Option<u32>,
}

/// What `/etc/os-release` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    pub(super) id: String,
    pub(super) version: String,
}

impl Package {
    /// Returns a package of which nothing more is known.
    pub(super) fn new(kind: Kind, name: &str, version: &str, found_in: &str) -> Package {
        Package {
            kind,
            name: name.to_owned(),
            version: version.to_owned(),
            found_in: found_in.to_owned(),
            architecture: None,
            license: None,
            upstream: None,
            epoch: None,
        }
    }

    /// Returns its package URL.
    pub(super) fn url(&self, distribution: Option<&Distribution>) -> String {
        let name = match self.kind {
            // PEP 503: one name, however it is written.
            Kind::Pypi => self.name.to_lowercase().replace(['_', '.'], "-"),
            _ => self.name.clone(),
        };
        let name = name.split('/').map(escaped).collect::<Vec<_>>().join("/");
        let own = self.kind.is_of_distribution();
        let namespace = distribution.filter(|_| own).map(|it| format!("{}/", escaped(&it.id)));
        let mut qualifiers = Vec::new();
        let mut add = |key, value: Option<String>| {
            qualifiers.extend(value.map(|value| format!("{key}={}", escaped(&value))));
        };
        add("arch", self.architecture.clone());
        let release = distribution.filter(|it| own && !it.version.is_empty());
        add("distro", release.map(|it| format!("{}-{}", it.id, it.version)));
        add("epoch", self.epoch.map(|epoch| epoch.to_string()));
        add("upstream", self.upstream.clone());
        let mark = if qualifiers.is_empty() { "" } else { "?" };
        format!(
            "pkg:{}/{}{name}@{}{mark}{}",
            self.kind.name(),
            namespace.unwrap_or_default(),
            escaped(&self.version),
            qualifiers.join("&")
        )
    }
}

/// Escapes what is no letter, digit or one of `.-_~` (RFC 3986).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                escaped.push(byte as char);
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
