//! The options of `boatyard build`: what was typed, and what it means.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use boatyard_builder::execute::{
    DEFAULT_SHM_SIZE, HostAddress, Isolation, Limits, Network, Resource, Rlimit,
};
use boatyard_builder::layer::compress::Compression;
use boatyard_builder::plan::Allow;
use boatyard_builder::solve::Reuse;
use boatyard_oci::{ImageName, Platform, Reference};

use crate::cli::limits::{self, LimitArgs, bytes};
use crate::progress::ProgressMode;
use crate::report::{Failure, Result};

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
    /// The platform that the image is for: this machine's
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
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
    #[arg(long = "allow", value_name = "LEAVE")]
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
    /// Push the image to the registry that its names say
    #[arg(long)]
    pub push: bool,
    /// Load the image into a running docker, or else podman
    #[arg(long)]
    pub load: bool,
    /// Where the result goes: DIR, or type=local|tar|oci|docker|image,dest=PATH; `-` is stdout
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub outputs: Vec<String>,
    /// How layers are compressed: gzip, zstd or uncompressed
    #[arg(long, value_name = "KIND", default_value = "gzip")]
    pub compression: String,
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
    /// The platform.
    pub platform: Platform,
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
    /// How layers are compressed.
    pub compression: Compression,
    /// Which earlier results may be used.
    pub reuse: Reuse,
    /// What steps may do beyond what is usual.
    pub allow: Allow,
    /// Whether and how it is told why steps ran.
    pub explain: Option<ExplainFormat>,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// Where the result goes.
    pub outputs: Vec<Output>,
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the registry.
    Push,
    /// Into docker or podman.
    Load,
    /// Nowhere but this machine's images.
    Image,
    /// The root file system, into a directory.
    Local(PathBuf),
    /// The root file system, as a tar.
    Tar(Destination),
    /// An OCI archive.
    Oci(Destination),
    /// A `docker load` archive.
    Docker(Destination),
}

/// A file or standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl Options {
    /// Reads the options.
    pub fn new(args: &Args) -> Result<Options> {
        let mut tags = Vec::new();
        for text in &args.tags {
            let name: ImageName =
                text.parse().map_err(|error: boatyard_oci::name::NameError| {
                    Failure::usage(format!("cannot use --tag {text}")).because(error)
                })?;
            if matches!(name.reference, Reference::Digest(_)) {
                return Err(Failure::usage(format!(
                    "cannot use --tag {text}: a digest is what comes out, not what goes in"
                )));
            }
            tags.push(name);
        }
        let outputs = outputs(args)?;
        if outputs.contains(&Output::Push) && tags.is_empty() {
            return Err(Failure::usage("--push needs to know where to: name the image with --tag"));
        }
        let platform = platform(args)?;
        Ok(Options {
            tags,
            build_args: build_args(args)?,
            labels: labels(args)?,
            platform,
            network: network(args)?,
            hosts: args.add_hosts.iter().map(|text| host(text)).collect::<Result<_>>()?,
            shm_size: args.shm_size.as_deref().map_or(Ok(DEFAULT_SHM_SIZE), bytes)?,
            rlimits: args.ulimits.iter().map(|text| rlimit(text)).collect::<Result<_>>()?,
            limits: args.limits.read()?,
            timeout: args.timeout.as_deref().map(limits::duration).transpose()?,
            compression: compression(&args.compression)?,
            reuse: reuse(args),
            allow: allow(args)?,
            explain: args.explain,
            progress: if args.quiet { ProgressMode::Quiet } else { args.progress },
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

fn platform(args: &Args) -> Result<Platform> {
    let host = Platform::host();
    let Some(text) = &args.platform else { return Ok(host) };
    if text.contains(',') {
        return Err(Failure::usage("several platforms at once are not supported yet"));
    }
    let platform: Platform =
        text.parse().map_err(|error: boatyard_oci::platform::PlatformError| {
            Failure::usage("cannot use --platform").because(error)
        })?;
    if !host.runs(&platform) {
        return Err(Failure::usage(format!(
            "building for {platform} on {host} is not supported yet"
        )));
    }
    Ok(platform)
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

fn compression(text: &str) -> Result<Compression> {
    match text {
        "gzip" => Ok(Compression::GZIP),
        "zstd" => Ok(Compression::ZSTD),
        "uncompressed" | "none" => Ok(Compression::None),
        other => Err(Failure::usage(format!(
            "--compression {other} is not supported: use gzip, zstd or uncompressed"
        ))),
    }
}

fn outputs(args: &Args) -> Result<Vec<Output>> {
    let mut outputs = Vec::new();
    if args.push {
        outputs.push(Output::Push);
    }
    if args.load {
        outputs.push(Output::Load);
    }
    for text in &args.outputs {
        outputs.push(output(text)?);
    }
    Ok(outputs)
}

/// Reads `DIR`, `-`, or `type=...,dest=...`.
fn output(text: &str) -> Result<Output> {
    if !text.contains('=') {
        return Ok(match text {
            "-" => Output::Tar(Destination::Stdout),
            directory => Output::Local(PathBuf::from(directory)),
        });
    }
    let (mut kind, mut destination, mut push) = (None, None, false);
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
        match key {
            "type" => kind = Some(value),
            "dest" => destination = Some(value),
            "push" => push = value == "true",
            "name" => {
                return Err(Failure::usage("--output name=... is not supported yet: use --tag"));
            }
            other => {
                return Err(Failure::usage(format!(
                    "--output {text}: `{other}` is not supported yet"
                )));
            }
        }
    }
    let file = || match destination {
        None | Some("-") => Destination::Stdout,
        Some(path) => Destination::File(PathBuf::from(path)),
    };
    match kind {
        Some("local") => match destination {
            Some(path) => Ok(Output::Local(PathBuf::from(path))),
            None => Err(Failure::usage("--output type=local needs dest=DIR")),
        },
        Some("tar") => Ok(Output::Tar(file())),
        Some("oci") => Ok(Output::Oci(file())),
        Some("docker") if destination.is_none() => Ok(Output::Load),
        Some("docker") => Ok(Output::Docker(file())),
        Some("registry") => Ok(Output::Push),
        Some("image") if push => Ok(Output::Push),
        Some("image") => Ok(Output::Image),
        Some(other) => Err(Failure::usage(format!(
            "--output type={other} is not supported: use local, tar, oci, docker, image or registry"
        ))),
        None => Err(Failure::usage(format!("--output {text} says no type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_in_every_form() {
        let table = [
            ("out", Output::Local("out".into())),
            ("-", Output::Tar(Destination::Stdout)),
            ("type=local,dest=d", Output::Local("d".into())),
            ("type=tar,dest=t.tar", Output::Tar(Destination::File("t.tar".into()))),
            ("type=oci,dest=-", Output::Oci(Destination::Stdout)),
            ("type=docker", Output::Load),
            ("type=docker,dest=x.tar", Output::Docker(Destination::File("x.tar".into()))),
            ("type=image,push=true", Output::Push),
            ("type=registry", Output::Push),
        ];
        for (text, expected) in table {
            assert_eq!(output(text).unwrap(), expected, "{text}");
        }
        for bad in ["type=local", "type=x", "dest=x", "type=oci,weird=1"] {
            assert!(output(bad).is_err(), "{bad}");
        }
    }

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
