//! What build steps reach: the world, by name, and nothing of the machine that they run on; and
//! that nothing is left of their networks, however a build ends.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::process::{Child, Stdio};

use support::lab::{HOST, Lab, OUTSIDE};
use support::place::text;
use support::{Place, images, until};

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
    let links = support::Run::new("ip").args(["-n", &lab.host, "-6", "-o", "addr"]).ok().text();
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
        lab.boatyard(&place, ["build", "--progress=plain", "--network=default", text(&context)])
            .ok()
    };

    // The services do answer those who share the host's network.
    build("host", &asking("--network=host", &HOST));
    assert_eq!(lab.reached(), ["host tcp", "host udp"]);

    build("outside", &asking("", &OUTSIDE));
    assert_eq!(lab.reached(), ["outside tcp", "outside udp"]);

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

#[test]
fn a_network_that_is_asked_for_by_name_is_not_replaced_by_the_hosts() {
    let (lab, place) = (Lab::new(false), Place::new());
    images::busybox(&place);
    let context = place.context("app", "FROM busybox\nRUN true\n");
    // Neither forwarding nor pasta, for that is no administrator's program.
    let without_path = |options: &[&str]| {
        place
            .run("ip", ["netns", "exec", &lab.host, "env", "PATH=/nowhere"])
            .arg(env!("CARGO_BIN_EXE_boatyard"))
            .args(["build", "--progress=plain"])
            .args(options)
            .arg(&context)
            .env("BOATYARD_ROOT", place.root())
    };
    without_path(&["--network=default"]).fails(1).says([
        "cannot give this step a network of its own",
        "this machine does not forward IPv4",
        "pasta is not installed (package passt)",
    ]);
    without_path(&[]).ok().says([
        "RUN steps share this machine's network, because they cannot have one of their own: \
         there is no way out: this machine does not forward IPv4",
        "pasta is not installed (package passt)",
    ]);
}

/// Starts a build whose RUN says that it runs and goes on for ever; returns when it said so.
fn endless(lab: &Lab, place: &Place) -> Child {
    let context = place.context("endless", "FROM busybox\nRUN echo it runs; sleep 1000000\n");
    let log = place.path("endless.log");
    let output =
        || Stdio::from(std::fs::File::options().append(true).create(true).open(&log).unwrap());
    let child = lab
        .boatyard(place, ["build", "--progress=plain", "--network=default", text(&context)])
        .spawn(output(), output());
    until("the step runs", || {
        fs_err::read_to_string(&log).unwrap_or_default().contains(" it runs\n")
    });
    child
}

fn a_killed_build_leaves_nothing(lab: &Lab) {
    let place = Place::new();
    images::busybox(&place);
    let before = lab.traces();
    let mut one = endless(lab, &place);
    assert_ne!(lab.traces(), before);
    // Another build beside it neither disturbs it nor clears it away.
    let context = place.context("other", &asking("", &OUTSIDE));
    lab.boatyard(&place, ["build", "--network=default", text(&context)]).ok();
    assert_eq!(lab.reached(), ["outside tcp", "outside udp"]);
    assert!(one.try_wait().unwrap().is_none());

    one.kill().unwrap();
    one.wait().unwrap();
    until("nothing is left", || lab.traces() == before);
}

#[test]
fn a_killed_build_leaves_nothing_in_the_kernel() {
    a_killed_build_leaves_nothing(&Lab::new(true));
}

#[test]
fn a_killed_build_leaves_no_pasta() {
    a_killed_build_leaves_nothing(&Lab::new(false));
}
