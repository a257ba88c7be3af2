//! Who a step is and what it may do.

use boatyard_builder::execute::{Outcome, Resource, Rlimit, Security, Spec, User};

use crate::harness::tests;
use crate::world::World;

tests!(
    root_has_the_default_capabilities,
    a_user_has_none_but_may_gain_them,
    an_insecure_step_has_all,
    runs_as_the_user_asked_for,
    has_the_environment_asked_for,
    the_working_directory_is_made_and_given_to_the_user,
    new_files_have_the_usual_modes,
    limits_open_files,
    no_descriptor_leaks_in,
    starts_with_default_signals,
    has_a_session_of_its_own,
    cannot_reach_the_executors_program,
);

const STATUS: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status";
/// The fourteen: CHOWN to FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
/// SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const DEFAULT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

fn ada() -> User {
    User { uid: 1000, gid: 1000, groups: vec![10, 29], home: "/home/ada".to_owned() }
}

fn capabilities(inheritable: &str, held: &str, bounding: &str) -> String {
    format!(
        "CapInh:\t{inheritable}\nCapPrm:\t{held}\nCapEff:\t{held}\nCapBnd:\t{bounding}\n\
         CapAmb:\t{NONE}\nNoNewPrivs:\t0\n"
    )
}

fn root_has_the_default_capabilities() {
    let ran = World::new().sh(STATUS);
    assert!(ran.stdout().starts_with(&capabilities(NONE, DEFAULT, DEFAULT)), "{}", ran.stdout());
}

fn a_user_has_none_but_may_gain_them() {
    let world = World::new();
    let mut spec = Spec::new(["/bin/sh", "-c", STATUS]);
    spec.user = ada();
    let ran = world.run(&spec);
    assert!(ran.stdout().starts_with(&capabilities(NONE, NONE, DEFAULT)), "{}", ran.stdout());

    // A program with the set-user-id bit works, as sudo must.
    world.write("etc/passwd", "root::0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n");
    assert_eq!(world.sh("rm /bin/su; cp /bin/busybox /bin/su; chmod 4755 /bin/su").stdout(), "");
    spec.args = ["/bin/su", "-c", "id -u", "root"].map(str::to_owned).to_vec();
    let ran = world.run(&spec);
    assert_eq!((ran.stdout.as_str(), ran.outcome()), ("0\n", Outcome::Exited(0)), "{}", ran.stderr);
}

fn an_insecure_step_has_all() {
    let mut spec = Spec::new([
        "/bin/sh",
        "-c",
        "grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev/loop0",
    ]);
    spec.security = Security::Insecure;
    let ran = World::new().run(&spec);
    let own = fs_err::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapBnd")).unwrap();
    let own = own.trim_start_matches("CapBnd:\t");
    assert_eq!(ran.stdout(), format!("CapEff:\t{own}\nmounted\n/dev/loop0\n"));
}

fn runs_as_the_user_asked_for() {
    let world = World::new();
    let mut spec = Spec::new(["/bin/sh", "-c", "id -u; id -g; id -G; echo $HOME; > /home/mine"]);
    spec.user = ada();
    let ran = world.run(&spec);
    assert_eq!(ran.stdout, "1000\n1000\n1000 10 29\n/home/ada\n");
    assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
}

fn has_the_environment_asked_for() {
    let world = World::new();
    let mut spec = Spec::new(["env"]);
    assert_eq!(
        world.run(&spec).stdout(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/\n"
    );
    let given = [("A", "1"), ("PATH", "/bin"), ("A", "two words\nand lines"), ("HOME", "/x")];
    spec.env = given.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    assert_eq!(world.run(&spec).stdout(), "A=two words\nand lines\nPATH=/bin\nHOME=/x\n");
}

fn the_working_directory_is_made_and_given_to_the_user() {
    let world = World::new();
    let mut spec = Spec::new(["/bin/sh", "-c", "pwd; stat -c '%u:%g %a' . .. /srv; > mine"]);
    spec.user = ada();
    spec.cwd = "/srv/app/src".to_owned();
    assert_eq!(
        world.run(&spec).stdout(),
        "/srv/app/src\n1000:1000 755\n1000:1000 755\n1000:1000 755\n"
    );
    assert_eq!(world.layer(), ["d srv", "d srv/app", "d srv/app/src", "f srv/app/src/mine"]);
    spec.cwd = "/etc/passwd".to_owned();
    let error = world.run(&spec).error();
    assert!(
        error.starts_with("cannot enter the working directory /etc/passwd: Not a d"),
        "{error}"
    );
}

fn new_files_have_the_usual_modes() {
    let world = World::new();
    let mut spec =
        Spec::new(["/bin/sh", "-c", "umask; > /tmp/f; mkdir /tmp/d; stat -c %a /tmp/f /tmp/d"]);
    assert_eq!(world.run(&spec).stdout(), "0022\n644\n755\n");
    spec.umask = 0o077;
    spec.args[2] = "umask".to_owned();
    assert_eq!(world.run(&spec).stdout(), "0077\n");
}

fn limits_open_files() {
    let world = World::new();
    let mut spec = Spec::new(["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    let ran = world.run(&spec);
    let (soft, hard) = ran.stdout().trim().split_once('\n').unwrap();
    assert_eq!(soft, "1024");
    assert!(hard.parse::<u64>().unwrap() <= 1 << 20, "{hard}");
    spec.rlimits = vec![Rlimit { resource: Resource::Nofile, soft: 100, hard: 200 }];
    assert_eq!(world.run(&spec).stdout(), "100\n200\n");
}

fn no_descriptor_leaks_in() {
    let ran = World::new().sh("ls /proc/self/fd; echo; ls /proc/$$/fd; echo
         for fd in /proc/1/fd/*; do readlink $fd; (: < $fd) 2>&1; done | grep -v denied");
    let (ls, rest) = ran.stdout.split_once("\n\n").unwrap();
    // The fourth is the directory that ls reads.
    assert_eq!((ls, rest), ("0\n1\n2\n3", "0\n1\n2\n\n"));
}

fn starts_with_default_signals() {
    // A shell would ignore some itself.
    let ran = World::new().run(&Spec::new(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]));
    assert_eq!(ran.stdout(), format!("SigBlk:\t{NONE}\nSigIgn:\t{NONE}\n"));
}

fn has_a_session_of_its_own() {
    let ran = World::new().sh("cut -d ' ' -f 1,5,6,7 /proc/self/stat");
    let fields: Vec<&str> = ran.stdout().trim().split(' ').collect();
    // Process group and session are those of the shell; there is no terminal.
    assert_eq!(fields[1..], ["2", "2", "0"], "{fields:?}");
}

fn cannot_reach_the_executors_program() {
    let world = World::new();
    let mut spec = Spec::new([
        "/bin/sh",
        "-c",
        "readlink /proc/1/exe; cat /proc/1/exe | wc -c; kill -9 1; kill -KILL -1; echo alive",
    ]);
    let ran = world.run(&spec);
    assert!(ran.stdout.starts_with("0\n"), "{}", ran.stdout);
    // Even where it can be read, it cannot be written.
    spec.security = Security::Insecure;
    spec.args[2] = "test -r /proc/1/exe && echo readable; chmod 777 /proc/1/exe".to_owned();
    let ran = world.run(&spec);
    assert_eq!(ran.stdout, "readable\n");
    assert!(ran.stderr.contains("Read-only file system"), "{}", ran.stderr);
}
