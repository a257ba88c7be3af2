//! What a build solved, to be told to other machines.

use std::collections::HashMap;
use std::sync::Arc;

use boatyard_content::{Lease, Root};
use jiff::Timestamp;

use super::{Imports, Ledger, SharedBlob, SharedLayer, SharedRecord};
use crate::cache::{Cache, CacheError, Key, NamedLayer, Record};
use crate::layer::Compression;
use crate::pack::{self, Packer};
use crate::snapshot::Layers;
use crate::solve::{StackedLayer, Trees};

/// Which steps are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Those whose layers are in the image.
    #[default]
    Min,
    /// All of them.
    Max,
}

/// A step that was found, or that ran.
#[derive(Clone, Debug)]
pub struct Solved {
    /// What it is found by.
    pub keys: Vec<Key>,
    /// Its record, with the layer that this build has of it.
    pub record: Record,
    /// Its layer is in the image.
    pub in_image: bool,
    /// The layer's blob, if this build made or found it.
    pub blob: Option<SharedBlob>,
}

impl Ledger {
    /// Returns what is told of a build's steps. Steps whose layers have no blob are left out: nobody
    /// could have them.
    ///
    /// # Errors
    /// Where this machine's cache cannot be read.
    pub fn of_steps(
        steps: &[Solved],
        mode: Mode,
        cache: &Cache,
        imports: &Imports,
        used: Option<Timestamp>,
    ) -> Result<Ledger, CacheError> {
        let mut ledger = Ledger::default();
        let mut known: HashMap<Key, usize> = HashMap::new();
        for step in steps.iter().filter(|step| step.in_image || mode == Mode::Max) {
            let key = step.record.key();
            if let Some(at) = known.get(&key) {
                let shared: &mut SharedRecord = &mut ledger.records[*at];
                shared.keys.extend(&step.keys);
                shared.keys.sort();
                shared.keys.dedup();
                continue;
            }
            let Some(layer) = layer_of(step, cache, imports)? else { continue };
            ledger.merge_layers(&[layer]);
            let mut keys = step.keys.clone();
            keys.push(key);
            keys.sort();
            keys.dedup();
            known.insert(key, ledger.records.len());
            ledger.records.push(SharedRecord { keys, used, record: step.record.clone() });
        }
        Ok(ledger)
    }
}

/// Returns what is told of all that a machine's cache has. A layer that is only unpacked is packed.
///
/// # Errors
/// Where the cache cannot be read.
pub fn of_machine(
    root: &Arc<Root>,
    lease: &Lease,
    layers: &Layers,
    threads: usize,
    now: Timestamp,
) -> Result<Ledger, CacheError> {
    let (cache, imports) = (Cache::open(root), Arc::new(Imports::default()));
    let trees = Trees::new(Arc::clone(root), layers.clone(), Arc::clone(&imports), threads);
    let packer =
        Packer::new(Arc::clone(root), lease.clone(), Arc::new(trees), cache.clone(), threads);
    let mut ledger = Ledger::default();
    for kept in cache.usage()?.kept {
        for kept in kept.records {
            let named = cache.layers(&kept.record.layer.content)?;
            let mut told = Vec::new();
            for NamedLayer { diff_id, .. } in named {
                let mut record = kept.record.clone();
                record.layer.diff_id = diff_id.clone();
                let blob = if cache.encodings(&diff_id)?.is_empty() {
                    let chain_id = record.layer.chain_id.clone();
                    let layer = StackedLayer::new(diff_id, chain_id, None, None);
                    // Whatever is neither blob nor tree is not told.
                    let Ok(blob) = packer.pack(vec![layer], Compression::default()).wait() else {
                        continue;
                    };
                    Some(SharedBlob { encoding: pack::encoding(Compression::default()), blob })
                } else {
                    None
                };
                told.push(Solved { keys: kept.keys(), record, in_image: true, blob });
            }
            let used = Timestamp::try_from(kept.used).unwrap_or(now).min(now);
            told.truncate(1);
            ledger.merge(&Ledger::of_steps(&told, Mode::Max, &cache, &imports, Some(used))?);
        }
    }
    Ok(ledger)
}

/// Returns the layer of a step, if it has a blob and it is known which of its times were chosen.
fn layer_of(
    step: &Solved,
    cache: &Cache,
    imports: &Imports,
) -> Result<Option<SharedLayer>, CacheError> {
    let layer = &step.record.layer;
    let named = cache.layers(&layer.content)?;
    let named = named.into_iter().find(|named| named.diff_id == layer.diff_id);
    let imported = imports.layer(&layer.diff_id);
    let (times, chosen) = match (named, imported) {
        (Some(named), _) => (named.times, named.chosen),
        (None, Some(imported)) => (imported.times, imported.chosen.clone()),
        (None, None) => return Ok(None),
    };
    let mut blobs: Vec<SharedBlob> = step.blob.clone().into_iter().collect();
    if blobs.is_empty() {
        blobs.extend(imported.into_iter().flat_map(|imported| imported.blobs.iter().cloned()));
    }
    if blobs.is_empty() {
        let here = cache.encodings(&layer.diff_id)?.into_iter();
        blobs.extend(here.take(1).map(|(encoding, blob)| SharedBlob { encoding, blob }));
    }
    let diff_id = layer.diff_id.clone();
    Ok((!blobs.is_empty()).then_some(SharedLayer { diff_id, times, chosen, blobs }))
}
