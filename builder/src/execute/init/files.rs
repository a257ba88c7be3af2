//! The files that tell a step about its network: `/etc/resolv.conf` and `/etc/hosts`.
//!
//! They are bound over the image's own, read-only, and never in the layer.

use std::fmt::Write as _;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr, write};
use rustix::mount::MountAttrFlags;

use super::mounts::{self, INERT, Tree};
use crate::execute::failure::{During, Failure};
use crate::execute::network::resolver;
pub(in crate::execute) use crate::execute::network::resolver::RESOLV_CONF;
use crate::execute::rootfs::Kind;
use crate::execute::spec::{Network, Spec};

pub(in crate::execute) const HOSTS: &str = "/etc/hosts";

/// Binds both files into the image. The root of this process must still be the host's.
pub(super) fn bind(tree: &Tree<'_>, spec: &Spec) -> Result<(), Failure> {
    place(tree, "resolv.conf", RESOLV_CONF, &resolv_conf(spec))?;
    place(tree, "hosts", HOSTS, hosts(spec).as_bytes())
}

/// Returns what the step finds in `/etc/resolv.conf`.
pub(in crate::execute) fn resolv_conf(spec: &Spec) -> Vec<u8> {
    match spec.network {
        // A host without the file resolves by its library's defaults, and so does the step then.
        Network::Host => fs_err::read(RESOLV_CONF).unwrap_or_default(),
        Network::Default => {
            resolver::for_step(&fs_err::read_to_string(RESOLV_CONF).unwrap_or_default()).into()
        }
        // No server to ask: a lookup fails at once.
        Network::None => Vec::new(),
    }
}

fn place(tree: &Tree<'_>, name: &str, path: &str, content: &[u8]) -> Result<(), Failure> {
    let file = write_file(tree, name, content).during("write", path)?;
    tree.place(&file, path, Kind::File)
}

fn write_file(
    tree: &Tree<'_>,
    name: &str,
    mut content: &[u8],
) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(tree.scratch(), name, flags, Mode::from_raw_mode(0o644))?;
    while !content.is_empty() {
        let written = retry_on_intr(|| write(file.as_fd(), content))?;
        content = &content[written..];
    }
    let scratch = tree.scratch().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    mounts::bind(&scratch, name, INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

pub(in crate::execute) fn hosts(spec: &Spec) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        spec.hostname
    );
    for (name, address) in &spec.hosts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_the_step_and_what_was_added() {
        let mut spec = Spec::new(["true"]);
        spec.hostname = "builder".to_owned();
        spec.hosts.push(("db".to_owned(), "192.0.2.7".parse().unwrap()));
        assert_eq!(
            hosts(&spec),
            "127.0.0.1\tlocalhost builder\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             192.0.2.7\tdb\n"
        );
    }
}
