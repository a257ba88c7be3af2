//! The field's reference registry, from Debian.

use std::path::Path;
use std::process::{Child, Stdio};

use super::Place;
use super::http::Http;
use super::server::wait_for;

/// A running docker-registry; killed when dropped.
pub struct Distribution {
    process: Child,
    address: String,
}

impl Distribution {
    /// Starts it on a directory and waits until it answers.
    pub fn start(place: &Place, data: &Path) -> Distribution {
        fs_err::create_dir_all(data).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: \"{address}\"}}\n",
            data.display()
        );
        let config = place.write("distribution.yml", config);
        let process =
            place.run("docker-registry", ["serve"]).arg(config).spawn(Stdio::null(), Stdio::null());
        let started = Distribution { process, address };
        wait_for("docker-registry to answer", || {
            Http::new(&started.address).get("/v2/").status == 200
        });
        started
    }

    /// Returns its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
