//! Steps that do anything, and the one property of a snapshot: the next step sees what this one left.

use std::os::unix::fs::symlink;

use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "a.b", "d"];

/// A generator of numbers; the same seed gives the same story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % sides
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.roll(3);
        let names: Vec<_> = (0..depth).map(|_| NAMES[self.roll(5) as usize]).collect();
        names.join("/")
    }
}

/// Does one thing. Most fail for want of the right objects, which is fine.
fn act(root: &Path, dice: &mut Dice) {
    let (path, other) = (root.join(dice.path()), root.join(dice.path()));
    match dice.roll(14) {
        0..=2 => drop(fs_err::create_dir_all(&path)),
        3 | 4 => drop(fs_err::write(&path, dice.roll(3).to_string())),
        5 => drop(fs_err::remove_file(&path)),
        6 => drop(fs_err::remove_dir_all(&path)),
        7 => drop(fs_err::rename(&path, &other)),
        8 => drop(fs_err::hard_link(&path, &other)),
        9 => drop(symlink("a/b", &path)),
        10 if path.is_dir() => chmod(&path, ".", 0o700),
        11 if path.is_file() => chown(root, path.strip_prefix(root).unwrap().to_str().unwrap(), 5),
        12 if path.is_file() => {
            touch(root, path.strip_prefix(root).unwrap().to_str().unwrap(), LONG_AGO);
        }
        13 if fs_err::remove_dir_all(&path).is_ok() => drop(fs_err::create_dir(&path)),
        _ => {}
    }
}

/// What a layer keeps: neither nanoseconds nor, across layers, the number of links.
fn kept(lines: Vec<String>) -> Vec<String> {
    let keep = |line: String| {
        let mut fields: Vec<_> = line.splitn(7, ' ').map(str::to_owned).collect();
        if let Some(time) = fields.get_mut(3) {
            *time = time.split('.').next().unwrap_or_default().to_owned();
        }
        if fields.len() > 5 {
            fields.remove(5);
        }
        fields.join(" ")
    };
    lines.into_iter().map(keep).collect()
}

#[test]
fn the_next_step_sees_what_this_one_left() {
    on_every_view(|kind| {
        let seeds = match kind {
            ViewKind::Root => 40,
            ViewKind::User => 5,
            ViewKind::Copy => 20,
            // fuse-overlayfs (1.10) itself loses its way in what these steps do.
            ViewKind::Fuse => 0,
        };
        for seed in 1..=seeds {
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let mut world = World::new(kind);
            for step in 0..5 {
                let mut left = Vec::new();
                world.step(|root| {
                    for _ in 0..25 {
                        act(root, &mut dice);
                    }
                    left = tree(root);
                });
                assert_eq!(kept(world.view()), kept(left), "seed {seed}, step {step}");
            }
        }
    });
}
