//! A server of a test's own that steps of builds come to, and that lets them go on when the test
//! says so. A step comes with busybox's `wget`, over the host's network.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long a test waits for a step.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where steps come to.
pub struct Rendezvous {
    port: u16,
    arrivals: Receiver<Guest>,
}

/// A step that has come, and waits to be let go.
pub struct Guest {
    /// What it asked for: the word behind the slash.
    pub word: String,
    stream: TcpStream,
}

impl Rendezvous {
    /// Opens the server.
    pub fn open() -> Rendezvous {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (come, arrivals) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                // Who goes away before he said what he wants never was there.
                if reader.read_line(&mut line).is_err() {
                    continue;
                }
                let word = line.split_whitespace().nth(1).unwrap_or_default();
                let word = word.trim_start_matches('/').to_owned();
                if come.send(Guest { word, stream }).is_err() {
                    return;
                }
            }
        });
        Rendezvous { port, arrivals }
    }

    /// Returns the command with which a step comes, and which prints what it is told.
    pub fn command(&self, word: &str) -> String {
        format!("/bin/busybox wget -q -O - http://127.0.0.1:{}/{word}", self.port)
    }

    /// Waits for the next step.
    #[track_caller]
    pub fn next(&self) -> Guest {
        self.arrivals.recv_timeout(PATIENCE).expect("a step should have come")
    }

    /// Returns the steps that have come and that nobody waited for.
    pub fn others(&self) -> Vec<String> {
        self.arrivals.try_iter().map(|guest| guest.word).collect()
    }
}

impl Guest {
    /// Lets it go on, with something to print.
    pub fn let_go(mut self, told: &str) {
        let answer = format!(
            "HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{told}",
            told.len()
        );
        // It may have been killed meanwhile.
        let _ = self.stream.write_all(answer.as_bytes());
    }
}
