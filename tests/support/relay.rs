//! A relay between a mirror and its upstream, which counts what passes and does it harm.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a relay does to the answers whose path contains [`Harm::to`].
#[derive(Clone, Debug, Default)]
pub struct Harm {
    /// A part of the path; nothing means all.
    pub to: &'static str,
    /// What is done.
    pub kind: Kind,
    /// How many answers are harmed; the others pass.
    pub times: u64,
}

/// The ways to harm an answer.
#[derive(Clone, Debug, Default)]
pub enum Kind {
    /// None.
    #[default]
    Pass,
    /// The body ends after so many bytes.
    Truncate(usize),
    /// One bit of the body is another.
    Corrupt,
    /// The body stands still after so many bytes until the relay is told otherwise.
    Stall(usize),
    /// The connection is closed before the answer.
    Close,
    /// The length that is promised is larger than the body by this.
    Lie(usize),
    /// Another status, with further header lines.
    Status(u16, String),
    /// So many bytes each 10 ms.
    Throttle(usize),
}

/// A running relay; gone with the test's process.
pub struct Relay {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    harm: Mutex<Harm>,
    asked: Mutex<Vec<String>>,
    /// The `Authorization` that came, for tests that look who sees credentials.
    shown: Mutex<Vec<String>>,
    body_bytes: AtomicU64,
    /// How often all connections were cut.
    cuts: AtomicU64,
}

impl Relay {
    /// Starts a relay to a server.
    pub fn to(upstream: &str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            harm: Mutex::default(),
            asked: Mutex::default(),
            shown: Mutex::default(),
            body_bytes: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // A client that hangs up ends its connection; nothing else is to be done.
                std::thread::spawn(move || drop(shared.serve(connection)));
            }
        });
        Relay { address, shared }
    }

    /// Returns its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Does harm from now on.
    pub fn harm(&self, to: &'static str, kind: Kind, times: u64) {
        *self.shared.harm.lock().unwrap() = Harm { to, kind, times };
    }

    /// Lets everything pass again, also what stands still.
    pub fn pass(&self) {
        self.harm("", Kind::Pass, 0);
    }

    /// Cuts all connections, as a relay that dies does; the next ones pass.
    pub fn cut(&self) {
        self.shared.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what was asked since the last time: methods and paths. Questions whether anybody is
    /// there are not among them.
    pub fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.shared.asked.lock().unwrap());
        asked.into_iter().filter(|asked| !asked.ends_with(" /v2/")).collect()
    }

    /// Returns the credentials that came since the last time.
    pub fn shown(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.shown.lock().unwrap())
    }

    /// Returns how many bytes of bodies passed since the last time.
    pub fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.swap(0, Ordering::Relaxed)
    }
}

impl Shared {
    /// Answers one request, and closes the connection.
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let mut request = BufReader::new(client.try_clone()?);
        let head = read_head(&mut request)?;
        let line = head.lines().next().unwrap_or_default();
        let asked = line.rsplit_once(' ').map_or(line, |(asked, _)| asked).to_owned();
        self.asked.lock().unwrap().push(asked.clone());
        let shown = head.lines().filter(|line| line.to_lowercase().starts_with("authorization:"));
        self.shown.lock().unwrap().extend(shown.map(str::to_owned));
        let kind = self.take_harm(&asked);
        let mut client = client;
        match &kind {
            Kind::Close => return Ok(()),
            Kind::Status(status, headers) => {
                let text = format!(
                    "HTTP/1.1 {status} Harmed\r\nConnection: close\r\nContent-Length: 0\r\n\
                     {headers}\r\n"
                );
                return client.write_all(text.as_bytes());
            }
            _ => {}
        }
        let upstream = TcpStream::connect(&self.upstream)?;
        let mut forward = upstream.try_clone()?;
        for line in head.lines().filter(|line| !line.to_lowercase().starts_with("connection:")) {
            forward.write_all(format!("{line}\r\n").as_bytes())?;
        }
        forward.write_all(b"Connection: close\r\n\r\n")?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
        });
        std::io::copy(&mut std::io::Read::take(&mut request, length.unwrap_or(0)), &mut forward)?;
        let mut answer = BufReader::new(upstream);
        let head = read_head(&mut answer)?;
        client.write_all(promised(&head, &kind).as_bytes())?;
        self.pass_body(&mut answer, &mut client, &kind, &asked)
    }

    fn take_harm(&self, asked: &str) -> Kind {
        let mut harm = self.harm.lock().unwrap();
        if harm.times == 0 || !asked.contains(harm.to) {
            return Kind::Pass;
        }
        harm.times -= 1;
        harm.kind.clone()
    }

    fn pass_body(
        &self,
        answer: &mut impl std::io::Read,
        client: &mut TcpStream,
        kind: &Kind,
        asked: &str,
    ) -> std::io::Result<()> {
        let mut passed = 0;
        let cuts = self.cuts.load(Ordering::Relaxed);
        let mut piece = vec![0; if let Kind::Throttle(size) = kind { *size } else { 16 << 10 }];
        loop {
            let mut length = answer.read(&mut piece)?;
            if length == 0 || cuts != self.cuts.load(Ordering::Relaxed) {
                return Ok(());
            }
            match kind {
                Kind::Truncate(after) if passed + length > *after => {
                    length = after - passed;
                    client.write_all(&piece[..length])?;
                    return Ok(());
                }
                Kind::Corrupt if passed == 0 => piece[length / 2] ^= 1,
                Kind::Stall(after) if passed + length > *after => self.stand_still(asked),
                Kind::Throttle(_) => std::thread::sleep(Duration::from_millis(10)),
                _ => {}
            }
            client.write_all(&piece[..length])?;
            self.body_bytes.fetch_add(length as u64, Ordering::Relaxed);
            passed += length;
        }
    }

    /// Waits until the test lets everything pass.
    fn stand_still(&self, asked: &str) {
        for _ in 0..3000 {
            let harm = self.harm.lock().unwrap().clone();
            if !matches!(harm.kind, Kind::Stall(_)) || !asked.contains(harm.to) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns the head as it is passed on.
fn promised(head: &str, kind: &Kind) -> String {
    let mut text = String::new();
    for line in head.lines() {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        match (name.as_str(), kind) {
            ("connection", _) => {}
            ("content-length", Kind::Lie(by)) => {
                let honest: usize = line.split(':').nth(1).unwrap().trim().parse().unwrap();
                text.push_str(&format!("Content-Length: {}\r\n", honest + by));
            }
            _ => text.push_str(&format!("{line}\r\n")),
        }
    }
    format!("{text}Connection: close\r\n\r\n")
}

/// Reads up to the empty line, which is not returned.
fn read_head(from: &mut impl std::io::BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(head);
        }
        head.push_str(&line);
    }
}
