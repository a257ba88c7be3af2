use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use boatyard_content::local::RootOptions;
use boatyard_content::{Lease, Root};
use tempfile::TempDir;

use super::*;

struct World {
    _directory: TempDir,
    root: Arc<Root>,
    mounts: CacheMounts,
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    let mounts = Cache::open(&root).mounts();
    World { _directory: directory, root, mounts }
}

fn id(name: &str) -> CacheId {
    CacheId {
        namespace: String::new(),
        id: name.to_owned(),
        project: None,
        owner: (0, 0),
        mode: 0o755,
        seed: None,
    }
}

impl World {
    fn take(&self, id: &CacheId, by: Use) -> Option<Taken> {
        let mut give_up = || ControlFlow::Break(());
        let mut fill = |_: &Path| Ok(());
        self.mounts.take(id, by, &Lease::unheld(), &mut fill, &mut give_up).unwrap()
    }
}

#[test]
fn whatever_makes_a_cache_another_one_is_in_its_name() {
    let text = |text: &str| text.to_owned();
    let changes: [fn(&mut CacheId); 9] = [
        |_| {},
        |id| id.namespace = "a".to_owned(),
        |id| id.id = "b".to_owned(),
        |id| id.project = Some(String::new()),
        |id| id.project = Some("a".to_owned()),
        |id| id.owner = (1, 0),
        |id| id.owner = (0, 1),
        |id| id.mode = 0o700,
        |id| id.seed = Some("a".to_owned()),
    ];
    let names: std::collections::HashSet<String> = changes
        .iter()
        .map(|change| {
            let mut id = id("a");
            change(&mut id);
            id.name()
        })
        .collect();
    assert_eq!(names.len(), changes.len());
    let (one, other) = (
        CacheId { namespace: text("ab"), id: text("c"), ..id("") },
        CacheId { namespace: text("a"), id: text("bc"), ..id("") },
    );
    assert_ne!(one.name(), other.name());
    // It is the name of a directory, whatever the id is.
    assert!(id("../../etc").name().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn a_cache_stays_and_has_the_owner_and_mode_it_was_made_with() {
    let world = world();
    let id = CacheId { mode: 0o1770, ..id("a") };
    let taken = world.take(&id, Use::Together).unwrap();
    let content = taken.path().join(CONTENT);
    assert_eq!(fs::metadata(&content).unwrap().permissions().mode() & 0o7777, 0o1770);
    fs::write(content.join("kept"), "").unwrap();
    drop(taken);
    let again = world.take(&id, Use::Alone).unwrap();
    assert!(again.path().join(CONTENT).join("kept").exists());
    let [kept] = &world.mounts.list().unwrap()[..] else { panic!("one") };
    assert_eq!(kept.about.as_ref().unwrap().id, id);
    assert!(kept.is_locked && kept.bytes > 0);
}

#[test]
fn a_seed_is_there_whole_or_not_at_all() {
    let world = world();
    let seeded = CacheId { seed: Some("x".to_owned()), ..id("a") };
    let mut wait = || ControlFlow::Break(());
    let mut fails = |path: &Path| {
        fs::write(path.join("half"), "")?;
        Err(io::ErrorKind::StorageFull.into())
    };
    let lease = Lease::unheld();
    let taken = world.mounts.take(&seeded, Use::Together, &lease, &mut fails, &mut wait);
    assert!(taken.is_err());
    let mut fill = |path: &Path| fs::write(path.join("whole"), "");
    let taken = world.mounts.take(&seeded, Use::Together, &lease, &mut fill, &mut wait);
    let content = taken.unwrap().unwrap().path().join(CONTENT);
    assert!(content.join("whole").exists() && !content.join("half").exists());
}

#[test]
fn together_alone_and_each_one_his_own() {
    let world = world();
    let id = id("a");
    let (one, two) = (world.take(&id, Use::Together), world.take(&id, Use::Together));
    let inode = |taken: &Option<Taken>| fs::metadata(taken.as_ref().unwrap().path()).unwrap().ino();
    assert_eq!(inode(&one), inode(&two));
    assert!(world.take(&id, Use::Alone).is_none());
    let own = world.take(&id, Use::AnyAlone);
    assert_ne!(inode(&one), inode(&own));
    let other = world.take(&id, Use::AnyAlone);
    assert_ne!(inode(&own), inode(&other));
    drop((one, two));
    let alone = world.take(&id, Use::Alone).unwrap();
    assert!(world.take(&id, Use::Together).is_none());
    // Who has the lock handed to him keeps it.
    let handed = alone.lock().unwrap();
    drop(alone);
    assert!(world.take(&id, Use::Together).is_none());
    drop(handed);
    assert!(world.take(&id, Use::Together).is_some());
    assert_eq!(world.mounts.list().unwrap().len(), 3);
}

#[test]
fn who_waits_takes_over() {
    let world = world();
    let id = id("a");
    let mut owner = world.take(&id, Use::Alone);
    let mut fill = |_: &Path| Ok(());
    let mut dies = || {
        drop(owner.take());
        ControlFlow::Continue(())
    };
    let lease = Lease::unheld();
    assert!(world.mounts.take(&id, Use::Alone, &lease, &mut fill, &mut dies).unwrap().is_some());
}

#[test]
fn what_a_step_uses_is_not_removed() {
    let world = world();
    let id = id("a");
    let taken = world.take(&id, Use::Together).unwrap();
    fs::write(taken.path().join(CONTENT).join(".old"), "").unwrap();
    let cache = Cache::open(&world.root);
    assert!(!world.mounts.remove(&id.name()).unwrap());
    assert!(cache.usage().unwrap().kept[0].is_in_use);
    drop(taken);
    // A running build relies on it between its steps, too.
    let lease = world.root.lease().unwrap();
    let (mut fill, mut wait) = (|_: &Path| Ok(()), || ControlFlow::Break(()));
    drop(world.mounts.take(&id, Use::Together, &lease, &mut fill, &mut wait).unwrap());
    assert!(cache.usage().unwrap().kept[0].is_in_use);
    drop(lease);
    assert!(!cache.usage().unwrap().kept[0].is_in_use);
    assert!(world.mounts.remove(&id.name()).unwrap());
    assert!(!world.mounts.remove(&id.name()).unwrap());
    assert!(world.mounts.is_empty().unwrap());
    let left: Vec<_> = fs::read_dir(&world.mounts.directory).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
