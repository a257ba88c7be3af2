//! What clients do.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::model::{BLOBS, MANIFESTS, REPOSITORIES, TAGS};

/// How a blob is pushed; of a manifest, [`Way::Post`] is by tag, and any other by digest.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Post,
    PostPut,
    Chunks(usize),
    /// With other bytes than the digest's.
    Wrong,
}

/// What a deletion names.
#[derive(Clone, Debug)]
pub(super) enum Reference {
    Tag(usize),
    Digest(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Push { repository: usize, content: usize, way: Way },
    Begin { repository: usize },
    Append { session: usize, len: usize, offset: i64 },
    Replay { session: usize },
    Finish { session: usize, right: bool },
    Cancel { session: usize },
    Mount { repository: usize, from: Option<usize>, content: usize },
    PutManifest { repository: usize, manifest: usize, tags: Vec<usize>, by: Way },
    DeleteManifest { repository: usize, manifest: usize },
    DeleteTag { repository: usize, tag: usize },
    DeleteBlob { repository: usize, content: usize },
    ListTags { repository: usize, most: usize },
    ListReferrers { repository: usize, subject: usize, artifact_type: bool },
    Catalog { most: usize },
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        3 => Just(Way::Post),
        3 => Just(Way::PostPut),
        2 => (1_usize..2000).prop_map(|size| Way::Chunks(size.max(500))),
        1 => Just(Way::Wrong),
    ]
}

/// Returns what a client may do next. Most of it happens in one repository.
pub(super) fn operation() -> impl Strategy<Value = Operation> {
    let repository = || prop_oneof![3 => Just(0), 2 => 0..REPOSITORIES.len()];
    let session = || 0_usize..4;
    let offset = prop_oneof![3 => Just(0_i64), 1 => -20_i64..20];
    let tags = || {
        vec(0..TAGS, 0..3).prop_map(|mut tags| {
            tags.sort_unstable();
            tags.dedup();
            tags
        })
    };
    prop_oneof![
        8 => (repository(), 0..BLOBS, way())
            .prop_map(|(repository, content, way)| Operation::Push { repository, content, way }),
        2 => repository().prop_map(|repository| Operation::Begin { repository }),
        4 => (session(), 1_usize..50, offset)
            .prop_map(|(session, len, offset)| Operation::Append { session, len, offset }),
        1 => session().prop_map(|session| Operation::Replay { session }),
        2 => (session(), any::<bool>())
            .prop_map(|(session, right)| Operation::Finish { session, right }),
        1 => session().prop_map(|session| Operation::Cancel { session }),
        3 => (repository(), option::of(repository()), 0..BLOBS)
            .prop_map(|(repository, from, content)| Operation::Mount { repository, from, content }),
        8 => (repository(), 0..MANIFESTS, tags(), way()).prop_map(
            |(repository, manifest, tags, by)| {
                Operation::PutManifest { repository, manifest, tags, by }
            }
        ),
        1 => (repository(), 0..MANIFESTS)
            .prop_map(|(repository, manifest)| Operation::DeleteManifest { repository, manifest }),
        2 => (repository(), 0..TAGS)
            .prop_map(|(repository, tag)| Operation::DeleteTag { repository, tag }),
        2 => (repository(), 0..BLOBS)
            .prop_map(|(repository, content)| Operation::DeleteBlob { repository, content }),
        2 => (repository(), 1_usize..4)
            .prop_map(|(repository, most)| Operation::ListTags { repository, most }),
        2 => (repository(), 0..MANIFESTS, any::<bool>()).prop_map(
            |(repository, subject, artifact_type)| {
                Operation::ListReferrers { repository, subject, artifact_type }
            }
        ),
        1 => (1_usize..4).prop_map(|most| Operation::Catalog { most }),
    ]
}
