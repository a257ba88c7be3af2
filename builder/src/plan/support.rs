//! What parses but cannot be built: because it is not supported, or not allowed. It is said before
//! anything is built, never ignored.

use super::{Allow, error};
use crate::dockerfile::instruction::{CopySource, Network, Run, Security};
use crate::dockerfile::{Diagnostic, Instruction, InstructionKind, Span};

/// Returns an error for each part of an instruction that cannot be built.
pub(super) fn missing(instruction: &Instruction, allow: Allow) -> Vec<Diagnostic> {
    if let InstructionKind::Run(run) = &instruction.kind {
        let mut problems = of_run(run, allow);
        problems.iter_mut().for_each(|problem| problem.context = Some(instruction.span));
        return problems;
    }
    let mut parts: Vec<(String, Span)> = Vec::new();
    let mut add = |what: &str, span: Span| parts.push((what.to_owned(), span));
    match &instruction.kind {
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

/// Returns what of a RUN takes leave that was not given, and devices that it cannot do without.
fn of_run(run: &Run, allow: Allow) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let mut forbidden = |what: &str, leave: &str, span| {
        let mut problem = error(format!("{what} takes leave of whoever starts the build"), span);
        problem.hint = Some(format!("--allow {leave} gives it, if you trust this Dockerfile"));
        problems.push(problem);
    };
    let security = run.security.as_ref().filter(|given| given.value == Security::Insecure);
    if let Some(security) = security.filter(|_| !allow.insecure) {
        forbidden("RUN --security=insecure", "security.insecure", security.span);
    }
    let network = run.network.as_ref().filter(|given| given.value == Network::Host);
    if let Some(network) = network.filter(|_| !allow.host_network) {
        forbidden("RUN --network=host", "network.host", network.span);
    }
    for device in run.devices.iter().filter(|device| device.value.required) {
        let text = format!("there is no device `{}` for build steps", device.value.name);
        let mut problem = error(text, device.span);
        problem.note = Some("devices of the container device interface are not supported".into());
        problem.hint = Some("without `required` the step runs without the device".to_owned());
        problems.push(problem);
    }
    problems
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git@", "ssh://", "git://"]
        .iter()
        .any(|start| source.starts_with(start))
}
