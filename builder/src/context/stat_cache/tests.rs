use rustix::fs::stat;

use super::*;

struct World {
    root: tempfile::TempDir,
    context: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let (root, context) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(context.path().join("file"), "content").unwrap();
        World { root, context }
    }

    fn open(&self) -> StatCache {
        let directory = Directory::open(self.context.path(), None).unwrap();
        StatCache::open(self.root.path(), &directory)
    }

    fn stat(&self) -> Stat {
        stat(self.context.path().join("file")).unwrap()
    }
}

fn later(stat: &Stat, millis: u64) -> SystemTime {
    let changed = Duration::new(
        u64::try_from(stat.st_ctime).unwrap(),
        u32::try_from(stat.st_ctime_nsec).unwrap(),
    );
    SystemTime::UNIX_EPOCH + changed + Duration::from_millis(millis)
}

#[test]
fn what_was_learned_is_known_to_the_next_build() {
    let (world, hash) = (World::new(), [7; 32]);
    let cache = world.open();
    assert_eq!(cache.find(&world.stat()), None);
    cache.learn(&world.stat(), &hash, later(&world.stat(), 5000));
    cache.save().unwrap();
    assert_eq!(world.open().find(&world.stat()), Some(hash));
    let mut touched = world.stat();
    touched.st_mtime_nsec += 1;
    assert_eq!(world.open().find(&touched), None);
    let mut changed = world.stat();
    changed.st_ctime += 1;
    assert_eq!(world.open().find(&changed), None);
}

#[test]
fn what_changed_just_now_is_not_remembered() {
    let world = World::new();
    let mut stat = world.stat();
    for (nanoseconds, millis, remembered) in
        [(5, 0, false), (5, 15, false), (5, 25, true), (0, 1500, false), (0, 2500, true)]
    {
        stat.st_ctime_nsec = nanoseconds;
        assert_eq!(is_settled(&stat, later(&stat, millis)), remembered, "{nanoseconds} {millis}");
    }
    // A clock that runs behind the file system's cannot tell.
    assert!(!is_settled(&stat, SystemTime::UNIX_EPOCH));
}

#[test]
fn a_damaged_file_is_as_good_as_none() {
    let world = World::new();
    let cache = world.open();
    cache.learn(&world.stat(), &[7; 32], later(&world.stat(), 5000));
    cache.save().unwrap();
    let good = fs::read(&cache.path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&cache.path, &bad).unwrap();
        assert_eq!(world.open().find(&world.stat()), None, "byte {at}");
        fs::write(&cache.path, &good[..at]).unwrap();
        assert_eq!(world.open().find(&world.stat()), None, "{at} bytes");
    }
}

#[test]
fn the_last_of_two_builds_wins_and_loses_nothing_it_knew() {
    let world = World::new();
    let mut other = world.stat();
    other.st_ino += 1;
    let (one, two) = (world.open(), world.open());
    one.learn(&world.stat(), &[1; 32], later(&world.stat(), 5000));
    two.learn(&other, &[2; 32], later(&other, 5000));
    one.save().unwrap();
    two.save().unwrap();
    assert_eq!(world.open().find(&other), Some([2; 32]));
    let three = world.open();
    three.learn(&world.stat(), &[3; 32], later(&world.stat(), 5000));
    three.save().unwrap();
    let last = world.open();
    assert_eq!((last.find(&world.stat()), last.find(&other)), (Some([3; 32]), Some([2; 32])));
}

#[test]
fn a_build_that_learns_nothing_writes_nothing() {
    let world = World::new();
    world.open().save().unwrap();
    assert!(!world.root.path().join("cache").exists());
}
