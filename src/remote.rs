//! Other registries, as the commands use them: the client that the configuration asks for, images
//! fetched into this machine's, and images sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use boatyard_builder::image::{ImageError, read_manifest};
use boatyard_builder::import;
use boatyard_content::{Lease, Root};
use boatyard_oci::{
    Descriptor, Digest, ImageName, Manifest, MediaType, Raw, RegistryHost, RepositoryName,
};
use boatyard_upstream::distribution::{PullError, PushError, pull_manifests};
use boatyard_upstream::{
    Client, ClientOptions, CredentialSources, PlainHttp, Platforms, Pulled, TransferProgress,
    Trust, pull, push,
};

use crate::config::Registry;
use crate::images;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Indexes within indexes: more than anybody makes.
const NESTED_MAX: usize = 4;

/// Returns the client of other registries.
pub fn client(world: &World) -> Result<Client> {
    client_with(world, plain_http(world)?)
}

/// Returns one that speaks plain HTTP with one more registry.
pub fn client_in_the_clear(world: &World, registry: &RegistryHost) -> Result<Client> {
    let mut hosts = match plain_http(world)? {
        PlainHttp::Loopback => BTreeSet::new(),
        PlainHttp::Hosts(hosts) => hosts,
    };
    hosts.insert(registry.clone());
    client_with(world, PlainHttp::Hosts(hosts))
}

fn client_with(world: &World, plain_http: PlainHttp) -> Result<Client> {
    let options = ClientOptions {
        credentials: credentials(world),
        trust: trust(world)?,
        plain_http,
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

/// Returns whom to trust: the system's authorities, and those that were configured for a host.
pub fn trust(world: &World) -> Result<Trust> {
    let home = world.environment.home.as_ref();
    let in_home = |path: &str| home.map(|home| home.join(path));
    // Whom one registry trusts says nothing of others.
    let mut host_authorities: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for registry in &world.config.registry {
        if let Some(authority) = &registry.ca {
            let host = configured_host(registry)?.as_str().to_owned();
            host_authorities.entry(host).or_default().push(authority.clone());
        }
    }
    Ok(Trust {
        host_authorities,
        certs_d: [
            in_home(".config/containers/certs.d"),
            Some(PathBuf::from("/etc/containers/certs.d")),
            Some(PathBuf::from("/etc/docker/certs.d")),
        ]
        .into_iter()
        .flatten()
        .collect(),
        // What comes later counts more.
        registries_conf: [
            Some(PathBuf::from("/etc/containers/registries.conf")),
            Some(PathBuf::from("/etc/containers/registries.conf.d")),
            in_home(".config/containers/registries.conf"),
        ]
        .into_iter()
        .flatten()
        .filter(|path| path.exists())
        .collect(),
        ..Trust::default()
    })
}

/// Returns the registries that were configured to be spoken to without TLS.
pub fn plain_http(world: &World) -> Result<PlainHttp> {
    let plain = world.config.registry.iter().filter(|registry| registry.plain_http);
    let hosts = plain.map(configured_host).collect::<Result<BTreeSet<_>>>()?;
    Ok(if hosts.is_empty() { PlainHttp::Loopback } else { PlainHttp::Hosts(hosts) })
}

fn configured_host(registry: &Registry) -> Result<RegistryHost> {
    registry.host.parse().map_err(|error| {
        Failure::usage(format!("[[registry]] names `{}`", registry.host)).because(error)
    })
}

/// Reads a registry as people write it.
pub fn parse_host(text: &str) -> Result<RegistryHost> {
    let bare = text.strip_prefix("https://").unwrap_or(text);
    // What docker calls its own registry.
    let bare = bare.strip_suffix("/v1/").unwrap_or(bare).trim_end_matches('/');
    bare.parse().map_err(|error| Failure::usage(format!("`{text}` is no registry")).because(error))
}

/// Returns the failure of what was asked of a registry, with what may help.
pub fn failure(
    what: impl std::fmt::Display,
    registry: &RegistryHost,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Failure {
    let refused = is_refused(&error);
    let failure = Failure::new(what).because(error);
    match refused {
        true if registry.is_loopback() => {
            failure.hint("is the registry running? `boatyard serve` starts one")
        }
        true => failure.hint(format!("nothing listens there: is {registry} the right address?")),
        false => failure,
    }
}

fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        || error.source().is_some_and(is_refused)
}

fn cannot_pull(name: &ImageName, error: PullError) -> Failure {
    let is_platform = matches!(error, PullError::NoPlatform { .. });
    let failure = failure(format!("cannot pull {}", name.familiar()), &name.registry, error);
    if is_platform { failure.hint("name one of these with --platform") } else { failure }
}

/// Manifests in the order in which a registry takes them: each after those that it lists.
pub type Manifests = Vec<(Raw<Manifest>, MediaType)>;

/// How sending an image ended.
pub enum Sent {
    /// All of it is there.
    Whole(Digest),
    /// This blob is neither here nor there.
    Lacks(Box<Descriptor>),
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
        let pulled = pull(self.client, name, platforms, &store, self.lease, self.progress).await;
        let pulled = pulled.map_err(|error| cannot_pull(name, error))?;
        self.keep(name, &pulled.top)?;
        Ok(pulled)
    }

    /// Fetches what says what an image is, and none of its layers. It is not among the images of this
    /// machine then.
    pub async fn fetch_manifests(
        self,
        name: &ImageName,
        platforms: Platforms<'_>,
    ) -> Result<Pulled> {
        let (client, store) = (self.client, self.root.store());
        let pulled =
            pull_manifests(client, name, platforms, &store, self.lease, self.progress).await;
        pulled.map_err(|error| cannot_pull(name, error))
    }

    /// Puts an image of which all is here among the images of this machine, under its name.
    pub fn keep(self, name: &ImageName, top: &Descriptor) -> Result<()> {
        import::name(self.root, self.lease, top, std::slice::from_ref(name))
            .context(format!("cannot keep {}", name.familiar()))
    }

    /// Sends an image of this machine, which a repository has under a digest, to where a name
    /// says.
    pub async fn send(self, from: &ImageName, digest: &Digest, to: &ImageName) -> Result<Digest> {
        let stored = self
            .root
            .images_of(from)
            .manifest(digest)
            .context(format!("cannot read {}", from.familiar()))?
            .ok_or_else(|| Failure::new(format!("there is no image {digest} here")))?;
        let target = Descriptor::new(stored.media_type, stored.digest, 0);
        let manifests = gather(self.root, &target)?.ok_or_else(|| {
            let name = from.familiar();
            Failure::new(format!("{name} is an index, and not all of its images are here"))
                .hint("fetch all of it with `boatyard pull --all-platforms`")
        })?;
        self.send_manifests(&manifests, to).await
    }

    /// Sends manifests and all that they need.
    pub async fn send_manifests(self, manifests: &Manifests, to: &ImageName) -> Result<Digest> {
        match self.try_send_manifests(manifests, to, &[]).await? {
            Sent::Whole(digest) => Ok(digest),
            Sent::Lacks(blob) => {
                let source = PushError::Missing { digest: blob.digest };
                Err(failure(format!("cannot push {}", to.familiar()), &to.registry, source))
            }
        }
    }

    /// Does so, but for a blob that is neither here nor there, nor in one of the other repositories
    /// that may have it.
    pub async fn try_send_manifests(
        self,
        manifests: &Manifests,
        to: &ImageName,
        others: &[RepositoryName],
    ) -> Result<Sent> {
        let store = self.root.store();
        let blobs = blobs(manifests);
        for blob in &blobs {
            let held = store.hold_blocking(blob, Some(self.lease));
            held.context(format!("cannot hold {blob}"))?;
        }
        let mut from = others.to_vec();
        from.extend(mount_from(self.root, to, &blobs)?);
        match push(self.client, to, manifests, &store, &from, self.progress).await {
            Ok(pushed) => Ok(Sent::Whole(pushed.digest)),
            Err(error) => {
                let needed = manifests.iter().flat_map(|(manifest, _)| manifest.value().blobs());
                let mut needed = needed.filter(|blob| match &error {
                    PushError::Missing { digest } => blob.digest == *digest,
                    _ => false,
                });
                match needed.next() {
                    Some(blob) => Ok(Sent::Lacks(Box::new(blob.clone()))),
                    None => {
                        let what = format!("cannot push {}", to.familiar());
                        Err(failure(what, &to.registry, error))
                    }
                }
            }
        }
    }
}

/// Returns a manifest and those that it lists; `None` where one of these is not here.
pub fn gather(root: &Root, target: &Descriptor) -> Result<Option<Manifests>> {
    let mut manifests = Vec::new();
    let whole = add(root, target, &mut manifests, 0).map_err(|error| {
        let failure = Failure::new(format!("cannot read the image {}", target.digest));
        failure.because(error).hint("look for more damage with `boatyard fsck`")
    })?;
    Ok(whole.then_some(manifests))
}

/// Adds a manifest after those that it lists; `false` where one of them is not here.
fn add(
    root: &Root,
    target: &Descriptor,
    manifests: &mut Manifests,
    depth: usize,
) -> std::result::Result<bool, ImageError> {
    if depth >= NESTED_MAX {
        return Err(ImageError::Nested { digest: target.digest.clone() });
    }
    let manifest = match read_manifest(&root.store(), target) {
        Err(ImageError::Missing { .. }) if depth > 0 => return Ok(false),
        manifest => manifest?,
    };
    for child in manifest.value().manifests() {
        if !add(root, child, manifests, depth + 1)? {
            return Ok(false);
        }
    }
    manifests.push((manifest, target.media_type.clone()));
    Ok(true)
}

fn blobs(manifests: &Manifests) -> BTreeSet<Digest> {
    let blobs = manifests.iter().flat_map(|(manifest, _)| manifest.value().blobs());
    let blobs = blobs.map(|blob| blob.digest.clone());
    blobs.chain(manifests.iter().map(|(manifest, _)| manifest.digest().clone())).collect()
}

/// Returns repositories of the same registry that may have some of the blobs there, because images
/// here are known under their names.
fn mount_from(
    root: &Root,
    name: &ImageName,
    blobs: &BTreeSet<Digest>,
) -> Result<Vec<RepositoryName>> {
    let mut from = BTreeSet::new();
    for listed in images::list(root)? {
        let other = listed.repository.name();
        if listed.registry != name.registry || *other == name.repository {
            continue;
        }
        let refs = listed.repository.refs(&listed.target.digest);
        let refs = refs.context(format!("cannot read the images of {other}"))?;
        if refs.iter().any(|blob| blobs.contains(blob)) {
            from.insert(other.clone());
        }
    }
    Ok(from.into_iter().collect())
}
