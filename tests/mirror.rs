//! A mirror of two upstreams, one of them not ours, for the clients that others wrote; and what it
//! does when what lies between fails.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use boatyard_oci::Digest;
use support::clients::{self, Client as _};
use support::place::text;
use support::relay::{Kind, Relay};
use support::server::wait_for;
use support::{Place, Server, images};

/// An upstream with an image of one large layer, a relay to it, and a mirror of that.
struct World {
    relay: Relay,
    upstream: Server,
    mirror: Server,
    layer: Vec<u8>,
    place: Place,
}

const LAYER_BYTES: usize = 3 << 20;

impl World {
    fn new(more: &str) -> World {
        let place = Place::new();
        let upstream = Server::start_at(&place, &place.path("upstream"));
        let layer = images::noise(7, LAYER_BYTES);
        let (config, manifest) = images::image_of(&layer);
        let http = upstream.http();
        for blob in [&layer, &config] {
            assert_eq!(http.push_blob("team/app", blob).status, 201);
        }
        assert_eq!(http.push_manifest("team/app", "1", &manifest).status, 201);
        let relay = Relay::to(upstream.address());
        let mirror = Server::configured(&place, &place.root(), &config_of(&relay, more));
        World { relay, upstream, mirror, layer, place }
    }

    fn layer_path(&self) -> String {
        format!("/v2/up/team/app/blobs/{}", Digest::sha256(&self.layer))
    }

    /// Pulls the layer; `None` where the connection was cut or there is an error.
    fn pull_layer(&self) -> Option<Vec<u8>> {
        let answer = self.mirror.http().get(&self.layer_path());
        let promised: usize = answer.header("content-length")?.parse().ok()?;
        (answer.status == 200 && answer.body.len() == promised).then_some(answer.body)
    }

    /// Pulls the layer with many clients at once.
    fn pull_together(&self, clients: usize) -> Vec<Option<Vec<u8>>> {
        std::thread::scope(|scope| {
            let pulls: Vec<_> = (0..clients).map(|_| scope.spawn(|| self.pull_layer())).collect();
            pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
        })
    }

    fn restart_mirror(&mut self) {
        let config = config_of(&self.relay, "");
        self.mirror = Server::configured(&self.place, &self.place.root(), &config);
    }
}

fn config_of(relay: &Relay, more: &str) -> String {
    format!("[[mirror]]\nname = 'up'\nurl = 'http://{}'\ntag_ttl = '0s'\n{more}", relay.address())
}

#[test]
fn the_fields_clients_pull_through_the_mirror_as_their_settings_say() {
    let place = Place::new();
    let rootfs = images::archive(&place, &images::busybox_tree(&place), "rootfs.tar");
    let upstream = Server::start_at(&place, &place.path("upstream"));
    let skopeo = clients::Skopeo::new(&place);
    let pushed = skopeo.push_new(&rootfs, &upstream.image("library/app:1"));
    let relay = Relay::to(upstream.address());
    // What stands for Docker Hub here is on loopback, so the mirror is called by Hub's name.
    let config = format!(
        "[[mirror]]\nname = 'docker.io'\nurl = 'http://{}'\ndefault = true\n",
        relay.address()
    );
    let mirror = Server::configured(&place, &place.path("mirror"), &config);
    let server = format!("http://{}", mirror.address());
    let machine = place.path("machine");
    for client in ["docker", "containerd", "podman"] {
        place
            .boatyard(["client-config", client, "--server", &server, "--mirror", "docker.io"])
            .args(["--write", "--prefix", text(&machine)])
            .ok();
    }

    let daemon_json = machine.join("etc/docker/daemon.json");
    let docker = clients::Docker::start_with(&place, ["--config-file", text(&daemon_json)]);
    assert_eq!(docker.pull("app:1"), pushed, "dockerd");
    drop(docker);
    let containerd = clients::Containerd::start(&place);
    let hosts = machine.join("etc/containerd/certs.d");
    containerd.pull_by("docker.io/library/app:1", &hosts);
    assert_eq!(containerd.digest_of("docker.io/library/app:1"), pushed, "containerd");
    drop(containerd);
    let registries = machine.join("etc/containers/registries.conf.d/50-boatyard.conf");
    let podman = clients::Podman::new(&place);
    assert_eq!(podman.pull_by("docker.io/library/app:1", &registries), pushed, "podman");
    place.write("home/.config/containers/registries.conf", fs_err::read(&registries).unwrap());
    let inspected = place
        .run("skopeo", ["inspect", "--no-tags", "--format", "{{.Digest}}"])
        .arg("docker://docker.io/library/app:1")
        .ok();
    assert_eq!(inspected.text().trim(), pushed.to_string(), "skopeo");

    let blobs = relay.asked().into_iter().filter(|asked| asked.contains("/blobs/"));
    let mut blobs: Vec<_> = blobs.collect();
    blobs.sort();
    let all = blobs.len();
    blobs.dedup();
    assert_eq!((all, blobs.len()), (2, 2), "each blob was fetched once for all four: {blobs:?}");
    mirror.stop();
}

#[test]
fn a_registry_that_is_not_ours_is_mirrored_byte_for_byte() {
    let place = Place::new();
    let data = place.path("distribution");
    let theirs = support::distribution::Distribution::start(&place, &data);
    let rootfs = images::archive(&place, &images::busybox_tree(&place), "rootfs.tar");
    let skopeo = clients::Skopeo::new(&place);
    let pushed = skopeo.push_new(&rootfs, &format!("{}/team/app:1", theirs.address()));
    let relay = Relay::to(theirs.address());
    // Not the root in which the image was made: that would know its layers already.
    let mirror = Server::configured(&place, &place.path("mirror"), &config_of(&relay, ""));
    for _ in 0..2 {
        assert_eq!(mirror.http().check_image("up/team/app", "1"), pushed);
    }
    let blobs = relay.asked().iter().filter(|asked| asked.contains("/blobs/")).count();
    assert_eq!(blobs, 2);
}

#[test]
fn many_clients_cost_one_transfer_and_a_slow_upstream_is_read_while_it_sends() {
    let world = World::new("");
    world.mirror.http().get("/v2/up/team/app/manifests/1");
    world.relay.asked();
    world.relay.body_bytes();
    world.relay.harm("/blobs/", Kind::Throttle(64 << 10), u64::MAX);
    for pulled in world.pull_together(32) {
        assert_eq!(pulled.as_deref(), Some(&world.layer[..]));
    }
    assert_eq!(world.relay.asked().len(), 1);
    assert_eq!(world.relay.body_bytes(), LAYER_BYTES as u64);
    assert!(world.upstream.http().get("/readyz").status == 200);
}

#[test]
fn broken_connections_are_resumed() {
    let world = World::new("");
    world.mirror.http().get("/v2/up/team/app/manifests/1");
    world.relay.asked();
    world.relay.harm("/blobs/", Kind::Truncate(1_000_000), 2);
    for pulled in world.pull_together(32) {
        assert_eq!(pulled.as_deref(), Some(&world.layer[..]));
    }
    assert_eq!(world.relay.asked().len(), 3, "begun once, resumed twice");
}

#[test]
fn wrong_bytes_are_never_given_whole_nor_kept() {
    for kind in [Kind::Corrupt, Kind::Lie(10)] {
        let world = World::new("");
        world.mirror.http().get("/v2/up/team/app/manifests/1");
        world.relay.harm("/blobs/", kind.clone(), u64::MAX);
        for pulled in world.pull_together(32) {
            assert_eq!(pulled, None, "{kind:?}");
        }
        world.relay.pass();
        assert_eq!(world.pull_layer().as_deref(), Some(&world.layer[..]), "{kind:?}");
    }
}

#[test]
fn errors_name_the_upstream_and_what_is_kept_is_answered() {
    let world = World::new("");
    let kept = world.mirror.http().get("/v2/up/team/app/manifests/1");
    assert_eq!(kept.status, 200);
    let kinds = [
        (Kind::Status(503, String::new()), 502),
        (Kind::Status(429, "Retry-After: 1000\r\n".to_owned()), 429),
        (Kind::Close, 502),
    ];
    for (kind, status) in kinds {
        world.relay.harm("", kind.clone(), u64::MAX);
        let again = world.mirror.http().get("/v2/up/team/app/manifests/1");
        assert_eq!((again.status, &again.body), (200, &kept.body), "{kind:?}");
        let other = world.mirror.http().get("/v2/up/team/other/manifests/1");
        assert_eq!(other.status, status, "{kind:?}: {}", other.text());
        assert!(other.text().contains(world.relay.address()), "{}", other.text());
        world.relay.pass();
        // An upstream that failed is left alone for a moment.
        wait_for("the mirror to ask again", || {
            world.mirror.http().get("/v2/up/team/none/manifests/1").status == 404
        });
    }
}

#[test]
fn nothing_is_shown_to_a_strange_realm_and_nothing_followed_with_credentials() {
    let place = Place::new();
    let password = place.write("password", "hunter2\n");
    let stranger = Relay::to("127.0.0.1:1");
    let upstream = Server::start_at(&place, &place.path("upstream"));
    let relay = Relay::to(upstream.address());
    let realm = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"x\"\r\n",
        stranger.address().replace("127.0.0.1", "localhost")
    );
    relay.harm("", Kind::Status(401, realm), u64::MAX);
    let more = format!("username = 'me'\npassword_file = '{}'\n", text(&password));
    let mirror = Server::configured(&place, &place.root(), &config_of(&relay, &more));
    let answer = mirror.http().get("/v2/up/team/app/manifests/1");
    assert!(answer.status >= 400, "{}", answer.text());
    assert_eq!(stranger.shown(), [""; 0], "the stranger saw no credentials");
    let location = format!("Location: http://{}/elsewhere\r\n", stranger.address());
    relay.harm("", Kind::Status(307, location), u64::MAX);
    mirror.http().get("/v2/up/team/app/manifests/2");
    assert_eq!(stranger.shown(), [""; 0]);
}

#[test]
fn a_server_that_is_killed_goes_on_where_it_was() {
    let mut world = World::new("");
    world.mirror.http().get("/v2/up/team/app/manifests/1");
    world.relay.asked();
    world.relay.harm("/blobs/", Kind::Stall(2 << 20), 1);
    let path = world.layer_path();
    std::thread::scope(|scope| {
        let http = world.mirror.http();
        scope.spawn(move || http.get(&path));
        wait_for("half of it to arrive", || world.relay.body_bytes() > 0);
        wait_for("the relay to be asked", || !world.relay.asked().is_empty());
        // Its destructor kills the server: the client above sees its connection cut.
        world.mirror.kill_now();
    });
    world.relay.pass();
    world.restart_mirror();
    assert_eq!(world.pull_layer().as_deref(), Some(&world.layer[..]));
}

#[test]
fn the_first_client_may_die_and_the_upstream_too() {
    let world = World::new("");
    world.mirror.http().get("/v2/up/team/app/manifests/1");
    world.relay.asked();
    world.relay.harm("/blobs/", Kind::Throttle(16 << 10), u64::MAX);
    let url = format!("http://{}{}", world.mirror.address(), world.layer_path());
    let curl = world.place.run("curl", ["-s", "-o", "/dev/null", &url]);
    let mut first = curl.spawn(std::process::Stdio::null(), std::process::Stdio::null());
    wait_for("the first bytes", || world.relay.body_bytes() > 0);
    let pulled = std::thread::scope(|scope| {
        let others = scope.spawn(|| world.pull_together(31));
        wait_for("more bytes", || world.relay.body_bytes() > 0);
        first.kill().unwrap();
        first.wait().unwrap();
        world.relay.cut();
        others.join().unwrap()
    });
    for pulled in pulled {
        assert_eq!(pulled.as_deref(), Some(&world.layer[..]));
    }
    let asked = world.relay.asked();
    assert!((1..=4).contains(&asked.len()), "begun once, and resumed: {asked:?}");
}

#[test]
fn the_limit_is_kept_and_hosted_content_stays() {
    let world = World::new("max_size = '1MB'\n");
    let hosted = images::noise(9, 2_000_000);
    assert_eq!(world.mirror.http().push_blob("mine/app", &hosted).status, 201);
    world.mirror.http().get("/v2/up/team/app/manifests/1");
    assert!(world.pull_layer().is_some());
    let links = world.place.root().join("mirror");
    let kept = || walkdir(&links).iter().filter(|path| path.contains("/_blobs/sha256:")).count();
    wait_for("the mirror to forget", || kept() == 0);
    world.mirror.http().check_blob("mine/app", &Digest::sha256(&hosted).to_string());
    assert_eq!(world.pull_layer().as_deref(), Some(&world.layer[..]), "it is fetched again");
}

fn walkdir(directory: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in fs_err::read_dir(&next).into_iter().flatten().flatten() {
            found.push(text(&entry.path()).to_owned());
            waiting.push(entry.path());
        }
    }
    found
}

#[test]
fn images_are_fetched_ahead_and_served_without_the_upstream() {
    let world = World::new("");
    let config = world.place.path("root.toml");
    let boatyard =
        |args: &[&str]| world.place.boatyard([]).env("BOATYARD_CONFIG", &config).args(args);
    boatyard(&["mirror", "fetch", "up/team/app:1"]).ok();
    let listed = boatyard(&["mirror", "list"]).ok().text();
    assert!(listed.contains("team/app"), "{listed}");
    world.relay.harm("", Kind::Close, u64::MAX);
    let status = boatyard(&["mirror", "status"]).ok().text();
    assert!(status.contains("no: "), "{status}");
    assert_eq!(world.pull_layer().as_deref(), Some(&world.layer[..]));
    boatyard(&["mirror", "fetch", "nowhere.example/x:1"]).fails(1);
}
