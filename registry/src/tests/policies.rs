//! Immutable tags, quotas, and the note of what was pulled, as clients see them.

use std::sync::Arc;

use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_content::repository::Space;
use boatyard_oci::MediaType;
use http::Method;

use super::support::{Answer, Served, image};
use crate::{Immutable, ImmutableRule, Limits, Mirrors, OpenAccess, Policies, QuotaRule, Registry};

struct World {
    served: Served,
    root: Arc<Root>,
    policies: Policies,
}

impl World {
    async fn new(immutable: Immutable, quotas: Vec<QuotaRule>) -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let policies = Policies { immutable, ..Policies::none(&root) };
        policies.quotas.configure(quotas).unwrap();
        let registry = Registry::keeping(
            Arc::clone(&root),
            Mirrors::default(),
            Arc::new(OpenAccess),
            Limits::default(),
            policies.clone(),
        );
        let served = Served::routing(directory, crate::router(registry)).await;
        World { served, root, policies }
    }

    async fn limited(bytes: u64) -> World {
        World::new(Immutable::default(), vec![quota(Some(bytes), None)]).await
    }

    fn used(&self) -> (u64, u64) {
        let usage = &self.policies.quotas.usage()[0];
        (usage.bytes, usage.bytes_reserved)
    }
}

fn quota(bytes_max: Option<u64>, tags_max: Option<u64>) -> QuotaRule {
    let repositories = vec!["team/**".parse().unwrap()];
    QuotaRule { name: Some("team".to_owned()), repositories, bytes_max, tags_max }
}

fn message(answer: &Answer) -> String {
    answer.json()["errors"][0]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_immutable_tag_is_neither_moved_nor_deleted_by_chance() {
    let rule = ImmutableRule {
        repositories: vec!["team/**".parse().unwrap()],
        tags: vec!["v*".parse().unwrap()],
        except: Vec::new(),
    };
    let world = World::new(Immutable::new(vec![rule]), Vec::new()).await;
    let served = &world.served;
    let first = served.push_image("team/app", "v1", "one").await;
    served.push_image("team/app", "latest", "one").await;
    // The same again is no change.
    served.push_image("team/app", "v1", "one").await;
    let other = served.image("team/app", "two").await;
    let media_type = &MediaType::OCI_MANIFEST;
    let refused = served.put_manifest("team/app", "v1", media_type, &other).await;
    refused.refuses(409, "DENIED");
    assert!(message(&refused).starts_with("the tag v1 of team/app is immutable"), "{refused:?}");
    // By the parameter, too; and then the other tag is not moved either.
    let refused = served.put_manifest("team/app", "latest?tag=v1", media_type, &other).await;
    refused.refuses(409, "DENIED");
    assert_eq!(served.get("/v2/team/app/manifests/latest").await.body, first);
    assert_eq!(served.get("/v2/team/app/manifests/v1").await.body, first);
    assert_eq!(served.put_manifest("team/app", "latest", media_type, &other).await.status, 201);

    let digest = super::support::digest_of(&first, media_type);
    for reference in ["v1", &digest.to_string()] {
        let path = format!("/v2/team/app/manifests/{reference}");
        let refused = served.delete(&path).await;
        refused.refuses(409, "DENIED");
        assert!(message(&refused).contains("immutable=true"), "{refused:?}");
    }
    served.delete("/v2/team/app/manifests/v2").await.refuses(404, "MANIFEST_UNKNOWN");
    assert_eq!(served.delete("/v2/team/app/manifests/v1?immutable=true").await.status, 202);
    assert_eq!(served.put_manifest("team/app", "v1", media_type, &other).await.status, 201);
}

#[tokio::test]
async fn of_two_pushes_to_an_immutable_tag_at_once_one_wins() {
    let rule = ImmutableRule {
        repositories: vec!["**".parse().unwrap()],
        tags: vec!["*".parse().unwrap()],
        except: Vec::new(),
    };
    let world = World::new(Immutable::new(vec![rule]), Vec::new()).await;
    let served = &world.served;
    let (one, two) = (served.image("app", "one").await, served.image("app", "two").await);
    let media_type = &MediaType::OCI_MANIFEST;
    let (one, two) = tokio::join!(
        served.put_manifest("app", "1", media_type, &one),
        served.put_manifest("app", "1", media_type, &two)
    );
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_it_is_stored() {
    let world = World::limited(1000).await;
    let served = &world.served;
    served.push_blob("team/app", &[1; 600]).await;
    assert_eq!(world.used(), (600, 0));
    // By its length, in one request and in a session.
    let digest = boatyard_oci::Digest::sha256(&[2; 500]);
    let path = format!("/v2/team/other/blobs/uploads/?digest={digest}");
    let refused = served.send(Method::POST, &path, &[], vec![2; 500]).await;
    refused.refuses(413, "DENIED");
    let detail = &refused.json()["errors"][0]["detail"];
    assert_eq!(
        (&detail["used"], &detail["wanted"], &detail["most"]),
        (&600.into(), &500.into(), &1000.into())
    );
    assert_eq!(
        message(&refused),
        "the quota `team` is 1000 bytes, 600 are in use, 500 more do not fit"
    );
    let session = served.begin("team/other").await;
    served.patch(&session, vec![2; 500]).await.refuses(413, "DENIED");
    // The session has ended with that, and what came is given back.
    assert_eq!(world.used(), (600, 0));
    served.patch(&session, vec![2; 5]).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    // In pieces of which nobody said how many there are.
    let session = served.begin("team/other").await;
    let pieces = (0..10).map(|_| Ok::<_, std::io::Error>(vec![3; 100]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    served.patch(&session, body).await.refuses(413, "DENIED");
    assert_eq!(world.used(), (600, 0));
    // In what is left there is room, also in several requests.
    let session = served.begin("team/other").await;
    let answer = served.patch(&session, vec![4; 300]).await;
    assert_eq!(answer.status, 202);
    assert_eq!(world.used(), (600, 300));
    served.post("/v2/team/third/blobs/uploads/").await.location();
    let digest = boatyard_oci::Digest::sha256(&[4; 400]);
    let path = format!("{}&digest={digest}", answer.location());
    assert_eq!(served.put(&path, vec![4; 100]).await.status, 201);
    assert_eq!(world.used(), (1000, 0));
    served.post("/v2/team/third/blobs/uploads/").await.refuses(413, "DENIED");
    // Elsewhere there is no quota, and what is counted already takes nothing.
    let shared = served.push_blob("free", &[5; 5000]).await;
    let mount = |digest: &boatyard_oci::Digest, from: &str| {
        format!("/v2/team/third/blobs/uploads/?mount={digest}&from={from}")
    };
    served.post(&mount(&shared, "free")).await.refuses(413, "DENIED");
    assert_eq!(served.post(&mount(&digest, "team/other")).await.status, 201);
    assert_eq!(world.used(), (1000, 0));
}

#[tokio::test]
async fn a_manifest_takes_room_for_itself_and_for_its_tags() {
    let world = World::new(Immutable::default(), vec![quota(None, Some(2))]).await;
    let served = &world.served;
    served.push_image("team/app", "1", "one").await;
    served.push_image("team/app", "2", "one").await;
    served.push_image("team/app", "2", "two").await;
    let manifest = image("one", serde_json::json!({}));
    let refused = served.put_manifest("team/app", "3", &MediaType::OCI_MANIFEST, &manifest).await;
    refused.refuses(413, "DENIED");
    assert!(message(&refused).contains("2 tags"), "{refused:?}");
    assert_eq!(served.delete("/v2/team/app/manifests/1").await.status, 202);
    assert_eq!(
        served.put_manifest("team/app", "3", &MediaType::OCI_MANIFEST, &manifest).await.status,
        201
    );

    let world = World::limited(10).await;
    let served = &world.served;
    let manifest = served.image("team/app", "1").await;
    let refused = served.put_manifest("team/app", "1", &MediaType::OCI_MANIFEST, &manifest).await;
    refused.refuses(413, "DENIED");
    assert_eq!(world.used(), (3, 0));
}

#[tokio::test]
async fn uploads_at_once_never_go_beyond_a_quota_together() {
    let world = World::limited(1000).await;
    let served = &world.served;
    let push = |n: u8| async move {
        let bytes = vec![n; 300];
        let digest = boatyard_oci::Digest::sha256(&bytes);
        let path = format!("/v2/team/app/blobs/uploads/?digest={digest}");
        served.send(Method::POST, &path, &[], bytes).await.status.as_u16()
    };
    let statuses = futures_util::future::join_all((0..12).map(push)).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 3, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 413].contains(status)), "{statuses:?}");
    assert_eq!(world.used(), (900, 0));
}

#[tokio::test]
async fn a_pull_is_noted_a_little_later() {
    let world = World::new(Immutable::default(), Vec::new()).await;
    let served = &world.served;
    served.push_image("team/app", "1", "one").await;
    let used = |reference: &str| {
        world.policies.uses.write().unwrap();
        let name = "team/app".parse().unwrap();
        let repository = world.root.repositories().repository(&Space::Hosted, &name);
        repository.last_used(&reference.parse().unwrap()).unwrap()
    };
    assert_eq!(used("1"), None, "a push is no pull");
    served.get("/v2/team/app/manifests/nothing").await;
    assert_eq!(served.get("/v2/team/app/manifests/1").await.status, 200);
    assert!(used("1").is_some());
    assert_eq!(used("nothing"), None);
}
