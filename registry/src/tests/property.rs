//! Whatever clients do in whatever order, the registry answers as a model of it says: statuses,
//! headers, bodies.

mod model;
mod operation;

use std::fmt::Write as _;

use boatyard_oci::{Digest, MediaType};
use http::Method;
use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use self::model::{Model, REPOSITORIES, blob, manifest, tag};
use self::operation::{Operation, Reference, Way, operation};
use super::support::{Answer, Served};

/// How many sequences are tried, and how long they are.
const CASES: u32 = 8;
const OPERATIONS: usize = 60;

#[test]
fn the_registry_does_what_its_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&vec(operation(), 1..OPERATIONS), |operations| {
            runtime.block_on(async {
                let mut client = Client { served: Served::start().await, model: Model::default() };
                for operation in &operations {
                    client.perform(operation).await;
                }
                client.compare_all().await;
            });
            Ok(())
        })
        .unwrap();
}

/// A client that knows what it must be answered.
struct Client {
    served: Served,
    model: Model,
}

impl Client {
    async fn perform(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::Push { repository, content, way } => {
                self.push(repository, content, way).await;
            }
            Operation::Begin { repository } => self.begin(repository).await,
            Operation::Append { session, len, offset } => self.append(session, len, offset).await,
            Operation::Replay { session } => self.replay(session).await,
            Operation::Finish { session, right } => self.finish(session, right).await,
            Operation::Cancel { session } => self.cancel(session).await,
            Operation::Mount { repository, from, content } => {
                self.mount(repository, from, content).await;
            }
            Operation::PutManifest { repository, manifest, tags, by } => {
                self.put_manifest(repository, manifest, &tags, by).await;
            }
            Operation::DeleteManifest { repository, manifest } => {
                self.delete_manifest(repository, &Reference::Digest(manifest)).await;
            }
            Operation::DeleteTag { repository, tag } => {
                self.delete_manifest(repository, &Reference::Tag(tag)).await;
            }
            Operation::DeleteBlob { repository, content } => {
                self.delete_blob(repository, content).await;
            }
            Operation::ListTags { repository, most } => self.list_tags(repository, most).await,
            Operation::ListReferrers { repository, subject, artifact_type } => {
                self.list_referrers(repository, subject, artifact_type).await;
            }
            Operation::Catalog { most } => self.catalog(most).await,
        }
    }

    fn uploads(repository: usize) -> String {
        format!("/v2/{}/blobs/uploads/", REPOSITORIES[repository])
    }

    async fn push(&mut self, repository: usize, content: usize, way: Way) {
        let (bytes, digest) = blob(content);
        let uploads = Client::uploads(repository);
        let answer = match way {
            Way::Post => {
                let path = format!("{uploads}?digest={digest}");
                self.served.send(Method::POST, &path, &[], bytes).await
            }
            Way::PostPut => {
                let location = self.served.begin(REPOSITORIES[repository]).await;
                self.served.put(&format!("{location}&digest={digest}"), bytes).await
            }
            Way::Chunks(size) => {
                let mut location = self.served.begin(REPOSITORIES[repository]).await;
                for chunk in bytes.chunks(size) {
                    let answer = self.served.patch(&location, chunk.to_vec()).await;
                    assert_eq!(answer.status, 202);
                    location = answer.location();
                }
                self.served.put(&format!("{location}&digest={digest}"), "").await
            }
            Way::Wrong => {
                let path = format!("{uploads}?digest={digest}");
                let answer = self.served.send(Method::POST, &path, &[], "something else").await;
                return answer.refuses(400, "DIGEST_INVALID");
            }
        };
        self.model.repositories[repository].blobs.insert(content);
        created(&answer, &format!("/v2/{}/blobs/{digest}", REPOSITORIES[repository]), &digest);
    }

    async fn begin(&mut self, repository: usize) {
        let answer = self.served.post(&Client::uploads(repository)).await;
        assert_eq!((answer.status.as_u16(), answer.header("range")), (202, Some("0-0")));
        assert!(answer.header("docker-upload-uuid").is_some());
        self.model.sessions.push(model::Session {
            repository,
            location: answer.location(),
            before: None,
            bytes: Vec::new(),
        });
    }

    /// Sends a chunk where the session is, or elsewhere.
    async fn append(&mut self, session: usize, len: usize, offset: i64) {
        let Some(session) = self.model.session(session) else { return };
        let there = session.bytes.len();
        let start = (there as i64 + offset).max(0) as usize;
        let range = format!("{start}-{}", start + len - 1);
        let chunk: Vec<u8> = (start..start + len).map(|place| place as u8).collect();
        let headers = [("content-range", range.as_str())];
        let answer =
            self.served.send(Method::PATCH, &session.location, &headers, chunk.clone()).await;
        if start == there {
            assert_eq!(answer.status, 202, "{answer:?}");
            session.before = Some(session.location.clone());
            session.bytes.extend(chunk);
        } else {
            answer.refuses(416, "BLOB_UPLOAD_INVALID");
        }
        assert_eq!(answer.header("range"), Some(&*session.range()));
        session.location = answer.location();
    }

    /// Sends what was appended last once more, to the Location that it was sent to.
    async fn replay(&mut self, session: usize) {
        let Some(session) = self.model.session(session) else { return };
        let Some(before) = &session.before else { return };
        let answer = self.served.patch(before, "again").await;
        answer.refuses(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), Some(&*session.range()));
    }

    async fn finish(&mut self, session: usize, right: bool) {
        let Some(session) = self.model.session(session) else { return };
        let status = self.served.get(&session.location).await;
        assert_eq!(
            (status.status.as_u16(), status.header("range")),
            (204, Some(&*session.range()))
        );
        let digest = match right {
            true => Digest::sha256(&session.bytes),
            false => Digest::sha256(b"what nobody sent"),
        };
        let path = format!("{}&digest={digest}", status.location());
        let answer = self.served.put(&path, "").await;
        let (name, bytes) = (REPOSITORIES[session.repository], session.bytes.clone());
        if right {
            let repository = session.repository;
            created(&answer, &format!("/v2/{name}/blobs/{digest}"), &digest);
            self.model.repositories[repository].add(digest, bytes);
        } else {
            answer.refuses(400, "DIGEST_INVALID");
        }
        // In either case the session has ended.
        self.served.get(&status.location()).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        self.model.end_session(&path);
    }

    async fn cancel(&mut self, session: usize) {
        let Some(session) = self.model.session(session) else { return };
        let location = session.location.clone();
        assert_eq!(self.served.delete(&location).await.status, 204);
        self.served.delete(&location).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        self.model.end_session(&location);
    }

    async fn mount(&mut self, repository: usize, from: Option<usize>, content: usize) {
        let (_, digest) = blob(content);
        let mut path = format!("{}?mount={digest}", Client::uploads(repository));
        if let Some(from) = from {
            write!(path, "&from={}", REPOSITORIES[from]).unwrap();
        }
        let answer = self.served.post(&path).await;
        // Without `from` the registry need not find it.
        let may_fail = from.is_none() && answer.status == 202;
        if self.model.mounts(from, content) && !may_fail {
            self.model.repositories[repository].blobs.insert(content);
            created(&answer, &format!("/v2/{}/blobs/{digest}", REPOSITORIES[repository]), &digest);
        } else {
            assert_eq!(answer.status, 202, "{answer:?}");
            assert_eq!(self.served.delete(&answer.location()).await.status, 204);
        }
    }

    async fn put_manifest(&mut self, repository: usize, number: usize, tags: &[usize], by: Way) {
        let manifest = manifest(number);
        let name = REPOSITORIES[repository];
        let headers = [("content-type", manifest.media_type.as_str().to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        // By its digest with tags as parameters, or by the first tag.
        let by_tag = matches!(by, Way::Post) && !tags.is_empty();
        let (reference, tags) = match by_tag {
            true => (tag(tags[0]).to_owned(), &tags[..1]),
            false => (manifest.digest.to_string(), tags),
        };
        let parameters: Vec<String> =
            tags.iter().filter(|_| !by_tag).map(|one| format!("tag={}", tag(*one))).collect();
        let path = format!("/v2/{name}/manifests/{reference}?{}", parameters.join("&"));
        let answer = self.served.send(Method::PUT, &path, &headers, manifest.bytes.clone()).await;
        if !self.model.repositories[repository].has_parts_of(&manifest) {
            return answer.refuses(400, "MANIFEST_BLOB_UNKNOWN");
        }
        created(&answer, &format!("/v2/{name}/manifests/{}", manifest.digest), &manifest.digest);
        let subject = manifest.subject.as_ref().map(Digest::to_string);
        assert_eq!(answer.header("oci-subject"), subject.as_deref());
        let told = answer.headers.get_all("oci-tag").iter().count();
        assert_eq!(told, if by_tag { 0 } else { tags.len() });
        let repository = &mut self.model.repositories[repository];
        repository.manifests.insert(number);
        repository.had_manifests = true;
        repository.tags.extend(tags.iter().map(|one| (*one, number)));
    }

    async fn delete_manifest(&mut self, repository: usize, reference: &Reference) {
        let text = match reference {
            Reference::Tag(one) => tag(*one).to_owned(),
            Reference::Digest(number) => manifest(*number).digest.to_string(),
        };
        let path = format!("/v2/{}/manifests/{text}", REPOSITORIES[repository]);
        let answer = self.served.delete(&path).await;
        let repository = &mut self.model.repositories[repository];
        let was_there = match reference {
            Reference::Tag(one) => repository.tags.remove(one).is_some(),
            Reference::Digest(number) => {
                repository.tags.retain(|_, target| target != number);
                repository.manifests.remove(number)
            }
        };
        match was_there {
            true => assert_eq!(answer.status, 202, "{answer:?}"),
            false => answer.refuses(404, repository.absent("MANIFEST_UNKNOWN")),
        }
        assert_eq!(self.served.head(&path).await.status, 404);
    }

    async fn delete_blob(&mut self, repository: usize, content: usize) {
        let (_, digest) = blob(content);
        let path = format!("/v2/{}/blobs/{digest}", REPOSITORIES[repository]);
        let answer = self.served.delete(&path).await;
        let repository = &mut self.model.repositories[repository];
        if !repository.blobs.contains(&content) {
            answer.refuses(404, repository.absent("BLOB_UNKNOWN"));
        } else if repository.needs(content) {
            answer.refuses(405, "UNSUPPORTED");
        } else {
            assert_eq!(answer.status, 202, "{answer:?}");
            repository.blobs.remove(&content);
            repository.had_blobs = true;
        }
    }

    /// Lists the tags in pages of `most`.
    async fn list_tags(&self, repository: usize, most: usize) {
        let name = REPOSITORIES[repository];
        let repository = &self.model.repositories[repository];
        let path = format!("/v2/{name}/tags/list");
        if !repository.exists() {
            return self.served.get(&path).await.refuses(404, "NAME_UNKNOWN");
        }
        let mut expected: Vec<&str> = repository.tags.keys().map(|one| tag(*one)).collect();
        expected.sort_unstable();
        assert_eq!(self.pages(&path, most, "tags").await, json!(expected));
    }

    async fn catalog(&self, most: usize) {
        let known = |(_, repository): &(&str, &model::Repository)| repository.had_manifests;
        let names = REPOSITORIES.into_iter().zip(&self.model.repositories).filter(known);
        let mut expected: Vec<&str> = names.map(|(name, _)| name).collect();
        expected.sort_unstable();
        assert_eq!(self.pages("/v2/_catalog", most, "repositories").await, json!(expected));
    }

    /// Reads a list page by page, each of which but the last is full.
    async fn pages(&self, path: &str, most: usize, property: &str) -> Value {
        let mut next = format!("{path}?n={most}");
        let mut all = Vec::new();
        loop {
            let answer = self.served.get(&next).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.json()[property].as_array().unwrap().clone();
            let Some(link) = answer.header("link") else {
                assert!(page.len() <= most);
                all.extend(page);
                return all.into();
            };
            assert_eq!(page.len(), most, "a page with a next one is full");
            all.extend(page);
            next = link.split(['<', '>']).nth(1).unwrap().to_owned();
        }
    }

    async fn list_referrers(&self, repository: usize, subject: usize, artifact_type: bool) {
        let subject = manifest(subject).digest;
        let wanted = "application/vnd.example+json";
        let query = if artifact_type { "?artifactType=application/vnd.example%2Bjson" } else { "" };
        let path = format!("/v2/{}/referrers/{subject}{query}", REPOSITORIES[repository]);
        let answer = self.served.get(&path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some(MediaType::OCI_INDEX.as_str()));
        let applied = artifact_type.then_some("artifactType");
        assert_eq!(answer.header("oci-filters-applied"), applied);
        let manifests = self.model.repositories[repository].manifests.iter();
        let mut expected: Vec<String> = manifests
            .map(|number| manifest(*number))
            .filter(|one| one.subject.as_ref() == Some(&subject))
            .filter(|one| !artifact_type || one.artifact_type == wanted)
            .map(|one| one.digest.to_string())
            .collect();
        expected.sort_unstable();
        let listed = answer.json()["manifests"].clone();
        let digests: Vec<&str> =
            listed.as_array().unwrap().iter().map(|one| one["digest"].as_str().unwrap()).collect();
        assert_eq!(digests, expected);
    }

    /// Reads everything that can be there.
    async fn compare_all(&self) {
        for (name, repository) in REPOSITORIES.into_iter().zip(&self.model.repositories) {
            for content in 0..model::BLOBS {
                let (bytes, digest) = blob(content);
                let bytes = repository.blobs.contains(&content).then_some(bytes);
                let path = format!("/v2/{name}/blobs/{digest}");
                self.compare(&path, bytes.as_deref(), repository.absent("BLOB_UNKNOWN")).await;
            }
            for (digest, bytes) in &repository.others {
                self.compare(&format!("/v2/{name}/blobs/{digest}"), Some(bytes), "").await;
            }
            for number in 0..model::MANIFESTS {
                let known = manifest(number);
                let bytes = repository.manifests.contains(&number).then_some(known.bytes);
                let path = format!("/v2/{name}/manifests/{}", known.digest);
                let absent = repository.absent("MANIFEST_UNKNOWN");
                self.compare(&path, bytes.as_deref(), absent).await;
            }
            for one in 0..model::TAGS {
                let bytes = repository.tags.get(&one).map(|number| manifest(*number).bytes);
                let path = format!("/v2/{name}/manifests/{}", tag(one));
                let absent = repository.absent("MANIFEST_UNKNOWN");
                self.compare(&path, bytes.as_deref(), absent).await;
            }
        }
    }

    async fn compare(&self, path: &str, expected: Option<&[u8]>, absent: &str) {
        let (got, head) = (self.served.get(path).await, self.served.head(path).await);
        assert_eq!(got.status, head.status, "{path}");
        match expected {
            None => got.refuses(404, absent),
            Some(bytes) => {
                assert_eq!((got.status.as_u16(), &got.body[..]), (200, bytes), "{path}");
                for header in ["content-length", "docker-content-digest", "etag", "content-type"] {
                    assert!(head.header(header).is_some(), "{header}");
                    assert_eq!(got.header(header), head.header(header), "{header}");
                }
            }
        }
    }
}

#[track_caller]
fn created(answer: &Answer, location: &str, digest: &Digest) {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.location(), location);
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest.to_string()));
}
