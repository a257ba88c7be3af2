//! A real distribution: Debian's minbase is imported and built upon, with packages, a compiler and
//! two stages.
//!
//! debootstrap makes it from the machine's own package sources, once: the archive is kept below
//! the target directory, and later runs need no network.

mod support;

use std::path::Path;

use support::archive::{Edition, Key, Layout, Origin};
use support::clients::{Client as _, Podman};
use support::debian::{archive, repository};
use support::place::text;
use support::proxy::{proxy_of, trusting};
use support::{Place, Server};

fn import(place: &Place) {
    import_at(place, &place.root());
}

fn import_at(place: &Place, root: &Path) {
    let archive = archive();
    let import = ["import", "-c", "CMD [\"bash\"]", text(&archive), "debian:mine"];
    place.boatyard_at(root, import).ok();
}

#[test]
fn packages_are_installed_in_a_step() {
    let place = Place::new();
    import(&place);
    let server = Server::start(&place);
    let image = server.image("greeter:1");
    let context = place.context(
        "greeter",
        "FROM debian:mine\n\
         COPY repository /repository\n\
         RUN echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list \
          && apt-get update && apt-get install -y greet && rm -r /repository\n\
         RUN [\"greet\"]\n\
         CMD [\"greet\"]\n",
    );
    repository(&place, &context.join("repository"));
    let built =
        place.boatyard(["build", "--progress=plain", "--push", "-t", &image, text(&context)]);
    built.ok().says(["Setting up greet (1.0)", "greetings, configured"]);
    let podman = Podman::new(&place);
    assert_eq!(podman.pull(&image), server.http().check_image("greeter", "1"));
    assert_eq!(podman.run(&image).as_deref(), Some("greetings, configured"));
    let root = podman.unpack(&image);
    let status = fs_err::read_to_string(root.join("var/lib/dpkg/status")).unwrap();
    assert!(status.contains("Package: greet\nStatus: install ok installed\n"));
    assert!(!root.join("repository").exists());
    // What dpkg knows of every file of every package still holds in another's unpacked tree.
    place.run("dpkg", ["--root", text(&root), "--verify", "greet", "bash", "coreutils"]).ok();
}

#[test]
fn the_sbom_lists_what_dpkg_lists() {
    let place = Place::new();
    import(&place);
    let context = place.context("listed", "FROM debian:mine\nLABEL a=b\n");
    place.boatyard(["build", "-q", "--sbom", "-t", "listed", text(&context)]).ok();
    let sbom = place.boatyard(["inspect", "--sbom", "listed"]).ok().json();
    let mut listed: Vec<String> = sbom["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["sourceInfo"] == "found in /var/lib/dpkg/status")
        .map(|package| {
            let text = |key: &str| package[key].as_str().unwrap().to_owned();
            format!("{} {}", text("name"), text("versionInfo"))
        })
        .collect();
    let output = format!("type=local,dest={}", text(&place.path("files")));
    place.boatyard(["build", "-q", "--output", &output, text(&context)]).ok();
    let database = place.path("files/var/lib/dpkg");
    let format = "--showformat=${Package} ${Version}\\n";
    let query = ["--admindir", text(&database), "--show", format];
    let mut known: Vec<String> =
        place.run("dpkg-query", query).ok().text().lines().map(str::to_owned).collect();
    listed.sort();
    known.sort();
    assert_eq!(listed, known);
}

#[test]
fn what_is_compiled_in_one_stage_runs_alone_in_another() {
    let place = Place::new();
    import(&place);
    let server = Server::start(&place);
    let (whole, small) = (server.image("whole:1"), server.image("small:1"));
    // Without a C library: tcc links one only dynamically, and scratch has none.
    place.write("hello/hello.c", HELLO);
    let context = place.context(
        "hello",
        "FROM debian:mine AS build\n\
         WORKDIR /src\n\
         COPY hello.c .\n\
         RUN tcc -nostdlib -static -o /hello hello.c && /hello\n\
         FROM scratch\n\
         COPY --from=build /hello /hello\n\
         CMD [\"/hello\"]\n",
    );
    let build = || place.boatyard(["build", "--progress=plain", "--push"]);
    let built = build().args(["--target", "build", "-t", &whole, text(&context)]).ok();
    built.says(["hello, alone"]);
    build().args(["-t", &small, text(&context)]).ok().says(["CACHED"]);
    let bytes = |repository: &str| {
        let manifest = server.http().manifest(repository, "1");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest.body).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["size"].as_u64().unwrap()).sum::<u64>()
    };
    let (whole_bytes, small_bytes) = (bytes("whole"), bytes("small"));
    assert!(whole_bytes > 60 * small_bytes, "{whole_bytes} and {small_bytes} bytes");
    let podman = Podman::new(&place);
    podman.pull(&small);
    assert_eq!(podman.run(&small).as_deref(), Some("hello, alone"));
}

/// The book's case: a builder that has no build cache installs what another one has installed. The
/// bench does so with 100 MB, by a home line.
#[test]
fn a_second_builder_fetches_no_package() {
    const COUNT: usize = 30;
    const BYTES: usize = 340_000;
    let (place, origin, key) = (Place::new(), Origin::start(), Key::new());
    let names: Vec<String> = (0..COUNT).map(|at| format!("large-{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    origin.make(&Edition::large(Layout::BY_HASH, &key, 1, &names, BYTES).whole());
    let upstream = format!("[[proxy.upstream]]\nname = 'deb'\nurl = '{}'\n", origin.url());
    let server = trusting(&place, None, &upstream);
    let argument = format!("http_proxy=http://{}", proxy_of(&server));
    let dockerfile = format!(
        "FROM debian:mine\n\
         RUN --network=host echo 'deb [trusted=yes] {} sid main' > /etc/apt/sources.list \
          && apt-get update && apt-get install -y --no-install-recommends {}\n",
        origin.url(),
        names.join(" ")
    );
    let context = place.context("large", &dockerfile);
    let build = |builder: &str| {
        let root = place.path(builder);
        import_at(&place, &root);
        let build = ["build", "--progress=plain", "--allow=network.host", "--build-arg", &argument];
        let built = place.boatyard_at(&root, build).args(["-t", "large", text(&context)]).ok();
        built.says(["Setting up large-29 (1.0)"]);
        origin.asked()
    };
    let packages = |asked: &[String]| asked.iter().filter(|path| path.ends_with(".deb")).count();
    let first = build("first");
    assert_eq!(packages(&first), COUNT, "{first:?}");
    let second = build("second");
    // Whether the index has changed, and nothing else.
    assert!(second.iter().all(|path| path.ends_with("/InRelease")), "{second:?}");
    assert!(second.len() <= 2, "{second:?}");
}

/// A program that asks the kernel itself.
const HELLO: &str = r#"
static long call(long number, long a, long b, long c)
{
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result)
        : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#else
#error "this test speaks to x86-64 only"
#endif
    return result;
}

void _start(void)
{
    static const char text[] = "hello, alone\n";
    call(1, 1, (long)text, sizeof text - 1);
    call(60, 0, 0, 0);
}
"#;
