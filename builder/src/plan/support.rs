//! What parses but cannot be built yet: said before anything is built, never ignored.

use super::error;
use crate::dockerfile::instruction::Security;
use crate::dockerfile::{Diagnostic, Instruction, InstructionKind, Span};

/// Returns an error for each part of an instruction that is not supported yet.
pub(super) fn missing(instruction: &Instruction) -> Vec<Diagnostic> {
    let mut parts: Vec<(String, Span)> = Vec::new();
    let mut add = |what: &str, span: Span| parts.push((what.to_owned(), span));
    if let InstructionKind::Run(run) = &instruction.kind {
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
    parts
        .into_iter()
        .map(|(what, span)| {
            let mut problem = error(format!("{what} is not supported yet"), span);
            problem.context = Some(instruction.span);
            problem
        })
        .collect()
}
