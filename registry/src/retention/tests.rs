use std::sync::Arc;
use std::time::Duration;

use crate::tests::support;
use boatyard_access::OpenAccess;
use boatyard_content::local::RootOptions;
use boatyard_content::repository::Repository;
use boatyard_oci::{Manifest, MediaType, Tag};

use super::plan::{Kept, Verdict};
use super::*;
use crate::immutable::ImmutableRule;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    root: Arc<Root>,
    app: Repository,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        root.repositories().begin_noting_uses().unwrap();
        let app = root.repositories().repository(&Space::Hosted, &"team/app".parse().unwrap());
        World { root, app, _directory: directory }
    }

    fn put(&self, text: &str, media_type: &MediaType, tags: &[&str]) -> Digest {
        let manifest = Manifest::parse(text.to_owned().into(), media_type).unwrap();
        let lease = self.root.lease().unwrap();
        let digest = support::put(&self.root, &lease, text.as_bytes());
        let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        self.app.put_manifest(&manifest, media_type, &tags).unwrap();
        digest
    }

    /// Puts an image that says something, about another one perhaps.
    fn image(&self, text: &str, tags: &[&str], subject: Option<&Digest>) -> Digest {
        let lease = self.root.lease().unwrap();
        let layer = support::put(&self.root, &lease, text.as_bytes());
        self.app.link_blob(&layer).unwrap();
        let (oci, config, kind) =
            (MediaType::OCI_MANIFEST, MediaType::OCI_CONFIG, MediaType::OCI_LAYER);
        let subject = subject.map_or_else(String::new, |digest| {
            format!(r#","subject":{{"mediaType":"{oci}","digest":"{digest}","size":1}}"#)
        });
        let size = text.len();
        let blob = |kind: &MediaType| {
            format!(r#"{{"mediaType":"{kind}","digest":"{layer}","size":{size}}}"#)
        };
        let (config, layer) = (blob(&config), blob(&kind));
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{oci}","config":{config},"layers":[{layer}]{subject}}}"#
        );
        self.put(&manifest, &oci, tags)
    }

    fn index(&self, child: &Digest, tags: &[&str]) -> Digest {
        let (index, image) = (MediaType::OCI_INDEX, MediaType::OCI_MANIFEST);
        let child = format!(r#"{{"mediaType":"{image}","digest":"{child}","size":1}}"#);
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":[{child}]}}"#);
        self.put(&text, &index, tags)
    }

    /// Has a tag be pushed some days ago.
    fn age(&self, tag: &str, days: u32) {
        let at = SystemTime::now() - DAY * days;
        self.app.confirm_tag(&tag.parse().unwrap(), at).unwrap();
    }

    fn evaluate(&self, rules: &[RetentionRule], immutable: &Immutable, now: SystemTime) -> Plan {
        let mut plans = Vec::new();
        evaluate(&self.root, rules, immutable, now, &mut |_, evaluated| {
            plans.push(evaluated.plan);
            Ok(())
        })
        .unwrap();
        plans.pop().unwrap_or_default()
    }

    fn retain(&self, rules: &[RetentionRule]) -> Removed {
        self.retain_at(rules, &Immutable::default(), SystemTime::now(), &mut |_| {})
    }

    fn retain_at(
        &self,
        rules: &[RetentionRule],
        immutable: &Immutable,
        now: SystemTime,
        meanwhile: &mut dyn FnMut(&Repository),
    ) -> Removed {
        let mut removed = Removed::default();
        let by = Retirer { access: &OpenAccess, who: "retention", uses: None };
        evaluate(&self.root, rules, immutable, now, &mut |repository, evaluated| {
            meanwhile(repository);
            removed = apply(repository, &evaluated, rules, by)?;
            Ok(())
        })
        .unwrap();
        removed
    }

    fn tags(&self) -> Vec<String> {
        let tags = self.app.tags(None, usize::MAX).unwrap();
        tags.iter().map(ToString::to_string).collect()
    }

    fn has(&self, digest: &Digest) -> bool {
        self.app.manifest(digest).unwrap().is_some()
    }
}

fn rule() -> RetentionRule {
    RetentionRule {
        repositories: vec!["team/**".parse().unwrap()],
        tags: vec!["*".parse().unwrap()],
        ..RetentionRule::default()
    }
}

fn verdict(plan: &Plan, tag: &str) -> Verdict {
    plan.tags.iter().find(|one| one.seen.tag.as_str() == tag).unwrap().verdict
}

#[test]
fn the_last_the_young_the_pulled_and_the_named_stay() {
    let world = World::new();
    for (tag, days) in [("a", 50), ("b", 40), ("c", 20), ("v1", 99), ("pulled", 60)] {
        world.image(tag, &[tag], None);
        world.age(tag, days);
    }
    let pulled = "pulled".parse().unwrap();
    world.app.mark_used(&pulled).unwrap();
    let keep = |rule: RetentionRule| {
        // Noting began long ago, as far as the rule is concerned.
        let since = world.root.path().join("hosted/_used");
        let file = fs_err::File::options().write(true).open(since).unwrap();
        file.into_file().set_modified(SystemTime::now() - DAY * 365).unwrap();
        world.evaluate(&[rule], &Immutable::default(), SystemTime::now())
    };
    let plan =
        keep(RetentionRule { keep_last: Some(1), keep: vec!["v*".parse().unwrap()], ..rule() });
    assert_eq!(verdict(&plan, "c"), Verdict::Kept { rule: 0, why: Kept::Last });
    assert_eq!(verdict(&plan, "v1"), Verdict::Kept { rule: 0, why: Kept::Named });
    assert_eq!(verdict(&plan, "a"), Verdict::Removed { rule: 0 });
    let plan = keep(RetentionRule { keep_within: Some(DAY * 45), ..rule() });
    assert_eq!(verdict(&plan, "b"), Verdict::Kept { rule: 0, why: Kept::Pushed });
    assert_eq!(verdict(&plan, "a"), Verdict::Removed { rule: 0 });
    let plan = keep(RetentionRule { keep_pulled_within: Some(DAY * 30), ..rule() });
    assert_eq!(verdict(&plan, "pulled"), Verdict::Kept { rule: 0, why: Kept::Pulled });
    assert_eq!(
        verdict(&plan, "c"),
        Verdict::Kept { rule: 0, why: Kept::Pulled },
        "its push counts"
    );
    assert_eq!(verdict(&plan, "b"), Verdict::Removed { rule: 0 });
}

#[test]
fn what_was_never_noted_counts_as_pulled_when_noting_began() {
    let world = World::new();
    world.image("a", &["a"], None);
    world.age("a", 400);
    let rules = [RetentionRule { keep_pulled_within: Some(DAY * 30), ..rule() }];
    let plan = world.evaluate(&rules, &Immutable::default(), SystemTime::now());
    assert_eq!(verdict(&plan, "a"), Verdict::Kept { rule: 0, why: Kept::Pulled });
    let later = SystemTime::now() + DAY * 31;
    let plan = world.evaluate(&rules, &Immutable::default(), later);
    assert_eq!(verdict(&plan, "a"), Verdict::Removed { rule: 0 });
}

#[test]
fn any_rule_that_keeps_a_tag_wins_and_uncovered_ones_stay() {
    let world = World::new();
    for tag in ["pr-1", "main"] {
        world.image(tag, &[tag], None);
        world.age(tag, 50);
    }
    let covers = |tags: &str| RetentionRule { tags: vec![tags.parse().unwrap()], ..rule() };
    let strict = RetentionRule { keep_within: Some(DAY), ..covers("pr-*") };
    let mild = RetentionRule { keep_within: Some(DAY * 90), ..covers("/pr-.*/") };
    let plan =
        world.evaluate(std::slice::from_ref(&strict), &Immutable::default(), SystemTime::now());
    assert_eq!(verdict(&plan, "main"), Verdict::Uncovered);
    assert_eq!(verdict(&plan, "pr-1"), Verdict::Removed { rule: 0 });
    let plan = world.evaluate(&[strict, mild], &Immutable::default(), SystemTime::now());
    assert_eq!(verdict(&plan, "pr-1"), Verdict::Kept { rule: 1, why: Kept::Pushed });
}

#[test]
fn a_manifest_goes_with_its_last_tag_and_with_it_what_only_it_needs() {
    let world = World::new();
    let (child, shared) = (world.image("child", &[], None), world.image("shared", &[], None));
    let old = world.index(&child, &["old"]);
    let other = world.index(&shared, &["old2"]);
    let signature = world.image("signature", &[], Some(&old));
    let schema = format!("sha256-{}.sig", old.hex());
    let cosigned = world.image("cosign", &[&schema], None);
    let stays = world.image("stays", &["new"], None);
    let also = world.put(
        &format!(
            r#"{{"schemaVersion":2,"mediaType":"{0}","manifests":[{{"mediaType":"{1}","digest":"{shared}","size":1}},{{"mediaType":"{1}","digest":"{stays}","size":1}}]}}"#,
            MediaType::OCI_INDEX,
            MediaType::OCI_MANIFEST
        ),
        &MediaType::OCI_INDEX,
        &["both"],
    );
    for tag in ["old", "old2"] {
        world.age(tag, 50);
    }
    let rules = [RetentionRule { keep_within: Some(DAY), ..rule() }];
    let removed = world.retain(&rules);
    assert_eq!(world.tags(), ["both", "new"]);
    assert_eq!((removed.tags, removed.manifests, removed.spared), (3, 5, 0));
    for gone in [&old, &child, &other, &signature, &cosigned] {
        assert!(!world.has(gone));
    }
    for kept in [&shared, &stays, &also] {
        assert!(world.has(kept));
    }
    assert_eq!(world.retain(&rules), Removed::default(), "the same call again is harmless");
}

#[test]
fn what_has_no_tag_goes_after_a_while_but_not_what_an_index_lists() {
    let world = World::new();
    let loose = world.image("loose", &[], None);
    let child = world.image("child", &[], None);
    let index = world.index(&child, &["index"]);
    let about = world.image("about", &[], Some(&child));
    let rules = [RetentionRule { untagged_after: Some(DAY * 7), ..rule() }];
    assert_eq!(world.retain(&rules), Removed::default());
    let later = SystemTime::now() + DAY * 8;
    let removed = world.retain_at(&rules, &Immutable::default(), later, &mut |_| {});
    assert_eq!((removed.tags, removed.manifests), (0, 1));
    assert!(!world.has(&loose));
    assert!(world.has(&child) && world.has(&index) && world.has(&about));
}

#[test]
fn immutable_tags_go_only_where_the_rule_says_so() {
    let world = World::new();
    world.image("a", &["v1"], None);
    world.age("v1", 50);
    let immutable = Immutable::new(vec![ImmutableRule {
        repositories: vec!["**".parse().unwrap()],
        tags: vec!["v*".parse().unwrap()],
        except: Vec::new(),
    }]);
    let spares = RetentionRule { keep_within: Some(DAY), ..rule() };
    let now = SystemTime::now();
    let plan = world.evaluate(std::slice::from_ref(&spares), &immutable, now);
    assert_eq!(verdict(&plan, "v1"), Verdict::Immutable { rule: 0 });
    assert!(plan.manifests.is_empty());
    let rules = [RetentionRule { include_immutable: true, ..spares }];
    let removed = world.retain_at(&rules, &immutable, now, &mut |_| {});
    assert_eq!((removed.tags, removed.manifests), (1, 1));
}

#[test]
fn what_is_pushed_or_pulled_meanwhile_stays() {
    let world = World::new();
    for tag in ["pushed", "pulled", "moved", "goes"] {
        world.image(tag, &[tag], None);
        world.age(tag, 50);
    }
    let rules = [RetentionRule { keep_within: Some(DAY), ..rule() }];
    let now = SystemTime::now();
    let removed = world.retain_at(&rules, &Immutable::default(), now, &mut |repository| {
        // The same digest again is a push, too.
        world.image("pushed", &["pushed"], None);
        repository.mark_used(&"pulled".parse().unwrap()).unwrap();
        world.image("another", &["moved"], None);
    });
    assert_eq!(world.tags(), ["moved", "pulled", "pushed"]);
    // Of the moved tag the manifest stays, too: when it lost its tag nobody had decided on that.
    assert_eq!((removed.tags, removed.manifests), (1, 1));
}

#[test]
fn a_rule_that_keeps_nothing_is_refused() {
    assert_eq!(rule().check(), Err(RuleError::KeepsNothing));
    let only_untagged = RetentionRule { untagged_after: Some(DAY), ..rule() };
    assert_eq!(only_untagged.check(), Ok(()));
    let nowhere = RetentionRule { repositories: Vec::new(), keep_last: Some(1), ..rule() };
    assert_eq!(nowhere.check(), Err(RuleError::Empty { key: "repositories" }));
}
