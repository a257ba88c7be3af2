//! What went wrong in the field's executors, tried on ours: each test has the number in its name.
//!
//! Others of the kind are elsewhere: leaked descriptors and device nodes in `isolation` and
//! `rights`, links and mount targets of images in `hostile`.

use std::os::unix::fs::symlink;

use boatyard_builder::execute::{
    ExecuteError, MountKind, Outcome, Source, Spec, StepMount, rootfs, user,
};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::harness::tests;
use crate::world::World;

tests!(
    cve_2016_9962_the_first_process_cannot_be_traced_while_it_holds_descriptors,
    cve_2019_5736_the_executors_program_cannot_be_overwritten,
    cve_2019_19921_and_2023_27561_a_link_in_place_of_proc_moves_no_mask,
    cve_2021_30465_and_2024_45310_a_mount_target_that_leads_away_makes_nothing_on_the_host,
    cve_2022_0492_release_agents_cannot_be_set,
    cve_2023_25809_cgroups_cannot_be_written,
    cve_2023_28642_a_link_to_proc_is_not_mounted_over,
    cve_2024_1753_a_source_that_is_a_link_stays_in_its_root,
    cve_2024_9676_an_account_file_that_is_a_link_or_endless_is_not_read,
    cve_2024_21626_a_working_directory_by_descriptor_is_not_the_hosts,
    cve_2024_23651_a_source_replaced_by_a_link_is_the_one_that_was_opened,
    cve_2024_23652_a_mount_point_replaced_by_a_link_removes_nothing_on_the_host,
    cve_2025_31133_a_null_device_that_is_a_link_masks_no_less,
    cve_2025_52565_a_console_that_is_a_link_is_left_alone,
    cve_2025_52881_what_the_executor_writes_to_proc_cannot_be_redirected,
    cve_2026_41579_a_link_in_place_of_dev_is_refused,
);

fn cve_2016_9962_the_first_process_cannot_be_traced_while_it_holds_descriptors() {
    let world = World::new();
    world.add_probe();
    // The command is the first thing that could, as root, with the same capabilities.
    let attach = format!("probe {} 0x4206 1 0 0", libc::SYS_ptrace);
    let ran =
        world.sh(&format!("{attach}; readlink /proc/1/fd/* | wc -l; cat /proc/1/mem | wc -c"));
    assert_eq!(ran.stdout, "EPERM\n0\n0\n", "{}", ran.stderr);
}

fn cve_2019_5736_the_executors_program_cannot_be_overwritten() {
    let world = World::new();
    // What runs first in the step is the executor's own program, by its link.
    symlink("/proc/self/exe", world.image().join("bin/evil")).unwrap();
    let before = fs_err::read("/proc/self/exe").unwrap();
    // A dynamic program does not find its loader, a static one lists its tests: both are harmless.
    drop(world.run(&Spec::new(["/bin/evil", "--list"])));
    let ran = world.sh("for way in /proc/1/exe /proc/self/exe; do (: >> $way) && echo open; done
         exec 9< /proc/1/exe; echo x > /proc/self/fd/9");
    assert_ne!(ran.outcome(), Outcome::Exited(0));
    assert!(!ran.stdout.contains("open"), "{}", ran.stdout);
    assert!(before == fs_err::read("/proc/self/exe").unwrap());
}

fn cve_2019_19921_and_2023_27561_a_link_in_place_of_proc_moves_no_mask() {
    for place in ["proc", "sys"] {
        for target in ["/etc", "/", "..", "tmp", "/nowhere"] {
            let world = World::new();
            fs_err::remove_dir(world.image().join(place)).unwrap();
            symlink(target, world.image().join(place)).unwrap();
            assert_eq!(
                world.sh("true").error(),
                format!("/{place} in the image is a symbolic link, not a directory"),
                "to {target}"
            );
        }
    }
}

fn memory_at(target: &str) -> Vec<StepMount> {
    let kind = MountKind::Tmpfs { size: None, mode: 0o755, read_only: false };
    vec![StepMount { target: target.to_owned(), kind }]
}

fn cve_2021_30465_and_2024_45310_a_mount_target_that_leads_away_makes_nothing_on_the_host() {
    let host = tempfile::tempdir().unwrap();
    let world = World::new();
    symlink(host.path(), world.image().join("away")).unwrap();
    symlink("/away/../../..", world.image().join("up")).unwrap();
    for target in ["/away/here", "/up/srv/here", "/../../srv/here"] {
        let mut spec = Spec::new(["grep", "-c", "here tmpfs", "/proc/mounts"]);
        spec.mounts = memory_at(target);
        assert_eq!(world.run(&spec).stdout(), "1\n", "{target}");
        assert_eq!(fs_err::read_dir(host.path()).unwrap().count(), 0);
        assert!(!std::path::Path::new("/srv/here").exists());
    }
}

fn cve_2022_0492_release_agents_cannot_be_set() {
    let world = World::new();
    world.add_probe();
    // Mounting a hierarchy of one's own takes a namespace, and that is refused.
    let mount = format!("probe {} cgroup /tmp cgroup 0 memory", libc::SYS_mount);
    let unshare = format!("probe {} 0x12000000", libc::SYS_unshare);
    let ran = world.sh(&format!(
        "{mount}; {unshare}; find /sys/fs/cgroup -name release_agent -writable 2>/dev/null | wc -l
         (echo /evil > /sys/fs/cgroup/release_agent) 2>/dev/null || echo kept"
    ));
    assert_eq!(ran.stdout(), "EPERM\nEPERM\n0\nkept\n");
}

fn cve_2023_25809_cgroups_cannot_be_written() {
    let ran = World::new().sh("mkdir /sys/fs/cgroup/mine; echo 0 > /sys/fs/cgroup/cgroup.procs
         chmod 777 /sys/fs/cgroup; find /sys/fs/cgroup -type d -name mine | wc -l");
    assert_eq!(ran.stdout, "0\n");
    assert_eq!(ran.stderr.matches("Read-only file system").count(), 3, "{}", ran.stderr);
}

fn cve_2023_28642_a_link_to_proc_is_not_mounted_over() {
    let world = World::new();
    symlink("/proc", world.image().join("way")).unwrap();
    let mut spec = Spec::new(["/bin/true"]);
    spec.mounts = memory_at("/way/self/attr");
    let error = world.run(&spec).error();
    assert!(error.starts_with("cannot mount over the kernel's /way/self/attr: "), "{error}");
}

fn cve_2024_1753_a_source_that_is_a_link_stays_in_its_root() {
    let world = World::new();
    symlink("/", world.image().join("all")).unwrap();
    symlink("../../../../../..", world.image().join("etc/up")).unwrap();
    let found = |path: &str| fstat(&rootfs::locate(world.root(), path).unwrap());
    let image = found("/");
    for path in ["/all", "/etc/up", "/all/etc/up/../..", "../../.."] {
        assert_eq!(found(path), image, "{path}");
    }
    symlink("/proc/self/root", world.image().join("magic")).unwrap();
    assert!(
        rootfs::locate(world.root(), "/magic").is_err(),
        "the image has no such thing in /proc"
    );
}

fn fstat(file: &std::os::fd::OwnedFd) -> u64 {
    rustix::fs::fstat(file).unwrap().st_ino
}

fn cve_2024_9676_an_account_file_that_is_a_link_or_endless_is_not_read() {
    let world = World::new();
    let read = |path: &str| rootfs::read_file(world.root(), path, user::FILE_BYTES_MAX);
    fs_err::write(world.path("shadow"), "secret").unwrap();
    for target in [world.path("shadow").to_str().unwrap(), "/dev/zero", "/proc/self/environ"] {
        let passwd = world.image().join("etc/passwd");
        let _ = fs_err::remove_file(&passwd);
        symlink(target, &passwd).unwrap();
        assert_eq!(read("/etc/passwd").unwrap(), None, "{target}");
    }
}

fn cve_2024_21626_a_working_directory_by_descriptor_is_not_the_hosts() {
    let world = World::new();
    for number in 0..12 {
        for cwd in ["self", "1"].map(|own| format!("/proc/{own}/fd/{number}/../..")) {
            let mut spec = Spec::new(["/bin/true"]);
            spec.cwd = cwd;
            let error = world.run(&spec).error();
            assert!(error.starts_with("cannot "), "{}: {error}", spec.cwd);
        }
    }
}

fn cve_2024_23651_a_source_replaced_by_a_link_is_the_one_that_was_opened() {
    let host = tempfile::tempdir().unwrap();
    fs_err::write(host.path().join("secret"), "host").unwrap();
    let world = World::new();
    fs_err::create_dir(world.path("cache")).unwrap();
    let source = openat(CWD, world.path("cache"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    fs_err::remove_dir(world.path("cache")).unwrap();
    symlink(host.path(), world.path("cache")).unwrap();
    let mut spec = Spec::new(["ls", "/cache"]);
    let source = Source::new(source.unwrap());
    let kind = MountKind::Bind { source, directory: true, read_only: false };
    spec.mounts = vec![StepMount { target: "/cache".to_owned(), kind }];
    let ran = world.run(&spec);
    // A directory that was removed may be refused, or is empty; it is never another one.
    assert!(matches!(&ran.result, Ok(_) | Err(ExecuteError::Setup { .. })), "{:?}", ran.result);
    assert_eq!(ran.stdout, "");
}

fn cve_2024_23652_a_mount_point_replaced_by_a_link_removes_nothing_on_the_host() {
    let host = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(host.path().join("b/c")).unwrap();
    let world = World::new();
    let mut spec = Spec::new([
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        // The mount goes away with the step; its place is to be removed where it was made.
        format!(
            "mv /a /moved 2>/dev/null || mv /a/b /x 2>/dev/null; ln -s {} /a",
            host.path().display()
        ),
    ]);
    spec.mounts = memory_at("/a/b/c");
    drop(world.run(&spec));
    assert!(host.path().join("b/c").exists());
}

fn cve_2025_31133_a_null_device_that_is_a_link_masks_no_less() {
    let world = World::new();
    for (target, name) in [("/proc/self/environ", "null"), ("/etc/passwd", "zero")] {
        symlink(target, world.image().join("dev").join(name)).unwrap();
    }
    let ran = world
        .sh("stat -c '%F %t:%T' /dev/null /proc/keys; cat /proc/keys /proc/timer_list | wc -c
         (echo x > /proc/keys); ls -l /proc/sys/kernel/core_pattern | cut -c 1-10");
    assert_eq!(
        ran.stdout(),
        "character special file 1:3\ncharacter special file 1:3\n0\n-rw-r--r--\n"
    );
}

fn cve_2025_52565_a_console_that_is_a_link_is_left_alone() {
    let host = tempfile::tempdir().unwrap();
    let world = World::new();
    for name in ["console", "pts", "ptmx", "shm", "mqueue"] {
        symlink(host.path(), world.image().join("dev").join(name)).unwrap();
    }
    let ran = world.sh("ls -d /dev/console 2>&1 | grep -c 'No such'; stat -c %F /dev/pts /dev/shm");
    assert_eq!(ran.stdout(), "1\ndirectory\ndirectory\n");
    assert_eq!(fs_err::read_dir(host.path()).unwrap().count(), 0);
}

fn cve_2025_52881_what_the_executor_writes_to_proc_cannot_be_redirected() {
    let world = World::new();
    let before = fs_err::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for (link, target) in [
        ("proc/self", "/proc/sysrq-trigger"),
        ("proc/thread-self", "/proc/sys/kernel/core_pattern"),
    ] {
        symlink(target, world.image().join(link)).unwrap();
    }
    let ran = world
        .sh("readlink /proc/self | grep -c '[0-9]'; test -e /proc/sysrq-trigger && echo there
         (echo x > /proc/sysrq-trigger) 2>&1 | grep -c 'Read-only'");
    assert!(ran.stdout.starts_with("1\n"), "{} {}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.ends_with("there\n0\n"), "{}", ran.stdout);
    assert_eq!(before, fs_err::read_to_string("/proc/sys/kernel/core_pattern").unwrap());
}

fn cve_2026_41579_a_link_in_place_of_dev_is_refused() {
    let host = tempfile::tempdir().unwrap();
    for target in [host.path().to_str().unwrap(), "/", "..", "etc", "/nowhere"] {
        let world = World::new();
        fs_err::remove_dir(world.image().join("dev")).unwrap();
        symlink(target, world.image().join("dev")).unwrap();
        assert_eq!(
            world.sh("true").error(),
            "/dev in the image is a symbolic link, not a directory",
            "to {target}"
        );
        assert_eq!(fs_err::read_dir(host.path()).unwrap().count(), 0);
    }
}
