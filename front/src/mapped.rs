//! The files that are mapped and being sent, by address.
//!
//! hyper hands a body's bytes to the socket as slices of memory, and has no way to say "this is a
//! file" (hyper #3026). But it does not copy them where the socket takes vectored writes, so the
//! socket can look where a slice lies: within a mapping that is listed here, at the same place in
//! its file. The list belongs to the process, because addresses do.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use boatyard_content::store::Mapping;

/// Mappings by the address of their first byte. They cannot overlap: each is live while listed.
static LISTED: RwLock<BTreeMap<usize, Mapping>> = RwLock::new(BTreeMap::new());

/// A mapping that is listed as long as this value lives.
///
/// It owns the memory that a body's `Bytes` are slices of, so the list names nothing that is gone:
/// it is struck off before the last slice lets go of the mapping.
pub(crate) struct Listed {
    mapping: Mapping,
}

impl Listed {
    pub(crate) fn new(mapping: Mapping) -> Listed {
        let mut listed = LISTED.write().unwrap_or_else(PoisonError::into_inner);
        listed.insert(address(&mapping), mapping.clone());
        Listed { mapping }
    }
}

impl AsRef<[u8]> for Listed {
    fn as_ref(&self) -> &[u8] {
        self.mapping.as_ref()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut listed = LISTED.write().unwrap_or_else(PoisonError::into_inner);
        listed.remove(&address(&self.mapping));
    }
}

/// Returns the mapping that `slice` lies in, and the place of its first byte in the file.
pub(crate) fn find(slice: &[u8]) -> Option<(Mapping, u64)> {
    let start = slice.as_ptr() as usize;
    let listed = LISTED.read().unwrap_or_else(PoisonError::into_inner);
    let (first, mapping) = listed.range(..=start).next_back()?;
    let offset = start - first;
    let inside = offset + slice.len() <= mapping.as_ref().len();
    inside.then(|| (mapping.clone(), offset as u64))
}

fn address(mapping: &Mapping) -> usize {
    mapping.as_ref().as_ptr() as usize
}
