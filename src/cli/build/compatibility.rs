//! `--compatibility`: which bytes come of the same image.
//!
//! Digests depend on more than an image's content: on the compressor and how it cuts its input, on the
//! form of the archives, the configuration and the manifests, on what an epoch does to times. All of
//! that is a level. A later version that would write other bytes gets a new one, which becomes the
//! default, and writes the old one's when it is told to, or says that it cannot any more. The level is
//! told in `--metadata-file` and not in the image, which must not differ by it where nothing else does.

use std::fmt;
use std::str::FromStr;

/// A level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compatibility(u32);

impl Compatibility {
    /// The newest.
    pub const NEWEST: Compatibility = Compatibility(1);

    /// Returns its number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Compatibility {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" => Ok(Compatibility(1)),
            _ => {
                Err(format!("this version of Boatyard knows level {} only", Compatibility::NEWEST))
            }
        }
    }
}
