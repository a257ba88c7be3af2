//! What the addresses of a module proxy mean.
//!
//! ```text
//! MODULE/@v/list  MODULE/@latest           what versions there are
//! MODULE/@v/VERSION.info  .mod  .zip       what a version is; VERSION may also be a branch
//! sumdb/NAME/supported                     whether a checksum database is reachable here
//! sumdb/NAME/lookup/MODULE@VERSION         what the files of a version have to be
//! sumdb/NAME/tile/...                      the hashes that this hangs together by
//! sumdb/NAME/latest                        the newest signed state
//! ```
//!
//! In `MODULE` and `VERSION`, `!x` stands for `X`; Go writes `!` as `%21`.

use crate::request::Request;
use crate::target::Target;

/// The longest module path or version that is looked at.
const NAME_MAX: usize = 512;

/// What lies below a module proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It never changes.
    Constant,
    /// It does.
    Changing,
    /// A file that a checksum database may know.
    File(Module),
    /// Whether a checksum database can be asked there.
    Supported(String),
}

/// A file of a version of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// The module's path, escaped.
    pub(super) path: String,
    /// The version, escaped.
    pub(super) version: String,
    /// The file.
    pub(super) file: File,
}

/// Which file of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// `go.mod`.
    Mod,
    /// All of it.
    Zip,
}

/// A target that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The module proxy, which ends in `/`: of one that is not configured, its host.
    pub(super) base: Target,
    /// What lies there.
    pub(super) kind: Kind,
}

impl Address {
    /// Understands the target of a request; `None` where it is nothing of a module proxy.
    pub(super) fn of(request: &Request) -> Option<Address> {
        let target = &request.target;
        if target.url().query().is_some() {
            return None;
        }
        let configured = request.upstream.as_ref();
        let (base, below) = match configured {
            Some(upstream) => (upstream.target("").ok()?, upstream.below(target)?),
            None => (target.at("/").ok()?, target.path().strip_prefix('/')?),
        };
        let is_certain =
            configured.is_some_and(|upstream| upstream.ecosystem.as_deref() == Some("go"));
        let kind = match below.strip_prefix("sumdb/") {
            Some(database) if is_certain => in_database(database)?,
            Some(_) => return None,
            None => in_module(below)?,
        };
        Some(Address { base, kind })
    }
}

fn in_database(below: &str) -> Option<Kind> {
    let (name, rest) = below.split_once('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
        return None;
    }
    Some(match rest {
        "supported" => Kind::Supported(name.to_owned()),
        _ if rest.starts_with("lookup/") || rest.starts_with("tile/") => Kind::Constant,
        _ => Kind::Changing,
    })
}

fn in_module(below: &str) -> Option<Kind> {
    if below.ends_with("/@latest") {
        return Some(Kind::Changing);
    }
    let (path, name) = below.split_once("/@v/")?;
    if path.is_empty() || path.len() > NAME_MAX || name.len() > NAME_MAX || name.contains('/') {
        return None;
    }
    if name == "list" {
        return Some(Kind::Changing);
    }
    let (version, kind) = name.rsplit_once('.')?;
    let file = match kind {
        "info" => None,
        "mod" => Some(File::Mod),
        "zip" => Some(File::Zip),
        _ => return None,
    };
    // A branch, or the beginning of a version, means another version every day.
    Some(match file {
        _ if !is_version(version) => Kind::Changing,
        None => Kind::Constant,
        Some(file) => {
            Kind::File(Module { path: path.to_owned(), version: version.to_owned(), file })
        }
    })
}

/// Says whether a text is a whole version: `v1.2.3`, with what may follow.
fn is_version(text: &str) -> bool {
    let Some(numbers) = text.strip_prefix('v') else { return false };
    let numbers = numbers.split(['-', '+', '%']).next().unwrap_or_default();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    numbers.split('.').count() == 3 && numbers.split('.').all(digits)
}

/// Returns what an escaped text stands for.
pub(super) fn unescaped(text: &str) -> String {
    let text = text.replace("%21", "!");
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '!' => plain.extend(letters.next().map(|letter| letter.to_ascii_uppercase())),
            letter => plain.push(letter),
        }
    }
    plain
}
