//! What the builder, the helper and a step say to one another, and how.
//!
//! All talk goes over sequenced-packet sockets, one JSON value per packet. The builder asks the
//! helper to run a step with one packet whose descriptors carry everything:
//!
//! ```text
//! 0  the spec, a file in memory             3  standard output
//! 1  the step's own socket                  4  standard error
//! 2  the root, a detached mount             5  the network namespace, if there is one; then
//!                                              what guards the host from it, if there is any;
//!                                              then what is only to be held; then standard
//!                                              input, if there is any; then the sources of the
//!                                              mounts, in order
//! ```
//!
//! Answers come on the step's socket, from whoever knows: the step what it made and why it could
//! not start, its first process how the command ended, the helper that everything is gone. The
//! builder never writes there; when its end is shut, the helper kills the step.

use std::io::{IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::rootfs::Made;
use super::spec::{Console, Limits, Network};

/// The kernel's limit on descriptors per packet.
const DESCRIPTORS_MAX: usize = 253;
/// How many mounts a step can have: each may need a descriptor, and eight are taken.
pub(super) const MOUNTS_MAX: usize = DESCRIPTORS_MAX - 8;
/// The largest packet. A report holds at most two paths.
const PACKET_BYTES_MAX: usize = 64 << 10;

/// What is said about a step, or by the helper when it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The helper takes requests.
    Ready,
    /// The first process of a step that is attended to runs: its descriptor.
    Started,
    /// The other end of the command's terminal.
    Terminal,
    /// A mount point was made in the root, to be removed after the step.
    Made(Made),
    /// The step cannot be set up, or its program cannot be executed.
    Failed(Failure),
    /// The command exited.
    Exited(i32),
    /// A signal ended the command.
    Signaled(i32),
    /// A limit is not in force: what is not limited, and why not.
    Unlimited(String, String),
    /// The kernel killed a process of the step, which had reached its limit on memory.
    OutOfMemory,
    /// No process of the step is left, nor a mount nor a namespace.
    Gone,
}

/// What is said of a step in the request itself, because it is needed before the spec is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Heading {
    /// It decides which namespaces are made.
    pub(super) network: Network,
    /// Whether a descriptor comes along that has to stay open until the step is gone.
    pub(super) guarded: bool,
    /// How many descriptors come along that only have to stay open until the step is gone.
    pub(super) held: usize,
    /// They decide which cgroups are made.
    pub(super) limits: Limits,
    pub(super) console: Streams,
}

/// The kinds of [`Console`](super::spec::Console).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Streams {
    Outputs,
    Input,
    Terminal,
}

impl From<&Console> for Streams {
    fn from(console: &Console) -> Streams {
        match console {
            Console::Outputs => Streams::Outputs,
            Console::Input(_) => Streams::Input,
            Console::Terminal => Streams::Terminal,
        }
    }
}

/// A request to run a step, as the helper receives it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) heading: Heading,
    pub(super) spec: OwnedFd,
    pub(super) socket: OwnedFd,
    pub(super) rootfs: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// The network to enter, with [`Network::Default`].
    pub(super) namespace: Option<OwnedFd>,
    /// What keeps the step from the host: the helper's to hold, and never the step's.
    pub(super) guard: Option<OwnedFd>,
    /// The helper's to hold until the step is gone, and never the step's.
    pub(super) held: Vec<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) sources: Vec<OwnedFd>,
}

/// Returns two connected sockets.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends a report.
pub(super) fn send(socket: impl AsFd, report: &Report) -> Result<(), Errno> {
    send_with(socket, report, &[])
}

/// Sends a report with descriptors.
pub(super) fn send_with(
    socket: impl AsFd,
    report: &Report,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(report).expect("a report has only string keys");
    send_packet(socket.as_fd(), &bytes, descriptors)
}

/// Waits for a report; `None` when the other side is gone.
pub(super) fn receive(socket: impl AsFd) -> Result<Option<Report>, Errno> {
    Ok(receive_with(socket)?.map(|(report, _)| report))
}

/// Waits for a report and what comes with it.
pub(super) fn receive_with(socket: impl AsFd) -> Result<Option<(Report, Option<OwnedFd>)>, Errno> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let received = receive_packet(socket.as_fd(), &mut bytes)?;
    let Some((length, descriptors)) = received else { return Ok(None) };
    let report = serde_json::from_slice(&bytes[..length]).map_err(|_| Errno::BADMSG)?;
    Ok(Some((report, descriptors.into_iter().next())))
}

/// Asks the helper to run a step.
pub(super) fn send_request(
    helper: impl AsFd,
    heading: &Heading,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(heading).map_err(|_| Errno::INVAL)?;
    send_packet(helper.as_fd(), &bytes, descriptors)
}

/// Waits for a request; `None` when the builder is gone.
pub(super) fn receive_request(builder: impl AsFd) -> Result<Option<Request>, Errno> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let Some((length, descriptors)) = receive_packet(builder.as_fd(), &mut bytes)? else {
        return Ok(None);
    };
    let heading: Heading = serde_json::from_slice(&bytes[..length]).map_err(|_| Errno::BADMSG)?;
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(Errno::BADMSG);
    let (spec, socket, rootfs, stdout, stderr) = (next()?, next()?, next()?, next()?, next()?);
    let namespace = match heading.network {
        Network::Default => Some(next()?),
        Network::Host | Network::None => None,
    };
    let guard = if heading.guarded { Some(next()?) } else { None };
    let held = (0..heading.held).map(|_| next()).collect::<Result<_, _>>()?;
    let stdin = match heading.console {
        Streams::Input => Some(next()?),
        Streams::Outputs | Streams::Terminal => None,
    };
    let sources = descriptors.collect();
    Ok(Some(Request {
        heading,
        spec,
        socket,
        rootfs,
        stdout,
        stderr,
        namespace,
        guard,
        held,
        stdin,
        sources,
    }))
}

/// Writes a value of any size where another process can read it.
pub(super) fn to_memory(value: &impl Serialize) -> Result<OwnedFd, Errno> {
    let mut file = fs_err::File::from_parts(
        std::fs::File::from(memfd_create("step", MemfdFlags::CLOEXEC)?),
        "step",
    );
    let bytes = serde_json::to_vec(value).map_err(|_| Errno::INVAL)?;
    file.write_all(&bytes).map_err(|error| errno(&error))?;
    Ok(file.into_parts().0.into())
}

/// Reads what [`to_memory`] wrote.
pub(super) fn from_memory<T: DeserializeOwned>(memory: OwnedFd) -> Result<T, Errno> {
    let mut file = std::fs::File::from(memory);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(|error| errno(&error))?;
    file.read_to_end(&mut bytes).map_err(|error| errno(&error))?;
    serde_json::from_slice(&bytes).map_err(|_| Errno::BADMSG)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn send_packet(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = vec![MaybeUninit::uninit(); space_bytes()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
    })
}

/// Returns the packet's length and descriptors; `None` at the end of the conversation.
fn receive_packet(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<Option<(usize, Vec<OwnedFd>)>, Errno> {
    let mut space = vec![MaybeUninit::uninit(); space_bytes()];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let message = match message {
        Err(Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok(Some((message.bytes, descriptors)))
}

fn space_bytes() -> usize {
    rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))
}
