//! A real distribution: Debian's minbase is imported and built upon, with packages, a compiler and
//! two stages.
//!
//! debootstrap makes it from the machine's own package sources, once: the archive is kept below
//! the target directory, and later runs need no network.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::path::{Path, PathBuf};

use boatyard_oci::Digest;
use support::clients::{Client as _, Podman};
use support::place::text;
use support::{Place, Run, Server};

/// Returns the archive of a Debian that has a small C compiler.
fn debian() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let archive = cache.join("debian-minbase-tcc.tar");
    // One test makes it, and the others wait.
    let lock = fs_err::File::create(cache.join("debian-minbase-tcc.lock")).unwrap();
    lock.file().lock().unwrap();
    if !archive.exists() {
        let (mirror, release) = mirror();
        let scratch = tempfile::tempdir_in(cache).unwrap();
        let (tree, part) = (scratch.path().join("tree"), scratch.path().join("part.tar"));
        Run::new("debootstrap")
            .args(["--variant=minbase", "--include=tcc,libc6-dev"])
            .args([&release, text(&tree), &mirror])
            .ok();
        Run::new("tar")
            .args(["--numeric-owner", "--xattrs", "--one-file-system", "-C", text(&tree)])
            .args(["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./dev/*"])
            .args(["-cf", text(&part), "."])
            .ok();
        fs_err::rename(part, &archive).unwrap();
    }
    archive
}

/// Returns the mirror and the release that this machine takes its packages from.
fn mirror() -> (String, String) {
    let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"];
    let targets = Run::new("apt-get").args(format).ok().text();
    // Updates and security fixes are in suites of their own, whose names have a dash.
    let main = targets.lines().filter_map(|line| line.split_once(' '));
    let main = main.filter(|(_, release)| !release.contains('-')).collect::<Vec<_>>();
    let (mirror, release) = main.first().expect("apt has sources");
    ((*mirror).to_owned(), (*release).to_owned())
}

fn import(place: &Place) {
    place.boatyard(["import", "-c", "CMD [\"bash\"]", text(&debian()), "debian:mine"]).ok();
}

/// Makes a package repository with one package: `greet`, which greets.
fn repository(place: &Place, directory: &Path) {
    let control = "Package: greet\nVersion: 1.0\nArchitecture: all\nMaintainer: A Test <test@example>\n\
        Depends: bash\nDescription: greets\n";
    place.write("greet/DEBIAN/control", control);
    place.write("greet/DEBIAN/postinst", "#!/bin/sh\nset -e\necho configured > /etc/greet\n");
    place.write("greet/usr/bin/greet", "#!/bin/bash\necho \"greetings, $(cat /etc/greet)\"\n");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    for program in ["greet/DEBIAN/postinst", "greet/usr/bin/greet"] {
        fs_err::set_permissions(place.path(program), mode.clone()).unwrap();
    }
    fs_err::create_dir_all(directory).unwrap();
    let package = directory.join("greet_1.0_all.deb");
    place
        .run(
            "dpkg-deb",
            ["--root-owner-group", "--build", text(&place.path("greet")), text(&package)],
        )
        .ok();
    let bytes = fs_err::read(&package).unwrap();
    let index = format!(
        "{control}Filename: ./greet_1.0_all.deb\nSize: {}\nSHA256: {}\n\n",
        bytes.len(),
        Digest::sha256(&bytes).hex()
    );
    fs_err::write(directory.join("Packages"), index).unwrap();
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
    build().args(["--target", "build", "-t", &whole, text(&context)]).ok();
    build().args(["-t", &small, text(&context)]).ok().says(["hello, alone"]);
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
