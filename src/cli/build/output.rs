//! `--output`: where a result goes, and in which form.

use std::collections::BTreeSet;
use std::path::PathBuf;

use boatyard_builder::annotation::Annotations;
use boatyard_builder::dockerfile::csv;
use boatyard_builder::dockerfile::suggest;
use boatyard_builder::form::{Form, MediaTypes};
use boatyard_builder::layer::compress::Compression;
use boatyard_oci::ImageName;

use super::options::tag;
use crate::report::{Failure, Result};

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where.
    pub kind: Kind,
    /// In which form.
    pub form: Form,
    /// Under which names, if it has its own.
    pub names: Vec<ImageName>,
    /// Whether the times of layers are those of `SOURCE_DATE_EPOCH`, if that was said.
    pub rewrite_timestamp: Option<bool>,
}

/// What is made of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An image: of this machine, unless it is not to be kept, and of a registry.
    Image {
        /// Whether and how it is pushed.
        push: Option<Push>,
        /// Whether it is kept under its names.
        store: bool,
    },
    /// An image of docker or podman.
    Load,
    /// The root file system, in a directory.
    Local {
        /// Where.
        directory: PathBuf,
        /// Whether each platform gets a directory of its own, if that was said.
        split: Option<bool>,
    },
    /// The root file system, as a tar.
    Tar {
        /// Where.
        destination: Destination,
        /// Whether each platform gets a directory of its own, if that was said.
        split: Option<bool>,
    },
    /// An OCI layout.
    Oci(Layout),
    /// What `docker load` reads.
    Docker(Layout),
    /// Nothing: later builds find the steps.
    CacheOnly,
}

/// How an image is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Under its tags.
    ByTag,
    /// Without a tag: an index that is made later lists it.
    ByDigest,
}

/// An image's files, as one archive or as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A tar.
    Archive(Destination),
    /// A directory.
    Directory(PathBuf),
}

/// A file or standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl Output {
    /// Returns an output in the form that all have that do not say otherwise.
    pub fn new(kind: Kind, form: &Form) -> Output {
        Output { kind, form: form.clone(), names: Vec::new(), rewrite_timestamp: None }
    }

    /// Reads `DIR`, `-`, or `type=...,dest=...`.
    pub fn read(text: &str, form: &Form) -> Result<Output> {
        if !text.contains('=') {
            let kind = match text {
                "-" => Kind::Tar { destination: Destination::Stdout, split: None },
                directory => Kind::Local { directory: PathBuf::from(directory), split: None },
            };
            return Ok(Output::new(kind, form));
        }
        let wrong = |problem: &dyn std::fmt::Display| {
            Failure::usage(format!("cannot use --output {text}: {problem}"))
        };
        let mut keys = Keys { form: form.clone(), ..Keys::default() };
        for pair in csv::fields(text).map_err(|error| wrong(&error))? {
            let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
            keys.set(key, value).map_err(|problem| wrong(&problem))?;
        }
        keys.finish().map_err(|problem| wrong(&problem))
    }

    /// Says whether an image comes of it.
    pub fn is_image(&self) -> bool {
        !matches!(self.kind, Kind::Local { .. } | Kind::Tar { .. } | Kind::CacheOnly)
    }

    /// Says whether it goes to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(
            self.kind,
            Kind::Tar { destination: Destination::Stdout, .. }
                | Kind::Oci(Layout::Archive(Destination::Stdout))
                | Kind::Docker(Layout::Archive(Destination::Stdout))
        )
    }
}

const TYPES: [&str; 8] =
    ["cacheonly", "docker", "image", "local", "oci", "registry", "tar", "none"];

const KEYS: [&str; 15] = [
    "annotation",
    "compression",
    "compression-level",
    "dest",
    "force-compression",
    "name",
    "oci-mediatypes",
    "platform-split",
    "push",
    "push-by-digest",
    "rewrite-timestamp",
    "store",
    "tar",
    "type",
    "unpack",
];

/// The keys that only images have.
const OF_IMAGES: [&str; 6] = [
    "annotation",
    "compression",
    "compression-level",
    "force-compression",
    "name",
    "oci-mediatypes",
];

/// What was typed.
#[derive(Default)]
struct Keys {
    given: BTreeSet<&'static str>,
    kind: Option<&'static str>,
    destination: Option<String>,
    form: Form,
    compression: Option<String>,
    level: Option<String>,
    names: Vec<ImageName>,
    is_archive: Option<bool>,
    push: Option<bool>,
    by_digest: bool,
    store: Option<bool>,
    split: Option<bool>,
    rewrite_timestamp: Option<bool>,
}

type Said<T> = std::result::Result<T, String>;

impl Keys {
    fn set(&mut self, key: &str, value: &str) -> Said<()> {
        if let Some((level, name)) = annotation(key) {
            self.given.insert("annotation");
            return self
                .form
                .annotations
                .add_at(&level, name, value)
                .map_err(|error| error.to_string());
        }
        let Some(known) = KEYS.into_iter().find(|known| *known == key) else {
            return Err(unknown("key", key, &KEYS));
        };
        self.given.insert(known);
        let truth = || boolean(key, value);
        match known {
            "type" => {
                let known = TYPES.into_iter().find(|known| *known == value);
                self.kind = Some(known.ok_or_else(|| unknown("type", value, &TYPES))?);
            }
            "dest" => self.destination = Some(value.to_owned()),
            "tar" => self.is_archive = Some(truth()?),
            "push" => self.push = Some(truth()?),
            "push-by-digest" => self.by_digest = truth()?,
            "store" => self.store = Some(truth()?),
            "platform-split" => self.split = Some(truth()?),
            "rewrite-timestamp" => self.rewrite_timestamp = Some(truth()?),
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => self.level = Some(value.to_owned()),
            "force-compression" => self.form.force_compression = truth()?,
            "oci-mediatypes" => {
                let is_oci = truth()?;
                self.form.media_types = if is_oci { MediaTypes::Oci } else { MediaTypes::Docker };
            }
            "name" => {
                for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    self.names.push(tag("name=", name).map_err(|error| error.to_string())?);
                }
            }
            // Layers are unpacked when they are needed; `annotation` alone has no name.
            "unpack" => drop(truth()?),
            _ => return Err("an annotation is written annotation.NAME=VALUE".to_owned()),
        }
        Ok(())
    }

    fn finish(mut self) -> Said<Output> {
        let kind = self.kind.ok_or("it says no type")?;
        self.check(kind)?;
        self.form.compression =
            compression(self.compression.as_deref(), self.level.as_deref(), self.form.compression)?;
        if matches!(self.form.compression, Compression::Zstd { .. })
            && self.form.media_types == MediaTypes::Docker
        {
            return Err("Docker's media types know no zstd: leave out oci-mediatypes=false".into());
        }
        let kind = self.kind(kind)?;
        let Keys { form, names, rewrite_timestamp, .. } = self;
        Ok(Output { kind, form, names, rewrite_timestamp })
    }

    fn kind(&self, kind: &str) -> Said<Kind> {
        let push = match self.by_digest {
            true => Push::ByDigest,
            false => Push::ByTag,
        };
        let store = self.store.unwrap_or(true);
        let directory = || match self.destination.as_deref() {
            None | Some("" | "-") => Err(format!("type={kind} needs dest=DIR")),
            Some(path) => Ok(PathBuf::from(path)),
        };
        let destination = || match self.destination.as_deref() {
            None | Some("" | "-") => Destination::Stdout,
            Some(path) => Destination::File(PathBuf::from(path)),
        };
        let layout = || match self.is_archive {
            Some(false) => directory().map(Layout::Directory),
            _ => Ok(Layout::Archive(destination())),
        };
        Ok(match kind {
            "registry" => Kind::Image { push: self.push.unwrap_or(true).then_some(push), store },
            "image" => Kind::Image { push: self.push.unwrap_or(false).then_some(push), store },
            "local" => Kind::Local { directory: directory()?, split: self.split },
            "tar" => Kind::Tar { destination: destination(), split: self.split },
            "oci" => Kind::Oci(layout()?),
            "docker" if self.destination.is_none() && self.is_archive.is_none() => Kind::Load,
            "docker" => Kind::Docker(layout()?),
            _ => Kind::CacheOnly,
        })
    }

    /// Refuses keys that say nothing about this type: they would be ignored.
    fn check(&self, kind: &str) -> Said<()> {
        for key in &self.given {
            let types: &[&str] = match *key {
                "type" | "rewrite-timestamp" => continue,
                "dest" => &["local", "tar", "oci", "docker"],
                "tar" => &["oci", "docker"],
                "push" | "push-by-digest" | "store" | "unpack" => &["image", "registry"],
                "platform-split" => &["local", "tar"],
                key if OF_IMAGES.contains(&key) => &["image", "registry", "oci", "docker"],
                _ => continue,
            };
            if !types.contains(&kind) {
                let types = types.join(", ");
                return Err(format!("type={kind} has no `{key}`, only these have: {types}"));
            }
        }
        if self.by_digest && self.names.is_empty() {
            return Err("push-by-digest=true needs name=REPOSITORY".to_owned());
        }
        Ok(())
    }
}

/// Takes apart `annotation.NAME`, `annotation-LEVEL.NAME` and `annotation-LEVEL[PLATFORM].NAME`.
fn annotation(key: &str) -> Option<(String, &str)> {
    let rest = key.strip_prefix("annotation")?;
    // A platform may hold a dot.
    let end = rest.find(']').map_or(0, |end| end + 1);
    let dot = end + rest[end..].find('.')?;
    let (level, name) = (&rest[..dot], &rest[dot + 1..]);
    let level = match level.strip_prefix('-') {
        Some(level) => level.to_owned(),
        None if level.is_empty() || level.starts_with('[') => format!("manifest{level}"),
        None => return None,
    };
    Some((level, name))
}

fn unknown(what: &str, given: &str, known: &'static [&'static str]) -> String {
    let near = suggest::nearest(given, known.iter().copied(), false);
    match near {
        Some(near) => format!("there is no {what} `{given}`: did you mean `{near}`?"),
        None => format!("there is no {what} `{given}`, only these: {}", known.join(", ")),
    }
}

/// Reads a truth value as Go does; a key alone says yes.
fn boolean(key: &str, value: &str) -> Said<bool> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("`{key}` is true or false, not `{other}`")),
    }
}

/// Reads a way to compress and its level.
pub fn compression(
    kind: Option<&str>,
    level: Option<&str>,
    usual: Compression,
) -> Said<Compression> {
    let kind = match kind {
        None => usual,
        Some("gzip") => Compression::GZIP,
        Some("zstd") => Compression::ZSTD,
        Some("uncompressed" | "none") => Compression::None,
        Some("estargz") => {
            return Err("estargz is not supported: use gzip, zstd or uncompressed".into());
        }
        Some(other) => {
            const KINDS: [&str; 3] = ["gzip", "zstd", "uncompressed"];
            return Err(unknown("compression", other, &KINDS));
        }
    };
    let Some(level) = level else { return Ok(kind) };
    let within = |most: u8| match level.parse::<u8>() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("the level is a number from 1 to {most}, not `{level}`")),
    };
    match kind {
        Compression::None => Err("what is not compressed has no level".to_owned()),
        Compression::Gzip { .. } => Ok(Compression::Gzip { level: within(12)? }),
        Compression::Zstd { .. } => Ok(Compression::Zstd { level: within(22)? }),
    }
}

/// Reads `--annotation`.
pub fn annotations(texts: &[String]) -> Result<Annotations> {
    let mut annotations = Annotations::default();
    for text in texts {
        annotations.add(text).map_err(|error| {
            Failure::usage("cannot use --annotation")
                .because(error)
                .hint("write it as NAME=VALUE, or as index:NAME=VALUE")
        })?;
    }
    Ok(annotations)
}

#[cfg(test)]
mod tests {
    use boatyard_builder::annotation::Level;

    use super::*;

    fn read(text: &str) -> Output {
        Output::read(text, &Form::default()).unwrap()
    }

    #[test]
    fn outputs_in_every_form() {
        let local = |directory: &str| Kind::Local { directory: directory.into(), split: None };
        let tar = |destination| Kind::Tar { destination, split: None };
        let file = |name: &str| Destination::File(name.into());
        let archive = |name: &str| Layout::Archive(file(name));
        let image = |push| Kind::Image { push, store: true };
        let table = [
            ("out", local("out")),
            ("-", tar(Destination::Stdout)),
            ("type=local,dest=d", local("d")),
            ("type=tar,dest=t.tar", tar(file("t.tar"))),
            ("type=tar", tar(Destination::Stdout)),
            ("type=oci,dest=-", Kind::Oci(Layout::Archive(Destination::Stdout))),
            ("type=oci,dest=d,tar=false", Kind::Oci(Layout::Directory("d".into()))),
            ("type=docker", Kind::Load),
            ("type=docker,dest=x.tar", Kind::Docker(archive("x.tar"))),
            ("type=image", image(None)),
            ("type=image,push=true", image(Some(Push::ByTag))),
            ("type=image,push", image(Some(Push::ByTag))),
            ("type=registry", image(Some(Push::ByTag))),
            ("type=registry,push-by-digest=1,name=r.example/a", image(Some(Push::ByDigest))),
            ("type=image,store=false", Kind::Image { push: None, store: false }),
            ("type=cacheonly", Kind::CacheOnly),
            (
                "type=local,dest=d,platform-split=false",
                Kind::Local { directory: "d".into(), split: Some(false) },
            ),
            ("\"type=oci\",\"dest=a,b\"", Kind::Oci(archive("a,b"))),
        ];
        for (text, expected) in table {
            assert_eq!(read(text).kind, expected, "{text}");
        }
    }

    #[test]
    fn forms_and_names() {
        let output = read(
            "type=image,\"name=r.example/a:1,r.example/b\",compression=zstd,compression-level=19,\
             force-compression=true,rewrite-timestamp=true,annotation.a=1,\
             annotation-index.org.example.b=2,annotation-manifest[linux/arm64].c=3",
        );
        let names: Vec<String> = output.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["r.example/a:1", "r.example/b:latest"]);
        assert_eq!(output.form.compression, Compression::Zstd { level: 19 });
        assert!(output.form.force_compression);
        assert_eq!(output.rewrite_timestamp, Some(true));
        let annotations = &output.form.annotations;
        let arm64 = "linux/arm64".parse().unwrap();
        assert_eq!(annotations.at(Level::Manifest, Some(&arm64)).len(), 2);
        assert_eq!(annotations.at(Level::Index, None)["org.example.b"], "2");
        let docker = read("type=docker,dest=x,oci-mediatypes=false,compression-level=9");
        assert_eq!(docker.form.media_types, MediaTypes::Docker);
        assert_eq!(docker.form.compression, Compression::Gzip { level: 9 });
    }

    #[test]
    fn mistakes_are_told() {
        for (text, expected) in [
            ("type=local", "type=local needs dest=DIR"),
            ("type=ocy,dest=x", "there is no type `ocy`: did you mean `oci`?"),
            ("dest=x", "it says no type"),
            (
                "type=oci,compresion=zstd",
                "there is no key `compresion`: did you mean `compression`?",
            ),
            ("type=oci,weird=1", "there is no key `weird`, only these: "),
            ("type=oci,push=true", "type=oci has no `push`, only these have: image, registry"),
            ("type=local,dest=d,compression=gzip", "type=local has no `compression`"),
            ("type=oci,compression=estargz", "estargz is not supported"),
            (
                "type=oci,compression=gzip,compression-level=13",
                "the level is a number from 1 to 12",
            ),
            ("type=oci,compression=uncompressed,compression-level=1", "what is not compressed has"),
            ("type=oci,compression=zstd,oci-mediatypes=false", "Docker's media types know no zstd"),
            ("type=image,push=yes", "`push` is true or false, not `yes`"),
            ("type=oci,annotation-indx.a=1", "`indx` is no level of annotations"),
            ("type=registry,push-by-digest=true", "push-by-digest=true needs name=REPOSITORY"),
            ("type=oci,\"dest=a", "a quoted field does not end properly"),
        ] {
            let told = Output::read(text, &Form::default()).unwrap_err().to_string();
            assert!(told.contains(expected), "{text}\n{told}");
        }
    }
}
