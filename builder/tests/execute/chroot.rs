//! Steps without namespaces: the part of the suite that holds for them too, and what has to be
//! done by hand where the kernel does it elsewhere.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use boatyard_builder::execute::{
    CancelHandle, ChrootExecutor, Execute, InitCommand, MountKind, Outcome, Source, Spec, StepMount,
};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::harness::{Test, tests};
use crate::world::{World, Written};

tests!(
    what_hides_in_other_sessions_dies,
    a_fork_bomb_ends_with_the_step,
    a_cancelled_step_leaves_nothing,
    has_devices_that_work,
    resolv_conf_and_hosts_are_placed_and_restored,
    what_the_step_makes_of_them_is_lost,
    links_lead_to_nothing_of_the_hosts,
    a_step_that_moves_etc_takes_the_images_files_along,
    the_images_own_devices_return,
    copies_what_is_mounted_read_only,
    what_cannot_be_had_is_said,
    the_container_is_not_asked_for_its_name,
);

/// The tests of the other files that hold here too. The others look into `/proc`, at mounts or
/// namespaces, or send signals to all processes that they see.
const OF_BOTH: [&str; 25] = [
    "says_what_it_writes",
    "exit_codes_and_signals",
    "output_comes_live",
    "ten_megabytes_come_whole_and_in_order",
    "what_is_left_running_dies",
    "a_cancelled_step_ends_promptly",
    "a_cancelled_handle_stays_cancelled",
    "a_step_may_take_only_so_long",
    "many_steps_one_after_another",
    "an_image_without_a_shell_is_told_so",
    "programs_that_cannot_run_are_told_apart",
    "a_large_script_arrives",
    "runs_as_the_user_asked_for",
    "has_the_environment_asked_for",
    "the_working_directory_is_made_and_given_to_the_user",
    "new_files_have_the_usual_modes",
    "limits_open_files",
    "a_step_that_changes_nothing_leaves_an_empty_layer",
    "the_layer_has_what_the_step_wrote",
    "an_image_of_one_program_stays_one",
    "what_the_step_put_beside_a_mount_point_stays",
    "kernel_file_systems_are_not_mounted_through_links",
    "links_into_proc_and_dev_reach_nothing_of_ours",
    "places_of_the_wrong_kind_are_named",
    "a_program_that_is_a_link_to_the_executor_cannot_write_it",
];

pub(crate) fn of_both(tests: &[Test]) -> impl Iterator<Item = &Test> {
    let name = |test: &Test| test.0.rsplit("::").next().unwrap_or_default();
    tests.iter().filter(move |test| OF_BOTH.contains(&name(test)))
}

/// Long enough for anything prompt on a busy machine.
const PROMPT: Duration = Duration::from_secs(20);

/// How many processes sleep for `seconds`, anywhere on this machine.
fn sleeping(seconds: &str) -> usize {
    let line = format!("sleep\0{seconds}\0");
    let processes = fs_err::read_dir("/proc").unwrap();
    let lines = processes.map(|entry| fs_err::read(entry.unwrap().path().join("cmdline")));
    lines.filter(|found| found.as_ref().is_ok_and(|found| found == line.as_bytes())).count()
}

/// A number of seconds that nobody else sleeps for.
fn own_seconds(range: u64) -> String {
    (range + u64::from(std::process::id())).to_string()
}

fn what_hides_in_other_sessions_dies() {
    let seconds = own_seconds(30_000_000);
    let script = "(setsid sh -c '(setsid sleep $0 &) ; trap \"\" TERM HUP; sleep $0' $0 &)
                  sleep $0 & nohup setsid sleep $0 > /dev/null 2>&1 & echo done";
    let ran = World::new().run(&Spec::new(["/bin/sh", "-c", script, &seconds]));
    assert_eq!(ran.stdout, "done\n");
    assert_eq!(sleeping(&seconds), 0, "it is gone when the step is");
}

fn a_fork_bomb_ends_with_the_step() {
    // Each generation outlives its parent, in sessions of its own; the limit spares the machine.
    let world = World::new();
    let seconds = own_seconds(40_000_000);
    world.write("bomb", &format!("setsid sh /bomb & setsid sh /bomb & exec sleep {seconds}\n"));
    let mut spec = Spec::new(["/bin/sh", "-c", "sh /bomb & usleep 300000; echo over"]);
    spec.user.uid = 64_000 + std::process::id() % 1000;
    spec.rlimits = vec![boatyard_builder::execute::Rlimit {
        resource: boatyard_builder::execute::Resource::Nproc,
        soft: 60,
        hard: 60,
    }];
    let started = std::time::Instant::now();
    let ran = world.run(&spec);
    assert_eq!((ran.stdout.as_str(), sleeping(&seconds)), ("over\n", 0));
    assert!(started.elapsed() < PROMPT);
}

fn a_cancelled_step_leaves_nothing() {
    let world = World::new();
    let seconds = own_seconds(50_000_000);
    let mut spec = Spec::new(["/bin/sh", "-c", "setsid sleep $0 & sleep $0", &seconds]);
    spec.timeout = Some(Duration::from_millis(100));
    assert_eq!(world.run(&spec).outcome(), Outcome::TimedOut);
    assert_eq!(sleeping(&seconds), 0);
    assert_eq!(world.layer(), Vec::<String>::new(), "the tree is as it was");
}

fn has_devices_that_work() {
    let world = World::new();
    let ran = world.sh("echo gone > /dev/null && wc -c < /dev/null && head -c 3 /dev/zero | wc -c
         head -c 500000 /dev/urandom | wc -c; (echo full > /dev/full) 2>/dev/null || echo full
         echo shared > /dev/shm/x && cat /dev/shm/x; ls /proc /sys");
    assert_eq!(ran.stdout(), "0\n3\n500000\nfull\nshared\n/proc:\n\n/sys:\n");
    assert_eq!(world.layer(), Vec::<String>::new());
}

fn resolv_conf_and_hosts_are_placed_and_restored() {
    let world = World::new();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 7);
    world.write("etc/hosts", "image\n");
    let hosts = world.image().join("etc/hosts");
    fs_err::set_permissions(&hosts, PermissionsExt::from_mode(0o600)).unwrap();
    symlink("../run/resolv.conf", world.image().join("etc/resolv.conf")).unwrap();
    for name in ["etc/hosts", "etc", ""] {
        fs_err::File::open(world.image().join(name)).unwrap().file().set_modified(then).unwrap();
    }
    let mut spec =
        Spec::new(["/bin/sh", "-c", "cat /etc/resolv.conf; grep -c 192.0.2.7 /etc/hosts"]);
    spec.hosts = vec![("db".to_owned(), "192.0.2.7".parse().unwrap())];
    let resolver = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(world.run(&spec).stdout(), format!("{resolver}1\n"));
    assert_eq!(world.layer(), Vec::<String>::new(), "not a time, not a mode, no /run");
    let root = fs_err::metadata(world.written()).unwrap();
    assert_eq!((root.mtime(), root.mtime_nsec()), (1_000_000_000, 7));
}

fn what_the_step_makes_of_them_is_lost() {
    let world = World::new();
    world.write("etc/hosts", "image\n");
    let ran = world.sh("echo x >> /etc/hosts; rm /etc/resolv.conf; ln -s /run/x /etc/resolv.conf
         mkdir -p /proc/a/b /dev/x; echo kept > /etc/kept");
    assert_eq!(ran.stdout(), "");
    assert_eq!(world.layer(), ["d etc", "f etc/kept"]);
    // A directory full of links where a file of ours was.
    assert_eq!(world.sh("rm /etc/hosts; mkdir /etc/hosts; ln -s / /etc/hosts/x").stdout(), "");
    assert_eq!(world.layer(), ["d etc", "f etc/kept"]);
}

fn links_lead_to_nothing_of_the_hosts() {
    let world = World::new();
    fs_err::write(world.path("secret"), "secret").unwrap();
    let secret = world.path("secret");
    let up = format!("../../../../../../../../..{}", secret.display());
    for target in [secret.to_str().unwrap(), &up, "/proc/self/root/x", "/proc/1/root/etc/x"] {
        let path = world.image().join("etc/resolv.conf");
        let _ = fs_err::remove_file(&path);
        symlink(target, &path).unwrap();
        let _ = fs_err::remove_dir_all(world.written());
        let ran = world.sh("echo x 2>/dev/null >> /etc/resolv.conf; true");
        assert_eq!(ran.outcome(), Outcome::Exited(0), "{target}");
        assert_eq!(fs_err::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(world.layer(), Vec::<String>::new(), "{target}");
    }
}

fn a_step_that_moves_etc_takes_the_images_files_along() {
    let world = World::new();
    world.write("etc/hosts", "image\n");
    assert_eq!(world.sh("mv /etc /opt; ln -s /tmp /etc; echo x > /tmp/hosts").stdout(), "");
    let read = |path: &str| fs_err::read_to_string(world.written().join(path)).unwrap();
    assert_eq!((read("opt/hosts"), read("tmp/hosts")), ("image\n".to_owned(), "x\n".to_owned()));
    assert!(!world.written().join("opt/resolv.conf").exists());
    // What is removed as a whole stays removed.
    assert_eq!(world.sh("rm -r /opt").stdout(), "");
    assert!(!world.written().join("opt").exists());
    assert!(!world.path("aside").exists(), "and nothing stays beside the tree");
}

fn the_images_own_devices_return() {
    let world = World::new();
    world.write("dev/own", "image\n");
    world.write("proc/own", "image\n");
    assert_eq!(world.sh("ls /dev/own /proc/own 2>/dev/null; true").stdout(), "");
    assert_eq!(world.layer(), Vec::<String>::new());
    let devices = fs_err::read_dir(world.written().join("dev")).unwrap();
    let special = |entry: std::io::Result<fs_err::DirEntry>| {
        entry.unwrap().file_type().unwrap().is_char_device()
    };
    assert!(!devices.into_iter().any(special));
}

fn copies_what_is_mounted_read_only() {
    let world = World::new();
    fs_err::create_dir_all(world.path("tree/inner")).unwrap();
    fs_err::write(world.path("tree/inner/leaf"), "leaf\n").unwrap();
    symlink("inner/leaf", world.path("tree/link")).unwrap();
    fs_err::write(world.path("script"), "#!/bin/sh\necho ran\n").unwrap();
    fs_err::set_permissions(world.path("script"), PermissionsExt::from_mode(0o755)).unwrap();
    let bind = |source: &str, target: &str, directory| {
        let source = openat(CWD, world.path(source), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let source = Source::new(source.unwrap());
        let kind = MountKind::Bind { source, directory, read_only: true };
        StepMount { target: target.to_owned(), kind }
    };
    let mut spec = Spec::new([
        "/bin/sh",
        "-c",
        "cat /mnt/deep/link; /dev/pipes/EOF; stat -c %a /cache; echo x > /mnt/deep/inner/leaf",
    ]);
    let kind = MountKind::Tmpfs { size: None, mode: 0o1770, read_only: false };
    spec.mounts = vec![
        bind("tree", "/mnt/deep", true),
        bind("script", "/dev/pipes/EOF", false),
        StepMount { target: "/cache".to_owned(), kind },
    ];
    assert_eq!(world.run(&spec).stdout(), "leaf\nran\n1770\n");
    assert_eq!(fs_err::read_to_string(world.path("tree/inner/leaf")).unwrap(), "leaf\n");
    assert_eq!(world.layer(), Vec::<String>::new());
}

fn what_cannot_be_had_is_said() {
    let world = World::new();
    let source = fs_err::File::open(world.image()).unwrap().into_file();
    let kind =
        MountKind::Bind { source: Source::new(source.into()), directory: true, read_only: false };
    let mut spec = Spec::new(["/bin/true"]);
    spec.mounts = vec![StepMount { target: "/cache".to_owned(), kind }];
    assert_eq!(
        world.run(&spec).error(),
        "without namespaces of its own, a step cannot have a writable mount at /cache"
    );
    let init = InitCommand { program: "/proc/self/exe".into(), args: vec!["init".into()] };
    let cancel = CancelHandle::new().unwrap();
    let alone = Spec::new(["/bin/true"]);
    let result =
        ChrootExecutor::new(init).run(world.root(), &alone, &mut Written::default(), &cancel);
    assert_eq!(
        result.unwrap_err().to_string(),
        "without namespaces of its own, a step cannot be kept from the network"
    );
}

fn the_container_is_not_asked_for_its_name() {
    let world = World::new();
    let mut spec = Spec::new(["/bin/sh", "-c", "grep -c \" $(hostname)$\" /etc/hosts"]);
    spec.hostname = "yard".to_owned();
    assert_eq!(world.run(&spec).stdout(), "1\n");
}
