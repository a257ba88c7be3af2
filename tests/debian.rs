//! A real distribution: Debian's minbase is imported and built upon, with packages, a compiler and
//! two stages.
//!
//! debootstrap makes it from the machine's own package sources, once: the archive is kept below
//! the target directory, and later runs need no network.

mod support;

use support::clients::{Client as _, Podman};
use support::debian::{archive, repository};
use support::place::text;
use support::{Place, Server};

fn import(place: &Place) {
    place.boatyard(["import", "-c", "CMD [\"bash\"]", text(&archive()), "debian:mine"]).ok();
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
