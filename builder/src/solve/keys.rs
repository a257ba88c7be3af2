//! What decides whether a step has run before.
//!
//! Parts of a key are what the step sees. What is no part: limits, further hosts, proxy settings
//! that no ARG declares, and `SOURCE_DATE_EPOCH` unless an ARG declares it: they change how a step
//! runs, and not what it is to make.

use crate::cache::Parts;
use crate::dockerfile::instruction::{Run, RunCommand, Security};
use crate::execute::DEFAULT_HOSTNAME;
use crate::execute::Network;
use crate::stage::StageState;
use boatyard_oci::Platform;

/// Returns the parts of a RUN.
pub(crate) fn run(state: &StageState, run: &Run, network: Network, platform: &Platform) -> Parts {
    let mut parts = below("RUN", state);
    command(&mut parts, state, &run.command);
    for (name, value) in state.environment.variables() {
        let scope = if state.environment.is_argument(name) { "arg" } else { "env" };
        parts.push(format!("{scope} {name}"), value);
    }
    parts.push("user", &state.config.config.user);
    parts.push("directory", state.directory());
    parts.push("platform", platform.to_string());
    parts.push("hostname", DEFAULT_HOSTNAME);
    parts.push("network", network_name(network));
    let security = match run.security.as_ref().map(|security| security.value) {
        Some(Security::Insecure) => "insecure",
        Some(Security::Sandbox) | None => "sandbox",
    };
    parts.push("security", security);
    parts
}

/// Returns the parts of a WORKDIR that makes a layer.
pub(crate) fn workdir(state: &StageState, path: &str) -> Parts {
    let mut parts = below("WORKDIR", state);
    parts.push("text", path);
    parts.push("user", &state.config.config.user);
    parts
}

/// Returns the parts of an instruction that sees the stack below.
pub(crate) fn below(kind: &str, state: &StageState) -> Parts {
    let mut parts = Parts::new(kind);
    parts.push("parent", state.stack.id().to_string());
    parts
}

fn command(parts: &mut Parts, state: &StageState, command: &RunCommand) {
    match command {
        RunCommand::Shell(text) => {
            parts.push("command", text);
            parts.push("shell", list(&state.shell()));
        }
        RunCommand::Exec(args) => parts.push("command", list(args)),
        RunCommand::Script { name, content } => {
            parts.push("command", content);
            parts.push("script", name);
        }
    }
}

/// Writes a list so that no two lists are one text.
fn list(words: &[String]) -> String {
    serde_json::to_string(words).expect("texts always serialise")
}

fn network_name(network: Network) -> &'static str {
    match network {
        Network::Host => "host",
        Network::None => "none",
    }
}
