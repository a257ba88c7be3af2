//! An ordinary user builds: with ids of his own or with one, on overlays of the kernel's, of
//! fuse-overlayfs, and on copies. On the first and the last it is the image that root builds.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;
#[path = "rootless/user.rs"]
mod user;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::debian::{archive, repository};
use support::lab::{HOST, Lab, OUTSIDE};
use support::place::text;
use support::{Place, Run, images};
use user::User;

/// What packages, accounts and other users do; and at the end, nothing that tells the time.
const DOCKERFILE: &str = "\
FROM debian:mine
COPY repository /repository
RUN echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list \\
 && apt-get update && apt-get install -y greet && greet > /srv/greeting \\
 && useradd --create-home ada && chage -d 1 ada \\
 && mkdir /srv/app && chown ada:ada /srv/app && chmod 2775 /srv/app \\
 && ln -s app /srv/link && rm /etc/motd && mv /usr/share/doc/bash /srv/doc \\
 && rm -rf /repository /var/log/* /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /etc/*-
WORKDIR /home/ada
USER ada
RUN id -un > who && touch -d 2001-01-01 old
";

const EPOCH: &str = "1700000000";

/// Makes the context, and imports the base, saved for others to load.
fn prepare(place: &Place) -> (PathBuf, PathBuf) {
    let context = place.context("context", DOCKERFILE);
    repository(place, &context.join("repository"));
    place.boatyard(["import", text(&archive()), "debian:mine"]).ok();
    let base = place.path("base.tar");
    place.boatyard(["save", "--output", text(&base), "debian:mine"]).ok();
    (context, base)
}

/// Adds what makes a build's image the same everywhere, and returns that image's ID.
fn image_id(build: Run) -> String {
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    build.args(["--quiet", "--build-arg", &epoch]).ok().text()
}

#[test]
fn subordinate_ids_make_the_image_that_root_makes() {
    let place = Place::new();
    let (context, base) = prepare(&place);
    let expected = image_id(place.boatyard(["build", text(&context)]));

    let user = User::with_subordinate_ids(&place);
    user.boatyard(["load", "--input", text(&base)]).ok();
    for snapshots in ["overlay", "copy"] {
        let build = ["build", "--no-cache", "--snapshots", snapshots, text(&context)];
        assert_eq!(image_id(user.boatyard(build)), expected, "{snapshots}");
    }
    // fuse-overlayfs (1.10) gives a directory a new time when it copies up a file in it.
    let build = ["build", "--no-cache", "--snapshots", "fuse-overlayfs", text(&context)];
    image_id(user.boatyard_with_fuse(build));
    assert_eq!(user.processes(), [""; 0]);

    // Others' ids own what was unpacked: it takes the namespace to remove it.
    user.run("rm", ["-rf", text(&user.root().join("layers"))]).fails(1);
    user.boatyard(["gc", "--layers", "0"]).ok();
    user.run("rm", ["-rf", text(&user.root())]).ok();
}

#[test]
fn one_id_suffices_for_packages() {
    let place = Place::new();
    let (context, base) = prepare(&place);
    let user = User::without_subordinate_ids(&place);
    user.boatyard(["load", "--input", text(&base)]).ok();
    let shown = format!("{DOCKERFILE}RUN cat /etc/greet && stat -c '%n is of %U' /srv/app who\n");
    fs_err::write(context.join("Dockerfile"), shown).unwrap();
    for snapshots in ["overlay", "copy"] {
        let options = ["--no-cache", "--progress=plain", "--snapshots", snapshots];
        user.boatyard(["build"]).args(options).arg(&context).ok().says([
            "with one user id, every file of an image is root's",
            "Setting up greet (1.0)",
            "configured",
            "/srv/app is of root",
            "who is of root",
        ]);
    }
    // All that was written is the user's own.
    user.run("rm", ["-rf", text(&user.root())]).ok();
}

/// A context that every user can read, with an image to build on.
fn sleeper(place: &Place) -> PathBuf {
    let context = place.context(
        "sleeper",
        "FROM scratch\n\
         COPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo begun; exec /bin/busybox sleep 1000\"]\n",
    );
    fs_err::copy(images::busybox_tree(place).join("bin/busybox"), context.join("busybox")).unwrap();
    context
}

/// Waits until the build's step runs, and returns what the build goes on to say.
fn until_begun(build: &mut Child) -> impl BufRead + use<> {
    let mut stderr = BufReader::new(build.stderr.take().unwrap());
    let mut line = String::new();
    while !line.ends_with(" begun\n") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the step should begin");
    }
    stderr
}

#[test]
fn what_is_interrupted_or_killed_leaves_nothing() {
    let place = Place::new();
    let context = sleeper(&place);
    let user = User::with_subordinate_ids(&place);
    for (signal, code) in
        [(Signal::INT, Some(130)), (Signal::TERM, Some(130)), (Signal::KILL, None)]
    {
        for snapshots in ["overlay", "fuse-overlayfs", "copy"] {
            let build = ["build", "--progress=plain", "--snapshots", snapshots, text(&context)];
            let mut build = user.boatyard_with_fuse(build).spawn(Stdio::null(), Stdio::piped());
            let _said = until_begun(&mut build);
            // It is the process that we started: it enters the namespace without another.
            kill_process(Pid::from_child(&build), signal).unwrap();
            assert_eq!(build.wait().unwrap().code(), code, "{snapshots}");
            // The kernel ends the others; that takes a moment.
            while !user.processes().is_empty() {
                std::thread::yield_now();
            }
        }
    }
    user.boatyard(["gc"]).ok();
    let active = user.root().join("active");
    for view in fs_err::read_dir(active).unwrap() {
        let view = view.unwrap().path();
        assert_eq!(fs_err::read_dir(&view).unwrap().count(), 0, "{}", view.display());
    }
}

#[test]
fn steps_and_commands_reach_the_world_and_not_the_host() {
    let (lab, place) = (Lab::new(false), Place::new());
    let context = place.context("context", "");
    fs_err::copy(images::busybox_tree(&place).join("bin/busybox"), context.join("busybox"))
        .unwrap();
    // Asks for what the address or the name answers on the port of the services.
    let ask =
        |whom: &str| format!("/bin/busybox timeout 3 /bin/busybox nc {whom} 7777 < /dev/null");
    let outside = [OUTSIDE[0], OUTSIDE[1], "out"]
        .map(|whom| format!("{} | /bin/busybox grep -m1 outside", ask(whom)))
        .join(" && ");
    let host = ["127.0.0.1", "127.0.0.53", "::1", "169.254.1.1", "10.0.2.2"];
    let host = host.into_iter().chain(HOST).map(ask).collect::<Vec<_>>().join(" & ");
    let run = |line: &str| format!("RUN [\"/bin/busybox\", \"sh\", \"-c\", \"{line}\"]\n");
    let dockerfile = format!(
        "FROM scratch\nCOPY busybox /bin/busybox\n{}{}",
        run(&outside),
        run(&format!("{host} & wait"))
    );
    fs_err::write(context.join("Dockerfile"), dockerfile).unwrap();

    let user = User::with_subordinate_ids(&place);
    let on_host = |args: [&str; 6]| user.boatyard_in(lab.shell(&place), args).ok();
    on_host(["build", "--network=default", "--progress=plain", "-t", "app", text(&context)]);
    assert_eq!(lab.reached(), ["outside tcp"]);
    let command = |line: &str| on_host(["run", "app", "/bin/busybox", "sh", "-c", line]);
    assert_eq!(command(&outside).text(), "outside\noutside\noutside");
    assert_eq!(lab.reached(), ["outside tcp"]);
    command(&format!("{host} & wait"));
    assert_eq!(lab.reached(), [""; 0]);
    while !user.processes().is_empty() {
        std::thread::yield_now();
    }
}
