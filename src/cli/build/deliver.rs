//! Where a built image goes.

use std::io::{BufWriter, IsTerminal as _, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use boatyard_builder::build::Built;
use boatyard_builder::export::{self, ExportError, Source};
use boatyard_builder::image::Image;
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, MediaType, Platform};

use super::options::{Args, Destination, Options, Output};
use crate::cli::runtime;
use crate::output;
use crate::remote::{self, Mover};
use crate::report::{Context as _, Failure, Result, note};
use crate::transfers::{self, Direction};
use crate::world::World;

/// Sends the image everywhere it should go, and says what it is.
pub fn deliver(
    world: &World,
    root: &Arc<Root>,
    lease: &Lease,
    args: &Args,
    options: &Options,
    built: &Built,
) -> Result<()> {
    for target in &options.outputs {
        match target {
            Output::Push => push(world, root, lease, args, options, built)?,
            Output::Load => load(root, options, built)?,
            Output::Image => {}
            Output::Local(directory) => {
                let layers = unpack(world, root, lease, built)?;
                export::local(&layers, directory)
                    .context(format!("cannot write the files to {}", directory.display()))?;
            }
            Output::Tar(destination) => {
                let layers = unpack(world, root, lease, built)?;
                write(destination, |sink| export::tar(&layers, sink))?;
            }
            Output::Oci(destination) => {
                write(destination, |sink| {
                    export::oci_archive(&root.store(), &[source(options, built)], sink)
                })?;
            }
            Output::Docker(destination) => {
                write(destination, |sink| {
                    export::docker_archive(&root.store(), &[source(options, built)], sink)
                })?;
            }
        }
    }
    describe(args, options, built)
}

fn target(built: &Built) -> Descriptor {
    let manifest = &built.manifest;
    Descriptor::new(MediaType::OCI_MANIFEST, manifest.digest().clone(), manifest.size())
}

fn source(options: &Options, built: &Built) -> Source {
    Source { names: options.tags.clone(), target: target(built), platform: None }
}

fn unpack(
    world: &World,
    root: &Arc<Root>,
    lease: &Lease,
    built: &Built,
) -> Result<Vec<boatyard_builder::snapshot::LayerDir>> {
    let image = Image::open(&root.store(), &target(built), None)
        .context("cannot read the image that was built")?;
    let layers = world.open_layers(root, lease)?;
    export::unpack(&layers, &root.store(), &image, 2, &|_| {})
        .context("cannot unpack the image that was built")
}

/// Writes to a file or to standard output, unless that is a terminal.
fn write<'a>(
    destination: &Destination,
    export: impl FnOnce(Box<dyn Write + 'a>) -> std::result::Result<Box<dyn Write + 'a>, ExportError>,
) -> Result<()> {
    let (sink, name): (Box<dyn Write>, String) = match destination {
        Destination::Stdout if std::io::stdout().is_terminal() => {
            return Err(Failure::usage("an archive is not written to a terminal")
                .hint("name a file with dest=FILE, or redirect the output"));
        }
        Destination::Stdout => (Box::new(std::io::stdout().lock()), "standard output".to_owned()),
        Destination::File(path) => {
            let file = fs_err::File::create(path).context("cannot write the result")?;
            (Box::new(file), path.display().to_string())
        }
    };
    let failed = || format!("cannot write the result to {name}");
    let mut sink = export(Box::new(BufWriter::with_capacity(256 << 10, sink))).context(failed())?;
    sink.flush().context(failed())
}

fn push(
    world: &World,
    root: &Arc<Root>,
    lease: &Lease,
    args: &Args,
    options: &Options,
    built: &Built,
) -> Result<()> {
    let client = remote::client(world)?;
    let runtime = runtime()?;
    let progress = transfers::open(Direction::Push, args.quiet);
    for name in &options.tags {
        let mover = Mover { client: &client, root, lease, progress: progress.as_progress() };
        let digest = runtime.block_on(mover.send(name, built.manifest.digest(), name))?;
        progress.finish();
        if !args.quiet {
            note(&format!("pushed {} ({digest})", name.familiar()));
        }
    }
    Ok(())
}

/// Streams the image into `docker load`, or `podman load` where docker does not run.
fn load(root: &Arc<Root>, options: &Options, built: &Built) -> Result<()> {
    let Some(engine) = ["docker", "podman"].into_iter().find(|engine| answers(engine)) else {
        return Err(Failure::new("neither docker nor podman is running here")
            .hint("--output type=docker,dest=FILE writes an archive for `docker load`"));
    };
    let mut child = Command::new(engine)
        .arg("load")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context(format!("cannot start {engine}"))?;
    let Some(stdin) = child.stdin.take() else {
        return Err(Failure::new(format!("cannot write to {engine}")));
    };
    let source = source(options, built);
    let written = export::docker_archive(&root.store(), &[source], BufWriter::new(stdin));
    let written = written.map(drop);
    let status = child.wait().context(format!("cannot wait for {engine}"))?;
    if !status.success() {
        return Err(Failure::new(format!("{engine} did not load the image ({status})")));
    }
    written.context(format!("cannot send the image to {engine}"))
}

/// Says whether a program is there and its engine answers.
fn answers(engine: &str) -> bool {
    let status =
        Command::new(engine).arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Writes the files that were asked for, and prints what was built.
fn describe(args: &Args, options: &Options, built: &Built) -> Result<()> {
    let id = built.config.digest();
    if let Some(path) = &args.iidfile {
        fs_err::write(path, id.to_string()).context("cannot write the image ID")?;
    }
    if let Some(path) = &args.metadata_file {
        let names: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
        let mut metadata = serde_json::json!({
            "containerimage.config.digest": id,
            "containerimage.digest": built.manifest.digest(),
            "containerimage.descriptor": {
                "mediaType": MediaType::OCI_MANIFEST,
                "digest": built.manifest.digest(),
                "size": built.manifest.size(),
                "platform": platform(built),
            },
        });
        if !names.is_empty() {
            metadata["image.name"] = names.join(",").into();
        }
        let text = serde_json::to_string_pretty(&metadata).context("cannot write JSON")?;
        fs_err::write(path, text + "\n").context("cannot write the metadata")?;
    }
    let to_stdout = options.outputs.iter().any(|output| {
        matches!(
            output,
            Output::Tar(Destination::Stdout)
                | Output::Oci(Destination::Stdout)
                | Output::Docker(Destination::Stdout)
        )
    });
    if args.quiet && !to_stdout {
        return output::line(&id.to_string());
    }
    if !args.quiet {
        note(&format!("image  {id}"));
        note(&format!("digest {}", built.manifest.digest()));
        for name in &options.tags {
            note(&format!("name   {}", name.familiar()));
        }
    }
    Ok(())
}

fn platform(built: &Built) -> Platform {
    built.config.value().platform()
}
