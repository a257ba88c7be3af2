//! What the times of a layer's entries are, and what becomes of them under `SOURCE_DATE_EPOCH`.
//!
//! A time is *chosen* where a step set it: `touch -d`, an unpacked package. It is the *clock's* where
//! it lies within the step's own run, where it came along with a file of an earlier step that this one
//! changed otherwise (`chmod`), or where it is a context's file's, whose checkout set it. Chosen
//! times are part of the content, the clock's are not. As made, both stay. Under an epoch the clock's
//! times are the epoch, and chosen ones are the epoch at most.
//!
//! So a layer's bytes follow from its content ID and the epoch, whichever build made it and when;
//! and a layer that was made under one policy can be written again under another, without its step,
//! as long as it is known which of its times were chosen: that is what [`Chosen`] notes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Which times of modification are part of a layer's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentTimes {
    /// All of them.
    All,
    /// None: a build context's files have whatever time their checkout had.
    None,
    /// Those outside of the step's own run, in seconds: `touch -d` counts, "now" does not.
    ///
    /// The kernel stamps files with a clock that lags by up to a tick: let the run begin with the
    /// second before.
    Outside(RangeInclusive<i64>),
    /// Those of a layer that was written before.
    Noted(Chosen),
}

impl ContentTimes {
    /// Returns the time that counts of an entry: the `ordinal`th of its layer, from 0.
    pub(crate) fn of(&self, ordinal: u64, seconds: i64) -> Option<i64> {
        match self {
            Self::All => Some(seconds),
            Self::None => None,
            Self::Outside(run) => (!run.contains(&seconds)).then_some(seconds),
            Self::Noted(chosen) => chosen.of(ordinal, seconds),
        }
    }
}

/// Which times of a layer its step chose, seen from the layer as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chosen {
    /// None of them.
    None,
    /// Those outside of the step's run: the layer is as its step made it.
    Outside {
        /// The run's first second.
        first: i64,
        /// Its last one.
        last: i64,
        /// Entries, counted from 0, whose times the step did not choose all the same: they came
        /// along from the layers below.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        inherited: BTreeSet<u64>,
    },
    /// Those that are not `clock`: the clock's times were set to it.
    Except {
        /// What the clock's times are.
        clock: i64,
        /// The chosen times of these entries, counted from 0, which their own no longer tell.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        late: BTreeMap<u64, i64>,
    },
}

impl Chosen {
    fn of(&self, ordinal: u64, seconds: i64) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Outside { first, last, inherited } => {
                let is_clock = (*first..=*last).contains(&seconds) || inherited.contains(&ordinal);
                (!is_clock).then_some(seconds)
            }
            Self::Except { clock, late } => {
                late.get(&ordinal).copied().or_else(|| (seconds != *clock).then_some(seconds))
            }
        }
    }
}

/// What times become when they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restamp {
    /// What the clock's times become.
    clock: Option<i64>,
    /// What chosen times are at most.
    chosen_max: Option<i64>,
}

impl Restamp {
    /// All stay.
    pub const AS_MADE: Restamp = Restamp { clock: None, chosen_max: None };

    /// None is later than the epoch, and the clock's are the epoch.
    pub fn epoch(seconds: i64) -> Restamp {
        Restamp { clock: Some(seconds), chosen_max: Some(seconds) }
    }

    /// The clock's are those of a step that ran at one moment.
    pub fn made_at(seconds: i64) -> Restamp {
        Restamp { clock: Some(seconds), chosen_max: None }
    }

    /// Says whether no time changes.
    pub(crate) fn is_as_made(self) -> bool {
        self == Self::AS_MADE
    }

    /// Returns what a time becomes; `chosen` is the one that was chosen, if it was.
    pub(crate) fn of(self, seconds: i64, chosen: Option<i64>) -> i64 {
        match chosen {
            Some(chosen) => self.chosen_max.map_or(chosen, |most| chosen.min(most)),
            None => self.clock.unwrap_or(seconds),
        }
    }
}

/// Notes, entry by entry, which times were chosen.
#[derive(Debug)]
pub(crate) struct Notes {
    restamp: Restamp,
    late: BTreeMap<u64, i64>,
    inherited: BTreeSet<u64>,
}

impl Notes {
    pub(crate) fn new(restamp: Restamp) -> Notes {
        Notes { restamp, late: BTreeMap::new(), inherited: BTreeSet::new() }
    }

    /// Notes what was chosen of an entry, where the time that it gets does not tell it.
    pub(crate) fn add(&mut self, ordinal: u64, chosen: Option<i64>, stamped: i64) {
        let Some(chosen) = chosen else { return };
        let Some(clock) = self.restamp.clock else { return };
        if stamped != chosen || chosen == clock {
            self.late.insert(ordinal, chosen);
        }
    }

    /// Notes that the time of an entry came along from the layers below.
    pub(crate) fn inherit(&mut self, ordinal: u64) {
        self.inherited.insert(ordinal);
    }

    pub(crate) fn finish(self, times: ContentTimes) -> Chosen {
        let inherited = self.inherited;
        let chosen = match times {
            ContentTimes::None => Chosen::None,
            // An empty run: nothing is the clock's.
            ContentTimes::All => Chosen::Outside { first: 1, last: 0, inherited },
            ContentTimes::Outside(run) => {
                Chosen::Outside { first: *run.start(), last: *run.end(), inherited }
            }
            ContentTimes::Noted(chosen) => chosen,
        };
        match (self.restamp.clock, chosen) {
            (Some(clock), Chosen::Outside { .. } | Chosen::Except { .. }) => {
                Chosen::Except { clock, late: self.late }
            }
            (_, chosen) => chosen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes times under a policy; returns what they become, and what is noted.
    fn write(times: ContentTimes, restamp: Restamp, seconds: &[i64]) -> (Vec<i64>, Chosen) {
        let mut notes = Notes::new(restamp);
        let stamped = (0..).zip(seconds).map(|(ordinal, seconds)| {
            let chosen = times.of(ordinal, *seconds);
            let stamped = restamp.of(*seconds, chosen);
            notes.add(ordinal, chosen, stamped);
            stamped
        });
        let stamped = stamped.collect();
        (stamped, notes.finish(times))
    }

    #[test]
    fn whatever_way_a_layer_comes_to_an_epoch_its_times_are_the_same() {
        // The run was from 1000 to 1010; these are the clock's, old, late, and the epochs themselves.
        let raw = [1005, 7, 5000, 400, 600, 1000, 1011];
        let as_made = write(ContentTimes::Outside(1000..=1010), Restamp::AS_MADE, &raw);
        assert_eq!(as_made.0, raw);
        let from = |(times, chosen): &(Vec<i64>, Chosen), restamp| {
            write(ContentTimes::Noted(chosen.clone()), restamp, times)
        };
        for first in [400, 600, 1005, 9000] {
            let clean = write(ContentTimes::Outside(1000..=1010), Restamp::epoch(first), &raw);
            assert_eq!(clean, from(&as_made, Restamp::epoch(first)), "{first}");
            for second in [400, 600, 1005, 9000] {
                let expected =
                    write(ContentTimes::Outside(1000..=1010), Restamp::epoch(second), &raw);
                assert_eq!(from(&clean, Restamp::epoch(second)), expected, "{first} {second}");
            }
            let made_again = from(&clean, Restamp::made_at(1003));
            assert_eq!(made_again.0, [1003, 7, 5000, 400, 600, 1003, 1011], "{first}");
            assert_eq!(from(&made_again, Restamp::epoch(600)).0, [600, 7, 600, 400, 600, 600, 600]);
        }
    }

    #[test]
    fn what_nobody_chose_is_the_epoch() {
        let (times, chosen) = write(ContentTimes::None, Restamp::epoch(500), &[1, 500, 900]);
        assert_eq!((times, chosen), (vec![500, 500, 500], Chosen::None));
    }
}
