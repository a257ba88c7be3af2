//! containerd, started for the test, and ctr.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use boatyard_oci::Digest;
use rustix::process::{Pid, Signal, kill_process};

use super::{Client, digest};
use crate::support::place::text;
use crate::support::server::wait_for;
use crate::support::{Place, Run};

/// A running containerd and its command line.
pub struct Containerd<'a> {
    place: &'a Place,
    daemon: Child,
}

impl<'a> Containerd<'a> {
    /// Starts the daemon and waits until it answers.
    pub fn start(place: &'a Place) -> Containerd<'a> {
        let base = place.path("containerd");
        fs_err::create_dir_all(&base).unwrap();
        let at = |name: &str| text(&base.join(name)).to_owned();
        let config = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{}'\n",
            at("root"),
            at("state"),
            at("sock")
        );
        fs_err::write(base.join("config.toml"), config).unwrap();
        let log = fs_err::File::create(base.join("log")).unwrap();
        let daemon = place
            .run("containerd", ["-c", &at("config.toml")])
            .spawn(Stdio::null(), Stdio::from(log.into_file()));
        let containerd = Containerd { place, daemon };
        wait_for("containerd to answer", || containerd.ctr(["version"]).run().code == Some(0));
        containerd
    }

    /// Returns its command, ready to run.
    pub fn ctr<const N: usize>(&self, args: [&str; N]) -> Run {
        self.place.run("ctr", ["-a", text(&self.place.path("containerd/sock"))]).args(args)
    }

    /// Pulls an image from where a directory of `hosts.toml` says.
    pub fn pull_by(&self, image: &str, hosts: &Path) {
        self.ctr(["images", "pull", "--hosts-dir", text(hosts), image]).ok();
    }

    /// Returns the digest of an image that is here.
    pub fn digest_of(&self, image: &str) -> Digest {
        let listed = self.ctr(["images", "ls", &format!("name=={image}")]).ok().text();
        let word = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
        digest(word.unwrap_or_else(|| panic!("ctr does not know {image}:\n{listed}")))
    }

    fn unpacked(&self) -> PathBuf {
        self.place.path("containerd/unpacked")
    }
}

impl Client for Containerd<'_> {
    fn name(&self) -> &'static str {
        "ctr"
    }

    fn push_new(&self, rootfs: &Path, image: &str) -> Digest {
        let archive = self.place.path("containerd/new.tar");
        let context = self.place.context("containerd/new", "FROM scratch\nADD rootfs.tar /\n");
        fs_err::copy(rootfs, context.join("rootfs.tar")).unwrap();
        let output = format!("type=docker,dest={}", text(&archive));
        // Its own: podman knows one digest of images that have the same configuration.
        let build = ["build", "-q", "--label=by=ctr", "-t", image, "-o", &output, text(&context)];
        self.place.boatyard(build).ok();
        self.ctr(["images", "import", text(&archive)]).ok();
        let pushed = self.digest_of(image);
        self.ctr(["images", "push", "--plain-http", image]).ok();
        self.ctr(["images", "rm", image]).ok();
        pushed
    }

    fn pull(&self, image: &str) -> Digest {
        self.ctr(["images", "pull", "--plain-http", image]).ok();
        self.digest_of(image)
    }

    fn unpack(&self, image: &str) -> PathBuf {
        let directory = self.unpacked();
        fs_err::create_dir_all(&directory).unwrap();
        self.ctr(["images", "mount", image, text(&directory)]).ok();
        directory
    }

    fn run(&self, image: &str) -> Option<String> {
        Some(self.ctr(["run", "--rm", image, "test"]).ok().text())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if self.unpacked().exists() {
            self.place.run("umount", [text(&self.unpacked())]).run();
        }
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let _ = self.daemon.wait();
    }
}
