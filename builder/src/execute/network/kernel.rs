//! The way out through the host's kernel: a pair of links, forwarding and masquerading.
//!
//! Only root has it, and only where the host forwards packets already, and its firewall lets them
//! through ([`passage`]): Boatyard never makes a router of a machine that is none. Everything it
//! adds goes with its process: the links with the step's namespace, routes and neighbours with the
//! links, the table with its owner.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use super::NetworkError;
use super::firewall::Table;
use super::join::{Plan, join};
use super::namespace::Namespace;
use super::netlink::Netlink;
use super::passage::{self, Family};
use super::{program, ranges};

/// What the names of our links and tables begin with.
const NAME: &str = "boat";

/// The way out of a build's steps.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Begins the names of this build's links, and is its table's.
    name: String,
    table: Table,
    plan: Plan,
    /// How many links were made.
    links: AtomicU16,
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
        let plan = plan(&mut netlink()?)?;
        let random = random()?;
        let name = format!("{NAME}{:06x}", u32::from_le_bytes(random) & 0x00ff_ffff);
        let table = Table::add(&nft, &name, &plan)?;
        let first = u16::from_le_bytes([random[0], random[3]]);
        let mut kernel = Kernel { name, table, plan, links: AtomicU16::new(0), first };
        kernel.try_out()?;
        Ok(kernel)
    }

    /// Finds out what the host's firewall lets through.
    fn try_out(&mut self) -> Result<(), NetworkError> {
        let failed = || NetworkError::io("try this machine's firewall");
        let (mut namespace, ()) = Namespace::make(|| Ok(())).map_err(failed())?;
        self.connect(&mut namespace)?;
        let try_v6 = self.plan.v6.is_some();
        let passing = namespace.inside(|| {
            Ok((passage::is_open(Family::V4)?, try_v6 && passage::is_open(Family::V6)?))
        });
        let (v4, v6) = passing.map_err(failed())?;
        if !v4 {
            return Err(NetworkError::Firewall);
        }
        if !v6 {
            self.plan.v6 = None;
        }
        Ok(())
    }

    /// Returns what keeps steps from the host itself as long as it is open.
    pub(super) fn guard(&self) -> BorrowedFd<'_> {
        self.table.as_fd()
    }

    /// Joins `step` to the host.
    pub(super) fn connect(&self, step: &mut Namespace) -> Result<(), NetworkError> {
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{link:x}", self.name);
        let first = self.first.wrapping_add(link);
        join(&mut netlink()?, step, &name, &self.plan, first)
            .map_err(NetworkError::kernel("join a step to this machine's network"))
    }
}

fn netlink() -> Result<Netlink, NetworkError> {
    Netlink::open().map_err(NetworkError::kernel("look at this machine's network"))
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
