//! Annotations of what is built: which manifest or descriptor each is for.

use std::collections::BTreeMap;

use boatyard_oci::Platform;
use boatyard_oci::platform::PlatformError;

use crate::dockerfile::suggest;

/// What an annotation stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The manifest of an image.
    Manifest,
    /// The descriptor of an image's manifest, in the index that lists it.
    ManifestDescriptor,
    /// The index of several images.
    Index,
    /// The descriptor of that index, in `index.json` of an image layout.
    IndexDescriptor,
}

const LEVELS: [(&str, Level); 4] = [
    ("manifest", Level::Manifest),
    ("manifest-descriptor", Level::ManifestDescriptor),
    ("index", Level::Index),
    ("index-descriptor", Level::IndexDescriptor),
];

/// One annotation at one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// What it stands on.
    pub level: Level,
    /// The image that it is for; without one all of them.
    pub platform: Option<Platform>,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// All annotations of an image, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(Vec<Annotation>);

/// Why a text is no annotation.
#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    /// There is no `=`.
    #[error("`{0}` is not of the form NAME=VALUE")]
    NoValue(String),
    /// Nothing stands before `=`.
    #[error("`{0}` has no name")]
    NoName(String),
    /// There is no such level.
    #[error("`{level}` is no level of annotations{}", .near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default())]
    Level {
        /// What was given.
        level: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
    /// What stands in brackets is no platform.
    #[error("`{0}` has no platform in its brackets")]
    Platform(String, #[source] PlatformError),
}

impl Annotations {
    /// Reads `[LEVEL[PLATFORM][,...]:]NAME=VALUE` and adds it; without a level it is the manifest's.
    ///
    /// # Errors
    /// Where the text is not of this form.
    pub fn add(&mut self, text: &str) -> Result<(), AnnotationError> {
        let no_value = || AnnotationError::NoValue(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(no_value)?;
        let (levels, name) = match key.split_once(':') {
            Some((levels, name)) => (levels, name),
            None => ("manifest", key),
        };
        for level in levels.split(',') {
            self.add_at(level, name, value)?;
        }
        Ok(())
    }

    /// Adds an annotation at `LEVEL[PLATFORM]`.
    ///
    /// # Errors
    /// Where the level is none, or the name is empty.
    pub fn add_at(&mut self, level: &str, name: &str, value: &str) -> Result<(), AnnotationError> {
        if name.is_empty() {
            return Err(AnnotationError::NoName(format!("{level}:={value}")));
        }
        let (level, platform) = read_level(level)?;
        let (name, value) = (name.to_owned(), value.to_owned());
        self.0.push(Annotation { level, platform, name, value });
        Ok(())
    }

    /// Adds all of `others`, which count more.
    pub fn extend(&mut self, others: &Annotations) {
        self.0.extend(others.0.iter().cloned());
    }

    /// Says whether there is one at a level.
    pub fn any_at(&self, level: Level) -> bool {
        self.0.iter().any(|annotation| annotation.level == level)
    }

    /// Returns the platforms that annotations name.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.0.iter().filter_map(|annotation| annotation.platform.as_ref())
    }

    /// Returns the annotations at a level, for an image or for what has no platform. One that names
    /// the platform counts more than one that names none; of equal ones the last counts.
    pub fn at(&self, level: Level, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for wanted in [None, platform] {
            let mine = self.0.iter().filter(|annotation| {
                annotation.level == level && annotation.platform.as_ref() == wanted
            });
            found.extend(mine.map(|it| (it.name.clone(), it.value.clone())));
        }
        found
    }
}

/// Reads `LEVEL`, or `LEVEL[PLATFORM]`.
fn read_level(text: &str) -> Result<(Level, Option<Platform>), AnnotationError> {
    let (name, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((name, platform)) => (name, Some(platform)),
        None => (text, None),
    };
    let level = LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level);
    let level = level.ok_or_else(|| {
        let known = LEVELS.iter().map(|(known, _)| *known);
        AnnotationError::Level {
            level: name.to_owned(),
            near: suggest::nearest(name, known, false),
        }
    })?;
    let platform = platform.map(str::parse).transpose();
    let platform = platform.map_err(|error| AnnotationError::Platform(text.to_owned(), error))?;
    Ok((level, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_platforms() {
        let mut annotations = Annotations::default();
        for text in [
            "a=1",
            "index:b=2=3",
            "manifest,manifest-descriptor:c=4",
            "manifest[linux/arm64/v8]:a=5",
            "index-descriptor:d=",
        ] {
            annotations.add(text).unwrap();
        }
        let (amd64, arm64) = ("linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap());
        let shown = |level, platform| format!("{:?}", annotations.at(level, platform));
        assert_eq!(shown(Level::Manifest, Some(&amd64)), r#"{"a": "1", "c": "4"}"#);
        assert_eq!(shown(Level::Manifest, Some(&arm64)), r#"{"a": "5", "c": "4"}"#);
        assert_eq!(shown(Level::ManifestDescriptor, Some(&arm64)), r#"{"c": "4"}"#);
        assert_eq!(shown(Level::Index, None), r#"{"b": "2=3"}"#);
        assert_eq!(shown(Level::IndexDescriptor, None), r#"{"d": ""}"#);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, expected) in [
            ("a", "`a` is not of the form NAME=VALUE"),
            ("indx:a=1", "`indx` is no level of annotations: did you mean `index`?"),
            ("index:=1", "`index:=1` has no name"),
            ("manifest[a/b/c/d]:a=1", "`manifest[a/b/c/d]` has no platform in its brackets"),
        ] {
            assert_eq!(Annotations::default().add(text).unwrap_err().to_string(), expected);
        }
    }
}
