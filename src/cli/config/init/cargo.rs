//! What cargo fetches from.
//!
//! Where no file of cargo names a registry, cargo knows one that it tells nobody. So it is asked to
//! fetch something by way of a proxy that we are, on this machine's loopback: it says where it
//! wants to be connected to, and is refused. Nothing leaves the machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use toml::Value;

use super::Answer;
use super::clients::{addresses, answer};
use super::program::{Said, ask, program};
use crate::world::Environment;

/// How long a request may take to be read: it comes from this machine.
const REQUEST: Duration = Duration::from_secs(10);

/// What every request is answered with.
const REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";

/// Reads cargo's files, or else asks cargo.
pub fn upstreams(environment: &Environment) -> Answer {
    let said = ask(program("cargo", &["--version"]));
    if said == Said::Absent {
        return answer("cargo", "cargo", &said, Vec::new());
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(environment.home.as_ref()?.join(".cargo")));
    let files = ["config.toml", "config"].map(|name| home.as_ref().map(|home| home.join(name)));
    let configured = files.into_iter().flatten().find_map(|file| read(&file)).unwrap_or_default();
    if !configured.is_empty() {
        return answer("cargo", "cargo", &said, configured);
    }
    match asked() {
        Some(host) => Answer {
            remark: Some("it names its host only; crates may lie on another one".to_owned()),
            ..answer("cargo", "cargo", &said, vec![host])
        },
        None => answer("cargo", "cargo", &Said::Failed, Vec::new()),
    }
}

/// Returns the registries that a configuration of cargo names.
fn read(file: &Path) -> Option<Vec<String>> {
    registries(&fs_err::read_to_string(file).ok()?)
}

fn registries(text: &str) -> Option<Vec<String>> {
    let config: toml::Table = text.parse().ok()?;
    let tables = [("source", "registry"), ("registries", "index")];
    let named = tables.into_iter().flat_map(|(table, key)| {
        let table = config.get(table).and_then(Value::as_table);
        let values = table.into_iter().flat_map(|table| table.iter().map(|(_, value)| value));
        values.filter_map(move |value| value.get(key)?.as_str())
    });
    Some(addresses(named.map(|url| url.strip_prefix("sparse+").unwrap_or(url))))
}

/// Has cargo look for something, and returns where it wanted to go.
fn asked() -> Option<String> {
    let directory = tempfile::tempdir().ok()?;
    let manifest = directory.path().join("Cargo.toml");
    let package = "[package]\nname = \"asked\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
                   [lib]\npath = \"lib.rs\"\n[dependencies]\nanything = \"1\"\n[workspace]\n";
    fs_err::write(&manifest, package).ok()?;
    fs_err::write(directory.path().join("lib.rs"), "").ok()?;
    let listener = TcpListener::bind("127.0.0.1:0").ok()?;
    let proxy = format!("http://{}", listener.local_addr().ok()?);
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            // Before the answer: once cargo has that, it ends, and nobody listens any more.
            if send.send(wanted(&connection)).is_err() {
                return;
            }
            // It may have gone already, which is as good.
            let _ = (&connection).write_all(REFUSAL);
        }
    });
    let mut cargo = program("cargo", &["fetch", "--quiet", "--manifest-path"]);
    cargo.arg(&manifest).current_dir(directory.path());
    // A home of its own: what is there is neither waited for nor changed.
    cargo.env("CARGO_HOME", directory.path().join("home"));
    cargo.env("CARGO_HTTP_PROXY", proxy).env("CARGO_NET_RETRY", "0");
    cargo.env("CARGO_NET_OFFLINE", "false");
    ask(cargo);
    receive.try_iter().flatten().next()
}

/// Reads a request of cargo to its proxy.
fn wanted(connection: &TcpStream) -> Option<String> {
    connection.set_read_timeout(Some(REQUEST)).ok()?;
    let mut line = String::new();
    BufReader::new(connection.try_clone().ok()?).read_line(&mut line).ok()?;
    target(&line)
}

/// Returns the server that a request line to a proxy means.
fn target(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let url = match (words.next()?, words.next()?) {
        ("CONNECT", authority) => {
            format!("https://{}", authority.strip_suffix(":443").unwrap_or(authority))
        }
        (_, url) => {
            let (scheme, rest) = url.split_once("://")?;
            format!("{scheme}://{}", rest.split('/').next()?)
        }
    };
    addresses(std::iter::once(url.as_str())).pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_a_configuration() {
        let text = "[source.one]\nreplace-with = 'two'\n[source.two]\n\
                    registry = 'sparse+https://crates.example/index/'\n[registries.own]\n\
                    index = 'https://git.example/index'\n[build]\njobs = 2\n";
        let expected = ["https://crates.example/index", "https://git.example/index"];
        assert_eq!(registries(text).unwrap(), expected);
        assert_eq!(registries("[build]\njobs = 2\n").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_asked_of_a_proxy() {
        let of = |line| target(line);
        let connect = "CONNECT index.example:443 HTTP/1.1\r\n";
        assert_eq!(of(connect).as_deref(), Some("https://index.example"));
        assert_eq!(
            of("GET http://a.example:81/x HTTP/1.1\r\n").as_deref(),
            Some("http://a.example:81")
        );
        for bad in ["", "GET /x HTTP/1.1", "CONNECT"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
