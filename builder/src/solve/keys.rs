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

/// Returns the parts of a RUN. `single_id` says that all its files are made root's.
pub(crate) fn run(
    state: &StageState,
    run: &Run,
    network: Network,
    platform: &Platform,
    single_id: bool,
) -> Parts {
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
    if single_id {
        parts.push("ids", "single");
    }
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
        // Also where that cannot be had and the host's is taken instead: to know it would take a
        // network, which a build that finds everything does not make.
        Network::Default => "default",
        Network::Host => "host",
        Network::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Key;
    use crate::dockerfile::{InstructionKind, parse};
    use crate::layer::ContentId;
    use crate::solve::StackedLayer;

    /// What a key is made of.
    struct Seen {
        state: StageState,
        text: &'static str,
        network: Network,
        platform: Platform,
    }

    fn seen() -> Seen {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let mut state = StageState::scratch(&platform);
        state.environment.set("PATH", "/bin");
        state.environment.declare("WORD", Some("one"));
        Seen { state, text: "RUN make", network: Network::Host, platform }
    }

    fn key(seen: &Seen) -> Key {
        let dockerfile = parse(&format!("FROM scratch\n{}\n", seen.text)).unwrap();
        let InstructionKind::Run(command) = &dockerfile.stages[0].instructions[0].kind else {
            unreachable!("it is a RUN")
        };
        run(&seen.state, command, seen.network, &seen.platform, false).key()
    }

    fn push(state: &mut StageState, content: &str) {
        let content: ContentId = content.repeat(32).parse().unwrap();
        let diff_id = boatyard_oci::DiffId::new(boatyard_oci::Digest::sha256(b"layer"));
        let chain = state.stack.chain_with(&diff_id);
        let layer = StackedLayer::new(diff_id, chain, None, None);
        state.stack.push(layer, content, String::new());
    }

    /// These are the format: a change here makes every record of every cache miss.
    #[test]
    fn golden_vectors() {
        let texts = ["RUN make", "RUN [\"make\"]", "RUN <<EOF\n#!/bin/x\nbody\nEOF"];
        let keys = texts.map(|text| key(&Seen { text, ..seen() }).to_string());
        let workdir = workdir(&seen().state, "/app").key().to_string();
        let expected = [
            "497bde31cc77555d483bd180d82e4494dc21be4b18355c5faa840c2749d2bacb",
            "84fcacc73b2707a8acd9e8d32070434bf8447367ea60a8e64d6d163cc88f895c",
            "25a67fd14634109ecb0c052ebe0a23557fb8d80f0c99580820f821299f3c3d96",
        ];
        assert_eq!(keys, expected);
        assert_eq!(workdir, "88caeca498fa2c31250ffc960f31cc9492cf5b0437aadf3e9fe199caf56ed1ce");
    }

    #[test]
    fn whatever_a_step_sees_counts() {
        let changes: [fn(&mut Seen); 14] = [
            |_| {},
            |seen| seen.text = "RUN make all",
            |seen| seen.text = "RUN [\"make\"]",
            |seen| seen.text = "RUN <<EOF\nmake\nEOF",
            |seen| seen.text = "RUN <<EOF\n#!/bin/x\nmake\nEOF",
            |seen| seen.network = Network::None,
            |seen| seen.platform = "linux/arm64".parse().unwrap(),
            |seen| seen.state.environment.set("PATH", "/usr/bin"),
            |seen| seen.state.environment.set("NEW", ""),
            |seen| seen.state.environment.declare("WORD", Some("two")),
            |seen| seen.state.config.config.user = "app".to_owned(),
            |seen| seen.state.config.config.working_dir = "/app".to_owned(),
            |seen| seen.state.config.config.shell = vec!["/bin/bash".to_owned()],
            |seen| push(&mut seen.state, "ab"),
        ];
        let keys: std::collections::HashSet<Key> = changes
            .iter()
            .map(|change| {
                let mut seen = seen();
                change(&mut seen);
                key(&seen)
            })
            .collect();
        assert_eq!(keys.len(), changes.len());
    }

    #[test]
    fn what_only_the_image_sees_does_not_count() {
        let mut other = seen();
        let config = &mut other.state.config.config;
        config.labels.insert("a".to_owned(), "b".to_owned());
        config.cmd = Some(vec!["x".to_owned()]);
        // An ARG without a value is no variable.
        other.state.environment.declare("EMPTY", None);
        assert_eq!(key(&other), key(&seen()));
    }
}
