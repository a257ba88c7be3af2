//! How much clients may ask of the registry.

use std::time::Duration;

use boatyard_oci::Manifest;

use crate::rate::RateLimit;

/// The limits of a [`Registry`](crate::Registry).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one blob.
    pub blob_bytes_max: u64,
    /// The most bytes of one manifest, up to [`Manifest::SIZE_MAX`].
    pub manifest_bytes_max: usize,
    /// How many requests one client may make.
    pub rate: RateLimit,
    /// How many upload sessions there can be.
    pub uploads_max: usize,
    /// How many of them one repository can have.
    pub uploads_per_repository_max: usize,
    /// When a session ends to which nobody sends anything.
    pub upload_expiry: Duration,
    /// How many `tag` parameters a push of a manifest may have.
    pub tags_per_push_max: usize,
    /// Takes manifests that refer to what the repository does not have: indexes of which only some
    /// images are copied.
    pub sparse_manifests: bool,
    /// How many tags one answer lists.
    pub tags_page_max: usize,
    /// How many repositories one answer lists; without `n`, [`Limits::catalog_page_default`].
    pub catalog_page_max: usize,
    /// How many repositories are listed where the client does not say.
    pub catalog_page_default: usize,
    /// How many bytes of descriptors one list of referrers has.
    pub referrers_bytes_max: usize,
    /// How many bytes of manifests are kept in memory.
    pub manifest_cache_bytes_max: usize,
    /// How many bytes of blobs are kept mapped, each counting for 1 MiB at least. That many bytes
    /// the disk may miss for a while after the collector deleted them; and a descriptor is open
    /// for each.
    pub blob_cache_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            blob_bytes_max: 1 << 40,
            manifest_bytes_max: Manifest::SIZE_MAX,
            // A cluster behind one address starts with all its nodes at once.
            rate: RateLimit { per_second: 5000, burst: 50_000, spares_loopback: true },
            uploads_max: 20_000,
            uploads_per_repository_max: 2000,
            upload_expiry: Duration::from_secs(7 * 24 * 3600),
            tags_per_push_max: 50,
            sparse_manifests: false,
            tags_page_max: 10_000,
            catalog_page_max: 1000,
            catalog_page_default: 100,
            // Clients read a list of referrers as they read an index, up to 4 MiB.
            referrers_bytes_max: 3 * 1024 * 1024,
            manifest_cache_bytes_max: 64 * 1024 * 1024,
            blob_cache_bytes_max: 128 * 1024 * 1024,
        }
    }
}
