//! The mounts of a RUN: what they ask for once variables are known, and what of that decides whether
//! the step ran before.
//!
//! [`shown`] has the files that they show, [`caches`] what they keep, and [`furnish`] gives all of it
//! to the step.

pub(super) mod caches;
pub(super) mod furnish;
pub(super) mod shown;

use std::fmt::Write as _;

use super::files::absolute;
use super::{StageState, Step, StepResult};
use crate::build::StepFailure;
use crate::cache::Parts;
use crate::contents::resolve::plain;
use crate::dockerfile::instruction::Run;
use crate::dockerfile::mount::{Mount, MountKind, Ownership, Sharing, parse_with};
use crate::dockerfile::{Span, Spanned};
use crate::layer::EntryPath;
use crate::plan::MountFrom;

const SECRET_MODE: u32 = 0o400;
const SSH_MODE: u32 = 0o600;
const CACHE_MODE: u32 = 0o755;

/// A mount that a RUN asks for.
pub(super) struct Wanted<'a> {
    pub(super) kind: MountKind,
    /// Where it appears, absolute; nothing for a secret that is a variable only.
    pub(super) target: Option<String>,
    /// Where its files come from.
    pub(super) from: &'a MountFrom,
    /// Where the Dockerfile asks for it.
    pub(super) span: Span,
}

impl Step<'_> {
    /// Returns the mounts of a RUN in the order in which they are made: a directory before what lies
    /// in it. Of two at the same place the later one covers the other.
    pub(super) fn wanted(&self, state: &StageState, run: &Run) -> StepResult<Vec<Wanted<'_>>> {
        let mut agents = 0;
        let mut wanted = Vec::with_capacity(run.mounts.len());
        for (text, from) in run.mounts.iter().zip(&self.planned.mounts_from) {
            let mount = self.mount(state, text)?;
            let target = target(&mount, state, agents);
            agents += usize::from(matches!(mount.kind, MountKind::Ssh { .. }));
            if target.as_deref() == Some("/") {
                let mut problem =
                    self.error("a mount cannot take the place of the root", text.span);
                problem.hint = Some(
                    "`target` says where it goes; without one it is the working directory".into(),
                );
                return Err(StepFailure::new(problem));
            }
            wanted.push(Wanted { kind: mount.kind, target, from, span: text.span });
        }
        wanted.sort_by(|a, b| a.names().cmp(b.names()));
        Ok(wanted)
    }

    fn mount(&self, state: &StageState, text: &Spanned<String>) -> StepResult<Mount> {
        let parsed = parse_with(&text.value, |value| {
            Ok(self.expander().expand(value, &state.environment)?.text)
        });
        parsed.map_err(|error| {
            let mut problem = self.error(format!("cannot use this mount: {error}"), text.span);
            problem.hint = error.hint();
            StepFailure::new(problem)
        })
    }
}

fn target(mount: &Mount, state: &StageState, agents: usize) -> Option<String> {
    let target = match &mount.kind {
        MountKind::Secret { file, .. } => file.clone()?,
        MountKind::Ssh { .. } if mount.target.is_empty() => {
            format!("/run/buildkit/ssh_agent.{agents}")
        }
        _ => mount.target.clone(),
    };
    let target = absolute(state.directory(), &target);
    let clean = plain(&EntryPath::root(), target.as_bytes());
    Some(format!("/{}", String::from_utf8_lossy(clean.as_bytes())))
}

impl Wanted<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.target.as_deref().unwrap_or_default().split('/')
    }

    /// Returns what people call it.
    pub(super) fn name(&self) -> String {
        match (&self.target, &self.kind) {
            (Some(target), _) => format!("--mount=target={target}"),
            (None, MountKind::Secret { env, .. }) => {
                format!("--mount=env={}", env.as_deref().unwrap_or_default())
            }
            (None, _) => "--mount".to_owned(),
        }
    }

    /// Adds what the step sees of it to what decides: everything but contents and values. What is
    /// as it is by itself is not said, so that to say it changes nothing.
    pub(super) fn describe(&self, parts: &mut Parts) {
        let mut said = Said(String::new());
        match &self.kind {
            MountKind::Bind { writable, .. } => {
                said.option("type", "bind");
                said.switch("rw", *writable);
            }
            MountKind::Cache { id, sharing, read_only, owner, .. } => {
                said.option("type", "cache");
                said.some("id", id.as_ref());
                match sharing {
                    Sharing::Shared => {}
                    Sharing::Private => said.option("sharing", "private"),
                    Sharing::Locked => said.option("sharing", "locked"),
                }
                said.switch("ro", *read_only);
                said.owner(owner, CACHE_MODE);
            }
            MountKind::Tmpfs { size, read_only } => {
                said.option("type", "tmpfs");
                said.some("size", Some(size).filter(|size| **size > 0));
                said.switch("ro", *read_only);
            }
            MountKind::Secret { id, env, required, owner, .. } => {
                said.option("type", "secret");
                said.option("id", id);
                said.some("env", env.as_ref());
                said.switch("required", *required);
                said.owner(owner, SECRET_MODE);
            }
            MountKind::Ssh { id, required, owner } => {
                said.option("type", "ssh");
                said.option("id", id);
                said.switch("required", *required);
                said.owner(owner, SSH_MODE);
            }
        }
        let target = self.target.as_deref().unwrap_or("(no file)");
        parts.push(format!("mount {target}"), said.0);
    }
}

/// Options of a mount, in one text that means nothing else.
struct Said(String);

impl Said {
    fn option(&mut self, name: &str, value: impl std::fmt::Display) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let value = value.to_string();
        let is_plain = !value.contains(|c: char| c == ',' || c == '"' || c.is_control());
        // Writing to a string cannot fail.
        let _ = match is_plain {
            true => write!(self.0, "{comma}{name}={value}"),
            false => write!(self.0, "{comma}{name}={value:?}"),
        };
    }

    fn some(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.option(name, value);
        }
    }

    fn switch(&mut self, name: &str, is_on: bool) {
        if is_on {
            let _ = write!(self.0, ",{name}");
        }
    }

    fn owner(&mut self, owner: &Ownership, mode: u32) {
        let given = owner.mode.filter(|given| *given != mode);
        self.some("mode", given.map(|mode| format!("{mode:04o}")));
        self.some("uid", owner.uid.filter(|uid| *uid != 0));
        self.some("gid", owner.gid.filter(|gid| *gid != 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::mount::parse;

    /// These are the format, with the golden vectors of keys: a change here makes every record of a
    /// step with mounts miss.
    #[test]
    fn golden_texts() {
        let table = [
            ("target=/t", "type=bind"),
            ("type=bind,target=/t,ro,source=a,from=b", "type=bind"),
            ("target=/t,rw", "type=bind,rw"),
            ("type=cache,target=/t", "type=cache"),
            ("type=cache,target=/t,sharing=shared,mode=0755,uid=0,gid=0", "type=cache"),
            (
                "type=cache,target=/t,gid=8,uid=7,mode=0700,ro,sharing=locked,id=a",
                "type=cache,id=a,sharing=locked,ro,mode=0700,uid=7,gid=8",
            ),
            ("type=cache,target=/t,sharing=private", "type=cache,sharing=private"),
            ("type=tmpfs,target=/t", "type=tmpfs"),
            ("type=tmpfs,target=/t,size=64k", "type=tmpfs,size=65536"),
            ("type=secret,id=s", "type=secret,id=s"),
            ("type=secret,id=s,target=/t,mode=0400", "type=secret,id=s"),
            ("type=secret,id=s,env=X,required", "type=secret,id=s,env=X,required"),
            ("type=ssh", "type=ssh,id=default"),
            ("type=ssh,id=s,mode=0666", "type=ssh,id=s,mode=0666"),
        ];
        for (text, expected) in table {
            let wanted = Wanted {
                kind: parse(text).unwrap().kind,
                target: Some("/t".to_owned()),
                from: &MountFrom::Unsaid,
                span: Span::default(),
            };
            let mut parts = Parts::new("RUN");
            wanted.describe(&mut parts);
            let described: Vec<_> = parts.iter().map(|part| (&*part.name, &*part.value)).collect();
            assert_eq!(described, [("mount /t", expected)], "{text}");
        }
    }
}
