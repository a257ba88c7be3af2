//! An archive's server, which changes while it is read, in the way that a test says.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::Step;

/// What is done to the answers for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Truncate(usize),
    /// One bit of the body is another.
    Corrupt,
}

/// A running server; it ends with the test's process.
pub struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    gathered: Arc<Condvar>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, (Vec<u8>, i64)>,
    faults: BTreeMap<String, Fault>,
    asked: Vec<String>,
    script: VecDeque<(usize, Step)>,
    requests: usize,
    changes: i64,
    is_stopped: bool,
    /// How many requests for files with this ending wait for one another, and how many do.
    gathering: Option<(String, usize, usize)>,
}

impl State {
    /// Files of one step have one time of last change; each step has another.
    fn make(&mut self, step: &Step) {
        self.changes += 1;
        let time = jiff::Timestamp::now().as_second() - 100_000 + self.changes;
        for (path, bytes) in step {
            match bytes {
                Some(bytes) => self.files.insert(path.clone(), (bytes.clone(), time)),
                None => self.files.remove(path),
            };
        }
    }
}

impl Origin {
    /// Starts a server that has nothing.
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let gathered = Arc::new(Condvar::new());
        let gathers = Arc::clone(&gathered);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (state, gathered) = (Arc::clone(&shared), Arc::clone(&gathers));
                // A client that hangs up ends its connection; nothing else is to be done.
                std::thread::spawn(move || drop(serve(&connection, &state, &gathered)));
            }
        });
        Origin { address, state, gathered }
    }

    /// Returns the URL of the archive.
    pub fn url(&self) -> String {
        format!("http://{}/debian", self.address)
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the archive.
    pub fn make(&self, step: &Step) {
        self.state.lock().unwrap().make(step);
    }

    /// Makes each step before the so-manyth request from now on is answered.
    pub fn script(&self, script: impl IntoIterator<Item = (usize, Step)>) {
        let mut state = self.state.lock().unwrap();
        (state.requests, state.script) = (0, script.into_iter().collect());
    }

    /// Makes the steps that are left.
    pub fn finish(&self) {
        let mut state = self.state.lock().unwrap();
        for (_, step) in std::mem::take(&mut state.script) {
            state.make(&step);
        }
    }

    /// Harms the answers for a path.
    pub fn harm(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(path.to_owned(), fault);
    }

    /// Harms nothing any more.
    pub fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Cuts every connection before it answers, from now on, or no longer.
    pub fn set_stopped(&self, is_stopped: bool) {
        self.state.lock().unwrap().is_stopped = is_stopped;
    }

    /// Answers requests for files with this ending when so many of them are here at once.
    pub fn gather(&self, ending: &str, count: usize) {
        self.state.lock().unwrap().gathering = Some((ending.to_owned(), count, 0));
        self.gathered.notify_all();
    }

    /// Says whether all that were to be here at once were.
    pub fn has_gathered(&self) -> bool {
        self.state.lock().unwrap().gathering.is_none()
    }

    /// Returns the paths that were asked for since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

/// Has a request wait for others, where it is to; not for ever.
fn gather<'a>(
    mut state: MutexGuard<'a, State>,
    gathered: &Condvar,
    path: &str,
) -> MutexGuard<'a, State> {
    let Some((ending, count, here)) = &mut state.gathering else { return state };
    if !path.ends_with(ending.as_str()) {
        return state;
    }
    *here += 1;
    if here == count {
        state.gathering = None;
        gathered.notify_all();
        return state;
    }
    let waiting = |state: &mut State| state.gathering.is_some();
    gathered.wait_timeout_while(state, Duration::from_secs(60), waiting).unwrap().0
}

fn serve(connection: &TcpStream, state: &Mutex<State>, gathered: &Condvar) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection.try_clone()?;
    loop {
        let (mut line, mut since) = (String::new(), None);
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
            match header.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("if-modified-since") => {
                    since = Some(value.to_owned());
                }
                Some(_) => {}
                None => break,
            }
        }
        let path = line.split(' ').nth(1).unwrap_or_default().trim_start_matches("/debian/");
        let (found, fault) = {
            let mut state = state.lock().unwrap();
            if state.is_stopped {
                return Ok(());
            }
            state.requests += 1;
            while state.script.front().is_some_and(|(at, _)| *at < state.requests) {
                let step = state.script.pop_front().unwrap().1;
                state.make(&step);
            }
            state.asked.push(path.to_owned());
            let state = gather(state, gathered, path);
            (state.files.get(path).cloned(), state.faults.get(path).cloned())
        };
        let Some((mut body, time)) = found else {
            writer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let time = jiff::Timestamp::from_second(time).unwrap();
        let modified = jiff::fmt::rfc2822::DateTimePrinter::new();
        let modified = modified.timestamp_to_rfc9110_string(&time).unwrap();
        if since.as_ref() == Some(&modified) {
            let head = format!("HTTP/1.1 304 Not Modified\r\nLast-Modified: {modified}\r\n\r\n");
            writer.write_all(head.as_bytes())?;
            continue;
        }
        let len = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nLast-Modified: {modified}\r\n\r\n"
        );
        writer.write_all(head.as_bytes())?;
        match fault {
            Some(Fault::Truncate(most)) => {
                writer.write_all(&body[..most.min(len)])?;
                return Ok(());
            }
            Some(Fault::Corrupt) => body[len / 2] ^= 1,
            None => {}
        }
        writer.write_all(&body)?;
    }
}
