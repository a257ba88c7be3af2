//! `boatyard inspect --provenance` and `--sbom`: what was said of an image when it was built.

use std::process::ExitCode;

use boatyard_builder::attest::find::{self, STATEMENT_BYTES_MAX};
use boatyard_builder::attest::{Predicate, REFERENCE_TYPE};
use boatyard_builder::image::read_manifest;
use boatyard_content::Root;
use boatyard_oci::{Descriptor, Digest, ImageName, Manifest, Platform, Reference};
use boatyard_upstream::Client;
use serde_json::Value;

use crate::cli::runtime;
use crate::images::{self, Found};
use crate::output;
use crate::remote;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Prints what is said of each image.
pub fn run(
    world: &World,
    root: &Root,
    texts: &[String],
    platform: Option<&Platform>,
    wanted: Predicate,
) -> Result<ExitCode> {
    for text in texts {
        let said = match (images::find(root, text), text.parse::<ImageName>()) {
            (Ok(found), _) => local(root, &found, platform, wanted)?,
            (Err(_), Ok(name)) => {
                let client = remote::client(world)?;
                runtime()?.block_on(Registry { client, name }.find(platform, wanted))?
            }
            (Err(failure), Err(_)) => return Err(failure),
        };
        output::json(&said.ok_or_else(|| nothing(text, wanted))?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn nothing(text: &str, wanted: Predicate) -> Failure {
    let (what, option) = match wanted {
        Predicate::Provenance => ("provenance", "--provenance"),
        Predicate::Sbom => ("SBOM", "--sbom"),
    };
    Failure::new(format!("the image {text} has no {what}"))
        .hint(format!("`boatyard build {option}` makes one"))
}

/// Looks among the images of this machine.
fn local(
    root: &Root,
    found: &Found,
    platform: Option<&Platform>,
    wanted: Predicate,
) -> Result<Option<Value>> {
    let image = images::open(root, found.target(), platform)?.descriptor.digest;
    let top = read_manifest(&root.store(), found.target()).context("cannot read the manifest")?;
    let mut candidates: Vec<Descriptor> =
        find::about(top.value().manifests(), &image).cloned().collect();
    for place in &found.places {
        let referrers = place.repository.referrers(&image);
        candidates.extend(referrers.context("cannot list what refers to the image")?);
    }
    let said = find::find(&root.store(), &candidates, &image, wanted);
    said.context("cannot read what is said of the image")
}

/// A name in a registry.
struct Registry {
    client: Client,
    name: ImageName,
}

impl Registry {
    async fn find(&self, platform: Option<&Platform>, wanted: Predicate) -> Result<Option<Value>> {
        let (top, _) = self
            .client
            .manifest(&self.name)
            .await
            .context(format!("cannot ask for {}", self.name.familiar()))?;
        let image = match top.value() {
            Manifest::Image(_) => top.digest().clone(),
            Manifest::Index(index) => choose(&index.manifests, platform)?.digest.clone(),
        };
        for candidate in find::about(top.value().manifests(), &image) {
            if let Some(said) = self.said(candidate, &image, wanted).await? {
                return Ok(Some(said));
            }
        }
        let referrers =
            self.client.referrers(&self.name.registry, &self.name.repository, &image).await;
        for candidate in referrers.context("cannot list what refers to the image")? {
            if let Some(said) = self.said(&candidate, &image, wanted).await? {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    /// Returns what an attestation manifest says of the image.
    async fn said(
        &self,
        manifest: &Descriptor,
        image: &Digest,
        wanted: Predicate,
    ) -> Result<Option<Value>> {
        let failed = || format!("cannot fetch the attestation {}", manifest.digest);
        let reference = Reference::Digest(manifest.digest.clone());
        let name = ImageName { reference, ..self.name.clone() };
        let (manifest, _) = self.client.manifest(&name).await.context(failed())?;
        let Some(layer) = wanted.among(manifest.value()) else { return Ok(None) };
        let mut stream = self.client.blob(&name, layer, None).await.context(failed())?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.chunk().await.context(failed())? {
            if bytes.len() + chunk.len() > STATEMENT_BYTES_MAX {
                return Err(Failure::new(failed()).because("it is larger than any honest one"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let got = Digest::of(layer.digest.algorithm(), &bytes);
        if got != layer.digest {
            return Err(Failure::new(failed()).because(format!("its bytes have the digest {got}")));
        }
        find::predicate(&bytes, image, &layer.digest).map(Some).context(failed())
    }
}

/// Returns the image of an index that is for a platform, or the only one.
fn choose<'a>(listed: &'a [Descriptor], platform: Option<&Platform>) -> Result<&'a Descriptor> {
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let is_image = |it: &&Descriptor| !it.annotations.contains_key(REFERENCE_TYPE);
    let images: Vec<&Descriptor> = listed.iter().filter(is_image).collect();
    let fits = |it: &&&Descriptor| it.platform.as_ref().is_some_and(|own| wanted.runs(own));
    match (images.iter().find(fits), &images[..]) {
        (Some(image), _) => Ok(image),
        (None, [only]) if platform.is_none() => Ok(only),
        _ => Err(Failure::new(format!("the index lists no image for {wanted}"))
            .hint("name one of its platforms with --platform")),
    }
}
