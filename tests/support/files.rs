//! A server of files that counts what it is asked: with entity tags, ranges, redirects and bodies that
//! break off.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A server on a port of its own; it ends with the process.
pub struct Files {
    address: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    files: HashMap<String, File>,
    /// What was asked: `GET /path 200`.
    asked: Vec<String>,
}

/// A file that is served.
#[derive(Clone, Default)]
pub struct File {
    /// Its bytes.
    pub body: Vec<u8>,
    /// Its entity tag, without quotes; none where it is empty.
    pub tag: String,
    /// Further headers, each with its line end.
    pub headers: String,
    /// Where it is instead.
    pub moved: Option<String>,
    /// What `Authorization` must be; anything where it is empty.
    pub login: String,
    /// Answers without a range break off after so many bytes.
    pub breaks_at: Option<usize>,
}

impl Files {
    /// Starts the server.
    pub fn start() -> Files {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || serve(&connection, &served));
            }
        });
        Files { address, shared }
    }

    /// Serves a file under a path.
    pub fn put(&self, path: &str, file: File) {
        self.shared.lock().unwrap().files.insert(path.to_owned(), file);
    }

    /// Serves bytes under a path, with a tag that they decide.
    pub fn put_bytes(&self, path: &str, body: impl Into<Vec<u8>>) {
        let body = body.into();
        let tag = boatyard_oci::Digest::sha256(&body).short().to_owned();
        self.put(path, File { body, tag, ..File::default() });
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns what was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().asked)
    }
}

/// Answers one request.
fn serve(mut connection: &TcpStream, shared: &Mutex<Shared>) {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(a, b)| (a.to_lowercase(), b.to_owned())))
        .collect();
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let file = shared.lock().unwrap().files.get(path).cloned();
    let (status, head, body) = answer(file.as_ref(), &headers);
    shared.lock().unwrap().asked.push(format!("{method} {path} {status}"));
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{head}\r\n");
    let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&body));
}

fn answer(file: Option<&File>, asked: &HashMap<String, String>) -> (u16, String, Vec<u8>) {
    let Some(file) = file else { return (404, "Content-Length: 0\r\n".to_owned(), Vec::new()) };
    if !file.login.is_empty() && asked.get("authorization") != Some(&file.login) {
        return (401, "Content-Length: 0\r\n".to_owned(), Vec::new());
    }
    if let Some(target) = &file.moved {
        return (302, format!("Location: {target}\r\nContent-Length: 0\r\n"), Vec::new());
    }
    let mut head = file.headers.clone();
    if !file.tag.is_empty() {
        head.push_str(&format!("ETag: \"{}\"\r\n", file.tag));
    }
    let tag = format!("\"{}\"", file.tag);
    if asked.get("if-none-match") == Some(&tag) {
        return (304, head, Vec::new());
    }
    let range = asked.get("range").and_then(|range| range.strip_prefix("bytes="));
    let from = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok());
    let agrees = asked.get("if-range").is_none_or(|own| *own == tag);
    let length = file.body.len();
    if let Some(from) = from.filter(|from| agrees && *from < length) {
        let range = format!("Content-Range: bytes {from}-{}/{length}\r\n", length - 1);
        head.push_str(&format!("{range}Content-Length: {}\r\n", length - from));
        return (206, head, file.body[from..].to_vec());
    }
    head.push_str(&format!("Content-Length: {length}\r\n"));
    let end = file.breaks_at.unwrap_or(length);
    (200, head, file.body[..end].to_vec())
}
