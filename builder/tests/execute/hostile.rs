//! Images made to lead the executor astray. The host's files must be neither read nor written.

use std::os::unix::fs::symlink;

use boatyard_builder::execute::{Outcome, Spec, rootfs, user};

use crate::harness::tests;
use crate::world::World;

tests!(
    etc_may_lead_anywhere_in_the_image_only,
    resolv_conf_may_lead_anywhere_in_the_image_only,
    links_into_proc_and_dev_reach_nothing_of_ours,
    the_working_directory_stays_in_the_image,
    places_of_the_wrong_kind_are_named,
    accounts_are_read_in_the_image_only,
);

fn etc_may_lead_anywhere_in_the_image_only() {
    let host = tempfile::tempdir().unwrap();
    let world = World::new();
    fs_err::remove_dir_all(world.image().join("etc")).unwrap();
    symlink(host.path(), world.image().join("etc")).unwrap();
    let ran = world.sh("cat /etc/hosts | wc -l; readlink /etc");
    assert_eq!(ran.stdout(), format!("2\n{}\n", host.path().display()));
    assert_eq!(fs_err::read_dir(host.path()).unwrap().count(), 0);
    assert_eq!(world.layer(), ["d tmp"], "made in the image's /tmp, and removed there");
}

fn resolv_conf_may_lead_anywhere_in_the_image_only() {
    let world = World::new();
    fs_err::write(world.path("secret"), "secret").unwrap();
    let secret = world.path("secret");
    let up = format!("../../../../../../../../..{}", secret.display());
    for target in [secret.to_str().unwrap(), &up, "/proc/self/root/x", "/proc/1/root/etc/x"] {
        let path = world.image().join("etc/resolv.conf");
        let _ = fs_err::remove_file(&path);
        symlink(target, &path).unwrap();
        let ran = world
            .sh("cat /etc/resolv.conf 2>/dev/null; echo x 2>/dev/null >> /etc/resolv.conf; true");
        assert_eq!((ran.stdout.as_str(), ran.outcome()), ("", Outcome::Exited(0)), "{target}");
        assert_eq!(fs_err::read_to_string(&secret).unwrap(), "secret");
    }
    let path = world.image().join("etc/resolv.conf");
    fs_err::remove_file(&path).unwrap();
    symlink("resolv.conf", &path).unwrap();
    let error = world.sh("true").error();
    assert!(error.starts_with("cannot make the mount point /etc/resolv.conf: "), "{error}");
}

fn links_into_proc_and_dev_reach_nothing_of_ours() {
    let world = World::new();
    for (place, target) in
        [("dev/null", "/etc/passwd"), ("dev/pts", "/etc"), ("proc/kcore", "/etc")]
    {
        symlink(target, world.image().join(place)).unwrap();
    }
    let ran = world.sh("echo lost > /dev/null; stat -c %F /dev/null /dev/pts; wc -l < /etc/passwd");
    assert_eq!(ran.stdout(), "character special file\ndirectory\n2\n");
}

fn the_working_directory_stays_in_the_image() {
    let host = tempfile::tempdir().unwrap();
    let world = World::new();
    symlink(host.path(), world.image().join("away")).unwrap();
    let mut spec = Spec::new(["/bin/sh", "-c", "> mark; pwd -P"]);
    spec.cwd = "/away".to_owned();
    assert_eq!(world.run(&spec).stdout(), format!("{}\n", host.path().display()));
    assert_eq!(fs_err::read_dir(host.path()).unwrap().count(), 0);
    // CVE-2024-21626: a descriptor of the host's, by its number.
    for number in 0..16 {
        spec.cwd = format!("/proc/self/fd/{number}");
        let error = world.run(&spec).error();
        assert!(error.starts_with("cannot "), "{number}: {error}");
    }
}

fn places_of_the_wrong_kind_are_named() {
    let world = World::new();
    fs_err::remove_dir(world.image().join("dev")).unwrap();
    world.write("dev", "");
    assert_eq!(world.sh("true").error(), "/dev in the image is a file, not a directory");
    let world = World::new();
    fs_err::create_dir(world.image().join("etc/hosts")).unwrap();
    assert_eq!(world.sh("true").error(), "/etc/hosts in the image is a directory, not a file");
}

fn accounts_are_read_in_the_image_only() {
    let world = World::new();
    let limited = |path: &str, limit| {
        rootfs::read_file(world.root(), path, limit).map_err(|error| error.to_string())
    };
    let read = |path: &str| limited(path, user::FILE_BYTES_MAX);
    let not_a_file = |path: &str| Err(format!("{path} in the image is not a regular file"));
    let passwd = read("/etc/passwd").unwrap().unwrap();
    let ada = user::resolve("ada", Some(&passwd), read("etc/group").unwrap().as_deref()).unwrap();
    assert_eq!((ada.uid, ada.groups, ada.home.as_str()), (1000, vec![10], "/home/ada"));
    assert_eq!(read("/etc/shadow"), Ok(None));

    fs_err::write(world.path("secret"), "secret").unwrap();
    symlink(world.path("secret"), world.image().join("etc/link")).unwrap();
    assert_eq!(read("etc/link"), Ok(None), "it is not in the image");
    assert_eq!(read("etc"), not_a_file("etc"));
    let fifo = world.image().join("etc/fifo");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, 0o644.into(), 0).unwrap();
    assert_eq!(read("etc/fifo"), not_a_file("etc/fifo"), "and it does not block");
    let limit = passwd.len() as u64;
    assert!(limited("etc/passwd", limit).unwrap().is_some());
    let error = limited("etc/passwd", limit - 1).unwrap_err();
    assert_eq!(error, format!("etc/passwd in the image is larger than {} bytes", limit - 1));
    assert_eq!(
        rootfs::locate(world.root(), "etc/link").unwrap_err().to_string(),
        "cannot open etc/link in the image"
    );
    assert!(rootfs::locate(world.root(), "/../bin/./sh").is_ok());
}
