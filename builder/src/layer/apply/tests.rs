//! Layers unpacked over others, honest and hostile. The hostile ones come first by name: each is a
//! row of the classes of holes that unpackers had.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::*;
use crate::layer::testing::{Head, Raw, chain};

/// A directory beside which there is something to attack.
struct Ground {
    root: tempfile::TempDir,
    lowers: Vec<std::path::PathBuf>,
}

impl Ground {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs_err::write(root.path().join("victim"), "untouched").unwrap();
        fs_err::create_dir(root.path().join("layer")).unwrap();
        Self { root, lowers: Vec::new() }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.root.path().join("layer")
    }

    /// Unpacks a layer beneath all that follow.
    fn lower(mut self, archive: &[u8]) -> Self {
        let tree = self.root.path().join(format!("lower-{}", self.lowers.len()));
        fs_err::create_dir(&tree).unwrap();
        let stack = Stack::open(&self.lowers).unwrap();
        apply(archive, &tree, &stack, Limits::default()).unwrap();
        self.lowers.push(tree);
        self
    }

    fn apply(&self, archive: &[u8]) -> Result<Applied, ApplyError> {
        let stack = Stack::open(&self.lowers).unwrap();
        let applied = apply(archive, &self.layer(), &stack, Limits::default());
        let victim = self.root.path().join("victim");
        assert_eq!(fs_err::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs_err::metadata(&victim).unwrap().nlink(), 1);
        assert_eq!(fs_err::read_dir(self.root.path()).unwrap().count(), 2 + self.lowers.len());
        applied
    }

    fn unpack(&self, archive: &[u8]) -> Reliance {
        self.apply(archive).unwrap().reliance
    }

    fn error(&self, archive: &[u8]) -> String {
        chain(&self.apply(archive).unwrap_err())
    }

    fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.layer().join(name)).unwrap()
    }

    fn kind(&self, name: &str) -> Option<ObjectKind> {
        let path = self.layer().join(name);
        let parent = Dir::open(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().as_encoded_bytes();
        parent.stat(name).unwrap().map(|object| object.kind)
    }

    fn is_opaque(&self, name: &str) -> bool {
        Dir::open(&self.layer().join(name)).unwrap().is_opaque().unwrap()
    }

    fn meta(&self, name: &str) -> std::fs::Metadata {
        fs_err::symlink_metadata(self.layer().join(name)).unwrap()
    }
}

mod hostile {
    use super::*;

    #[test]
    fn dots_that_climb() {
        for name in ["../victim", "a/../../victim", "/../victim", "../../../etc/passwd"] {
            let archive = Raw::default().file(name, b"owned").end();
            assert!(Ground::new().error(&archive).contains("leads out of the root"), "{name}");
        }
    }

    #[test]
    fn absolute_names_lie_in_the_root() {
        let ground = Ground::new();
        let victim = ground.root.path().join("victim");
        let name = victim.to_str().unwrap().to_owned();
        ground.unpack(&Raw::default().file(&name, b"mine").end());
        assert_eq!(ground.read(name.trim_start_matches('/')), "mine");
    }

    #[test]
    fn links_as_parents_stay_in_the_root() {
        for target in ["..", "../", "../../..", "/..", "/"] {
            let ground = Ground::new();
            let archive = Raw::default().symlink("up", target).file("up/victim", b"mine").end();
            ground.unpack(&archive);
            assert_eq!(ground.read("victim"), "mine", "{target}");
        }
    }

    #[test]
    fn an_absolute_link_as_parent_stays_in_the_root() {
        let ground = Ground::new();
        let outside = ground.root.path().to_str().unwrap().to_owned();
        let archive = Raw::default().symlink("out", &outside).file("out/victim", b"mine").end();
        ground.unpack(&archive);
        assert_eq!(ground.read(&format!("{}/victim", outside.trim_start_matches('/'))), "mine");
    }

    #[test]
    fn a_link_is_replaced_and_not_written_through() {
        let ground = Ground::new();
        let archive = Raw::default().symlink("a", "../victim").file("a", b"mine").end();
        ground.unpack(&archive);
        assert_eq!(ground.kind("a"), Some(ObjectKind::File));
        let archive = Raw::default().symlink("d", "..").dir("d").file("d/victim", b"mine").end();
        ground.unpack(&archive);
        assert_eq!(ground.kind("d"), Some(ObjectKind::Directory));
    }

    #[test]
    fn chained_links_stay_in_the_root() {
        let ground = Ground::new();
        let archive = Raw::default()
            .dir("a")
            .symlink("a/b", "..")
            .symlink("c", "a/b/..")
            .symlink("d", "c/../../..")
            .file("d/victim", b"mine")
            .end();
        ground.unpack(&archive);
        assert_eq!(ground.read("victim"), "mine");
    }

    #[test]
    fn links_in_a_circle_end() {
        let archive = Raw::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").end();
        assert_eq!(
            Ground::new().error(&archive),
            "the path /a/x leads through too many symbolic links"
        );
    }

    #[test]
    fn hard_links_to_outside_find_nothing() {
        let ground = Ground::new();
        let outside = ground.root.path().join("victim").to_str().unwrap().to_owned();
        let error = ground.error(&Raw::default().hard_link("a", &outside).end());
        assert!(error.contains("which does not exist"), "{error}");
        let error = ground.error(&Raw::default().hard_link("a", "../victim").end());
        assert!(error.contains("leads out of the root"), "{error}");
        let archive = Raw::default().symlink("up", "..").hard_link("a", "up/victim").end();
        let error = ground.error(&archive);
        assert!(error.contains("/a is a hard link to /up/victim, which does not exist"), "{error}");
    }

    #[test]
    fn a_hard_link_to_a_link_is_the_link() {
        let ground = Ground::new();
        let archive =
            Raw::default().symlink("s", "../victim").hard_link("h", "s").file("h", b"mine").end();
        ground.unpack(&archive);
        assert_eq!(
            (ground.kind("s"), ground.read("h")),
            (Some(ObjectKind::Symlink), "mine".into())
        );
    }

    #[test]
    fn the_root_cannot_be_replaced() {
        // umoci CVE-2021-29136.
        for name in ["/.", ".", "./", "/", "x/.."] {
            let archive = Raw::default().symlink(name, "/etc").end();
            let error = Ground::new().error(&archive);
            assert_eq!(
                error, "the layer replaces its root directory with something else",
                "{name}"
            );
        }
        let ground = Ground::new();
        let error = ground.error(&Raw::default().hard_link("a", "/").end());
        assert!(error.contains("which is a directory"), "{error}");
    }

    #[test]
    fn attributes_of_the_host_are_refused() {
        for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.x"] {
            let record = format!("SCHILY.xattr.{name}");
            let archive = Raw::default().pax(&[(&record, b"y")]).dir("d").end();
            let error = Ground::new().error(&archive);
            assert!(error.contains("which no layer may set") && error.contains(name), "{error}");
        }
        let ground = Ground::new();
        let records: [(&str, &[u8]); 3] = [
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("SCHILY.xattr.user.kept", b"1"),
        ];
        ground.unpack(&Raw::default().pax(&records).file("a", b"").end());
        let xattrs = Dir::open(&ground.layer()).unwrap().xattrs(b"a").unwrap();
        assert_eq!(xattrs.keys().collect::<Vec<_>>(), [b"user.kept"]);
    }

    #[test]
    fn a_whiteout_in_disguise_is_a_whiteout() {
        let device = || {
            let mut head = Head::new(b"d/null", b'3');
            head.put(329, b"0000000\0").put(337, b"0000000\0");
            Raw::default().dir("d").head(head).end()
        };
        let ground = Ground::new();
        assert!(ground.unpack(&device()).whiteouts);
        assert_eq!(ground.kind("d/null"), None);
    }

    #[test]
    fn whiteouts_of_no_name_are_refused() {
        for name in [".wh.", ".wh..", ".wh...", "d/.wh...", ".wh.x/y"] {
            let error = Ground::new().error(&Raw::default().file(name, b"").end());
            assert!(error.contains("is not allowed in a layer"), "{name}: {error}");
        }
    }

    #[test]
    fn whiteouts_through_links_stay_in_the_root() {
        let ground = Ground::new().lower(&Raw::default().file("victim", b"lower").end());
        let archive = Raw::default().symlink("up", "..").file("up/.wh.victim", b"").end();
        ground.unpack(&archive);
        assert_eq!(ground.kind("victim"), Some(ObjectKind::Whiteout));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let name = "d/".repeat(300) + "x";
        let archive = Raw::default().pax(&[("path", name.as_bytes())]).file("x", b"").end();
        assert!(Ground::new().error(&archive).contains("is nested too deeply"));
        // Links lead deeper than any one name: each level goes on from the one before.
        let mut archive = Raw::default();
        for i in 0..12 {
            let name = format!("l{i}/{}", "d/".repeat(30));
            let below = format!("l{}", i + 1);
            archive = archive.pax(&[("path", name.as_bytes())]).dir("x");
            archive = archive.pax(&[("linkpath", name.as_bytes())]).symlink(&below, "x");
        }
        let error = Ground::new().error(&archive.end());
        assert!(error.contains("nested too deeply") || error.contains("too many"), "{error}");
    }

    #[test]
    fn files_are_not_directories() {
        let archive = Raw::default().file("a", b"").file("a/b", b"").end();
        let error = Ground::new().error(&archive);
        assert_eq!(error, "/a/b lies below /a, which is not a directory");
        let mut fifo = Raw::default().head(Head::new(b"p", b'6'));
        fifo = fifo.file("p/b", b"");
        assert!(Ground::new().error(&fifo.end()).contains("/p, which is not a directory"));
    }

    #[test]
    fn a_cached_directory_is_not_trusted_after_it_was_replaced() {
        let ground = Ground::new();
        let archive = Raw::default()
            .dir("a")
            .dir("a/b")
            .file("a/b/one", b"1")
            .symlink("a/b", "/c")
            .dir("c")
            .file("a/b/two", b"2")
            .symlink("a", "..")
            .file("a/victim", b"mine")
            .end();
        ground.unpack(&archive);
        assert_eq!(ground.read("c/two"), "2");
        assert_eq!(ground.read("victim"), "mine");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let ground = Ground::new();
        let records: [(&str, &[u8]); 2] =
            [("GNU.sparse.size", b"9000000000000000000"), ("GNU.sparse.map", b"0,0")];
        let archive = Raw::default().pax(&records).file("a", b"").end();
        assert!(ground.error(&archive).contains("bytes of content"));
    }
}

mod random {
    use super::*;

    const PARTS: [&str; 8] = ["a", "b", "c", "..", "/", ".", "victim", "a/b"];

    /// The same seed gives the same archive.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 20) as usize % sides
        }

        fn path(&mut self, parts: &[&str]) -> String {
            let path: Vec<_> =
                (0..1 + self.roll(3)).map(|_| parts[self.roll(parts.len())]).collect();
            path.join("/")
        }

        fn archive(&mut self) -> Vec<u8> {
            let mut archive = Raw::default();
            for _ in 0..12 {
                let (name, target) = (self.path(&PARTS[..3]), self.path(&PARTS));
                archive = match self.roll(8) {
                    0 => archive.file(&name, b"mine"),
                    1 | 2 => archive.dir(&name),
                    3 | 4 => archive.symlink(&name, &target),
                    5 => archive.hard_link(&name, &target),
                    6 => archive.file(&format!("{name}/.wh.{}", PARTS[self.roll(3)]), b""),
                    _ => archive.file(&format!("{name}/.wh..wh..opq"), b""),
                };
            }
            archive.end()
        }
    }

    /// [`Ground::apply`] looks at the victim and at what is around the layer.
    #[test]
    fn nothing_that_an_archive_says_reaches_outside() {
        let mut unpacked = 0;
        for seed in 1..=400 {
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let mut ground = Ground::new();
            // Most archives are refused somewhere; what they made until then counts too.
            for lower in 0..2 {
                let tree = ground.root.path().join(format!("lower-{lower}"));
                fs_err::create_dir(&tree).unwrap();
                let stack = Stack::open(&ground.lowers).unwrap();
                apply(dice.archive().as_slice(), &tree, &stack, Limits::default()).ok();
                ground.lowers.push(tree);
            }
            unpacked += usize::from(ground.apply(&dice.archive()).is_ok());
        }
        assert!(unpacked > 20, "only {unpacked} archives were unpacked whole");
    }
}

mod alone {
    use super::*;

    #[test]
    fn attributes_are_those_of_the_archive() {
        let ground = Ground::new();
        let mut head = Head::new(b"d/tool", b'0');
        head.put(100, b"0006755\0").put(108, b"0001750\0").put(116, b"0000012\0");
        head.put(136, b"00000001000\0").size(2);
        let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut dir = Head::new(b"d/", b'5');
        dir.put(100, b"0001777\0").put(136, b"00000002000\0");
        let archive = Raw::default()
            .head(dir)
            .pax(&[("SCHILY.xattr.security.capability", capability)])
            .head(head)
            .block(b"#!")
            .end();
        let applied = ground.apply(&archive).unwrap();
        assert!(applied.reliance.is_none());
        assert_eq!((applied.entries, applied.uncompressed_size), (2, archive.len() as u64));
        assert_eq!(*applied.diff_id.digest(), boatyard_oci::Digest::sha256(&archive));
        let meta = ground.meta("d/tool");
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o6755, 1000, 10));
        assert_eq!(meta.mtime(), 0o1000);
        let parent = Dir::open(&ground.layer().join("d")).unwrap();
        let xattrs = parent.xattrs(b"tool").unwrap();
        assert_eq!(xattrs[&b"security.capability"[..]], capability, "survives the chown");
        assert_eq!((ground.meta("d").mode() & 0o7777, ground.meta("d").mtime()), (0o1777, 0o2000));
    }

    #[test]
    fn the_diff_id_covers_what_follows_the_end() {
        let mut archive = Raw::default().file("a", b"").end();
        archive.extend_from_slice(b"trailing bytes");
        let applied = Ground::new().apply(&archive).unwrap();
        assert_eq!(*applied.diff_id.digest(), boatyard_oci::Digest::sha256(&archive));
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let ground = Ground::new();
        let archive = Raw::default()
            .file("a", b"1")
            .file("a", b"22")
            .dir("b")
            .dir("b/c")
            .file("b/c/x", b"")
            .file("b", b"now a file")
            .file("c", b"")
            .dir("c")
            .file("c/x", b"in a directory")
            .dir("c")
            .end();
        ground.unpack(&archive);
        assert_eq!((ground.read("a"), ground.read("b")), ("22".into(), "now a file".into()));
        assert_eq!(ground.read("c/x"), "in a directory", "a directory keeps what is in it");
    }

    #[test]
    fn hard_links_share_and_replacing_one_spares_the_other() {
        let ground = Ground::new();
        let archive =
            Raw::default().file("a", b"1").hard_link("b", "./a").hard_link("c", "/a").end();
        ground.unpack(&archive);
        assert_eq!(ground.meta("a").nlink(), 3);
        ground.unpack(&Raw::default().file("a", b"1").hard_link("b", "a").file("a", b"2").end());
        assert_eq!((ground.read("a"), ground.read("b")), ("2".into(), "1".into()));
    }

    #[test]
    fn zeros_become_holes() {
        let ground = Ground::new();
        let mut content = vec![0; 3 << 20];
        content[1 << 20] = 1;
        ground.unpack(&Raw::default().file("a", &content).end());
        assert_eq!(fs_err::read(ground.layer().join("a")).unwrap(), content);
        assert!(ground.meta("a").blocks() * 512 < 1 << 20);
    }

    #[test]
    fn directories_without_an_entry_are_roots() {
        let ground = Ground::new();
        let reliance = ground.unpack(&Raw::default().file("a/b/c", b"").end());
        assert!(reliance.implicit_parents);
        let meta = ground.meta("a/b");
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.mtime()), (0o755, 0, 0));
    }

    #[test]
    fn the_roots_entry_sets_its_attributes() {
        let ground = Ground::new();
        let mut head = Head::new(b"./", b'5');
        head.put(100, b"0000711\0").put(108, b"0000005\0").put(136, b"00000000007\0");
        let applied = ground.apply(&Raw::default().head(head).file("./a", b"").end()).unwrap();
        assert!(applied.root_attributes && applied.reliance.is_none());
        let meta = fs_err::metadata(ground.layer()).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.mtime()), (0o711, 5, 7));
    }

    #[test]
    fn records_of_aufs_are_left_out() {
        let ground = Ground::new();
        ground.unpack(&Raw::default().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", b"").end());
        assert_eq!(fs_err::read_dir(ground.layer()).unwrap().count(), 0);
    }
}

mod above {
    use super::*;

    fn base() -> Ground {
        let mut dir = Head::new(b"usr/lib/", b'5');
        dir.put(100, b"0002750\0").put(108, b"0000007\0").put(136, b"00000000100\0");
        let archive = Raw::default()
            .dir("usr")
            .head(dir)
            .symlink("lib", "usr/lib")
            .file("usr/lib/libc", b"libc")
            .file("file", b"")
            .dir("d")
            .file("d/x", b"")
            .end();
        Ground::new().lower(&archive)
    }

    #[test]
    fn directories_without_an_entry_are_as_beneath() {
        let ground = base();
        assert!(ground.unpack(&Raw::default().file("usr/lib/new", b"").end()).implicit_parents);
        let meta = ground.meta("usr/lib");
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.mtime()), (0o2750, 7, 0o100));
    }

    #[test]
    fn links_of_lower_layers_are_followed() {
        let ground = base();
        assert!(ground.unpack(&Raw::default().file("lib/new", b"n").end()).implicit_parents);
        assert_eq!((ground.read("usr/lib/new"), ground.kind("lib")), ("n".into(), None));
    }

    #[test]
    fn hard_links_reach_down() {
        let ground = base();
        let archive = Raw::default().hard_link("copy", "lib/libc").hard_link("two", "copy").end();
        let reliance = ground.unpack(&archive);
        assert!(reliance.hard_links_downward);
        assert_eq!((ground.read("copy"), ground.meta("usr/lib/libc").nlink()), ("libc".into(), 3));
        let lower = ground.lowers[0].join("usr/lib/libc");
        assert_eq!(fs_err::metadata(lower).unwrap().nlink(), 1, "copied, not linked");
        let error = ground.error(&Raw::default().hard_link("a", "usr/lib/none").end());
        assert!(error.contains("which does not exist"), "{error}");
        let error = ground.error(&Raw::default().hard_link("a", "usr/lib").end());
        assert!(error.contains("which is a directory"), "{error}");
        let archive = Raw::default().file("usr/lib/.wh.libc", b"").hard_link("z", "lib/libc").end();
        drop(fs_err::remove_dir_all(ground.layer()));
        fs_err::create_dir(ground.layer()).unwrap();
        assert!(ground.error(&archive).contains("which does not exist"));
    }

    #[test]
    fn whiteouts_hide_only_what_is_there() {
        let ground = base();
        let archive = Raw::default()
            .file(".wh.file", b"")
            .file(".wh.none", b"")
            .file("none/.wh.x", b"")
            .file("usr/lib/.wh.libc", b"")
            .file("usr/lib/.wh.none", b"")
            .end();
        let reliance = ground.unpack(&archive);
        assert!(reliance.whiteouts && reliance.implicit_parents);
        assert_eq!(ground.kind("file"), Some(ObjectKind::Whiteout));
        assert_eq!(ground.kind("usr/lib/libc"), Some(ObjectKind::Whiteout));
        for absent in ["none", ".wh.none"] {
            assert_eq!(ground.kind(absent), None);
        }
        assert_eq!(ground.meta("usr/lib").mtime(), 0o100);
    }

    #[test]
    fn a_whiteout_means_only_what_lies_beneath() {
        // Before and after the entries of its own layer.
        for archive in [
            Raw::default().file(".wh.d", b"").dir("d").file("d/new", b"").end(),
            Raw::default().dir("d").file("d/new", b"").file(".wh.d", b"").end(),
            Raw::default().dir("d").file("d/.wh..wh..opq", b"").file("d/new", b"").end(),
            Raw::default().file("d/new", b"").file("d/.wh..wh..opq", b"").end(),
            Raw::default().file(".wh.d", b"").file("d/new", b"").end(),
        ] {
            let ground = base();
            assert!(ground.unpack(&archive).whiteouts);
            assert!(ground.is_opaque("d"));
            assert_eq!(ground.kind("d/new"), Some(ObjectKind::File));
        }
        let ground = base();
        ground.unpack(&Raw::default().file("file", b"new").file(".wh.file", b"").end());
        assert_eq!(ground.read("file"), "new");
    }

    #[test]
    fn nothing_is_opaque_where_nothing_lies_beneath() {
        let ground = base();
        ground.unpack(&Raw::default().dir("e").file("e/.wh..wh..opq", b"").end());
        assert!(!ground.is_opaque("e"));
    }

    #[test]
    fn an_opaque_root_hides_everything() {
        let ground = base();
        ground.unpack(&Raw::default().dir("d").file("d/new", b"").file(".wh..wh..opq", b"").end());
        assert!(ground.is_opaque("d"));
        for name in ["usr", "lib", "file"] {
            assert_eq!(ground.kind(name), Some(ObjectKind::Whiteout), "{name}");
        }
    }

    #[test]
    fn a_directory_that_was_a_file_hides_what_lies_beneath() {
        let ground = base();
        ground.unpack(&Raw::default().file("d", b"").dir("d").file("d/new", b"").end());
        assert!(ground.is_opaque("d"));
    }

    #[test]
    fn a_lower_file_gives_way_to_a_directory() {
        let ground = base();
        assert!(ground.unpack(&Raw::default().file("file/x", b"").end()).implicit_parents);
        assert_eq!(ground.kind("file"), Some(ObjectKind::Directory));
    }

    #[test]
    fn whiteouts_of_middle_layers_are_heeded() {
        let ground = base()
            .lower(&Raw::default().file(".wh.lib", b"").file(".wh.d", b"").end())
            .lower(&Raw::default().dir("d").end());
        ground.unpack(&Raw::default().file("lib/x", b"").file("d/.wh.x", b"").end());
        assert_eq!(ground.kind("lib"), Some(ObjectKind::Directory), "the link is gone");
        assert_eq!(ground.kind("d/x"), None, "what it would hide is hidden");
    }

    #[test]
    fn a_hostile_lower_link_stays_in_the_root() {
        let ground = Ground::new().lower(&Raw::default().dir("x").end());
        symlink(ground.root.path(), ground.lowers[0].join("out")).unwrap();
        symlink("../..", ground.lowers[0].join("up")).unwrap();
        ground.unpack(&Raw::default().file("up/victim", b"1").file("out/victim", b"2").end());
        assert_eq!(ground.read("victim"), "1");
        let inside = ground.root.path().strip_prefix("/").unwrap();
        assert!(ground.layer().join(inside).join("victim").exists());
        assert!(!Path::new("/victim").exists());
    }
}
