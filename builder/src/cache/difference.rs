//! Why a step was not found: what differs between an earlier record and what is wanted now.
//!
//! Keys are made of named parts, so this is a comparison of parts; only the stack below and copied
//! files are looked into more closely. The order is that of importance: what lies below decides
//! everything above it, then what the instruction says, then what it sees, then files.

use std::fmt;

use serde::Serialize;

use super::changed_files::ChangedFiles;
use super::key::{Part, Parts, variable};
use super::record::{Ground, Record};
use crate::contents::Table;
use crate::dockerfile::lint::is_secret_name;
use crate::layer::ContentId;

/// The longest text that is shown of a command or value; the JSON has all of it.
const TEXT_WIDTH: usize = 60;
const HIDDEN: &str = "(hidden)";

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Difference {
    /// The stage begins with something else: `scratch`, another image, or the same name with other
    /// layers.
    Base {
        /// The earlier one's name.
        from: String,
        /// The earlier one's identity.
        from_id: String,
        /// The name now.
        to: String,
        /// The identity now.
        to_id: String,
    },
    /// The first step below that made another layer, is new, or is gone.
    Parent {
        /// The step.
        step: String,
        /// What became of it.
        change: Change,
    },
    /// The command, or what the instruction says.
    Text {
        /// As it was.
        from: String,
        /// As it is.
        to: String,
    },
    /// A variable: ENV, ARG or a proxy's.
    Variable {
        /// `env` or `arg`.
        scope: String,
        /// Its name.
        name: String,
        /// As it was; none where there was no such variable.
        from: Option<String>,
        /// As it is; none where there is none.
        to: Option<String>,
    },
    /// Anything else that the step sees: user, directory, shell, platform, network, a mount.
    Setting {
        /// Its name.
        name: String,
        /// As it was; none where it was not there.
        from: Option<String>,
        /// As it is; none where it is not there.
        to: Option<String>,
    },
    /// What is copied or mounted from somewhere.
    Source {
        /// The source.
        name: String,
        /// What became of it.
        change: Change,
    },
    /// Files of a source.
    Files {
        /// The source.
        source: String,
        /// Which.
        #[serde(flatten)]
        changed: ChangedFiles,
    },
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It is another.
    Changed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::Added => "is new",
            Change::Removed => "is gone",
            Change::Changed => "changed",
        })
    }
}

/// Compares what is wanted now with an earlier record. Nothing, where all is the same: then the
/// earlier one was not asked for, or its layer cannot be had any more.
///
/// `table` returns what a source selected, where that is kept.
pub fn differences(
    earlier: &Record,
    now: &Record,
    table: &dyn Fn(&ContentId) -> Option<Table>,
) -> Vec<Difference> {
    let mut found: Vec<Difference> = ground(&earlier.ground, &now.ground).into_iter().collect();
    let mut rest = changed_parts(&earlier.parts, &now.parts, found.is_empty());
    rest.sort_by_key(rank);
    found.extend(rest.into_iter().map(|difference| match difference {
        Difference::Source { name, change: Change::Changed } => files(earlier, now, name, table),
        difference => difference,
    }));
    found
}

/// Looks into a source that changed.
fn files(
    earlier: &Record,
    now: &Record,
    source: String,
    table: &dyn Fn(&ContentId) -> Option<Table>,
) -> Difference {
    let of = |record: &Record| {
        let input = record.inputs.iter().find(|input| input.name == source)?;
        table(&input.content)
    };
    match (of(earlier), of(now)) {
        (Some(earlier), Some(now)) => {
            Difference::Files { changed: ChangedFiles::between(&earlier, &now), source }
        }
        _ => Difference::Source { name: source, change: Change::Changed },
    }
}

fn rank(difference: &Difference) -> u8 {
    match difference {
        Difference::Base { .. } => 0,
        Difference::Parent { .. } => 1,
        Difference::Text { .. } => 2,
        Difference::Variable { scope, .. } if scope == "arg" => 3,
        Difference::Variable { .. } => 4,
        Difference::Setting { .. } => 5,
        Difference::Source { .. } | Difference::Files { .. } => 6,
    }
}

/// Compares what lies below: the base, or else the first step that differs.
fn ground(earlier: &Ground, now: &Ground) -> Option<Difference> {
    if earlier.base_id != now.base_id {
        return Some(Difference::Base {
            from: earlier.base.clone(),
            from_id: earlier.base_id.clone(),
            to: now.base.clone(),
            to_id: now.base_id.clone(),
        });
    }
    let same = earlier.steps.iter().zip(&now.steps);
    let at = same.take_while(|(earlier, now)| earlier.content == now.content).count();
    let parent = |step: &str, change| Some(Difference::Parent { step: step.to_owned(), change });
    match (earlier.steps.get(at), now.steps.get(at)) {
        (Some(_), Some(now)) => parent(&now.step, Change::Changed),
        (Some(earlier), None) => parent(&earlier.step, Change::Removed),
        (None, Some(now)) => parent(&now.step, Change::Added),
        (None, None) => None,
    }
}

/// Compares parts by name; those of one name, in their order.
fn changed_parts(earlier: &Parts, now: &Parts, ground_is_same: bool) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for part in now.iter().chain(earlier.iter()) {
        if !names.contains(&part.name.as_str()) {
            names.push(&part.name);
        }
    }
    for name in names {
        // The parent is a hash of the ground.
        if name == "parent" && !ground_is_same {
            continue;
        }
        let of = |parts: &'_ Parts| -> Vec<String> {
            let named = parts.iter().filter(|part: &&Part| part.name == name);
            named.map(|part| part.value.clone()).collect()
        };
        let (from, to) = (of(earlier), of(now));
        if from != to {
            found.push(changed_part(name, one(&from), one(&to)));
        }
    }
    found
}

fn one(values: &[String]) -> Option<String> {
    if values.is_empty() { None } else { Some(values.join("\n")) }
}

fn changed_part(name: &str, from: Option<String>, to: Option<String>) -> Difference {
    if let Some(variable) = variable(name) {
        let mask = |value| if is_secret_name(variable) { HIDDEN.to_owned() } else { value };
        return Difference::Variable {
            scope: name[..3].to_owned(),
            name: variable.to_owned(),
            from: from.map(mask),
            to: to.map(mask),
        };
    }
    let change = match (&from, &to) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        _ => Change::Changed,
    };
    match name.split_once(' ') {
        Some(("source", source)) => Difference::Source { name: source.to_owned(), change },
        None if matches!(name, "command" | "text") => {
            Difference::Text { from: from.unwrap_or_default(), to: to.unwrap_or_default() }
        }
        _ => Difference::Setting { name: name.to_owned(), from, to },
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Base { from, to, from_id, to_id } if from == to => {
                write!(f, "base: {to} is another image now ({} -> {})", id(from_id), id(to_id))
            }
            Difference::Base { from, to, .. } => write!(f, "base: {from} -> {to}"),
            Difference::Parent { step, change: Change::Changed } => {
                write!(f, "below: the layer of `{}` changed", line(step))
            }
            Difference::Parent { step, change } => write!(f, "below: `{}` {change}", line(step)),
            Difference::Text { from, to } => {
                write!(f, "command: `{}` -> `{}`", line(from), line(to))
            }
            Difference::Variable { scope, name, from, to } => {
                values(f, &format!("{scope} {name}"), from.as_deref(), to.as_deref())
            }
            Difference::Setting { name, from, to } => {
                values(f, name, from.as_deref(), to.as_deref())
            }
            Difference::Source { name, change: Change::Changed } => {
                write!(f, "{name}: what it selects changed")
            }
            Difference::Source { name, change } => write!(f, "source {name} {change}"),
            Difference::Files { source, changed } => match &changed.files[..] {
                [one] => write!(f, "{source}: {one}"),
                files => {
                    write!(f, "{source}: {} files differ", changed.total)?;
                    files.iter().try_for_each(|file| write!(f, "\n  {file}"))?;
                    match changed.total - files.len() as u64 {
                        0 => Ok(()),
                        more => write!(f, "\n  and {more} more"),
                    }
                }
            },
        }
    }
}

fn values(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> fmt::Result {
    match (from, to) {
        (Some(HIDDEN), Some(HIDDEN)) => write!(f, "{name}: another value, not shown"),
        (Some(from), Some(to)) => write!(f, "{name}: `{}` -> `{}`", line(from), line(to)),
        (None, Some(to)) => write!(f, "{name}: new, `{}`", line(to)),
        (from, None) => write!(f, "{name}: gone, was `{}`", line(from.unwrap_or_default())),
    }
}

/// Shortens a digest.
fn id(text: &str) -> &str {
    let hex = text.rsplit(':').next().unwrap_or(text);
    hex.get(..12).unwrap_or(hex)
}

/// Returns a text as one line that a terminal bears.
fn line(text: &str) -> String {
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let mut shown: String = text.chars().map(plain).take(TEXT_WIDTH + 1).collect();
    if shown.chars().count() > TEXT_WIDTH {
        shown = shown.chars().take(TEXT_WIDTH - 1).chain(['…']).collect();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{file, record, table};
    use crate::cache::{Below, Input};

    fn said(earlier: &Record, now: &Record) -> Vec<String> {
        let found = differences(earlier, now, &|_| None);
        found.iter().map(ToString::to_string).collect()
    }

    fn with(mut record: Record, parts: &[(&str, &str)]) -> Record {
        for (name, value) in parts {
            record.parts.push(*name, *value);
        }
        record
    }

    #[test]
    fn what_differs_is_said_in_the_order_of_importance() {
        let make = || record(2, "RUN make");
        let earlier = with(
            make(),
            &[
                ("user", "root"),
                ("env PATH", "/bin"),
                ("env DB_PASSWORD", "hunter2"),
                ("arg V", "1"),
                ("arg OLD", "x"),
                ("mount type=cache,target=/c", "shared"),
            ],
        );
        let now = with(
            record(2, "RUN make install"),
            &[
                ("user", "app"),
                ("env PATH", "/bin:/usr/bin"),
                ("env DB_PASSWORD", "hunter3"),
                ("arg V", "2"),
                ("arg NEW", "y"),
            ],
        );
        assert_eq!(
            said(&earlier, &now),
            [
                "command: `RUN make` -> `RUN make install`",
                "arg V: `1` -> `2`",
                "arg NEW: new, `y`",
                "arg OLD: gone, was `x`",
                "env PATH: `/bin` -> `/bin:/usr/bin`",
                "env DB_PASSWORD: another value, not shown",
                "user: `root` -> `app`",
                "mount type=cache,target=/c: gone, was `shared`",
            ]
        );
        assert_eq!(said(&now, &now), [""; 0]);
        let json = serde_json::to_string(&differences(&earlier, &now, &|_| None)).unwrap();
        assert!(
            json.contains(r#"{"what":"variable","scope":"arg","name":"V","from":"1","to":"2"}"#)
        );
        assert!(!json.contains("hunter"));
    }

    #[test]
    fn what_lies_below_is_the_base_or_the_first_step_that_changed() {
        let on = |base: &str, id: &str, steps: &[&str]| {
            let mut record = record(9, "RUN make");
            record.parts.push("parent", format!("{base} {id} {steps:?}"));
            let below = |step: &&str| Below {
                step: step.split('=').next().unwrap_or_default().to_owned(),
                content: blake3::hash(step.as_bytes()).to_hex().parse().unwrap(),
            };
            (record.ground.base, record.ground.base_id) = (base.into(), id.into());
            record.ground.steps = steps.iter().map(below).collect();
            record
        };
        let earlier = on("debian:12", "sha256:0123456789abcdef", &["RUN a=1", "RUN b=1"]);
        for (now, expected) in [
            (on("debian:13", "sha256:ff", &[]), "base: debian:12 -> debian:13"),
            (
                on("debian:12", "sha256:fedcba9876543210", &[]),
                "base: debian:12 is another image now (0123456789ab -> fedcba987654)",
            ),
            (
                on("debian:12", "sha256:0123456789abcdef", &["RUN a=2", "RUN b=2"]),
                "below: the layer of `RUN a` changed",
            ),
            (
                on("debian:12", "sha256:0123456789abcdef", &["RUN a=1", "RUN b=1", "RUN c=1"]),
                "below: `RUN c` is new",
            ),
            (on("debian:12", "sha256:0123456789abcdef", &["RUN a=1"]), "below: `RUN b` is gone"),
        ] {
            assert_eq!(said(&earlier, &now), [expected]);
        }
    }

    #[test]
    fn of_a_source_the_files_are_named() {
        let copy = |content: &str| {
            let content = blake3::hash(content.as_bytes()).to_hex().to_string();
            let mut record = record(3, "COPY src/ /srv/");
            record.parts.push("source src/", &content);
            let input =
                Input { name: "src/".into(), content: content.parse().unwrap(), stack: None };
            record.inputs.push(input);
            record
        };
        let (earlier, now) = (copy("1"), copy("2"));
        let selected = |content: &ContentId| {
            let is_now = *content == now.inputs[0].content;
            let files = [(file("a.rb"), if is_now { "2" } else { "1" }), (file("b.rb"), "1")];
            Some(table(&files[..if is_now { 2 } else { 1 }]))
        };
        let found = differences(&earlier, &now, &selected);
        assert_eq!(found[0].to_string(), "src/: 2 files differ\n  a.rb: content\n  b.rb: added");
        assert_eq!(said(&earlier, &now), ["src/: what it selects changed"], "no tables are kept");
    }
}
