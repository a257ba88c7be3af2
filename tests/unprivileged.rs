//! Builds inside containers that docker and podman start with their defaults: no right to mount
//! anything, a filter for system calls, a root on overlayfs. This is where CI jobs run.
//!
//! The same image is built on the machine itself, with all rights; the digests must be equal.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use support::clients::{Docker, Podman};
use support::debian::{archive, repository};
use support::place::text;
use support::process::Ran;
use support::{Place, Run};

/// What package managers, accounts and other users do; and at the end, nothing that tells the time.
const DOCKERFILE: &str = "\
FROM debian:mine
COPY repository /repository
RUN echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list \\
 && apt-get update && apt-get install -y greet && greet > /srv/greeting \\
 && useradd --create-home ada && chage -d 1 ada \\
 && mkdir /srv/app && chown ada:ada /srv/app && chmod 2775 /srv/app \\
 && mkfifo /srv/app/pipe && ln -s app /srv/link && rm /etc/motd \\
 && : < /dev/null && head -c 9 /dev/zero > /srv/zero && cp /etc/hosts /etc/resolv.conf /dev/shm \\
 && rm -rf /repository /var/log/* /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /etc/*-
WORKDIR /home/ada
USER ada
RUN id -un > who && touch -d 2001-01-01 old && ! rm /etc/passwd
";

const EPOCH: &str = "1700000000";
/// What the engines call the container's image: the same Debian.
const MACHINE: &str = "machine:1";

/// Imports the base and builds, in a container: `/in` has what is needed.
const BUILD: &str = "set -e
export SOURCE_DATE_EPOCH=1700000000
boatyard import -c 'CMD [\"bash\"]' - debian:mine < /in/debian.tar
boatyard build --progress=plain --metadata-file /tmp/built /in/context
cat /tmp/built";

/// Puts everything in one directory, and builds the image with all rights. Returns its digest.
fn prepare(place: &Place) -> String {
    let input = place.path("in");
    let context = place.context("in/context", DOCKERFILE);
    repository(place, &context.join("repository"));
    fs_err::hard_link(archive(), input.join("debian.tar"))
        .or_else(|_| fs_err::copy(archive(), input.join("debian.tar")).map(drop))
        .unwrap();
    let run = |run: Run| run.env("SOURCE_DATE_EPOCH", EPOCH).ok();
    // From standard input: the history names what was imported.
    let import = place.boatyard(["import", "-c", "CMD [\"bash\"]", "-", "debian:mine"]);
    run(import.input(fs_err::read(archive()).unwrap()));
    let built = place.path("built");
    let full = ["build", "--isolation=full", "--metadata-file", text(&built), text(&context)];
    run(place.boatyard(full));
    digest(&fs_err::read_to_string(built).unwrap())
}

fn digest(metadata: &str) -> String {
    let metadata = &metadata[metadata.find('{').unwrap()..];
    let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
    metadata["containerimage.digest"].as_str().unwrap().to_owned()
}

/// Runs a script in a container of Debian, to which the engine adds nothing but two mounts.
fn in_container(place: &Place, engine: Run, options: &[&str], script: &[&str]) -> Ran {
    let input = format!("{}:/in:ro", text(&place.path("in")));
    let program = format!("{}:/usr/local/bin/boatyard:ro", env!("CARGO_BIN_EXE_boatyard"));
    engine
        .args(["run", "--rm", "--network=none", "-v", &input, "-v", &program])
        .args(options)
        .args([MACHINE, "sh", "-c"])
        .args(script)
        .run()
}

#[test]
fn builds_work_inside_containers_of_docker_and_podman() {
    let place = Place::new();
    let expected = prepare(&place);
    let docker = Docker::start(&place);
    docker.docker(["import", text(&archive()), MACHINE]).ok();
    let built = in_container(&place, docker.docker([]), &[], &[BUILD]);
    assert_eq!(built.code, Some(0), "{built}");
    assert_eq!(digest(&built.text()), expected, "{built}");
    built.says(["warning: build steps are not isolated from this container", "Setting up greet"]);

    let podman = Podman::new(&place);
    podman.podman(["import", text(&archive()), MACHINE]).ok();
    // The usual limits may lie above what this machine may set.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    let built = in_container(&place, podman.podman([]), &limits, &[BUILD]);
    assert_eq!(built.code, Some(0), "{built}");
    assert_eq!(digest(&built.text()), expected, "{built}");
}

#[test]
fn what_a_container_does_not_allow_is_said() {
    let place = Place::new();
    place.context("in", "FROM scratch\nLABEL a=b\n");
    let docker = Docker::start(&place);
    docker.docker(["import", text(&archive()), MACHINE]).ok();
    let run = |options: &[&str], script: &str| {
        in_container(&place, docker.docker([]), options, &[script])
    };
    let examined = run(&[], "boatyard doctor --json");
    assert_eq!(examined.code, Some(0), "{examined}");
    let found = examined.json();
    assert_eq!((&found["possible"], &found["isolation"]), (&true.into(), &"chroot".into()));

    // What was named is no surprise, and what cannot be is no silent fall.
    let quiet = run(&[], "boatyard build --isolation=chroot -q /in");
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""), "{quiet}");
    let refused = run(&[], "boatyard build --isolation=full /in");
    assert_eq!(refused.code, Some(1), "{refused}");
    refused.says([
        "error: --isolation=full is not possible here",
        "cause: full: this process lacks CAP_SYS_ADMIN",
        "hint: `boatyard doctor` says",
    ]);

    // A user has no right in a container, and cannot make a namespace in which to be root.
    let user = ["-u", "1000", "-e", "HOME=/tmp"];
    let refused = run(&user, "boatyard build /in");
    assert_eq!(refused.code, Some(1), "{refused}");
    refused.says([
        "error: there is no way to isolate build steps here",
        "chroot: this process lacks the rights of root",
        "hint: `boatyard doctor` says",
    ]);
    let examined = run(&user, "boatyard doctor");
    assert_eq!(examined.code, Some(1), "{examined}");
    assert!(examined.text().contains("Builds do not work here."), "{examined}");
    assert!(examined.text().contains("→ run the container as root"), "{examined}");
}
