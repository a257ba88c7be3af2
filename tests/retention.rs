//! What the owner of a registry decides: what goes by itself, what cannot be moved, how much there
//! may be, and who is told.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::time::{Duration, SystemTime};

use boatyard_oci::Digest;
use support::http::Http;
use support::images::{self, image_of};
use support::receiver::Receiver;
use support::server::{Server, wait_for};
use support::{Place, Run};

/// Pushes an image of one layer; returns its digest.
fn push(http: &Http, repository: &str, tag: &str, layer: &[u8]) -> String {
    let (config, manifest) = image_of(layer);
    for blob in [layer, &config] {
        assert_eq!(http.push_blob(repository, blob).status, 201);
    }
    let answer = http.push_manifest(repository, tag, &manifest);
    assert_eq!(answer.status, 201, "{answer:?}");
    Digest::sha256(&manifest).to_string()
}

/// Has a tag be pushed some days ago.
fn age(place: &Place, repository: &str, tag: &str, days: u64) {
    let path = place.root().join(format!("hosted/{repository}/_tags/{tag}"));
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    fs_err::File::options().write(true).open(path).unwrap().into_file().set_modified(then).unwrap();
}

fn tags(http: &Http, repository: &str) -> Vec<String> {
    let listed = http.get(&format!("/v2/{repository}/tags/list"));
    let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
    listed["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// Runs a command with a configuration.
fn configured<const N: usize>(place: &Place, config: &str, args: [&str; N]) -> Run {
    place.boatyard(args).env("BOATYARD_CONFIG", place.write("command.toml", config))
}

#[test]
fn tags_that_no_rule_keeps_go_and_a_dry_run_says_why() {
    let place = Place::new();
    let server = Server::start(&place);
    let http = server.http();
    for tag in ["pr-1", "pr-2", "v1", "main"] {
        push(&http, "team/app", tag, &images::noise(tag.len() as u64, 10_000));
    }
    for tag in ["pr-1", "v1"] {
        age(&place, "team/app", tag, 40);
    }
    let config = "[[retention]]\nname = 'old'\nrepositories = 'team/**'\nkeep_within = '30d'\n\
                  [[immutable]]\nrepositories = '**'\ntags = 'v*'\n";
    let listed = configured(&place, config, ["retain", "--dry-run", "--json"]).ok().text();
    let rows: Vec<serde_json::Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |tag: &str| rows.iter().find(|row| row["Tag"] == tag).unwrap();
    assert_eq!((&row("pr-1")["Action"], &row("pr-1")["Rule"]), (&"remove".into(), &"old".into()));
    assert_eq!(row("main")["Reason"], "keep_within");
    assert_eq!((&row("v1")["Action"], &row("v1")["Reason"]), (&"keep".into(), &"immutable".into()));
    assert!(row("pr-1")["Bytes"].as_u64().unwrap() > 10_000, "{listed}");
    assert_eq!(tags(&http, "team/app"), ["main", "pr-1", "pr-2", "v1"]);
    let table = configured(&place, config, ["retain", "--dry-run"]).ok().text();
    assert!(table.contains("team/app") && table.contains("old: keep_within"), "{table}");

    let said = configured(&place, config, ["retain"]).ok().text();
    assert!(said.contains("1 tag and 0 manifests were removed"), "{said}");
    assert_eq!(tags(&http, "team/app"), ["main", "pr-2", "v1"]);
    let audit = place.boatyard(["audit", "--deed", "retire"]).ok().text();
    assert!(audit.contains("team/app") && audit.contains("pr-1"), "{audit}");
    place.boatyard(["retain"]).fails(2);
    let nothing = "[[retention]]\nrepositories = '**'\n";
    let said = configured(&place, nothing, ["retain"]).fails(2);
    assert!(said.stderr.contains("it keeps nothing"), "{}", said.stderr);
}

#[test]
fn a_server_keeps_to_its_rules_by_itself_and_quotas_have_room_again() {
    let place = Place::new();
    let server = Server::start(&place);
    push(&server.http(), "team/app", "old", &images::noise(1, 100_000));
    push(&server.http(), "team/app", "new", &images::noise(2, 1_000));
    age(&place, "team/app", "old", 40);
    server.stop();
    let config = "[gc]\nevery = '1s'\ngrace_seconds = 0\n\
                  [[retention]]\nrepositories = '**'\nkeep_within = '30d'\n\
                  [[quota]]\nname = 'team'\nrepositories = 'team/**'\nmax_size = '110KB'\n";
    let server = Server::configured(&place, &place.root(), config);
    let http = server.http();
    wait_for("the old tag to be gone", || tags(&http, "team/app") == ["new"]);
    wait_for("it to be said", || server.log().contains("retention removed 1 tag and 1 manifest"));
    let layer = images::noise(3, 100_000);
    wait_for("room", || http.push_blob("team/app", &layer).status == 201);
    http.check_image("team/app", "new");
}

#[test]
fn immutable_tags_and_quotas_hold_against_the_fields_clients() {
    let place = Place::new();
    let config = "[[immutable]]\nrepositories = '**'\ntags = 'v*'\n\
                  [[quota]]\nname = 'small'\nrepositories = 'small/**'\nmax_size = '50KB'\n";
    let server = Server::configured(&place, &place.root(), config);
    let http = server.http();
    push(&http, "team/app", "v1", &images::noise(1, 10_000));
    push(&http, "team/app", "latest", &images::noise(2, 60_000));
    let copy = |from: &str, to: &str| {
        let (from, to) = (server.image(from), server.image(to));
        place
            .run("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false"])
            .args(["--dest-tls-verify=false".to_owned()])
            .args([format!("docker://{from}"), format!("docker://{to}")])
    };
    copy("team/app:v1", "team/app:v1").ok();
    let refused = copy("team/app:latest", "team/app:v1").fails(1);
    assert!(refused.stderr.contains("the tag v1 of team/app is immutable"), "{}", refused.stderr);
    copy("team/app:v1", "small/app:1").ok();
    let refused = copy("team/app:latest", "small/app:2").fails(1);
    assert!(refused.stderr.contains("the quota `small` is 50000 bytes"), "{}", refused.stderr);
    let shown = configured(&place, config, ["df", "--json"]).ok().json();
    let quota = &shown["Quotas"][0];
    assert_eq!((&quota["Name"], &quota["MaxBytes"]), (&"small".into(), &50_000.into()));
    let used = quota["Bytes"].as_u64().unwrap();
    assert!((10_000..20_000).contains(&used), "{quota}");
    let table = configured(&place, config, ["df"]).ok().text();
    assert!(table.contains("of 50kB"), "{table}");
}

/// Returns the configuration of one webhook, with a secret.
fn webhook(place: &Place, receiver: &Receiver) -> String {
    let secret = place.write("secret", "the key\n");
    format!(
        "[[webhook]]\nname = 'ci'\nurl = '{}'\nrepositories = 'team/**'\nbackoff = '1s'\n\
         secret_file = '{}'\nheaders = {{ X-Team = 'one' }}\n",
        receiver.url(),
        secret.display()
    )
}

#[test]
fn webhooks_are_told_what_happens_and_again_until_they_listen() {
    let place = Place::new();
    let receiver = Receiver::refusing(2);
    let config = webhook(&place, &receiver);
    let server = Server::configured(&place, &place.root(), &config);
    let http = server.http();
    let digest = push(&http, "team/app", "1.0", &images::noise(1, 10_000));
    push(&http, "other/app", "1.0", &images::noise(2, 10_000));
    wait_for("the push", || receiver.told() == ["push team/app 1.0"]);
    assert_eq!(receiver.refused(), 2);
    let event = receiver.events().remove(0);
    assert_eq!(event["target"]["digest"], *digest);
    assert_eq!(event["target"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let url = format!("http://{}/v2/team/app/manifests/{digest}", server.address());
    assert_eq!(event["target"]["url"], *url);
    assert_eq!(event["actor"]["name"], "anonymous");
    assert_eq!(
        (&event["request"]["method"], &event["request"]["addr"]),
        (&"PUT".into(), &"127.0.0.1".into())
    );
    let posted = &receiver.taken()[0];
    let media_type = "application/vnd.docker.distribution.events.v2+json";
    assert_eq!(posted.header("content-type"), Some(media_type));
    assert_eq!(posted.header("x-team"), Some("one"));
    let signed = place
        .run("openssl", ["dgst", "-sha256", "-hmac", "the key", "-r"])
        .input(posted.body.clone())
        .ok()
        .text();
    let signature = format!("sha256={}", signed.split(' ').next().unwrap());
    assert_eq!(posted.header("x-boatyard-signature-256"), Some(&*signature));

    http.manifest("team/app", "1.0");
    wait_for("the pull", || receiver.told().contains(&"pull team/app 1.0".to_owned()));
    let blob = Digest::sha256(&images::noise(2, 10_000));
    let mount = format!("/v2/team/app/blobs/uploads/?mount={blob}&from=other/app");
    assert_eq!(http.send("POST", &mount, "", &[]).status, 201);
    wait_for("the mount", || receiver.told().contains(&format!("mount team/app {blob}")));
    let from = receiver.events().pop().unwrap();
    assert_eq!(from["target"]["fromRepository"], "other/app");
    assert_eq!(http.send("DELETE", "/v2/team/app/manifests/1.0", "", &[]).status, 202);
    wait_for("the deletion", || receiver.told().contains(&"delete team/app 1.0".to_owned()));
    wait_for("all to be counted", || {
        let metrics = http.get("/metrics").text();
        metrics.contains("boatyard_webhook_events_total{result=\"delivered\"} 4")
            && metrics.contains("boatyard_webhook_failures_total 2")
            && metrics.contains("boatyard_webhook_envelopes_owed 0")
    });
}

#[test]
fn what_is_owed_survives_a_kill_and_what_others_do_is_told_too() {
    let place = Place::new();
    let receiver = Receiver::refusing(usize::MAX);
    let config = webhook(&place, &receiver);
    let server = Server::configured(&place, &place.root(), &config);
    let http = server.http();
    push(&http, "team/app", "1.0", &images::noise(1, 1_000));
    // It may have been owed already or not: the journal has it in any case.
    server.kill();
    let rules = "[[retention]]\nrepositories = 'team/**'\nkeep = 'latest'\n";
    configured(&place, rules, ["retain"]).ok();
    receiver.accept();
    let server = Server::configured(&place, &place.root(), &config);
    let told = |what: &str| receiver.told().iter().any(|told| told == what);
    wait_for("the push before the kill", || told("push team/app 1.0"));
    wait_for("what another process did", || told("delete team/app 1.0"));
    // While it runs, too.
    push(&server.http(), "team/app", "2.0", &images::noise(2, 1_000));
    configured(&place, rules, ["retain"]).ok();
    wait_for("what another process does", || told("delete team/app 2.0"));
    let events = receiver.events();
    let by = |tag: &str| {
        let of = |event: &&serde_json::Value| {
            event["action"] == "delete" && event["target"]["tag"] == tag
        };
        events.iter().find(of).unwrap()["actor"]["name"].as_str().unwrap().to_owned()
    };
    assert!(by("1.0").starts_with("uid:") && by("2.0").starts_with("uid:"));
    server.stop();
}
