//! A disk that is small, so that a test can fill it.

use super::Place;
use super::place::text;

/// A small disk, mounted for a test.
pub struct SmallDisk<'a> {
    place: &'a Place,
}

impl<'a> SmallDisk<'a> {
    /// Mounts it.
    pub fn mount(place: &'a Place, size: &str) -> SmallDisk<'a> {
        let disk = SmallDisk { place };
        fs_err::create_dir_all(disk.path()).unwrap();
        let options = format!("size={size}");
        place.run("mount", ["-t", "tmpfs", "-o", &options, "small", text(&disk.path())]).ok();
        disk
    }

    /// Leaves it so many inodes in all.
    pub fn limit_inodes(&self, most: u64) {
        let options = format!("remount,nr_inodes={most}");
        self.place.run("mount", ["-o", &options, text(&self.path())]).ok();
    }

    /// Returns where it is.
    pub fn path(&self) -> std::path::PathBuf {
        self.place.path("disk")
    }

    /// Returns a root on it.
    pub fn root(&self) -> std::path::PathBuf {
        self.path().join("root")
    }

    /// Takes all the space that is left, whoever else takes of it meanwhile.
    pub fn fill(&self) {
        let mut filler = fs_err::File::create(self.path().join("filler")).unwrap();
        let zeroes = vec![0_u8; 64 * 1024];
        let full = loop {
            if let Err(error) = std::io::Write::write_all(&mut filler, &zeroes) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Takes the space that is left, but for so many bytes.
    pub fn fill_but(&self, left: u64) {
        let free = rustix::fs::statvfs(self.path()).unwrap();
        let bytes = (free.f_bavail * free.f_frsize).saturating_sub(left);
        fs_err::write(self.path().join("filler"), vec![0_u8; bytes as usize]).unwrap();
    }

    /// Gives it back.
    pub fn make_space(&self) {
        fs_err::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        self.place.run("umount", ["-l", text(&self.path())]).run();
    }
}
