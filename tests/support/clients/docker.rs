//! dockerd, started for the test: no bridge, no firewall rules, everything below the place.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use boatyard_oci::Digest;
use rustix::process::{Pid, Signal, kill_process};

use super::{Client, digest};
use crate::support::place::text;
use crate::support::server::wait_for;
use crate::support::{Place, Run, tree};

/// A running dockerd and its command line. It speaks plain HTTP to loopback by default.
pub struct Docker<'a> {
    place: &'a Place,
    daemon: Child,
}

impl<'a> Docker<'a> {
    /// Starts the daemon and waits until it answers.
    pub fn start(place: &'a Place) -> Docker<'a> {
        Docker::start_with(place, [])
    }

    /// Starts the daemon with more options.
    pub fn start_with<const N: usize>(place: &'a Place, more: [&str; N]) -> Docker<'a> {
        let base = place.path("docker");
        fs_err::create_dir_all(&base).unwrap();
        let log = fs_err::File::create(base.join("log")).unwrap();
        let at = |name: &str| text(&base.join(name)).to_owned();
        let daemon = place
            .run("dockerd", ["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--ip-masq=false", "--storage-driver", "overlay2"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid"), "-H", &format!("unix://{}", at("sock"))])
            .args(more)
            .spawn(Stdio::null(), Stdio::from(log.into_file()));
        let docker = Docker { place, daemon };
        wait_for("dockerd to answer", || docker.docker(["version"]).run().code == Some(0));
        docker
    }

    /// Returns its command, ready to run.
    pub fn docker<const N: usize>(&self, args: [&str; N]) -> Run {
        let socket = format!("unix://{}", text(&self.place.path("docker/sock")));
        self.place.run(client(), ["-H", &socket]).args(args)
    }

    fn repo_digest(&self, image: &str) -> Digest {
        let format = "{{index .RepoDigests 0}}";
        let name = self.docker(["image", "inspect", "--format", format, image]).ok().text();
        digest(name.split_once('@').unwrap().1)
    }

    /// Returns the files of an image, a line each.
    pub fn files(&self, image: &str) -> Vec<String> {
        let mounted = Client::unpack(self, image);
        let files = tree::list(&mounted);
        self.place.run("umount", [text(&mounted)]).ok();
        files
    }

    fn unpacked(&self) -> PathBuf {
        self.place.path("docker/unpacked")
    }
}

/// Returns Debian's command where there is another one as well: its BuildKit needs no plugin.
fn client() -> &'static str {
    let debians = "/usr/bin/docker";
    if Path::new(debians).exists() { debians } else { "docker" }
}

impl Client for Docker<'_> {
    fn name(&self) -> &'static str {
        "dockerd"
    }

    fn push_new(&self, rootfs: &Path, image: &str) -> Digest {
        self.docker(["import", text(rootfs), image]).ok();
        self.docker(["push", "-q", image]).ok();
        let pushed = self.repo_digest(image);
        self.docker(["rmi", "-f", image]).ok();
        pushed
    }

    fn pull(&self, image: &str) -> Digest {
        self.docker(["pull", "-q", image]).ok();
        self.repo_digest(image)
    }

    /// Lays the daemon's directories over one another as it would for a container.
    fn unpack(&self, image: &str) -> PathBuf {
        let data =
            self.docker(["image", "inspect", "--format", "{{json .GraphDriver.Data}}", image]);
        let data = data.ok().json();
        let upper = data["UpperDir"].as_str().unwrap();
        let lower = data["LowerDir"].as_str().map(|lower| format!(":{lower}")).unwrap_or_default();
        // An overlay has at least two layers, even if one has nothing in it.
        let empty = self.place.path("docker/empty");
        let directory = self.unpacked();
        fs_err::create_dir_all(&empty).unwrap();
        fs_err::create_dir_all(&directory).unwrap();
        let options = format!("ro,lowerdir={upper}{lower}:{}", text(&empty));
        self.place
            .run("mount", ["-t", "overlay", "overlay", "-o", &options, text(&directory)])
            .ok();
        directory
    }

    fn run(&self, image: &str) -> Option<String> {
        Some(self.docker(["run", "--rm", "--network=none", image]).ok().text())
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if self.unpacked().exists() {
            self.place.run("umount", [text(&self.unpacked())]).run();
        }
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let _ = self.daemon.wait();
    }
}
