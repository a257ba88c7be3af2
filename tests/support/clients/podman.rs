//! podman, on a storage of its own.

use std::path::{Path, PathBuf};

use boatyard_oci::Digest;

use super::{Client, digest};
use crate::support::place::text;
use crate::support::{Place, Run};

/// podman with its storage in the test's place.
pub struct Podman<'a> {
    place: &'a Place,
}

impl<'a> Podman<'a> {
    /// Returns the client.
    pub fn new(place: &'a Place) -> Podman<'a> {
        fs_err::create_dir_all(place.path("podman")).unwrap();
        Podman { place }
    }

    fn podman<const N: usize>(&self, args: [&str; N]) -> Run {
        let base = self.place.path("podman");
        let at = |name: &str| text(&base.join(name)).to_owned();
        self.place
            .run("podman", ["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"])
            .args(["--events-backend", "none", "--runtime", "runc"])
            .args(["--root", &at("root"), "--runroot", &at("run"), "--tmpdir", &at("tmp")])
            .args(args)
    }

    /// Pulls an image from where a `registries.conf` says.
    pub fn pull_by(&self, image: &str, registries: &Path) -> Digest {
        let pull = self.podman(["pull", "-q", image]);
        pull.env("CONTAINERS_REGISTRIES_CONF", registries).ok();
        digest(&self.podman(["image", "inspect", "--format", "{{.Digest}}", image]).ok().text())
    }
}

impl Client for Podman<'_> {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn push_new(&self, rootfs: &Path, image: &str) -> Digest {
        let digest_file = self.place.path("podman/digest");
        self.podman(["import", text(rootfs), image]).ok();
        self.podman([
            "push",
            "-q",
            "--tls-verify=false",
            "--digestfile",
            text(&digest_file),
            image,
        ])
        .ok();
        self.podman(["rmi", "-f", image]).ok();
        digest(&fs_err::read_to_string(digest_file).unwrap())
    }

    fn pull(&self, image: &str) -> Digest {
        self.podman(["pull", "-q", "--tls-verify=false", image]).ok();
        digest(&self.podman(["image", "inspect", "--format", "{{.Digest}}", image]).ok().text())
    }

    fn unpack(&self, image: &str) -> PathBuf {
        let container = self.podman(["create", image, "/none"]).ok().text();
        PathBuf::from(self.podman(["mount", &container]).ok().text())
    }

    fn run(&self, image: &str) -> Option<String> {
        // Its usual limits may lie above what this process may set, and crun refuses machines that
        // have both kinds of cgroups: hence small limits, and runc.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        let run = self.podman(["run", "--rm", "--network=none"]).args(limits).arg(image);
        Some(run.ok().text())
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // Containers and mounts must be gone before the place is.
        self.podman(["rm", "-a", "-f"]).run();
        self.place.run("umount", [text(&self.place.path("podman/root/overlay"))]).run();
    }
}
