//! The nftables table of a build, and the program that holds it.
//!
//! The table has an owner (`flags owner`, Linux 5.12): the kernel lets nobody else change it, not
//! even by `nft flush ruleset`, and takes it away when its owner's socket closes. The owner is an
//! `nft` of ours that reads commands from a pipe; when the builder ends, however it ends, the pipe
//! does, then `nft`, then the table. So nothing has to be cleaned up, and no two builds share one.

use std::fmt::Write as _;
use std::io::{PipeReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::NetworkError;
use super::join::Plan;

/// How long `nft` may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A table, there as long as this lives.
#[derive(Debug)]
pub(super) struct Table {
    nft: Child,
    stdin: Option<ChildStdin>,
    _output: PipeReader,
}

impl Table {
    /// Adds the table `name`, for links whose names begin with it.
    pub(super) fn add(nft: &Path, name: &str, plan: &Plan) -> Result<Table, NetworkError> {
        let failed = NetworkError::io("run nft");
        let (mut output, theirs) = std::io::pipe().map_err(&failed)?;
        let mut nft = Command::new(nft)
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(theirs.try_clone().map_err(&failed)?)
            .stderr(theirs)
            .spawn()
            .map_err(&failed)?;
        let mut stdin = nft.stdin.take();
        if let Some(stdin) = &mut stdin {
            // It prints the last rule once all are in force.
            let commands = format!("{}\nlist chain inet {name} postrouting\n", ruleset(name, plan));
            stdin.write_all(commands.as_bytes()).map_err(&failed)?;
        }
        let said = wait_for("masquerade", &mut output).map_err(&failed)?;
        let table = Table { nft, stdin, _output: output };
        match said {
            Ok(()) => Ok(table),
            Err(said) => Err(NetworkError::Program { program: "nft", said }),
        }
    }

    /// Tells whether the table is still there.
    pub(super) fn is_there(&mut self) -> bool {
        matches!(self.nft.try_wait(), Ok(None))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.nft.wait();
    }
}

/// Reads until a line holds `sign`; returns what was said if none does.
fn wait_for(sign: &str, output: &mut PipeReader) -> std::io::Result<Result<(), String>> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = String::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let silent = poll(&mut [PollFd::new(&*output, PollFlags::IN)], left.as_ref())? == 0;
        let length = if silent { 0 } else { output.read(&mut buffer)? };
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if said.contains("Error:") || length == 0 {
            return Ok(Err(said.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        if said.lines().any(|line| line.contains(sign)) {
            return Ok(Ok(()));
        }
    }
}

/// Returns the command that adds the table: one line, so that all of it holds at once or nothing.
///
/// What comes from a step and is for the host itself is dropped before anything could redirect it
/// (`prerouting`, before any DNAT such as that of published ports), and again where it would be
/// delivered (`input`). Steps reach neither one another nor may others open connections to them.
fn ruleset(name: &str, plan: &Plan) -> String {
    let from = format!("iifname \"{name}*\"");
    let mut sources = format!("{from} ip saddr != {}/16 drop; ", plan.v4);
    if let Some(v6) = plan.v6 {
        // Writing to a string cannot fail.
        let _ = write!(sources, "{from} ip6 saddr != {v6}/112 drop; ");
    } else {
        let _ = write!(sources, "{from} meta nfproto ipv6 drop; ");
    }
    [
        &format!("add table inet {name} {{ flags owner; "),
        "chain prerouting { type filter hook prerouting priority -300; policy accept; ",
        &format!("{from} fib daddr type local reject with icmpx type admin-prohibited; "),
        &format!("{from} fib daddr type {{ broadcast, anycast, multicast }} drop; }}; "),
        "chain input { type filter hook input priority -300; policy accept; ",
        &format!("{from} drop; }}; "),
        "chain forward { type filter hook forward priority -300; policy accept; ",
        &format!("{from} oifname \"boat*\" drop; {sources}"),
        &format!("oifname \"{name}*\" ct state != {{ established, related }} drop; }}; "),
        "chain postrouting { type nat hook postrouting priority 100; policy accept; ",
        &format!("{from} masquerade; }}; }}"),
    ]
    .concat()
}
