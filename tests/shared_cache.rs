//! Caches of many machines: what one machine built, another one does not build again. Each machine is
//! a root of its own; bytes are counted by a relay.

mod support;

use std::path::{Path, PathBuf};

use support::built::Built;
use support::distribution::Distribution;
use support::place::text;
use support::relay::{Kind, Relay};
use support::{Place, Run, Server, images};

/// The bytes of the layers that [`application`] makes, at least.
const LAYER_BYTES: u64 = 2 << 20;

/// A registry and an image to begin with.
struct World {
    place: Place,
    base: PathBuf,
}

impl World {
    fn new() -> World {
        let place = Place::new();
        images::busybox(&place);
        let base = place.path("base.tar");
        place.boatyard(["save", "-o", text(&base), "busybox"]).ok();
        World { place, base }
    }

    /// Returns a machine that has built nothing yet.
    fn machine(&self, name: &str) -> Machine<'_> {
        let machine = Machine { world: self, root: self.place.path(name) };
        machine.boatyard(["load", "-q", "-i", text(&self.base)]).ok();
        machine
    }

    /// An application whose stages and steps make layers that are large.
    fn application(&self, name: &str) -> PathBuf {
        let context = self.place.context(
            name,
            "FROM busybox AS build\n\
             COPY large /src/large\n\
             RUN cat /proc/sys/kernel/random/uuid > /made; cat /src/large > /out\n\
             FROM busybox\n\
             WORKDIR /app\n\
             COPY --from=build /out /made /app/\n\
             COPY config /app/\n\
             RUN cat config made > both\n\
             CMD [\"cat\", \"/app/both\"]\n",
        );
        self.place.write(&format!("{name}/large"), images::noise(1, LAYER_BYTES as usize));
        self.place.write(&format!("{name}/config"), "one\n");
        context
    }
}

const APPLICATION: [&str; 6] = [
    "COPY --from=build /out /made /app/",
    "COPY config /app/",
    "COPY large /src/large",
    "RUN cat /proc/sys/kernel/random/uuid > /made; cat /src/large > /out",
    "RUN cat config made > both",
    "WORKDIR /app",
];

struct Machine<'a> {
    world: &'a World,
    root: PathBuf,
}

impl Machine<'_> {
    fn boatyard<const N: usize>(&self, args: [&str; N]) -> Run {
        self.world.place.boatyard_at(&self.root, args)
    }

    fn build(&self, context: &Path) -> Run {
        self.boatyard(["build", "--progress=json", text(context)])
    }
}

#[track_caller]
fn built(run: Run) -> Built {
    Built::of(&run.ok())
}

#[track_caller]
fn all_cached(built: &Built) {
    assert_eq!(built.that_are("cached"), APPLICATION, "{built}");
}

#[test]
fn a_second_machine_builds_nothing_and_moves_hardly_a_byte() {
    let world = World::new();
    let context = world.application("app");
    let server = Server::start_at(&world.place, &world.place.path("registry"));
    let relay = Relay::to(server.address());
    let cache = format!("{}/team/app", relay.address());
    let push = |machine: &Machine<'_>, tag: &str| {
        let name = format!("{cache}:{tag}");
        built(machine.build(&context).args(["--cache", &cache, "--push", "-t", &name]))
    };
    let first = push(&world.machine("one"), "1");
    first.ran(APPLICATION);
    relay.asked();
    relay.body_bytes();

    let two = world.machine("two");
    let second = push(&two, "2");
    all_cached(&second);
    assert_eq!(second.digest, first.digest);
    // What it read: the cache's manifest and its records. What it wrote: a manifest.
    let asked = relay.asked();
    let read = asked.iter().filter(|it| it.starts_with("GET ") && it.contains("/blobs/"));
    assert_eq!(read.count(), 1, "{asked:#?}");
    assert!(!asked.iter().any(|it| it.starts_with("PATCH ")), "{asked:#?}");
    let bytes = relay.body_bytes();
    assert!(bytes < 40_000, "{bytes} bytes came");

    // The base is not in the way of one that needs bytes: the last step runs, on what is brought.
    world.place.write("app/config", "two\n");
    let third = push(&two, "3");
    third.ran(["COPY config /app/", "RUN cat config made > both"]);
    assert!(relay.body_bytes() > LAYER_BYTES);
    // And what was brought is not brought again.
    world.place.write("app/config", "three\n");
    push(&two, "4").ran(["COPY config /app/", "RUN cat config made > both"]);
    let bytes = relay.body_bytes();
    assert!(bytes < 60_000, "{bytes} bytes came");
    two.boatyard(["fsck"]).ok();
    // Who asks is told, and nothing runs.
    world.place.write("app/large", "other");
    let three = world.machine("three");
    let tagged = format!("{cache}:buildcache");
    let told = three.boatyard(["cache", "explain", &tagged, text(&context)]).ok().text();
    assert!(told.contains("found      [stage-1 2/5] WORKDIR /app\n"), "{told}");
    assert!(told.contains("not found  [build 2/3] COPY large /src/large (line 2): "), "{told}");
    assert!(told.contains("1 steps are in"), "{told}");
    server.stop();
}

#[test]
fn what_a_machine_keeps_is_exported_and_imported_without_a_build() {
    let world = World::new();
    let context = world.application("app");
    let cache = world.place.path("cache");
    let (to, from) =
        (format!("type=local,dest={}", text(&cache)), format!("type=local,src={}", text(&cache)));
    let one = world.machine("one");
    let first = built(one.build(&context));
    one.boatyard(["cache", "export", &to]).ok();
    let two = world.machine("two");
    let imported = two.boatyard(["cache", "import", &from]).ok().text();
    assert!(imported.contains("steps, "), "{imported}");
    fs_err::remove_dir_all(&cache).unwrap();
    let second = built(two.build(&context).arg("--offline"));
    all_cached(&second);
    assert_eq!(second.digest, first.digest);
    two.boatyard(["fsck"]).ok();
    two.boatyard(["cache", "import", &from]).fails(1).says(["there is no cache"]);
}

#[test]
fn an_image_that_is_kept_has_all_its_layers() {
    let world = World::new();
    let context = world.application("app");
    let cache = world.place.path("cache");
    let to = format!("type=local,dest={},mode=max", text(&cache));
    let from = format!("type=local,src={}", text(&cache));
    let first = built(world.machine("one").build(&context).args(["--cache-to", &to]));
    let two = world.machine("two");
    let build = two.build(&context).args(["--cache-from", &from, "-t", "app"]);
    let second = built(build);
    all_cached(&second);
    assert_eq!(second.digest, first.digest);
    two.boatyard(["fsck"]).ok();
    let ran = two.boatyard(["run", "--rm", "app"]).ok().text();
    assert!(ran.starts_with("one\n"), "{ran}");
    // A cache that lost a blob is no reason to fail.
    let blobs = fs_err::read_dir(cache.join("blobs/sha256")).unwrap();
    let large = blobs.map(|blob| blob.unwrap().path());
    let large: Vec<_> = large.filter(|path| path.metadata().unwrap().len() > LAYER_BYTES).collect();
    assert!(!large.is_empty());
    large.iter().for_each(|path| fs_err::write(path, "other bytes").unwrap());
    world.place.write("app/config", "two\n");
    let three = world.machine("three");
    let ran = three.build(&context).args(["--cache-from", &from]).ok();
    ran.says(["cannot fetch the blob", "building again without imported caches"]);
    three.boatyard(["fsck"]).ok();
    // Nor is one that is none.
    fs_err::write(cache.join("index.json"), "{").unwrap();
    let ran = world.machine("four").build(&context).args(["--cache-from", &from]).ok();
    ran.says(["warning: ", "is no OCI layout"]);
    Built::of(&ran).ran(APPLICATION);
}

#[test]
fn the_layers_of_a_base_come_where_a_step_needs_its_files() {
    let world = World::new();
    let server = Server::start_at(&world.place, &world.place.path("registry"));
    let relay = Relay::to(server.address());
    let image = |name: &str| format!("{}/team/{name}", relay.address());
    let base = image("base:1");
    world.place.boatyard(["push", "busybox", &base]).ok();
    let text = format!("FROM {base}\nRUN cat /proc/sys/kernel/random/uuid > /made\nCOPY word /\n");
    let context = world.place.context("app", &text);
    world.place.write("app/word", "one\n");
    let cache = image("cache:1");
    let to = format!("type=registry,ref={cache},mode=max");
    // These have no image at all.
    let machine = |name: &str| Machine { world: &world, root: world.place.path(name) };
    built(machine("one").build(&context).args(["--cache-to", &to]))
        .ran(["COPY word /", "RUN cat /proc/sys/kernel/random/uuid > /made"]);
    let blobs = |relay: &Relay| {
        let asked = relay.asked();
        let blobs = asked.iter().filter(|it| it.starts_with("GET ") && it.contains("/blobs/"));
        (blobs.count(), asked)
    };
    blobs(&relay);

    let two = machine("two");
    let from = ["--cache-from", &cache, "--push", "-t", &image("app:1")];
    built(two.build(&context).args(from)).ran([]);
    // The records of the cache, and the configuration of the base. Both repositories lend their layers.
    let (read, asked) = blobs(&relay);
    assert_eq!(read, 2, "{asked:#?}");
    let lent = |from: &str| asked.iter().any(|it| it.starts_with("POST ") && it.contains(from));
    assert!(lent("from=team%2Fbase") || lent("from=team/base"), "{asked:#?}");
    let sent = asked.iter().filter(|it| it.starts_with("PATCH ")).count();
    assert!(sent <= 1, "only the configuration is new: {asked:#?}");
    assert_eq!(two.boatyard(["images", "-q"]).ok().text(), "", "it has no whole image");

    // A step that runs needs the files: then the base is an image of this machine as any other.
    world.place.write("app/word", "two\n");
    built(two.build(&context).args(["--cache-from", &cache, "-t", "app"])).ran(["COPY word /"]);
    assert_eq!(blobs(&relay).0, 2, "the layers of the base, and of the step that was found");
    assert!(two.boatyard(["images"]).ok().text().contains("/team/base"));
    let ran = two.boatyard(["run", "--rm", "app", "cat", "/word"]).ok().text();
    assert_eq!(ran, "two");
    two.boatyard(["fsck"]).ok();
    // An image that is kept has all its layers, whoever made them.
    world.place.write("app/word", "one\n");
    let three = machine("three");
    built(three.build(&context).args(["--cache-from", &cache, "-t", "app"])).ran([]);
    let ran = three.boatyard(["run", "--rm", "app", "cat", "/word"]).ok().text();
    assert_eq!(ran, "one");
    three.boatyard(["fsck"]).ok();
    // What the registry has lost is told where it is needed.
    relay.harm("/team/base/blobs/", Kind::Status(404, String::new()), 1000);
    world.place.write("app/word", "three\n");
    let failed = machine("four").build(&context).args(["--cache-from", &cache]).fails(1);
    failed.says([&*format!("cannot fetch {base}")]);
    server.stop();
}

#[test]
fn what_is_said_of_an_image_is_the_same_from_a_cache() {
    let world = World::new();
    let server = Server::start_at(&world.place, &world.place.path("registry"));
    let base = server.image("base:1");
    world.place.boatyard(["push", "busybox", &base]).ok();
    let text = format!("FROM {base}\nCOPY status /var/lib/dpkg/status\nRUN echo b > /b\n");
    let context = world.place.context("app", &text);
    let status = "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1-1\n";
    world.place.write("app/status", status);
    let name = server.image("app:1");
    let build = |root: &str, options: &[&str]| {
        let machine = Machine { world: &world, root: world.place.path(root) };
        let build = machine.build(&context).args(["--push", "-t", &name]);
        let build = build.args(["--provenance=max", "--sbom"]).args(options);
        built(build.env("SOURCE_DATE_EPOCH", "1700000000"))
    };
    let cache = server.image("cache:1");
    let alone = build("alone", &[]);
    let to = format!("type=registry,ref={cache},mode=max");
    build("one", &["--cache-to", &to]).ran(["COPY status /var/lib/dpkg/status", "RUN echo b > /b"]);
    let two = build("two", &["--cache-from", &cache]);
    two.ran([]);
    assert_eq!(two.digest, alone.digest, "the index lists the attestations");
    let sbom = world.place.boatyard(["inspect", "--sbom", &name]).ok().json();
    assert_eq!(sbom["packages"][1]["name"], "tool");
    server.stop();
}

#[test]
fn the_reference_registry_takes_caches_too() {
    let world = World::new();
    let context = world.application("app");
    let registry = Distribution::start(&world.place, &world.place.path("distribution"));
    let name = format!("{}/app:cache", registry.address());
    let to = format!("type=registry,ref={name},mode=max");
    built(world.machine("one").build(&context).args(["--cache-to", &to])).ran(APPLICATION);
    let two = world.machine("two");
    all_cached(&built(two.build(&context).args(["--cache-from", &name, "--cache-to", &to])));
    // Others read it as what it is: a manifest with blobs.
    let copy = format!("docker://{name}");
    let inspect = ["inspect", "--raw", "--tls-verify=false", &copy];
    let manifest = world.place.run("skopeo", inspect).ok().json();
    assert_eq!(manifest["artifactType"], "application/vnd.boatyard.cache.v1+json");
    assert!(manifest["layers"].as_array().unwrap().len() >= 6, "{manifest}");
}

#[test]
fn an_image_tells_of_its_own_steps() {
    let world = World::new();
    let context = world.application("app");
    let server = Server::start_at(&world.place, &world.place.path("registry"));
    let name = server.image("app:1");
    let push = |machine: &Machine<'_>| {
        machine.build(&context).args(["--cache-to=type=inline", "--push", "-t", &name])
    };
    let first = built(push(&world.machine("one")));
    let two = world.machine("two");
    let second = built(push(&two).args(["--cache-from", &name]));
    // The other stage is not in the image: its steps run again, and make something else.
    second.ran([
        "COPY --from=build /out /made /app/",
        "COPY config /app/",
        "COPY large /src/large",
        "RUN cat /proc/sys/kernel/random/uuid > /made; cat /src/large > /out",
        "RUN cat config made > both",
    ]);
    assert_ne!(second.digest, first.digest);
    // What has one stage is found whole.
    let context =
        world.place.context("flat", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /a\n");
    let name = server.image("flat:1");
    let push = |machine: &Machine<'_>| {
        machine.build(&context).args(["--cache-to=type=inline", "--push", "-t", &name])
    };
    let first = built(push(&world.machine("three")));
    let second = built(push(&world.machine("four")).args(["--cache-from", &name]));
    second.ran([]);
    assert_eq!(second.digest, first.digest);
    // A cache does not take an image's tag.
    let to = format!("type=registry,ref={name}");
    let refused = two.build(&context).args(["--cache-to", &to]).fails(1);
    refused.says(["is an image, and no cache", "a tag of its own"]);
    server.stop();
}

#[test]
fn machines_that_export_at_once_lose_nothing() {
    const MACHINES: usize = 5;
    let world = World::new();
    let server = Server::start_at(&world.place, &world.place.path("registry"));
    let cache = server.image("cache");
    let contexts: Vec<PathBuf> = (0..MACHINES)
        .map(|number| {
            let text = format!("FROM busybox\nRUN echo {number} > /number\n");
            world.place.context(&format!("app-{number}"), &text)
        })
        .collect();
    let machines: Vec<Machine<'_>> =
        (0..MACHINES).map(|number| world.machine(&format!("machine-{number}"))).collect();
    std::thread::scope(|scope| {
        for (machine, context) in machines.iter().zip(&contexts) {
            let cache = &cache;
            scope.spawn(move || machine.build(context).args(["--cache", cache]).ok());
        }
    });
    let last = world.machine("last");
    for context in &contexts {
        built(last.build(context).args(["--cache", &cache])).ran([]);
    }
    // One tag, and of all the manifests that were replaced none is left.
    let listed = server.http().get("/v2/cache/tags/list");
    let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(listed["tags"], serde_json::json!(["buildcache"]));
    let manifests = world.place.path("registry/hosted/cache/_manifests");
    assert_eq!(fs_err::read_dir(manifests).unwrap().count(), 1);
    // Whoever comes late moves no tag.
    let http = server.http();
    let path = "/v2/cache/manifests/buildcache";
    let there = http.manifest("cache", "buildcache");
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    let put = |condition: &str| {
        http.send("PUT", path, &format!("{kind}{condition}\r\n"), &there.body).status
    };
    let other = boatyard_oci::Digest::sha256(b"another manifest");
    let same = there.header("docker-content-digest").unwrap().to_owned();
    assert_eq!(put(&format!("If-Match: \"{other}\"")), 412);
    assert_eq!(put("If-None-Match: *"), 412);
    assert_eq!(put("If-Match: latest"), 400);
    assert_eq!(put(&format!("If-Match: \"{same}\"")), 201);
    server.stop();
}

#[test]
fn a_cache_that_lies_is_left_out() {
    let world = World::new();
    let context = world.application("app");
    let server = Server::start_at(&world.place, &world.place.path("registry"));
    let relay = Relay::to(server.address());
    let cache = format!("{}/cache:1", relay.address());
    let to = format!("type=registry,ref={cache},mode=max");
    built(world.machine("one").build(&context).args(["--cache-to", &to])).ran(APPLICATION);
    // The records are others than the manifest says.
    relay.harm("/blobs/sha256", Kind::Corrupt, 1000);
    let ran = world.machine("two").build(&context).args(["--cache-from", &cache]).ok();
    ran.says(["warning: cannot read"]);
    Built::of(&ran).ran(APPLICATION);
    // The registry is away.
    relay.harm("/manifests/", Kind::Status(404, String::new()), 1000);
    let ran = world.machine("three").build(&context).args(["--cache-from", &cache]).ok();
    ran.says(["there is no cache"]);
    // What cannot be written is an error, or a warning for whom it is none.
    relay.harm("/blobs/uploads", Kind::Status(403, String::new()), 1000);
    let four = world.machine("four");
    let to = format!("type=registry,ref={}/other:1,mode=max", relay.address());
    let failed = four.build(&context).args(["--cache-to", &to, "-t", "kept"]).fails(1);
    failed.says(["cannot push the cache"]);
    four.boatyard(["inspect", "kept"]).ok();
    let to = format!("{to},ignore-error=true");
    four.build(&context).args(["--cache-to", &to]).ok().says(["cannot push the cache"]);
    server.stop();
}

#[test]
fn cache_mounts_travel_in_increments_and_without_secrets() {
    let world = World::new();
    let cache = world.place.path("cache");
    let to = format!("type=local,dest={},mode=max,mounts=true", text(&cache));
    let from = format!("type=local,src={}", text(&cache));
    world.place.write("token", "hunter2-and-more");
    let secret = format!("id=token,src={}", text(&world.place.path("token")));
    let context = |name: &str, command: &str| {
        let text = format!(
            "FROM busybox\n\
             RUN --mount=type=cache,id=deps,target=/deps --mount=type=secret,id=token {command}\n"
        );
        world.place.context(name, &text)
    };
    let fill = "dd if=/dev/urandom of=/deps/large bs=1k count=2000; echo a > /deps/small; \
                cat /run/secrets/token > /deps/leak; ln -s small /deps/link; chown 7:8 /deps/small";
    let one = world.machine("one");
    let first =
        one.build(&context("fill", fill)).args(["--cache-to", &to, "--secret", &secret]).ok();
    first.says(["a secret of this build stands in 1 files", "`leak`"]);
    // Another machine, another step: it finds what the first one kept, but for the secret.
    let look = "cat /deps/link > /found; stat -c %u:%g /deps/small >> /found; \
                test $(stat -c %s /deps/large) = 2048000; test ! -e /deps/leak; echo b > /deps/new";
    let two = world.machine("two");
    let options = ["--cache-from", &from, "--cache-to", &to, "--secret", &secret, "-t", "found"];
    let ran = two.build(&context("look", look)).args(options).ok();
    assert_eq!(two.boatyard(["run", "--rm", "found", "cat", "/found"]).ok().text(), "a\n7:8");
    // Only what is new went back.
    let sent = ran.stderr.lines().find(|line| line.starts_with("cache  ")).unwrap();
    assert!(sent.ends_with("kB sent"), "{sent}");
    let three = world.machine("three");
    let all = context("all", "cat /deps/new /deps/small > /found");
    three.build(&all).args(["--cache-from", &from, "-t", "found"]).ok();
    assert_eq!(three.boatyard(["run", "--rm", "found", "cat", "/found"]).ok().text(), "b\na");
    let bytes: Vec<u8> = fs_err::read_dir(cache.join("blobs/sha256"))
        .unwrap()
        .flat_map(|blob| fs_err::read(blob.unwrap().path()).unwrap())
        .collect();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
}
