//! A checksum database of Go: a list of records, a tree of hashes above it, and a signature.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::Digest;

/// The name of the database.
pub const NAME: &str = "sum.example";

/// A database that never grows.
pub struct Database {
    key: Ed25519KeyPair,
    records: Vec<(String, String)>,
}

impl Database {
    /// Returns a database of records: module and version, and the lines with their hashes.
    pub fn new(records: Vec<(String, String)>) -> Database {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Database { key, records }
    }

    /// Returns what clients have in GOSUMDB.
    pub fn public(&self) -> String {
        let key = self.public_key();
        let id = self.key_id().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("{NAME}+{id}+{}", STANDARD.encode(key))
    }

    /// Returns the files that clients ask for, by their paths.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let leaves: Vec<Vec<u8>> =
            self.records.iter().map(|(_, lines)| hash(&[&[0], lines.as_bytes()])).collect();
        let count = leaves.len();
        let head = format!("go.sum database tree\n{count}\n{}\n", STANDARD.encode(root(&leaves)));
        let mut signature = self.key_id();
        signature.extend_from_slice(self.key.sign(head.as_bytes()).as_ref());
        let signed = format!("{head}\n\u{2014} {NAME} {}\n", STANDARD.encode(signature));
        let lookup = |(id, (name, lines)): (usize, &(String, String))| {
            let text = format!("{id}\n{lines}\n{signed}");
            (format!("/sumdb/{NAME}/lookup/{name}"), text.into_bytes())
        };
        let mut files: Vec<_> = self.records.iter().enumerate().map(lookup).collect();
        files.push((format!("/sumdb/{NAME}/tile/8/0/000.p/{count}"), leaves.concat()));
        files.push((format!("/sumdb/{NAME}/supported"), Vec::new()));
        files.push((format!("/sumdb/{NAME}/latest"), signed.into_bytes()));
        files
    }

    fn public_key(&self) -> Vec<u8> {
        [&[1], self.key.public_key().as_ref()].concat()
    }

    fn key_id(&self) -> Vec<u8> {
        hash(&[NAME.as_bytes(), b"\n", &self.public_key()])[..4].to_vec()
    }
}

/// The root of a tree (RFC 6962, section 2.1).
fn root(leaves: &[Vec<u8>]) -> Vec<u8> {
    if let [leaf] = leaves {
        return leaf.clone();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    hash(&[&[1], &root(left), &root(right)])
}

/// Returns the SHA-256 of parts.
pub fn hash(parts: &[&[u8]]) -> Vec<u8> {
    let digest = Digest::sha256(&parts.concat());
    let digits = digest.hex().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
