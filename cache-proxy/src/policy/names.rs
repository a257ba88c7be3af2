//! Patterns of package names: `acme-*`, `@acme/*`, `com.acme:*`.

/// The most bytes of a pattern, and the most wildcards in one.
const LEN_MAX: usize = 255;
const WILDCARDS_MAX: usize = 8;

/// A list of patterns of package names.
///
/// - `*` is any number of characters of any kind, slashes too.
/// - Letters count alike in either case, and `-`, `_` and `.` count as the same character: what an
///   ecosystem takes for one name is one here. So a private name is kept from its public lookalikes
///   too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamePatterns(Vec<Box<str>>);

/// A text that is no pattern of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{pattern}` is no pattern of package names: it has 1 to {LEN_MAX} printable characters, at \
     most {WILDCARDS_MAX} of them `*`"
)]
pub struct NameError {
    pattern: String,
}

impl NamePatterns {
    /// Reads patterns.
    ///
    /// # Errors
    /// Where one is empty, too long or has too many wildcards to be compared quickly.
    pub fn new<T: AsRef<str>>(patterns: &[T]) -> Result<NamePatterns, NameError> {
        let read = |pattern: &T| {
            let pattern = pattern.as_ref();
            let fine = (1..=LEN_MAX).contains(&pattern.len())
                && pattern.matches('*').count() <= WILDCARDS_MAX
                && pattern.bytes().all(|byte| byte.is_ascii_graphic());
            let refuse = || NameError { pattern: pattern.chars().take(LEN_MAX).collect() };
            fine.then(|| folded(pattern).into_boxed_str()).ok_or_else(refuse)
        };
        Ok(NamePatterns(patterns.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Says whether one of them names a package.
    pub fn matches(&self, package: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let name = folded(package);
        self.0.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns a name in the form in which names are compared.
pub(crate) fn folded(name: &str) -> String {
    let fold = |c: char| match c {
        '_' | '.' => '-',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Where the text differs, the last wildcard takes one character more: no other way back is
    // needed.
    let (mut at, mut read, mut back) = (0, 0, None);
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == name[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star, taken)) = back else { return false };
                back = Some((star, taken + 1));
                at = star + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_packages() {
        for (pattern, name, expected) in [
            ("acme-*", "acme-tools", true),
            ("acme-*", "Acme_Tools", true),
            ("acme-*", "acme.tools", true),
            ("acme-*", "acme", false),
            ("acme-*", "xacme-tools", false),
            ("@acme/*", "@acme/widget", true),
            ("@acme/*", "@acmex/widget", false),
            ("com.acme:*", "com.acme:app", true),
            ("com.acme.*", "com.acme.sub:app", true),
            ("corp.example/*", "corp.example/a/b", true),
            ("*", "x", true),
            ("*-acme-*", "a-acme-acme-b", true),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbx", false),
            ("acme", "acme", true),
            ("acme", "acme2", false),
        ] {
            let patterns = NamePatterns::new(&["other", pattern]).unwrap();
            assert_eq!(patterns.matches(name), expected, "{pattern} {name}");
        }
        assert!(!NamePatterns::default().matches("x"));
        for bad in ["", "a b", "é", "a\n", "*********", &"x".repeat(256)] {
            assert!(NamePatterns::new(&[bad]).is_err(), "{bad}");
        }
    }
}
