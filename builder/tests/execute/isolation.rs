//! What a step tries to reach outside of itself, and does not.

use std::os::unix::fs::MetadataExt;

use boatyard_builder::execute::{MountKind, Network, Outcome, Security, Source, Spec, StepMount};
use rustix::fs::{CWD, FileType, Mode, OFlags, major, makedev, minor, mknodat, openat};

use crate::harness::tests;
use crate::world::World;

tests!(
    the_hosts_processes_are_not_there_to_be_seen_signalled_or_traced,
    calls_for_the_host_are_refused,
    calls_that_the_policy_does_not_know_do_not_exist,
    programs_of_another_architecture_are_held_by_the_same_policy,
    sockets_around_namespaces_are_refused,
    programs_may_trace_their_own,
    device_files_open_nothing,
    the_devices_that_work_cannot_be_replaced,
    kernel_settings_cannot_be_changed,
    the_kernels_interfaces_cannot_be_mounted_over,
    an_insecure_step_has_no_filter_and_the_devices,
    keys_of_the_builder_are_out_of_reach,
    one_step_does_not_see_another,
);

/// What the probe prints about each call, one word per line.
fn probe(world: &World, calls: &[(&str, String)]) -> Vec<String> {
    let script: Vec<String> = calls.iter().map(|(_, call)| format!("probe {call}")).collect();
    let ran = world.sh(&script.join("\n"));
    let names = calls.iter().map(|(name, _)| name);
    ran.stdout().lines().zip(names).map(|(answer, name)| format!("{name} {answer}")).collect()
}

fn probing() -> World {
    let world = World::new();
    world.add_probe();
    world
}

/// A call by its number here, with its arguments.
fn call(number: libc::c_long, arguments: &str) -> String {
    format!("{number} {arguments}")
}

fn the_hosts_processes_are_not_there_to_be_seen_signalled_or_traced() {
    let world = probing();
    let own = std::process::id();
    // PTRACE_ATTACH and PTRACE_SEIZE, of the first process, which is the executor's.
    let (attach, seize) = (call(libc::SYS_ptrace, "16 1"), call(libc::SYS_ptrace, "0x4206 1"));
    let ran = world.sh(&format!(
        "ls -d /proc/{own} 2>&1 | grep -c 'No such'; kill -0 {own} 2>&1 | grep -c 'No such'
         probe {attach}; probe {seize}
         for file in environ maps mem syscall stack io root/bin cwd/bin fd/0 map_files/; do
             ls -l /proc/1/$file >/dev/null 2>&1 && cat /proc/1/$file 2>/dev/null | head -c 1
         done
         echo x 2>/dev/null > /proc/1/mem || echo kept"
    ));
    assert_eq!(ran.stdout, "1\n1\nEPERM\nEPERM\nkept\n", "{}", ran.stderr);
}

fn calls_for_the_host_are_refused() {
    let calls = [
        ("mount", call(libc::SYS_mount, "tmpfs /tmp tmpfs 0 0")),
        ("umount2", call(libc::SYS_umount2, "/proc/keys 2")),
        ("pivot_root", call(libc::SYS_pivot_root, "/ /tmp")),
        ("unshare", call(libc::SYS_unshare, "0x10000000")),
        ("setns", call(libc::SYS_setns, "0 0")),
        ("clone", call(libc::SYS_clone, "0x10000011")),
        ("fsopen", call(libc::SYS_fsopen, "tmpfs 0")),
        ("open_tree", call(libc::SYS_open_tree, "-100 / 1")),
        ("move_mount", call(libc::SYS_move_mount, "-100 /tmp -100 /bin 0")),
        ("mount_setattr", call(libc::SYS_mount_setattr, "-100 / 0 0 0")),
        ("open_by_handle_at", call(libc::SYS_open_by_handle_at, "0 0 0")),
        ("keyctl", call(libc::SYS_keyctl, "0 -3 0")),
        ("add_key", call(libc::SYS_add_key, "user x y 1 -3")),
        ("request_key", call(libc::SYS_request_key, "user x 0 0")),
        ("bpf", call(libc::SYS_bpf, "0 0 0")),
        ("perf_event_open", call(libc::SYS_perf_event_open, "0 0 -1 -1 0")),
        ("io_uring_setup", call(libc::SYS_io_uring_setup, "1 0")),
        ("userfaultfd", call(libc::SYS_userfaultfd, "0")),
        ("init_module", call(libc::SYS_init_module, "0 0 0")),
        ("finit_module", call(libc::SYS_finit_module, "0 0 0")),
        ("delete_module", call(libc::SYS_delete_module, "x 0")),
        ("kexec_load", call(libc::SYS_kexec_load, "0 0 0 0")),
        // With numbers that even an allowed call would not take.
        ("reboot", call(libc::SYS_reboot, "1 2 3 0")),
        ("swapon", call(libc::SYS_swapon, "/none 0")),
        ("acct", call(libc::SYS_acct, "/none")),
        ("quotactl", call(libc::SYS_quotactl, "0 0 0 0")),
        ("settimeofday", call(libc::SYS_settimeofday, "0 0")),
        ("clock_settime", call(libc::SYS_clock_settime, "0 0")),
        ("sethostname", call(libc::SYS_sethostname, "x 1")),
        ("syslog", call(libc::SYS_syslog, "10 0 0")),
        ("personality", call(libc::SYS_personality, "0x0040000")),
        ("vhangup", call(libc::SYS_vhangup, "")),
    ];
    let answers = probe(&probing(), &calls);
    let expected: Vec<String> = calls.iter().map(|(name, _)| format!("{name} EPERM")).collect();
    assert_eq!(answers, expected);
}

fn calls_that_the_policy_does_not_know_do_not_exist() {
    let calls = [("clone3", call(libc::SYS_clone3, "0 0")), ("new", "4000".to_owned())];
    assert_eq!(probe(&probing(), &calls), ["clone3 ENOSYS", "new ENOSYS"]);
}

fn programs_of_another_architecture_are_held_by_the_same_policy() {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let table = [
        ("getpid", "20", "2"),
        ("mount", "21 tmpfs /tmp tmpfs 0 0", "EPERM"),
        ("unshare", "310 0x10000000", "EPERM"),
        ("keyctl", "288 0 -3 0", "EPERM"),
        ("ADDR_NO_RANDOMIZE", "136 0x40000", "EPERM"),
        ("clone3", "435 0 0", "ENOSYS"),
        ("new", "4000", "ENOSYS"),
    ];
    let calls = table.map(|(name, call, _)| (name, format!("-i386 {call}")));
    let mut answers = probe(&probing(), &calls);
    // A kernel may be without i386; then the interrupt is a fault, and no test would get here.
    let pid = answers.remove(0);
    assert!(pid.trim_start_matches("getpid ").parse::<u32>().is_ok(), "{pid}");
    let expected = table[1..].iter().map(|(name, _, answer)| format!("{name} {answer}"));
    assert_eq!(answers, expected.collect::<Vec<_>>());
    let ran = probing().sh("probe 0x40000027; probe 0x400000a5 0 0 0");
    assert_eq!(ran.stdout().lines().nth(1), Some("EPERM"), "{}", ran.stdout());
}

fn sockets_around_namespaces_are_refused() {
    let calls = [
        ("AF_ALG", call(libc::SYS_socket, "38 5 0")),
        ("AF_VSOCK", call(libc::SYS_socket, "40 1 0")),
        // The kernel looks at 32 bits, and so must the filter.
        ("AF_ALG, disguised", call(libc::SYS_socket, "0x100000026 5 0")),
        ("AF_UNIX", call(libc::SYS_socket, "1 1 0")),
    ];
    assert_eq!(
        probe(&probing(), &calls),
        ["AF_ALG EPERM", "AF_VSOCK EPERM", "AF_ALG, disguised EPERM", "AF_UNIX 3"]
    );
}

fn programs_may_trace_their_own() {
    // PTRACE_TRACEME, by the shell, which must not become the probe for that.
    let ran = probing().sh(&format!("probe {}; true", call(libc::SYS_ptrace, "0 0 0 0")));
    assert_eq!(ran.stdout(), "0\n");
}

fn device_files_open_nothing() {
    let world = World::new();
    let host = fs_err::metadata("/").unwrap().dev();
    let (kind, mode) = (FileType::BlockDevice, Mode::from_raw_mode(0o666));
    mknodat(CWD, world.image().join("disk"), kind, mode, host).unwrap();
    let null = world.image().join("null");
    mknodat(CWD, null, FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
    fs_err::create_dir(world.path("cache")).unwrap();
    let source = openat(CWD, world.path("cache"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let source = Source::new(source.unwrap());
    let kinds = [
        ("/cache", MountKind::Bind { source, directory: true, read_only: false }),
        ("/memory", MountKind::Tmpfs { size: None, mode: 0o755, read_only: false }),
    ];
    let mut spec = Spec::new([
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        format!(
            "for d in / /tmp /dev /dev/shm /cache /memory; do
                 mknod $d/sda b {} {}; mknod $d/zero2 c 1 5
                 head -c 1 $d/sda; head -c 1 $d/zero2; (: > $d/zero2)
             done 2>&1 | grep -c 'Permission denied'
             head -c 1 /disk 2>&1; (: > /null) 2>&1; head -c 1 /dev/zero | wc -c",
            major(host),
            minor(host)
        ),
    ]);
    spec.mounts = kinds.map(|(to, kind)| StepMount { target: to.to_owned(), kind }).to_vec();
    let ran = world.run(&spec);
    assert_eq!(
        ran.stdout,
        "18\nhead: /disk: Permission denied\n/bin/sh: can't create /null: Permission denied\n1\n"
    );
    // What was made is in the layer all the same.
    assert!(world.layer().contains(&"? sda".to_owned()), "{:?}", world.layer());
}

fn the_devices_that_work_cannot_be_replaced() {
    let world = World::new();
    let ran = world
        .sh("rm -f /dev/null /dev/zero; mv /dev/full /dev/x; ln -sf /etc/passwd /dev/tty
         stat -c '%n %t:%T' /dev/null /dev/zero /dev/full /dev/tty");
    assert_eq!(ran.stdout, "/dev/null 1:3\n/dev/zero 1:5\n/dev/full 1:7\n/dev/tty 5:0\n");
    // And what a step does to them is gone with it.
    let host = fs_err::metadata("/dev/null").unwrap().mode();
    assert_eq!(world.sh("chmod 0 /dev/null; stat -c %a /dev/null").stdout(), "0\n");
    assert_eq!(world.sh("stat -c %a /dev/null").stdout(), "666\n");
    assert_eq!(fs_err::metadata("/dev/null").unwrap().mode(), host);
}

fn kernel_settings_cannot_be_changed() {
    let ran = World::new().sh(
        "for file in /proc/sys/kernel/hostname /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness \
             /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/irq/default_smp_affinity \
             /sys/kernel/mm/transparent_hugepage/enabled /sys/power/state /sys/fs/cgroup/cgroup.procs
         do (echo 1 > $file) 2>/dev/null && echo wrote $file; done
         hostname x 2>/dev/null || date -s 2001-01-01 2>/dev/null || ip link add dummy0 type dummy \
             2>/dev/null || dmesg 2>/dev/null || swapoff -a 2>/dev/null; renice -n -5 $$ 2>&1",
    );
    assert_ne!(ran.outcome(), Outcome::Exited(0));
    assert!(!ran.stdout.contains("wrote"), "{}", ran.stdout);
}

fn the_kernels_interfaces_cannot_be_mounted_over() {
    let world = World::new();
    std::os::unix::fs::symlink("/proc/sys", world.image().join("way")).unwrap();
    for target in ["/proc", "/proc/sys/kernel", "/proc/self/attr", "/sys/fs", "/way/kernel"] {
        let mut spec = Spec::new(["/bin/true"]);
        let kind = MountKind::Tmpfs { size: None, mode: 0o755, read_only: false };
        spec.mounts = vec![StepMount { target: target.to_owned(), kind }];
        let error = world.run(&spec).error();
        assert!(error.starts_with("cannot mount over the kernel's /"), "{target}: {error}");
    }
}

fn an_insecure_step_has_no_filter_and_the_devices() {
    let world = probing();
    let keyctl = call(libc::SYS_keyctl, "0 -3 0");
    let mut spec = Spec::new([
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        format!(
            "grep ^Seccomp: /proc/self/status; mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero | wc -c
             unshare -m true && echo unshared; probe {keyctl} | grep -c '[0-9]'
             mount -o remount,rw /sys && echo remounted"
        ),
    ]);
    spec.security = Security::Insecure;
    assert_eq!(world.run(&spec).stdout(), "Seccomp:\t0\n1\nunshared\n1\nremounted\n");
    assert_eq!(world.sh("grep ^Seccomp: /proc/self/status").stdout(), "Seccomp:\t2\n");
}

fn keys_of_the_builder_are_out_of_reach() {
    let world = probing();
    // KEYCTL_GET_KEYRING_ID of the session's; only an insecure step may ask.
    let ask = call(libc::SYS_keyctl, "0 -3 0");
    let mut spec = Spec::new(["/bin/sh".to_owned(), "-c".to_owned(), format!("probe {ask}")]);
    spec.security = Security::Insecure;
    let inside = [world.run(&spec), world.run(&spec)].map(|ran| ran.stdout().to_owned());
    let outside = std::process::Command::new(world.image().join("bin/probe"))
        .args(ask.split(' '))
        .output()
        .unwrap();
    assert_ne!(inside[0], String::from_utf8(outside.stdout).unwrap());
    assert_ne!(inside[0], inside[1], "each step has a keyring of its own");
    assert_eq!(world.sh("cat /proc/keys | wc -c").stdout(), "0\n");
}

fn one_step_does_not_see_another() {
    let world = World::new();
    let names = ["mnt", "pid", "ipc", "uts", "cgroup", "net"];
    let own = |name: &str| fs_err::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let script = "for n in mnt pid ipc uts cgroup net; do readlink /proc/self/ns/$n; done";
    let seen = world.sh(script).stdout().to_owned();
    for (name, inside) in names.iter().zip(seen.lines()) {
        assert_ne!(own(name).to_str().unwrap(), inside, "{name}");
    }
    let mut spec =
        Spec::new(["/bin/sh", "-c", "ipcmk -Q >/dev/null 2>&1; ls /dev/shm /dev/mqueue"]);
    spec.network = Network::None;
    assert_eq!(world.sh("> /dev/shm/x; > /tmp/y").stdout(), "");
    assert_eq!(world.run(&spec).stdout, "/dev/mqueue:\n\n/dev/shm:\n");
}
