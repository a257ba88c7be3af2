//! The hash that Go's checksum database has of a module's files: `h1:`, the SHA-256 of a list of the
//! files' SHA-256 and names.

use std::fmt;
use std::io::{self, Read, Seek};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::address::{File, Module, unescaped};
use super::zip::{Archive, ZipError};

/// How many bytes all files of a module may have. Go itself takes 500 MiB.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A hash: `h1:` and base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hash(String);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What has no hash.
#[derive(Debug, thiserror::Error)]
pub(super) enum HashError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is no archive of a module: {0}")]
    Zip(#[from] ZipError),
    #[error("two of its files have the same name, or one has a line's end in it")]
    Name,
}

/// Returns the hash of an archive of a module.
pub(super) fn of_zip(file: impl Read + Seek) -> Result<Hash, HashError> {
    let mut archive = Archive::open(file)?;
    let mut lines = Vec::new();
    let mut left = BYTES_MAX;
    for member in archive.members().to_vec() {
        if member.name.contains('\n') {
            return Err(HashError::Name);
        }
        let mut hash = Sha256::new();
        let size = io::copy(&mut archive.read(&member, left)?, &mut Sink(&mut hash))?;
        left = left.saturating_sub(size);
        lines.push((member.name, hex(&hash.finalize())));
    }
    lines.sort();
    if lines.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(HashError::Name);
    }
    Ok(of_lines(lines.iter().map(|(name, hash)| (name.as_str(), hash.as_str()))))
}

/// Returns the hash of a `go.mod`.
pub(super) fn of_mod(mut file: impl Read) -> Result<Hash, HashError> {
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut Sink(&mut hash))?;
    Ok(of_lines([("go.mod", hex(&hash.finalize()).as_str())]))
}

/// Returns the hash that a database's record has of a file.
///
/// ```text
/// 42
/// mod.example/Name v1.2.3 h1:...=
/// mod.example/Name v1.2.3/go.mod h1:...=
///
/// go.sum database tree
/// ```
pub(super) fn recorded(record: &str, module: &Module) -> Option<Hash> {
    let (path, mut version) = (unescaped(&module.path), unescaped(&module.version));
    if module.file == File::Mod {
        version.push_str("/go.mod");
    }
    let lines = record.lines().take_while(|line| !line.is_empty());
    let found = lines.filter_map(|line| {
        let mut words = line.split(' ');
        let is_it = words.next() == Some(&path) && words.next() == Some(&version);
        words.next().filter(|hash| is_it && hash.starts_with("h1:"))
    });
    found.map(|hash| Hash(hash.to_owned())).next()
}

fn of_lines<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> Hash {
    let mut hash = Sha256::new();
    for (name, sum) in lines {
        hash.update(format!("{sum}  {name}\n"));
    }
    Hash(format!("h1:{}", STANDARD.encode(hash.finalize())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes into a hash.
struct Sink<'a>(&'a mut Sha256);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
