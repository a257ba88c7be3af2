//! `boatyard run`

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use boatyard_builder::execute::{
    CancelHandle, Console, ExecuteError, Isolation, Network, NetworkOptions, Networks, Outcome,
    Output, Source,
};
use boatyard_builder::image::Image;
use boatyard_builder::run::{RunError, RunRequest, Runner, Volume, run as run_container};
use boatyard_content::{Lease, Root};
use boatyard_oci::Platform;
use boatyard_upstream::Platforms;
use clap::ValueEnum;

use super::build::{host, rlimit};
use super::limits::{LimitArgs, bytes};
use crate::cli::runtime;
use crate::remote::{self, Mover};
use crate::report::{self, Context as _, Failure, Result};
use crate::transfers::{self, Direction};
use crate::world::World;
use crate::{images, isolation, terminal};

mod signals;

/// Boatyard itself failed, not the command.
const FAILED: u8 = 125;
/// The command is there, but cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The command is not in the image.
const NOT_FOUND: u8 = 127;
/// What is added to the number of the signal that ended the command.
const SIGNALED: i32 = 128;

/// Run a command in an image, in the foreground.
///
/// The command is isolated as a step of a build is, and what it writes to the image's files is
/// gone when it ends. The exit code is the command's; 125 where Boatyard failed, 126 where the
/// command cannot be executed, 127 where the image does not have it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, by name or by the beginning of its ID, which is pulled if it is not here; and the
    /// command with its arguments, if it is not to be the image's
    // One list: whatever stands behind the image is the command's, also what looks like an option.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    words: Vec<String>,
    /// Does nothing: a container never stays
    #[arg(long)]
    rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without a value, this environment's is taken
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables that stand in a file, one per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Show the command a file or directory of this machine
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    volumes: Vec<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "TARGET[:size=BYTES]")]
    tmpfs: Vec<String>,
    /// Run in another directory than the image says
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as another user than the image says
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run another program than the image says; the command is what it gets
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// What the command reaches: default (a network of its own, without this machine's services),
    /// host (everything), none (nothing)
    #[arg(long, value_name = "MODE")]
    network: Option<NetworkMode>,
    /// A line for /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:IP")]
    add_hosts: Vec<String>,
    /// The host name
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    hostname: Option<String>,
    /// Keep the image's files from being written to
    #[arg(long)]
    read_only: bool,
    /// The size of /dev/shm, such as 128m
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// A limit, such as nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
    #[command(flatten)]
    limits: LimitArgs,
    /// When to fetch the image: missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: PullWhen,
    /// Which image of one for several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// How the command is isolated: auto (as well as can be), full, userns or chroot
    #[arg(long, value_name = "KIND", env = "BOATYARD_ISOLATION")]
    isolation: Option<Isolation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NetworkMode {
    Default,
    Host,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PullWhen {
    Missing,
    Always,
    Never,
}

impl Args {
    fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// Runs the command, and ends as it does.
pub fn run(world: &World, args: &Args) -> Result<ExitCode> {
    attempt(world, args).map_err(|failure| match failure.exit_code() {
        1 => failure.code(FAILED),
        _ => failure,
    })
}

fn attempt(world: &World, args: &Args) -> Result<ExitCode> {
    let request = request(args)?;
    let isolation = args.isolation.unwrap_or(world.config.build.isolation);
    let world = &world.with_rung(isolation::isolate(isolation)?);
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let image = image(world, args, &root, &lease)?;

    let networks = Networks::new(NetworkOptions {
        search: world.environment.path.clone(),
        ..NetworkOptions::default()
    });
    let network = network(world, args, &networks)?;
    let cancel = CancelHandle::new().context("cannot prepare to be cancelled")?;
    let executor = isolation::executor(world.rung(), &networks);
    let runner = Runner {
        root: Arc::clone(&root),
        layers: world.open_layers(&root, &lease)?,
        executor: &*executor,
        cancel: &cancel,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    let console = console(args)?;
    let request = RunRequest { network: Some(network), console, ..request };
    let runtime = runtime()?;
    let mut attendant = Attendant::new(&runtime, &cancel, args.interactive)?;
    let outcome = run_container(&image, &request, &runner, &mut attendant);
    // What the command wrote last is still on its way, and the terminal is as it was only then.
    drop(attendant);
    let outcome = outcome.map_err(failure)?;
    match outcome {
        Outcome::Exited(code) => Ok(exit_code(code)),
        Outcome::Signaled(signal) => Ok(exit_code(SIGNALED + signal)),
        Outcome::OutOfMemory { .. } => {
            report::warn(&format!("the command was ended: {outcome}"));
            Ok(exit_code(SIGNALED + 9))
        }
        Outcome::TimedOut | Outcome::Cancelled => Ok(exit_code(SIGNALED + 9)),
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(FAILED))
}

fn failure(error: RunError) -> Failure {
    let code = match &error {
        RunError::Execute(
            ExecuteError::NotInPath { .. }
            | ExecuteError::NoProgram { .. }
            | ExecuteError::NoInterpreter { .. },
        ) => NOT_FOUND,
        RunError::Execute(ExecuteError::Execute { .. } | ExecuteError::NotAProgram { .. }) => {
            NOT_EXECUTABLE
        }
        _ => FAILED,
    };
    let failure = Failure::new("cannot run this command").code(code);
    match report::advice(&error) {
        Some(advice) => failure.because(error).hint(advice),
        None => failure.because(error),
    }
}

/// Finds the image, and fetches it where that is asked for.
fn image(world: &World, args: &Args, root: &Arc<Root>, lease: &Lease) -> Result<Image> {
    let found = match args.pull {
        PullWhen::Always => None,
        PullWhen::Never => Some(images::find(root, args.image())?),
        PullWhen::Missing => images::find(root, args.image()).ok(),
    };
    let found = match found {
        Some(found) => found,
        None => {
            fetch(world, args, root, lease)?;
            images::find(root, args.image())?
        }
    };
    if let Some(place) = found.places.first() {
        images::hold(root, lease, place)?;
    }
    images::open(root, found.target(), args.platform.as_ref())
}

fn fetch(world: &World, args: &Args, root: &Arc<Root>, lease: &Lease) -> Result<()> {
    let name = args.image().parse().map_err(|error| {
        Failure::usage(format!("`{}` is no image name", args.image())).because(error)
    })?;
    let client = remote::client(world)?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let progress = transfers::open(Direction::Pull, false);
    let mover = Mover { client: &client, root, lease, progress: progress.as_progress() };
    runtime()?.block_on(mover.fetch(&name, Platforms::One(&platform)))?;
    progress.finish();
    Ok(())
}

/// Decides what the command reaches, as for the steps of a build.
fn network(world: &World, args: &Args, networks: &Networks) -> Result<Network> {
    match args.network {
        Some(NetworkMode::Host) => Ok(Network::Host),
        Some(NetworkMode::None) => Ok(Network::None),
        Some(NetworkMode::Default) => Ok(Network::Default),
        None if !isolation::has_networks(world.rung()) => Ok(Network::Host),
        None => match networks.check() {
            Ok(()) => Ok(Network::Default),
            Err(error) => {
                report::warn(&format!(
                    "the command shares this machine's network, because it cannot have one of its \
                     own: {}",
                    error.told()
                ));
                Ok(Network::Host)
            }
        },
    }
}

fn request(args: &Args) -> Result<RunRequest> {
    let mut env = Vec::new();
    for path in &args.env_file {
        let text = fs_err::read_to_string(path).context("cannot read the variables")?;
        let lines = text.lines().map(str::trim_start);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        env.extend(lines.filter_map(variable));
    }
    env.extend(args.env.iter().filter_map(|text| variable(text)));
    Ok(RunRequest {
        // An empty one takes the image's away.
        entrypoint: args.entrypoint.as_ref().map(|program| {
            Some(program.clone()).into_iter().filter(|program| !program.is_empty()).collect()
        }),
        command: args.command().to_vec(),
        env,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        hosts: args.add_hosts.iter().map(|text| host(text)).collect::<Result<_>>()?,
        volumes: args.volumes.iter().map(|text| volume(text)).collect::<Result<_>>()?,
        tmpfs: args.tmpfs.iter().map(|text| tmpfs(text)).collect::<Result<_>>()?,
        rlimits: args.ulimits.iter().map(|text| rlimit(text)).collect::<Result<_>>()?,
        limits: args.limits.read()?,
        shm_size: args.shm_size.as_deref().map(bytes).transpose()?,
        read_only: args.read_only,
        ..RunRequest::default()
    })
}

/// Reads `NAME=VALUE`, or takes this environment's value of `NAME`, if it has one.
fn variable(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => {
            let value = std::env::var_os(text)?.into_string().ok()?;
            Some((text.to_owned(), value))
        }
    }
}

fn volume(text: &str) -> Result<Volume> {
    let wrong = || {
        Failure::usage(format!(
            "cannot use --volume {text}: write SOURCE:TARGET[:ro], with a path as the source, such \
             as ./data:/data"
        ))
    };
    let (source, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (target, option) = rest.split_once(':').unwrap_or((rest, "rw"));
    let is_path = source.starts_with(['/', '.', '~']);
    if !is_path || !target.starts_with('/') || !matches!(option, "ro" | "rw") {
        return Err(wrong());
    }
    Ok(Volume { source: source.into(), target: target.to_owned(), read_only: option == "ro" })
}

fn tmpfs(text: &str) -> Result<(String, Option<u64>)> {
    let wrong = || {
        Failure::usage(format!(
            "cannot use --tmpfs {text}: write TARGET[:size=BYTES], such as /cache:size=64m"
        ))
    };
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(wrong());
    }
    match options.strip_prefix("size=") {
        Some(size) => Ok((target.to_owned(), Some(bytes(size)?))),
        None if options.is_empty() => Ok((target.to_owned(), None)),
        None => Err(wrong()),
    }
}

/// Returns what the command reads: nothing, a pipe that is fed, or a terminal.
fn console(args: &Args) -> Result<Console> {
    if args.tty {
        return Ok(Console::Terminal);
    }
    let failed = "cannot prepare the command's standard input";
    if !args.interactive {
        let nothing = fs_err::File::open("/dev/null").context(failed)?;
        return Ok(Console::Input(Source::new(nothing.into_parts().0.into())));
    }
    // Not the descriptor itself: through /proc a command could open its file for writing.
    let (theirs, ours) = std::io::pipe().context(failed)?;
    std::thread::spawn(move || terminal::feed(&mut std::fs::File::from(OwnedFd::from(ours))));
    Ok(Console::Input(Source::new(theirs.into())))
}

/// Passes on what the command writes, and what it is sent.
pub(in crate::cli) struct Attendant<'a> {
    signals: signals::Forward,
    interactive: bool,
    cancel: &'a CancelHandle,
    screen: Option<terminal::Screen>,
}

impl<'a> Attendant<'a> {
    /// Returns who attends a command that `cancel` ends.
    pub(in crate::cli) fn new(
        runtime: &tokio::runtime::Runtime,
        cancel: &'a CancelHandle,
        interactive: bool,
    ) -> Result<Attendant<'a>> {
        let signals = signals::forward(runtime, cancel)?;
        Ok(Attendant { signals, interactive, cancel, screen: None })
    }

    /// Ends the command if nobody reads any more.
    fn passed(&self, written: &std::io::Result<()>) {
        if written.is_err() {
            self.cancel.cancel();
        }
    }
}

impl Output for Attendant<'_> {
    fn stdout(&mut self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        self.passed(&stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.passed(&std::io::stderr().write_all(bytes));
    }

    fn warning(&mut self, text: &str) {
        report::warn(text);
    }

    fn started(&mut self, first_process: OwnedFd) {
        self.signals.begin(first_process);
    }

    fn terminal(&mut self, far: OwnedFd) {
        match terminal::Screen::attach(far, self.interactive) {
            Ok(screen) => {
                self.signals.resize(screen.far());
                self.screen = Some(screen);
            }
            Err(_) => self.cancel.cancel(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_paths() {
        let read = |text: &str| {
            volume(text).map(|v| (v.source.display().to_string(), v.target, v.read_only)).ok()
        };
        let volume = |s: &str, t: &str, ro| Some((s.to_owned(), t.to_owned(), ro));
        assert_eq!(read("./a:/b"), volume("./a", "/b", false));
        assert_eq!(read("/a:/b:ro"), volume("/a", "/b", true));
        for wrong in ["name:/b", "/a", "/a:b", "/a:/b:rx", ":/b"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tmpfs_has_a_place_and_perhaps_a_size() {
        assert_eq!(tmpfs("/a").unwrap(), ("/a".to_owned(), None));
        assert_eq!(tmpfs("/a:size=1m").unwrap(), ("/a".to_owned(), Some(1 << 20)));
        assert!(tmpfs("a").is_err() && tmpfs("/a:exec").is_err());
    }
}
