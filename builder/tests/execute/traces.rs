//! What a step leaves behind: its own changes, and nothing of the executor's.

use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime};

use boatyard_builder::execute::{CancelHandle, MountKind, Outcome, Spec, StepMount};

use crate::harness::tests;
use crate::world::World;

tests!(
    a_step_that_changes_nothing_leaves_an_empty_layer,
    the_layer_has_what_the_step_wrote,
    an_image_of_one_program_stays_one,
    what_has_to_be_made_is_removed,
    directories_keep_their_times,
    what_the_step_put_beside_a_mount_point_stays,
    the_image_itself_is_never_written,
    no_process_mount_or_namespace_is_left,
);

fn a_step_that_changes_nothing_leaves_an_empty_layer() {
    let world = World::new();
    assert_eq!(world.sh("cat /etc/hosts > /dev/null").stdout(), "");
    assert!(world.layer().is_empty(), "{:?}", world.layer());
}

fn the_layer_has_what_the_step_wrote() {
    let world = World::new();
    let ran = world.sh("echo hi > /greeting; mkdir -p /run/app; rm /etc/group; > /dev/shm/x");
    assert_eq!(ran.stdout(), "");
    // An overlay says "removed" with a character device.
    assert_eq!(world.layer(), ["d etc", "? etc/group", "f greeting", "d run", "d run/app"]);
}

fn an_image_of_one_program_stays_one() {
    let world = World::empty();
    fs_err::copy("/bin/busybox", world.image().join("ls")).unwrap();
    assert_eq!(world.run(&Spec::new(["/ls", "/"])).stdout(), "dev\netc\nls\nproc\nsys\n");
    assert!(world.layer().is_empty(), "{:?}", world.layer());
}

fn what_has_to_be_made_is_removed() {
    let world = World::empty();
    world.add_shell();
    // As systemd's distributions have it, and the link leads nowhere in an image.
    world.write("etc/passwd", "");
    symlink("../run/systemd/resolve/stub-resolv.conf", world.image().join("etc/resolv.conf"))
        .unwrap();
    let mut spec = Spec::new(["/bin/sh", "-c", "cat /etc/resolv.conf; ls /run/systemd/resolve"]);
    let kind = MountKind::Tmpfs { size: None, mode: 0o755, read_only: false };
    spec.mounts = vec![StepMount { target: "/var/cache/apt/../apt2".to_owned(), kind }];
    let cancel = CancelHandle::new().unwrap();
    let ran = world.run_in(world.root_without_stubs(), &spec, &cancel);
    assert_eq!(ran.stdout(), "stub-resolv.conf\n");
    assert_eq!(world.layer(), ["d etc"], "an unchanged copied-up directory is the snapshot's");
}

fn directories_keep_their_times() {
    let world = World::new();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for directory in ["etc", "", "home"] {
        let directory = fs_err::File::open(world.image().join(directory)).unwrap();
        directory.file().set_modified(then).unwrap();
    }
    let mut spec = Spec::new(["/bin/true"]);
    let kind = MountKind::Tmpfs { size: None, mode: 0o755, read_only: false };
    spec.mounts = vec![StepMount { target: "/home/cache/x".to_owned(), kind }];
    let ran = world.run_in(world.root_without_stubs(), &spec, &CancelHandle::new().unwrap());
    assert_eq!(ran.stdout(), "");
    assert_eq!(world.layer(), ["d etc", "d home"]);
    for directory in ["etc", "home"] {
        let found = fs_err::metadata(world.path("upper").join(directory)).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_000_000_000, 0), "{directory}");
    }
}

fn what_the_step_put_beside_a_mount_point_stays() {
    let world = World::new();
    let mut spec = Spec::new(["/bin/sh", "-c", "echo hidden > /srv/a/b/x; echo kept > /srv/y"]);
    let kind = MountKind::Tmpfs { size: None, mode: 0o755, read_only: false };
    spec.mounts = vec![StepMount { target: "/srv/a/b".to_owned(), kind }];
    assert_eq!(world.run(&spec).stdout(), "");
    assert_eq!(world.layer(), ["d srv", "f srv/y"]);
}

fn the_image_itself_is_never_written() {
    let world = World::new();
    let before = fs_err::metadata(world.image().join("etc")).unwrap();
    let ran = world.sh("rm -r /etc /proc /sys 2>/dev/null; > /new; ls -d /etc");
    assert_eq!(ran.outcome(), Outcome::Exited(0));
    let after = fs_err::metadata(world.image().join("etc")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert!(!world.image().join("new").exists());
    assert!(world.path("stubs/proc").exists());
}

fn no_process_mount_or_namespace_is_left() {
    let world = World::new();
    let helper = world.executor.helper_id();
    let descriptors = |pid: &str| fs_err::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    // Others mount on this machine, too: what counts is what has to do with this step.
    let place = world.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mounts = || {
        let all = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|mount| mount.contains(&place)).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = (descriptors("self"), descriptors(&helper.to_string()), mounts());
    let ran = world.sh("sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; echo done");
    assert_eq!(ran.stdout(), "done\n");
    let after = (descriptors("self"), descriptors(&helper.to_string()), mounts());
    assert_eq!(before, after);
    let children = format!("/proc/{helper}/task/{helper}/children");
    assert_eq!(fs_err::read_to_string(children).unwrap_or_default(), "");
}
