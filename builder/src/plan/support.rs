//! What parses but cannot be built, because it is not supported or not allowed: said before anything
//! is built, never ignored.

use super::{Allow, error};
use crate::dockerfile::instruction::{Network, Run, Security};
use crate::dockerfile::{Diagnostic, Instruction, InstructionKind};

/// Returns an error for each part of an instruction that cannot be built.
pub(super) fn missing(instruction: &Instruction, allow: Allow) -> Vec<Diagnostic> {
    let InstructionKind::Run(run) = &instruction.kind else { return Vec::new() };
    let mut problems = of_run(run, allow);
    problems.iter_mut().for_each(|problem| problem.context = Some(instruction.span));
    problems
}

/// Returns what of a RUN needs permission that was not given, and devices that it cannot do without.
fn of_run(run: &Run, allow: Allow) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let mut forbidden = |what: &str, permission: &str, span| {
        let mut problem =
            error(format!("{what} needs permission from whoever starts the build"), span);
        problem.hint = Some(format!("--allow {permission} gives it, if you trust this Dockerfile"));
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
