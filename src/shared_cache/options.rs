//! `--cache-to`, `--cache-from` and `--cache`: where caches lie, in buildx's words.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use boatyard_builder::cache::shared::Mode;
use boatyard_builder::dockerfile::csv;
use boatyard_oci::{ImageName, Reference, Tag};
use jiff::SignedDuration;

use crate::quantity::parse_duration;
use crate::report::{Failure, Result};

/// How long a record is kept that no build uses.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The tag of `--cache`, which may name a repository of images.
const TAG: &str = "buildcache";
/// The tag of a directory.
const DIRECTORY_TAG: &str = "latest";

/// Where a cache lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A tag of a registry.
    Registry(ImageName),
    /// A directory, under a tag.
    Directory {
        /// Where.
        path: PathBuf,
        /// Under which tag.
        tag: String,
    },
    /// The image's own configuration.
    Inline,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Registry(image) => f.write_str(&image.familiar()),
            Place::Directory { path, .. } => path.display().fmt(f),
            Place::Inline => f.write_str("inline"),
        }
    }
}

/// A cache that is added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Where it lies.
    pub place: Place,
    /// Which steps are told.
    pub mode: Mode,
    /// Cache mounts travel too.
    pub mounts: bool,
    /// Where it fails, that is a warning.
    pub ignore_error: bool,
    /// How long a record is kept that no build uses.
    pub max_age: SignedDuration,
}

/// Caches of a build.
#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    /// A shared cache that the build's steps are added to: REGISTRY/NAME:TAG, or
    /// type=registry|local|inline with keys such as ref=, dest=, mode=min|max, mounts=true
    #[arg(long, value_name = "CACHE")]
    pub cache_to: Vec<String>,
    /// A shared cache in which earlier results are looked for: REGISTRY/NAME:TAG, or
    /// type=registry|local with ref= or src=
    #[arg(long, value_name = "CACHE")]
    pub cache_from: Vec<String>,
    /// A shared cache for both, in a registry: all steps go there, and come from there
    #[arg(long, value_name = "REPOSITORY")]
    pub cache: Option<String>,
    /// What steps keep in cache mounts goes to shared caches, too
    #[arg(long)]
    pub cache_mounts: bool,
}

/// What they mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Those that are looked into, the first first.
    pub from: Vec<Place>,
    /// Those that are added to.
    pub to: Vec<Export>,
}

impl Caches {
    /// Reads the options.
    pub fn new(args: &CacheArgs) -> Result<Caches> {
        let mut caches = Caches::default();
        for text in &args.cache_from {
            caches.from.push(read_from(text)?);
        }
        for text in &args.cache_to {
            caches.to.push(read_to(text)?);
        }
        if let Some(text) = &args.cache {
            let place = Place::Registry(repository("--cache ", text, TAG)?);
            caches.from.push(place.clone());
            caches.to.push(Export { mode: Mode::Max, ..Export::new(place) });
        }
        let has_place = caches.to.iter().any(|export| export.place != Place::Inline);
        if args.cache_mounts && !has_place {
            return Err(Failure::usage("--cache-mounts needs a cache that they go to")
                .hint("name one with --cache or --cache-to"));
        }
        caches.to.iter_mut().for_each(|export| export.mounts |= args.cache_mounts);
        Ok(caches)
    }

    /// Returns the caches that lie somewhere: all but those in the image itself.
    pub fn outside(&self) -> impl Iterator<Item = &Export> {
        self.to.iter().filter(|export| export.place != Place::Inline)
    }

    /// Says which steps are told to any of them.
    pub fn tells(&self) -> Option<Mode> {
        let max = self.outside().any(|export| export.mode == Mode::Max);
        self.outside().next().map(|_| if max { Mode::Max } else { Mode::Min })
    }

    /// Says whether the image's configuration says what its steps were.
    pub fn is_inline(&self) -> bool {
        self.to.iter().any(|export| export.place == Place::Inline)
    }
}

impl Export {
    fn new(place: Place) -> Export {
        Export { place, mode: Mode::Min, mounts: false, ignore_error: false, max_age: MAX_AGE }
    }
}

/// Reads where a cache comes from.
pub fn read_from(text: &str) -> Result<Place> {
    let keys = Keys::read("--cache-from ", text, "src")?;
    match keys.place()? {
        Place::Inline => Err(keys
            .wrong("an image with a cache in it is of type=registry")
            .hint("write type=registry,ref=IMAGE")),
        place => Ok(place),
    }
}

/// Reads where a cache goes to.
pub fn read_to(text: &str) -> Result<Export> {
    let keys = Keys::read("--cache-to ", text, "dest")?;
    let place = keys.place()?;
    if place == Place::Inline && (keys.mode == Some(Mode::Max) || keys.mounts) {
        return Err(keys.wrong("an image holds its own layers only: type=inline is mode=min"));
    }
    Ok(Export {
        mode: keys.mode.unwrap_or_default(),
        mounts: keys.mounts,
        ignore_error: keys.ignore_error,
        max_age: keys.max_age.unwrap_or(MAX_AGE),
        ..Export::new(place)
    })
}

/// What was written.
#[derive(Debug, Default)]
struct Keys {
    option: &'static str,
    text: String,
    /// What a directory is given with: `dest` or `src`.
    directory_key: &'static str,
    kind: Option<String>,
    reference: Option<String>,
    directory: Option<PathBuf>,
    tag: Option<String>,
    mode: Option<Mode>,
    mounts: bool,
    ignore_error: bool,
    max_age: Option<SignedDuration>,
}

impl Keys {
    fn read(option: &'static str, text: &str, directory_key: &'static str) -> Result<Keys> {
        let mut keys = Keys { option, text: text.to_owned(), directory_key, ..Keys::default() };
        if !text.contains('=') {
            (keys.kind, keys.reference) = (Some("registry".to_owned()), Some(text.to_owned()));
            return Ok(keys);
        }
        for pair in csv::fields(text).map_err(|error| keys.wrong(error))? {
            let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
            keys.set(key, value)?;
        }
        Ok(keys)
    }

    fn wrong(&self, problem: impl fmt::Display) -> Failure {
        Failure::usage(format!("cannot use {}{}: {problem}", self.option, self.text))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let truth = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(self.wrong(format!("{key} is true or false, not `{value}`"))),
        };
        let is_export = self.directory_key == "dest";
        match key {
            "type" => self.kind = Some(value.to_owned()),
            "ref" => self.reference = Some(value.to_owned()),
            "tag" => {
                let tag: std::result::Result<Tag, _> = value.parse();
                self.tag = Some(tag.map_err(|error| self.wrong(error))?.to_string());
            }
            "mode" if is_export => {
                self.mode = Some(match value {
                    "min" => Mode::Min,
                    "max" => Mode::Max,
                    _ => return Err(self.wrong(format!("mode is min or max, not `{value}`"))),
                });
            }
            "mounts" if is_export => self.mounts = truth()?,
            "ignore-error" if is_export => self.ignore_error = truth()?,
            "max-age" if is_export => {
                let age: Duration = parse_duration(value).map_err(|error| self.wrong(error))?;
                let age = SignedDuration::try_from(age).map_err(|error| self.wrong(error))?;
                self.max_age = Some(age);
            }
            // What other builders can leave, and this one does in any case.
            "image-manifest" | "oci-mediatypes" if is_export => {
                if !truth()? {
                    return Err(self.wrong(format!("a cache of Boatyard is always {key}=true")));
                }
            }
            key if key == self.directory_key => self.directory = Some(PathBuf::from(value)),
            "compression" | "compression-level" | "force-compression" if is_export => {
                return Err(self
                    .wrong("the layers of a cache are packed as those of the image")
                    .hint("choose with --compression and --compression-level"));
            }
            _ => return Err(self.wrong(format!("`{key}` is no key of it"))),
        }
        Ok(())
    }

    fn place(&self) -> Result<Place> {
        match self.kind.as_deref() {
            Some("registry") => {
                let text = self.reference.as_deref();
                let text = text.ok_or_else(|| self.wrong("it names no repository: ref=NAME"))?;
                Ok(Place::Registry(repository(self.option, text, "latest")?))
            }
            Some("local") => {
                let missing =
                    || self.wrong(format!("it names no directory: {}=DIR", self.directory_key));
                let path = self.directory.clone().ok_or_else(missing)?;
                let tag = self.tag.clone().unwrap_or_else(|| DIRECTORY_TAG.to_owned());
                Ok(Place::Directory { path, tag })
            }
            Some("inline") => Ok(Place::Inline),
            Some(other @ ("gha" | "s3" | "azblob")) => Err(self
                .wrong(format!("type={other} is not supported"))
                .hint("use type=registry, or type=local and what your CI keeps of directories")),
            Some(other) => {
                Err(self.wrong(format!("`{other}` is no type: use registry, local or inline")))
            }
            None => Err(self.wrong("it says no type")),
        }
    }
}

/// Reads the name of a cache in a registry; without a tag it has `tag`.
fn repository(option: &str, text: &str, tag: &str) -> Result<ImageName> {
    let wrong = || Failure::usage(format!("cannot use {option}{text}"));
    let mut name: ImageName =
        text.parse().map_err(|error: boatyard_oci::name::NameError| wrong().because(error))?;
    if matches!(name.reference, Reference::Digest(_)) && option.starts_with("--cache-to") {
        return Err(wrong().because("a digest cannot be added to"));
    }
    let last = text.rsplit('/').next().unwrap_or(text);
    if !last.contains([':', '@']) {
        name.reference = Reference::Tag(tag.parse().map_err(|_| wrong())?);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Export {
        read_to(text).unwrap()
    }

    #[test]
    fn they_are_written_as_with_buildx() {
        let export = to("type=registry,ref=registry.example/app:cache,mode=max,ignore-error=true");
        assert_eq!(export.place.to_string(), "registry.example/app:cache");
        assert!(export.mode == Mode::Max && export.ignore_error && !export.mounts);
        assert_eq!(to("registry.example/app:cache").mode, Mode::Min);
        assert_eq!(
            read_from("registry.example/app").unwrap().to_string(),
            "registry.example/app:latest"
        );
        let local = to("type=local,dest=/tmp/x,tag=main,mounts=true,max-age=7d");
        let place = Place::Directory { path: "/tmp/x".into(), tag: "main".to_owned() };
        assert_eq!((local.place, local.mounts), (place.clone(), true));
        assert_eq!(local.max_age, SignedDuration::from_hours(7 * 24));
        assert_eq!(read_from("type=local,src=/tmp/x,tag=main").unwrap(), place);
        assert_eq!(to("type=inline").place, Place::Inline);
    }

    #[test]
    fn what_cannot_be_is_told() {
        let told = |text: &str| read_to(text).unwrap_err().to_string();
        assert!(told("type=gha").contains("not supported"));
        assert!(told("type=local").contains("dest=DIR"));
        assert!(told("type=local,src=x").contains("`src` is no key"));
        assert!(told("type=registry").contains("ref=NAME"));
        assert!(told("type=registry,ref=a,mode=mid").contains("min or max"));
        assert!(told("type=inline,mode=max").contains("mode=min"));
        assert!(told("mode=max").contains("no type"));
        assert!(told("type=registry,ref=UPPER").contains("cannot use"));
        assert!(read_from("type=inline").is_err());
        assert!(read_from("type=registry,ref=a,mode=max").is_err());
    }

    #[test]
    fn one_repository_is_enough() {
        let args = CacheArgs {
            cache_to: Vec::new(),
            cache_from: Vec::new(),
            cache: Some("registry.example/team/app".to_owned()),
            cache_mounts: true,
        };
        let caches = Caches::new(&args).unwrap();
        let name = "registry.example/team/app:buildcache";
        assert_eq!(caches.from[0].to_string(), name);
        assert_eq!(caches.to[0].place.to_string(), name);
        assert!(caches.to[0].mode == Mode::Max && caches.to[0].mounts);
        assert_eq!(caches.tells(), Some(Mode::Max));
        assert!(Caches::new(&CacheArgs { cache: None, ..args }).is_err());
    }
}
