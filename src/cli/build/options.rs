//! The options of `boatyard build`: what was typed, and what it means.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use boatyard_builder::annotation::Level;
use boatyard_builder::attest::Attest;
use boatyard_builder::execute::{
    DEFAULT_SHM_SIZE, HostAddress, Isolation, Limits, Network, Resource, Rlimit,
};
use boatyard_builder::form::Form;
use boatyard_builder::layer::compress::Compression;
use boatyard_builder::plan::Allow;
use boatyard_builder::solve::Reuse;
use boatyard_oci::{ImageName, Platform, Reference};

use crate::cli::limits::{self, LimitArgs, bytes};
use crate::progress::ProgressMode;
use crate::report::{Failure, Result};
use crate::shared_cache::options::{CacheArgs, Caches};

use super::attest::AttestArgs;
use super::compatibility::Compatibility;
use super::output::{self, Kind, Output, Push};

/// Build an image from a Dockerfile.
///
/// The options are those of `docker build` and `docker buildx build`. Without --tag the image is
/// built and its digest printed, but it has no name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The build context: a directory, the URL of a Git repository or an archive, or - for an archive
    /// or a Dockerfile on stdin
    #[arg(value_name = "CONTEXT")]
    pub context: PathBuf,
    /// The Dockerfile [default: Dockerfile in the context]; `-` for stdin
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A name for the image, such as `app`, `app:1.0` or `registry.example:5000/team/app`
    #[arg(short, long = "tag", value_name = "NAME")]
    pub tags: Vec<String>,
    /// Set a build argument; without a value, the environment's is taken
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// Further files or an image under a name, for FROM, COPY --from and mounts: DIR, a Git or archive
    /// URL, docker-image://IMAGE, oci-layout://DIR[:TAG][@DIGEST]
    #[arg(long = "build-context", value_name = "NAME=CONTEXT")]
    pub build_contexts: Vec<String>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set a label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// The platform that the image is for [default: this machine's]; several make one index of an
    /// image each
    #[arg(long = "platform", value_name = "OS/ARCH[,OS/ARCH]")]
    pub platforms: Vec<String>,
    /// How RUN steps are isolated: auto (as well as can be), full, userns or chroot
    #[arg(long, value_name = "KIND", env = "BOATYARD_ISOLATION")]
    pub isolation: Option<Isolation>,
    /// What RUN steps reach: default (a network of their own, without this machine's services),
    /// host (everything), none (nothing)
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// A line for /etc/hosts of RUN steps; `host-gateway` as IP is this machine
    #[arg(long = "add-host", value_name = "NAME:IP")]
    pub add_hosts: Vec<String>,
    /// The size of /dev/shm in RUN steps, such as 128m
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// A limit of RUN steps, such as nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How long a RUN step may take, such as 90s or 1h30m
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// A secret for steps that mount it: a file, or a variable of the environment
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub secrets: Vec<String>,
    /// An SSH agent for steps that mount it: a socket [default: SSH_AUTH_SOCK's], or keys
    #[arg(long = "ssh", value_name = "ID[=SOCKET|KEY[,KEY]]")]
    pub ssh: Vec<String>,
    /// Allow steps what is not usual: network.host, security.insecure
    #[arg(long = "allow", value_name = "PERMISSION")]
    pub allow: Vec<String>,
    /// Look for newer base images
    #[arg(long)]
    pub pull: bool,
    /// Make no network request: what is not on this machine is an error. RUN steps reach what
    /// --network says
    #[arg(long, conflicts_with = "pull")]
    pub offline: bool,
    /// Run every step, whatever earlier builds made; later builds find the results
    #[arg(long)]
    pub no_cache: bool,
    /// Run every step of these stages, by name or number
    #[arg(long, value_name = "STAGE[,STAGE]", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    #[command(flatten)]
    pub caches: CacheArgs,
    /// Say on standard error, after the build, why each step ran that ran: text, or json, an
    /// object on each line
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub explain: Option<ExplainFormat>,
    /// Build nothing, and say what the linter finds: --call=check
    #[arg(long, conflicts_with = "call")]
    pub check: bool,
    /// Build nothing, and answer: check (what the linter finds), outline (what the target takes) or
    /// targets (the stages), with `,format=json` for programs
    #[arg(long, value_name = "METHOD[,format=FORMAT]", alias = "print")]
    pub call: Option<String>,
    /// Where a RUN step fails, open a shell in its files, with its user, directory, environment,
    /// mounts and network
    #[arg(long)]
    pub debug_on_error: bool,
    /// What that shell is to run, in place of reading a terminal; implies --debug-on-error
    #[arg(long, value_name = "COMMAND")]
    pub debug_shell: Option<String>,
    /// Push the image to the registry that its names say
    #[arg(long)]
    pub push: bool,
    /// Load the image into a running docker, or else podman
    #[arg(long)]
    pub load: bool,
    /// Where the result goes: DIR, or type=image|registry|oci|docker|local|tar|cacheonly with keys
    /// such as dest=PATH, where `-` is stdout; several at once are fine
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub outputs: Vec<String>,
    /// How layers are compressed: gzip, zstd or uncompressed
    #[arg(long, value_name = "KIND", default_value = "gzip")]
    pub compression: String,
    /// The level: 1 to 12 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<u8>,
    /// Annotate the image's manifest, or another level: LEVEL is manifest, index,
    /// manifest-descriptor or index-descriptor, with [OS/ARCH] behind it for one platform's
    #[arg(long = "annotation", value_name = "[LEVEL:]NAME=VALUE")]
    pub annotations: Vec<String>,
    /// Write what this level of Boatyard writes, byte for byte: there is level 1 so far
    #[arg(long, value_name = "LEVEL", default_value_t = Compatibility::NEWEST)]
    pub compatibility: Compatibility,
    #[command(flatten)]
    pub attest: AttestArgs,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_name = "KIND", default_value = "auto", env = "BOATYARD_PROGRESS")]
    pub progress: ProgressMode,
    /// Print the image ID and nothing else
    #[arg(short, long)]
    pub quiet: bool,
}

/// How it is told why steps ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExplainFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What the options mean.
#[derive(Debug)]
pub struct Options {
    /// The names.
    pub tags: Vec<ImageName>,
    /// The build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The platforms, each once.
    pub platforms: Vec<Platform>,
    /// There is an index, even of one image.
    pub index: bool,
    /// Layers, too, have the times of `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// The network of steps that do not say, if it was asked for.
    pub network: Option<Network>,
    /// Further hosts.
    pub hosts: Vec<(String, HostAddress)>,
    /// The size of `/dev/shm`.
    pub shm_size: u64,
    /// Limits of each process of a step.
    pub rlimits: Vec<Rlimit>,
    /// Limits of a step as a whole.
    pub limits: Limits,
    /// How long a step may take.
    pub timeout: Option<Duration>,
    /// Which earlier results may be used.
    pub reuse: Reuse,
    /// The caches of many machines.
    pub caches: Caches,
    /// What steps may do beyond what is usual.
    pub allow: Allow,
    /// Whether and how it is told why steps ran.
    pub explain: Option<ExplainFormat>,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// What is said of the image beside it.
    pub attest: Attest,
    /// Where the result goes.
    pub outputs: Vec<Output>,
}

impl Options {
    /// Reads the options.
    pub fn new(args: &Args) -> Result<Options> {
        let tags = args.tags.iter().map(|text| tag("--tag ", text)).collect::<Result<Vec<_>>>()?;
        let outputs = outputs(args)?;
        let attest = args.attest.read(&args.context, &tags, &outputs)?;
        let platforms = platforms(args)?;
        let build_args = build_args(args)?;
        let index = multi_platform(&build_args)?;
        check(&outputs, &tags, platforms.len(), index)?;
        let mut said: Vec<bool> = outputs.iter().filter_map(|it| it.rewrite_timestamp).collect();
        said.dedup();
        if said.len() > 1 {
            return Err(Failure::usage(
                "rewrite-timestamp is one for all outputs: they are of the same layers",
            ));
        }
        Ok(Options {
            tags,
            build_args,
            labels: labels(args)?,
            platforms,
            index,
            rewrite_timestamp: said != [false],
            network: network(args)?,
            hosts: args.add_hosts.iter().map(|text| host(text)).collect::<Result<_>>()?,
            shm_size: args.shm_size.as_deref().map_or(Ok(DEFAULT_SHM_SIZE), bytes)?,
            rlimits: args.ulimits.iter().map(|text| rlimit(text)).collect::<Result<_>>()?,
            limits: args.limits.read()?,
            timeout: args.timeout.as_deref().map(limits::duration).transpose()?,
            reuse: reuse(args),
            caches: Caches::new(&args.caches)?,
            allow: allow(args)?,
            explain: args.explain,
            progress: if args.quiet { ProgressMode::Quiet } else { args.progress },
            attest,
            outputs,
        })
    }
}

fn reuse(args: &Args) -> Reuse {
    match args.no_cache_filter.as_slice() {
        _ if args.no_cache => Reuse::Nothing,
        [] => Reuse::All,
        stages => Reuse::AllBut(stages.to_vec()),
    }
}

fn allow(args: &Args) -> Result<Allow> {
    let mut allow = Allow {
        // Who gives the host's network to all steps gives it to those that ask for it, too.
        host_network: args.network.as_deref() == Some("host"),
        ..Allow::default()
    };
    for text in &args.allow {
        match text.as_str() {
            "network.host" => allow.host_network = true,
            "security.insecure" => allow.insecure = true,
            other => {
                return Err(Failure::usage(format!(
                    "--allow {other} is not supported: use network.host or security.insecure"
                )));
            }
        }
    }
    Ok(allow)
}

fn build_args(args: &Args) -> Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for text in &args.build_args {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            #[expect(clippy::disallowed_methods, reason = "this is the command")]
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err(Failure::usage(format!("--build-arg {text} names no argument")));
        }
        given.extend(value.map(|value| (name.to_owned(), value)));
    }
    // Who sets it for all of a build's tools means this one, too; buildx takes it likewise.
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    #[expect(clippy::disallowed_methods, reason = "this is the command")]
    if let (false, Ok(seconds)) = (given.contains_key(EPOCH), std::env::var(EPOCH)) {
        given.insert(EPOCH.to_owned(), seconds);
    }
    Ok(given)
}

fn labels(args: &Args) -> Result<BTreeMap<String, String>> {
    args.labels
        .iter()
        .map(|text| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            if name.is_empty() {
                return Err(Failure::usage(format!("--label {text} names no label")));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn platforms(args: &Args) -> Result<Vec<Platform>> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in args.platforms.iter().flat_map(|text| text.split(',')).map(str::trim) {
        let platform = match text {
            "local" => Ok(Platform::host()),
            text => text.parse(),
        };
        let platform = platform.map_err(|error: boatyard_oci::platform::PlatformError| {
            Failure::usage("cannot use --platform").because(error)
        })?;
        if platform.os != "linux" {
            return Err(Failure::usage(format!("cannot build for {platform}: only for linux")));
        }
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Ok(platforms)
}

/// Says whether an index is wanted of one image, too, in the way in which BuildKit is told.
fn multi_platform(build_args: &BTreeMap<String, String>) -> Result<bool> {
    match build_args.get("BUILDKIT_MULTI_PLATFORM").map(String::as_str) {
        None | Some("" | "0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => {
            Err(Failure::usage(format!("BUILDKIT_MULTI_PLATFORM is 1 or 0, not `{other}`")))
        }
    }
}

fn network(args: &Args) -> Result<Option<Network>> {
    match args.network.as_deref() {
        None => Ok(None),
        Some("default") => Ok(Some(Network::Default)),
        Some("host") => Ok(Some(Network::Host)),
        Some("none") => Ok(Some(Network::None)),
        Some(other) => Err(Failure::usage(format!(
            "--network {other} is not supported: use default, host or none"
        ))),
    }
}

/// Reads `NAME:IP`, or `NAME:host-gateway`.
pub fn host(text: &str) -> Result<(String, HostAddress)> {
    let wrong = || {
        Failure::usage(format!("cannot use --add-host {text}: write NAME:IP, such as db:10.0.0.5"))
    };
    let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
    if address == "host-gateway" {
        return Ok((name.to_owned(), HostAddress::Gateway));
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((name.to_owned(), HostAddress::Is(address.parse().map_err(|_| wrong())?)))
}

/// Reads `NAME=SOFT[:HARD]`.
pub fn rlimit(text: &str) -> Result<Rlimit> {
    let wrong = || {
        Failure::usage(format!(
            "cannot use --ulimit {text}: write NAME=SOFT[:HARD], such as nofile=1024:4096"
        ))
    };
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse().map_err(|_| wrong()),
    };
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let resource: Resource =
        serde_json::from_value(serde_json::Value::from(name)).map_err(|_| wrong())?;
    Ok(Rlimit { resource, soft: number(soft)?, hard: number(hard)? })
}

/// Reads the outputs, and what they have in common.
fn outputs(args: &Args) -> Result<Vec<Output>> {
    let form = Form {
        compression: compression(args)?,
        annotations: output::annotations(&args.annotations)?,
        ..Form::default()
    };
    let mut outputs = Vec::new();
    if args.push {
        let kind = Kind::Image { push: Some(Push::ByTag), store: true };
        outputs.push(Output::new(kind, &form));
    }
    if args.load {
        outputs.push(Output::new(Kind::Load, &form));
    }
    for text in &args.outputs {
        outputs.push(Output::read(text, &form)?);
    }
    if outputs.is_empty() {
        outputs.push(Output::new(Kind::Image { push: None, store: true }, &form));
    }
    Ok(outputs)
}

fn compression(args: &Args) -> Result<Compression> {
    let level = args.compression_level.map(|level| level.to_string());
    output::compression(Some(&args.compression), level.as_deref(), Compression::default())
        .map_err(|problem| Failure::usage(format!("cannot use --compression: {problem}")))
}

/// Checks what the outputs ask of one another, of the names and of the platforms.
fn check(outputs: &[Output], tags: &[ImageName], platforms: usize, index: bool) -> Result<()> {
    if outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
        return Err(Failure::usage("only one output can go to standard output"));
    }
    for output in outputs {
        let is_pushed = matches!(output.kind, Kind::Image { push: Some(_), .. });
        if is_pushed && tags.is_empty() && output.names.is_empty() {
            return Err(Failure::usage("--push needs to know where to: name the image with --tag"));
        }
        let is_docker = matches!(output.kind, Kind::Load | Kind::Docker(_));
        if is_docker && platforms > 1 {
            return Err(Failure::usage("what docker loads holds one platform, not several")
                .hint("use type=oci, or a build for each platform"));
        }
        let annotations = &output.form.annotations;
        let has_index = [Level::Index, Level::IndexDescriptor]
            .into_iter()
            .any(|level| annotations.any_at(level));
        if output.is_image() && has_index && platforms < 2 && !index {
            return Err(Failure::usage("an image for one platform has no index to annotate").hint(
                "leave `index:` out, or make an index of it with --build-arg BUILDKIT_MULTI_PLATFORM=1",
            ));
        }
    }
    Ok(())
}

/// Reads a name that an image gets; `what` is how it was given.
pub fn tag(what: &str, text: &str) -> Result<ImageName> {
    let name: ImageName = text.parse().map_err(|error: boatyard_oci::name::NameError| {
        Failure::usage(format!("cannot use {what}{text}")).because(error)
    })?;
    if matches!(name.reference, Reference::Digest(_)) {
        return Err(Failure::usage(format!(
            "cannot use {what}{text}: a digest is what comes out, not what goes in"
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_hosts_and_limits() {
        assert_eq!(bytes("64m").unwrap(), 64 << 20);
        assert_eq!(bytes("1gb").unwrap(), 1 << 30);
        assert!(bytes("x").is_err());
        assert_eq!(host("db:10.0.0.5").unwrap().0, "db");
        assert_eq!(host("me=host-gateway").unwrap(), ("me".to_owned(), HostAddress::Gateway));
        assert!(host("db").is_err());
        assert_eq!(rlimit("nofile=1:2").unwrap().hard, 2);
        assert!(rlimit("none=1").is_err());
    }
}
