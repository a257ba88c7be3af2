//! Modes of `--chmod`, after expansion: octal, or symbolic as chmod(1) has them.

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// These bits and no others.
    Octal(u32),
    /// One change after the other.
    Symbolic(Vec<Clause>),
}

/// One operation of a symbolic mode, such as `u+x` in `u+x-w,g=u`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// The bits of the classes that are changed, `0o7777` for all.
    who: u32,
    operation: Operation,
    permissions: Permissions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Permissions {
    /// `rwx` as they apply to each class, `s` and `t`.
    bits: u32,
    /// `X`: execution for directories and for what somebody may execute already.
    execute_if_any: bool,
    /// `u`, `g`, `o`: what these classes have.
    copy_user: bool,
    copy_group: bool,
    copy_other: bool,
}

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode `{0}`: write it in octal up to 07777, or like `u=rwX,go=rX`")]
pub struct ModeError(pub String);

const BITS: u32 = 0o7777;
const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o0007;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

impl Mode {
    /// Reads a mode.
    ///
    /// # Errors
    ///
    /// On anything else.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        let error = || ModeError(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= BITS);
            return bits.map(Self::Octal).ok_or_else(error);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_part(part, &mut clauses).ok_or_else(error)?;
        }
        Ok(Self::Symbolic(clauses))
    }

    /// Returns the permission bits (`0o7777`) that something with the bits `mode` gets.
    #[must_use]
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => {
                let executable = is_dir || mode & EXECUTE != 0;
                clauses.iter().fold(mode & BITS, |bits, clause| clause.apply(bits, executable))
            }
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, executable: bool) -> u32 {
        let wanted = self.permissions.resolve(mode, executable) & self.who;
        match self.operation {
            Operation::Add => mode | wanted,
            Operation::Remove => mode & !wanted,
            // The sticky bit goes only if all are set anew.
            Operation::Set => (mode & !self.who) | wanted,
        }
    }
}

impl Permissions {
    fn resolve(self, mode: u32, executable: bool) -> u32 {
        let mut bits = self.bits;
        if self.execute_if_any && executable {
            bits |= EXECUTE;
        }
        for (copied, shift) in [(self.copy_user, 6), (self.copy_group, 3), (self.copy_other, 0)] {
            if copied {
                bits |= ((mode >> shift) & 0o7) * EXECUTE;
            }
        }
        bits
    }
}

/// Reads `[ugoa]*([+-=][rwxXstugo]*)+`.
fn parse_part(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let operations = part.find(['+', '-', '='])?;
    let (classes, mut rest) = part.split_at(operations);
    let mut who = 0;
    for class in classes.chars() {
        who |= match class {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHER,
            'a' => USER | GROUP | OTHER,
            _ => return None,
        };
    }
    let who = if who == 0 { BITS } else { who };
    while let Some(sign) = rest.chars().next() {
        let operation = match sign {
            '+' => Operation::Add,
            '-' => Operation::Remove,
            _ => Operation::Set,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (letters, after) = rest.split_at(end);
        let permissions = parse_permissions(letters)?;
        // `t` belongs to no class; for `o` alone it means nothing.
        let who = if who == OTHER { who } else { who | (permissions.bits & STICKY) };
        clauses.push(Clause { who, operation, permissions });
        rest = after;
    }
    Some(())
}

fn parse_permissions(letters: &str) -> Option<Permissions> {
    let mut permissions = Permissions::default();
    for letter in letters.chars() {
        match letter {
            'r' => permissions.bits |= 0o444,
            'w' => permissions.bits |= 0o222,
            'x' => permissions.bits |= EXECUTE,
            'X' => permissions.execute_if_any = true,
            's' => permissions.bits |= 0o6000,
            't' => permissions.bits |= STICKY,
            'u' => permissions.copy_user = true,
            'g' => permissions.copy_group = true,
            'o' => permissions.copy_other = true,
            _ => return None,
        }
    }
    Some(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        let cases = [
            ("755", 0o644, false, 0o755),
            ("04755", 0, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("go=", 0o777, false, 0o700),
            ("g=u", 0o740, false, 0o770),
            ("g=u-w", 0o740, false, 0o750),
            ("u+s", 0o755, false, 0o4755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("a=r", 0o1777, true, 0o1444),
        ];
        for (text, mode, is_dir, expected) in cases {
            let result = Mode::parse(text).unwrap().apply(mode, is_dir);
            assert_eq!(result, expected, "{text} on {mode:o}: {result:o}");
        }
        for text in ["", "8", "10000", "0o755", "u", "u+q", "z+x", "u+x,", "+x,,", "755x"] {
            assert!(Mode::parse(text).is_err(), "{text}");
        }
    }
}
