//! What the root of an index set says of the others.

use std::collections::BTreeMap;
use std::ops::Bound;

use boatyard_oci::Digest;
use jiff::Timestamp;

/// What a root lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// When it was made, where it says so: a set never goes back.
    pub date: Option<Timestamp>,
    /// Until when it is good, where it says so.
    pub valid_until: Option<Timestamp>,
    /// Whether its children can be had by their digests too.
    pub by_digest: bool,
    /// The children by their paths below the set's address.
    pub children: BTreeMap<Box<str>, Child>,
}

/// One file that an index lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The number of its bytes.
    pub size: u64,
    /// What they hash to.
    pub digest: Digest,
    /// Other digests of the same bytes, as `<algorithm>/<hex>`: names under which clients may ask.
    pub aliases: Vec<Box<str>>,
}

impl Child {
    /// Says whether this algorithm and digest name it.
    pub fn is_named(&self, algorithm: &str, hex: &str) -> bool {
        self.digest.algorithm().name() == algorithm && self.digest.hex() == hex
            || self.aliases.iter().any(|alias| {
                alias.split_once('/').is_some_and(|(kind, known)| kind == algorithm && known == hex)
            })
    }
}

impl Listing {
    /// Returns the child below a directory that has this digest.
    pub fn named(&self, directory: &str, algorithm: &str, hex: &str) -> Option<(&str, &Child)> {
        let from = (Bound::Included(directory), Bound::Unbounded);
        let below = self.children.range::<str, _>(from);
        below
            .take_while(|(path, _)| path.starts_with(directory))
            .filter(|(path, _)| !path[directory.len()..].contains('/'))
            .find(|(_, child)| child.is_named(algorithm, hex))
            .map(|(path, child)| (&**path, child))
    }
}
