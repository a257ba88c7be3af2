use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use boatyard_content::local::RootOptions;
use boatyard_content::{Lease, Root};

use super::*;
use crate::cache::mounts::CONTENT;

/// A root, and a cache mount of some files.
struct World {
    place: tempfile::TempDir,
    root: Arc<Root>,
    lease: Lease,
}

impl World {
    fn new() -> World {
        let place = tempfile::tempdir().unwrap();
        let root = Root::open(&place.path().join("root"), RootOptions::default()).unwrap();
        let lease = root.lease().unwrap();
        fs_err::create_dir_all(place.path().join("mount").join(CONTENT)).unwrap();
        World { place, root, lease }
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.place.path().join("mount").join(CONTENT).join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }

    fn gather(&self, earlier: Option<(&SharedMount, &FileList)>, secrets: &[Vec<u8>]) -> Gathered {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let gathering = Gathering { root: &self.root, lease: &self.lease, earlier, secrets, now };
        gathering.gather(&id(), &self.place.path().join("mount")).unwrap().unwrap()
    }

    fn open(&self, blob: &Descriptor) -> Result<std::fs::File, MountError> {
        let opened = self.root.store().open_blocking(&blob.digest).unwrap().unwrap();
        Ok(opened.into_file().into_parts().0)
    }

    fn list(&self, mount: &SharedMount) -> FileList {
        let mut bytes = Vec::new();
        self.open(&mount.files).unwrap().read_to_end(&mut bytes).unwrap();
        FileList::from_bytes(&bytes).unwrap()
    }

    fn restore(&self, mount: &SharedMount, name: &str) -> std::path::PathBuf {
        let into = self.place.path().join(name);
        fs_err::create_dir(&into).unwrap();
        mount.lay_out(&into, &mut |blob| self.open(blob)).unwrap();
        into
    }
}

fn id() -> CacheId {
    CacheId {
        namespace: String::new(),
        id: "/root/.cache".to_owned(),
        project: None,
        owner: (0, 0),
        mode: 0o755,
        seed: None,
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn read(directory: &Path, name: &str) -> Vec<u8> {
    fs_err::read(directory.join(name)).unwrap()
}

#[test]
fn files_come_back_as_they_were() {
    let world = World::new();
    let large = noise(1, 9 << 20);
    world.write("deep/er/large", &large);
    world.write("same", b"twice");
    world.write("deep/same", b"twice");
    world.write("empty", b"");
    let content = world.place.path().join("mount").join(CONTENT);
    std::os::unix::fs::symlink("../outside", content.join("link")).unwrap();
    fs_err::set_permissions(content.join("same"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let gathered = world.gather(None, &[]);
    let back = world.restore(&gathered.mount, "back");
    assert!(read(&back, "deep/er/large") == large);
    assert_eq!(read(&back, "same"), b"twice");
    assert_eq!(read(&back, "deep/same"), b"twice");
    assert_eq!(read(&back, "empty"), b"");
    assert_eq!(fs_err::read_link(back.join("link")).unwrap(), Path::new("../outside"));
    let (was, is) = (content.join("same"), back.join("same"));
    let (was, is) = (fs_err::metadata(was).unwrap(), fs_err::metadata(is).unwrap());
    assert_eq!((was.mode(), was.mtime_nsec()), (is.mode(), is.mtime_nsec()));
}

#[test]
fn only_what_changed_moves() {
    let world = World::new();
    world.write("a", &noise(1, 1 << 20));
    world.write("b", &noise(2, 1 << 20));
    world.write("large", &noise(3, 6 << 20));
    let first = world.gather(None, &[]);
    assert_eq!(first.new_bytes, 8 << 20);
    let list = world.list(&first.mount);
    world.write("b", &noise(4, 1000));
    let mut longer = noise(3, 6 << 20);
    longer.extend(b"a line more");
    world.write("large", &longer);
    let second = world.gather(Some((&first.mount, &list)), &[]);
    // The file that changed, and the piece of the large one that did.
    assert_eq!(second.new_bytes, 1000 + (2 << 20) + 11);
    assert_eq!(second.mount.packs[..1], first.mount.packs[..]);
    let back = world.restore(&second.mount, "back");
    assert!(read(&back, "large") == longer);
    assert!(read(&back, "a") == noise(1, 1 << 20));
    let third = world.gather(Some((&second.mount, &world.list(&second.mount))), &[]);
    assert_eq!((third.new_bytes, &third.mount), (0, &second.mount));
}

#[test]
fn a_pack_that_hardly_anybody_needs_is_written_anew() {
    let world = World::new();
    world.write("a", &noise(1, 1 << 20));
    world.write("b", &noise(2, 3 << 20));
    let first = world.gather(None, &[]);
    fs_err::remove_file(world.place.path().join("mount").join(CONTENT).join("b")).unwrap();
    let second = world.gather(Some((&first.mount, &world.list(&first.mount))), &[]);
    // Once more it is known that most of the pack is dead, and not before.
    let third = world.gather(Some((&second.mount, &world.list(&second.mount))), &[]);
    assert_eq!((second.new_bytes, third.new_bytes), (0, 1 << 20));
    assert!(third.mount.packs[0].size < first.mount.packs[0].size);
    assert!(read(&world.restore(&third.mount, "back"), "a") == noise(1, 1 << 20));
}

#[test]
fn a_file_with_a_secret_stays() {
    let world = World::new();
    world.write("plain", b"nothing");
    let mut hidden = vec![b'x'; (4 << 20) - 3];
    hidden.extend(b"hunter2 and more");
    world.write("hidden", &hidden);
    let gathered = world.gather(None, &[b"hunter2\n".to_vec(), b"no".to_vec()]);
    assert_eq!(gathered.left_out, ["hidden"]);
    assert_eq!(gathered.new_bytes, 7);
}

#[test]
fn lists_that_lie_lay_nothing_out() {
    let world = World::new();
    world.write("a", b"bytes");
    let gathered = world.gather(None, &[]);
    let honest = world.list(&gathered.mount);
    let lies: [fn(&mut FileList); 5] = [
        |list| list.files[0].path = "../../out".to_owned(),
        |list| list.files[0].path = String::new(),
        |list| list.packs[0] = 1,
        |list| list.packs.push(5),
        |list| {
            if let FileKind::File { pieces, .. } = &mut list.files[0].kind {
                pieces[0].hash = "0".repeat(64);
            }
        },
    ];
    for (at, lie) in lies.into_iter().enumerate() {
        let mut list = honest.clone();
        lie(&mut list);
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &list.to_bytes(), 0).unwrap();
        let into = world.place.path().join(format!("lie-{at}"));
        fs_err::create_dir(&into).unwrap();
        let laid = gathered.mount.lay_out(&into, &mut |blob| match *blob == gathered.mount.files {
            true => Ok(file.try_clone().unwrap()),
            false => world.open(blob),
        });
        assert!(laid.is_err(), "lie {at}");
        assert_eq!(fs_err::read_dir(&into).unwrap().count(), 0, "lie {at}");
    }
}
