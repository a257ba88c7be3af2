//! The ways from the cache proxy to its upstreams: by HTTPS and HTTP/2, through another proxy, in
//! tunnels, with credentials.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use axum::Router;
use axum::extract::Request;
use boatyard_front::server::{Server as Front, ServerOptions};
use boatyard_front::tls::{Tls, TlsFiles};
use support::origin::{Origin, Reply};
use support::proxy::{World, connect, curl, proxy_of};
use support::server::wait_for;
use support::{Place, Server};

/// An upstream that speaks HTTPS, and HTTP/2 to whoever wants it.
struct Secure {
    address: SocketAddr,
    /// The version and path of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Secure {
    fn start(place: &Place) -> Secure {
        let run = |script: &str| {
            place.run("sh", ["-ec", script]).current_dir(&place.path("home")).ok();
        };
        run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -keyout ca.key -out ca.crt -subj /CN=test-authority");
        run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
             -keyout server.key -out server.csr -subj /CN=server");
        run("printf 'subjectAltName=IP:127.0.0.1\n' > ext; openssl x509 -req -in server.csr \
             -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt");
        let (certificate, key) = (place.path("home/server.crt"), place.path("home/server.key"));
        let tls = Arc::new(Tls::load(TlsFiles { certificate, key, clients: None }).unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&asked);
        let (told, tell) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
                let options = ServerOptions { addresses, tls: Some(tls), ..Default::default() };
                let server = Front::bind(options).unwrap();
                told.send(server.local_addrs()[0]).unwrap();
                let answer = move |request: Request| {
                    let line = format!("{:?} {}", request.version(), request.uri().path());
                    kept.lock().unwrap().push(line);
                    std::future::ready(([("cache-control", "max-age=600")], "secure"))
                };
                server.serve(Router::new().fallback(answer), std::future::pending()).await;
            });
        });
        Secure { address: tell.recv().unwrap(), asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Starts a server whose proxy trusts an authority, as systems are told to.
fn trusting(place: &Place, authority: Option<&Path>, proxy: &str) -> Server {
    let config = place.write("b.toml", format!("[proxy]\nlisten = ['127.0.0.1:0']\n{proxy}"));
    let root = place.root();
    let serve = place.boatyard_at(&root, ["serve", "--listen", "127.0.0.1:0"]);
    let serve = serve.env("BOATYARD_CONFIG", config);
    Server::run(match authority {
        Some(authority) => serve.env("SSL_CERT_FILE", authority),
        None => serve,
    })
}

/// Asks a proxy with a request line of one's own.
fn ask(proxy: &str, request: &str) -> String {
    let mut connection = connect(proxy);
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn https_upstreams_are_checked_and_asked_by_http_2() {
    let place = Place::new();
    let upstream = Secure::start(&place);
    let (address, port) = (upstream.address, upstream.address.port());
    let authority = place.path("home/ca.crt");
    let config =
        format!("allow_private = true\nallow_ports = [{port}]\nconnect_ports = [{port}]\n");
    let request =
        |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

    let server = trusting(&place, None, &config);
    let refused = ask(&proxy_of(&server), &request(&format!("http://HTTPS///{address}/a")));
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(upstream.asked(), [""; 0]);
    server.stop();

    let server = trusting(&place, Some(&authority), &config);
    let proxy = proxy_of(&server);
    let first = ask(&proxy, &request(&format!("http://HTTPS///{address}/a")));
    assert!(first.ends_with("secure"), "{first}\n{}", server.log());
    // All ways to say it lead to one entry.
    wait_for("it to be kept", || {
        ask(&proxy, &request(&format!("/https///{address}/a"))).contains("x-cache: HIT")
    });
    assert!(ask(&proxy, &request(&format!("https://{address}/a"))).contains("x-cache: HIT"));
    assert_eq!(upstream.asked(), ["HTTP/2.0 /a"]);

    // Who wants to see the certificate himself has a tunnel.
    let how = ["-x", &format!("http://{proxy}"), "--suppress-connect-headers"];
    let trust = ["--cacert", authority.to_str().unwrap()];
    let tunnelled = curl(&place, &how, &trust, &format!("https://{address}/b"));
    assert_eq!((tunnelled.status, tunnelled.text()), (200, "secure"));
    assert_eq!(tunnelled.header("x-cache"), None);
    assert_eq!(upstream.asked(), ["HTTP/2.0 /b"]);
    wait_for("it to be logged", || server.log().contains(&format!("CONNECT {address}")));
}

/// A proxy that tunnels to nowhere: it sends back what it is sent. Returns its address, and the
/// heads of the requests that it gets.
fn echoing() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap() == 0 {
                    return;
                }
            }
            kept.lock().unwrap().push(head);
            // Its first word comes with the head.
            (&stream).write_all(b"HTTP/1.1 200 Go on\r\nX: y\r\n\r\nhello ").unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            (&stream).write_all(text.as_bytes()).unwrap();
        }
    });
    (address, heads)
}

#[test]
fn a_parent_is_asked_for_everything_and_resolves_the_names() {
    let (place, parent) = (Place::new(), Origin::start());
    let server = trusting(&place, None, &format!("parent = '{}'\n", parent.url("")));
    let proxy = format!("http://{}", proxy_of(&server));
    let get = |url: &str| curl(&place, &["-x", &proxy], &[], url);
    // Nobody but the parent knows this host.
    let url = "http://files.deb.example/a";
    parent.put(url, Reply::fresh("by the parent"));
    assert_eq!(get(url).text(), "by the parent");
    wait_for("it to be kept", || get(url).cache() == "HIT");
    assert_eq!(parent.asked(), [format!("GET {url}")]);
    assert_eq!(get("http://169.254.169.254/latest").status, 403, "not for us, not for it");
    server.stop();

    let (address, heads) = echoing();
    let parent = format!("parent = 'http://me:p%40ss@{address}'\n");
    let server = trusting(&place, None, &parent);
    let mut tunnel = connect(&proxy_of(&server));
    tunnel.write_all(b"CONNECT tls.deb.example:443 HTTP/1.1\r\nHost: x\r\n\r\nworld").unwrap();
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello world"), "{answer}");
    let heads = heads.lock().unwrap().clone();
    assert!(heads[0].starts_with("CONNECT tls.deb.example:443 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].contains("Proxy-Authorization: Basic bWU6cEBzcw==\r\n"), "{heads:?}");
}

#[test]
fn a_tunnel_carries_bytes_both_ways() {
    let (address, _heads) = echoing();
    let port = address.port();
    let world = World::new(&format!("allow_private = true\nconnect_ports = [{port}]\n"));
    let mut tunnel = world.connect();
    // The far end is the echo: what it takes for a head comes from us.
    let request = format!("CONNECT {address} HTTP/1.1\r\nHost: x\r\n\r\nhead\r\n\r\nbytes");
    tunnel.write_all(request.as_bytes()).unwrap();
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 Connection established\r\n\r\n"), "{answer}");
    assert!(answer.ends_with("hello bytes"), "{answer}");
}

#[test]
fn credentials_are_shown_to_their_upstream_only() {
    let (place, first, second) = (Place::new(), Origin::start(), Origin::start());
    let port = second.url("").rsplit_once(':').unwrap().1.to_owned();
    let password = place.write("password", "secret\n");
    let config = format!(
        "allow_private = true\nallow_ports = [{port}]\n[[proxy.upstream]]\nname = 'o'\nurl = '{}'\n\
         username = 'me'\npassword_file = '{}'\n",
        first.url(""),
        password.display()
    );
    let server = trusting(&place, None, &config);
    let proxy = format!("http://{}", proxy_of(&server));
    let get = |url: &str, more: &[&str]| curl(&place, &["-x", &proxy], more, url);
    let moved = Reply { status: 302, ..Reply::default() };
    first.put("/moved", moved.with(&format!("Location: {}\r\n", second.url("/there"))));
    second.put("/there", Reply::fresh("there"));
    second.put("/other", Reply::fresh("other"));

    assert_eq!(get(&first.url("/moved"), &[]).text(), "there");
    assert_eq!(first.asked(), ["GET /moved Basic bWU6c2VjcmV0"]);
    assert_eq!(second.asked(), ["GET /there"]);
    assert_eq!(get(&second.url("/other"), &[]).text(), "other");
    assert_eq!(second.asked(), ["GET /other"], "it is another upstream");
    // What clients show goes no further, either.
    second.put(
        "/moved",
        Reply { status: 302, ..Reply::default() }
            .with(&format!("Location: {}\r\n", first.url("/there"))),
    );
    first.put("/there", Reply::fresh("there"));
    get(&second.url("/moved"), &["-H", "Authorization: Bearer token"]);
    assert_eq!(second.asked(), ["GET /moved Bearer token"]);
    assert_eq!(first.asked(), ["GET /there"]);
    assert!(!server.log().contains("secret"));
}
