//! What a path below a registry means.
//!
//! ```text
//! left-pad, @scope%2Fname, @scope/name    a package's document
//! left-pad/1.3.0, left-pad/latest         one version's
//! left-pad/-/left-pad-1.3.0.tgz           a tarball
//! -/package/left-pad/dist-tags            its tags
//! -/v1/search, -/npm/v1/security/...      what is asked of the registry itself
//! ```

use super::name::PackageName;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// All that is known of a package.
    Document(PackageName),
    /// All that is known of one version, or of the one that a tag points at.
    Version(PackageName, String),
    /// The files of one version; their name may be anything.
    Tarball(PackageName, String),
    /// The tags of a package.
    Tags(PackageName),
    /// Who one is.
    Whoami,
    /// Questions that have no lasting answer: searches, audits, who one is.
    Passing,
}

impl Address {
    /// Understands a path without a slash in front.
    pub(super) fn parse(path: &str) -> Option<Address> {
        if let Some(rest) = path.strip_prefix("-/") {
            let tagged =
                rest.strip_prefix("package/").and_then(|rest| rest.strip_suffix("/dist-tags"));
            return Some(match tagged.and_then(PackageName::parse) {
                Some(name) => Address::Tags(name),
                None if rest == "whoami" => Address::Whoami,
                None => Address::Passing,
            });
        }
        if let Some((package, file)) = path.split_once("/-/") {
            let file = file.rsplit('/').next().unwrap_or_default();
            let name = PackageName::parse(package)?;
            return is_file(file).then(|| Address::Tarball(name, file.to_owned()));
        }
        if let Some(name) = PackageName::parse(path) {
            return Some(Address::Document(name));
        }
        let (package, version) = path.rsplit_once('/')?;
        let name = PackageName::parse(package)?;
        is_file(version).then(|| Address::Version(name, version.to_owned()))
    }

    /// Finds a tarball at the end of any path, and what comes before its package's name: registries
    /// may lie anywhere, and `npm` puts the whole path of one below the address of another.
    pub(super) fn tarball_at_end(path: &str) -> Option<(&str, Address)> {
        let (before, _) = path.split_once("/-/")?;
        let segments: Vec<&str> = before.rsplitn(3, '/').collect();
        let scoped = segments.get(1).is_some_and(|scope| scope.starts_with('@'));
        let taken =
            if scoped { segments[0].len() + 1 + segments[1].len() } else { segments[0].len() };
        let (base, below) = path.split_at(before.len() - taken);
        let address = Address::parse(below)?;
        matches!(address, Address::Tarball(..)).then_some((base, address))
    }
}

fn is_file(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!'()*%+".contains(&byte);
    !text.is_empty() && text.len() <= 512 && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PackageName {
        PackageName::parse(text).unwrap()
    }

    #[test]
    fn paths_mean_one_thing() {
        let tarball = |package: &str, file: &str| Address::Tarball(name(package), file.to_owned());
        for (path, expected) in [
            ("left-pad", Some(Address::Document(name("left-pad")))),
            ("@s%2Fp", Some(Address::Document(name("@s/p")))),
            ("@s/p", Some(Address::Document(name("@s/p")))),
            ("p/1.0.0", Some(Address::Version(name("p"), "1.0.0".to_owned()))),
            ("@s/p/latest", Some(Address::Version(name("@s/p"), "latest".to_owned()))),
            ("p/-/p-1.0.0.tgz", Some(tarball("p", "p-1.0.0.tgz"))),
            ("@s/p/-/p-1.0.0.tgz", Some(tarball("@s/p", "p-1.0.0.tgz"))),
            ("@s%2Fp/-/@s/p-1.0.0.tgz", Some(tarball("@s/p", "p-1.0.0.tgz"))),
            ("-/v1/search", Some(Address::Passing)),
            ("-/npm/v1/security/audits/quick", Some(Address::Passing)),
            ("-/package/@s%2Fp/dist-tags", Some(Address::Tags(name("@s/p")))),
            ("", None),
            ("a/b/c", None),
            ("p/-/", None),
        ] {
            assert_eq!(Address::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn tarballs_are_found_at_the_end_of_any_path() {
        for (path, base) in [
            ("/p/-/p-1.tgz", "/"),
            ("/repo/npm/@s/p/-/p-1.tgz", "/repo/npm/"),
            ("repo/p/-/p-1.tgz", "repo/"),
            ("p/-/p-1.tgz", ""),
        ] {
            assert_eq!(Address::tarball_at_end(path).unwrap().0, base, "{path}");
        }
        for bad in ["/-/p.tgz", "/p/-/", "/p/x.tgz", "/-/v1/-/x.tgz"] {
            assert!(Address::tarball_at_end(bad).is_none(), "{bad}");
        }
    }
}
