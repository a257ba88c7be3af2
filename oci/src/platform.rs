//! Platforms: the machine that an image is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, an architecture and its variant, in Go's words (`linux/arm64/v8`).
///
/// - OS and architecture are not empty and hold only `[A-Za-z0-9_.-]`.
/// - Parsed from text it is normalised as containerd does: `x86_64` is `amd64`, `aarch64` is
///   `arm64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`, `amd64/v1` is `amd64`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, ...
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The version of the operating system; Windows images have one.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl Platform {
    /// Returns the platform of this machine.
    pub fn host() -> Platform {
        Platform::normalised("linux", std::env::consts::ARCH, None)
    }

    /// Returns a platform from its parts, in its normal form.
    pub fn normalised(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let os = os.to_ascii_lowercase();
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", Some(variant)) => ("amd64", Some(variant)),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", Some(variant)) => ("arm64", Some(variant)),
            ("i386" | "x86", None) => ("386", None),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("powerpc64" | "powerpc64le", _) => ("ppc64le", None),
            (architecture, variant) => (architecture, variant),
        };
        Platform {
            os,
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: Vec::new(),
        }
    }

    /// Says whether what is made for `image` runs on this platform.
    ///
    /// A lower variant runs on a higher one; otherwise all parts are equal in normal form.
    pub fn runs(&self, image: &Platform) -> bool {
        let own = Platform::normalised(&self.os, &self.architecture, self.variant.as_deref());
        let image = Platform::normalised(&image.os, &image.architecture, image.variant.as_deref());
        if own.os != image.os || own.architecture != image.architecture {
            return false;
        }
        // A machine runs what was made for the lower variants of its architecture, and every one
        // has the lowest: v1 of amd64, v8 of arm64.
        match (&own.variant, &image.variant) {
            (_, None) => own.architecture != "arm" || own.variant.is_none(),
            (Some(own), Some(image)) => image <= own,
            (None, Some(_)) => false,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os/arch[/variant]`, or only one part, which is an OS or an architecture.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let refuse = || PlatformError { text: text.escape_debug().to_string() };
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if parts.len() > 3 || !parts.iter().all(plain) {
            return Err(refuse());
        }
        Ok(match parts[..] {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                Platform::normalised(os, std::env::consts::ARCH, None)
            }
            [architecture] => Platform::normalised("linux", architecture, None),
            [os, architecture] => Platform::normalised(os, architecture, None),
            [os, architecture, variant] => Platform::normalised(os, architecture, Some(variant)),
            _ => return Err(refuse()),
        })
    }
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform: write it as os/architecture[/variant], such as linux/amd64")]
pub struct PlatformError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        let table = [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lower_variants_run() {
        let v7: Platform = "linux/arm/v7".parse().unwrap();
        assert!(v7.runs(&"linux/arm/v6".parse().unwrap()));
        assert!(!"linux/arm/v6".parse::<Platform>().unwrap().runs(&v7));
        assert!(!v7.runs(&"linux/arm64".parse().unwrap()));
        let amd64_v2: Platform = "linux/amd64/v2".parse().unwrap();
        assert!(amd64_v2.runs(&"linux/amd64".parse().unwrap()));
        assert!(!"linux/amd64".parse::<Platform>().unwrap().runs(&amd64_v2));
    }
}
