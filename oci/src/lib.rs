//! The nouns of container images: each is parsed once, at the edge, and valid from then on.
//!
//! Nothing here does I/O. A type with private fields has one way in, [`std::str::FromStr`] or a
//! constructor that checks, and its doc lists what then holds. What was hashed is kept as the
//! bytes that were hashed ([`Raw`]): a manifest is never serialised again.

#![forbid(unsafe_code)]

pub mod descriptor;
pub mod digest;
pub mod image_config;
pub mod layer_id;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod platform;
pub mod raw;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use image_config::{History, ImageConfig};
pub use layer_id::{ChainId, DiffId};
pub use manifest::{ImageManifest, Index, Manifest};
pub use media_type::MediaType;
pub use name::{ImageName, Reference, RegistryHost, RepositoryName, Tag};
pub use platform::Platform;
pub use raw::Raw;
