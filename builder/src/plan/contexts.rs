//! Named contexts: what `--build-context NAME=...` gives, and how names find it.

use std::collections::BTreeMap;

use boatyard_oci::ImageName;

use crate::context::location::Location;

/// What a name means that was given with the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// Files: of a directory, a Git repository, an archive.
    Files(Location),
    /// An image: `docker-image://`, or one of an `oci-layout://` that the build was given.
    Image(ImageName),
}

/// The named contexts of a build.
///
/// A name that is also an image's stands for it however it is written: `debian`,
/// `docker.io/library/debian` and `debian:latest` are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    given: BTreeMap<String, NamedContext>,
}

impl Contexts {
    /// Gives a name a meaning; of several, the last counts.
    pub fn insert(&mut self, name: &str, context: NamedContext) {
        self.given.insert(key(name), context);
    }

    /// Returns what a name means, and the name under which it was given.
    pub fn find(&self, name: &str) -> Option<(&str, &NamedContext)> {
        let found = self.given.get_key_value(&key(name))?;
        Some((found.0, found.1))
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &NamedContext)> {
        self.given.iter().map(|(name, context)| (name.as_str(), context))
    }
}

/// Returns what names have in common that mean the same.
fn key(name: &str) -> String {
    let lower = name.to_lowercase();
    let Ok(image) = lower.parse::<ImageName>() else { return lower };
    let familiar = image.familiar();
    familiar.strip_suffix(":latest").map_or_else(|| familiar.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_image_are_one() {
        let mut contexts = Contexts::default();
        let image = NamedContext::Image("other:1".parse().unwrap());
        contexts.insert("Debian", image.clone());
        for name in ["debian", "debian:latest", "docker.io/library/debian", "DEBIAN"] {
            assert_eq!(contexts.find(name), Some(("debian", &image)), "{name}");
        }
        for name in ["debian:12", "registry.example/debian", "deb"] {
            assert_eq!(contexts.find(name), None, "{name}");
        }
    }
}
