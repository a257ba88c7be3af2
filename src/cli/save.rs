//! `boatyard save`

mod list;
mod since;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boatyard_builder::export::{ExportError, Source, docker_archive, oci_archive};
use boatyard_builder::image::ImageError;
use boatyard_content::{Lease, Root};
use boatyard_oci::Platform;

use crate::images;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Write images into an archive, for `load` here or in docker and podman.
///
/// Layers that several of the images share are written once. The same images always give the same
/// bytes. With --since the archive is a bundle, for `boatyard load` on a machine that has older images:
/// it holds only what is not there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images: names, or beginnings of image IDs
    #[arg(value_name = "IMAGE", required_unless_present = "list")]
    images: Vec<String>,
    /// Leave out what the receiver has: an image of this machine, a list that `save --list` wrote
    /// there, or an archive that was loaded there; several times for several
    #[arg(long, value_name = "OLD")]
    since: Vec<String>,
    /// Write the digests of what the images consist of instead (of all images, where none is named)
    #[arg(long, conflicts_with_all = ["since", "format", "platform"])]
    list: bool,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The form of the archive [default: docker-archive, and oci-archive with --since]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Which image of those for several platforms [default: docker-archive takes this machine's,
    /// oci-archive takes all that are here]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// As `docker save` writes it: every tool reads it
    DockerArchive,
    /// An OCI image layout: keeps the digests, and images for several platforms
    OciArchive,
}

/// Writes the archive.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    if !args.since.is_empty() && args.format == Some(Format::DockerArchive) {
        return Err(Failure::usage("a bundle is an oci-archive: other tools cannot complete it")
            .hint("leave out --format or --since"));
    }
    if args.list {
        return list::run(args, world);
    }
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage("an archive cannot be shown on a terminal")
            .hint("name a file with -o, or send it into another command"));
    }
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let sources = sources(args, &root, &lease)?;
    let base = match args.since.is_empty() {
        true => None,
        false => Some(since::base(args, &root, &lease)?),
    };
    to_output(args.output.as_deref(), |sink| match &base {
        None => write(args, &root, &sources, sink),
        Some(base) => since::write(&root, &sources, base, sink),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to a file, or to standard output.
fn to_output(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match path {
        None => write(&mut io::stdout().lock()),
        Some(path) => to_file(path, |mut file| write(&mut file)),
    }
}

/// Returns what to write: one source for each image, with the names that it was asked for by.
fn sources(args: &Args, root: &Root, lease: &Lease) -> Result<Vec<Source>> {
    let mut sources: Vec<Source> = Vec::new();
    for text in &args.images {
        let found = images::find(root, text)?;
        images::hold(root, lease, &found.places[0])?;
        let target = found.target().clone();
        let same = sources.iter_mut().find(|source| source.target.digest == target.digest);
        match same {
            Some(source) => source.names.extend(found.name),
            None => sources.push(Source {
                names: found.name.into_iter().collect(),
                target,
                platform: args.platform.clone(),
                annotations: std::collections::BTreeMap::new(),
            }),
        }
    }
    for source in &mut sources {
        source.names.sort();
        source.names.dedup();
    }
    Ok(sources)
}

fn write(args: &Args, root: &Root, sources: &[Source], sink: impl Write) -> Result<()> {
    let sink = BufWriter::with_capacity(1 << 20, sink);
    let written = match args.format.unwrap_or(Format::DockerArchive) {
        Format::DockerArchive => docker_archive(&root.store(), sources, sink),
        Format::OciArchive => oci_archive(&root.store(), sources, sink),
    };
    written.map_err(failed)?.flush().context("cannot write the archive")
}

/// Says why no archive was written.
fn failed(error: ExportError) -> Failure {
    let hint = match &error {
        ExportError::Image(ImageError::Platform { .. }) => {
            Some("name one of these with --platform")
        }
        ExportError::Image(ImageError::Missing { .. }) => {
            Some("`boatyard fsck` says what else is missing")
        }
        _ => None,
    };
    let failure = Failure::new("cannot write the archive").because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Writes a file that appears only once it is whole, unless it is a pipe or a device.
fn to_file(path: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if fs_err::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = fs_err::OpenOptions::new().write(true).open(path).context(failed())?;
        return write(file.file());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".boatyard-save-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .context(failed())?;
    write(temporary.as_file())?;
    temporary.persist(path).map(drop).context(failed())
}
