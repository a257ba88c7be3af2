//! `RUN --mount=`: the list of options and what it means.
//!
//! Only values hold variables, and a value that holds a comma must not become two options: so the
//! list is split first, and [`parse_with`] expands each value by itself.

use super::csv::{self, CsvError};
use super::expansion::ExpansionError;
use super::suggest;

/// A mount of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; relative to the working directory. Empty means the kind's default.
    pub target: String,
}

/// The kinds of mounts with their options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind {
        /// Stage, image or named context; nothing for the build context.
        from: Option<String>,
        /// The path in it; empty for its root.
        source: String,
        /// What is written is thrown away after the step; without it, writing fails.
        writable: bool,
    },
    /// A directory that outlives the build and is no part of the image.
    Cache {
        /// Its name; nothing means the cleaned target.
        id: Option<String>,
        /// Who may use it at once.
        sharing: Sharing,
        /// What a new cache begins with; nothing for an empty directory.
        from: Option<String>,
        /// The path in `from`.
        source: String,
        /// Writing fails.
        read_only: bool,
        /// Owner and mode of a new cache directory.
        owner: Ownership,
    },
    /// A directory in memory.
    Tmpfs {
        /// Its limit in bytes; 0 for none.
        size: u64,
        /// Writing fails.
        read_only: bool,
    },
    /// A secret as a file, an environment variable, or both.
    Secret {
        /// Which one.
        id: String,
        /// The variable that holds it.
        env: Option<String>,
        /// Where its file is mounted; nothing if it is a variable only.
        file: Option<String>,
        /// The build fails without it.
        required: bool,
        /// Owner and mode of the file; the mode is 0400 unless given.
        owner: Ownership,
    },
    /// The client's SSH agent.
    Ssh {
        /// Which socket or key; `default` unless given.
        id: String,
        /// The build fails without it.
        required: bool,
        /// Owner and mode of the socket; the mode is 0600 unless given.
        owner: Ownership,
    },
}

/// Who may use a cache at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// Any number of steps.
    #[default]
    Shared,
    /// One; another one gets a cache of its own.
    Private,
    /// One; another one waits.
    Locked,
}

/// Owner and mode, where they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ownership {
    /// The user, 0 unless given.
    pub uid: Option<u32>,
    /// The group, 0 unless given.
    pub gid: Option<u32>,
    /// The permission bits.
    pub mode: Option<u32>,
}

/// Why a mount cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum MountError {
    #[error("{0}")]
    Csv(CsvError),
    #[error("unknown option `{key}`")]
    UnknownKey { key: String, near: Option<&'static str> },
    #[error("option `{0}` needs a value")]
    NoValue(String),
    #[error("unknown mount type `{kind}`")]
    UnknownType { kind: String, near: Option<&'static str> },
    #[error("unknown sharing mode `{mode}`")]
    UnknownSharing { mode: String, near: Option<&'static str> },
    #[error("invalid value `{value}` for `{key}`")]
    InvalidValue { key: String, value: String },
    #[error("`{key}` is no option of a {kind} mount")]
    NotForType { key: &'static str, kind: &'static str },
    #[error("a secret mount needs `id`, `source` or `target`")]
    SecretWithoutId,
    #[error("a secret mount takes `id` or `source`, not both")]
    SecretTwice,
    #[error("`from` cannot use variables")]
    VariableInFrom,
    #[error("it is to be read-only, and to be writable")]
    ReadOnlyAndWritable,
    #[error("`source` of a cache mount needs `from`: what the cache begins with")]
    SourceWithoutFrom,
    #[error("{0}")]
    Expansion(ExpansionError),
}

impl MountError {
    /// Returns how to mend it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { near, .. }
            | Self::UnknownType { near, .. }
            | Self::UnknownSharing { near, .. } => near.map(|n| format!("did you mean `{n}`?")),
            Self::VariableInFrom => Some("name a stage with `FROM ... AS name`".to_owned()),
            _ => None,
        }
    }
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];

/// Options as written, before they mean anything.
#[derive(Debug, Default)]
struct Options {
    kind: String,
    from: Option<String>,
    source: Option<String>,
    target: String,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<Sharing>,
    required: Option<bool>,
    size: Option<u64>,
    env: Option<String>,
    owner: Ownership,
}

/// Reads a mount whose values hold no variables, or whose variables were expanded.
///
/// # Errors
///
/// On malformed lists, unknown options, and options that do not belong to the type.
pub fn parse(text: &str) -> Result<Mount, MountError> {
    parse_with(text, |value| Ok(value.to_owned()))
}

/// Reads a mount; `expand` replaces the variables in each value.
///
/// # Errors
///
/// As for [`parse`], and what `expand` returns.
pub fn parse_with(
    text: &str,
    mut expand: impl FnMut(&str) -> Result<String, ExpansionError>,
) -> Result<Mount, MountError> {
    let mut options = Options { kind: "bind".to_owned(), ..Options::default() };
    for field in csv::fields(text).map_err(MountError::Csv)? {
        let (key, value) = field.split_once('=').map_or((&*field, None), |(k, v)| (k, Some(v)));
        let key = known_key(key)?;
        let value = match value {
            Some(value) if key == "from" => Some(plain_from(value)?.to_owned()),
            Some(value) => Some(expand(value).map_err(MountError::Expansion)?),
            None => None,
        };
        options.set(key, value)?;
    }
    options.mount()
}

/// Returns the stage, image or context that a mount names as its source, as it is written.
#[must_use]
pub fn from_of(text: &str) -> Option<String> {
    let fields = csv::fields(text).ok()?;
    let from = fields.iter().rev().find_map(|field| {
        let (key, value) = field.split_once('=')?;
        key.eq_ignore_ascii_case("from").then_some(value)
    });
    from.filter(|from| !from.is_empty()).map(str::to_owned)
}

/// Checks what can be checked before variables are known.
pub(super) fn check(text: &str) -> Result<(), MountError> {
    if !text.contains('$') {
        return parse(text).map(drop);
    }
    for field in csv::fields(text).map_err(MountError::Csv)? {
        match field.split_once('=') {
            Some(("from", value)) => drop(plain_from(value)?),
            Some((key, _)) => drop(known_key(key)?),
            None => drop(known_key(&field)?),
        }
    }
    Ok(())
}

/// Stages are found before anything is expanded, so `from` is taken as written.
fn plain_from(value: &str) -> Result<&str, MountError> {
    if has_variable(value) { Err(MountError::VariableInFrom) } else { Ok(value) }
}

/// Tells whether a `$` begins a variable: at the very end it does not.
pub(super) fn has_variable(value: &str) -> bool {
    value.find('$').is_some_and(|at| at + 1 != value.len())
}

fn known_key(key: &str) -> Result<&'static str, MountError> {
    let lower = key.to_ascii_lowercase();
    KEYS.into_iter().find(|known| *known == lower).ok_or_else(|| MountError::UnknownKey {
        key: key.to_owned(),
        near: suggest::nearest(&lower, KEYS, true),
    })
}

impl Options {
    fn set(&mut self, key: &'static str, value: Option<String>) -> Result<(), MountError> {
        match (key, value) {
            ("readonly" | "ro", value) => self.set_read_only(boolean(key, value)?)?,
            ("readwrite" | "rw", value) => self.set_read_only(!boolean(key, value)?)?,
            ("required", value) => self.required = Some(boolean(key, value)?),
            (key, None) => return Err(MountError::NoValue(key.to_owned())),
            ("type", Some(value)) => self.kind = value,
            ("from", Some(value)) => self.from = Some(value).filter(|from| !from.is_empty()),
            ("source" | "src", Some(value)) => self.source = Some(value),
            ("target" | "dst" | "destination", Some(value)) => self.target = value,
            ("id", Some(value)) => self.id = Some(value).filter(|id| !id.is_empty()),
            ("sharing", Some(value)) => self.sharing = Some(sharing(value)?),
            ("size", Some(value)) => self.size = Some(parsed(key, value, byte_count)?),
            ("env", Some(value)) => self.env = Some(value),
            ("mode", Some(value)) => self.owner.mode = Some(parsed(key, value, octal)?),
            ("uid", Some(value)) => self.owner.uid = Some(parsed(key, value, decimal)?),
            (_, Some(value)) => self.owner.gid = Some(parsed(key, value, decimal)?),
        }
        Ok(())
    }

    fn set_read_only(&mut self, read_only: bool) -> Result<(), MountError> {
        if self.read_only.is_some_and(|before| before != read_only) {
            return Err(MountError::ReadOnlyAndWritable);
        }
        self.read_only = Some(read_only);
        Ok(())
    }

    fn mount(self) -> Result<Mount, MountError> {
        match self.kind.to_ascii_lowercase().as_str() {
            "bind" => self.bind(),
            "cache" => self.cache(),
            "tmpfs" => self.tmpfs(),
            "secret" => self.secret(),
            "ssh" => self.ssh(),
            other => {
                let near = suggest::nearest(other, TYPES, true);
                Err(MountError::UnknownType { kind: self.kind, near })
            }
        }
    }

    /// Refuses options that were given and do not belong to this kind.
    fn refuse(&self, kind: &'static str, keys: &[&'static str]) -> Result<(), MountError> {
        let given = |key: &str| match key {
            "from" => self.from.is_some(),
            "source" => self.source.as_ref().is_some_and(|source| !source.is_empty()),
            "sharing" => self.sharing.is_some(),
            "required" => self.required.is_some(),
            "size" => self.size.is_some(),
            "mode" => self.owner.mode.is_some(),
            "uid" => self.owner.uid.is_some(),
            "gid" => self.owner.gid.is_some(),
            "env" => self.env.is_some(),
            _ => false,
        };
        match keys.iter().find(|key| given(key)) {
            Some(key) => Err(MountError::NotForType { key, kind }),
            None => Ok(()),
        }
    }

    fn bind(self) -> Result<Mount, MountError> {
        self.refuse("bind", &["sharing", "required", "size", "mode", "uid", "gid", "env"])?;
        let writable = self.read_only == Some(false);
        let source = self.source.unwrap_or_default();
        Ok(Mount {
            kind: MountKind::Bind { from: self.from, source, writable },
            target: self.target,
        })
    }

    fn cache(self) -> Result<Mount, MountError> {
        self.refuse("cache", &["required", "size", "env"])?;
        if self.from.is_none() && self.source.as_ref().is_some_and(|source| !source.is_empty()) {
            return Err(MountError::SourceWithoutFrom);
        }
        let kind = MountKind::Cache {
            id: self.id,
            sharing: self.sharing.unwrap_or_default(),
            from: self.from,
            source: self.source.unwrap_or_default(),
            read_only: self.read_only == Some(true),
            owner: self.owner,
        };
        Ok(Mount { kind, target: self.target })
    }

    fn tmpfs(self) -> Result<Mount, MountError> {
        self.refuse("tmpfs", &["sharing", "required", "mode", "uid", "gid", "env"])?;
        let kind = MountKind::Tmpfs {
            size: self.size.unwrap_or_default(),
            read_only: self.read_only == Some(true),
        };
        Ok(Mount { kind, target: self.target })
    }

    fn secret(self) -> Result<Mount, MountError> {
        self.refuse("secret", &["from", "sharing", "size"])?;
        let source = self.source.filter(|source| !source.is_empty());
        if source.is_some() && self.id.is_some() {
            return Err(MountError::SecretTwice);
        }
        let base = |path: &str| path.rsplit('/').find(|part| !part.is_empty()).map(str::to_owned);
        let id = source.or(self.id).or_else(|| base(&self.target));
        let id = id.ok_or(MountError::SecretWithoutId)?;
        let file = if !self.target.is_empty() {
            Some(self.target.clone())
        } else if self.env.is_none() {
            Some(format!("/run/secrets/{}", base(&id).unwrap_or_default()))
        } else {
            None
        };
        let kind = MountKind::Secret {
            env: self.env.map(|env| if env.is_empty() { id.clone() } else { env }),
            id,
            file,
            required: self.required.unwrap_or_default(),
            owner: self.owner,
        };
        Ok(Mount { kind, target: self.target })
    }

    fn ssh(self) -> Result<Mount, MountError> {
        self.refuse("ssh", &["source", "sharing", "size", "env"])?;
        let kind = MountKind::Ssh {
            id: self.id.unwrap_or_else(|| "default".to_owned()),
            required: self.required.unwrap_or_default(),
            owner: self.owner,
        };
        Ok(Mount { kind, target: self.target })
    }
}

fn parsed<T>(
    key: &str,
    value: String,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, MountError> {
    parse(&value).ok_or_else(|| MountError::InvalidValue { key: key.to_owned(), value })
}

/// A switch without a value is on.
fn boolean(key: &str, value: Option<String>) -> Result<bool, MountError> {
    value.map_or(Ok(true), |value| parsed(key, value, parse_bool))
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn sharing(value: String) -> Result<Sharing, MountError> {
    match value.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        other => {
            let near = suggest::nearest(other, SHARING, true);
            Err(MountError::UnknownSharing { mode: value, near })
        }
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn octal(text: &str) -> Option<u32> {
    digits(text).then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

fn decimal(text: &str) -> Option<u32> {
    digits(text).then(|| text.parse().ok()).flatten()
}

/// Reads a size such as `512m` or `1.5GiB`; units are powers of 1024.
fn byte_count(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')? + 1;
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    let suffix = suffix.to_ascii_lowercase();
    let unit = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix);
    let exponent = match unit {
        "" if suffix != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(exponent);
    // The cast saturates; a fraction of a byte is dropped.
    (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

#[cfg(test)]
mod tests;
