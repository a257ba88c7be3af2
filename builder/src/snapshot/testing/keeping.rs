//! Stories of the store of layers: names, races, crashes.

use super::*;

fn file_layer(world: &mut World, name: &str) -> Step {
    world.step(|root| write(root, name, name))
}

#[test]
fn a_layer_that_fits_any_stack_is_shared() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        file_layer(&mut world, "a");
        let chain = chain_above(&[], world.stack[0].diff_id());
        let found = world.layers.find(world.stack[0].diff_id(), &chain).unwrap().unwrap();
        assert_eq!(found, world.stack[0]);
        assert!(found.path().starts_with(world.kept("diff/sha256")));
    });
}

#[test]
fn a_layer_with_whiteouts_is_its_chains() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        file_layer(&mut world, "a");
        world.step(|root| remove(root, "a"));
        let layer = world.stack[1].clone();
        assert!(layer.path().starts_with(world.kept("chain/sha256")));
        let chain = chain_above(&world.stack[..1], layer.diff_id());
        assert_eq!(world.layers.find(layer.diff_id(), &chain).unwrap(), Some(layer.clone()));
        let other = chain_above(&[], layer.diff_id());
        assert_eq!(world.layers.find(layer.diff_id(), &other).unwrap(), None);
    });
}

#[test]
fn losing_a_race_is_fine() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        let step = file_layer(&mut world, "a");
        let committed = world.stack.pop().unwrap();
        assert_eq!(world.unpack(&step), committed);
    });
}

#[test]
fn bytes_that_were_not_promised_leave_nothing() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        let step = file_layer(&mut world, "a");
        let wrong = boatyard_oci::DiffId::new(boatyard_oci::Digest::sha256(b"else"));
        let unpack = Unpack {
            blob: step.archive.as_slice(),
            diff_id: &wrong,
            lowers: &[],
            threads: 1,
            limits: Limits::default(),
            decompress: DecompressLimits::default(),
        };
        let error = world.layers.unpack(unpack).unwrap_err().to_string();
        assert!(error.contains("but the image promises sha256:"), "{error}");
        assert_eq!(world.layers.find(&wrong, &chain_above(&[], &wrong)).unwrap(), None);
        assert_eq!(fs_err::read_dir(world.active()).unwrap().count(), 0);
    });
}

#[test]
fn discarded_and_dropped_snapshots_leave_nothing() {
    on_every_view(|kind| {
        let world = World::new(kind);
        world.layers.prepare(&[]).unwrap().discard().unwrap();
        drop(world.layers.prepare(&[]).unwrap());
        assert_eq!(fs_err::read_dir(world.active()).unwrap().count(), 0);
    });
}

#[test]
fn the_sweep_spares_what_somebody_writes() {
    on_every_view(|kind| {
        let world = World::new(kind);
        let active = world.layers.prepare(&[]).unwrap();
        let dead = world.active().join("step-dead");
        mkdir(&dead, "upper");
        write(&dead, "lock", "");
        world.layers.sweep_active().unwrap();
        assert!(!dead.exists() && active.upper().exists());
    });
}

#[test]
fn a_layer_that_a_crash_may_have_damaged_does_not_count() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        file_layer(&mut world, "a");
        file_layer(&mut world, "b");
        let (kept, lost) = (world.stack[0].clone(), world.stack[1].clone());
        world.layers.make_durable().unwrap();
        fs_err::remove_file(lost.path().join("durable")).unwrap();
        for layer in [&kept, &lost] {
            fs_err::write(layer.path().join("boot"), "an earlier one").unwrap();
        }
        let find = |layer: &LayerDir| {
            world.layers.find(layer.diff_id(), &chain_above(&[], layer.diff_id())).unwrap()
        };
        assert_eq!(find(&kept), Some(kept.clone()));
        assert_eq!(find(&lost), None);
        assert!(!lost.path().exists());
    });
}

#[test]
fn others_cannot_enter_the_layers() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        file_layer(&mut world, "a");
        let mode = fs_err::metadata(world.stack[0].path()).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
    });
}

#[test]
fn a_hundred_layers_mount() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        for i in 0..100 {
            let step = file_layer(&mut world, &format!("file-{i:03}"));
            assert_eq!(step.entries().len(), 1);
        }
        assert_eq!(world.names().len(), 100);
    });
}

#[test]
fn a_layer_may_be_in_a_stack_twice() {
    on_every_view(|kind| {
        let mut world = World::new(kind);
        let same = |root: &Path| {
            write(root, "a", "first");
            touch(root, "a", LONG_AGO);
        };
        world.step(same);
        world.step(|root| write(root, "a", "second"));
        world.step(same);
        assert_eq!(world.stack[0], world.stack[2]);
        assert!(world.view()[0].contains(&blake3::hash(b"first").to_hex()[..8]));
    });
}

#[test]
fn a_layer_that_nobody_uses_goes_and_a_leased_one_stays() {
    on_every_view(|kind| {
        use std::collections::HashSet;
        use std::time::{Duration, SystemTime};
        let mut world = World::new(kind);
        world.step(|root| write(root, "old", "1"));
        world.step(|root| write(root, "held", "2"));
        let held = HashSet::from([format!(
            "{}/diff/sha256/{}",
            world.layers.view().name(),
            world.stack[1].diff_id().digest().hex()
        )]);
        let later = SystemTime::now() + Duration::from_secs(1);
        let sweep = |before, dry_run| {
            let unneeded = |_: &str, used| used < before;
            world.layers.sweep(|| Ok(held.clone()), unneeded, dry_run).unwrap()
        };
        assert_eq!(sweep(SystemTime::now() - Duration::from_secs(60), false), 0, "both are young");
        assert_eq!(sweep(later, true), 1);
        assert!(world.stack[0].tree().exists(), "a dry run removes nothing");
        assert_eq!(sweep(later, false), 1);
        assert!(!world.stack[0].tree().exists() && world.stack[1].tree().exists());
    });
}
