//! `Network::Default`: a network of a step's own, with a way out and none to the host's services.
//!
//! ```text
//! Networks ── one per build
//!   ├── Uplink
//!   │     ├── Way      how packets get out: the host's kernel ([`kernel`]) or pasta ([`pasta`])
//!   │     └── Relay    answers the steps' DNS questions ([`relay`])
//!   └── idle rooms     each a namespace with its link, lent to one step at a time
//! ```
//!
//! A step reaches what lies beyond this machine, and nothing that is this machine: not its
//! loopback, not a service on any of its addresses, not another step. Names are resolved by the
//! relay, whose sockets are in the step's namespace while the builder asks from the host's.
//!
//! Nothing outlives the builder, killed or not: namespaces are held by descriptors, links go with
//! their namespace, the firewall table with the last copy of a socket, pasta with the thread that
//! started it. So there is nothing to clean up after another build, and no lock. What keeps a step
//! from the host is there until the step is gone: a step whose builder is killed, and one whose
//! pasta is, never reaches more than before.
//!
//! Nothing here is configured on the host that it did not already do: see [`kernel`].

mod firewall;
mod join;
mod kernel;
mod namespace;
mod netlink;
mod passage;
mod pasta;
mod program;
mod ranges;
mod relay;
pub(super) mod resolver;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;

use self::kernel::Kernel;
use self::namespace::Namespace;
use self::pasta::{Gateway, Pasta};
use self::relay::{Relay, Serving};

/// How many sockets are ours in a room: the relay's two, and the one that sets the room up.
const SOCKETS_OURS: u64 = 3;

/// How networks are made.
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// The directories where `nft` and `pasta` are looked for, before those of the system.
    pub search: Vec<PathBuf>,
    /// The ways that may be taken.
    pub ways: Ways,
}

/// By which ways steps may get out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ways {
    /// The kernel's, which is faster, and else pasta's.
    #[default]
    Fastest,
    /// The kernel's.
    Kernel,
    /// pasta's.
    Pasta,
}

/// Why a step cannot have a network of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Something of this machine refused.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program is not there.
    #[error("{program} is not installed (package {package})")]
    Missing {
        /// Its name.
        program: &'static str,
        /// What installs it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{program} says: {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// Only root may add links to the host.
    #[error("only root can add links to this machine's network")]
    NotRoot,
    /// The host is no router.
    #[error("this machine does not forward {0}, and a build does not change that")]
    NoForwarding(&'static str),
    /// The host's firewall drops what is forwarded.
    #[error("this machine's firewall lets nothing through that comes from elsewhere")]
    Firewall,
    /// Whatever could be given to a step is used on the host.
    #[error("this machine has routes to every address that a step could be given")]
    NoRange,
    /// No way can be taken.
    #[error("there is no way out: {kernel}; {pasta}")]
    NoWay {
        /// Why not through the kernel.
        kernel: String,
        /// Why not through pasta.
        pasta: String,
    },
    /// What was tried before, with this result.
    #[error("{0}")]
    Before(String),
}

impl NetworkError {
    fn io(operation: &'static str) -> impl Fn(io::Error) -> NetworkError {
        move |source| NetworkError::Io { operation, source }
    }

    fn kernel(operation: &'static str) -> impl Fn(Errno) -> NetworkError {
        move |errno| NetworkError::Io { operation, source: errno.into() }
    }

    /// Returns the whole story in one line.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            NetworkError::Io { operation, source } => format!("cannot {operation}: {source}"),
            other => other.to_string(),
        }
    }
}

/// The networks of a build's steps. Clones share them; the last one dropped ends them.
#[derive(Debug, Clone)]
pub struct Networks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: NetworkOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Room>,
    /// A room that is being made ahead of need.
    coming: Option<JoinHandle<Result<Room, NetworkError>>>,
    /// Opened by whoever needs it first; the others wait for him, and not for this state's lock.
    uplink: Arc<OnceLock<Result<Arc<Uplink>, String>>>,
    /// What is being taken away.
    closing: Option<JoinHandle<()>>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(closing) = self.closing.take() {
            let _ = closing.join();
        }
    }
}

/// What rooms share: the way out of them, and who answers in them.
#[derive(Debug)]
struct Uplink {
    way: Way,
    relay: Relay,
}

/// How packets get out.
#[derive(Debug)]
enum Way {
    Kernel(Kernel),
    Pasta(Pasta),
}

/// A namespace for one step at a time.
#[derive(Debug)]
struct Room {
    gateway: Option<Gateway>,
    _serving: Serving,
    namespace: Namespace,
    // Rooms end before the way out of them.
    uplink: Arc<Uplink>,
}

/// A network that a step has while this lives.
#[derive(Debug)]
pub(super) struct Lent {
    networks: Networks,
    room: Option<Room>,
}

impl Networks {
    /// Returns the networks of a build; nothing is made yet.
    #[must_use]
    pub fn new(options: NetworkOptions) -> Networks {
        Networks(Arc::new(Shared { options, state: Mutex::new(State::default()) }))
    }

    /// Begins to make the first network, on a thread, for a step that will come.
    pub fn prepare(&self) {
        let mut state = self.state();
        if state.coming.is_some()
            || !state.idle.is_empty()
            || matches!(state.uplink.get(), Some(Err(_)))
        {
            return;
        }
        // The thread must not keep what it makes from ending with the build.
        let networks = Arc::downgrade(&self.0);
        let make = move || match networks.upgrade() {
            Some(shared) => Networks(shared).make(),
            None => Err(NetworkError::Before("the build has ended".to_owned())),
        };
        state.coming = thread::Builder::new().name("network".to_owned()).spawn(make).ok();
    }

    /// Says whether steps can have networks, once that is known.
    ///
    /// # Errors
    ///
    /// If they cannot: why.
    pub fn check(&self) -> Result<(), NetworkError> {
        let room = self.take()?;
        self.state().idle.push(room);
        Ok(())
    }

    /// Begins to take everything away, on a thread: no step comes any more. It is gone when the
    /// last clone of this is.
    pub fn close(&self) {
        let mut state = self.state();
        let mut ended = std::mem::take(&mut *state);
        state.closing = thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                if let Some(coming) = ended.coming.take() {
                    drop(coming.join());
                }
                drop(ended);
            })
            .ok();
    }

    /// Lends a network to a step.
    pub(super) fn lend(&self) -> Result<Lent, NetworkError> {
        Ok(Lent { networks: self.clone(), room: Some(self.take()?) })
    }

    /// Returns an idle room, or the one that is coming, or a new one.
    fn take(&self) -> Result<Room, NetworkError> {
        while let Some(mut room) = self.idle() {
            if room.is_usable() {
                return Ok(room);
            }
        }
        let coming = self.state().coming.take();
        match coming.map(JoinHandle::join) {
            Some(Ok(made)) => made,
            Some(Err(_)) | None => self.make(),
        }
    }

    fn idle(&self) -> Option<Room> {
        self.state().idle.pop()
    }

    fn make(&self) -> Result<Room, NetworkError> {
        let uplink = self.uplink()?;
        let bind = || {
            let address = (resolver::RELAY, resolver::PORT);
            Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?))
        };
        let (mut namespace, (udp, tcp)) =
            Namespace::make(bind).map_err(NetworkError::io("make a network namespace"))?;
        let gateway = match &uplink.way {
            Way::Kernel(kernel) => {
                kernel.connect(&mut namespace)?;
                None
            }
            Way::Pasta(pasta) => Some(pasta.connect(&mut namespace)?),
        };
        let serving = uplink.relay.serve(udp, tcp);
        let serving = serving.map_err(NetworkError::io("start the DNS relay"))?;
        Ok(Room { gateway, _serving: serving, namespace, uplink })
    }

    fn uplink(&self) -> Result<Arc<Uplink>, NetworkError> {
        let uplink = Arc::clone(&self.state().uplink);
        let open = || Uplink::open(&self.0.options).map(Arc::new).map_err(|error| error.told());
        uplink.get_or_init(open).clone().map_err(NetworkError::Before)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // What a panicked thread left is at worst a room less.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Tells whether the way out of it is still what it was.
    fn is_usable(&mut self) -> bool {
        self.gateway.as_mut().is_none_or(|gateway| gateway.refresh().is_ok())
    }
}

impl Uplink {
    fn open(options: &NetworkOptions) -> Result<Uplink, NetworkError> {
        let way = Way::open(options)?;
        let relay = Relay::start().map_err(NetworkError::io("start the DNS relay"))?;
        Ok(Uplink { way, relay })
    }
}

impl Way {
    fn open(options: &NetworkOptions) -> Result<Way, NetworkError> {
        let kernel = || Kernel::open(&options.search).map(Way::Kernel);
        let pasta = || Pasta::open(&options.search).map(Way::Pasta);
        match options.ways {
            Ways::Kernel => kernel(),
            Ways::Pasta => pasta(),
            Ways::Fastest => kernel().or_else(|first| {
                pasta().map_err(|second| NetworkError::NoWay {
                    kernel: first.told(),
                    pasta: second.told(),
                })
            }),
        }
    }
}

impl Lent {
    /// Returns the namespace, to be entered by the step.
    pub(super) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.room.as_ref().map(|room| room.namespace.descriptor.as_fd())
    }

    /// Returns what has to stay open somewhere while anything of the step runs.
    pub(super) fn guard(&self) -> Option<BorrowedFd<'_>> {
        match &self.room.as_ref()?.uplink.way {
            Way::Kernel(kernel) => Some(kernel.guard()),
            Way::Pasta(_) => None,
        }
    }

    /// Returns what can be read from once the way out is gone, if that can happen.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.gateway().map(Gateway::end)
    }

    /// Returns why the way out is gone.
    pub(super) fn failure(&self) -> NetworkError {
        let nothing = || NetworkError::Before("the network was taken back".to_owned());
        self.gateway().map_or_else(nothing, Gateway::failure)
    }

    /// Tells whether names could not be resolved because the host says nowhere whom to ask.
    pub(super) fn has_missed_servers(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.uplink.relay.has_missed_servers())
    }

    fn gateway(&self) -> Option<&Gateway> {
        self.room.as_ref()?.gateway.as_ref()
    }
}

impl Drop for Lent {
    /// Takes the room back, unless something of the step is left in it.
    fn drop(&mut self) {
        let Some(room) = self.room.take() else { return };
        if room.namespace.sockets().is_ok_and(|sockets| sockets == SOCKETS_OURS) {
            self.networks.state().idle.push(room);
        } else {
            // The next step is likely to want one, and its layer is being written meanwhile.
            drop(room);
            self.networks.prepare();
        }
    }
}

/// Returns the number of the host's link called `name`.
fn link_number(name: &str) -> Option<u32> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}
