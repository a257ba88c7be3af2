//! What Go's linker writes into programs: the module that they are of, and those that are in them.
//!
//! Since Go 1.18 the texts stand in the file itself (debug/buildinfo): a magic at a multiple of 16, a
//! byte of flags of which 2 says so, and at 32 bytes the version of Go and the modules, each with its
//! length as a varint before it. Older programs have pointers there, and are left out.

use super::package::{Kind, Package};

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
const ALIGNMENT: usize = 16;
const HEADER_BYTES: usize = 32;
const FLAGS_AT: usize = 15;
const INLINE: u8 = 2;
/// What frames the modules.
const FRAME_BYTES: usize = 16;

/// How many bytes behind the magic are looked at: of thousands of modules.
pub(super) const INFO_BYTES_MAX: usize = 1 << 20;

/// Finds the magic in a piece of a file that begins at a multiple of 16.
pub(super) fn find(piece: &[u8]) -> Option<usize> {
    (0..piece.len()).step_by(ALIGNMENT).find(|at| piece[*at..].starts_with(MAGIC))
}

/// Reads the modules from what begins with the magic.
pub(super) fn modules(info: &[u8], path: &str) -> Vec<Package> {
    read(info, path).unwrap_or_default()
}

fn read(info: &[u8], path: &str) -> Option<Vec<Package>> {
    if info.get(FLAGS_AT)? & INLINE == 0 {
        return None;
    }
    let (version, rest) = text(info.get(HEADER_BYTES..)?)?;
    let (modules, _) = text(rest)?;
    let modules = modules.get(FRAME_BYTES..modules.len().checked_sub(FRAME_BYTES)?)?;
    let modules = String::from_utf8_lossy(modules);
    let mut found = Vec::new();
    let version = String::from_utf8_lossy(version);
    if let Some(version) = version.strip_prefix("go") {
        let version = version.split_whitespace().next().unwrap_or_default();
        found.push(Package::new(Kind::Golang, "stdlib", version, path));
    }
    for line in modules.lines() {
        let mut words = line.split('\t');
        let kind = words.next().unwrap_or_default();
        let (Some(module), Some(version)) = (words.next(), words.next()) else { continue };
        match kind {
            "mod" | "dep" if version != "(devel)" => {
                found.push(Package::new(Kind::Golang, module, version, path));
            }
            // It stands for the one before it.
            "=>" => {
                found.pop();
                found.push(Package::new(Kind::Golang, module, version, path));
            }
            _ => {}
        }
    }
    Some(found)
}

/// Reads a text with its length before it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut at) = (0_usize, 0);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?)?;
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 4 {
            return None;
        }
    }
    let rest = &bytes[at..];
    rest.split_at_checked(length)
}
