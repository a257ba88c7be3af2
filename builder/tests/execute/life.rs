//! How steps begin and end.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use boatyard_builder::execute::{
    CancelHandle, ExecuteError, Executor, InitCommand, MountKind, Outcome, Output, Source, Spec,
    StepMount,
};

use crate::harness::tests;
use crate::world::{World, Written};

tests!(
    says_what_it_writes,
    exit_codes_and_signals,
    standard_input_is_empty,
    output_comes_live,
    ten_megabytes_come_whole_and_in_order,
    what_is_left_running_dies,
    orphans_are_reaped,
    signals_to_the_first_process_reach_the_command,
    a_cancelled_step_ends_promptly,
    a_cancelled_handle_stays_cancelled,
    a_step_may_take_only_so_long,
    steps_run_at_the_same_time,
    steps_end_with_the_builder,
    the_helper_ends_with_the_executor,
    many_steps_one_after_another,
    steps_end_with_the_helper,
    a_dead_helper_is_reported,
    an_image_without_a_shell_is_told_so,
    programs_that_cannot_run_are_told_apart,
    a_large_script_arrives,
    a_program_that_is_no_helper_is_reported,
);

/// Long enough for anything prompt on a busy machine, far shorter than the sleeps that it ends.
const PROMPT: Duration = Duration::from_secs(20);

fn sleeper() -> Spec {
    Spec::new(["/bin/sh", "-c", "echo ready; sleep 1000 & wait"])
}

/// Calls something as soon as the step says anything.
struct OnOutput<F: FnMut() + Send>(F);

impl<F: FnMut() + Send> Output for OnOutput<F> {
    fn stdout(&mut self, _: &[u8]) {
        (self.0)();
    }
    fn stderr(&mut self, _: &[u8]) {}
}

fn says_what_it_writes() {
    let ran = World::new().sh("echo out; echo err >&2");
    assert_eq!(ran.outcome(), Outcome::Exited(0));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
}

fn exit_codes_and_signals() {
    let world = World::new();
    for (script, outcome) in [
        ("exit 0", Outcome::Exited(0)),
        ("exit 3", Outcome::Exited(3)),
        ("exit 137", Outcome::Exited(137)),
        ("kill -9 $$", Outcome::Signaled(9)),
        ("kill -TERM $$", Outcome::Signaled(15)),
        ("exec kill -SEGV $$", Outcome::Signaled(11)),
    ] {
        assert_eq!(world.sh(script).outcome(), outcome, "{script}");
    }
}

fn standard_input_is_empty() {
    assert_eq!(World::new().sh("wc -c; readlink /proc/self/fd/0").stdout(), "0\n/dev/null\n");
}

fn output_comes_live() {
    let world = World::new();
    let cancel = CancelHandle::new().unwrap();
    // It ends only if its first words arrive while it runs.
    let mut output = OnOutput(|| cancel.cancel());
    let outcome = world.executor.run(world.root(), &sleeper(), &mut output, &cancel);
    assert_eq!(outcome.unwrap(), Outcome::Cancelled);
}

fn ten_megabytes_come_whole_and_in_order() {
    let ran = World::new().sh("seq 1 1400000; seq 1 100000 >&2");
    assert_eq!(ran.outcome(), Outcome::Exited(0));
    assert!(ran.stdout.len() > 10_000_000, "{}", ran.stdout.len());
    let numbers = |text: &str, count| text.lines().eq((1..=count).map(|n| n.to_string()));
    assert!(numbers(&ran.stdout, 1_400_000));
    assert!(numbers(&ran.stderr, 100_000));
}

fn what_is_left_running_dies() {
    let started = Instant::now();
    let world = World::new();
    let ran =
        world.sh("(sleep 1000; echo late) & nohup setsid sleep 1000 & trap '' TERM; echo done");
    assert_eq!(ran.stdout, "done\n");
    assert!(started.elapsed() < PROMPT);
}

fn orphans_are_reaped() {
    // The orphan's parent, a shell, is gone at once, and so is the orphan soon.
    let ran = World::new().sh("for i in 1 2 3; do sh -c 'true & exec true' & done; wait
         (sh -c 'sh -c \"exit 3\" &')
         for i in $(seq 200); do
             grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null || { echo none; exit; }
             usleep 10000
         done");
    assert!(ran.stdout().ends_with("none\n"), "{}", ran.stdout());
}

fn signals_to_the_first_process_reach_the_command() {
    let ran = World::new()
        .sh("trap 'echo caught; exit 5' TERM; kill -TERM 1; while :; do usleep 1000; done");
    assert_eq!((ran.stdout.as_str(), ran.outcome()), ("caught\n", Outcome::Exited(5)));
}

fn a_cancelled_step_ends_promptly() {
    let world = World::new();
    let cancel = CancelHandle::new().unwrap();
    let started = Instant::now();
    let mut output = OnOutput(|| cancel.clone().cancel());
    // Ignoring signals does not help.
    let mut spec = sleeper();
    spec.args[2].insert_str(0, "trap '' TERM INT HUP; ");
    let outcome = world.executor.run(world.root(), &spec, &mut output, &cancel);
    assert_eq!(outcome.unwrap(), Outcome::Cancelled);
    assert!(started.elapsed() < PROMPT);
    assert_eq!(world.sh("echo next").stdout(), "next\n");
}

fn a_cancelled_handle_stays_cancelled() {
    let world = World::new();
    let cancel = CancelHandle::new().unwrap();
    cancel.cancel();
    cancel.cancel();
    let ran = world.run_in(world.root(), &sleeper(), &cancel);
    assert_eq!(ran.outcome(), Outcome::Cancelled);
}

fn a_step_may_take_only_so_long() {
    let world = World::new();
    let mut spec = sleeper();
    spec.timeout = Some(Duration::from_millis(50));
    assert_eq!(world.run(&spec).outcome(), Outcome::TimedOut);
    spec.args[2] = "echo quick".to_owned();
    spec.timeout = Some(Duration::MAX);
    assert_eq!(world.run(&spec).stdout(), "quick\n");
}

fn steps_run_at_the_same_time() {
    let (left, right) = (World::new(), World::new());
    let shared = tempfile::tempdir().unwrap();
    let meeting = |own: &str, other: &str| {
        let mut spec = Spec::new([
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            format!("> /meet/{own}; until test -e /meet/{other}; do usleep 1000; done; echo {own}"),
        ]);
        let directory = fs_err::File::open(shared.path()).unwrap().into_file();
        spec.mounts = vec![StepMount {
            target: "/meet".to_owned(),
            kind: MountKind::Bind {
                source: Source::new(directory.into()),
                directory: true,
                read_only: false,
            },
        }];
        spec
    };
    let run = |world: &World, spec: &Spec| {
        let mut written = Written::default();
        let cancel = CancelHandle::new().unwrap();
        // One executor for both.
        let outcome = left.executor.run(world.root(), spec, &mut written, &cancel);
        assert_eq!(outcome.unwrap(), Outcome::Exited(0));
        String::from_utf8(written.stdout).unwrap()
    };
    std::thread::scope(|scope| {
        let a = scope.spawn(|| run(&left, &meeting("a", "b")));
        let b = scope.spawn(|| run(&right, &meeting("b", "a")));
        assert_eq!((a.join().unwrap().as_str(), b.join().unwrap().as_str()), ("a\n", "b\n"));
    });
}

/// How many processes sleep for `seconds`, anywhere on this machine.
fn sleeping(seconds: &str) -> usize {
    let line = format!("sleep\0{seconds}\0");
    let processes = fs_err::read_dir("/proc").unwrap();
    let lines = processes.map(|entry| fs_err::read(entry.unwrap().path().join("cmdline")));
    lines.filter(|found| found.as_ref().is_ok_and(|found| found == line.as_bytes())).count()
}

fn wait_until_none_sleeps(seconds: &str) {
    let started = Instant::now();
    while sleeping(seconds) > 0 {
        assert!(started.elapsed() < PROMPT, "the step still runs");
        std::thread::yield_now();
    }
}

/// A number of seconds that nobody else sleeps for: our process id, in a range of its own.
fn own_seconds(range: u64) -> String {
    (range + u64::from(std::process::id())).to_string()
}

fn sleeper_of(seconds: &str) -> Spec {
    // Both have begun when it speaks: a child, and one in another session.
    let script = "sleep $0 & setsid sleep $0 & until test $(pidof sleep | wc -w) = 2
                  do usleep 1000; done; echo ready; wait";
    Spec::new(["/bin/sh", "-c", script, seconds])
}

fn steps_end_with_the_helper() {
    let world = World::new();
    let seconds = own_seconds(10_000_000);
    let helper = rustix::process::Pid::from_raw(world.executor.helper_id().cast_signed()).unwrap();
    let mut running = 0;
    let mut output = OnOutput(|| {
        running = sleeping(&seconds);
        let _ = rustix::process::kill_process(helper, rustix::process::Signal::KILL);
    });
    let cancel = CancelHandle::new().unwrap();
    let spec = sleeper_of(&seconds);
    let result = world.executor.run(world.root(), &spec, &mut output, &cancel);
    assert!(matches!(result, Err(ExecuteError::HelperDied)), "{result:?}");
    wait_until_none_sleeps(&seconds);
    assert_eq!(running, 2);
}

/// The argument that makes this binary a builder, to be killed.
pub(crate) const BUILDER: &str = "builder";

/// Runs a step that sleeps for as long as the second argument says; speaks when it does.
pub(crate) fn builder() -> std::process::ExitCode {
    let seconds = std::env::args().nth(2).unwrap();
    let world = World::new();
    let mut output = OnOutput(|| println!("ready"));
    let cancel = CancelHandle::new().unwrap();
    let _ = world.executor.run(world.root(), &sleeper_of(&seconds), &mut output, &cancel);
    std::process::ExitCode::FAILURE
}

fn steps_end_with_the_builder() {
    let seconds = own_seconds(20_000_000);
    // It cannot clean up after itself.
    let files = tempfile::tempdir().unwrap();
    let mut builder = Command::new("/proc/self/exe")
        .args([BUILDER, &seconds])
        .env("TMPDIR", files.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    builder.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    let running = sleeping(&seconds);
    builder.kill().unwrap();
    builder.wait().unwrap();
    wait_until_none_sleeps(&seconds);
    assert_eq!((&said, running), (b"ready", 2));
}

fn the_helper_ends_with_the_executor() {
    let world = World::new();
    let helper = format!("/proc/{}/stat", world.executor.helper_id());
    assert!(fs_err::metadata(&helper).is_ok());
    drop(world);
    assert!(fs_err::metadata(&helper).is_err());
}

fn a_dead_helper_is_reported() {
    let world = World::new();
    let helper = rustix::process::Pid::from_raw(world.executor.helper_id().cast_signed()).unwrap();
    rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
    let ran = world.sh("true");
    assert!(matches!(ran.result, Err(ExecuteError::HelperDied)), "{:?}", ran.result);
}

fn many_steps_one_after_another() {
    let world = World::new();
    for number in 0..50 {
        let script = format!("echo {number} >> /count; wc -l < /count");
        assert_eq!(world.sh(&script).stdout(), format!("{}\n", number + 1));
    }
}

fn an_image_without_a_shell_is_told_so() {
    assert_eq!(
        World::empty().sh("true").error(),
        "the image has no /bin/sh: use the exec form, RUN [\"program\", \"argument\"]"
    );
}

fn programs_that_cannot_run_are_told_apart() {
    let world = World::new();
    world.write("bin/script", "no first line\n");
    world.write("bin/lost", "#!/bin/nowhere\n");
    world.write("bin/plain", "");
    let prepare = world.sh("chmod 755 /bin/script /bin/lost");
    assert_eq!(prepare.stdout(), "");
    for (program, expected) in [
        ("/bin/nothing", "the image has no /bin/nothing"),
        (
            "nothing",
            "nothing was not found in the image's PATH \
             (/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)",
        ),
        ("", "the command is empty"),
        (
            "script",
            "/bin/script is not a program for this machine: wrong architecture, or no #! line",
        ),
        (
            "lost",
            "/bin/lost is in the image, but not the interpreter or dynamic loader that it names",
        ),
        ("plain", "cannot execute /bin/plain: Permission denied (os error 13)"),
        ("/etc", "cannot execute /etc: Permission denied (os error 13)"),
        ("/bin/tr\0ue", "cannot execute /bin/tr\0ue: Invalid argument (os error 22)"),
    ] {
        assert_eq!(world.run(&Spec::new([program])).error(), expected, "{program}");
    }
    assert_eq!(world.run(&Spec::new(Vec::<String>::new())).error(), "the command is empty");
}

fn a_large_script_arrives() {
    let text = "x".repeat(100_000);
    let mut spec = Spec::new(["/bin/sh".to_owned(), "-c".to_owned(), format!("echo {text}")]);
    spec.env = (0..10).map(|n| (format!("LARGE{n}"), text.clone())).collect();
    assert_eq!(World::new().run(&spec).stdout(), format!("{text}\n"));
    // More than the kernel takes in one argument.
    spec.args[2] = "y".repeat(1 << 18);
    let error = World::new().run(&spec).error();
    assert_eq!(error, "cannot execute /bin/sh: Argument list too long (os error 7)");
}

fn a_program_that_is_no_helper_is_reported() {
    let start = |program: &str| {
        let init = InitCommand { program: PathBuf::from(program), args: Vec::new() };
        Executor::start(&init).unwrap_err().to_string()
    };
    assert_eq!(start("/bin/false"), "the executor's helper process ended unexpectedly");
    assert_eq!(start("/nowhere/init"), "cannot start the executor's helper process /nowhere/init");
}
