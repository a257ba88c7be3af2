//! What parses but cannot be built yet: said before anything is built, never ignored.

use super::error;
use crate::dockerfile::instruction::{CopySource, Security};
use crate::dockerfile::{Diagnostic, Instruction, InstructionKind, Span};

/// Returns an error for each part of an instruction that is not supported yet.
pub(super) fn missing(instruction: &Instruction) -> Vec<Diagnostic> {
    let mut parts: Vec<(String, Span)> = Vec::new();
    let mut add = |what: &str, span: Span| parts.push((what.to_owned(), span));
    match &instruction.kind {
        InstructionKind::Run(run) => {
            for mount in &run.mounts {
                add("RUN --mount", mount.span);
            }
            for device in &run.devices {
                add("RUN --device", device.span);
            }
            if let Some(security) =
                run.security.as_ref().filter(|security| security.value == Security::Insecure)
            {
                add("RUN --security=insecure", security.span);
            }
        }
        InstructionKind::Copy(copy) => {
            if let Some(parents) = copy.parents.as_ref().filter(|parents| parents.value) {
                add("COPY --parents", parents.span);
            }
            for exclude in &copy.exclude {
                add("COPY --exclude", exclude.span);
            }
        }
        InstructionKind::Add(add_) => {
            if let Some(keep) = &add_.keep_git_dir {
                add("ADD --keep-git-dir", keep.span);
            }
            if let Some(checksum) = &add_.checksum {
                add("ADD --checksum", checksum.span);
            }
            for exclude in &add_.exclude {
                add("ADD --exclude", exclude.span);
            }
            for source in &add_.sources {
                if let CopySource::Path(path) = source
                    && is_remote(&path.value)
                {
                    add("ADD of a URL or a Git repository", path.span);
                }
            }
        }
        _ => {}
    }
    parts
        .into_iter()
        .map(|(what, span)| {
            let mut problem = error(format!("{what} is not supported yet"), span);
            problem.context = Some(instruction.span);
            problem
        })
        .collect()
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git@", "ssh://", "git://"]
        .iter()
        .any(|start| source.starts_with(start))
}
