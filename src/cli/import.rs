//! `boatyard import`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boatyard_builder::import::{self, RootfsError, RootfsOptions};
use boatyard_oci::Platform;
use jiff::Timestamp;

use crate::cli::load::open_input;
use crate::cli::tag::parse_tag;
use crate::images;
use crate::output;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Make an image of one layer from the archive of a root file system.
///
/// For what debootstrap and tar make: `debootstrap stable DIR && tar -C DIR -c . | boatyard import
/// - debian:mine --change 'CMD ["bash"]'`. The archive may be compressed in any way.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive; - is standard input
    file: PathBuf,
    /// The image's name
    name: String,
    /// What the file system runs on [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// A Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER,
    /// VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// What the image's history says [default: Imported from FILE]
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// When the image was made, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    source_date_epoch: Option<i64>,
}

/// Makes the image and prints its ID.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let name = parse_tag(&args.name)?;
    let options = options(args)?;
    let reader = open_input(Some(&args.file))?;
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let target = import::rootfs(reader, &root, &lease, &options).map_err(|error| {
        let usage = matches!(error, RootfsError::Change(_));
        let failure = Failure::new(format!("cannot import {}", args.file.display()));
        let failure = failure.because(error);
        if usage { failure.code(crate::report::USAGE) } else { failure }
    })?;
    import::name(&root, &lease, &target, &[name]).context("cannot name the image")?;
    let image = images::open(&root, &target, None)?;
    output::line(&image.id().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Args) -> Result<RootfsOptions> {
    let from = match args.file == Path::new("-") {
        true => "-".into(),
        false => args.file.file_name().unwrap_or_default().to_string_lossy(),
    };
    let created = match args.source_date_epoch {
        None => Timestamp::now(),
        Some(seconds) => Timestamp::from_second(seconds).map_err(|error| {
            Failure::usage(format!("{seconds} is no time in seconds since 1970")).because(error)
        })?,
    };
    Ok(RootfsOptions {
        platform: args.platform.clone().unwrap_or_else(Platform::host),
        changes: args.changes.clone(),
        message: args.message.clone().unwrap_or_else(|| format!("Imported from {from}")),
        created,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}
