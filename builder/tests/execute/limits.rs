//! Limits on what a step uses, and steps that try to use everything.
//!
//! Each is safe for the machine that runs it: what multiplies does so under a limit on processes
//! that it has seen to be in force, and ends with its PID namespace.

use std::time::{Duration, Instant};

use boatyard_builder::execute::{CancelHandle, Limits, Outcome, Output, Spec};

use crate::harness::tests;
use crate::world::{Ran, World};

tests!(
    a_step_that_takes_too_much_memory_is_told_so,
    a_step_that_gets_along_after_one_ran_out_of_memory_succeeds,
    a_fork_bomb_reaches_its_limit_and_ends_with_the_step,
    processor_time_is_limited,
    a_limit_that_cannot_be,
    the_step_sees_its_own_cgroups_and_cannot_write_them,
    no_cgroup_is_left,
    a_leaf_of_a_killed_helper_is_removed_by_the_next,
    zombie_storms_end_with_the_step,
    daemons_that_ignore_signals_end_with_the_step,
    a_step_that_ignores_signals_is_timed_out,
    what_cannot_be_limited_is_said_once,
);

const MEGABYTE: u64 = 1 << 20;

fn limited(limits: Limits, script: &str) -> Spec {
    let mut spec = Spec::new(["/bin/sh", "-c", script]);
    spec.limits = limits;
    // Whatever happens, it ends.
    spec.timeout = Some(Duration::from_secs(20));
    spec
}

/// Runs it; `None`, and a line that says so, where this machine has no cgroups to be written.
fn run(world: &World, spec: &Spec) -> Option<Ran> {
    let ran = world.run(spec);
    if ran.warnings.is_empty() {
        return Some(ran);
    }
    println!("skipped: {}", ran.warnings.join("; "));
    None
}

fn memory(limit: u64) -> Limits {
    Limits { memory: Some(limit), memory_swap: Some(limit), ..Limits::default() }
}

/// The value of a file of the step's own cgroup, in the hierarchy of a controller.
fn value_of(controller: &str, old: &str, new: &str) -> String {
    format!("cat /sys/fs/cgroup/{controller}/{old} /sys/fs/cgroup/{new} 2>/dev/null; true")
}

fn a_step_that_takes_too_much_memory_is_told_so() {
    let world = World::new();
    // tail keeps a line that does not end.
    let hog = limited(memory(64 * MEGABYTE), "head -c 500000000 /dev/zero | tail -n 1 | wc -c");
    let mut spec = hog.clone();
    spec.args[2] = format!("set -o pipefail; {}", hog.args[2]);
    let Some(ran) = run(&world, &spec) else { return };
    assert_eq!(ran.outcome(), Outcome::OutOfMemory { limit: 64 * MEGABYTE });
    assert_eq!(ran.outcome().to_string(), "out of memory (limit 64 MB)");
    // And nothing of it is held against the next.
    assert_eq!(world.sh("echo well").stdout(), "well\n");
}

fn a_step_that_gets_along_after_one_ran_out_of_memory_succeeds() {
    let world = World::new();
    let script = "head -c 500000000 /dev/zero | tail -n 1 > /dev/null; echo went on";
    let Some(ran) = run(&world, &limited(memory(64 * MEGABYTE), script)) else { return };
    assert_eq!((ran.stdout.as_str(), ran.outcome()), ("went on\n", Outcome::Exited(0)));
}

fn a_fork_bomb_reaches_its_limit_and_ends_with_the_step() {
    let world = World::new();
    let limits = Limits { pids: Some(50), ..Limits::default() };
    let look = value_of("pids", "pids.max", "pids.max");
    let Some(ran) = run(&world, &limited(limits.clone(), &look)) else { return };
    assert_eq!(ran.stdout(), "51\n", "the fiftieth beside the reaper");
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 1000 & until ! (:); do :; done; echo full";
    let mut spec = limited(limits, &format!("({bomb}) 2>/dev/null; ls -d /proc/[0-9]* | wc -l"));
    spec.timeout = Some(Duration::from_secs(1));
    let began = Instant::now();
    drop(world.run(&spec));
    assert!(began.elapsed() < Duration::from_secs(60), "all of it ended");
    assert_eq!(world.sh("ls -d /proc/[0-9]* | wc -l").stdout().trim(), "4");
}

fn processor_time_is_limited() {
    let world = World::new();
    let limits = Limits {
        cpu_quota_us: Some(150_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".to_owned()),
        ..Limits::default()
    };
    let script = format!(
        "{}; {}; grep Cpus_allowed_list /proc/self/status",
        value_of("cpu", "cpu.cfs_quota_us", "cpu.max"),
        value_of("cpu", "cpu.shares", "cpu.weight"),
    );
    let Some(ran) = run(&world, &limited(limits, &script)) else { return };
    let allowed = "Cpus_allowed_list:\t0\n";
    let (old, new) = (format!("150000\n512\n{allowed}"), format!("150000 100000\n20\n{allowed}"));
    assert!([old.as_str(), new.as_str()].contains(&ran.stdout()), "{}", ran.stdout());
}

fn a_limit_that_cannot_be() {
    let limits = Limits { cpuset_cpus: Some("4000".to_owned()), ..Limits::default() };
    let ran = World::new().run(&limited(limits, "true"));
    if ran.warnings.is_empty() {
        let error = ran.error();
        assert!(error.starts_with("cannot limit the CPUs of the step to 4000: "), "{error}");
    }
}

fn the_step_sees_its_own_cgroups_and_cannot_write_them() {
    let world = World::new();
    let script = "cut -d : -f 3 /proc/self/cgroup | sort -u
         find /sys/fs/cgroup -type d -name 'boatyard*' | wc -l
         for file in $(find /sys/fs/cgroup -name cgroup.procs -o -name 'memory.*limit*' -o -name memory.max); do
             (echo 0 > $file) 2>/dev/null && echo wrote $file
         done; mkdir /sys/fs/cgroup/x 2>/dev/null; find /sys/fs/cgroup -mindepth 1 | grep -q . && echo some";
    let Some(ran) = run(&world, &limited(memory(64 * MEGABYTE), script)) else { return };
    assert_eq!(ran.stdout.lines().last(), Some("some"), "{}", ran.stdout);
    assert!(ran.stdout.starts_with("/\n"), "its cgroup is the root that it sees: {}", ran.stdout);
    assert!(!ran.stdout.contains("wrote"), "{}", ran.stdout);
    let unlimited = world.sh("ls /sys/fs/cgroup | grep -c boatyard; true");
    assert_eq!(unlimited.stdout(), "0\n");
}

/// The leaves of a helper, anywhere.
pub(crate) fn leaves(helper: u32) -> Vec<String> {
    let found = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-name", &format!("boatyard-step-{helper}-*")])
        .output()
        .unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn no_cgroup_is_left() {
    let world = World::new();
    let helper = world.executor.helper_id();
    let limits = Limits { pids: Some(100), ..memory(64 * MEGABYTE) };
    for script in ["true", "false", "sleep 1000 & setsid sleep 1000 & exit 0", "kill -9 $$"] {
        drop(world.run(&limited(limits.clone(), script)));
        assert!(leaves(helper).is_empty(), "{script}: {:?}", leaves(helper));
    }
    let mut spec = limited(limits, "trap '' TERM INT; sleep 1000");
    spec.timeout = Some(Duration::from_millis(100));
    drop(world.run(&spec));
    assert!(leaves(helper).is_empty(), "{:?}", leaves(helper));
    spec.args[0] = "/missing".to_owned();
    assert!(world.run(&spec).result.is_err());
    assert!(leaves(helper).is_empty(), "{:?}", leaves(helper));
}

fn a_leaf_of_a_killed_helper_is_removed_by_the_next() {
    let world = World::new();
    let helper = world.executor.helper_id();
    let spec = limited(memory(64 * MEGABYTE), "kill -0 $$; echo ready; sleep 1000");
    let mut kill = Killing { helper, leaves: Vec::new() };
    let cancel = CancelHandle::new().unwrap();
    let ran = world.executor.run(world.root(), &spec, &mut kill, &cancel);
    assert!(ran.is_err(), "{ran:?}");
    if kill.leaves.is_empty() {
        println!("skipped: no cgroup can be written here");
        return;
    }
    // The kernel needs a moment to end the step; a helper that starts before tries in vain.
    let began = Instant::now();
    while !leaves(helper).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", leaves(helper));
        let next = World::new();
        assert_eq!(next.sh("echo next").stdout(), "next\n");
    }
}

/// Kills the helper with SIGKILL as soon as the step says something.
struct Killing {
    helper: u32,
    leaves: Vec<String>,
}

impl Output for Killing {
    fn stdout(&mut self, _: &[u8]) {
        self.leaves = leaves(self.helper);
        let helper = rustix::process::Pid::from_raw(self.helper.cast_signed()).unwrap();
        let _ = rustix::process::kill_process(helper, rustix::process::Signal::KILL);
    }
    fn stderr(&mut self, _: &[u8]) {}
    fn warning(&mut self, _: &str) {}
}

fn zombie_storms_end_with_the_step() {
    let world = World::new();
    // Each is orphaned at once: without a reaper that keeps up, the limit is soon full of zombies.
    let limits = Limits { pids: Some(200), ..Limits::default() };
    let script = "for n in $(seq 1000); do (true &) ; done; wait; echo storm is over";
    let ran = world.run(&limited(limits, script));
    assert_eq!((ran.stdout.as_str(), ran.outcome()), ("storm is over\n", Outcome::Exited(0)));
}

fn daemons_that_ignore_signals_end_with_the_step() {
    let world = World::new();
    let seconds = (40_000_000 + u64::from(std::process::id())).to_string();
    let script = format!(
        "for n in 1 2 3; do
             (trap '' HUP INT TERM PIPE; setsid sleep {seconds} &)
         done
         until test $(pidof sleep | wc -w) = 3; do usleep 1000; done; echo started"
    );
    assert_eq!(world.run(&limited(Limits::default(), &script)).stdout(), "started\n");
    assert_eq!(crate::life::sleeping(&seconds), 0);
}

fn a_step_that_ignores_signals_is_timed_out() {
    let world = World::new();
    let script = "trap '' HUP INT QUIT TERM TSTP; while :; do sleep 1000; done";
    let mut spec = limited(Limits::default(), script);
    spec.timeout = Some(Duration::from_millis(100));
    let began = Instant::now();
    assert_eq!(world.run(&spec).outcome(), Outcome::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(20));
}

fn what_cannot_be_limited_is_said_once() {
    let world = World::new();
    let spec = limited(Limits { pids: Some(100), ..memory(64 * MEGABYTE) }, "true");
    let said = [world.run(&spec), world.run(&spec)].map(|ran| ran.warnings);
    assert!(said[1].is_empty(), "{said:?}");
    for warning in &said[0] {
        assert!(warning.contains(" of steps is not limited: "), "{warning}");
    }
}
