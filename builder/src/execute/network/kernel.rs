//! The way out through the host's kernel: a pair of links, forwarding and masquerading.
//!
//! Only root has it, and only where the host forwards packets already: Boatyard never makes a
//! router of a machine that is none. Everything it adds goes with its process: the links with
//! the step's namespace, routes and neighbours with the links, the table with its owner.

use std::path::PathBuf;

use super::NetworkError;
use super::firewall::Table;
use super::join::{Plan, join};
use super::namespace::Namespace;
use super::netlink::Netlink;
use super::{program, ranges};

/// What the names of our links and tables begin with.
const NAME: &str = "boat";

/// The way out of a build's steps.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Begins the names of this build's links, and is its table's.
    name: String,
    netlink: Netlink,
    table: Table,
    plan: Plan,
    /// How many links were made.
    links: u16,
    /// Where the search for addresses begins: builds that start together do not all try the same.
    first: u16,
}

impl Kernel {
    /// Prepares the way out, if there can be one.
    pub(super) fn open(search: &[PathBuf]) -> Result<Kernel, NetworkError> {
        if !rustix::process::geteuid().is_root() {
            return Err(NetworkError::NotRoot);
        }
        let nft = program::find("nft", "nftables", search)?;
        let mut netlink =
            Netlink::open().map_err(NetworkError::kernel("look at this machine's network"))?;
        let plan = plan(&mut netlink)?;
        let random = random()?;
        let name = format!("{NAME}{:06x}", u32::from_le_bytes(random) & 0x00ff_ffff);
        let table = Table::add(&nft, &name, &plan)?;
        let first = u16::from_le_bytes([random[0], random[3]]);
        Ok(Kernel { name, netlink, table, plan, links: 0, first })
    }

    /// Tells whether steps are still kept from the host itself.
    pub(super) fn is_there(&mut self) -> bool {
        self.table.is_there()
    }

    /// Joins `step` to the host.
    pub(super) fn connect(&mut self, step: &mut Namespace) -> Result<(), NetworkError> {
        // Without it steps would reach the host itself.
        if !self.table.is_there() {
            return Err(NetworkError::Program {
                program: "nft",
                said: "it ended, and this build's firewall rules with it".to_owned(),
            });
        }
        self.links = self.links.wrapping_add(1);
        let name = format!("{}.{:x}", self.name, self.links);
        let first = self.first.wrapping_add(self.links);
        join(&mut self.netlink, step, &name, &self.plan, first)
            .map_err(NetworkError::kernel("join a step to this machine's network"))
    }
}

fn plan(netlink: &mut Netlink) -> Result<Plan, NetworkError> {
    let failed = || NetworkError::kernel("look at this machine's network");
    let routes = netlink.routes().map_err(failed())?;
    let default = |v4: bool| {
        routes
            .iter()
            .find(|route| route.destination.bits == 0 && route.destination.address.is_ipv4() == v4)
    };
    if !forwards("ipv4/ip_forward") {
        return Err(NetworkError::NoForwarding("IPv4"));
    }
    let v6 = default(false).is_some();
    if v6 && !forwards("ipv6/conf/all/forwarding") {
        return Err(NetworkError::NoForwarding("IPv6"));
    }
    let mut mtu = None;
    if let Some(link) = default(true).or(default(false)).and_then(|route| route.link) {
        mtu = netlink.mtu(link).map_err(failed())?;
    }
    let v4 = ranges::v4(&routes).ok_or(NetworkError::NoRange)?;
    let v6 = if v6 { ranges::v6(&routes) } else { None };
    Ok(Plan { v4, v6, mtu: mtu.unwrap_or(1500) })
}

fn forwards(setting: &str) -> bool {
    fs_err::read_to_string(format!("/proc/sys/net/{setting}")).is_ok_and(|text| text.trim() != "0")
}

fn random() -> Result<[u8; 4], NetworkError> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(NetworkError::kernel("draw a random name"))?;
    Ok(bytes)
}
