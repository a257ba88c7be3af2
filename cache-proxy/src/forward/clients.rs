//! Who may use the proxy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// The clients that are served. Those of this machine always are.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// Others that are served, too.
    pub allowed: Vec<Network>,
}

impl Clients {
    /// Says whether a client is served.
    pub fn serves(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.allowed.iter().any(|network| network.has(address))
    }
}

/// The connections that are open, by client.
#[derive(Debug)]
pub(super) struct Open {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place among those of its client.
#[derive(Debug)]
pub(super) struct Place<'a> {
    open: &'a Open,
    client: IpAddr,
}

impl Open {
    pub(super) fn new(most: usize) -> Open {
        Open { most, counts: Mutex::default() }
    }

    /// Takes a place; `None` where a client has as many as it may have.
    pub(super) fn take(&self, client: IpAddr) -> Option<Place<'_>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { open: self, client })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.open.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// Addresses that begin with the same bits.
///
/// - An address, or `address/bits`; bits past those are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no network: write an address, or `10.0.0.0/8`")]
pub struct NetworkError {
    text: String,
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(mine), IpAddr::V4(its)) => {
                mask(u128::from(mine.to_bits()) << 96, self.bits)
                    == mask(u128::from(its.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(mine), IpAddr::V6(its)) => {
                mask(mine.to_bits(), self.bits) == mask(its.to_bits(), self.bits)
            }
            _ => false,
        }
    }
}

fn mask(bits: u128, count: u8) -> u128 {
    if count == 0 { 0 } else { bits & (u128::MAX << (128 - u32::from(count))) }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let wrong = || NetworkError { text: text.to_owned() };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let network = Network { address, bits: bits.unwrap_or(most) };
        let whole = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        // `10.0.0.1/8` is somebody's mistake, and he may mean less than it allows.
        if network.bits > most || mask(whole, network.bits) != whole {
            return Err(wrong());
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_their_addresses() {
        let clients = |networks: &[&str]| Clients {
            allowed: networks.iter().map(|network| network.parse().unwrap()).collect(),
        };
        let serves =
            |networks: &[&str], address: &str| clients(networks).serves(address.parse().unwrap());
        assert!(serves(&[], "127.0.0.9") && serves(&[], "::1") && serves(&[], "::ffff:127.0.0.1"));
        assert!(!serves(&[], "10.0.0.1"));
        assert!(serves(&["10.0.0.0/8"], "10.255.0.1") && !serves(&["10.0.0.0/8"], "11.0.0.1"));
        assert!(serves(&["0.0.0.0/0"], "8.8.8.8") && !serves(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(serves(&["fd00::/8"], "fd12::1") && !serves(&["fd00::/8"], "fe80::1"));
        assert!(serves(&["192.168.1.7"], "::ffff:192.168.1.7"));
        for bad in ["", "10", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/x", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
