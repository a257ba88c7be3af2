//! Provenance: SLSA's predicate, version 1, filled as BuildKit does.
//!
//! The parameters have the names that BuildKit's definition of its build type gives them, because
//! that is what readers look for. With `SOURCE_DATE_EPOCH` nothing in it depends on when, or where, a
//! build ran, or which steps an earlier build had done.

use boatyard_oci::{Digest, ImageName, Platform};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::statement::purl;
use super::witness::StepSeen;
use super::{Attest, Detail};
use crate::build::BuildRequest;
use crate::plan::PREDEFINED;

/// The type of the predicate.
pub(crate) const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// Whose parameters these are.
const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILDER: &str = "urn:boatyard:builder";

/// What is known of a build for one platform.
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) bases: Vec<(ImageName, Platform, Digest)>,
    pub(crate) steps: Vec<StepSeen>,
    pub(crate) began: Timestamp,
    pub(crate) finished: Timestamp,
    pub(crate) epoch: Option<Timestamp>,
}

/// Returns the predicate.
pub(crate) fn predicate(facts: &Facts<'_>, detail: Detail) -> Value {
    let attest = &facts.request.attest;
    let mut build = json!({
        "buildType": BUILD_TYPE,
        "externalParameters": external(facts, detail),
        "internalParameters": { "builderPlatform": facts.request.plan.build_platform.to_string() },
        "resolvedDependencies": dependencies(facts),
    });
    if detail == Detail::Max {
        build["internalParameters"]["buildConfig"] = json!({ "steps": steps(facts) });
    }
    json!({
        "buildDefinition": build,
        "runDetails": {
            "builder": {
                "id": attest.builder_id.as_deref().unwrap_or(BUILDER),
                "version": { "boatyard": env!("CARGO_PKG_VERSION") },
            },
            "metadata": metadata(facts, detail),
        },
    })
}

fn external(facts: &Facts<'_>, detail: Detail) -> Value {
    let BuildRequest { attest, dockerfile_path, plan, .. } = facts.request;
    let mut source = json!({ "path": dockerfile_path });
    if let Some(context) = &attest.context {
        source["uri"] = context.clone().into();
        source["digest"] = digest_of(attest, context);
    }
    let mut request = json!({ "frontend": "dockerfile.v0" });
    if attest.context.is_none() {
        request["locals"] = json!([{ "name": "context" }, { "name": "dockerfile" }]);
    }
    if detail == Detail::Max {
        let mut args = Map::new();
        for (name, value) in &plan.build_args {
            // What is in an address of a proxy is nobody's business.
            if !PREDEFINED.contains(&name.as_str()) {
                args.insert(format!("build-arg:{name}"), value.clone().into());
            }
        }
        for (name, value) in &facts.request.labels {
            args.insert(format!("label:{name}"), value.clone().into());
        }
        args.extend(plan.target.clone().map(|target| ("target".to_owned(), target.into())));
        request["args"] = args.into();
        let secrets = facts.request.mounts.secrets.ids().map(|id| json!({ "id": id }));
        request["secrets"] = secrets.collect();
    }
    json!({ "configSource": source, "request": request })
}

/// Returns the digest of what was fetched from an address.
fn digest_of(attest: &Attest, context: &str) -> Value {
    let all = attest.materials.all();
    let found = all.into_iter().find(|(uri, ..)| uri == context);
    found.map_or(json!({}), |(_, kind, digest)| json!({ kind: digest }))
}

fn dependencies(facts: &Facts<'_>) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for (name, platform, digest) in &facts.bases {
        all.push(json!({
            "uri": purl(name, Some(platform)),
            "digest": { digest.algorithm().to_string(): digest.hex() },
        }));
    }
    for (uri, kind, digest) in facts.request.attest.materials.all() {
        all.push(json!({ "uri": uri, "digest": { kind: digest } }));
    }
    all.into()
}

fn steps(facts: &Facts<'_>) -> Value {
    let step = |step: &StepSeen| {
        json!({
            "stage": step.stage_name,
            "line": step.line,
            "instruction": step.text,
            "diffId": step.layer,
        })
    };
    facts.steps.iter().map(step).collect()
}

fn metadata(facts: &Facts<'_>, detail: Detail) -> Value {
    let attest = &facts.request.attest;
    let (began, finished) = match facts.epoch {
        Some(epoch) => (epoch, epoch),
        None => (facts.began, facts.finished),
    };
    let mut own = Map::new();
    if let Some(context) = attest.context.as_ref().filter(|context| context.starts_with("git+")) {
        let digest = digest_of(attest, context);
        let revision = digest.as_object().and_then(|digest| digest.values().next()).cloned();
        own.insert("vcs".to_owned(), json!({ "source": context, "revision": revision }));
    }
    if detail == Detail::Max {
        use base64::Engine as _;
        let text = facts.request.dockerfile.source.text();
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        let file = json!({ "filename": facts.request.dockerfile_path, "language": "Dockerfile", "data": data });
        own.insert("source".to_owned(), json!({ "infos": [file] }));
    }
    // Steps may use the network, and see what no list of ours has.
    json!({
        "startedOn": began.to_string(),
        "finishedOn": finished.to_string(),
        "buildkit_metadata": own,
        "buildkit_completeness": { "request": detail == Detail::Max, "resolvedDependencies": false },
        "buildkit_reproducible": false,
    })
}
