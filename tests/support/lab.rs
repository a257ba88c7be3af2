//! A host and a world outside of it: two network namespaces and a wire, so that tests of networks
//! leave that of this machine alone.
//!
//! ```text
//! host                                     outside
//! 198.51.100.2, 2001:db8:1::2 ──────────── 198.51.100.1, 2001:db8:1::1
//! 172.30.0.1, 2001:db8:9::1 (a bridge)     203.0.113.5, 2001:db8:2::5: a service, names
//! ```

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::place::text;
use super::{Place, Run};

/// The port of the services, of the host's and of that outside.
pub const PORT: u16 = 7777;
/// The service outside.
pub const OUTSIDE: [&str; 2] = ["203.0.113.5", "2001:db8:2::5"];
/// The host's own addresses, but for those of its links and its loopback.
pub const HOST: [&str; 4] = ["198.51.100.2", "172.30.0.1", "2001:db8:1::2", "2001:db8:9::1"];

/// The two namespaces; gone at the end.
pub struct Lab {
    pub host: String,
    outside: String,
    /// What came to the services: `host tcp`, `outside udp`.
    reached: Arc<Mutex<Vec<String>>>,
}

impl Lab {
    /// Makes a host that forwards packets, or does not, and all its services.
    pub fn new(forwards: bool) -> Lab {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("by-{what}-{}-{number}", std::process::id());
        let lab = Lab { host: name("host"), outside: name("out"), reached: Arc::default() };
        let setup = format!(
            "set -e\n\
             ip netns add {host}; ip netns add {outside}\n\
             ip -n {host} link add up0 type veth peer name out0 netns {outside}\n\
             ip -n {host} link add br9 type bridge\n\
             for link in lo up0 br9; do ip -n {host} link set $link up; done\n\
             for link in lo out0; do ip -n {outside} link set $link up; done\n\
             ip -n {host} addr add 198.51.100.2/24 dev up0\n\
             ip -n {host} addr add 2001:db8:1::2/64 dev up0 nodad\n\
             ip -n {host} addr add 172.30.0.1/24 dev br9\n\
             ip -n {host} addr add 2001:db8:9::1/64 dev br9 nodad\n\
             ip -n {outside} addr add 198.51.100.1/24 dev out0\n\
             ip -n {outside} addr add 2001:db8:1::1/64 dev out0 nodad\n\
             ip -n {outside} addr add 203.0.113.5/32 dev lo\n\
             ip -n {outside} addr add 2001:db8:2::5/128 dev lo nodad\n\
             ip -n {host} route add default via 198.51.100.1\n\
             ip -n {host} route add default via 2001:db8:1::1\n\
             for key in net.ipv4.ip_forward net.ipv6.conf.all.forwarding; do\n\
             ip netns exec {host} busybox sysctl -w $key={forwarding} >/dev/null; done\n",
            host = lab.host,
            outside = lab.outside,
            forwarding = u8::from(forwards),
        );
        Run::new("sh").args(["-c", &setup]).ok();
        for address in ["0.0.0.0", "::"] {
            lab.serve(&lab.host, "host", address);
        }
        for address in OUTSIDE {
            lab.serve(&lab.outside, "outside", address);
        }
        lab.answer_names();
        lab
    }

    /// Returns our command, ready to run on the host.
    pub fn boatyard<const N: usize>(&self, place: &Place, args: [&str; N]) -> Run {
        self.shell(place)
            .arg(env!("CARGO_BIN_EXE_boatyard"))
            .args(args)
            .env("BOATYARD_ROOT", text(&place.root()))
            .env_remove("BOATYARD_CONFIG")
            .env_remove("SOURCE_DATE_EPOCH")
    }

    /// Returns what runs the command line that is added to it on the host, which asks the world
    /// for names.
    pub fn shell(&self, place: &Place) -> Run {
        place.write("resolv.conf", "search example\nnameserver 203.0.113.5\noptions timeout:1\n");
        place
            .run("ip", ["netns", "exec", &self.host, "sh", "-c"])
            // Everybody may open the device that pasta needs, where udev makes it.
            .arg(
                "mount --bind \"$0\" /etc/resolv.conf && mount -t tmpfs nodes /mnt \
                 && mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun \
                 && exec \"$@\"",
            )
            .arg(place.path("resolv.conf"))
    }

    /// Gives the host a firewall that forwards nothing, as docker does.
    pub fn forward_nothing(&self) {
        for family in ["ip", "ip6"] {
            let chain = "{ type filter hook forward priority 0; policy drop; }";
            let table = format!("add table {family} filter {{ chain FORWARD {chain}; }}");
            Run::new("ip").args(["netns", "exec", &self.host, "nft", &table]).ok();
        }
    }

    /// Returns what came to the services since the last time.
    pub fn reached(&self) -> Vec<String> {
        let mut reached = std::mem::take(&mut *self.reached.lock().unwrap());
        reached.sort();
        reached.dedup();
        reached
    }

    /// Returns what the host has that a build could have left: links, rules, routes.
    pub fn traces(&self) -> String {
        let script = format!(
            "ip -n {host} -o link | cut -d: -f2; ip -n {host} route; ip -n {host} -6 route; \
             ip netns exec {host} nft list ruleset; ip netns pids {host}",
            host = self.host
        );
        Run::new("sh").args(["-c", &script]).ok().text()
    }

    /// Answers each connection and each packet with `word`.
    fn serve(&self, namespace: &str, word: &'static str, address: &str) {
        let address = (address.parse::<IpAddr>().unwrap(), PORT);
        let bind = move || {
            if address.0.is_ipv6() {
                // Else `::` takes IPv4's part too.
                fs_err::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
            }
            (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
        };
        let (tcp, udp) = inside(namespace, bind);
        let reached = Arc::clone(&self.reached);
        std::thread::spawn(move || {
            for mut connection in tcp.incoming().flatten() {
                reached.lock().unwrap().push(format!("{word} tcp"));
                let _ = connection.write_all(format!("{word}\n").as_bytes());
            }
        });
        let reached = Arc::clone(&self.reached);
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((_, from)) = udp.recv_from(&mut packet) {
                reached.lock().unwrap().push(format!("{word} udp"));
                let _ = udp.send_to(word.as_bytes(), from);
            }
        });
    }

    /// Answers questions for names: `out.example` is the service outside, over TCP and UDP.
    fn answer_names(&self) {
        let address = (OUTSIDE[0].parse::<IpAddr>().unwrap(), 53);
        let (tcp, udp) = inside(&self.outside, move || {
            (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
        });
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut packet) {
                let _ = udp.send_to(&answer(&packet[..length]), from);
            }
        });
        std::thread::spawn(move || {
            for mut connection in tcp.incoming().flatten() {
                let mut length = [0; 2];
                connection.read_exact(&mut length).unwrap();
                let mut question = vec![0; u16::from_be_bytes(length).into()];
                connection.read_exact(&mut question).unwrap();
                let answer = answer(&question);
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                connection.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.outside] {
            Run::new("ip").args(["netns", "del", namespace]).run();
        }
    }
}

/// Does `work` in a named network namespace.
fn inside<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = fs_err::File::open(format!("/run/netns/{namespace}")).unwrap();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Answers a DNS question: `A` of `out.example`, and of nothing else.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut end = 12;
    while question[end] != 0 {
        end += 1 + usize::from(question[end]);
    }
    let name = &question[12..=end];
    let asked = &question[12..end + 5];
    let known = name == b"\x03out\x07example\0" && question[end + 1..end + 3] == [0, 1];
    let mut answer = question[..2].to_vec();
    // A response, recursion available; NXDOMAIN for other names.
    answer.extend([0x81, if name == b"\x03out\x07example\0" { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::from(known), 0, 0, 0, 0]);
    answer.extend(asked);
    if known {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 5]);
    }
    answer
}
