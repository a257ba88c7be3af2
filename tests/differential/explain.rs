//! What differs, and why: the rows of docs/differences.md that the test meets.

use serde_json::Value;

use super::generate::Case;
use super::peers::Outcome;

/// One difference between an image of ours and that of a peer.
#[derive(Debug)]
pub enum Difference {
    /// One was built and the other was not: what was said.
    Failed { ours: Option<String>, theirs: Option<String> },
    /// A file: the lines of both.
    File { path: String, ours: Option<String>, theirs: Option<String> },
    /// A field of the configuration.
    Config { field: String, ours: Value, theirs: Value },
}

/// A row of the table.
pub struct Explained {
    pub name: &'static str,
    pub peers: &'static [&'static str],
    pub explains: fn(&Difference, &Case) -> bool,
}

/// Compares two outcomes.
pub fn differences(ours: &Outcome, theirs: &Outcome) -> Vec<Difference> {
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(_), Err(_)) => return Vec::new(),
        (ours, theirs) => {
            let (ours, theirs) = (ours.as_ref().err().cloned(), theirs.as_ref().err().cloned());
            return vec![Difference::Failed { ours, theirs }];
        }
    };
    let mut found = Vec::new();
    let path = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let find =
        |lines: &[String], wanted: &str| lines.iter().find(|line| path(line) == wanted).cloned();
    let all = ours.files.iter().chain(&theirs.files).map(path);
    for path in all.collect::<std::collections::BTreeSet<_>>() {
        let (ours, theirs) = (find(&ours.files, &path), find(&theirs.files, &path));
        if ours != theirs {
            found.push(Difference::File { path, ours, theirs });
        }
    }
    let fields = ours.config.keys().chain(theirs.config.keys());
    for field in fields.collect::<std::collections::BTreeSet<_>>() {
        let value = |of: &super::peers::Image| of.config.get(field).cloned().unwrap_or_default();
        let (ours, theirs) = (value(ours), value(theirs));
        if ours != theirs {
            found.push(Difference::Config { field: field.clone(), ours, theirs });
        }
    }
    found
}

/// The rows, in the order of the table.
pub const EXPLAINED: &[Explained] = &[
    Explained {
        name: "mount-points",
        peers: &["buildah", "buildkit"],
        explains: |difference, _| {
            const LEFT: [&str; 7] =
                ["dev", "proc", "sys", "run", "etc/hostname", "etc/hosts", "etc/resolv.conf"];
            matches!(difference, Difference::File { path, ours: None, .. } if LEFT.contains(&path.as_str()))
        },
    },
    Explained {
        name: "volume-directories",
        peers: &["buildah", "docker"],
        explains: |difference, case| {
            matches!(difference, Difference::File { path, ours: None, .. }
                if case.dockerfile.contains(&format!("/{path}")) && path.starts_with('v'))
        },
    },
    Explained {
        name: "unpacked-owner",
        peers: &["buildah", "docker", "buildkit"],
        explains: |difference, case| {
            let is_added = |path: &str| path.split('/').any(|name| name == "add");
            let unpacks = ["t.tar", "t.tar.gz"].iter().any(|it| case.dockerfile.contains(it));
            unpacks && owner_alone(difference).is_some_and(is_added)
        },
    },
    Explained {
        name: "parent-owner",
        peers: &["docker"],
        explains: |difference, case| {
            case.dockerfile.contains("--chown=")
                && owner_alone(difference).is_some()
                && matches!(difference, Difference::File { theirs: Some(theirs), .. }
                    if theirs.contains(" d ") && theirs.ends_with(" 0:0"))
        },
    },
    Explained {
        name: "workdir-cleaned",
        peers: &["buildah", "docker", "buildkit"],
        explains: |difference, _| match difference {
            Difference::Config {
                field,
                ours: Value::String(ours),
                theirs: Value::String(theirs),
            } => field == "WorkingDir" && *ours == boatyard_builder::context::glob::clean(theirs),
            _ => false,
        },
    },
    Explained {
        name: "env-order",
        peers: &["buildah"],
        explains: |difference, _| match difference {
            Difference::Config {
                field,
                ours: Value::Array(ours),
                theirs: Value::Array(theirs),
            } => {
                field == "Env"
                    && ours.len() == theirs.len()
                    && ours.iter().all(|pair| theirs.contains(pair))
            }
            _ => false,
        },
    },
    Explained {
        name: "exposed-range",
        peers: &["buildah"],
        explains: |difference, case| {
            case.dockerfile.contains("EXPOSE 8000-8002")
                && matches!(difference, Difference::Config { field, .. } if field == "ExposedPorts")
        },
    },
    Explained {
        name: "inherited-argument",
        peers: &["buildah", "docker"],
        explains: |difference, case| {
            case.dockerfile.contains("\nARG ")
                && case.dockerfile.contains("FROM first")
                && matches!(difference, Difference::File { path, .. } if path.contains("/v"))
        },
    },
    Explained {
        name: "copied-pipe",
        peers: &["buildkit"],
        explains: |difference, _| {
            matches!(difference, Difference::File { ours: Some(ours), theirs: None, .. }
                if ours.contains(" p "))
        },
    },
    Explained {
        name: "empty-wildcard",
        peers: &["buildah", "docker"],
        explains: |difference, _| {
            failed_with(difference, "no source files were specified")
                || failed_with(difference, "*\"]: no such file or directory")
                || failed_with(difference, "].txt\"]: no such file or directory")
                || failed_with(difference, "/one\"]: no such file or directory")
        },
    },
    Explained {
        name: "several-into-a-file",
        peers: &["buildah", "buildkit"],
        explains: |difference, _| {
            matches!(difference, Difference::Failed { ours: Some(ours), theirs: None }
                if ours.contains("there are several sources"))
        },
    },
    Explained {
        name: "several-into-a-directory",
        peers: &["docker"],
        explains: |difference, _| failed_with(difference, "more than one source file"),
    },
    Explained {
        name: "unused-stages",
        peers: &["docker"],
        explains: |difference, case| {
            let stages = case.dockerfile.lines().filter(|line| line.starts_with("FROM ")).count();
            stages > 1 && matches!(difference, Difference::Failed { ours: None, .. })
        },
    },
];

/// Returns the path of a file whose owner alone differs.
fn owner_alone(difference: &Difference) -> Option<&str> {
    let Difference::File { path, ours: Some(ours), theirs: Some(theirs) } = difference else {
        return None;
    };
    let without = |line: &str| -> Vec<String> {
        let words = line.split(' ').enumerate().filter(|(at, _)| *at != 3);
        words.map(|(_, word)| word.to_owned()).collect()
    };
    (without(ours) == without(theirs)).then_some(path)
}

/// Says whether only the other builder failed, and in these words.
fn failed_with(difference: &Difference, words: &str) -> bool {
    matches!(difference, Difference::Failed { ours: None, theirs: Some(theirs) }
        if theirs.contains(words))
}
