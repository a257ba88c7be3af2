//! The same image and the same questions under runc: what it answers is what we must.

use std::path::{Path, PathBuf};
use std::process::Command;

use boatyard_builder::execute::Spec;
use serde_json::{Value, json};

use crate::harness::tests;
use crate::world::World;

tests!(runc_gives_the_same_rights_masks_and_mounts, runc_gives_the_same_answers_to_calls);

const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
/// What docker and BuildKit have runc mask, and make read-only.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Runs a script in `world`'s image under runc; `None`, and a line that says so, without runc.
fn runc(world: &World, script: &str) -> Option<String> {
    let Some(runc) = program() else {
        println!("skipped: runc is not installed (Debian: runc)");
        return None;
    };
    let bundle = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let root = bundle.path().join("state");
        Command::new(&runc).arg("--root").arg(root).args(arguments).output().unwrap()
    };
    let bundle_path = bundle.path().to_str().unwrap();
    assert!(run(&["spec", "--bundle", bundle_path]).status.success());
    let config = bundle.path().join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs_err::read(&config).unwrap()).unwrap();
    spec["root"] = json!({ "path": world.image(), "readonly": false });
    spec["process"]["terminal"] = json!(false);
    spec["process"]["noNewPrivileges"] = json!(false);
    spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
    let held = CAPABILITIES.map(|name| format!("CAP_{name}"));
    spec["process"]["capabilities"] =
        json!({ "bounding": held, "permitted": held, "effective": held });
    // As docker and BuildKit have it; runc's own example says nothing.
    let mounts = spec["mounts"].as_array_mut().unwrap();
    let proc = mounts.iter_mut().find(|mount| mount["destination"] == "/proc").unwrap();
    proc["options"] = json!(["nosuid", "noexec", "nodev"]);
    spec["linux"]["maskedPaths"] = json!(MASKED);
    spec["linux"]["readonlyPaths"] = json!(READ_ONLY);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": ALLOWED.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW" }],
    });
    if cfg!(target_arch = "aarch64") {
        spec["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
    }
    fs_err::write(&config, spec.to_string()).unwrap();
    let name = format!("boatyard-test-{}", std::process::id());
    let output = run(&["run", "--bundle", bundle_path, &name]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists())
        .map(Path::to_owned)
}

/// What a shell needs, and one newer than all that the scripts ask about, for what is newer than
/// its policy runc calls unknown.
const ALLOWED: &str = "\
    access arch_prctl brk capget capset chdir clone close dup dup2 dup3 epoll_ctl epoll_pwait execve \
    exit exit_group faccessat faccessat2 fchdir fchmodat2 fchown fcntl fork fstat fstatfs futex \
    getcwd getdents64 getegid geteuid getgid getpgid getpgrp getpid getppid getrandom gettid getuid \
    ioctl lseek lstat mmap mprotect munmap nanosleep newfstatat open openat openat2 pipe pipe2 poll \
    prctl prlimit64 read readlink readv rseq rt_sigaction rt_sigprocmask rt_sigreturn sendfile \
    set_robust_list set_tid_address setgid setgroups setuid sigaltstack stat statx tgkill umask \
    uname vfork wait4 write writev";

fn runc_gives_the_same_rights_masks_and_mounts() {
    let world = World::new();
    let script = format!(
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; umask
         for path in {}; do
             test -d $path && echo $path has $(ls -A $path | wc -l)
             test -f $path || test -c $path && echo $path has $(wc -c < $path)
         done
         while read id parent dev root point options rest; do
             case \"$point\" in {} | {} | /dev | /dev/pts | /dev/shm | /dev/mqueue | /sys | /proc)
                 echo \"$point $options\";;
             esac
         done < /proc/self/mountinfo",
        MASKED.join(" "),
        MASKED.join(" | "),
        READ_ONLY.join(" | ")
    );
    let Some(theirs) = runc(&world, &script) else { return };
    let ours = world.run(&Spec::new(["/bin/sh", "-c", &script]));
    assert_eq!(comparable(ours.stdout()), comparable(&theirs));
}

/// The lines in order, with the options of mounts in order, and but for what differs on purpose.
fn comparable(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(comparable_line).collect();
    lines.sort();
    lines
}

fn comparable_line(line: &str) -> String {
    let Some((point, options)) = line.split_once(' ').filter(|_| line.starts_with('/')) else {
        return line.to_owned();
    };
    let mut options: Vec<&str> = options.split(',').collect();
    options.sort_unstable();
    match point {
        // Nothing but the devices that are there opens one.
        "/dev" => options.retain(|option| *option != "nodev"),
        // A mask is a mask, whatever it is made of: what it shows was asked above.
        _ if MASKED.contains(&point) && !line.contains("has") => options.clear(),
        _ => {}
    }
    format!("{point} {}", options.join(","))
}

fn runc_gives_the_same_answers_to_calls() {
    let world = World::new();
    world.add_probe();
    let calls = [libc::SYS_mount, libc::SYS_unshare, libc::SYS_keyctl, libc::SYS_bpf, 4000];
    let mut script: String = calls.iter().map(|number| format!("probe {number}\n")).collect();
    if cfg!(target_arch = "x86_64") {
        // mount, keyctl and one that nobody has, by i386's numbers and by x32's.
        script += "probe -i386 21; probe -i386 288; probe -i386 4000; probe 0x400000a5; true";
    }
    let Some(theirs) = runc(&world, &script) else { return };
    assert_eq!(world.sh(&script).stdout(), theirs);
}
