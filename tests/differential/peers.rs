//! Who builds the same: each returns the files of the image and its configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::clients::Docker;
use crate::support::place::text;
use crate::support::process::Ran;
use crate::support::{Place, Run, tree};

/// What was built: a line for each file, and the configuration by field.
#[derive(Debug, Default)]
pub struct Image {
    pub files: Vec<String>,
    pub config: BTreeMap<String, Value>,
}

/// What came of a build: an image, or what it said.
pub type Outcome = Result<Image, String>;

/// The fields that are compared.
const FIELDS: [&str; 12] = [
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "ExposedPorts",
    "Volumes",
    "Labels",
    "StopSignal",
    "Shell",
    "OnBuild",
    "Healthcheck",
];

fn config(from: &Value) -> BTreeMap<String, Value> {
    let mut config = BTreeMap::new();
    for field in FIELDS {
        let value = &from[field];
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_empty {
            config.insert(field.to_owned(), value.clone());
        }
    }
    config
}

fn failed(ran: &Ran) -> String {
    let lines: Vec<&str> = ran.stderr.lines().rev().take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Builds with Boatyard.
pub fn ours(place: &Place, context: &Path) -> Outcome {
    let out = place.path("ours");
    let _ = fs_err::remove_dir_all(&out);
    let output = format!("type=local,dest={}", text(&out));
    let build = ["build", "-q", "-t", "localhost/ours", "--network=none", "-o"];
    let ran = place.boatyard(build).args([&output, text(context)]).run();
    if ran.code != Some(0) {
        return Err(failed(&ran));
    }
    let inspected = place.boatyard(["inspect", "localhost/ours"]).ok().json();
    Ok(Image { files: tree::list(&out), config: config(&inspected[0]["Config"]) })
}

/// Another builder.
pub enum Peer<'a> {
    Buildah(&'a Place),
    Classic(&'a Docker<'a>),
    Buildkit(&'a Docker<'a>),
}

impl Peer<'_> {
    pub fn name(&self) -> &'static str {
        match self {
            Peer::Buildah(_) => "buildah",
            Peer::Classic(_) => "docker",
            Peer::Buildkit(_) => "buildkit",
        }
    }

    /// Loads the base image.
    pub fn load(&self, archive: &Path) {
        match self {
            Peer::Buildah(place) => {
                let source = format!("docker-archive:{}", text(archive));
                buildah(place, ["pull", "-q", &source]).ok();
            }
            Peer::Classic(docker) | Peer::Buildkit(docker) => {
                docker.docker(["load", "-i", text(archive)]).ok();
            }
        }
    }

    pub fn build(&self, place: &Place, context: &Path) -> Outcome {
        match self {
            Peer::Buildah(_) => build_with_buildah(place, context),
            Peer::Classic(docker) => build_with_docker(docker, context, "0"),
            Peer::Buildkit(docker) => build_with_docker(docker, context, "1"),
        }
    }
}

/// Returns buildah's command, on a storage in the place; its steps need no network.
fn buildah<const N: usize>(place: &Place, args: [&str; N]) -> Run {
    storage(place, "buildah").args(args)
}

fn storage(place: &Place, program: &str) -> Run {
    let at = |name: &str| text(&place.path(name)).to_owned();
    place.run(program, ["--storage-driver", "overlay"]).args([
        "--root",
        &at("buildah/root"),
        "--runroot",
        &at("buildah/run"),
    ])
}

fn build_with_buildah(place: &Place, context: &Path) -> Outcome {
    const NAME: &str = "localhost/theirs";
    let build = ["build", "-q", "--isolation=chroot", "--format=docker", "--pull-never"];
    let ran = buildah(place, build).args(["--identity-label=false", "-t", NAME, text(context)]);
    let ran = ran.run();
    if ran.code != Some(0) {
        return Err(failed(&ran));
    }
    let inspected = buildah(place, ["inspect", "--type", "image", NAME]).ok().json();
    let podman = |args: [&str; 3]| storage(place, "podman").args(args);
    let mounted = PathBuf::from(podman(["image", "mount", NAME]).ok().text());
    let files = tree::list(&mounted);
    podman(["image", "unmount", NAME]).ok();
    Ok(Image { files, config: config(&inspected["Docker"]["config"]) })
}

fn build_with_docker(docker: &Docker<'_>, context: &Path, buildkit: &str) -> Outcome {
    const NAME: &str = "localhost/theirs";
    let build = docker.docker(["build", "-q", "--network=none", "-t", NAME, text(context)]);
    let ran = build.env("DOCKER_BUILDKIT", buildkit).run();
    if ran.code != Some(0) {
        return Err(failed(&ran));
    }
    let inspected = docker.docker(["image", "inspect", NAME]).ok().json();
    let files = docker.files(NAME);
    Ok(Image { files, config: config(&inspected[0]["Config"]) })
}
