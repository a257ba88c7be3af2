//! What build steps reach: the world, by name, and nothing of the machine that they run on; and
//! that nothing is left of their networks, however a build ends.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::lab::{HOST, Lab, OUTSIDE};
use support::place::text;
use support::{Place, Run, images, until};

/// Asks a service over TCP and UDP; a bare address and one that can have a port.
const ASK: &str = "ask() { busybox timeout 3 busybox nc $1 7777 < /dev/null; \
    busybox timeout 3 busybox nslookup -type=a x. \"$2:7777\" > /dev/null 2>&1; }";

/// Returns a Dockerfile whose RUN asks all `addresses` at once.
fn asking<S: AsRef<str>>(flags: &str, addresses: &[S]) -> String {
    let asks = addresses.iter().map(|address| {
        let address = address.as_ref();
        let with_port =
            if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        format!("ask {address} {with_port} &")
    });
    let asks = asks.collect::<Vec<_>>().join(" ");
    format!("FROM busybox\nRUN {flags} {ASK}; {asks} wait\n")
}

/// Every address that is the host, or has ever been known to lead to one.
fn ways_to_the_host(lab: &Lab) -> Vec<String> {
    let links = Run::new("ip").args(["-n", &lab.host, "-6", "-o", "addr"]).ok().text();
    let own = links.split_whitespace().filter_map(|word| word.strip_suffix("/64"));
    let link_local = own.filter(|address| address.starts_with("fe80"));
    let fixed = [
        "127.0.0.1",
        "127.0.0.53",
        "::1",
        "0.0.0.0",
        "169.254.1.1",
        "fe80::1%eth0",
        "10.213.0.1",
        "198.51.100.255",
        "255.255.255.255",
        "224.0.0.1",
        "ff02::1%eth0",
        "::ffff:172.30.0.1",
    ];
    let known = fixed.into_iter().chain(HOST).map(str::to_owned);
    known.chain(link_local.map(|address| format!("{address}%eth0"))).collect()
}

/// The whole story, on a host whose steps get out by one way or the other.
fn steps_reach_the_world_and_not_the_host(lab: &Lab) {
    let place = Place::new();
    images::busybox(&place);
    let before = lab.traces();
    let build = |name: &str, dockerfile: &str| {
        let context = place.context(name, dockerfile);
        let build = ["build", "--progress=plain", "--network=default", text(&context)];
        lab.boatyard(&place, build).arg("--allow=network.host").ok()
    };

    // The services do answer those who share the host's network.
    build("host", &asking("--network=host", &HOST));
    assert_eq!(lab.reached(), ["host tcp", "host udp"]);

    for address in OUTSIDE {
        build("outside", &asking("", &[address]));
        assert_eq!(lab.reached(), ["outside tcp", "outside udp"], "{address}");
    }

    build("inside", &asking("", &ways_to_the_host(lab)));
    assert_eq!(lab.reached(), [""; 0]);

    build("none", &asking("--network=none", &[&HOST[..], &OUTSIDE].concat()));
    assert_eq!(lab.reached(), [""; 0]);

    // Names: by UDP, by a search domain, and by TCP, where a question is preceded by its length.
    build(
        "names",
        "FROM busybox\n\
         RUN busybox nslookup -type=a out.example. | grep -q 'Address: 203.0.113.5'\n\
         RUN busybox nslookup nowhere.example. | grep NXDOMAIN\n\
         RUN busybox timeout 3 busybox nc out 7777 < /dev/null | busybox grep -m1 outside\n\
         RUN printf '\\000\\035\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\003out\\007example\\0\\0\\1\\0\\1' \
             | busybox timeout 3 busybox nc 127.0.0.11 53 | tail -c 4 | busybox od -An -tu1 \
             | grep '203 *0 *113 *5'\n\
         RUN test \"$(cat /etc/resolv.conf | head -n 1)\" = 'search example'\n",
    );
    // The kernel takes a namespace apart a moment after its last holder is gone.
    until("nothing is left", || lab.traces() == before);
}

#[test]
fn through_the_kernel_steps_reach_the_world_and_not_the_host() {
    steps_reach_the_world_and_not_the_host(&Lab::new(true));
}

#[test]
fn through_pasta_steps_reach_the_world_and_not_the_host() {
    steps_reach_the_world_and_not_the_host(&Lab::new(false));
}

/// Returns a build that finds no programs but an administrator's: `nft`, and not pasta.
fn without_path(lab: &Lab, place: &Place, args: &[&str]) -> Run {
    place
        .run("ip", ["netns", "exec", &lab.host, "env", "PATH=/nowhere"])
        .arg(env!("CARGO_BIN_EXE_boatyard"))
        .args(["build", "--progress=plain"])
        .args(args)
        .env("BOATYARD_ROOT", place.root())
}

#[test]
fn a_network_that_is_asked_for_by_name_is_not_replaced_by_the_hosts() {
    let (lab, place) = (Lab::new(false), Place::new());
    images::busybox(&place);
    let context = place.context("app", "FROM busybox\nRUN true\n");
    // Neither forwarding nor pasta.
    let context = text(&context);
    without_path(&lab, &place, &["--network=default", context]).fails(1).says([
        "cannot give this step a network of its own",
        "this machine does not forward IPv4",
        "pasta is not installed (package passt)",
    ]);
    without_path(&lab, &place, &[context]).ok().says([
        "RUN steps share this machine's network, because they cannot have one of their own: \
         there is no way out: this machine does not forward IPv4",
        "pasta is not installed (package passt)",
    ]);
}

#[test]
fn where_the_firewall_forwards_nothing_steps_go_another_way() {
    let (lab, place) = (Lab::new(true), Place::new());
    lab.forward_nothing();
    images::busybox(&place);
    let context = place.context("app", &asking("", &OUTSIDE));
    lab.boatyard(&place, ["build", "--network=default", text(&context)]).ok();
    assert_eq!(lab.reached(), ["outside tcp", "outside udp"]);

    let context = place.context("other", &asking("", &ways_to_the_host(&lab)));
    let build = ["build", "--progress=plain", "--network=default", text(&context)];
    lab.boatyard(&place, build).ok();
    assert_eq!(lab.reached(), [""; 0]);

    let build = ["--network=default", "--no-cache", text(&context)];
    without_path(&lab, &place, &build).fails(1).says([
        "there is no way out: this machine's firewall lets nothing through that comes from \
         elsewhere; pasta is not installed (package passt)",
    ]);
}

/// A build whose RUN says that it runs, and then asks the host for ever.
struct Endless {
    build: Child,
    log: PathBuf,
}

impl Endless {
    /// Starts it; returns when the step runs.
    fn start(lab: &Lab, place: &Place) -> Endless {
        let asks = "while :; do busybox nc 172.30.0.1 7777; done & \
            while :; do busybox timeout 1 busybox nslookup -type=a x. 198.51.100.2:7777; done";
        let dockerfile = format!("FROM busybox\nRUN echo it runs; ({asks}) > /dev/null 2>&1\n");
        let context = place.context("endless", &dockerfile);
        let log = place.path("endless.log");
        let output =
            || Stdio::from(std::fs::File::options().append(true).create(true).open(&log).unwrap());
        let build = lab
            .boatyard(place, ["build", "--progress=plain", "--network=default", text(&context)])
            .spawn(output(), output());
        let endless = Endless { build, log };
        until("the step runs", || endless.said().contains(" it runs\n"));
        endless
    }

    fn said(&self) -> String {
        fs_err::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns those of the builder's own processes whose name begins so; pasta can be `passt.avx2`.
    fn processes(&self, name: &str) -> Vec<Pid> {
        let script = format!(
            "for pid in $(cat /proc/{}/task/*/children); do \
             case $(cat /proc/$pid/comm) in {name}*) echo $pid; esac; done",
            self.build.id()
        );
        let children = Run::new("sh").args(["-c", &script]).ok().text();
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.map(|pid| Pid::from_raw(pid).unwrap()).collect()
    }
}

fn a_killed_build_leaves_nothing(lab: &Lab) {
    let place = Place::new();
    images::busybox(&place);
    let before = lab.traces();
    let mut one = Endless::start(lab, &place);
    assert_ne!(lab.traces(), before);
    // Another build beside it neither disturbs it nor clears it away.
    let context = place.context("other", &asking("", &OUTSIDE));
    lab.boatyard(&place, ["build", "--network=default", text(&context)]).ok();
    assert_eq!(lab.reached(), ["outside tcp", "outside udp"]);
    assert!(one.build.try_wait().unwrap().is_none());

    one.build.kill().unwrap();
    one.build.wait().unwrap();
    until("nothing is left", || lab.traces() == before);
    // The step outlived the build by a moment, and went on asking.
    assert_eq!(lab.reached(), [""; 0]);
}

#[test]
fn a_killed_build_leaves_nothing_in_the_kernel() {
    a_killed_build_leaves_nothing(&Lab::new(true));
}

#[test]
fn a_killed_build_leaves_no_pasta() {
    a_killed_build_leaves_nothing(&Lab::new(false));
}

#[test]
fn a_step_whose_pasta_is_killed_ends() {
    let (lab, place) = (Lab::new(false), Place::new());
    images::busybox(&place);
    let before = lab.traces();
    let mut endless = Endless::start(&lab, &place);
    let [pasta] = endless.processes("pas")[..] else { panic!("there should be one") };
    kill_process(pasta, Signal::KILL).unwrap();
    assert_eq!(endless.build.wait().unwrap().code(), Some(1));
    let said = endless.said();
    assert!(said.contains("the step was ended: it lost its network"), "{said}");
    until("nothing is left", || lab.traces() == before);
    assert_eq!(lab.reached(), [""; 0]);
}

#[test]
fn no_process_can_be_killed_that_keeps_steps_from_the_host() {
    let (lab, place) = (Lab::new(true), Place::new());
    images::busybox(&place);
    let mut endless = Endless::start(&lab, &place);
    assert_eq!(endless.processes("nft"), []);
    // Not even the helper: its steps end with it, and the rules are the builder's too.
    let [helper] = endless.processes("boatyard-init")[..] else { panic!("there should be one") };
    kill_process(helper, Signal::KILL).unwrap();
    assert_eq!(endless.build.wait().unwrap().code(), Some(1));
    assert_eq!(lab.reached(), [""; 0]);
}

#[test]
fn networks_of_steps_are_made_at_the_same_time() {
    let (lab, place) = (Lab::new(false), Place::new());
    images::busybox(&place);
    // A pasta that begins only when there is a second.
    let (programs, begun) = (place.path("programs"), place.path("begun"));
    fs_err::create_dir(&programs).unwrap();
    fs_err::create_dir(&begun).unwrap();
    let path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let script = format!(
        "#!/bin/sh\ncd {begun}\n: > $$\n\
         while [ $(ls | wc -l) -lt 2 ]; do sleep 0.01; done\nPATH={path} exec pasta \"$@\"\n",
        begun = text(&begun)
    );
    fs_err::write(programs.join("pasta"), script).unwrap();
    Run::new("chmod").args(["+x", text(&programs.join("pasta"))]).ok();
    let context = place.context(
        "app",
        "FROM busybox AS one\nRUN echo > /one\n\
         FROM busybox AS two\nRUN echo > /two\n\
         FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
    );
    let path = format!("{}:{path}", text(&programs));
    lab.boatyard(&place, ["build", "--network=default", text(&context)]).env("PATH", path).ok();
}
