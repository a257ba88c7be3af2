//! An upstream of our own making: answers what a test puts there, counts what it was asked, and
//! holds back what the test wants held back.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// What an origin answers for a path.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
    /// The tag that it sends, and answers 304 for.
    pub etag: Option<String>,
    /// Its body stops here and the connection breaks, unless a part is asked for.
    pub breaks_at: Option<usize>,
    /// Its body waits here until [`Origin::release`].
    pub waits_at: Option<usize>,
}

impl Reply {
    /// Returns a body that is fresh for a while.
    pub fn fresh(body: impl Into<Vec<u8>>) -> Reply {
        Reply { headers: "Cache-Control: max-age=600\r\n".to_owned(), ..Reply::stale(body) }
    }

    /// Returns a body that is asked for again each time.
    pub fn stale(body: impl Into<Vec<u8>>) -> Reply {
        Reply { status: 200, body: body.into(), ..Reply::default() }
    }

    /// Adds a tag.
    pub fn tagged(self, tag: &str) -> Reply {
        Reply { etag: Some(format!("\"{tag}\"")), ..self }
    }

    /// Adds header lines.
    pub fn with(self, headers: &str) -> Reply {
        Reply { headers: format!("{}{headers}", self.headers), ..self }
    }
}

/// A running upstream. It stops answering when dropped.
pub struct Origin {
    shared: Arc<Shared>,
    address: String,
}

struct Shared {
    replies: Mutex<HashMap<String, Reply>>,
    asked: Mutex<Vec<String>>,
    held: Mutex<bool>,
    released: Condvar,
    down: AtomicBool,
}

impl Origin {
    /// Starts an upstream that has nothing.
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            asked: Mutex::default(),
            held: Mutex::new(true),
            released: Condvar::new(),
            down: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // A client that hangs up ends its connection; nothing else is to be done.
                std::thread::spawn(move || drop(shared.serve(&connection)));
            }
        });
        Origin { shared, address }
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts an answer under a path. `path type` is the answer for who asks for that type first.
    pub fn put(&self, path: &str, reply: Reply) {
        self.shared.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// Returns what was asked since the last time: method, path, and the headers that matter.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.asked.lock().unwrap())
    }

    /// Returns how often something was asked so far.
    pub fn count(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    /// Holds again what waits.
    pub fn hold(&self) {
        *self.shared.held.lock().unwrap() = true;
    }

    /// Lets go on what waits.
    pub fn release(&self) {
        *self.shared.held.lock().unwrap() = false;
        self.shared.released.notify_all();
    }

    /// Closes every connection without an answer from now on.
    pub fn go_down(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.shared.down.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        if self.down.load(Ordering::SeqCst) {
            return Ok(());
        }
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (range, tag) = (header("range"), header("if-none-match"));
        let login = header("authorization");
        let shown = [&range, &tag, &login].into_iter().flatten();
        let shown = shown.map(|value| format!(" {value}")).collect::<String>();
        self.asked.lock().unwrap().push(format!("{method} {path}{shown}"));
        let accept = header("accept").unwrap_or_default();
        let accept = accept.split([',', ';']).next().unwrap_or_default();
        let replies = self.replies.lock().unwrap();
        let reply = replies.get(&format!("{path} {accept}")).or_else(|| replies.get(path)).cloned();
        drop(replies);
        let reply = reply.unwrap_or(Reply { status: 404, ..Reply::default() });
        self.answer(stream, method, &reply, range.as_deref(), tag.as_deref())
    }

    fn answer(
        &self,
        mut stream: &TcpStream,
        method: &str,
        reply: &Reply,
        range: Option<&str>,
        tag: Option<&str>,
    ) -> std::io::Result<()> {
        let tag_line = reply.etag.iter().map(|tag| format!("ETag: {tag}\r\n")).collect::<String>();
        let common = format!("{tag_line}{}Connection: close\r\n", reply.headers);
        if tag.is_some() && tag == reply.etag.as_deref() {
            let text = format!("HTTP/1.1 304 Not Modified\r\n{common}\r\n");
            return stream.write_all(text.as_bytes());
        }
        let from: Option<usize> =
            range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        let (start, line) = match from {
            None => (0, format!("HTTP/1.1 {} Reply\r\n", reply.status)),
            Some(from) => {
                let (last, size) = (reply.body.len() - 1, reply.body.len());
                let line = "HTTP/1.1 206 Part\r\n";
                (from, format!("{line}Content-Range: bytes {from}-{last}/{size}\r\n"))
            }
        };
        let body = &reply.body[start..];
        let head = format!("{line}{common}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        if method == "HEAD" {
            return Ok(());
        }
        if let Some(at) = reply.breaks_at.filter(|_| from.is_none()) {
            return stream.write_all(&body[..at]);
        }
        let at = reply.waits_at.unwrap_or(body.len()).min(body.len());
        stream.write_all(&body[..at])?;
        if at < body.len() {
            let mut held = self.held.lock().unwrap();
            while *held {
                held = self.released.wait(held).unwrap();
            }
        }
        stream.write_all(&body[at..])
    }
}
