//! The way out through pasta: connections are made anew by a program in the host's network.
//!
//! ```text
//! step's namespace         gateway: a namespace of ours       the host's network
//! eth0 ══════════════════ step       out ════════════════════ pasta: sockets
//!                          unreachable: every address of the host
//! ```
//!
//! It needs no right on the host, changes nothing there, and works in a user namespace. What the
//! host's own addresses are is decided in the gateway, where nothing of the step runs: a step may
//! send raw packets, and whatever is on its own side it could go around. pasta ends with the
//! thread that started it, and so with the builder, however that ends.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::NetworkError;
use super::join::{Plan, join};
use super::namespace::Namespace;
use super::netlink::{Hop, Netlink, Prefix};
use super::{program, ranges};
use crate::execute::sys;

/// The link that pasta makes.
const OUT: &str = "out";
/// How long pasta may take until its link is there.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited between two looks for it.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Larger packets mean fewer of them; pasta has sent still larger ones much slower.
const MTU: u32 = 9000;

/// Addresses that are the host itself or all its neighbours, whatever addresses it has.
const NEVER: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::new(240, 0, 0, 0)), 4),
    // Unspecified, loopback, and IPv4 written as IPv6.
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 96),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// The way out of a build's steps.
#[derive(Debug)]
pub(super) struct Pasta {
    program: PathBuf,
}

/// The way out of one step: the gateway and its pasta.
#[derive(Debug)]
pub(super) struct Gateway {
    // Ends first, so that it never serves a namespace without its unreachable routes.
    process: Process,
    namespace: Namespace,
    barred: Vec<IpAddr>,
}

impl Pasta {
    /// Prepares the way out, if there can be one.
    pub(super) fn open(search: &[PathBuf]) -> Result<Pasta, NetworkError> {
        Ok(Pasta { program: program::find("pasta", "passt", search)? })
    }

    /// Joins `step` to a gateway of its own.
    pub(super) fn connect(&self, step: &mut Namespace) -> Result<Gateway, NetworkError> {
        let look = NetworkError::kernel("look at this machine's network");
        let mut host = Netlink::open().map_err(&look)?;
        let routes = host.routes().map_err(&look)?;
        let v4 = ranges::v4(&routes).ok_or(NetworkError::NoRange)?;
        let has_v6 = routes
            .iter()
            .any(|route| route.destination.bits == 0 && route.destination.address.is_ipv6());
        let v6 = if has_v6 { ranges::v6(&routes) } else { None };
        let plan = Plan { v4, v6, mtu: MTU };

        let (mut namespace, ()) = Namespace::make(|| {
            fs_err::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            if v6.is_some() {
                fs_err::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
            }
            Ok(())
        })
        .map_err(NetworkError::io("make a network namespace"))?;
        for (address, bits) in NEVER {
            if address.is_ipv4() || v6.is_some() {
                namespace
                    .netlink
                    .add_route(Prefix { address, bits }, Hop::Unreachable)
                    .map_err(NetworkError::kernel("bar the host's addresses"))?;
            }
        }
        let process = Process::start(&self.program, &namespace)?;
        let mut gateway = Gateway { process, namespace, barred: Vec::new() };
        gateway.bar(host.addresses().map_err(&look)?)?;
        gateway.open(&plan).map_err(NetworkError::kernel("set up pasta's link"))?;
        join(&mut gateway.namespace.netlink, step, "step", &plan, 1)
            .map_err(NetworkError::kernel("join a step to pasta"))?;
        Ok(gateway)
    }
}

impl Gateway {
    /// Bars what the host has become since.
    pub(super) fn refresh(&mut self) -> Result<(), NetworkError> {
        if !self.process.runs() {
            return Err(self.process.failure());
        }
        let addresses = Netlink::open().and_then(|mut host| host.addresses());
        self.bar(addresses.map_err(NetworkError::kernel("look at this machine's network"))?)
    }

    /// Returns what can be read from once pasta has ended, and the way out with it.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Returns why it ended.
    pub(super) fn failure(&self) -> NetworkError {
        self.process.failure()
    }

    /// Makes addresses of the host unreachable.
    fn bar(&mut self, addresses: Vec<IpAddr>) -> Result<(), NetworkError> {
        for address in addresses {
            if self.barred.contains(&address) {
                continue;
            }
            match self.namespace.netlink.add_route(Prefix::host(address), Hop::Unreachable) {
                // Two links can have the same address, and a kernel may have no IPv6.
                Ok(()) | Err(Errno::EXIST | Errno::AFNOSUPPORT) => self.barred.push(address),
                Err(errno) => return Err(NetworkError::kernel("bar the host's addresses")(errno)),
            }
        }
        Ok(())
    }

    /// Sends everything else to pasta.
    fn open(&mut self, plan: &Plan) -> Result<(), Errno> {
        let netlink = &mut self.namespace.netlink;
        let link = netlink.link(OUT)?;
        netlink.switch_on_without_arp(link, plan.mtu)?;
        let v4 = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), bits: 0 };
        netlink.add_route(v4, Hop::Link(link))?;
        if plan.v6.is_some() {
            let v6 = Prefix { address: Ipv6Addr::UNSPECIFIED.into(), bits: 0 };
            netlink.add_route(v6, Hop::Link(link))?;
        }
        Ok(())
    }
}

/// A pasta that runs, and the thread that it ends with.
#[derive(Debug)]
struct Process {
    pidfd: OwnedFd,
    said: File,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts pasta in `namespace` and waits for its link.
    fn start(program: &Path, namespace: &Namespace) -> Result<Process, NetworkError> {
        let failed = NetworkError::io("run pasta");
        let memory = memfd_create("pasta", MemfdFlags::CLOEXEC)
            .map_err(NetworkError::kernel("run pasta"))?;
        let said = File::from(memory);
        let mut command = command(program, namespace).map_err(&failed)?;
        command.stderr(said.try_clone().map_err(&failed)?);
        let (tell, told) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("pasta".to_owned())
            .spawn(move || keep(command, &tell))
            .map_err(&failed)?;
        let pidfd = told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        let pidfd = pidfd.map_err(&failed)?;
        let process = Process { pidfd, said, thread: Some(thread) };
        let deadline = Instant::now() + PATIENCE;
        while namespace.netlink.link(OUT).is_err() {
            if !process.runs_after(&LOOK) || Instant::now() > deadline {
                return Err(process.failure());
            }
        }
        Ok(process)
    }

    fn runs(&self) -> bool {
        self.runs_after(&Timespec { tv_sec: 0, tv_nsec: 0 })
    }

    fn runs_after(&self, time: &Timespec) -> bool {
        matches!(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(time)), Ok(0))
    }

    /// Returns what pasta says is wrong.
    fn failure(&self) -> NetworkError {
        let mut said = String::new();
        let mut memory = &self.said;
        let read = memory.seek(SeekFrom::Start(0)).and_then(|_| memory.read_to_string(&mut said));
        // It complains about a system log that does not listen, too.
        let lines = said.lines().filter(|line| !line.contains("to syslog"));
        let said = lines.map(str::trim).collect::<Vec<_>>().join(" ");
        let silent = read.is_err() || said.trim().is_empty();
        let said = if silent { "it ended without a word".to_owned() } else { said };
        NetworkError::Program { program: "pasta", said }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn command(program: &Path, namespace: &Namespace) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.args(["--foreground", "--quiet", "--ns-ifname", OUT]);
    // No port of either side appears on the other, and the gateway's address is not the host.
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw"]);
    // The gateway is configured by us.
    command.args(["--no-dhcp", "--no-dhcpv6", "--no-ra", "--no-ndp"]);
    if rustix::process::geteuid().is_root() {
        // Else it becomes nobody, who may not enter the namespace.
        command.args(["--runas", "0:0"]);
    }
    // It has given up the right to look at our descriptors when it opens the namespace, so that
    // comes as one of its own.
    command.args(["--netns", "/proc/self/fd/0"]);
    command.stdin(namespace.descriptor.try_clone()?).stdout(Stdio::null());
    sys::end_with_this_thread(&mut command);
    Ok(command)
}

/// Starts a program that ends with this thread, and ends with it.
fn keep(mut command: Command, tell: &mpsc::SyncSender<io::Result<OwnedFd>>) {
    let child = command.spawn().and_then(|child| {
        let pid = rustix::process::Pid::from_child(&child);
        Ok((child, pidfd_open(pid, PidfdFlags::empty())?))
    });
    match child {
        Ok((mut child, pidfd)) => {
            let _ = tell.send(Ok(pidfd));
            let _ = child.wait();
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    }
}
