//! What tests of every store share: the suite, and stores and disks that fail on purpose.

pub mod crashing;
pub mod faulty;
pub mod suite;

/// Puts bytes into a root's store and returns their digest.
#[cfg(test)]
pub(crate) fn put(root: &crate::Root, lease: &crate::Lease, bytes: &[u8]) -> boatyard_oci::Digest {
    use std::io::Write as _;
    let key = crate::IngestKey::random();
    let mut ingest = root.store().ingest_blocking(&key, lease).expect("the root can be written");
    ingest.write_all(bytes).expect("the root can be written");
    let landed = ingest.commit_blocking(&crate::Expected::any()).expect("nothing was promised");
    landed.info().digest.clone()
}
