//! What other machines are told of a build: its steps, their layers as blobs, and its cache mounts.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use boatyard_oci::DiffId;

use super::{BuildError, Builder};
use crate::assemble::AssembleError;
use crate::cache::CacheId;
use crate::cache::shared::{Ledger, Mode, SharedBlob, Solved};
use crate::pack;
use crate::solve::{LayerBlob, Noted, StackedLayer};
use crate::stage::StageState;

/// Returns the steps that are told. Layers that have no blob yet, and shall have one, are packed.
pub(super) fn steps(builders: &[Builder<'_>]) -> Result<Vec<Solved>, BuildError> {
    let Some(builder) = builders.first() else { return Ok(Vec::new()) };
    let noted = {
        let mut noted = builder.shared.noted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *noted)
    };
    let packed = noted.iter().map(|noted| blob(builder, noted)).collect::<Vec<_>>();
    let mut steps = Vec::with_capacity(noted.len());
    for (noted, blob) in noted.into_iter().zip(packed) {
        let blob = match blob {
            Some(LayerBlob::There(blob)) => Some(*blob),
            Some(LayerBlob::Packing(packing)) => Some(packing.wait().map_err(AssembleError::from)?),
            None => None,
        };
        let encoding = pack::encoding(builder.request.form().compression);
        let blob = blob.map(|blob| SharedBlob { encoding, blob });
        let Noted { keys, record, in_image, .. } = noted;
        steps.push(Solved { keys, record, in_image, blob });
    }
    Ok(steps)
}

/// Returns the blob of a layer in the image's packing, or what makes it; nothing where it is had
/// otherwise, or not told.
fn blob(builder: &Builder<'_>, noted: &Noted) -> Option<LayerBlob> {
    let layer = noted.stack.last()?;
    if let Some(blob) = layer.in_image() {
        return Some(blob.clone());
    }
    let is_told = noted.in_image || builder.tools.tells == Some(Mode::Max);
    // What came from another machine is told as it came.
    if !is_told || builder.tools.imports.layer(layer.diff_id()).is_some() {
        return None;
    }
    let compression = builder.request.form().compression;
    Some(LayerBlob::Packing(builder.packer.pack(noted.stack.clone(), compression)))
}

/// Returns what an image's configuration says of its own steps, if it does.
pub(super) fn inline(
    builder: &Builder<'_>,
    state: &StageState,
    steps: &[Solved],
) -> Result<Option<String>, BuildError> {
    if !builder.tools.inline {
        return Ok(None);
    }
    let layers = state.stack.layers().iter();
    let own: BTreeSet<&DiffId> = layers.map(StackedLayer::diff_id).collect();
    let own = steps.iter().filter(|step| own.contains(&step.record.layer.diff_id));
    let own: Vec<Solved> = own
        .cloned()
        .map(|mut step| {
            // How long it took this time must not make the image another one.
            step.record.took_ms = 0;
            step.record.created = builder.epoch.unwrap_or(step.record.created);
            step
        })
        .collect();
    let (cache, imports) = (&builder.cache, &builder.tools.imports);
    let ledger = builder.or_warn(Ledger::of_steps(&own, Mode::Min, cache, imports, None));
    Ok(ledger.filter(|ledger| !ledger.is_empty()).map(|ledger| ledger.to_text()))
}

/// Returns the caches that steps mounted.
pub(super) fn mounts(builder: &Builder<'_>) -> Vec<CacheId> {
    let mounted = builder.shared.mounted.lock().unwrap_or_else(PoisonError::into_inner);
    mounted.values().cloned().collect()
}
