//! What a path below a Python index means.
//!
//! ```text
//! simple/                         the names of all projects
//! simple/six/                     a project's page
//! simple/six, simple/SIX/         the same, in a spelling that leads to it
//! simple/six/files/six-1.0.whl    a file of it, as clients see it: only the page says where it is
//! pypi/six/json                   what else is known of it
//! ```

/// The longest name that is understood.
const LENGTH_MAX: usize = 256;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// The names of all projects.
    Root,
    /// A project's page.
    Project(ProjectName),
    /// Another spelling of its address.
    Misspelt(ProjectName),
    /// A file of a project, or its `.metadata`.
    File(ProjectName, String),
    /// What is known of a project beside its files.
    About(ProjectName),
}

/// The name of a project, normalised.
///
/// > "The name should be lowercased with all runs of the characters `.`, `-`, or `_` replaced with
/// > a single `-` character." (PEP 503)
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProjectName(String);

impl ProjectName {
    /// Reads a name in any spelling.
    pub(super) fn parse(text: &str) -> Option<ProjectName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let good = ends(bytes.first()) && ends(bytes.last()) && bytes.iter().copied().all(plain);
        if !good || text.len() > LENGTH_MAX {
            return None;
        }
        let words = text.split(['.', '-', '_']).filter(|word| !word.is_empty());
        Some(ProjectName(words.collect::<Vec<_>>().join("-").to_ascii_lowercase()))
    }

    /// Returns its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Address {
    /// Understands a path without a slash in front, below the simple index. `file_name` is its last
    /// segment, decoded.
    pub(super) fn parse(path: &str, file_name: &str) -> Option<Address> {
        if path.is_empty() {
            return Some(Address::Root);
        }
        let (project, rest) = match path.split_once('/') {
            Some((project, rest)) => (project, Some(rest)),
            None => (path, None),
        };
        let name = ProjectName::parse(project)?;
        match rest {
            Some("") if project == name.as_str() => Some(Address::Project(name)),
            None | Some("") => Some(Address::Misspelt(name)),
            Some(file) => {
                let one = file.strip_prefix("files/").filter(|file| !file.contains('/'))?;
                let good = !one.is_empty() && is_file(file_name);
                good.then(|| Address::File(name, file_name.to_owned()))
            }
        }
    }
}

/// Says whether a file has a name that can be a part of a path as it is.
pub(super) fn is_file(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+!~".contains(&byte);
    !text.is_empty() && text.len() <= 512 && !text.starts_with('.') && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for (text, name) in
            [("six", "six"), ("A.b_-c", "a-b-c"), ("X", "x"), ("zope.interface", "zope-interface")]
        {
            assert_eq!(ProjectName::parse(text).unwrap().as_str(), name, "{text}");
        }
        for bad in ["", ".", "..", "-a", "a-", "a/b", "a b", "é", "a%2f", "<b>"] {
            assert_eq!(ProjectName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_mean_one_thing() {
        let name = |text: &str| ProjectName::parse(text).unwrap();
        let of = |path: &str| {
            let last = path.rsplit('/').next().unwrap().replace("%2B", "+");
            Address::parse(path, &last)
        };
        assert_eq!(of(""), Some(Address::Root));
        assert_eq!(of("six/"), Some(Address::Project(name("six"))));
        for misspelt in ["six", "SIX/", "Six"] {
            assert_eq!(of(misspelt), Some(Address::Misspelt(name("six"))), "{misspelt}");
        }
        let file = |file: &str| Some(Address::File(name("six"), file.to_owned()));
        assert_eq!(of("six/files/six-1%2Bl.whl"), file("six-1+l.whl"));
        for bad in ["six/files/", "six/files/a/b", "six/x/y", "six/files/..", "six/files/a b", "-/"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
