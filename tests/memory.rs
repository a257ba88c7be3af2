//! Memory does not grow with the size of a blob: a gibibyte goes through every part in less than a
//! tenth of that. And clients that are merely there take little.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by one and tells figures by the other"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use support::origin::Reply;
use support::place::text;
use support::proxy::World;
use support::server::wait_for;
use support::{Place, Run, Server};

/// The size of the blob.
const BLOB_BYTES: u64 = 1 << 30;
/// What a process may need, in kibibytes.
const PEAK_KIB_MAX: u64 = 100_000;
/// How many clients of the cache proxy are connected and ask for nothing.
const IDLE_CLIENTS: u64 = 5_000;
/// What each of them may take, in bytes.
const IDLE_BYTES_MAX: u64 = 6_000;
/// What the process may take with all of them, in kibibytes: 60 MB.
const IDLE_KIB_MAX: u64 = 60_000_000 / 1024;

/// Returns the most memory that a process had at once, in kibibytes; none if it has ended.
fn peak(pid: u32) -> Option<u64> {
    status(pid, "VmHWM:")
}

/// Returns a line of what the kernel says of a process, in kibibytes.
fn status(pid: u32, name: &str) -> Option<u64> {
    let status = fs_err::File::open(format!("/proc/{pid}/status"));
    let status = std::io::read_to_string(status.ok()?).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Waits for a process that must succeed and returns the most memory it was seen to have had.
fn peak_of(mut process: Child) -> u64 {
    let mut most = 0;
    loop {
        most = peak(process.id()).unwrap_or(0).max(most);
        if let Some(status) = process.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return most;
        }
        // The kernel keeps the peak; only what comes after the last look is missed.
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn assert_small(what: &str, peak: u64) {
    println!("{what}: {peak} KiB");
    assert!(peak > 0 && peak < PEAK_KIB_MAX, "{what} had {peak} KiB");
}

fn spawn(run: Run) -> Child {
    run.spawn(Stdio::null(), Stdio::null())
}

#[test]
fn a_gibibyte_passes_through_a_tenth_of_it() {
    let place = Place::new();
    // Holes cost no disk here, and are read as bytes like any others.
    let context = place.context("app", "FROM scratch\nCOPY blob /\n");
    let blob = fs_err::File::create(context.join("blob")).unwrap();
    blob.set_len(BLOB_BYTES).unwrap();
    let server = Server::start(&place);
    let image = server.image("app:1");

    let build =
        place.boatyard(["build", "--compression=uncompressed", "-t", &image, text(&context)]);
    assert_small("build", peak_of(spawn(build)));
    let elsewhere = place.path("client");
    let oci = format!("type=oci,dest={}", text(&place.path("oci.tar")));
    let gzip = place.boatyard_at(&elsewhere, ["build", "-t", &image, "-o", &oci, text(&context)]);
    assert_small("build with gzip", peak_of(spawn(gzip)));
    // From a root of its own, so that the bytes do travel.
    let plain = ["build", "-q", "--compression=uncompressed", "-t", &image, text(&context)];
    place.boatyard_at(&elsewhere, plain).ok();
    assert_small("push", peak_of(spawn(place.boatyard_at(&elsewhere, ["push", &image]))));
    assert_small(
        "pull",
        peak_of(spawn(place.boatyard_at(&place.path("puller"), ["pull", &image]))),
    );

    let manifest = server.http().manifest("app", "1");
    let layer = support::http::needs(&manifest.body).remove(1);
    let url = format!("http://{}/v2/app/blobs/{layer}", server.address());
    place.run("curl", ["-sSf", "-o", "/dev/null", &url]).ok();
    // One request, one body, and nothing that is known of it before it has passed.
    let digest = place.run("sha256sum", [text(&context.join("blob"))]).ok().text();
    let digest = digest.split(' ').next().unwrap();
    let begun = server.http().send("POST", "/v2/raw/blobs/uploads/", "", &[]);
    let session = begun.header("location").unwrap();
    let mark = if session.contains('?') { '&' } else { '?' };
    let upload = format!("http://{}{session}{mark}digest=sha256:{digest}", server.address());
    place
        .run("curl", ["-sSf", "-T", text(&context.join("blob")), "-H", "Expect:"])
        .args(["-H", "Content-Type: application/octet-stream", &upload])
        .ok();
    assert_small("serve", peak(server.pid()).unwrap());
    server.stop();
}

/// Has a request answered, and stays connected.
fn idle(world: &World) -> TcpStream {
    let mut connection = world.connect();
    let url = world.origin.url("/small");
    write!(connection, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"small body") {
        let mut some = [0; 1024];
        let read = connection.read(&mut some).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..read]);
    }
    connection
}

#[test]
fn clients_that_ask_for_nothing_take_little() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let world = World::new("quiet = true\n");
    world.origin.put("/small", Reply::fresh("small body"));
    wait_for("it to be kept", || world.get("/small").cache() == "HIT");
    let taken = || status(world.server.pid(), "RssAnon:").unwrap();
    // What the first ones make serves all others.
    let mut connections: Vec<_> = (0..200).map(|_| idle(&world)).collect();
    let before = taken();
    connections.extend((0..IDLE_CLIENTS).map(|_| idle(&world)));
    let after = taken();
    let each = after.saturating_sub(before) * 1024 / IDLE_CLIENTS;
    let all = status(world.server.pid(), "VmRSS:").unwrap();
    println!(
        "an idle client takes {each} bytes; the process {before}, then {after} KiB, {all} in all"
    );
    assert!(each < IDLE_BYTES_MAX, "{each} bytes each: {before}, then {after} KiB");
    // Of a program that is built for tests, the code alone is larger than that.
    let counted = if cfg!(debug_assertions) { after } else { all };
    assert!(counted < IDLE_KIB_MAX, "{after} KiB of its own, {all} in all");
}
