//! `[limits]`: what clients of `boatyard serve` may take, and make it wait for.

use std::num::NonZeroUsize;
use std::time::Duration;

use boatyard_front as front;
use boatyard_oci::Manifest;
use boatyard_registry as registry;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::quantity;

/// `[limits]`: what clients may take, and make the server wait for. What is absent is as
/// [serve](reference.md#serve) says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How many connections there can be at once; more wait.
    pub connections_max: Option<NonZeroUsize>,
    /// How many of them one client can have: an IPv4 address, or a /64 of IPv6.
    pub connections_per_client_max: Option<NonZeroUsize>,
    /// How many requests of an HTTP/2 connection there can be at once.
    pub streams_max: Option<u32>,
    /// The most bytes of a request's header.
    #[serde(
        deserialize_with = "header_size",
        serialize_with = "quantity::optional_size::serialize"
    )]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub header_size_max: Option<u64>,
    /// How long a header may take, and a TLS handshake.
    #[serde(with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub header_timeout: Option<Duration>,
    /// How long a connection stays that asks nothing.
    #[serde(with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub idle_timeout: Option<Duration>,
    /// How long a body may stand still, either way.
    #[serde(with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub stall_timeout: Option<Duration>,
    /// The least bytes in a second at which a body moves; a slower one counts as one that stands.
    #[serde(with = "quantity::optional_size")]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub rate_min: Option<u64>,
    /// How many requests to the registry one client may make in a second; 0: as many as it likes.
    pub requests_per_second: Option<u32>,
    /// How many it may make at once after it was quiet.
    pub requests_burst: Option<u32>,
    /// How many unfinished uploads there can be.
    pub uploads_max: Option<usize>,
    /// How many of them one repository can have.
    pub uploads_per_repository_max: Option<usize>,
    /// When an upload ends to which nobody sends anything.
    #[serde(with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub upload_expiry: Option<Duration>,
    /// The most bytes of a blob that is pushed.
    #[serde(with = "quantity::optional_size")]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub blob_size_max: Option<u64>,
    /// The most bytes of a manifest that is pushed.
    #[serde(
        deserialize_with = "manifest_size",
        serialize_with = "quantity::optional_size::serialize"
    )]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub manifest_size_max: Option<u64>,
    /// How many `tag` parameters a push can have.
    pub tags_per_push_max: Option<usize>,
    /// Takes manifests that refer to what the repository does not have, such as indexes of which only
    /// some images are copied; `fsck` lists them. Otherwise they are refused.
    pub sparse_manifests: bool,
}

fn header_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    // hyper reads into a buffer of 8 KiB at least, and a header is held in memory.
    between(from, 8 * 1024, 16 * 1024 * 1024, "8KiB to 16MiB")
}

fn manifest_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    between(from, 1024, Manifest::SIZE_MAX as u64, "1KiB to 4MiB")
}

fn between<'de, D: Deserializer<'de>>(
    from: D,
    least: u64,
    most: u64,
    words: &str,
) -> Result<Option<u64>, D::Error> {
    let size = quantity::optional_size::deserialize(from)?;
    match size {
        Some(bytes) if !(least..=most).contains(&bytes) => {
            Err(D::Error::custom(format!("this can be {words}")))
        }
        size => Ok(size),
    }
}

/// Puts what is configured in the place of a default.
fn set<T>(place: &mut T, configured: Option<T>) {
    if let Some(configured) = configured {
        *place = configured;
    }
}

impl Limits {
    /// Returns the limits of connections.
    pub fn of_connections(&self) -> front::Limits {
        let mut limits = front::Limits::default();
        set(&mut limits.connections_max, self.connections_max.map(NonZeroUsize::get));
        let per_client = self.connections_per_client_max.map(NonZeroUsize::get);
        set(&mut limits.connections_per_client_max, per_client);
        set(&mut limits.streams_max, self.streams_max);
        set(&mut limits.header_bytes_max, self.header_size_max.map(|bytes| bytes as usize));
        set(&mut limits.header_timeout, self.header_timeout);
        set(&mut limits.idle_timeout, self.idle_timeout);
        set(&mut limits.stall_timeout, self.stall_timeout);
        set(&mut limits.rate_min, self.rate_min);
        limits
    }

    /// Returns the limits of the registry.
    pub fn of_registry(&self) -> registry::Limits {
        let mut limits = registry::Limits::default();
        set(&mut limits.rate.per_second, self.requests_per_second);
        // Who says how many there may be means everybody.
        limits.rate.spares_loopback &= self.requests_per_second.is_none();
        set(&mut limits.rate.burst, self.requests_burst);
        set(&mut limits.uploads_max, self.uploads_max);
        set(&mut limits.uploads_per_repository_max, self.uploads_per_repository_max);
        set(&mut limits.upload_expiry, self.upload_expiry);
        set(&mut limits.blob_bytes_max, self.blob_size_max);
        set(&mut limits.manifest_bytes_max, self.manifest_size_max.map(|bytes| bytes as usize));
        set(&mut limits.tags_per_push_max, self.tags_per_push_max);
        limits.sparse_manifests = self.sparse_manifests;
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Limits, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_absent_stays_as_it_is() {
        let limits = parse("").unwrap();
        assert_eq!(limits.of_connections(), front::Limits::default());
        assert_eq!(limits.of_registry(), registry::Limits::default());
    }

    #[test]
    fn what_is_there_counts() {
        let limits = parse(
            "connections_per_client_max = 10\nstall_timeout = '5s'\nrate_min = '10kB'\n\
             requests_per_second = 100\nupload_expiry = '2h'\nmanifest_size_max = '1MiB'\n\
             header_size_max = '16KiB'\nuploads_max = 0\n",
        )
        .unwrap();
        let connections = limits.of_connections();
        assert_eq!(connections.connections_per_client_max, 10);
        assert_eq!(connections.stall_timeout, Duration::from_secs(5));
        assert_eq!((connections.rate_min, connections.header_bytes_max), (10_000, 16 * 1024));
        let registry = limits.of_registry();
        assert_eq!((registry.rate.per_second, registry.rate.spares_loopback), (100, false));
        assert_eq!(registry.upload_expiry, Duration::from_secs(7200));
        assert_eq!((registry.manifest_bytes_max, registry.uploads_max), (1 << 20, 0));
    }

    #[test]
    fn what_cannot_be_is_shown_with_its_line() {
        for (text, word) in [
            ("stall_timeout = 'soon'", "no duration"),
            ("manifest_size_max = '8MiB'", "1KiB to 4MiB"),
            ("header_size_max = '1KiB'", "8KiB to 16MiB"),
            ("connections_max = 0", "nonzero"),
            ("requests_per_second = -1", "u32"),
            ("connections = 1", "unknown field"),
        ] {
            let error = parse(&format!("\n{text}\n")).unwrap_err();
            assert!(error.contains("line 2") && error.contains(word), "{error}");
        }
    }
}
