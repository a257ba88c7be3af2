//! Stories of single steps: each is a way in which overlays and layers are known to disagree.

use std::os::unix::fs::symlink;

use super::*;

/// A base with a file, a directory of two files and a pair of hard links.
fn base(kind: ViewKind) -> World {
    let mut world = World::new(kind);
    world.step(|root| {
        mkdir(root, "d");
        write(root, "d/one", "1");
        write(root, "d/two", "2");
        write(root, "file", "content");
        write(root, "pair-a", "pair");
        fs_err::hard_link(root.join("pair-a"), root.join("pair-b")).unwrap();
        for name in ["d/one", "d/two", "d", "file", "pair-a"] {
            touch(root, name, LONG_AGO);
        }
    });
    world
}

#[test]
fn a_first_layer_holds_everything_sorted() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        let step = world.step(|root| {
            mkdir(root, "b/c");
            write(root, "b/c/x", "x");
            write(root, "a", "a");
            write(root, "b.txt", "");
            symlink("../nowhere", root.join("b/link")).unwrap();
        });
        assert_eq!(step.entries(), ["a", "b/", "b/c/", "b/c/x", "b/link -> ../nowhere", "b.txt"]);
    });
}

#[test]
fn no_change_is_the_empty_archive() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|_| {});
        assert_eq!(step.archive, [0; 1024]);
        assert_eq!(
            step.written.diff_id.to_string(),
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
    });
}

#[test]
fn a_change_takes_its_directories_along() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| write(root, "d/one", "changed"));
        assert_eq!(step.entries(), ["d/", "d/one"]);
        let step = world.step(|root| write(root, "d/three", "3"));
        assert_eq!(step.entries(), ["d/", "d/three"]);
    });
}

#[test]
fn what_was_changed_back_is_no_change() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let before = world.view();
        let step = world.step(|root| {
            chmod(root, "d/one", 0o600);
            chmod(root, "d/one", 0o644);
            chmod(root, "d", 0o700);
            chmod(root, "d", 0o755);
            write(root, "file", "content");
            touch(root, "file", LONG_AGO);
            remove(root, "d/two");
            write(root, "d/two", "2");
            touch(root, "d/two", LONG_AGO);
            touch(root, "d", LONG_AGO);
        });
        assert_eq!(step.entries(), [""; 0]);
        assert_eq!(world.view(), before);
    });
}

#[test]
fn equal_times_and_sizes_do_not_hide_a_change() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            write(root, "file", "CONTENT");
            touch(root, "file", LONG_AGO);
        });
        assert_eq!(step.entries(), ["file"]);
    });
}

#[test]
fn a_new_time_is_a_change() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| touch(root, "file", LONG_AGO + 1));
        assert_eq!(step.entries(), ["file"]);
    });
}

#[test]
fn owners_and_modes_alone_are_changes() {
    on_every_view(|kind| {
        let mut world = base(kind);
        assert_eq!(world.step(|root| chown(root, "file", 1000)).entries(), ["file"]);
        assert_eq!(world.step(|root| chmod(root, "d", 0o711)).entries(), ["d/"]);
        assert_eq!(world.step(|root| chmod(root, "d/one", 0o4755)).entries(), ["d/", "d/one"]);
        let view = world.view().join("\n");
        assert!(
            view.contains("file 100644 1000:1000") && view.contains("d/one 104755 0:0"),
            "{view}"
        );
    });
}

#[test]
fn a_rename_over_a_lower_file() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            write(root, "new", "new");
            fs_err::rename(root.join("new"), root.join("file")).unwrap();
        });
        assert_eq!(step.entries(), ["file"]);
        let step =
            world.step(|root| fs_err::rename(root.join("file"), root.join("moved")).unwrap());
        assert_eq!(step.entries(), [".wh.file", "moved"]);
    });
}

#[test]
fn a_renamed_lower_directory_is_whole_under_its_new_name() {
    on_every_view(|kind| {
        let mut world = base(kind);
        // With redirect_dir=off the kernel says EXDEV, and mv(1) copies; copies are renamed.
        let step = world.step(|root| {
            let renamed = fs_err::rename(root.join("d"), root.join("e")).is_ok();
            assert_eq!(renamed, kind == ViewKind::Copy);
            if renamed {
                return;
            }
            mkdir(root, "e");
            for name in ["one", "two"] {
                fs_err::copy(root.join("d").join(name), root.join("e").join(name)).unwrap();
            }
            remove(root, "d");
        });
        assert_eq!(step.entries(), [".wh.d", "e/", "e/one", "e/two"]);
    });
}

#[test]
fn removals_are_whiteouts_only_of_what_lies_beneath() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            write(root, "temporary", "");
            remove(root, "temporary");
            remove(root, "d/one");
            remove(root, "file");
        });
        assert_eq!(step.entries(), [".wh.file", "d/", "d/.wh.one"]);
        assert!(step.written.whiteouts);
        assert_eq!(world.names(), ["d", "d/two", "pair-a", "pair-b"]);
        let step = world.step(|root| write(root, "file", "again"));
        assert_eq!(step.entries(), ["file"]);
        assert!(!step.written.whiteouts);
    });
}

#[test]
fn a_directory_becomes_a_file_and_back() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            remove(root, "d");
            write(root, "d", "now a file");
        });
        assert_eq!(step.entries(), ["d"]);
        let step = world.step(|root| {
            remove(root, "d");
            mkdir(root, "d");
            write(root, "d/three", "3");
        });
        assert_eq!(step.entries(), ["d/", "d/three"]);
        assert_eq!(world.names(), ["d", "d/three", "file", "pair-a", "pair-b"]);
    });
}

#[test]
fn a_link_takes_the_place_of_a_directory() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            remove(root, "d");
            symlink("file", root.join("d")).unwrap();
        });
        assert_eq!(step.entries(), ["d -> file"]);
    });
}

#[test]
fn a_directory_made_again_hides_what_was_in_it() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            remove(root, "d");
            mkdir(root, "d");
            write(root, "d/two", "2");
            touch(root, "d/two", LONG_AGO);
            write(root, "d/three", "3");
        });
        // `two` is as it was, so it is no change, and no marker hides it.
        assert_eq!(step.entries(), ["d/", "d/.wh.one", "d/three"]);
        assert_eq!(world.names(), ["d", "d/three", "d/two", "file", "pair-a", "pair-b"]);
    });
}

#[test]
fn what_lies_deep_in_a_directory_made_again_is_hidden_too() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        world.step(|root| {
            mkdir(root, "a/b/c");
            write(root, "a/b/c/old", "");
            write(root, "a/b/old", "");
        });
        let step = world.step(|root| {
            remove(root, "a");
            mkdir(root, "a/b");
            write(root, "a/b/new", "");
        });
        assert_eq!(step.entries(), ["a/", "a/b/", "a/b/.wh.c", "a/b/.wh.old", "a/b/new"]);
        assert_eq!(world.names(), ["a", "a/b", "a/b/new"]);
    });
}

#[test]
fn one_name_of_a_lower_pair_changes() {
    on_every_view(|kind| {
        let mut world = base(kind);
        // fuse-overlayfs (1.10) writes to one inode and copies up another name of it.
        if kind == ViewKind::Fuse {
            return;
        }
        let step = world.step(|root| write(root, "pair-a", "changed"));
        assert_eq!(step.entries(), ["pair-a"]);
    });
}

#[test]
fn a_new_name_takes_the_old_one_along() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step =
            world.step(|root| fs_err::hard_link(root.join("file"), root.join("name")).unwrap());
        assert_eq!(step.entries(), ["file", "name = /file"]);
    });
}

#[test]
fn separate_files_that_become_one_are_a_change() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        world.step(|root| {
            for name in ["a", "b"] {
                write(root, name, "same");
                touch(root, name, LONG_AGO);
            }
        });
        let step = world.step(|root| {
            remove(root, "b");
            fs_err::hard_link(root.join("a"), root.join("b")).unwrap();
        });
        assert_eq!(step.entries(), ["a", "b = /a"]);
    });
}

#[test]
fn capabilities_and_user_attributes_stay_and_foreign_ones_go() {
    on_every_view(|kind| {
        // VFS_CAP_REVISION_2 | effective, cap_net_raw permitted.
        let raw: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut world = base(kind);
        world.step(|root| {
            chown(root, "file", 7);
            set_xattr(root, "file", "security.capability", raw);
            set_xattr(root, "file", "user.note", b"kept");
            set_xattr(root, "file", "trusted.note", b"dropped");
            set_xattr(root, "d", "user.note", b"");
        });
        let view = world.view().join("\n");
        assert!(view.contains("security.capability") && view.contains("user.note"), "{view}");
        assert!(!view.contains("trusted"), "{view}");
        let step = world.step(|root| {
            chmod(root, "file", 0o600);
            chmod(root, "file", 0o644);
        });
        assert_eq!(step.entries(), [""; 0]);
        let step = world.step(|root| write(root, "file", "a write drops the capability"));
        assert_eq!(step.entries(), ["file"]);
        assert!(!world.view().join("\n").contains("security.capability"));
    });
}

#[test]
fn devices_and_pipes_are_kept_and_sockets_left_out() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            let directory = crate::layer::dir::Dir::open(root).unwrap();
            directory.make_device(b"null", &Kind::CharDevice { major: 1, minor: 3 }).unwrap();
            directory.make_device(b"disk", &Kind::BlockDevice { major: 8, minor: 0 }).unwrap();
            directory.make_device(b"pipe", &Kind::Fifo).unwrap();
            drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
            remove(root, "file");
            drop(std::os::unix::net::UnixListener::bind(root.join("file")).unwrap());
        });
        assert_eq!(step.entries(), [".wh.file", "disk", "null", "pipe"]);
    });
}

#[test]
fn a_file_named_like_a_whiteout_is_an_error() {
    on_every_view(|kind| {
        // fuse-overlayfs does not even let the step make it.
        if kind == ViewKind::Fuse {
            return;
        }
        let mut world = base(kind);
        let failed = world.try_step(|root| write(root, "d/.wh.x", "")).err().unwrap();
        let source = std::error::Error::source(&failed).unwrap().to_string();
        assert!(source.starts_with("/d/.wh.x cannot be part of an image"), "{source}");
    });
}

#[test]
fn the_root_has_the_attributes_that_an_archive_states() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        let mut archive = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Directory);
        header.set_mode(0o710);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(LONG_AGO as u64);
        header.set_size(0);
        archive.append_data(&mut header, "./", std::io::empty()).unwrap();
        let archive = archive.into_inner().unwrap();
        let diff_id = boatyard_oci::DiffId::new(boatyard_oci::Digest::sha256(&archive));
        let unpack = Unpack {
            blob: archive.as_slice(),
            diff_id: &diff_id,
            lowers: &[],
            threads: 1,
            limits: Limits::default(),
            decompress: DecompressLimits::default(),
        };
        let layer = world.layers.unpack(unpack).unwrap();
        world.stack.push(layer);
        let check = |root: &Path| {
            let root = fs_err::metadata(root).unwrap();
            assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o710, 5, 6));
        };
        world.step(|root| {
            check(root);
            write(root, "a", "");
            chmod(root, ".", 0o777);
        });
        world.step(check);
    });
}

#[test]
fn the_root_is_roots_when_nobody_says_otherwise() {
    on_every_view(|kind| {
        let mut world = base(kind);
        world.step(|root| {
            let root = fs_err::metadata(root).unwrap();
            assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o755, 0, 0));
        });
    });
}

#[test]
fn stubs_leave_no_trace() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let stubs = world.root.path().join("stubs");
        mkdir(&stubs, "proc");
        mkdir(&stubs, "run/secrets");
        mkdir(&stubs, "etc");
        mkdir(&stubs, "d");
        write(&stubs, "etc/resolv.conf", "");
        write(&stubs, "run/secrets/token", "");
        write(&stubs, "d/mounted", "");
        world.stubs = Some(stubs);
        let step = world.step(|root| {
            assert!(root.join("etc/resolv.conf").exists());
            chmod(root, "proc", 0o700);
            chmod(root, "etc/resolv.conf", 0o600);
            touch(root, "run/secrets", LONG_AGO);
            remove(root, "run/secrets/token");
            chmod(root, "d", 0o700);
            chmod(root, "d", 0o755);
        });
        assert_eq!(step.entries(), [""; 0]);
        let step = world.step(|root| write(root, "etc/hosts", "mine"));
        assert_eq!(step.entries(), ["etc/", "etc/hosts"]);
        let step = world.step(|root| {
            remove(root, "d");
            mkdir(root, "d");
        });
        assert_eq!(step.entries(), ["d/", "d/.wh.one", "d/.wh.two"]);
    });
}

#[test]
fn the_epoch_bounds_times_and_nothing_else() {
    on_every_view(|kind| {
        let mut world = base(kind);
        world.epoch = Some(LONG_AGO - 5);
        let step = world.step(|root| chmod(root, "d", 0o755));
        assert_eq!(step.entries(), [""; 0]);
        world.step(|root| write(root, "new", ""));
        // As without an epoch: a step's content must not depend on it.
        let step = world.step(|root| write(root, "new", ""));
        assert_eq!(step.entries(), ["new"], "written again with the same content");
        let view = world.view().join("\n");
        assert!(view.contains(&format!("new 100644 0:0 {}.0", LONG_AGO - 5)), "{view}");
        assert!(view.contains(&format!("file 100644 0:0 {LONG_AGO}.0")), "{view}");
    });
}

#[test]
fn equal_steps_have_equal_ids() {
    on_every_view(|kind| {
        let run = |root: &Path| {
            mkdir(root, "x");
            write(root, "x/y", "z");
            touch(root, "x/y", LONG_AGO);
            touch(root, "x", LONG_AGO);
        };
        let (one, other) = (base(kind).step(run).written, base(kind).step(run).written);
        assert_eq!(one, other);
        let mut later = base(kind);
        let moved = later.step(|root| {
            run(root);
            touch(root, "x", LONG_AGO + 9);
        });
        assert_ne!(moved.written.diff_id, one.diff_id);
        assert_eq!(moved.written.content_id, one.content_id, "times were not part of it");
    });
}

#[test]
fn what_no_walk_can_bear_is_an_error_and_goes_away() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let failed = world.try_step(|root| {
            let mut directory = crate::layer::dir::Dir::open(root).unwrap();
            for _ in 0..if kind == ViewKind::Root { 5000 } else { 300 } {
                directory.make_dir(b"d").ok();
                directory = directory.subdir(b"d").unwrap();
            }
        });
        let error = std::error::Error::source(&failed.err().unwrap()).unwrap().to_string();
        assert!(error.contains("nested more than 256 directories deep"), "{error:.100}");
        assert_eq!(fs_err::read_dir(world.active()).unwrap().count(), 0);
    });
}

#[test]
fn names_need_not_be_utf_8() {
    on_every_view(|kind| {
        use std::os::unix::ffi::OsStrExt;
        let mut world = base(kind);
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        let step = world.step(|root| fs_err::write(root.join(name), "").unwrap());
        let mut archive = Archive::new(step.archive.as_slice(), Limits::default());
        assert_eq!(archive.next_entry().unwrap().unwrap().path.as_bytes(), b"caf\xe9");
        world.step(|root| fs_err::remove_file(root.join(name)).unwrap());
        assert_eq!(world.names(), ["d", "d/one", "d/two", "file", "pair-a", "pair-b"]);
    });
}

#[test]
fn all_whiteouts_are_one_inode_and_no_hard_links() {
    on_every_view(|kind| {
        let mut world = base(kind);
        let step = world.step(|root| {
            for name in ["d", "file", "pair-a", "pair-b"] {
                remove(root, name);
            }
        });
        assert_eq!(step.entries(), [".wh.d", ".wh.file", ".wh.pair-a", ".wh.pair-b"]);
        assert_eq!(world.names(), [""; 0]);
    });
}

#[test]
fn a_step_that_writes_what_foreign_layers_hid() {
    on_every_view(|kind| {
        let mut world = base(kind);
        // A layer as others write them: an opaque marker, and a whiteout of a directory.
        let archive = crate::layer::testing::Raw::default()
            .dir("d")
            .file("d/.wh..wh..opq", b"")
            .file("d/new", b"new")
            .end();
        let diff_id = boatyard_oci::DiffId::new(boatyard_oci::Digest::sha256(&archive));
        let unpack = Unpack {
            blob: archive.as_slice(),
            diff_id: &diff_id,
            lowers: &world.stack,
            threads: 1,
            limits: Limits::default(),
            decompress: DecompressLimits::default(),
        };
        let layer = world.layers.unpack(unpack).unwrap();
        world.stack.push(layer);
        assert_eq!(world.names(), ["d", "d/new", "file", "pair-a", "pair-b"]);
        let step = world.step(|root| write(root, "d/one", "1"));
        assert_eq!(step.entries(), ["d/", "d/one"]);
        let step = world.step(|root| remove(root, "d"));
        assert_eq!(step.entries(), [".wh.d"]);
    });
}

#[test]
fn one_change_is_one_layer_in_every_view() {
    let story = |kind| {
        let mut world = base(kind);
        world.epoch = Some(LONG_AGO);
        let install = world.step(|root| {
            mkdir(root, "usr/share/doc/a");
            mkdir(root, "usr/bin");
            for name in ["usr/bin/a", "usr/share/doc/a/copyright", "usr/share/doc/a/changes"] {
                write(root, name, name);
            }
            chmod(root, "usr/bin/a", 0o4755);
            chown(root, "usr/share/doc/a/copyright", 12);
            fs_err::hard_link(root.join("usr/bin/a"), root.join("usr/bin/b")).unwrap();
            symlink("a", root.join("usr/bin/c")).unwrap();
        });
        let upgrade = world.step(|root| {
            write(root, "usr/bin/a.new", "2");
            fs_err::rename(root.join("usr/bin/a.new"), root.join("usr/bin/a")).unwrap();
            remove(root, "usr/share/doc/a");
            mkdir(root, "usr/share/doc/a");
            write(root, "usr/share/doc/a/copyright", "2");
            chmod(root, "d/one", 0o600);
            touch(root, "d/two", LONG_AGO);
            chown(root, "d", 7);
        });
        let purge = world.step(|root| {
            remove(root, "usr");
            remove(root, "file");
            mkdir(root, "file");
        });
        [install, upgrade, purge].map(|step| (step.written.diff_id.clone(), step.entries()))
    };
    let expected = story(ViewKind::Root);
    for kind in ViewKind::ALL {
        assert_eq!(story(kind), expected, "{kind}");
    }
}
