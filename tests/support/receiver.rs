//! Somebody who is told by a webhook: takes what is posted, or refuses it for a while.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What was posted.
#[derive(Clone, Debug)]
pub struct Posted {
    /// The head of the request.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Posted {
    /// Returns a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A running receiver.
pub struct Receiver {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    taken: Mutex<Vec<Posted>>,
    /// How many requests are refused before one is taken.
    refusing: AtomicUsize,
    refused: AtomicUsize,
}

impl Receiver {
    /// Starts a receiver that refuses so many requests first.
    pub fn refusing(number: usize) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { refusing: number.into(), ..Shared::default() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // A client that hangs up ends its connection; nothing else is to be done.
                std::thread::spawn(move || drop(shared.serve(&connection)));
            }
        });
        Receiver { address, shared }
    }

    /// Returns where to post.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Takes whatever comes from now on.
    pub fn accept(&self) {
        self.shared.refusing.store(0, Ordering::SeqCst);
    }

    /// Returns how many requests were refused.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Returns what was taken so far.
    pub fn taken(&self) -> Vec<Posted> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// Returns the events that were taken so far.
    pub fn events(&self) -> Vec<Value> {
        let envelopes = self.taken();
        let events = envelopes.iter().flat_map(|posted| {
            let envelope: Value = serde_json::from_slice(&posted.body).unwrap();
            envelope["events"].as_array().unwrap().clone()
        });
        events.collect()
    }

    /// Returns the events as action, repository, and tag or digest.
    pub fn told(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = self.events();
        let told = events.iter().map(|event| {
            let target = &event["target"];
            let what = if target["tag"].is_string() { &target["tag"] } else { &target["digest"] };
            format!("{} {} {}", text(&event["action"]), text(&target["repository"]), text(what))
        });
        told.collect()
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let mut posted = Posted { head, body: Vec::new() };
            let length = posted.header("content-length").unwrap_or("0").parse().unwrap_or(0);
            posted.body.resize(length, 0);
            reader.read_exact(&mut posted.body)?;
            let refuses = |left: usize| left.checked_sub(1);
            let refuse = self.refusing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuses);
            let status = if refuse.is_ok() {
                self.refused.fetch_add(1, Ordering::SeqCst);
                "503 Service Unavailable"
            } else {
                self.taken.lock().unwrap().push(posted);
                "200 OK"
            };
            write!(&mut &*stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
}
