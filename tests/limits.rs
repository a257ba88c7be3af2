//! Limits of build steps, as the options set them: steps that take too much end, and say why.

mod support;

use support::place::text;
use support::{Place, images};

/// Builds a Dockerfile of one command with these options.
fn build(place: &Place, command: &str, options: &str) -> support::Run {
    let context = place.context("context", &format!("FROM busybox\nRUN {command}\n"));
    let words = options.split_whitespace();
    place
        .boatyard(["build", "--progress", "plain"])
        .args(words)
        .args(["--no-cache", text(&context)])
}

fn place() -> Place {
    let place = Place::new();
    images::busybox(&place);
    place
}

#[test]
fn a_step_out_of_memory_says_how_much_it_had() {
    let place = place();
    let hog = "set -o pipefail; head -c 500000000 /dev/zero | tail -n 1 | wc -c";
    let ran = build(&place, hog, "--memory 64m --memory-swap 64m").fails(1);
    if ran.stderr.contains("is not limited") {
        println!("skipped: no cgroup with the controller `memory` can be written here");
        return;
    }
    ran.says(["out of memory (limit 64 MB)"]);
}

#[test]
fn a_step_that_takes_too_long_is_ended() {
    build(&place(), "sleep 1000", "--timeout 200ms").fails(1).says(["it took longer than it may"]);
}

#[test]
fn limits_are_in_force_in_the_step() {
    let place = place();
    let look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; \
                cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; ulimit -n; \
                df -k /dev/shm | tail -n 1; cat /etc/hosts; true";
    let options = "-m 64m --pids-limit 77 --ulimit nofile=99:99 --shm-size 3m --cpus 1.5 \
                   -c 512 --cpuset-cpus 0 --add-host db:192.0.2.7 --add-host me:host-gateway \
                   --network host";
    let ran = build(&place, look, options).ok();
    ran.says([" 99\n", "3072", "192.0.2.7\tdb", "127.0.0.1\tme"]);
    if !ran.stderr.contains("is not limited") {
        ran.says(["67108864", " 78\n"]);
    }
}

#[test]
fn a_host_without_a_way_to_it_is_an_error() {
    let ran = build(&place(), "true", "--network none --add-host me:host-gateway").fails(1);
    ran.says([
        "`me` is to be the host, which the network of this step does not reach",
        "hint: --network=host reaches it",
        "RUN true",
    ]);
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_runs() {
    let place = Place::new();
    for (options, says) in [
        ("--memory 1m", "--memory cannot be less than 6m"),
        ("--memory-swap 1g", "--memory-swap needs --memory"),
        ("--cpus some", "cannot use --cpus some"),
        ("--cpus 1 --cpu-quota 5000", "cannot be used with"),
        ("--cpuset-cpus x", "cannot use --cpuset-cpus x"),
        ("--pids-limit 0", "--pids-limit"),
        ("--timeout soon", "cannot use --timeout soon"),
    ] {
        build(&place, "true", options).fails(2).says([says]);
    }
}
