//! The ways from the cache proxy to its upstreams: by HTTPS and HTTP/2, through another proxy, in
//! tunnels, with credentials.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use support::Place;
use support::origin::{Origin, Reply};
use support::proxy::{World, connect, curl, proxy_of, trusting};
use support::secure::Secure;
use support::server::wait_for;

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
    let upstream = Secure::start(&place, |_| Some(b"secure".to_vec()));
    let (address, port) = (upstream.address, upstream.address.port());
    let authority = upstream.authority.clone();
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

#[test]
fn the_configuration_is_read_again() {
    let world = World::new("max_size = '1GB'\n");
    let second = Origin::start();
    second.put("/a", Reply::fresh("second"));
    world.origin.put("/a", Reply::fresh("first"));
    let (server, proxy) = (&world.server, world.proxy.clone());
    let get = |path: &str| curl(&world.place, &[], &[], &format!("http://{proxy}{path}"));
    let mut kept = connect(&proxy);
    let mut ask_on = |path: &str| {
        kept.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(kept.try_clone().unwrap());
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let start = head.len();
            reader.read_line(&mut head).unwrap();
            let line = head[start..].to_lowercase();
            length =
                line.strip_prefix("content-length: ").map_or(length, |l| l.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((get("/o/a").text(), get("/two/a").status), ("first", 400));
    assert_eq!(ask_on("/two/a"), "400");
    let config = |listen: &str, url: &str| {
        let text = format!(
            "[proxy]\nlisten = ['{listen}']\n[[proxy.upstream]]\nname = 'two'\nurl = '{url}'\n"
        );
        world.place.write("root.toml", text);
        server.hang_up();
    };
    config("127.0.0.1:0", &second.url(""));
    wait_for("the new upstream", || get("/two/a").status == 200);
    assert_eq!(ask_on("/two/a"), "200", "a connection that was open goes by it, too");
    assert_eq!(get("/o/a").status, 400, "it has no such name any more");
    assert_eq!(world.ask(&world.origin.url("/b"), &[]).status, 403, "nor may it be asked");
    // What cannot be used changes nothing.
    config("127.0.0.1:0", "ftp://nowhere.example");
    wait_for("the refusal", || server.log().contains("the configuration stays as it was"));
    assert_eq!(get("/two/a").status, 200);
    config("127.0.0.1:1", &second.url(""));
    wait_for("what needs a restart", || {
        server.log().contains("proxy.listen has changed: that needs a restart")
    });
    assert_eq!(get("/two/a").status, 200);
}
