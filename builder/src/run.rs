//! One command in an image, in the foreground: the same executor and snapshots as a build's steps,
//! but nothing is kept of what it writes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use boatyard_content::Root;
use rustix::fs::{Mode, OFlags, open};

use crate::execute::rootfs::{self, RootfsError};
use crate::execute::user::{self, UserError};
use crate::execute::{
    CancelHandle, Console, Execute, ExecuteError, HostAddress, Limits, MountKind, Network, Outcome,
    Output, Rlimit, Source, Spec, StepMount, stubs,
};
use crate::export::{self, ExportError};
use crate::image::Image;
use crate::snapshot::{Layers, LayersError, MountError};

/// How a container is run, where the image's configuration does not say it or is overruled.
#[derive(Debug, Default)]
pub struct RunRequest {
    /// Instead of the image's entrypoint; then its command is not taken either.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    pub command: Vec<String>,
    /// Further variables; they win.
    pub env: Vec<(String, String)>,
    /// Instead of the image's working directory.
    pub cwd: Option<String>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// The host name, if it is to be another than the default.
    pub hostname: Option<String>,
    /// What it reaches; the network of its own by default.
    pub network: Option<Network>,
    /// Further lines of `/etc/hosts`.
    pub hosts: Vec<(String, HostAddress)>,
    /// Files and directories of the host.
    pub volumes: Vec<Volume>,
    /// Empty file systems in memory: where, and how large.
    pub tmpfs: Vec<(String, Option<u64>)>,
    /// Limits of each process.
    pub rlimits: Vec<Rlimit>,
    /// Limits of the container as a whole.
    pub limits: Limits,
    /// The size of `/dev/shm`, if it is to be another than the default.
    pub shm_size: Option<u64>,
    /// Whether the image's files cannot be written to.
    pub read_only: bool,
    /// The standard streams.
    pub console: Console,
}

/// A file or directory of the host that the container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is on the host.
    pub source: std::path::PathBuf,
    /// Where it appears, absolute.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// What a container is run with.
pub struct Runner<'a> {
    /// Where images are kept.
    pub root: Arc<Root>,
    /// Where their layers are unpacked.
    pub layers: Layers,
    /// Runs commands.
    pub executor: &'a dyn Execute,
    /// Ends the container.
    pub cancel: &'a CancelHandle,
    /// How many threads unpack layers.
    pub threads: usize,
}

/// Why a container could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither the image nor the caller names a command.
    #[error("the image has no command: name one")]
    NoCommand,
    /// A name is to be the host, which the network does not reach.
    #[error("`{name}` is to be the host, which this network does not reach: --network=host does")]
    Gateway {
        /// The name.
        name: String,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack the image")]
    Unpack(#[source] ExportError),
    /// The files of the container cannot be made.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The files of the container cannot be mounted.
    #[error("cannot mount the image")]
    Mount(#[source] MountError),
    /// The mount points cannot be made.
    #[error("cannot prepare the mount points")]
    Stubs(#[source] io::Error),
    /// The image's files cannot be read.
    #[error("cannot tell who the user is")]
    Accounts(#[source] RootfsError),
    /// The user is not in the image.
    #[error("cannot run as this user")]
    User(#[source] UserError),
    /// A volume is not there.
    #[error("cannot use the volume {}", path.display())]
    Volume {
        /// Its path on the host.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The command could not be run.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Runs an image's command to its end; what it wrote to the image's files is gone then.
///
/// # Errors
/// Where it could not be started. A command that starts and fails is no error.
pub fn run(
    image: &Image,
    request: &RunRequest,
    runner: &Runner<'_>,
    output: &mut dyn Output,
) -> Result<Outcome, RunError> {
    let mut spec = spec(image, request)?;
    let store = runner.root.store();
    let stack = export::unpack(&runner.layers, &store, image, runner.threads, &|_| {})
        .map_err(RunError::Unpack)?;
    let mount_points = runner.layers.stubs();
    fs_err::create_dir_all(&mount_points)
        .and_then(|()| stubs::create(&mount_points, &stubs::STANDARD))
        .map_err(RunError::Stubs)?;
    let active = runner.layers.prepare(&stack)?;
    let mount = active.mount(Some(&mount_points)).map_err(RunError::Mount)?;
    let named = request.user.as_ref().unwrap_or(&image.config.value().config.user);
    spec.user = find_user(named, &mount)?;
    let outcome = runner.executor.run(mount, &spec, output, runner.cancel)?;
    active.discard()?;
    Ok(outcome)
}

fn find_user(named: &str, root: &OwnedFd) -> Result<crate::execute::User, RunError> {
    let read = |path: &str| {
        rootfs::read_file(root, path, user::FILE_BYTES_MAX).map_err(RunError::Accounts)
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    user::resolve(named, passwd.as_deref(), group.as_deref()).map_err(RunError::User)
}

fn spec(image: &Image, request: &RunRequest) -> Result<Spec, RunError> {
    let config = &image.config.value().config;
    let args = command(
        (config.entrypoint.as_deref(), config.cmd.as_deref()),
        request.entrypoint.as_deref(),
        &request.command,
    );
    if args.is_empty() {
        return Err(RunError::NoCommand);
    }
    let mut spec = Spec::new(args);
    if let Some(hostname) = &request.hostname {
        spec.hostname.clone_from(hostname);
    }
    let own = config.env.iter().filter_map(|pair| pair.split_once('='));
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let given = [("HOSTNAME".to_owned(), spec.hostname.clone())];
    let terminal = matches!(request.console, Console::Terminal)
        .then(|| ("TERM".to_owned(), "xterm".to_owned()));
    spec.env =
        given.into_iter().chain(terminal).chain(own).chain(request.env.iter().cloned()).collect();
    let cwd = request.cwd.as_ref().unwrap_or(&config.working_dir);
    spec.cwd = if cwd.is_empty() { "/".to_owned() } else { cwd.clone() };
    spec.network = request.network.unwrap_or(Network::Default);
    for (name, address) in &request.hosts {
        let unreachable = || RunError::Gateway { name: name.clone() };
        let address = address.within(spec.network).ok_or_else(unreachable)?;
        spec.hosts.push((name.clone(), address));
    }
    spec.limits.clone_from(&request.limits);
    spec.rlimits.clone_from(&request.rlimits);
    spec.shm_size = request.shm_size.unwrap_or(spec.shm_size);
    spec.read_only = request.read_only;
    spec.console = request.console.clone();
    for (target, size) in &request.tmpfs {
        let kind = MountKind::Tmpfs { size: *size, mode: 0o1777, read_only: false };
        spec.mounts.push(StepMount { target: target.clone(), kind });
    }
    for volume in &request.volumes {
        spec.mounts.push(bind(volume)?);
    }
    // A directory before what lies in it.
    spec.mounts.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(spec)
}

fn bind(volume: &Volume) -> Result<StepMount, RunError> {
    let failed = |source: io::Error| RunError::Volume { path: volume.source.clone(), source };
    let source = open(&volume.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    let directory = fs_err::metadata(&volume.source).map_err(failed)?.is_dir();
    let kind =
        MountKind::Bind { source: Source::new(source), directory, read_only: volume.read_only };
    Ok(StepMount { target: volume.target.clone(), kind })
}

/// Returns what is executed: of an image's `(entrypoint, command)` what is not overruled.
///
/// "--entrypoint [...] will clear out any default command on the image" (docker run)
fn command(
    own: (Option<&[String]>, Option<&[String]>),
    entrypoint: Option<&[String]>,
    command: &[String],
) -> Vec<String> {
    let (own_entrypoint, own_command) = (own.0.unwrap_or_default(), own.1.unwrap_or_default());
    let overruled = entrypoint.is_some() || !command.is_empty();
    let command = if overruled { command } else { own_command };
    [entrypoint.unwrap_or(own_entrypoint), command].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_given_overrules_what_the_image_says() {
        let (entrypoint, cmd) = (words("entry -e"), words("own command"));
        let own = (Some(&entrypoint[..]), Some(&cmd[..]));
        for (given, args, expected) in [
            (None, "", "entry -e own command"),
            (None, "given", "entry -e given"),
            (Some("/bin/sh"), "", "/bin/sh"),
            (Some("/bin/sh"), "-c true", "/bin/sh -c true"),
            (Some(""), "given", "given"),
        ] {
            let given = given.map(words);
            assert_eq!(command(own, given.as_deref(), &words(args)), words(expected), "{args}");
        }
        assert!(command((None, None), None, &[]).is_empty());
    }
}
