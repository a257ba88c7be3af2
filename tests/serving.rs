//! A server that is looked after: its configuration and certificate change, its numbers are read,
//! its log and its traces go to programs.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::Place;
use support::http::Http;
use support::images;
use support::place::text;
use support::server::{Server, wait_for};

#[test]
fn a_configuration_is_read_again_and_a_wrong_one_refused() {
    let place = Place::new();
    let server = Server::configured(&place, &place.root(), "");
    let status = || server.http().get("/hub/v2/").status;
    assert_eq!(status(), 404);
    let mirror = "[[mirror]]\nname = 'hub'\nurl = 'http://127.0.0.1:1'\n";
    place.write("root.toml", format!("{mirror}[serve]\nstop_seconds = 7\n"));
    server.hang_up();
    wait_for("the mirror to be there", || status() == 200);
    wait_for("what needs a restart to be said", || {
        server.log().contains("serve.stop_seconds has changed: that needs a restart")
    });
    place.write("root.toml", "[[mirror]]\nname = 'other'\nurll = 'x'\n");
    server.hang_up();
    wait_for("the refusal", || server.log().contains("the configuration stays as it was"));
    assert!(server.log().contains("line 3") && server.log().contains("urll"), "{}", server.log());
    assert_eq!(status(), 200, "what was in force stays");
    place.write("root.toml", "");
    server.hang_up();
    wait_for("the mirror to be gone", || status() == 404);
    server.stop();
}

/// Makes a certificate for this machine that is its own authority.
fn certificate(place: &Place, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) =
        (place.path(&format!("{name}.crt")), place.path(&format!("{name}.key")));
    let openssl = place.run("openssl", ["req", "-x509", "-newkey", "ec", "-nodes"]);
    let names = ["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"];
    let files = ["-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&certificate), "-keyout"];
    openssl.args(files).args([text(&key)]).args(names).ok();
    (certificate, key)
}

#[test]
fn a_renewed_certificate_is_served_to_who_comes_next() {
    let place = Place::new();
    let (old, new) = (certificate(&place, "old"), certificate(&place, "new"));
    let (used, key) = (place.path("used.crt"), place.path("used.key"));
    let take = |from: &(PathBuf, PathBuf)| {
        for (from, to) in [(&from.0, &used), (&from.1, &key)] {
            fs_err::copy(from, to.with_extension("next")).unwrap();
            fs_err::rename(to.with_extension("next"), to).unwrap();
        }
    };
    take(&old);
    let config = format!("[serve]\ntls_cert = '{}'\ntls_key = '{}'\n", text(&used), text(&key));
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = place.write("tls.toml", config);
    let serve = ["--config", text(&config), "serve", "--listen", &address];
    let mut server =
        place.boatyard(serve).spawn(std::process::Stdio::null(), std::process::Stdio::null());
    let url = format!("https://{address}/v2/");
    let trusts = |authority: &Path| {
        place.run("curl", ["-sf", "--cacert", text(authority), &url]).run().code == Some(0)
    };
    wait_for("the server to serve HTTPS", || trusts(&old.0));
    assert!(!trusts(&new.0));
    // Nobody tells the server.
    take(&new);
    wait_for("the new certificate", || trusts(&new.0));
    assert!(!trusts(&old.0));
    fs_err::write(&used, "no certificate").unwrap();
    let pid = Pid::from_child(&server);
    kill_process(pid, Signal::HUP).unwrap();
    wait_for("the server to have looked", || trusts(&new.0));
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn what_is_counted_is_what_happened() {
    let place = Place::new();
    let server = Server::configured(&place, &place.root(), "[metrics]\nlisten = '127.0.0.1:0'\n");
    let http = server.http();
    let blob = images::noise(1, 100_000);
    assert_eq!(http.push_blob("team/app", &blob).status, 201);
    let digest = boatyard_oci::Digest::sha256(&blob);
    assert_eq!(http.get(&format!("/v2/team/app/blobs/{digest}")).body.len(), blob.len());
    assert_eq!(http.get("/v2/team/app/manifests/none").status, 404);
    wait_for("the numbers", || {
        let text = http.get("/metrics").text();
        [
            r#"http_requests_total{service="registry",route="blob",method="GET",code="200"} 1"#,
            r#"http_requests_total{service="registry",route="manifest",method="GET",code="404"} 1"#,
            r#"http_received_bytes_total{service="registry"} 100000"#,
            r#"http_request_duration_seconds_count{service="registry",route="upload"} 2"#,
            "root_free_bytes",
        ]
        .iter()
        .all(|line| text.contains(line))
    });
    let forwarded = http.send("GET", "/metrics", "X-Forwarded-For: 192.0.2.1\r\n", &[]);
    assert_eq!(forwarded.status, 404, "not for strangers");
    let log = server.log();
    let own = log.lines().find_map(|line| line.split_once("metrics are at http://")).unwrap().1;
    let own = Http::new(own.trim_end_matches("/metrics"));
    assert!(
        own.send("GET", "/metrics", "X-Forwarded-For: 192.0.2.1\r\n", &[]).text().contains("# EOF")
    );
    assert_eq!(own.get("/v2/").status, 404, "nothing else is there");
}

#[test]
fn the_log_is_for_programs_where_they_ask() {
    let place = Place::new();
    let server = Server::configured(&place, &place.root(), "[log]\nformat = 'json'\n");
    let named =
        server.http().send("GET", "/v2/a/tags/list?token=hidden", "X-Request-Id: job-17\r\n", &[]);
    assert_eq!(named.header("x-request-id"), Some("job-17"));
    let entry = || {
        let log = server.log();
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        lines.into_iter().find(|line| line["id"] == "job-17" && line["status"] == 404)
    };
    wait_for("the line of the request", || entry().is_some());
    let entry = entry().unwrap();
    assert_eq!((&entry["service"], &entry["method"]), (&"registry".into(), &"GET".into()));
    assert!(!server.log().contains("hidden"), "a query may hold secrets");
    let quiet = Server::configured(&place, &place.path("quiet"), "[log]\naccess = false\n");
    quiet.http().get("/v2/a/tags/list");
    quiet.http().get("/v2/a/tags/list");
    assert!(!quiet.log().contains("/v2/a/tags"), "{}", quiet.log());
}

/// The first line of each request, and its body.
type Posted = Arc<Mutex<Vec<(String, Value)>>>;

/// Takes what is posted, and answers that it was taken.
fn collector() -> (String, Posted) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let taken = Posted::default();
    let posted = Arc::clone(&taken);
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(connection);
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                lines.push(line.to_lowercase());
            }
            let length = lines.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let _ = reader.get_mut().write_all(answer.as_bytes());
            if let Some(first) = lines.first() {
                let body = serde_json::from_slice(&body).unwrap_or_default();
                posted.lock().unwrap().push((first.trim().to_owned(), body));
            }
        }
    });
    (address, taken)
}

#[test]
fn spans_are_sent_to_a_collector() {
    let place = Place::new();
    let (address, taken) = collector();
    let config = format!("[traces]\nendpoint = 'http://{address}'\n");
    let server = Server::configured(&place, &place.root(), &config);
    server.http().send("GET", "/v2/", "X-Request-Id: traced\r\n", &[]);
    // What waits is sent at the end.
    server.stop();
    let taken = taken.lock().unwrap();
    let (asked, _) = taken.first().expect("something was sent");
    assert_eq!(asked, "post /v1/traces http/1.1");
    let text = taken.iter().map(|(_, body)| body.to_string()).collect::<String>();
    assert!(text.contains("resourceSpans") && text.contains("\"boatyard\""), "{text}");
    assert!(text.contains("\"request\"") && text.contains("traced"), "{text}");
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let place = Place::new();
    let good = place.write("good.toml", "[[mirror]]\nname = 'hub'\nurl = 'docker.io'\n");
    let checked = place.boatyard(["config", "check", text(&good)]).ok().text();
    assert!(checked.ends_with("good.toml can be used"), "{checked}");
    let shown = place.boatyard(["--config", text(&good), "config", "show"]).ok().text();
    assert!(
        shown.contains("tag_ttl = \"5m\"") && shown.contains("grace_seconds = 3600"),
        "{shown}"
    );
    // What is shown is a configuration, and the same one.
    let again = place.write("again.toml", &shown);
    let twice = place.boatyard(["--config", text(&again), "config", "show"]).ok().text();
    assert_eq!(
        shown.lines().skip(1).collect::<Vec<_>>(),
        twice.lines().skip(1).collect::<Vec<_>>()
    );
    for (name, config, said) in [
        ("key", "[serve]\nlissten = 1\n", "line 2"),
        ("url", "[[mirror]]\nname = 'a'\nurl = 'ftp://a'\n", "[[mirror]] `a` cannot be used"),
        ("file", "[serve]\ntls_cert = '/none'\ntls_key = '/none'\n", "/none"),
        ("half", "[serve]\ntls_cert = '/none'\n", "both tls_cert and tls_key"),
        ("level", "[log]\nlevel = 'a=b=c'\n", "log.level"),
    ] {
        let file = place.write(&format!("{name}.toml"), config);
        let checked = place.boatyard(["config", "check", text(&file)]).run();
        assert_ne!(checked.code, Some(0), "{name}");
        assert!(checked.stderr.contains(said), "{name}: {checked}");
    }
    assert!(!place.root().exists(), "nothing was made");
}
