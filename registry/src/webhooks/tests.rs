use boatyard_content::local::RootOptions;
use boatyard_content::repository::{Repository, Space};
use boatyard_oci::{Digest, Manifest, MediaType, Tag};
use boatyard_upstream::{ProxyUse, Timeouts, Trust};
use http::HeaderValue;
use serde_json::Value;

use super::*;
use crate::tests::support;

struct World {
    root: Arc<Root>,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        World { root, _directory: directory }
    }

    fn webhooks(&self, hooks: Vec<Webhook>) -> Arc<Webhooks> {
        let address = "registry.example:5000".to_owned();
        let webhooks = Webhooks::new(Arc::clone(&self.root), address, Arc::new(NoTally));
        webhooks.configure(hooks).unwrap();
        webhooks
    }

    fn repository(&self, name: &str) -> Repository {
        self.root.repositories().repository(&Space::Hosted, &name.parse().unwrap())
    }

    fn push(&self, name: &str, text: &str, tags: &[&str]) -> Digest {
        let lease = self.root.lease().unwrap();
        let bytes = support::image(text, serde_json::json!({}));
        let manifest = Manifest::parse(bytes.clone(), &MediaType::OCI_MANIFEST).unwrap();
        let digest = support::put(&self.root, &lease, &bytes);
        let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        self.repository(name).put_manifest(&manifest, &MediaType::OCI_MANIFEST, &tags).unwrap();
        digest
    }

    /// Returns what is owed to a webhook: action, repository, tag or digest, id.
    fn owed(&self, hook: &str) -> Vec<[String; 4]> {
        let mut owed = Vec::new();
        let mut paths: Vec<_> =
            match fs_err::read_dir(self.root.path().join("deliveries").join(hook)) {
                Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
                Err(_) => Vec::new(),
            };
        paths.sort();
        for path in paths {
            let envelope: Value = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
            for event in envelope["events"].as_array().unwrap() {
                let target = &event["target"];
                let what =
                    if target["tag"].is_string() { &target["tag"] } else { &target["digest"] };
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let of = [&event["action"], &target["repository"], what, &event["id"]];
                owed.push(of.map(text));
            }
        }
        owed
    }

    fn told(&self, hook: &str) -> Vec<String> {
        self.owed(hook)
            .into_iter()
            .map(|[action, name, what, _]| format!("{action} {name} {what}"))
            .collect()
    }
}

fn hook(name: &str, actions: &[Action], repositories: &str) -> Webhook {
    let agent = HeaderValue::from_static("test");
    let transport = Transport::new(Trust::default(), Timeouts::default(), agent, ProxyUse::Never);
    Webhook {
        name: name.to_owned(),
        url: "http://127.0.0.1:9/".parse().unwrap(),
        actions: actions.iter().copied().collect(),
        repositories: vec![repositories.parse().unwrap()],
        headers: HeaderMap::new(),
        secret: None,
        threshold: 5,
        backoff: Duration::from_secs(1),
        transport: Arc::new(transport),
    }
}

#[test]
fn what_any_process_changes_is_owed_to_those_who_want_it() {
    let world = World::new();
    world.push("before", "0", &["1"]);
    let webhooks = world
        .webhooks(vec![hook("all", &Action::ALL, "**"), hook("team", &[Action::Push], "team/**")]);
    let digest = world.push("team/app", "1", &["1", "latest"]);
    let other = world.push("other", "2", &[]);
    assert!(world.repository("team/app").delete_tag(&"1".parse().unwrap()).unwrap());
    webhooks.collect().unwrap();
    webhooks.collect().unwrap();
    let pushes = ["push team/app 1", "push team/app latest"].map(str::to_owned);
    assert_eq!(world.told("team"), pushes);
    let more = [format!("push other {other}"), "delete team/app 1".to_owned()];
    assert_eq!(world.told("all"), [&pushes[..], &more[..]].concat());
    assert!(world.repository("team/app").delete_manifest(&digest).unwrap());
    webhooks.collect().unwrap();
    assert_eq!(world.told("all").last().unwrap(), &format!("delete team/app {digest}"));
    assert_eq!(world.told("team").len(), 2);
}

#[test]
fn a_server_that_was_away_tells_what_happened_meanwhile_once() {
    let world = World::new();
    drop(world.webhooks(vec![hook("all", &Action::ALL, "**")]));
    world.push("app", "1", &["1"]);
    let webhooks = world.webhooks(vec![hook("all", &Action::ALL, "**")]);
    webhooks.collect().unwrap();
    let first = world.owed("all");
    assert_eq!(first.len(), 1);
    // It died before it wrote down how far it was: the same is owed again, under the same name.
    let place = world.root.path().join("deliveries/place");
    fs_err::write(&place, r#"{"segment":1,"offset":0}"#).unwrap();
    let webhooks = world.webhooks(vec![hook("all", &Action::ALL, "**")]);
    webhooks.collect().unwrap();
    assert_eq!(world.owed("all"), first);
    // With more behind it, it is another envelope: the first may be on its way.
    world.push("app", "2", &["2"]);
    fs_err::write(&place, r#"{"segment":1,"offset":0}"#).unwrap();
    let webhooks = world.webhooks(vec![hook("all", &Action::ALL, "**")]);
    webhooks.collect().unwrap();
    let owed = world.owed("all");
    assert_eq!(owed.len(), 3, "{owed:?}");
    assert!(owed.iter().filter(|event| **event == first[0]).count() == 2, "{owed:?}");
    // Who is no longer told is owed nothing.
    world.webhooks(Vec::new());
    assert_eq!(world.owed("all").len(), 0);
    assert!(!place.exists());
}

#[test]
fn what_was_said_and_not_done_is_not_told() {
    let world = World::new();
    let webhooks = world.webhooks(vec![hook("all", &Action::ALL, "**")]);
    // A writer that died right after it had told the journal.
    let digest = Digest::sha256(b"nothing");
    let line = format!(
        "{{\"at\":\"2026-01-01T00:00:00Z\",\"repository\":\"hosted/app\",\"kind\":\"manifest\",\"name\":\"{digest}\"}}\n"
    );
    fs_err::create_dir_all(world.root.path().join("journal")).unwrap();
    fs_err::write(world.root.path().join("journal/000000000001"), line).unwrap();
    webhooks.collect().unwrap();
    assert_eq!(world.told("all"), Vec::<String>::new());
    // Pushed and deleted again before anybody looked: both are told.
    let digest = world.push("app", "1", &["1"]);
    assert!(world.repository("app").delete_manifest(&digest).unwrap());
    webhooks.collect().unwrap();
    assert_eq!(world.told("all"), ["push app 1".to_owned(), format!("delete app {digest}")]);
}

#[test]
fn what_was_delivered_is_owed_no_longer() {
    let world = World::new();
    let webhooks = world.webhooks(vec![hook("all", &Action::ALL, "**")]);
    assert!(webhooks.is_used());
    assert!(format!("{:?}", webhooks.hooks()).contains("all"));
    world.push("app", "1", &["1"]);
    webhooks.collect().unwrap();
    assert_eq!(webhooks.shelf.owed(), 1);
    let owed = webhooks.shelf.oldest("all").unwrap().unwrap();
    assert_eq!(owed.events(), 1);
    owed.settle().unwrap();
    assert!(webhooks.shelf.oldest("all").unwrap().is_none());
}
