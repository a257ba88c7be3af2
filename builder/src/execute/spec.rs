//! What a step is to run, and within what: plain data, made by the plan and the snapshotter.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

/// The host name of a step that asks for none.
pub const DEFAULT_HOSTNAME: &str = "boatyard";
/// The size of `/dev/shm` of a step that asks for none, in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// One step: a command, who runs it, and what it sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The program and its arguments. A program without a slash is looked for in `PATH`.
    pub args: Vec<String>,
    /// The environment; of a name given twice the last counts. `HOME` and `PATH` are added
    /// if they are absent.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute; it is made, and given to `user`, if it is missing.
    pub cwd: String,
    /// Who runs the command.
    pub user: User,
    /// The host name, which `/etc/hosts` names too.
    pub hostname: String,
    /// What the step can reach.
    pub network: Network,
    /// Further lines of `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// What all its processes together may use.
    pub limits: Limits,
    /// Resource limits of each process. Without one on open files, that is 1024, to be raised up to 1048576:
    /// an inherited limit of a thousand million makes old programs that close every
    /// descriptor crawl.
    pub rlimits: Vec<Rlimit>,
    /// The size of `/dev/shm`, in bytes.
    pub shm_size: u64,
    /// The file mode creation mask.
    pub umask: u32,
    /// How much the step may do.
    pub security: Security,
    /// Whether it cannot write to the root, but only to what is mounted.
    pub read_only: bool,
    /// Variables that nobody may see written down; they win over those of `env`.
    pub secret_env: Vec<(String, Hidden)>,
    /// What `RUN --mount` asks for, in the order of mounting: a directory before what lies in it.
    pub mounts: Vec<StepMount>,
    /// What has to stay open until the last process of the step is gone, whatever becomes of the
    /// builder: the locks of its caches.
    #[serde(skip)]
    pub held: Vec<Source>,
    /// How long the step may run.
    pub timeout: Option<Duration>,
    /// What the command reads and writes.
    pub console: Console,
}

impl Spec {
    /// Returns the step that runs `args` as root in `/`, with nothing granted beyond the default.
    #[must_use]
    pub fn new<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Spec {
        Spec {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: User::root(),
            hostname: DEFAULT_HOSTNAME.to_owned(),
            network: Network::None,
            hosts: Vec::new(),
            limits: Limits::default(),
            rlimits: Vec::new(),
            shm_size: DEFAULT_SHM_SIZE,
            umask: 0o022,
            security: Security::Sandboxed,
            read_only: false,
            secret_env: Vec::new(),
            mounts: Vec::new(),
            held: Vec::new(),
            timeout: None,
            console: Console::Outputs,
        }
    }
}

/// What the standard streams of a command are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Console {
    /// Nothing to read, and two pipes to write to: a step of a build.
    #[default]
    Outputs,
    /// Something to read, and two pipes to write to. [`Output::started`](super::Output::started)
    /// is told where signals go.
    Input(#[serde(skip)] Source),
    /// A terminal of its own, whose other end [`Output::terminal`](super::Output::terminal) gets;
    /// and signals as with input.
    Terminal,
}

/// Who runs a command: the numbers behind a `USER`, see [`user::resolve`](super::user::resolve).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary group ids.
    pub groups: Vec<u32>,
    /// The home directory: the value of `HOME` if the environment has none.
    pub home: String,
}

impl User {
    /// Returns root as it is in an image without `/etc/passwd`.
    #[must_use]
    pub fn root() -> User {
        User { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() }
    }
}

/// What a step can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A network of its own with a way out, but none to the host's services; the executor must
    /// have [`Networks`](super::Networks).
    Default,
    /// The host's network, with the host's resolver configuration.
    Host,
    /// A network of its own with a loopback interface and nothing else.
    None,
}

impl Network {
    /// Returns where a step reaches the services of the machine that it runs on.
    #[must_use]
    pub fn host(self) -> Option<IpAddr> {
        match self {
            Network::Host => Some(Ipv4Addr::LOCALHOST.into()),
            Network::Default | Network::None => None,
        }
    }
}

/// What a name that a build adds to `/etc/hosts` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// This address.
    Is(IpAddr),
    /// `host-gateway`: the machine that the step runs on, where its network has a way there.
    Gateway,
}

impl HostAddress {
    /// Returns the address as a step in `network` has to use it; `None` if there is no way.
    #[must_use]
    pub fn within(self, network: Network) -> Option<IpAddr> {
        match self {
            HostAddress::Is(address) => Some(address),
            HostAddress::Gateway => network.host(),
        }
    }
}

/// How much a step may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// The field's default: fourteen capabilities, kernel interfaces masked or read-only.
    Sandboxed,
    /// All capabilities, nothing masked, loop devices and FUSE: as mighty as root on the host.
    Insecure,
}

/// What the processes of a step may use together; of what is `None`, as much as there is.
///
/// It takes cgroups to enforce them. Where those are missing the step runs all the same, and
/// [`Output::warning`](super::Output::warning) is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Memory and swap together, in bytes; `u64::MAX` is unlimited. Twice the memory if it is not
    /// given; it has no meaning without a limit on memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<u64>,
    /// The share of CPU time when others want it, too: 1024 is what everybody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// The period over which the quota counts, in microseconds; 100,000 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period_us: Option<u64>,
    /// CPU time per period, in microseconds: 150,000 in 100,000 is one CPU and a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota_us: Option<u64>,
    /// The CPUs to run on, such as `0-2,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

impl Limits {
    /// Says whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }
}

/// One `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force, which the step may raise up to `hard`; `u64::MAX` is unlimited.
    pub soft: u64,
    /// The limit that it cannot raise.
    pub hard: u64,
}

/// The resources that can be limited, by their `--ulimit` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "setrlimit(2) describes them, and these are its names")]
pub enum Resource {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}

/// One mount of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepMount {
    /// Where in the image, absolute. Symbolic links are followed inside the image; what is
    /// missing is made, and removed after the step.
    pub target: String,
    /// What appears there.
    pub kind: MountKind,
}

/// What a [`StepMount`] mounts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory from elsewhere.
    Bind {
        /// The file or directory.
        #[serde(skip)]
        source: Source,
        /// Whether it is a directory: what is made where the target is missing.
        directory: bool,
        /// Whether the step cannot write to it.
        read_only: bool,
    },
    /// A part of a file system that is mounted nowhere, and that nobody else uses.
    ///
    /// It takes mounts: the executor without namespaces has to be given the part itself.
    Part {
        /// The file system, as fsmount(2) returns it.
        #[serde(skip)]
        of: Source,
        /// Where in it. Links are followed inside of it.
        path: String,
        /// Whether that is a directory.
        directory: bool,
        /// Whether the step cannot write to it.
        read_only: bool,
    },
    /// A directory that outlives the step, and keeps what it writes.
    ///
    /// The executor without mounts moves it into the tree and back: there a step must have it alone.
    Kept {
        /// The directory that it is in.
        #[serde(skip)]
        within: Source,
        /// Its name in there.
        name: String,
        /// Whether the step cannot write to it.
        read_only: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Its largest size in bytes; half of the memory if none is given.
        size: Option<u64>,
        /// The mode of its root.
        mode: u32,
        /// Whether the step cannot write to it.
        read_only: bool,
    },
    /// A file in memory, never on a disk.
    Secret {
        /// A file with its content, in memory too.
        #[serde(skip)]
        content: Source,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its mode.
        mode: u32,
    },
}

impl MountKind {
    /// Returns the descriptor that goes beside the [`Spec`], if it takes one.
    pub(super) fn source(&self) -> Option<&Source> {
        match self {
            MountKind::Bind { source, .. } => Some(source),
            MountKind::Part { of, .. } => Some(of),
            MountKind::Kept { within, .. } => Some(within),
            MountKind::Secret { content, .. } => Some(content),
            MountKind::Tmpfs { .. } => None,
        }
    }
}

/// A text that is written nowhere but where it is needed: its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Hidden {
        Hidden(text)
    }

    /// Returns the text, to be used and not to be shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The file or directory behind a bind mount, by a descriptor in the caller's mount namespace.
///
/// `O_PATH` suffices. It travels beside the [`Spec`], not in it: a deserialised one is empty.
#[derive(Debug, Clone, Default)]
pub struct Source(Option<Arc<OwnedFd>>);

impl Source {
    /// Takes what a descriptor refers to.
    #[must_use]
    pub fn new(descriptor: OwnedFd) -> Source {
        Source(Some(Arc::new(descriptor)))
    }

    /// Keeps bytes in memory: they are on no disk, and gone with the last descriptor.
    ///
    /// # Errors
    ///
    /// If there is no memory or no descriptor for them.
    pub fn in_memory(bytes: &[u8]) -> std::io::Result<Source> {
        let memory = memfd_create("secret", MemfdFlags::CLOEXEC)?;
        let mut file = fs_err::File::from_parts(memory.into(), "secret");
        file.write_all(bytes)?;
        Ok(Source::new(file.into_parts().0.into()))
    }

    /// Returns the descriptor, unless this was deserialised.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|fd| fd.as_fd())
    }
}
