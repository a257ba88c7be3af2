//! Which client was given which generation, so that what it asks for next is of the same one.
//!
//! A client that asks by digest needs none of this. One that asks by plain names gets those of the
//! root that went over the same connection. One that opens a connection for each file, or whose
//! connection broke, is known by its address and its `User-Agent`; so that no two of those can be
//! taken for each other, the second gets the root of the first for a while.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

/// How many clients are remembered for a set.
const CLIENTS_MAX: usize = 4096;
/// How long a client is remembered by its connection.
const CONNECTION_FOR: Duration = Duration::from_secs(3600);
/// How long a client without a connection of its own may take for a set.
const CLIENT_FOR: Duration = Duration::from_secs(60);
/// How many paths are remembered of one client; more than any asks for.
const PATHS_MAX: usize = 512;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address and port: while the connection lasts, no other has the same.
    pub connection: SocketAddr,
    /// The `User-Agent`.
    pub agent: Box<str>,
}

/// A client that was given a root.
#[derive(Clone, Debug)]
struct Bound {
    client: Client,
    generation: u64,
    at: Timestamp,
    /// What it was given since.
    given: BTreeSet<Box<str>>,
    /// It had the root already, and so most likely has the rest.
    unchanged: bool,
}

impl Bound {
    fn is_like(&self, client: &Client) -> bool {
        self.client.connection.ip() == client.connection.ip() && self.client.agent == client.agent
    }
}

/// The clients of a set, oldest first.
#[derive(Debug, Default)]
pub struct Bindings {
    bound: VecDeque<Bound>,
}

impl Bindings {
    /// Remembers that a client is given the root of a generation.
    pub fn bind(&mut self, client: &Client, generation: u64, unchanged: bool, now: Timestamp) {
        self.forget(now);
        self.bound.retain(|bound| bound.client.connection != client.connection);
        if self.bound.len() >= CLIENTS_MAX {
            self.bound.pop_front();
        }
        let given = BTreeSet::new();
        self.bound.push_back(Bound {
            client: client.clone(),
            generation,
            at: now,
            given,
            unchanged,
        });
    }

    /// Returns the generation of which a client gets a child, and remembers that it does; `None`
    /// where it was given no root that is remembered.
    pub fn of_child(&mut self, client: &Client, path: &str, now: Timestamp) -> Option<u64> {
        let mine =
            self.bound.iter().rposition(|bound| bound.client.connection == client.connection);
        let at = mine.or_else(|| {
            let is_open =
                |bound: &&Bound| bound.is_like(client) && is_within(bound, CLIENT_FOR, now);
            // The first that lacks it: those after it wait for their turn.
            let lacks =
                |bound: &Bound| is_open(&bound) && !bound.unchanged && !bound.given.contains(path);
            let any = || self.bound.iter().rposition(|bound| bound.is_like(client));
            self.bound.iter().position(lacks).or_else(any)
        })?;
        let bound = self.bound.get_mut(at)?;
        if bound.given.len() < PATHS_MAX {
            bound.given.insert(path.into());
        }
        Some(bound.generation)
    }

    /// Returns the generation of which a client gets the other files of a root.
    pub fn of_root(&self, client: &Client) -> Option<u64> {
        let mine = |bound: &&Bound| bound.client.connection == client.connection;
        let like = |bound: &&Bound| bound.is_like(client);
        let bound = self.bound.iter().rfind(mine).or_else(|| self.bound.iter().rfind(like));
        bound.map(|bound| bound.generation)
    }

    /// Returns the generation that clients at an address were given last.
    pub fn of_address(&self, address: IpAddr) -> Option<u64> {
        let bound = self.bound.iter().rfind(|bound| bound.client.connection.ip() == address);
        bound.map(|bound| bound.generation)
    }

    /// Returns the generation that a client without a lasting connection has to be given, because
    /// one that cannot be told from it is in the middle of another.
    pub fn shared(&self, client: &Client, now: Timestamp) -> Option<u64> {
        let open = |bound: &&Bound| {
            bound.is_like(client) && !bound.unchanged && is_within(bound, CLIENT_FOR, now)
        };
        let other = |bound: &&Bound| bound.client.connection != client.connection;
        let bound = self.bound.iter().filter(open).find(other)?;
        Some(bound.generation)
    }

    /// Returns the generations that somebody may still ask for.
    pub fn in_use(&mut self, now: Timestamp) -> BTreeSet<u64> {
        self.forget(now);
        self.bound.iter().map(|bound| bound.generation).collect()
    }

    fn forget(&mut self, now: Timestamp) {
        self.bound.retain(|bound| is_within(bound, CONNECTION_FOR, now));
    }
}

fn is_within(bound: &Bound, time: Duration, now: Timestamp) -> bool {
    now.duration_since(bound.at).unsigned_abs() < time
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16, agent: &str) -> Client {
        Client { connection: ([127, 0, 0, 1], port).into(), agent: agent.into() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_connection_decides_whatever_others_do() {
        let mut bindings = Bindings::default();
        let (old, new) = (client(1, "apt"), client(2, "apt"));
        bindings.bind(&old, 1, false, at(0));
        bindings.bind(&new, 2, false, at(1));
        for _ in 0..2 {
            assert_eq!(bindings.of_child(&old, "Packages", at(600)), Some(1));
            assert_eq!(bindings.of_child(&new, "Packages", at(600)), Some(2));
        }
        bindings.bind(&old, 2, false, at(601));
        assert_eq!(bindings.of_child(&old, "Packages", at(602)), Some(2));
        assert_eq!(bindings.in_use(at(603)), BTreeSet::from([2]));
        assert_eq!(bindings.in_use(at(9999)), BTreeSet::new());
        assert_eq!(bindings.of_child(&old, "Packages", at(9999)), None);
    }

    #[test]
    fn a_broken_connection_is_taken_up() {
        let mut bindings = Bindings::default();
        bindings.bind(&client(1, "apt"), 1, false, at(0));
        bindings.bind(&client(2, "apt"), 2, false, at(1));
        assert_eq!(bindings.of_child(&client(2, "apt"), "Packages", at(2)), Some(2));
        assert_eq!(bindings.of_child(&client(3, "apt"), "Packages", at(2)), Some(1));
        assert_eq!(bindings.of_child(&client(4, "wget"), "Packages", at(2)), None);
    }

    #[test]
    fn clients_that_look_alike_share_a_generation() {
        let mut bindings = Bindings::default();
        bindings.bind(&client(1, "wget"), 1, false, at(0));
        assert_eq!(bindings.shared(&client(2, "wget"), at(5)), Some(1));
        assert_eq!(bindings.shared(&client(2, "curl"), at(5)), None);
        assert_eq!(bindings.shared(&client(1, "wget"), at(5)), None);
        assert_eq!(bindings.shared(&client(2, "wget"), at(61)), None);
        assert_eq!(bindings.of_root(&client(2, "wget")), Some(1));
        assert_eq!(bindings.of_address([127, 0, 0, 1].into()), Some(1));
    }

    #[test]
    fn many_clients_are_forgotten() {
        let mut bindings = Bindings::default();
        for port in 0..CLIENTS_MAX + 10 {
            bindings.bind(&client(port as u16, "apt"), port as u64, false, at(0));
        }
        assert_eq!(bindings.bound.len(), CLIENTS_MAX);
        assert_eq!(bindings.of_root(&client(10, "apt")), Some(10));
    }
}
