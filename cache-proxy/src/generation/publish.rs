//! Showing a generation, and giving up those that are too old.

use std::collections::BTreeSet;
use std::sync::Arc;

use boatyard_content::StoreError;
use boatyard_content::generations::Published;
use boatyard_content::local::write_unsynced;
use jiff::Timestamp;

use super::held::{Candidate, Generation};
use super::set::{ADDRESS, DERIVED, FIRST_KIND, Set};

impl Set {
    /// Shows a complete candidate. `false` where that has to be tried again.
    pub(super) fn publish(
        &self,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (after, last) = {
            let state = self.state();
            (state.loaded, state.shown().map(|shown| shown.modified))
        };
        // Times have whole seconds in HTTP, and no two generations may look alike.
        let said = candidate.modified.or(candidate.listing.date).unwrap_or(now);
        let next = last.map(|last| last.as_second() + 1);
        let second = next.map_or(said.as_second(), |next| next.max(said.as_second()));
        let modified = Timestamp::from_second(second).unwrap_or(now);
        let wanted = self.state().wanted.within(self.options.wanted_for, now);
        let becomes = Generation::new(0, candidate, modified);
        let listed =
            self.listed_of(&candidate.listing, &wanted).into_iter().map(|(_, child)| child);
        let further = wanted.iter().filter(|path| self.format.index_of(path).is_some());
        let children = listed.chain(further.filter_map(|path| self.look(&becomes, path)));
        let mut blobs: Vec<_> = candidate.roots.iter().map(|root| root.blob.clone()).collect();
        for child in children {
            // One that was held back too long lacks some.
            if self.root.store().stat_blocking(&child.digest)?.is_some() {
                blobs.push(child.digest);
            }
        }
        let note = Generation::note(&candidate.roots, modified);
        self.write_address()?;
        let published = self.root.generations().publish(&self.name, after, &note, &blobs)?;
        let Published::Newest(number) = published else {
            self.reload()?;
            return Ok(false);
        };
        {
            let mut state = self.state();
            state.held.push(Arc::new(Generation::new(number, candidate, modified)));
            state.loaded = Some(number);
            (state.pending, state.confirmed) = (None, Some(now));
            state.shown_since = Some(now);
        }
        self.prune(now)?;
        Ok(true)
    }

    /// Loads the generations that other processes published. Blocking.
    pub(super) fn reload(&self) -> Result<(), StoreError> {
        let generations = self.root.generations();
        let newest = generations.newest(&self.name)?;
        if newest.is_none() || newest == self.state().loaded {
            return Ok(());
        }
        let known: Vec<_> = self.state().held.iter().map(Arc::clone).collect();
        let mut held = Vec::new();
        let numbers = generations.numbers(&self.name)?;
        for number in numbers.into_iter().filter(|number| Some(*number) <= newest) {
            if let Some(known) = known.iter().find(|known| known.number == number) {
                held.push(Arc::clone(known));
            } else if let Some(loaded) =
                Generation::load(&self.root, &self.name, number, &*self.format)?
            {
                held.push(Arc::new(loaded));
            }
        }
        let mut state = self.state();
        (state.held, state.loaded) = (held, newest);
        Ok(())
    }

    /// Writes down where the set is, for the next start.
    fn write_address(&self) -> Result<(), StoreError> {
        let path = self.root.generations().directory(&self.name).join(ADDRESS);
        let text = match self.format.kind() {
            FIRST_KIND => format!("{}\n", self.address),
            kind => format!("{}\n{kind}\n", self.address),
        };
        write_unsynced(&path, text.as_bytes())
    }

    /// Gives up generations that nobody asks for any more, and what was made of their children.
    fn prune(&self, now: Timestamp) -> Result<(), StoreError> {
        let given_up: Vec<u64> = {
            let mut state = self.state();
            let in_use = state.bindings.in_use(now);
            let older = state.held.len().saturating_sub(self.options.older_max + 1);
            let given_up: BTreeSet<u64> = state.held[..older]
                .iter()
                .map(|held| held.number)
                .filter(|number| !in_use.contains(number))
                .collect();
            state.held.retain(|held| !given_up.contains(&held.number));
            given_up.into_iter().collect()
        };
        for number in given_up {
            self.root.generations().remove(&self.name, number)?;
        }
        let held: Vec<_> = self.state().held.iter().map(Arc::clone).collect();
        let children = held.iter().flat_map(|held| held.listing.children.values());
        let roots = held.iter().flat_map(|held| held.roots.iter().map(|root| root.blob.hex()));
        let listed: BTreeSet<&str> =
            children.map(|child| child.digest.hex()).chain(roots).collect();
        let derived = self.root.generations().directory(&self.name).join(DERIVED);
        for file in fs_err::read_dir(derived).into_iter().flatten().flatten() {
            if !file.file_name().to_str().is_some_and(|name| listed.contains(name)) {
                let _ = fs_err::remove_file(file.path());
            }
        }
        Ok(())
    }
}
