//! The files of a build: where its context and its Dockerfile are, and those contexts that have names.

use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use boatyard_builder::context::directory::Directory;
use boatyard_builder::context::load::{Loaded, Loader, Tree};
use boatyard_builder::context::location::Location;
use boatyard_builder::dockerfile::{Dockerfile, parse_bytes_with};
use boatyard_builder::import::{LayoutReference, layout};
use boatyard_builder::plan::{Contexts, NamedContext};
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, ImageName};

use super::options::{Args, Options};
use crate::cli::lint;
use crate::report::{Context as _, Failure, Result};

/// The build argument that keeps `.git` of a context that is a Git repository.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// What a build is made from.
pub struct Opened {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// What it is called in messages.
    pub file_name: String,
    /// How records name it: its path below the context.
    pub dockerfile_path: String,
    /// The files, if there are any.
    pub context: Option<Directory>,
}

/// Returns where the context is.
pub fn location(args: &Args) -> Result<Location> {
    let text = args.context.to_string_lossy();
    let location = Location::parse(&text)
        .map_err(|error| Failure::usage(format!("cannot use the context {text}")).because(error))?;
    // What is here is what it looks like.
    if args.context.exists() && text != "-" {
        return Ok(Location::Directory(args.context.clone()));
    }
    match location {
        Location::Git(mut address) => {
            let keeps = args.build_args.iter().any(|text| {
                let value = text.split_once('=').filter(|(name, _)| *name == KEEP_GIT_DIR);
                value.is_some_and(|(_, value)| matches!(value, "1" | "true" | "t" | "TRUE"))
            });
            if keeps && address.keep_git_dir().is_none() {
                address.set_keep_git_dir(true);
            }
            Ok(Location::Git(address))
        }
        location => Ok(location),
    }
}

/// Opens a context that is a directory, and its Dockerfile.
pub fn open_directory(args: &Args, options: &Options, directory: &Path) -> Result<Opened> {
    if args.file.as_deref() == Some(Path::new("-")) {
        let context = Directory::open(directory, None).context("cannot use the build context")?;
        return from_stdin(options).map(|opened| Opened { context: Some(context), ..opened });
    }
    let path = find_dockerfile(args, directory)?;
    let bytes = fs_err::read(&path).map_err(|error| {
        Failure::new("cannot read the Dockerfile")
            .because(error)
            .hint("-f names another file; it is relative to here, not to the context")
    })?;
    let context =
        Directory::open(directory, Some(&path)).context("cannot use the build context")?;
    let opened = opened(options, &bytes, path.display().to_string(), below(directory, &path))?;
    Ok(Opened { context: Some(context), ..opened })
}

/// Opens a context that has to be brought here first, and its Dockerfile.
pub fn open_loaded(
    args: &Args,
    options: &Options,
    location: &Location,
    loader: Loader<'_>,
) -> Result<Opened> {
    let dockerfile_is_stdin = args.file.as_deref() == Some(Path::new("-"));
    if *location == Location::Stdin && dockerfile_is_stdin {
        return Err(Failure::usage(
            "standard input cannot be the context and the Dockerfile at once",
        ));
    }
    let loaded = loader.load(location, stdin().lock()).context("cannot use the build context")?;
    match loaded {
        Loaded::File(_) if args.file.is_some() => Err(Failure::usage(format!(
            "the context {} is a Dockerfile, and -f names another",
            args.context.display()
        ))),
        Loaded::File(bytes) => {
            opened(options, &bytes, "Dockerfile".to_owned(), "Dockerfile".to_owned())
        }
        Loaded::Tree(tree) if dockerfile_is_stdin => {
            let context = tree.into_context(None).context("cannot use the build context")?;
            from_stdin(options).map(|opened| Opened { context: Some(context), ..opened })
        }
        Loaded::Tree(tree) => {
            let (name, bytes) = dockerfile_of(&tree, args)?;
            let context = tree.into_context(Some(&name)).context("cannot use the build context")?;
            let name = name.display().to_string();
            let opened = opened(options, &bytes, name.clone(), name)?;
            Ok(Opened { context: Some(context), ..opened })
        }
    }
}

/// Reads the Dockerfile of a context that was brought here: -f is relative to that.
fn dockerfile_of(tree: &Tree, args: &Args) -> Result<(PathBuf, Vec<u8>)> {
    let names = match &args.file {
        Some(file) => vec![file.clone()],
        None => vec![PathBuf::from("Dockerfile"), PathBuf::from("dockerfile")],
    };
    for name in &names {
        if let Some(bytes) = tree.read(name).context("cannot read the Dockerfile")? {
            return Ok((name.clone(), bytes));
        }
    }
    let name = names[0].display();
    Err(Failure::new(format!("there is no {name} in the context {}", args.context.display()))
        .hint("-f names another file of the context; `-f -` is one from standard input"))
}

fn from_stdin(options: &Options) -> Result<Opened> {
    let mut bytes = Vec::new();
    stdin().read_to_end(&mut bytes).context("cannot read stdin")?;
    opened(options, &bytes, "Dockerfile".to_owned(), "Dockerfile".to_owned())
}

fn opened(
    options: &Options,
    bytes: &[u8],
    file_name: String,
    dockerfile_path: String,
) -> Result<Opened> {
    let checks = lint::checks(&options.build_args)?;
    let dockerfile = parse_bytes_with(bytes, checks)
        .map_err(|errors| Failure::verbatim(errors.render(&file_name)))?;
    match (options.build_args.get("BUILDKIT_SYNTAX"), &dockerfile.directives.syntax) {
        (Some(syntax), _) if !syntax.is_empty() => {
            super::check_syntax("--build-arg BUILDKIT_SYNTAX=", syntax)?;
        }
        (_, Some(syntax)) => super::check_syntax("# syntax=", &syntax.value)?,
        (_, None) => {}
    }
    Ok(Opened { dockerfile, file_name, dockerfile_path, context: None })
}

fn find_dockerfile(args: &Args, directory: &Path) -> Result<PathBuf> {
    if let Some(file) = &args.file {
        return Ok(file.clone());
    }
    if !directory.is_dir() {
        let what = if directory.exists() { "is no directory" } else { "does not exist" };
        return Err(Failure::new(format!("the build context {} {what}", directory.display())));
    }
    for name in ["Dockerfile", "dockerfile"] {
        let path = directory.join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    Err(Failure::new(format!("there is no Dockerfile in {}", directory.display()))
        .hint("-f names a file elsewhere"))
}

/// Returns a Dockerfile's path below the context, or its name where it lies elsewhere: how records of
/// the build cache name it.
fn below(context: &Path, path: &Path) -> String {
    let name = || path.file_name().map_or(path, Path::new);
    path.strip_prefix(context).unwrap_or_else(|_| name()).display().to_string()
}

/// Reads `--build-context`; images of OCI layouts are brought into the store.
pub fn named(args: &Args, root: &Root, lease: &Lease) -> Result<(Contexts, Vec<Descriptor>)> {
    let (mut contexts, mut given) = (Contexts::default(), Vec::new());
    for text in &args.build_contexts {
        let wrong = |why: &str| Failure::usage(format!("cannot use --build-context {text}: {why}"));
        let (name, value) = text
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .ok_or_else(|| wrong("write NAME=DIR, or NAME=docker-image://IMAGE"))?;
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            let image: std::result::Result<ImageName, _> = image.parse();
            NamedContext::Image(image.map_err(|error| wrong("this is no image").because(error))?)
        } else if let Some(place) = value.strip_prefix("oci-layout://") {
            let (directory, reference) =
                layout_place(place).ok_or_else(|| wrong("this is no digest"))?;
            let image = layout(&directory, &reference, root, lease)
                .context(format!("cannot use --build-context {text}"))?;
            let own = layout_name(name, &image).ok_or_else(|| wrong("this is no name"))?;
            given.push(image);
            NamedContext::Image(own)
        } else if value.starts_with("target:") {
            return Err(wrong("a target is what bake builds; build it, and name its image"));
        } else {
            let location = Location::parse(value)
                .map_err(|error| wrong("this is no repository").because(error))?;
            match &location {
                Location::Stdin => return Err(wrong("standard input is for the build's own")),
                Location::Directory(path) if !path.is_dir() => {
                    return Err(wrong("there is no such directory"));
                }
                _ => NamedContext::Files(location),
            }
        };
        contexts.insert(name, context);
    }
    Ok((contexts, given))
}

/// Splits `DIR[:TAG][@DIGEST]`.
fn layout_place(text: &str) -> Option<(PathBuf, LayoutReference)> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        let path = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => path,
        };
        return Some((path.into(), LayoutReference::Digest(digest.parse().ok()?)));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => {
            Some((path.into(), LayoutReference::Tag(tag.to_owned())))
        }
        _ => Some((text.into(), LayoutReference::Any)),
    }
}

/// Returns the name that an image of a layout has during the build.
fn layout_name(name: &str, image: &Descriptor) -> Option<ImageName> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "image" } else { name };
    format!("oci-layout.localhost/{name}@{}", image.digest).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_layouts() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let place = |text: &str| layout_place(text);
        let any = Some((PathBuf::from("/a/b"), LayoutReference::Any));
        assert_eq!(place("/a/b"), any);
        let tag = LayoutReference::Tag("v1".to_owned());
        assert_eq!(place("a:v1"), Some((PathBuf::from("a"), tag)));
        let by_digest = LayoutReference::Digest(digest.parse().unwrap());
        assert_eq!(place(&format!("a@{digest}")), Some((PathBuf::from("a"), by_digest.clone())));
        assert_eq!(place(&format!("a:v1@{digest}")), Some((PathBuf::from("a"), by_digest)));
        assert_eq!(place("a@b"), None);
        assert_eq!(place("a:b/c"), Some((PathBuf::from("a:b/c"), LayoutReference::Any)));
    }
}
