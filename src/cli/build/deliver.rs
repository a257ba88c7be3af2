//! Where a built image goes.

use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use boatyard_builder::build::{Built, BuiltForm, BuiltImage};
use boatyard_builder::cache::shared::Imports;
use boatyard_builder::export::{self, ExportError, Root as FileSystem, Source};
use boatyard_builder::image::{Image, read_manifest};
use boatyard_builder::snapshot::LayerDir;
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Digest, ImageName, Platform, Reference};

use super::options::{Args, Options};
use super::output::{Destination, Kind, Layout, Output, Push};
use super::shared;
use crate::cli::runtime;
use crate::output;
use crate::remote::{self, Mover, Sent};
use crate::report::{Context as _, Failure, Result, note};
use crate::shared_cache;
use crate::transfers::{self, Direction};
use crate::world::World;

/// What is delivered, and with what.
struct Delivery<'a> {
    world: &'a World,
    root: &'a Arc<Root>,
    lease: &'a Lease,
    args: &'a Args,
    options: &'a Options,
    built: &'a Built,
    imports: &'a Imports,
    forms: &'a [super::Form],
}

/// Keeps the image, sends it everywhere it should go, and says what it is.
pub fn deliver(
    world: &World,
    (root, lease): (&Arc<Root>, &Lease),
    args: &Args,
    options: &Options,
    built: &Built,
    imports: &Imports,
) -> Result<()> {
    let forms = super::forms(&options.outputs);
    let delivery = Delivery { world, root, lease, args, options, built, imports, forms: &forms };
    if delivery.is_whole()? {
        delivery.keep()?;
    }
    for output in &options.outputs {
        delivery.output(output)?;
    }
    delivery.describe()
}

impl Delivery<'_> {
    /// Keeps the image under its names, unless nobody wants it kept.
    fn keep(&self) -> Result<()> {
        let is_kept = |output: &Output| match output.kind {
            Kind::Image { store, .. } => store,
            Kind::CacheOnly => false,
            _ => true,
        };
        if self.options.outputs.iter().any(is_kept) {
            super::keep(self.root, self.lease, &self.options.tags, &self.built.main().top)?;
        }
        for output in &self.options.outputs {
            if matches!(output.kind, Kind::Image { store: true, .. }) {
                super::keep(self.root, self.lease, &output.names, &self.form(output).top)?;
            }
        }
        Ok(())
    }

    /// Says whether all layers of the image are here, or are to be.
    ///
    /// Layers that a shared cache has, or that no step needed of a base image, are not fetched for a
    /// push: the registry has them, or is given them one by one. Then the image is not among those of this machine, which would have to have
    /// all of it.
    fn is_whole(&self) -> Result<bool> {
        if self.imports.is_empty() {
            return Ok(true);
        }
        let missing = self.missing()?;
        let is_push = |output: &Output| matches!(output.kind, Kind::Image { push: Some(_), .. });
        if missing.is_empty() {
            return Ok(true);
        }
        if self.options.outputs.iter().all(|it| is_push(it) || it.kind == Kind::CacheOnly) {
            return Ok(false);
        }
        for blob in &missing {
            shared_cache::lend(self.imports, blob)?;
        }
        Ok(true)
    }

    /// Returns the layers of the image that are not here, each once.
    fn missing(&self) -> Result<Vec<Descriptor>> {
        let store = self.root.store();
        let mut missing: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for image in self.built.forms.iter().flat_map(|form| &form.images) {
            let failed = "cannot read the image that was built";
            let manifest = read_manifest(&store, &image.descriptor).context(failed)?;
            for blob in manifest.value().blobs() {
                if store.hold_blocking(&blob.digest, Some(self.lease)).context(failed)?.is_none() {
                    missing.insert(blob.digest.clone(), blob.clone());
                }
            }
        }
        Ok(missing.into_values().collect())
    }

    /// Returns the image as an output wants it.
    fn form(&self, output: &Output) -> &BuiltForm {
        let place = self.forms.iter().position(|form| *form == output.form);
        place.and_then(|place| self.built.forms.get(place)).unwrap_or_else(|| self.built.main())
    }

    /// Returns the names that an output gives.
    fn names<'o>(&'o self, output: &'o Output) -> &'o [ImageName] {
        if output.names.is_empty() { &self.options.tags } else { &output.names }
    }

    fn output(&self, output: &Output) -> Result<()> {
        let form = self.form(output);
        match &output.kind {
            Kind::Image { push: Some(push), .. } => self.push(output, form, *push),
            Kind::Image { push: None, .. } | Kind::CacheOnly => Ok(()),
            Kind::Load => self.load(output, form),
            Kind::Local { directory, split } => self.local(form, directory, *split),
            Kind::Tar { destination, split } => {
                let unpacked = self.unpack(form, *split)?;
                let systems: Vec<FileSystem<'_>> = unpacked
                    .iter()
                    .map(|(name, layers)| FileSystem { name: name.as_deref(), layers })
                    .collect();
                write(destination, |sink| export::tar(&systems, self.built.epoch, sink))
            }
            Kind::Oci(Layout::Archive(destination)) => {
                let source = self.source(output, form);
                write(destination, |sink| export::oci_archive(&self.root.store(), &[source], sink))
            }
            Kind::Oci(Layout::Directory(directory)) => {
                let source = self.source(output, form);
                export::oci_layout(&self.root.store(), &[source], directory)
                    .context(format!("cannot write the layout to {}", directory.display()))
            }
            Kind::Docker(Layout::Archive(destination)) => {
                let source = self.source(output, form);
                write(destination, |sink| {
                    export::docker_archive(&self.root.store(), &[source], sink)
                })
            }
            Kind::Docker(Layout::Directory(directory)) => {
                let source = self.source(output, form);
                export::docker_layout(&self.root.store(), &[source], directory)
                    .context(format!("cannot write the image to {}", directory.display()))
            }
        }
    }

    fn source(&self, output: &Output, form: &BuiltForm) -> Source {
        let mut annotations: BTreeMap<String, String> = form.top.annotations.clone();
        if let Some(epoch) = self.built.epoch {
            annotations
                .entry("org.opencontainers.image.created".to_owned())
                .or_insert_with(|| epoch.to_string());
        }
        let names = self.names(output).to_vec();
        Source { names, target: form.top.clone(), platform: None, annotations }
    }

    /// Unpacks the image of each platform; each has a name where each gets its own directory.
    fn unpack(
        &self,
        form: &BuiltForm,
        split: Option<bool>,
    ) -> Result<Vec<(Option<String>, Vec<LayerDir>)>> {
        let splits = split.unwrap_or(form.images.len() > 1);
        let layers = self.world.open_layers(self.root, self.lease)?;
        let unpack = |built: &BuiltImage| {
            let image = Image::open(&self.root.store(), &built.descriptor, None)
                .context("cannot read the image that was built")?;
            let unpacked = export::unpack(&layers, &self.root.store(), &image, 2, &|_| {})
                .context("cannot unpack the image that was built")?;
            Ok((splits.then(|| directory_of(&built.platform)), unpacked))
        };
        form.images.iter().map(unpack).collect()
    }

    fn local(&self, form: &BuiltForm, directory: &Path, split: Option<bool>) -> Result<()> {
        for (name, layers) in self.unpack(form, split)? {
            let directory = name.map_or_else(|| directory.to_owned(), |name| directory.join(name));
            export::local(&layers, self.built.epoch, &directory)
                .context(format!("cannot write the files to {}", directory.display()))?;
        }
        Ok(())
    }

    fn push(&self, output: &Output, form: &BuiltForm, push: Push) -> Result<()> {
        let client = remote::client(self.world)?;
        let runtime = runtime()?;
        let progress = transfers::open(Direction::Push, self.args.quiet);
        let manifests = remote::gather(self.root, &form.top)?
            .ok_or_else(|| Failure::new("a part of what was built is gone"))?;
        for name in self.names(output) {
            let mut to = name.clone();
            if push == Push::ByDigest {
                to.reference = Reference::Digest(form.top.digest.clone());
            }
            let (client, root, lease) = (&client, self.root, self.lease);
            let mover = Mover { client, root, lease, progress: progress.as_progress() };
            let mut from = shared::repositories(&self.options.caches, &to.registry);
            // A base whose layers nobody needed is not among the images here, which are looked at too.
            let bases = form.images.iter().filter_map(|image| image.base.as_ref());
            let bases = bases.filter(|(base, _)| base.registry == to.registry);
            from.extend(bases.map(|(base, _)| base.repository.clone()));
            from.dedup();
            let digest = loop {
                match runtime.block_on(mover.try_send_manifests(&manifests, &to, &from))? {
                    Sent::Whole(digest) => break digest,
                    Sent::Lacks(blob) => shared_cache::lend(self.imports, &blob)?,
                }
            };
            progress.finish();
            if !self.args.quiet {
                note(&format!("pushed {} ({digest})", to.familiar()));
            }
        }
        Ok(())
    }

    /// Streams the image into `docker load`, or `podman load` where docker does not run.
    fn load(&self, output: &Output, form: &BuiltForm) -> Result<()> {
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
        let source = self.source(output, form);
        let written = export::docker_archive(&self.root.store(), &[source], BufWriter::new(stdin));
        let written = written.map(drop);
        let status = child.wait().context(format!("cannot wait for {engine}"))?;
        if !status.success() {
            return Err(Failure::new(format!("{engine} did not load the image ({status})")));
        }
        written.context(format!("cannot send the image to {engine}"))
    }

    /// Writes the files that were asked for, and prints what was built.
    fn describe(&self) -> Result<()> {
        let form = self.built.main();
        let id = form.id();
        if let Some(path) = &self.args.iidfile {
            fs_err::write(path, id.to_string()).context("cannot write the image ID")?;
        }
        if let Some(path) = &self.args.metadata_file {
            let metadata = self.metadata(form);
            let text = serde_json::to_string_pretty(&metadata).context("cannot write JSON")?;
            fs_err::write(path, text + "\n").context("cannot write the metadata")?;
        }
        let to_stdout = self.options.outputs.iter().any(Output::is_stdout);
        if self.args.quiet && !to_stdout {
            return output::line(&id.to_string());
        }
        if !self.args.quiet {
            if let [image] = &form.images[..] {
                note(&format!("image  {}", image.config.digest()));
            }
            note(&format!("digest {}", form.top.digest));
            for name in self.all_names() {
                note(&format!("name   {}", name.familiar()));
            }
        }
        Ok(())
    }

    fn all_names(&self) -> Vec<&ImageName> {
        let own = self.options.outputs.iter().flat_map(|output| &output.names);
        let mut names: Vec<&ImageName> = Vec::new();
        for name in self.options.tags.iter().chain(own) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Returns what was built, in buildx's words and one of ours.
    fn metadata(&self, form: &BuiltForm) -> serde_json::Value {
        let mut descriptor = serde_json::json!({
            "mediaType": form.top.media_type,
            "digest": form.top.digest,
            "size": form.top.size,
        });
        let mut metadata = serde_json::json!({
            "boatyard.compatibility": self.args.compatibility.number(),
            "containerimage.digest": form.top.digest,
        });
        if let [image] = &form.images[..] {
            descriptor["platform"] = serde_json::json!(image.platform);
            metadata["containerimage.config.digest"] = image.config.digest().to_string().into();
        }
        if !form.top.annotations.is_empty() {
            descriptor["annotations"] = serde_json::json!(form.top.annotations);
        }
        metadata["containerimage.descriptor"] = descriptor;
        let names: Vec<String> = self.all_names().iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            metadata["image.name"] = names.join(",").into();
        }
        metadata
    }
}

/// Returns the directory of a platform's files, in buildx's words.
fn directory_of(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
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

/// Says whether a program is there and its engine answers.
fn answers(engine: &str) -> bool {
    let status =
        Command::new(engine).arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
