//! What clients asked for: a new generation is shown once it has all of that.
//!
//! ```text
//! <seconds since 1970, of the last time>\t<path>\n
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// How exact the time of the last request is.
const GRAIN: Duration = Duration::from_secs(6 * 3600);
/// How many paths are remembered; the least recent are forgotten.
const PATHS_MAX: usize = 4096;

/// The paths that were asked for, with the time of the last request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    paths: BTreeMap<Box<str>, Timestamp>,
}

impl Wanted {
    /// Reads what [`Wanted::to_bytes`] wrote. Lines that were torn are left out.
    pub fn parse(bytes: &[u8]) -> Wanted {
        let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
            let (time, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
            Some((path.into(), Timestamp::from_second(time.parse().ok()?).ok()?))
        });
        Wanted { paths: lines.take(PATHS_MAX).collect() }
    }

    /// Returns the file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let lines = self.paths.iter().map(|(path, time)| format!("{}\t{path}\n", time.as_second()));
        lines.collect::<String>().into_bytes()
    }

    /// Notes that a path was asked for. Says whether that is worth writing down.
    pub fn note(&mut self, path: &str, now: Timestamp) -> bool {
        let known = self.paths.get(path);
        if known.is_some_and(|last| now.duration_since(*last).unsigned_abs() < GRAIN)
            || path.contains('\n')
        {
            return false;
        }
        if known.is_none() && self.paths.len() >= PATHS_MAX {
            let oldest = self.paths.iter().min_by_key(|(_, time)| **time);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                self.paths.remove(&oldest);
            }
        }
        self.paths.insert(path.into(), now);
        true
    }

    /// Returns what was asked for within a time.
    pub fn within(&self, time: Duration, now: Timestamp) -> Vec<Box<str>> {
        let paths = self.paths.iter().filter(|(_, last)| {
            let since = now.duration_since(**last).unsigned_abs();
            since < time + GRAIN
        });
        paths.map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_a_time() {
        let day = |day: i64| Timestamp::from_second(day * 86_400).unwrap();
        let mut wanted = Wanted::default();
        assert!(wanted.note("main/Packages.xz", day(1)));
        assert!(!wanted.note("main/Packages.xz", day(1)));
        assert!(wanted.note("main/Packages.xz", day(2)));
        assert!(wanted.note("contrib/Packages.xz", day(1)));
        let week = Duration::from_secs(7 * 86_400);
        assert_eq!(wanted.within(week, day(5)).len(), 2);
        assert_eq!(wanted.within(week, day(9)), ["main/Packages.xz".into()]);
        let read = Wanted::parse(&wanted.to_bytes());
        assert_eq!(read, wanted);
        assert_eq!(Wanted::parse(b"x\ty\n5\ta b\n7"), {
            let mut wanted = Wanted::default();
            wanted.note("a b", Timestamp::from_second(5).unwrap());
            wanted
        });
        for at in 0..PATHS_MAX + 5 {
            wanted.note(&format!("p{at}"), day(3));
        }
        assert_eq!(wanted.paths.len(), PATHS_MAX);
        assert!(!wanted.paths.contains_key("contrib/Packages.xz"));
    }
}
