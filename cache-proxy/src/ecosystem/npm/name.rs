//! The name of a package: `left-pad`, `@scope/name`.

use std::fmt;

/// The longest name that is understood. The public registry allows 214 characters.
const LENGTH_MAX: usize = 256;

/// The name of a package.
///
/// - One part, or `@scope/part`.
/// - Each part has letters, digits and `-._~!'()*` only (old packages have capitals, and worse),
///   begins with neither `.` nor `_`, and is not `-`, which is the registry's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PackageName(String);

impl PackageName {
    /// Reads the one or two segments of a path; `%40` and `%2F` are `@` and `/`.
    pub(super) fn parse(text: &str) -> Option<PackageName> {
        let text = text.replace("%40", "@").replace("%2F", "/");
        let good = match text.strip_prefix('@').map(|rest| rest.split_once('/')) {
            Some(Some((scope, part))) => is_part(scope) && is_part(part),
            Some(None) => false,
            None => is_part(&text),
        };
        (good && text.len() <= LENGTH_MAX).then_some(PackageName(text))
    }

    /// Returns it without its scope.
    pub(super) fn bare(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Returns its document's path, as npm writes it.
    pub(super) fn path(&self) -> String {
        self.0.replace('/', "%2F")
    }

    /// Returns the file name that a version's tarball has by convention; `None` for a version that
    /// cannot be a part of one.
    pub(super) fn tarball(&self, version: &str) -> Option<String> {
        // > "the version without its build metadata": registries take no two that differ in it.
        let version = version.split('+').next().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let good = !version.is_empty() && version.len() <= LENGTH_MAX && version.bytes().all(plain);
        good.then(|| format!("{}-{version}.tgz", self.bare()))
    }
}

fn is_part(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!'()*".contains(&byte);
    !text.is_empty() && text != "-" && !text.starts_with(['.', '_']) && text.bytes().all(plain)
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_paths_and_nothing_else() {
        for (text, name) in [
            ("left-pad", "left-pad"),
            ("@s/p", "@s/p"),
            ("@s%2Fp", "@s/p"),
            ("%40s%2Fp", "@s/p"),
            ("JSONStream", "JSONStream"),
        ] {
            assert_eq!(PackageName::parse(text).unwrap().to_string(), name, "{text}");
        }
        for bad in [
            "",
            "-",
            ".",
            "..",
            "_all_docs",
            "@s",
            "@/p",
            "@s/",
            "@s/p/q",
            "a/b",
            "a%00b",
            "<b>",
            "a b",
            "@s/-",
            "@../p",
            "a\"b",
        ] {
            assert_eq!(PackageName::parse(bad), None, "{bad}");
        }
        assert_eq!(PackageName::parse(&"a".repeat(300)), None);
    }

    #[test]
    fn tarballs_have_names_by_convention() {
        let name = PackageName::parse("@s/p").unwrap();
        assert_eq!(name.tarball("1.2.3-rc.1+build").as_deref(), Some("p-1.2.3-rc.1.tgz"));
        assert_eq!(name.path(), "@s%2Fp");
        for bad in ["", "+1", "1/2", "1\"", "1 2", "1%2f"] {
            assert_eq!(name.tarball(bad), None, "{bad}");
        }
    }
}
