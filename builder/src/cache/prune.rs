//! Removing from the cache: what is chosen, and in which order it goes.
//!
//! Chosen is what was used least recently. A step counts as used when one above it was, and goes after
//! it, for nothing finds a step whose parent is gone. What a running process relies on is
//! never chosen; nor is a layer that an image has as well, unless all is asked for: that frees
//! nothing, and makes the next build of that image slow.
//!
//! The order of removal, which leaves no record that could be believed and no blob that nobody knows:
//!
//! 1. the encodings, under the exclusive locks of their shards, and only where no lease names the
//!    blob then. A layer of which one was leased meanwhile stays;
//! 2. the unpacked trees, under the exclusive lock of the layers, likewise;
//! 3. the records and what else belongs to the layer;
//! 4. the blobs, by [`boatyard_content::gc`], the only code that deletes one. A blob that is younger
//!    than the grace period stays for now: a client may have been told of it. Its name is kept in
//!    `ROOT/cache/given-up`, and the next pruning asks again.
//!
//! After a crash in between, blobs without a holder are garbage like any other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use boatyard_content::encodings::Encoding;
use boatyard_content::gc::{GcError, GcOptions, GcReport, collect_only};
use boatyard_content::local::write_unsynced;
use boatyard_oci::Digest;

use super::usage::{Kept, Layer, Usage, What, is_older};
use super::{Cache, CacheError, Doing as _, Lookup, Storing as _, fetched, files, near, step_lock};
use crate::snapshot::Layers;

/// What may go. By default that is all whose removal frees something.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Also layers that an image has as well.
    pub all: bool,
    /// Only what was not used for so long.
    pub older_than: Option<Duration>,
    /// Only until the cache is no larger.
    pub keep_bytes: Option<u64>,
    /// Only the caches that steps mount.
    pub only_mounts: bool,
}

/// What a pruning did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// What went, in the order in which it was chosen.
    pub removed: Vec<Kept>,
    /// How many bytes that freed.
    pub freed_bytes: u64,
    /// How many bytes of blobs stay only for the grace period.
    pub waiting_bytes: u64,
    /// How many bytes the cache has now.
    pub left_bytes: u64,
}

impl Cache {
    /// Removes what may go.
    ///
    /// # Errors
    /// Where something cannot be listed or removed; what was removed by then is gone.
    pub fn prune(
        &self,
        layers: &[Layers],
        rules: &Rules,
        gc: &GcOptions,
    ) -> Result<Pruned, CacheError> {
        let usage = self.usage()?;
        let chosen = choose(&usage, rules, SystemTime::now());
        self.remove(layers, usage, &chosen, rules.all, gc)
    }

    /// Removes what was chosen.
    pub(super) fn remove(
        &self,
        layers: &[Layers],
        usage: Usage,
        chosen: &[usize],
        all: bool,
        gc: &GcOptions,
    ) -> Result<Pruned, CacheError> {
        let total = usage.bytes();
        let Usage { kept, orphans } = usage;
        let mut kept: Vec<Option<Kept>> = kept.into_iter().map(Some).collect();
        let chosen = chosen.iter().filter_map(|at| kept[*at].take());
        let mut chosen: Vec<Removal> = chosen.map(|kept| Removal::of(kept, all)).collect();
        if gc.dry_run {
            let removed: Vec<Kept> = chosen.into_iter().map(|removal| removal.kept).collect();
            let freed_bytes = removed.iter().map(|kept| kept.bytes).sum();
            let left_bytes = total.saturating_sub(freed_bytes);
            return Ok(Pruned { removed, freed_bytes, waiting_bytes: 0, left_bytes });
        }
        let mut given_up = self.remove_encodings(&mut chosen)?;
        let mut freed_bytes = self.remove_trees(layers, &mut chosen)?;
        freed_bytes += self.remove_mounts(&mut chosen)?;
        freed_bytes += remove_fetched(&mut chosen)?;
        for removal in &chosen {
            freed_bytes += self.remove_files(removal)?;
        }
        for path in orphans {
            files::remove(&path).doing("remove a file")?;
        }
        self.tidy()?;
        let forgotten: u64 = chosen.iter().map(|removal| removal.kept.bytes).sum();
        given_up.extend(self.given_up()?);
        let (freed, waiting_bytes) = self.collect(given_up, gc)?;
        Ok(Pruned {
            removed: chosen.into_iter().map(|removal| removal.kept).collect(),
            freed_bytes: freed_bytes + freed,
            waiting_bytes,
            left_bytes: total.saturating_sub(forgotten),
        })
    }

    /// Gives up the blobs of what was chosen, and returns them. What somebody relies on by now is
    /// chosen no more.
    fn remove_encodings(&self, chosen: &mut Vec<Removal>) -> Result<BTreeSet<Digest>, CacheError> {
        let doomed: Vec<Encoding> =
            chosen.iter().flat_map(|removal| &removal.encodings).cloned().collect();
        let removed = self.root.encodings().remove(&doomed).storing("give up blobs")?;
        let gone: HashSet<&Encoding> = removed.iter().collect();
        chosen.retain(|removal| removal.encodings.iter().all(|encoding| gone.contains(encoding)));
        Ok(removed.iter().map(|encoding| encoding.blob.clone()).collect())
    }

    /// Removes the unpacked trees of what was chosen. What somebody relies on by now is chosen no
    /// more. Returns the bytes of those that were the only form of a layer.
    fn remove_trees(
        &self,
        layers: &[Layers],
        chosen: &mut Vec<Removal>,
    ) -> Result<u64, CacheError> {
        let doomed: HashSet<String> =
            chosen.iter().flat_map(|removal| &removal.trees).cloned().collect();
        if doomed.is_empty() {
            return Ok(0);
        }
        let is_doomed = |name: &str, _| doomed.contains(name);
        for layers in layers {
            layers
                .sweep(|| self.root.held_layers(), is_doomed, false)
                .map_err(|source| CacheError::Layers { doing: "remove unpacked layers", source })?;
        }
        let directory = self.root.path().join("layers");
        let is_there = |tree: &String| directory.join(tree).exists();
        chosen.retain(|removal| !removal.only_trees().any(is_there));
        Ok(chosen.iter().map(Removal::tree_bytes).sum())
    }

    /// Removes the caches of steps that were chosen. What a step uses by now is chosen no more.
    /// Returns their bytes.
    fn remove_mounts(&self, chosen: &mut Vec<Removal>) -> Result<u64, CacheError> {
        let mounts = self.mounts();
        let (mut freed, mut busy) = (0, HashSet::new());
        for kept in chosen.iter().map(|removal| &removal.kept) {
            let What::Mount(name) = &kept.what else { continue };
            match mounts.remove(name)? {
                true => freed += kept.bytes,
                false => drop(busy.insert(name.clone())),
            }
        }
        chosen.retain(|removal| match &removal.kept.what {
            What::Mount(name) => !busy.contains(name),
            _ => true,
        });
        Ok(freed)
    }

    /// Removes the files of a thing; a record that was replaced meanwhile stays.
    fn remove_files(&self, removal: &Removal) -> Result<u64, CacheError> {
        let mut freed = 0;
        let content = removal.kept.records.first().map(|kept| kept.record.layer.content);
        for (path, size) in &removal.files {
            let replaced = path.starts_with(self.records())
                && matches!(self.read(path)?, Lookup::Hit(record)
                    if Some(record.layer.content) != content);
            if !replaced && files::remove(path).doing("remove a file")? {
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Removes what no record needs: names of places, locks and files that killed processes left.
    fn tidy(&self) -> Result<(), CacheError> {
        let is_there = |key: &super::Key| self.record_path(key).exists();
        near::sweep(&self.directory.join("near"), is_there).doing("tidy the places")?;
        fetched::sweep(&self.directory).doing("tidy what was fetched")?;
        step_lock::sweep(&self.root.layout().step_locks()).doing("tidy the locks")?;
        self.mounts().tidy()?;
        let mounts = self.mounts().directory;
        files::remove_left(&self.directory, &mounts, SystemTime::now()).doing("tidy the files")
    }

    fn collect(
        &self,
        given_up: BTreeSet<Digest>,
        gc: &GcOptions,
    ) -> Result<(u64, u64), CacheError> {
        let blobs: Vec<Digest> = given_up.into_iter().collect();
        if blobs.is_empty() {
            return Ok((0, 0));
        }
        let report = match collect_only(&self.root, &blobs, gc) {
            // It may free them, or find them too young: the next pruning asks again.
            Err(GcError::Running) => GcReport::default(),
            report => {
                report.map_err(|source| CacheError::Collect { doing: "free blobs", source })?
            }
        };
        let held = self.held()?;
        let mut waiting = BTreeMap::new();
        for digest in blobs.into_iter().filter(|digest| !held.contains(digest)) {
            let blob = self.root.store().stat_blocking(&digest).storing("look for a blob")?;
            waiting.extend(blob.map(|blob| (digest, blob.size)));
        }
        let lines: String = waiting.keys().map(|digest| format!("{digest}\n")).collect();
        let path = self.given_up_path();
        if lines.is_empty() {
            files::remove(&path).doing("note what is given up")?;
        } else {
            write_unsynced(&path, lines.as_bytes()).storing("note what is given up")?;
        }
        Ok((report.freed_bytes(), waiting.values().sum()))
    }

    /// Returns the blobs that were given up before and were too young then.
    pub(super) fn given_up(&self) -> Result<BTreeSet<Digest>, CacheError> {
        let bytes = files::read(&self.given_up_path()).doing("read what is given up")?;
        let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn held(&self) -> Result<HashSet<Digest>, CacheError> {
        boatyard_content::gc::held(&self.root)
            .map_err(|source| CacheError::Collect { doing: "tell what is held", source })
    }

    fn given_up_path(&self) -> PathBuf {
        self.directory.join("given-up")
    }
}

/// Chooses what goes, in the order in which it goes.
pub(super) fn choose(usage: &Usage, rules: &Rules, now: SystemTime) -> Vec<usize> {
    let mut order: Vec<usize> = (0..usage.kept.len()).collect();
    order.sort_by_key(|at| priority(&usage.kept[*at]));
    let mut left = usage.bytes();
    let mut chosen = Vec::new();
    for at in order {
        let kept = &usage.kept[at];
        if kept.is_in_use || !(rules.all || kept.frees()) {
            continue;
        }
        if rules.only_mounts && !matches!(kept.what, What::Mount(_)) {
            continue;
        }
        let is_young = rules.older_than.is_some_and(|age| !is_older(kept.used, age, now));
        let is_small = rules.keep_bytes.is_some_and(|keep| left <= keep);
        if kept.is_usable && (is_young || is_small) {
            continue;
        }
        left = left.saturating_sub(kept.bytes);
        chosen.push(at);
    }
    chosen
}

/// Removes what was fetched. What somebody uses by now is chosen no more.
fn remove_fetched(chosen: &mut Vec<Removal>) -> Result<u64, CacheError> {
    let (mut freed, mut busy) = (0, HashSet::new());
    for (directory, bytes) in chosen.iter().filter_map(|it| it.kept.holds.directory.as_ref()) {
        match fetched::remove(directory).doing("remove what was fetched")? {
            true => freed += bytes,
            false => drop(busy.insert(directory.clone())),
        }
    }
    let is_busy = |removal: &Removal| {
        removal.kept.holds.directory.as_ref().is_some_and(|(path, _)| busy.contains(path))
    };
    chosen.retain(|removal| !is_busy(removal));
    Ok(freed)
}

/// What goes first: what nobody can use, then by the last use, then what lies higher. Tables of base
/// images are small and often used, which nobody notes: they come last.
fn priority(kept: &Kept) -> (bool, bool, SystemTime, Reverse<usize>) {
    let height = kept.records.iter().map(|kept| kept.record.ground.steps.len()).max();
    let is_contents = matches!(kept.what, What::Contents(_));
    (kept.is_usable, is_contents, kept.used, Reverse(height.unwrap_or_default()))
}

/// A thing that goes, and all that goes with it.
struct Removal {
    kept: Kept,
    encodings: Vec<Encoding>,
    trees: Vec<String>,
    files: Vec<(PathBuf, u64)>,
}

impl Removal {
    /// Decides what goes with a thing. Of a layer that an image has too, only the other packings go,
    /// unless all is asked for.
    fn of(kept: Kept, all: bool) -> Removal {
        let layers = &kept.holds.layers;
        let own = layers.iter().flat_map(|layer| &layer.own).map(|(encoding, _)| encoding);
        if kept.is_shared && !all {
            let encodings = own.cloned().collect();
            return Removal { kept, encodings, trees: Vec::new(), files: Vec::new() };
        }
        let shared = layers.iter().flat_map(|layer| &layer.shared);
        let encodings = own.chain(shared).cloned().collect();
        // The image's layer may be in use as a base: then its tree goes by its age.
        let gone = layers.iter().filter(|layer| layer.shared.is_empty());
        let trees = gone.flat_map(|layer| &layer.trees).cloned().collect();
        let files = kept.holds.files.clone();
        Removal { kept, encodings, trees, files }
    }

    /// Returns the trees that go and are the only form of a layer.
    fn only_trees(&self) -> impl Iterator<Item = &String> {
        let only = self.kept.holds.layers.iter().flat_map(Layer::only_trees);
        only.filter(|tree| self.trees.contains(tree))
    }

    fn tree_bytes(&self) -> u64 {
        if self.trees.is_empty() { 0 } else { self.kept.tree_bytes() }
    }
}
