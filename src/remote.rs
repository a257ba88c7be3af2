//! Other registries, as the commands use them: the client that the configuration asks for, images
//! fetched into this machine's, and images sent.

use std::collections::BTreeSet;
use std::path::PathBuf;

use boatyard_content::{Blob, Lease, Root};
use boatyard_oci::name::NameError;
use boatyard_oci::{Digest, ImageName, Manifest, MediaType, Raw, Reference, RegistryHost, Tag};
use boatyard_upstream::{
    Client, ClientOptions, CredentialSources, PlainHttp, Platforms, Pulled, TransferProgress,
    Trust, pull, push,
};

use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Returns the client of other registries.
pub fn client(world: &World) -> Result<Client> {
    let options = ClientOptions {
        credentials: credentials(world),
        trust: trust(world),
        plain_http: plain_http(world)?,
        ..ClientOptions::default()
    };
    Client::new(options).context("cannot set up the client of other registries")
}

/// Returns where our own credentials are kept.
pub fn own_credentials(world: &World) -> Option<PathBuf> {
    world.environment.config_directory().map(|directory| directory.join("auth.json"))
}

fn credentials(world: &World) -> CredentialSources {
    let environment = &world.environment;
    let docker = environment
        .docker_config
        .clone()
        .or_else(|| Some(environment.home.as_ref()?.join(".docker")))
        .map(|directory| directory.join("config.json"));
    let podman = [
        environment.auth_file.clone(),
        environment.runtime.as_ref().map(|runtime| runtime.join("containers/auth.json")),
        environment.home.as_ref().map(|home| home.join(".config/containers/auth.json")),
    ];
    CredentialSources {
        own: own_credentials(world),
        docker: docker.into_iter().collect(),
        podman: podman.into_iter().flatten().collect(),
        ..CredentialSources::default()
    }
}

fn trust(world: &World) -> Trust {
    let home = world.environment.home.as_ref();
    let in_home = |path: &str| home.map(|home| home.join(path));
    let own = world.config.registry.iter().filter_map(|registry| registry.ca.clone());
    Trust {
        authorities: own.collect(),
        certs_d: [
            in_home(".config/containers/certs.d"),
            Some(PathBuf::from("/etc/containers/certs.d")),
            Some(PathBuf::from("/etc/docker/certs.d")),
        ]
        .into_iter()
        .flatten()
        .collect(),
        registries_conf: [
            in_home(".config/containers/registries.conf"),
            Some(PathBuf::from("/etc/containers/registries.conf")),
            Some(PathBuf::from("/etc/containers/registries.conf.d")),
        ]
        .into_iter()
        .flatten()
        .filter(|path| path.exists())
        .collect(),
        realms: BTreeSet::new(),
    }
}

fn plain_http(world: &World) -> Result<PlainHttp> {
    let mut hosts = BTreeSet::new();
    for registry in world.config.registry.iter().filter(|registry| registry.plain_http) {
        let host: RegistryHost = registry.host.parse().map_err(|error: NameError| {
            Failure::usage(format!("[[registry]] names `{}`", registry.host)).because(error)
        })?;
        hosts.insert(host);
    }
    Ok(if hosts.is_empty() { PlainHttp::Loopback } else { PlainHttp::Hosts(hosts) })
}

/// Moves images between this machine and other registries.
#[derive(Clone, Copy)]
pub struct Mover<'a> {
    /// The client.
    pub client: &'a Client,
    /// Where this machine's images are.
    pub root: &'a Root,
    /// Holds what is being moved.
    pub lease: &'a Lease,
    /// Is told how it goes.
    pub progress: &'a dyn TransferProgress,
}

impl Mover<'_> {
    /// Fetches an image into the images of this machine, under its name.
    pub async fn fetch(self, name: &ImageName, platforms: Platforms<'_>) -> Result<Pulled> {
        let store = self.root.store();
        let pulled = pull(self.client, name, platforms, &store, self.lease, self.progress)
            .await
            .context(format!("cannot pull {}", name.familiar()))?;
        let repository = self.root.images_of(name);
        for (at, (manifest, media_type)) in pulled.manifests.iter().enumerate() {
            let is_top = at + 1 == pulled.manifests.len();
            let tags: Vec<Tag> = match &name.reference {
                Reference::Tag(tag) if is_top => vec![tag.clone()],
                _ => Vec::new(),
            };
            repository
                .put_manifest(manifest, media_type, &tags)
                .context(format!("cannot keep {}", name.familiar()))?;
        }
        Ok(pulled)
    }

    /// Sends an image of this machine, which a repository has under a digest, to where a name
    /// says.
    pub async fn send(self, from: &ImageName, digest: &Digest, to: &ImageName) -> Result<Digest> {
        let manifests = gather(self.root, self.lease, from, digest)?;
        let store = self.root.store();
        let pushed = push(self.client, to, &manifests, &store, &[], self.progress)
            .await
            .context(format!("cannot push {}", to.familiar()))?;
        Ok(pushed.digest)
    }
}

/// Returns a manifest and those that it lists and that are here, each after those that it lists.
fn gather(
    root: &Root,
    lease: &Lease,
    name: &ImageName,
    digest: &Digest,
) -> Result<Vec<(Raw<Manifest>, MediaType)>> {
    let repository = root.images_of(name);
    let stored = repository
        .manifest(digest)
        .context(format!("cannot read {}", name.familiar()))?
        .ok_or_else(|| Failure::new(format!("there is no image {digest} here")))?;
    let (manifest, media_type) = read(root, lease, digest, &stored.media_type)?;
    let mut manifests = Vec::new();
    for child in manifest.value().manifests() {
        let here = repository
            .manifest(&child.digest)
            .context(format!("cannot read {}", name.familiar()))?;
        if here.is_none() {
            let platform = child.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(Failure::new(format!(
                "{} is an index, and its image for {platform} is not here",
                name.familiar()
            ))
            .hint("fetch all of it with `boatyard pull --all-platforms`"));
        }
        manifests.extend(gather(root, lease, name, &child.digest)?);
    }
    manifests.push((manifest, media_type));
    Ok(manifests)
}

fn read(
    root: &Root,
    lease: &Lease,
    digest: &Digest,
    media_type: &MediaType,
) -> Result<(Raw<Manifest>, MediaType)> {
    let failed = || format!("cannot read manifest {digest}");
    let store = root.store();
    store.hold_blocking(digest, Some(lease)).context(failed())?;
    let blob = store
        .open_blocking(digest)
        .context(failed())?
        .ok_or_else(|| Failure::new(failed()).hint("look for more damage with `boatyard fsck`"))?;
    let bytes = Blob::File(blob).into_bytes(Manifest::SIZE_MAX).context(failed())?;
    let manifest = Manifest::parse_expecting(bytes, media_type, digest).context(failed())?;
    Ok((manifest, media_type.clone()))
}
