//! Our cache proxy, with an upstream that does what a test wants, and its clients.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::origin::Origin;
use super::server::wait_for;
use super::{Place, Server};

/// An upstream, and a proxy that may fetch from it.
pub struct World {
    pub origin: Origin,
    pub server: Server,
    pub proxy: String,
    pub place: Place,
}

/// An answer that curl got.
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Got {
    /// Returns how the answer came about.
    pub fn cache(&self) -> &str {
        self.header("x-cache").unwrap_or_default()
    }

    /// Returns a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Returns the body.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl World {
    /// Starts both, with more lines in `[proxy]`.
    pub fn new(more: &str) -> World {
        let (place, origin) = (Place::new(), Origin::start());
        let server = start(&place, &origin, more);
        let proxy = proxy_of(&server);
        World { origin, server, proxy, place }
    }

    /// Asks through the proxy with curl.
    pub fn get(&self, path: &str) -> Got {
        self.ask(&self.origin.url(path), &[])
    }

    /// Asks for any URL, with more arguments for curl.
    pub fn ask(&self, url: &str, more: &[&str]) -> Got {
        curl(&self.place, &["-x", &format!("http://{}", self.proxy)], more, url)
    }

    /// Writes bytes to the proxy, and reads until it closes.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connect();
        connection.write_all(bytes).unwrap();
        rest_of(connection)
    }

    /// Connects to the proxy.
    pub fn connect(&self) -> TcpStream {
        connect(&self.proxy)
    }

    /// Returns a request for a path of the upstream, the last of its connection.
    pub fn request(&self, path: &str) -> Vec<u8> {
        format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", self.origin.url(path))
            .into()
    }

    /// Begins to ask for a path, and reads so many bytes of the answer.
    pub fn begin(&self, path: &str, bytes: usize) -> (TcpStream, Vec<u8>) {
        let mut connection = self.connect();
        connection.write_all(&self.request(path)).unwrap();
        let mut begun = vec![0; bytes];
        connection.read_exact(&mut begun).unwrap();
        (connection, begun)
    }
}

/// Connects, with a limit for each wait.
pub fn connect(address: &str) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    connection
}

/// Reads until a connection ends. One that is cut has said what it had to say.
pub fn rest_of(mut connection: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest);
    rest
}

/// Starts a server whose proxy knows an upstream as `o`.
pub fn start(place: &Place, origin: &Origin, more: &str) -> Server {
    start_at(place, &place.root(), origin, more)
}

/// Starts it on a root.
pub fn start_at(place: &Place, root: &Path, origin: &Origin, more: &str) -> Server {
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:0']\n{more}\n[[proxy.upstream]]\nname = 'o'\nurl = '{}'\n",
        origin.url("")
    );
    Server::configured(place, root, &config)
}

/// Starts a server whose proxy trusts an authority, as systems are told to.
pub fn trusting(place: &Place, authority: Option<&Path>, proxy: &str) -> Server {
    let config = place.write("b.toml", format!("[proxy]\nlisten = ['127.0.0.1:0']\n{proxy}"));
    let root = place.root();
    let serve = place.boatyard_at(&root, ["serve", "--listen", "127.0.0.1:0"]);
    let serve = serve.env("BOATYARD_CONFIG", config);
    Server::run(match authority {
        Some(authority) => serve.env("SSL_CERT_FILE", authority),
        None => serve,
    })
}

/// Returns where a server's proxy listens.
pub fn proxy_of(server: &Server) -> String {
    let mark = "the cache proxy listens on ";
    wait_for("the proxy to listen", || server.log().contains(mark));
    let log = server.log();
    log.split_once(mark).unwrap().1.lines().next().unwrap().trim().to_owned()
}

/// Asks with curl.
pub fn curl(place: &Place, how: &[&str], more: &[&str], url: &str) -> Got {
    let run = place.run("curl", ["-s", "-i", "-m", "60", "--noproxy", ""]);
    let output = run.args(how.iter().chain(more).copied()).args([url]).run();
    let bytes = output.stdout;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else { return Got { status: 0, head: String::new(), body: bytes } };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Got { status, head, body: bytes[end + 4..].to_vec() }
}
