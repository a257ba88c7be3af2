//! `RUN --mount=type=cache`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::place::text;
use crate::support::process::until;
use crate::support::rendezvous::Rendezvous;
use crate::support::{Place, Run};
use crate::user::User;
use crate::{build, place};

/// Adds a line to a cache, and makes the layer of what is in it.
const COUNT: &str = "echo x >> /cache/lines && wc -l < /cache/lines > /count";

fn counting(place: &Place, name: &str, options: &str) -> PathBuf {
    place.context(
        name,
        &format!("FROM busybox\nRUN --mount=type=cache,target=/cache{options} {COUNT}\n"),
    )
}

/// Builds, and returns how many builds have added a line before and with this one.
#[track_caller]
fn count(place: &Place, run: Run) -> u32 {
    let output = place.path("output");
    run.args(["--no-cache", "--output", text(&output)]).ok();
    let count = fs_err::read_to_string(output.join("count")).unwrap().trim().parse().unwrap();
    assert!(!output.join("cache").exists(), "the mount point stays");
    fs_err::remove_dir_all(&output).unwrap();
    count
}

fn listed(place: &Place) -> Vec<Value> {
    let rows = place.boatyard(["cache", "list", "--json"]).ok().text();
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    rows.filter(|row| row["Kind"] == "mount").collect()
}

#[test]
fn a_project_finds_its_caches_and_no_other_does() {
    let place = place();
    let of = |context: &Path| count(&place, build(&place, context));
    let (one, two) = (counting(&place, "one", ""), counting(&place, "two", ""));
    assert_eq!((of(&one), of(&one), of(&two), of(&one)), (1, 2, 1, 3), "and --no-cache keeps them");
    // Another target, owner or mode is another cache, another text of the Dockerfile is not.
    counting(&place, "one", ",uid=7");
    assert_eq!(of(&one), 1);
    counting(&place, "one", ",sharing=locked");
    assert_eq!(of(&one), 4);
    // An id is for everybody.
    let ids = [counting(&place, "three", ",id=mine"), counting(&place, "four", ",id=mine")];
    assert_eq!(ids.each_ref().map(|context| of(context)), [1, 2]);
    let namespace = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other"];
    assert_eq!(count(&place, build(&place, &ids[0]).args(namespace)), 1);
    // Two checkouts of one repository are one project.
    for name in ["checkout-1", "checkout-2"] {
        counting(&place, name, "");
        let config = "[remote \"origin\"]\n\turl = https://git.example/app.git\n";
        place.write(&format!("{name}/.git/config"), config);
    }
    let checkouts = ["checkout-1", "checkout-2"].map(|name| of(&place.path(name)));
    assert_eq!(checkouts, [1, 2]);

    let rows = listed(&place);
    let names: Vec<_> = rows.iter().map(|row| row["Instruction"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| **name == "cache mine").count(), 2, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("cache /cache of git.example/app ")));
    assert!(rows.iter().all(|row| row["Bytes"].as_u64().unwrap() > 0 && row["InUse"] == false));

    // Steps stay when only mounts go, and mounts go with the rest.
    let steps = || place.boatyard(["cache", "list"]).ok().text().lines().count();
    let before = steps();
    let would = place.boatyard(["cache", "prune", "--mounts", "--dry-run"]).ok().text();
    assert_eq!(listed(&place).len(), rows.len());
    let did = place.boatyard(["cache", "prune", "--mounts"]).ok().text();
    assert_eq!(did, would.replace("Would free", "Freed"));
    assert_eq!((listed(&place).len(), steps()), (0, before - rows.len()));
    assert_eq!(of(&one), 1);
    place.boatyard(["cache", "prune"]).ok();
    assert_eq!(listed(&place).len(), 0);
    place.boatyard(["fsck"]).ok();
}

#[test]
fn a_cache_begins_with_what_it_is_told() {
    let place = place();
    let dockerfile = "FROM busybox AS seed\nRUN mkdir -p /s/d && echo x > /s/lines && chown -R 7:8 /s\n\
        FROM busybox\nRUN --mount=type=cache,from=seed,source=/s,target=/cache,id=seeded \
        test \"$(stat -c %u:%g /cache/d)\" = 7:8 && echo x >> /cache/lines && wc -l < /cache/lines > /count\n";
    let context = place.context("app", dockerfile);
    let of = || count(&place, build(&place, &context));
    assert_eq!((of(), of()), (2, 3));
    place.context("app", &dockerfile.replace("mkdir -p /s/d", "mkdir -p /s/d && touch /s/new"));
    assert_eq!(of(), 2, "another beginning is another cache");
    let owned = "FROM busybox\nRUN --mount=type=cache,target=/c,mode=0750,uid=1000,gid=50,ro \
                 test \"$(stat -c %u:%g:%a /c)\" = 1000:50:750 && ! touch /c/x\n\
                 USER app\nRUN --mount=type=cache,target=/c,mode=0750,uid=1000,gid=50 touch /c/x\n";
    let owned = place.context("owned", owned);
    build(&place, &owned).ok();
}

#[test]
fn caches_are_kept_in_every_isolation() {
    let place = place();
    let context = counting(&place, "app", "");
    let of = |isolation| count(&place, build(&place, &context).args(["--isolation", isolation]));
    assert_eq!((of("full"), of("chroot"), of("chroot"), of("full")), (1, 2, 3, 4));
    // Where it is moved into the tree, it cannot be at two places.
    let twice = place.context(
        "twice",
        "FROM busybox\nRUN --mount=type=cache,target=/a,id=i --mount=type=cache,target=/b,id=i \
         touch /a/x && test -e /b/x\n",
    );
    build(&place, &twice).ok();
    let said = build(&place, &twice).args(["--isolation=chroot", "--no-cache"]).fails(1);
    said.says(["without mounts, a step cannot see one cache at two places"]);

    let user = User::with_subordinate_ids(&place);
    let base = place.path("busybox.tar");
    place.boatyard(["save", "--output", text(&base), "busybox"]).ok();
    user.boatyard(["load", "--input", text(&base)]).ok();
    let deny = "FROM busybox\nRUN --mount=type=cache,target=/cache,uid=1000,mode=700 \
                test \"$(stat -c %u /cache)\" = 1000 && touch /cache/private\n";
    let context = place.context("deny", deny);
    user.boatyard(["build", "--progress=plain", text(&context)]).ok();
    // It belongs to another id of the user's: it is counted and removed all the same.
    let listed = user.boatyard(["cache", "list"]).ok().text();
    assert!(listed.contains("cache /cache of"), "{listed}");
    let freed = user.boatyard(["cache", "prune", "--mounts"]).ok().text();
    assert!(freed.contains("cache /cache of") && !freed.contains("Freed 0B"), "{freed}");
    assert_eq!(fs_err::read_dir(user.root().join("cache/mounts")).unwrap().count(), 0);
}

/// A step that comes to the test with a cache in its hands, then says which cache it had.
fn meeting(place: &Place, server: &Rendezvous, name: &str, sharing: &str) -> Run {
    let command = server.command(name);
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=cache,target=/cache,id=one,sharing={sharing} \
         echo {name} >> /cache/names && {command} && echo had $(tr '\\n' ' ' < /cache/names)\n"
    );
    let context = place.context(name, &dockerfile);
    place.boatyard(["build", "--network=host", "--progress=plain", text(&context)])
}

#[test]
fn sharing_says_who_waits_for_whom() {
    let place = place();
    let server = Rendezvous::open();
    let start = |name: &str, sharing: &str| {
        let run = meeting(&place, &server, name, sharing);
        std::thread::spawn(move || run.ok())
    };
    // Both have the same one at once.
    let builds = [start("a", "shared"), start("b", "shared")];
    let guests = [server.next(), server.next()];
    guests.into_iter().for_each(|guest| guest.let_go(""));
    let said = builds.map(|build| build.join().unwrap().stderr).concat();
    assert!(said.contains("had a b") || said.contains("had b a"), "{said}");

    // Each has one of its own, and both are kept.
    let builds = [start("c", "private"), start("d", "private")];
    let guests = [server.next(), server.next()];
    guests.into_iter().for_each(|guest| guest.let_go(""));
    let said = builds.map(|build| build.join().unwrap().stderr).concat();
    assert!(
        said.contains("had c") != said.contains("had d"),
        "one of them had what a and b had: {said}"
    );
    assert_eq!(listed(&place).len(), 2);

    // One waits until the other is done.
    let first = start("e", "locked");
    let guest = server.next();
    let mut second = meeting(&place, &server, "f", "locked").spawn(Stdio::null(), Stdio::piped());
    let mut said = BufReader::new(second.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("waiting: another step uses the cache `one`")));
    assert_eq!(server.others(), [""; 0]);
    assert_eq!(listed(&place).iter().filter(|row| row["InUse"] == true).count(), 1);
    let pruned = place.boatyard(["cache", "prune", "--mounts"]).ok().text();
    assert_eq!(listed(&place).len(), 1, "what is in use stays: {pruned}");
    guest.let_go("");
    first.join().unwrap();
    server.next().let_go("");
    assert!(said.any(|line| line.contains("e f")));
    assert!(second.wait().unwrap().success());
}

#[test]
fn a_builder_that_is_killed_gives_its_caches_up() {
    let place = place();
    let server = Rendezvous::open();
    for isolation in ["full", "chroot"] {
        let run = |name: &str| {
            let name = format!("{name}-{isolation}");
            meeting(&place, &server, &name, "locked").args(["--isolation", isolation])
        };
        let mut killed = run("killed").spawn(Stdio::null(), Stdio::null());
        let _guest = server.next();
        kill_process(Pid::from_child(&killed), Signal::KILL).unwrap();
        killed.wait().unwrap();
        // The next one gets it when the last process of the step is gone.
        let next = run("next");
        let next = std::thread::spawn(move || next.ok());
        server.next().let_go("");
        next.join().unwrap();
    }
    until("no cache is in use", || listed(&place).iter().all(|row| row["InUse"] == false));
}
