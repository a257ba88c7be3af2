//! The link between a step's namespace and the one through which it gets out.
//!
//! ```text
//!        step's namespace                          namespace that forwards
//!  eth0  10.213.4.7/32, fdb0:a7a2:13::407/128 ═══ boat6f1c2e.1   (no address)
//!        default via 169.254.1.1, fe80::1          10.213.4.7 dev boat6f1c2e.1
//! ```
//!
//! Both ends know the other's link address from the start, so neither ever asks for it: no ARP,
//! no neighbour discovery, and nothing that the far end would have to answer. The gateway's
//! addresses are names for the far end; no link has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use super::namespace::Namespace;
use super::netlink::{End, Hop, Mac, Netlink, Prefix};

/// The link address of the step's end: locally administered, known to nobody else.
const STEP_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// The link address of the far end.
const FAR_MAC: Mac = [2, 0, 0, 0, 0, 1];

/// How many addresses are tried before a range counts as full.
const CLAIMS_MAX: u32 = 256;

/// What a link carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The range of IPv4: the upper sixteen bits.
    pub(super) v4: Ipv4Addr,
    /// The range of IPv6: all but the lower sixteen bits. `None` where there is no way out by it.
    pub(super) v6: Option<Ipv6Addr>,
    pub(super) mtu: u32,
}

/// Joins `step` to the namespace of `far` by a link that is called `name` there.
///
/// `number` is where the search for a free address begins.
pub(super) fn join(
    far: &mut Netlink,
    step: &mut Namespace,
    name: &str,
    plan: &Plan,
    number: u16,
) -> Result<(), Errno> {
    let ends = (End { name, mac: FAR_MAC }, End { name: "eth0", mac: STEP_MAC });
    far.add_pair(&ends.0, &ends.1, step.descriptor.as_fd(), plan.mtu)?;
    let far_link = far.link(name)?;
    let joined = connect(far, far_link, &mut step.netlink, plan, number);
    if joined.is_err() {
        // The step's namespace would take it along anyway, only later.
        let _ = far.remove_link(far_link);
    }
    joined
}

fn connect(
    far: &mut Netlink,
    far_link: u32,
    step: &mut Netlink,
    plan: &Plan,
    number: u16,
) -> Result<(), Errno> {
    let step_link = step.link("eth0")?;
    far.switch_on(far_link, None)?;
    step.switch_on(step_link, None)?;
    let number = claim(far, far_link, plan, number)?;
    for (address, gateway, everything) in ways(plan, number) {
        if address.is_ipv6() {
            far.add_route(Prefix::host(address), Hop::Link(far_link))?;
        }
        far.add_neighbour(far_link, address, STEP_MAC)?;
        step.add_address(step_link, address)?;
        step.add_neighbour(step_link, gateway, FAR_MAC)?;
        let all = Prefix { address: everything, bits: 0 };
        step.add_route(all, Hop::Gateway(step_link, gateway))?;
    }
    Ok(())
}

/// Finds an address that nobody has: whose route is there first has it.
fn claim(far: &mut Netlink, link: u32, plan: &Plan, number: u16) -> Result<u16, Errno> {
    let mut number = number;
    for _ in 0..CLAIMS_MAX {
        // Neither the network's own address nor its last, which some take for a broadcast.
        number = number.checked_add(1).filter(|&number| number < u16::MAX).unwrap_or(1);
        match far.add_route(Prefix::host(v4(plan, number)), Hop::Link(link)) {
            Err(Errno::EXIST) => {}
            other => return other.map(|()| number),
        }
    }
    Err(Errno::ADDRINUSE)
}

fn v4(plan: &Plan, number: u16) -> IpAddr {
    Ipv4Addr::from_bits(plan.v4.to_bits() | u32::from(number)).into()
}

/// Returns, for each family, the step's address, its gateway, and the address of everything.
fn ways(plan: &Plan, number: u16) -> Vec<(IpAddr, IpAddr, IpAddr)> {
    let gateway = Ipv4Addr::new(169, 254, 1, 1).into();
    let mut ways = vec![(v4(plan, number), gateway, Ipv4Addr::UNSPECIFIED.into())];
    if let Some(range) = plan.v6 {
        let address = Ipv6Addr::from_bits(range.to_bits() | u128::from(number)).into();
        let gateway = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into();
        ways.push((address, gateway, Ipv6Addr::UNSPECIFIED.into()));
    }
    ways
}
