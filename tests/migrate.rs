//! Another registry's repositories are taken over, from its directory and by its API, with their
//! digests.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use boatyard_oci::Digest;
use support::Place;
use support::clients::{Client as _, Skopeo};
use support::distribution::Distribution;
use support::http::Http;
use support::images::{self, image_of};
use support::place::text;
use support::server::Server;

/// What is printed on standard output.
trait Prints {
    /// Fails the test unless standard output has all of these in it.
    fn prints<const N: usize>(&self, parts: [&str; N]);
}

impl Prints for support::process::Ran {
    #[track_caller]
    fn prints<const N: usize>(&self, parts: [&str; N]) {
        for part in parts {
            assert!(self.text().contains(part), "should print {part:?}:\n{self}");
        }
    }
}

/// Pushes an image of one layer and returns the manifest's digest.
fn push(http: &Http, repository: &str, tag: &str, layer: &[u8]) -> Digest {
    let (config, manifest) = image_of(layer);
    for blob in [layer, &config] {
        assert_eq!(http.push_blob(repository, blob).status, 201);
    }
    assert_eq!(http.push_manifest(repository, tag, &manifest).status, 201);
    Digest::sha256(&manifest)
}

/// Pushes an index over manifests that are there.
fn push_index(http: &Http, repository: &str, tag: &str, children: &[&Digest]) -> Digest {
    let manifests: Vec<_> = children
        .iter()
        .map(|digest| {
            let bytes = http.manifest(repository, &digest.to_string()).body;
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": bytes.len(),
                "platform": { "os": "linux", "architecture": "amd64" },
            })
        })
        .collect();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    let bytes = serde_json::to_vec(&index).unwrap();
    assert_eq!(http.push_manifest(repository, tag, &bytes).status, 201);
    Digest::sha256(&bytes)
}

/// Pushes what says something about a manifest, under no tag.
fn push_referrer(http: &Http, repository: &str, subject: &Digest) -> Digest {
    let size = http.manifest(repository, &subject.to_string()).body.len();
    assert_eq!(http.push_blob(repository, b"{}").status, 201);
    let referrer = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": Digest::sha256(b"{}"),
            "size": 2,
        },
        "layers": [],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": subject,
            "size": size,
        },
    });
    let bytes = serde_json::to_vec(&referrer).unwrap();
    let digest = Digest::sha256(&bytes);
    assert_eq!(http.push_manifest(repository, &digest.to_string(), &bytes).status, 201);
    digest
}

/// Puts an image of the format before Docker 1.10 behind a tag, as old registries have them.
fn plant_schema_1(data: &std::path::Path, repository: &str, tag: &str) {
    let bytes = br#"{"schemaVersion":1,"name":"old","tag":"1","architecture":"amd64",
        "fsLayers":[],"history":[],"signatures":[]}"#;
    let digest = Digest::sha256(bytes);
    let base = data.join("docker/registry/v2");
    let write = |path: std::path::PathBuf, bytes: &[u8]| {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    };
    let link = digest.to_string();
    let its = base.join("repositories").join(repository).join("_manifests");
    let blob = base.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    write(blob.join("data"), bytes);
    write(its.join("revisions/sha256").join(digest.hex()).join("link"), link.as_bytes());
    write(its.join("tags").join(tag).join("current/link"), link.as_bytes());
}

#[test]
fn a_directory_of_docker_registry_is_taken_over() {
    let place = Place::new();
    let data = place.path("data");
    let theirs = Distribution::start(&place, &data);
    let http = Http::new(theirs.address());
    let [one, two] = [1, 2].map(|seed| images::noise(seed, 100_000));
    let first = push(&http, "team/app", "1", &one);
    let second = push(&http, "team/app", "2", &two);
    let index = push_index(&http, "team/app", "all", &[&first, &second]);
    // A tag that moved leaves a manifest without one.
    let untagged = push(&http, "other", "latest", b"before");
    let other = push(&http, "other", "latest", &one);
    let signature = push_referrer(&http, "team/app", &first);
    drop(theirs);
    plant_schema_1(&data, "old/app", "1");

    let plan = ["migrate", "--from-directory", text(&data), "--dry-run"];
    let plan = place.boatyard(plan).ok().text();
    assert!(plan.contains("team/app") && plan.contains("old/app"), "{plan}");
    assert!(!place.root().join("hosted").exists());
    let migrate = || place.boatyard(["migrate", "--from-directory", text(&data)]);
    migrate()
        .args(["--repository", "team/**", "--tags", "1"])
        .ok()
        .prints(["1 tag and 2 manifests"]);
    let said = migrate().ok().text();
    assert!(said.contains("skipped: old/app:1: it is of schema 1"), "{said}");
    assert!(said.contains("1 tag was here before, 1 skipped, 0 failed"), "{said}");
    migrate().arg("--all").ok().prints(["0 tags and 1 manifest came", "4 tags were here before"]);

    let server = Server::start(&place);
    let ours = server.http();
    assert_eq!(ours.check_image("team/app", "1"), first);
    assert_eq!(ours.check_image("team/app", "2"), second);
    assert_eq!(Digest::sha256(&ours.manifest("team/app", "all").body), index);
    assert_eq!(ours.check_image("other", "latest"), other);
    ours.check_image("other", &untagged.to_string());
    let referrers = ours.get(&format!("/v2/team/app/referrers/{first}")).body;
    assert!(String::from_utf8_lossy(&referrers).contains(&signature.to_string()));
    let skopeo = Skopeo::new(&place);
    assert_eq!(skopeo.pull(&server.image("team/app:2")), second);

    // A tag of ours stays where it points, unless it is said otherwise; damage does not come along.
    let own = push(&ours, "team/app", "2", b"ours");
    migrate().ok().prints(["skipped: team/app:2: it points at", "--overwrite"]);
    assert_eq!(ours.check_image("team/app", "2"), own);
    migrate().arg("--overwrite").ok();
    assert_eq!(ours.check_image("team/app", "2"), second);
    let layer = Digest::sha256(&two);
    let blobs = data.join("docker/registry/v2/blobs/sha256");
    let blob = blobs.join(&layer.hex()[..2]).join(layer.hex()).join("data");
    let mut bytes = fs_err::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs_err::write(&blob, bytes).unwrap();
    ours.check_image("team/app", "2");
    let fresh = place.path("fresh");
    let said =
        place.boatyard_at(&fresh, ["migrate", "--from-directory", text(&data)]).fails(1).text();
    assert!(said.contains("failed: team/app:2: ") && said.contains("is damaged there"), "{said}");
    place.boatyard_at(&fresh, ["fsck"]).ok();
    let nothing = ["migrate", "--from-directory", text(&fresh)];
    place.boatyard(nothing).fails(1).says(["is no storage of a docker-registry", "rootdirectory"]);
}

#[test]
fn a_registry_is_taken_over_by_its_api_and_again_for_what_is_new() {
    let place = Place::new();
    let theirs = Distribution::start(&place, &place.path("data"));
    let url = format!("http://{}", theirs.address());
    let http = Http::new(theirs.address());
    let [one, two] = [1, 2].map(|seed| images::noise(seed, 100_000));
    let first = push(&http, "team/app", "1", &one);
    let second = push(&http, "team/app", "2", &two);
    let index = push_index(&http, "team/app", "all", &[&first, &second]);
    push(&http, "secret", "1", b"not asked for");
    let plan = ["migrate", "--from", &url, "--dry-run", "--repository", "team/**"];
    let plan = place.boatyard(plan).ok().text();
    assert!(plan.contains("team/app     3") && !plan.contains("secret"), "{plan}");
    let migrate =
        || place.boatyard(["migrate", "--quiet", "--from", &url, "--repository", "team/**"]);
    migrate().ok().prints(["1 repository: 3 tags and 3 manifests came"]);
    let third = push(&http, "team/app", "3", b"new");
    migrate().ok().prints(["1 tag and 1 manifest came", "3 tags were here before"]);

    let server = Server::start(&place);
    for (tag, digest) in [("1", &first), ("2", &second), ("3", &third)] {
        assert_eq!(server.http().check_image("team/app", tag), *digest);
    }
    assert_eq!(Digest::sha256(&server.http().manifest("team/app", "all").body), index);
    assert_eq!(server.http().manifest("secret", "1").status, 404);
    let skopeo = Skopeo::new(&place);
    assert_eq!(skopeo.pull(&server.image("team/app:1")), first);
    // From one that has the referrers API, what refers to an image comes with it.
    let signature = push_referrer(&server.http(), "team/app", &first);
    let other = place.path("other");
    let ours = format!("http://{}", server.address());
    let args = ["migrate", "--quiet", "--from", &ours, "--tags", "1"];
    place.boatyard_at(&other, args).ok().prints(["1 tag and 2 manifests came"]);
    let there = Server::start_at(&place, &other);
    let referrers = there.http().get(&format!("/v2/team/app/referrers/{first}")).body;
    assert!(String::from_utf8_lossy(&referrers).contains(&signature.to_string()));
    drop(server);
    place.boatyard_at(&other, args).fails(1).says(["cannot list the repositories of"]);
}
