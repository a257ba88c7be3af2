//! What a build has made.

use boatyard_oci::{Descriptor, Digest, ImageConfig, ImageName, Platform, Raw};
use jiff::Timestamp;

use crate::cache::CacheId;
use crate::cache::shared::Solved;

/// What was built. Its blobs are in the store, held by the lease.
#[derive(Debug)]
pub struct Built {
    /// The image in each of the forms that were asked for; there is one at least.
    pub forms: Vec<BuiltForm>,
    /// `SOURCE_DATE_EPOCH`, if there is one.
    pub epoch: Option<Timestamp>,
    /// The steps that were found or that ran, if that was asked for.
    pub steps: Vec<Solved>,
    /// The caches that steps mounted which ran.
    pub mounts: Vec<CacheId>,
}

/// An image in one form.
#[derive(Clone, Debug)]
pub struct BuiltForm {
    /// Its manifest; of several images their index.
    pub top: Descriptor,
    /// The image of each platform.
    pub images: Vec<BuiltImage>,
}

/// The image of a platform.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// The platform.
    pub platform: Platform,
    /// Its manifest.
    pub descriptor: Descriptor,
    /// The configuration; its digest is the image ID.
    pub config: Raw<ImageConfig>,
    /// The base image of the target, if it has one.
    pub base: Option<(ImageName, Digest)>,
}

impl Built {
    /// Returns the main form.
    pub fn main(&self) -> &BuiltForm {
        self.forms.first().expect("a build has one form at least")
    }
}

impl BuiltForm {
    /// Returns what people know the image by: the digest of its configuration, of several that of
    /// their index.
    pub fn id(&self) -> &Digest {
        match &self.images[..] {
            [only] => only.config.digest(),
            _ => &self.top.digest,
        }
    }
}
