//! Who may do what, as clients see it that we did not write: on one port, everybody pulls what is
//! everybody's, and whoever logs in pulls and pushes what is theirs.

mod support;

use support::clients::{Containerd, Docker, Podman};
use support::place::text;
use support::{Place, Run, Server, images};

const RULES: &str = r#"
[groups]
builders = ["token:ci", "cert:runner.example"]

[[rule]]
repositories = "public/**"
who = ["anonymous"]
allow = ["pull"]

[[rule]]
repositories = ["public/**", "team/**"]
who = ["user:alice", "group:builders"]
allow = ["pull", "push"]
"#;

fn add_user(place: &Place, name: &str, password: &str) {
    place.boatyard(["user", "add", name, "--password-stdin"]).input(password).ok();
}

/// Returns `skopeo copy` between an OCI archive and the registry, with credentials or none.
fn skopeo(place: &Place, command: &str, credentials: &[&str]) -> Run {
    place
        .run("skopeo", ["--insecure-policy", command])
        .env("REGISTRY_AUTH_FILE", place.path("nobody.json"))
        .args(credentials)
}

#[test]
fn every_client_logs_in_pulls_and_pushes_on_one_port() {
    let place = Place::new();
    let rootfs = images::archive(&place, &images::busybox_tree(&place), "rootfs.tar");
    let server = Server::configured(&place, &place.root(), RULES);
    place.write("nobody.json", "{}");
    // The server runs already.
    add_user(&place, "alice", "correct horse");
    let (docker, podman) = (Docker::start(&place), Podman::new(&place));
    let containerd = Containerd::start(&place);
    let (public, team) = (server.image("public/app:1"), server.image("team/app:1"));

    // Nobody may push, and the wrong password is refused.
    docker.docker(["import", text(&rootfs), &public]).ok();
    assert_ne!(docker.docker(["push", "-q", &public]).run().code, Some(0));
    let wrong = ["login", "-u", "alice", "-p", "wrong", server.address()];
    assert_ne!(docker.docker(wrong).run().code, Some(0));
    let wrong = ["login", "--tls-verify=false", "-u", "alice", "-p", "wrong", server.address()];
    let own = place.path("podman.json");
    assert_ne!(podman.podman(wrong).env("REGISTRY_AUTH_FILE", &own).run().code, Some(0));

    // Alice pushes, with docker, podman and ctr.
    let right = ["login", "-u", "alice", "-p", "correct horse", server.address()];
    docker.docker(right).ok();
    docker.docker(["push", "-q", &public]).ok();
    docker.docker(["tag", &public, &team]).ok();
    docker.docker(["push", "-q", &team]).ok();
    let right =
        ["login", "--tls-verify=false", "-u", "alice", "-p", "correct horse", server.address()];
    // Its own home: where docker has logged in with a refresh token, podman refuses to.
    let home = place.path("podman-home");
    fs_err::create_dir_all(&home).unwrap();
    podman.podman(right).env("REGISTRY_AUTH_FILE", &own).env("HOME", &home).ok();
    let image = server.image("team/by-podman:1");
    podman.podman(["import", text(&rootfs), &image]).ok();
    podman
        .podman(["push", "-q", "--tls-verify=false", &image])
        .env("REGISTRY_AUTH_FILE", &own)
        .ok();
    let user = ["--user", "alice:correct horse"];
    containerd.ctr(["images", "pull", "--plain-http"]).args(user).arg(&team).ok();
    let image = server.image("team/by-ctr:1");
    containerd.ctr(["images", "tag", &team, &image]).ok();
    containerd.ctr(["images", "push", "--plain-http"]).args(user).arg(&image).ok();

    // Everybody pulls what is everybody's, and nothing else.
    docker.docker(["logout", server.address()]).ok();
    docker.docker(["rmi", "-f", &public, &team]).ok();
    let inspect = |image: &str, credentials: &[&str]| {
        let address = format!("docker://{image}");
        skopeo(&place, "inspect", credentials).args(["--tls-verify=false", "--raw", &address]).run()
    };
    for (image, code) in [(&public, true), (&team, false)] {
        let nobody = podman
            .podman(["pull", "-q", "--tls-verify=false", image])
            .env("REGISTRY_AUTH_FILE", place.path("nobody.json"))
            .run();
        assert_eq!(nobody.code == Some(0), code, "podman {image}");
        assert_eq!(
            docker.docker(["pull", "-q", image]).run().code == Some(0),
            code,
            "docker {image}"
        );
        let pull = containerd.ctr(["images", "pull", "--plain-http", image]).run();
        assert_eq!(pull.code == Some(0), code, "ctr {image}");
        assert_eq!(inspect(image, &[]).code == Some(0), code, "skopeo {image}");
    }

    // A token is a password, within its scope, until it is revoked.
    let create = ["token", "create", "ci", "--scope", "team/**:pull", "--note", "for the test"];
    let token = place.boatyard(create).ok().text();
    let credentials = format!("--creds=anybody:{token}");
    assert_eq!(inspect(&team, &[&credentials]).code, Some(0));
    assert_ne!(inspect(&public, &[&credentials]).code, Some(0), "its scope ends at team/");
    place.boatyard(["token", "revoke", "ci"]).ok();
    assert_ne!(inspect(&team, &[&credentials]).code, Some(0), "it is revoked");
    assert_eq!(inspect(&team, &["--creds=alice:correct horse"]).code, Some(0));
    place.boatyard(["user", "remove", "alice"]).ok();
    assert_ne!(inspect(&team, &["--creds=alice:correct horse"]).code, Some(0), "she is gone");

    let audit = place.boatyard(["audit", "--format", "json"]).ok().text();
    for deed in
        ["push", "login-failed", "user-added", "user-removed", "token-created", "token-revoked"]
    {
        assert!(audit.contains(&format!("\"deed\":\"{deed}\"")), "{deed}:\n{audit}");
    }
    assert!(!audit.contains("horse") && !audit.contains(&token), "no secret is written down");
    drop((docker, containerd));
    server.stop();
}

#[test]
fn a_certificate_says_who_somebody_is() {
    let place = Place::new();
    let openssl = |args: &str| {
        place.run("openssl", []).args(args.split(' ')).current_dir(&place.path("")).ok();
    };
    let ca = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority";
    openssl(&format!("{ca} -keyout ca.key -out ca.crt"));
    for (name, names) in
        [("server", "DNS:localhost,IP:127.0.0.1"), ("client", "DNS:runner.example")]
    {
        place.write(&format!("{name}.ext"), format!("subjectAltName={names}\n"));
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out \
             {name}.crt -extfile {name}.ext"
        ));
    }
    let at = |name: &str| text(&place.path(name)).to_owned();
    let config = format!(
        "[serve]\ntls_cert = '{}'\ntls_key = '{}'\ntls_client_ca = '{}'\n{RULES}",
        at("server.crt"),
        at("server.key"),
        at("ca.crt")
    );
    let server = Server::configured(&place, &place.root(), &config);
    let url = |path: &str| format!("https://{}/v2/{path}", server.address());
    let curl = || {
        place.run(
            "curl",
            ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &at("ca.crt")],
        )
    };
    let client = || curl().args(["--cert", &at("client.crt"), "--key", &at("client.key")]);
    let begin = ["-X", "POST", "-H", "Content-Length: 0", &url("team/app/blobs/uploads/")];
    assert_eq!(client().args(begin).ok().text(), "202");
    assert_eq!(client().arg(url("")).ok().text(), "200");
    assert_eq!(curl().args(begin).ok().text(), "401");
    let headers = place.run("curl", ["-sSD", "-", "-o", "/dev/null", "--cacert", &at("ca.crt")]);
    let challenge = headers.arg(url("")).ok().text();
    let realm = format!("Bearer realm=\"https://{}/v2/token\"", server.address());
    assert!(challenge.contains(&realm), "{challenge}");

    // Over TLS as over plain HTTP, clients log in.
    add_user(&place, "alice", "correct horse");
    let rootfs = images::archive(&place, &images::busybox_tree(&place), "rootfs.tar");
    let context = place.context("new", "FROM scratch\nADD rootfs.tar /\n");
    fs_err::copy(&rootfs, context.join("rootfs.tar")).unwrap();
    let layout = at("layout.tar");
    let output = format!("type=oci,dest={layout}");
    place.boatyard(["build", "-q", "-o", &output, text(&context)]).ok();
    place.write("certificates/ca.crt", fs_err::read(place.path("ca.crt")).unwrap());
    let certificates = format!("--dest-cert-dir={}", at("certificates"));
    let to = format!("docker://{}", server.image("team/app:1"));
    let copy = |credentials: &str| {
        skopeo(&place, "copy", &["-q", &certificates, credentials])
            .args([format!("oci-archive:{layout}"), to.clone()])
            .run()
            .code
    };
    assert_eq!(copy("--dest-creds=alice:correct horse"), Some(0));
    assert_ne!(copy("--dest-creds=alice:wrong"), Some(0));
    server.stop();
}

#[test]
fn without_rules_only_this_machine_pushes() {
    let place = Place::new();
    let server = Server::start(&place);
    let post =
        |headers: &str| server.http().send("POST", "/v2/app/blobs/uploads/", headers, b"").status;
    assert_eq!(post(""), 202);
    assert_eq!(post("X-Forwarded-For: 203.0.113.9\r\n"), 401, "somebody behind a proxy");
    let rebound = place.run("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"]);
    let url = format!("http://{}/v2/app/blobs/uploads/", server.address());
    let status = rebound.args(["-H", "Host: evil.example", &url]).ok().text();
    assert_eq!(status, "401", "a page of the web that has our address under its own name");
    assert!(server.log().contains("there is no [[rule]]"), "{}", server.log());
    server.stop();
}

#[test]
fn whoever_has_the_files_gets_back_in() {
    let place = Place::new();
    let locked = "[[rule]]\nrepositories = 'nothing'\nwho = ['user:nobody']\nallow = ['pull']\n";
    let server = Server::configured(&place, &place.root(), locked);
    let token =
        place.boatyard(["token", "create", "me", "--rescue", "--expires", "1h"]).ok().text();
    let begin =
        |headers: &str| server.http().send("POST", "/v2/app/blobs/uploads/", headers, b"").status;
    assert_eq!(begin(""), 401);
    assert_eq!(begin(&format!("Authorization: Bearer {token}\r\n")), 202);
    server.stop();
}

#[test]
fn mistakes_are_explained() {
    let place = Place::new();
    let users = |args: &[&str]| place.boatyard(["user"]).args(args).input("password");
    users(&["add", "alice", "--password-stdin"]).ok();
    users(&["add", "alice", "--password-stdin"]).fails(1).says(["there is a user alice already"]);
    users(&["remove", "bob"]).fails(1).says(["there is no user bob"]);
    place.boatyard(["user", "add", "carol", "--password-stdin"]).input("").fails(2);
    assert_eq!(
        place.boatyard(["user", "list", "--format", "json"]).ok().text(),
        r#"{"name":"alice"}"#
    );
    place
        .boatyard(["token", "create", "x", "--scope", "team/**:pul"])
        .fails(2)
        .says(["`pul` is no right"]);
    let weak = place.write("htpasswd", "bob:$apr1$salt$hash\n");
    let config = place.write("bad.toml", format!("[access]\nhtpasswd = '{}'\n", text(&weak)));
    let serve = place.boatyard(["serve", "--listen", "127.0.0.1:0"]);
    serve.env("BOATYARD_CONFIG", &config).fails(1).says(["line 1", "MD5"]);
    let config = place
        .write("bad.toml", "[[rule]]\nrepositories = '**'\nwho = ['alice']\nallow = ['pull']\n");
    let serve = place.boatyard(["serve", "--listen", "127.0.0.1:0"]);
    serve.env("BOATYARD_CONFIG", &config).fails(2).says(["`alice` names nobody"]);
}
