//! Why a step was not found: what differs between an earlier record and what is wanted now.
//!
//! Keys are made of named parts, so this is a comparison of parts; only the stack below and copied
//! files are looked into more closely. The order is that of importance: what lies below decides
//! everything above it, then what the instruction says, then what it sees, then files.

use std::fmt;

use serde::Serialize;

use super::key::{Part, Parts, variable};
use super::record::{Ground, Record};
use crate::dockerfile::lint::is_secret_name;

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
pub fn differences(earlier: &Record, now: &Record) -> Vec<Difference> {
    let mut found: Vec<Difference> = ground(&earlier.ground, &now.ground).into_iter().collect();
    let mut rest = changed_parts(&earlier.parts, &now.parts, found.is_empty());
    rest.sort_by_key(rank);
    found.extend(rest);
    found
}

fn rank(difference: &Difference) -> u8 {
    match difference {
        Difference::Base { .. } => 0,
        Difference::Parent { .. } => 1,
        Difference::Text { .. } => 2,
        Difference::Variable { scope, .. } if scope == "arg" => 3,
        Difference::Variable { .. } => 4,
        Difference::Setting { .. } => 5,
        Difference::Source { .. } => 6,
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
