//! How much one request may ask of the registry.

/// The limits of a [`Registry`](crate::Registry). Manifests have theirs in
/// [`boatyard_oci::Manifest::SIZE_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one blob.
    pub blob_bytes_max: u64,
    /// How many `tag` parameters a push of a manifest may have.
    pub tags_per_push_max: usize,
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
            tags_per_push_max: 50,
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
