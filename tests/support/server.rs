//! Our server as a process that can be stopped, killed and measured.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::http::Http;
use super::{Place, Run};

/// A running server; killed when dropped.
pub struct Server {
    process: Child,
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server on the place's root and waits until it is ready.
    pub fn start(place: &Place) -> Server {
        Server::start_at(place, &place.root())
    }

    /// Starts a server on a root and waits until it is ready.
    pub fn start_at(place: &Place, root: &Path) -> Server {
        Server::run(place.boatyard_at(root, ["serve", "--listen", "127.0.0.1:0"]))
    }

    /// Starts a server on a root, with a configuration.
    pub fn configured(place: &Place, root: &Path, config: &str) -> Server {
        let name = format!("{}.toml", root.file_name().unwrap().to_str().unwrap());
        let config = place.write(&name, config);
        let serve = place.boatyard_at(root, ["serve", "--listen", "127.0.0.1:0"]);
        Server::run(serve.env("BOATYARD_CONFIG", config))
    }

    /// Starts a server by a command line and waits until it is ready.
    pub fn run(serve: Run) -> Server {
        let mut process = serve.env_remove("RUST_LOG").spawn(Stdio::null(), Stdio::piped());
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (address, is_plain) = loop {
            let line = lines.next().and_then(Result::ok).unwrap_or_else(|| {
                panic!("the server ended before it listened: {:#?}", log.lock().unwrap())
            });
            log.lock().unwrap().push(line.clone());
            if let Some((before, rest)) = line.split_once("://") {
                break (rest.split(',').next().unwrap().to_owned(), before.ends_with("http"));
            }
        };
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let server = Server { process, address, log };
        // One that listens keeps connections until it is ready: with TLS that has to do.
        wait_for("the server to be ready", || {
            !is_plain || Http::new(&server.address).get("/readyz").status == 200
        });
        server
    }

    /// Returns its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the name of an image in it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Returns a client of it.
    pub fn http(&self) -> Http {
        Http::new(&self.address)
    }

    /// Returns the process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has it read its configuration again.
    pub fn hang_up(&self) {
        kill_process(Pid::from_child(&self.process), Signal::HUP).unwrap();
    }

    /// Returns what it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Ends it as a power cut would: no chance to tidy up.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Does so while others still hold it.
    pub fn kill_now(&self) {
        kill_process(Pid::from_child(&self.process), Signal::KILL).unwrap();
    }

    /// Asks it to stop and fails the test unless it does so cleanly.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.code(), Some(0), "a clean stop exits 0:\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where `kill` or `stop` was called.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until something holds; fails the test after half a minute.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
