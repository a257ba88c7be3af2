//! What a step finds around it: file systems, devices, names, network.

use boatyard_builder::execute::{MountKind, Network, Source, Spec, StepMount};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::harness::tests;
use crate::world::World;

tests!(
    sees_the_usual_file_systems,
    sees_the_usual_devices,
    devices_work,
    kernel_interfaces_are_hidden_or_read_only,
    has_the_host_name_and_the_hosts_that_it_is_given,
    without_a_network_there_is_loopback_alone,
    the_hosts_network_comes_with_its_resolver,
    the_hosts_files_are_nowhere,
    sees_only_its_own_processes,
    binds_files_and_directories,
    mounts_memory,
    a_mount_over_the_root_is_refused,
    shared_memory_has_the_size_asked_for,
);

/// Mount point, kind and whether it is read-only, in order of mounting.
const MOUNTS: &str = "\
/ overlay rw
/etc/resolv.conf tmpfs ro
/etc/hosts tmpfs ro
/dev tmpfs rw
/dev/null tmpfs rw
/dev/zero tmpfs rw
/dev/full tmpfs rw
/dev/random tmpfs rw
/dev/urandom tmpfs rw
/dev/tty tmpfs rw
/dev/pts devpts rw
/dev/shm tmpfs rw
/dev/mqueue mqueue rw
/proc proc rw
";

fn sees_the_usual_file_systems() {
    let world = World::new();
    let ran = world.sh("while read id parent dev root point options rest; do
             echo \"$point ${rest#*- } ${options%%,*}\"
         done < /proc/self/mountinfo | while read point kind source rest; do
             echo \"$point $kind ${rest##* }\"
         done");
    let mounts = ran.stdout();
    assert!(mounts.starts_with(MOUNTS), "{mounts}");
    for line in ["/proc/sys proc ro", "/proc/keys tmpfs rw", "/sys sysfs ro"] {
        assert!(mounts.lines().any(|mount| mount == line), "{line} in\n{mounts}");
    }
    let point = |line: &str| line.split(' ').next().unwrap().to_owned();
    let strange: Vec<String> = mounts
        .lines()
        .map(point)
        .filter(|point| !["/proc/", "/sys", "/dev", "/etc/"].iter().any(|p| point.starts_with(p)))
        .collect();
    assert_eq!(strange, ["/", "/proc"]);
}

fn sees_the_usual_devices() {
    let ran =
        World::new().sh("cd /dev; stat -c '%n %A %t:%T' null zero full random urandom tty pts/ptmx
         stat -c '%n %A' pts shm mqueue
         for link in fd stdin stdout stderr core ptmx; do echo \"$link -> $(readlink $link)\"; done
         ls | wc -l");
    assert_eq!(
        ran.stdout(),
        "null crw-rw-rw- 1:3\nzero crw-rw-rw- 1:5\nfull crw-rw-rw- 1:7\nrandom crw-rw-rw- 1:8\n\
         urandom crw-rw-rw- 1:9\ntty crw-rw-rw- 5:0\npts/ptmx crw-rw-rw- 5:2\n\
         pts drwxr-xr-x\nshm drwxrwxrwt\nmqueue drwxrwxrwt\n\
         fd -> /proc/self/fd\nstdin -> /proc/self/fd/0\nstdout -> /proc/self/fd/1\n\
         stderr -> /proc/self/fd/2\ncore -> /proc/kcore\nptmx -> pts/ptmx\n15\n"
    );
}

fn devices_work() {
    let ran = World::new().sh(
        "echo gone > /dev/null && head -c 3 /dev/zero | wc -c && head -c 5 /dev/urandom | wc -c
         echo shared > /dev/shm/x && cat /dev/shm/x
         echo piped > /dev/stdout; cat < /dev/stdin | wc -c; cat | wc -c",
    );
    assert_eq!(ran.stdout(), "3\n5\nshared\npiped\n0\n0\n");
}

fn kernel_interfaces_are_hidden_or_read_only() {
    let ran = World::new().sh(
        "cat /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug 2>&1 | grep -v 'No such'
         ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | wc -w
         for path in /proc/sys/kernel/panic /proc/sysrq-trigger /sys/kernel/x /sys/fs/cgroup/x; do
             (echo 1 > $path) 2>/dev/null && echo written $path
         done
         mount -o remount,rw /proc/sys 2>/dev/null && echo remounted
         umount /proc/keys 2>/dev/null && echo unmounted
         mount -t proc proc /tmp 2>/dev/null && echo mounted
         cat /proc/sys/kernel/ostype; test -d /sys/class && echo sysfs",
    );
    assert_eq!(ran.stdout(), "0\nLinux\nsysfs\n");
}

fn has_the_host_name_and_the_hosts_that_it_is_given() {
    let world = World::new();
    world.write("etc/hostname", "image\n");
    world.write("etc/hosts", "image\n");
    let mut spec =
        Spec::new(["/bin/sh", "-c", "hostname; cat /etc/hosts /etc/hostname; >> /etc/hosts"]);
    spec.hostname = "yard".to_owned();
    spec.hosts = vec![("db".to_owned(), "192.0.2.7".parse().unwrap())];
    let ran = world.run(&spec);
    assert_eq!(
        ran.stdout,
        "yard\n127.0.0.1\tlocalhost yard\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         192.0.2.7\tdb\nimage\n"
    );
    assert!(ran.stderr.contains("Read-only file system"), "{}", ran.stderr);
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_ne!(own, "yard");
}

fn without_a_network_there_is_loopback_alone() {
    let ran = World::new().sh(
        "ls /sys/class/net; cat /sys/class/net/lo/flags; ping -c 1 -w 5 127.0.0.1 | grep -c 'ttl='
         wc -c < /etc/resolv.conf",
    );
    // 0x9 is IFF_UP and IFF_LOOPBACK.
    assert_eq!(ran.stdout(), "lo\n0x9\n1\n0\n");
}

fn the_hosts_network_comes_with_its_resolver() {
    let mut spec = Spec::new(["/bin/sh", "-c", "readlink /proc/self/ns/net; cat /etc/resolv.conf"]);
    spec.network = Network::Host;
    let ran = World::new().run(&spec);
    let namespace = fs_err::read_link("/proc/self/ns/net").unwrap();
    let resolver = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(ran.stdout(), format!("{}\n{resolver}", namespace.display()));
}

fn the_hosts_files_are_nowhere() {
    let world = World::new();
    fs_err::write(world.path("secret"), "host").unwrap();
    let path = world.path("secret");
    let ran = world.sh(&format!(
        "cat {0} /../../../..{0} /proc/1/root{0} /proc/1/cwd{0} 2>/dev/null
         ls /; find / -xdev -name secret; ls -a /.. | wc -l; ls -a / | wc -l",
        path.display()
    ));
    assert_eq!(ran.stdout(), "bin\ndev\netc\nhome\nproc\nroot\nsys\ntmp\nusr\n11\n11\n");
}

fn sees_only_its_own_processes() {
    let ran =
        World::new().sh("cd /proc; echo [0-9]*; echo $$; cat /proc/1/environ 2>&1 | tail -c 18");
    assert_eq!(ran.stdout(), "1 2\n2\nPermission denied\n");
}

fn binds_files_and_directories() {
    let world = World::new();
    fs_err::create_dir(world.path("tree")).unwrap();
    fs_err::write(world.path("tree/leaf"), "leaf\n").unwrap();
    fs_err::write(world.path("file"), "file\n").unwrap();
    let bind = |source: &str, target: &str, directory, read_only| {
        let source = openat(CWD, world.path(source), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let source = Source::new(source.unwrap());
        let kind = MountKind::Bind { source, directory, read_only };
        StepMount { target: target.to_owned(), kind }
    };
    let mut spec = Spec::new([
        "/bin/sh",
        "-c",
        "cat /run/tree/leaf /etc/file; >> /run/tree/leaf || >> /etc/file || echo read-only
         echo written > /mnt/new/leaf",
    ]);
    spec.mounts = vec![
        bind("tree", "/run/tree", true, true),
        bind("file", "/etc/file", false, true),
        bind("tree", "/mnt/new", true, false),
    ];
    let ran = world.run(&spec);
    assert_eq!(ran.stdout, "leaf\nfile\nread-only\n", "{:?} {}", ran.result, ran.stderr);
    assert_eq!(fs_err::read_to_string(world.path("tree/leaf")).unwrap(), "written\n");
    assert_eq!(world.layer(), ["d etc"], "what was made for the mounts is removed");
    // The sources are ours to use as before.
    fs_err::write(world.path("tree/leaf"), "again\n").unwrap();
}

fn mounts_memory() {
    let world = World::new();
    let mut spec = Spec::new([
        "/bin/sh",
        "-c",
        "cp /bin/busybox /build/true && /build/true && stat -c %a /cache; dd if=/dev/zero of=/cache/x bs=8192 count=1 2>/dev/null || echo full",
    ]);
    let kind = MountKind::Tmpfs { size: Some(4096), mode: 0o1770, read_only: false };
    spec.mounts = vec![StepMount { target: "/cache".to_owned(), kind }];
    let kind = MountKind::Tmpfs { size: None, mode: 0o755, read_only: false };
    spec.mounts.push(StepMount { target: "/build".to_owned(), kind });
    assert_eq!(world.run(&spec).stdout(), "1770\nfull\n");
    assert!(world.layer().is_empty(), "{:?}", world.layer());
}

fn a_mount_over_the_root_is_refused() {
    let mut spec = Spec::new(["/bin/true"]);
    let kind = MountKind::Tmpfs { size: None, mode: 0o755, read_only: false };
    spec.mounts = vec![StepMount { target: "/./..".to_owned(), kind }];
    let error = World::new().run(&spec).error();
    assert!(error.starts_with("cannot mount at /./..: "), "{error}");
}

fn shared_memory_has_the_size_asked_for() {
    let world = World::new();
    let mut spec = Spec::new(["/bin/sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"]);
    assert_eq!(world.run(&spec).stdout(), "65536\n");
    spec.shm_size = 1 << 20;
    assert_eq!(world.run(&spec).stdout(), "1024\n");
}
