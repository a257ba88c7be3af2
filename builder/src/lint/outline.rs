//! What a Dockerfile offers: its stages, and what a target takes.

use std::collections::{BTreeMap, BTreeSet};

use super::stages::Stages;
use crate::dockerfile::expansion::Expander;
use crate::dockerfile::instruction::{ArgItem, Run};
use crate::dockerfile::mount::{self, MountKind};
use crate::dockerfile::{Diagnostic, Dockerfile, InstructionKind, Span};
use crate::plan::{Arguments, PlanOptions};
use crate::stage::Environment;

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What the comment above says.
    pub description: Option<String>,
    /// It is built if none is named.
    pub is_default: bool,
    /// What it begins with, as it is written.
    pub base: String,
    /// Its platform, as it is written.
    pub platform: Option<String>,
    /// Where it begins.
    pub span: Span,
}

/// Returns the stages of a Dockerfile.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let last = dockerfile.stages.len() - 1;
    let target = |(index, stage): (usize, &crate::dockerfile::Stage)| Target {
        name: stage.name.as_ref().map(|name| name.value.clone()),
        description: stage.description.clone(),
        is_default: index == last,
        base: stage.from.image.value.clone(),
        platform: stage.from.platform.as_ref().map(|platform| platform.value.clone()),
        span: stage.span,
    };
    dockerfile.stages.iter().enumerate().map(target).collect()
}

/// What a target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What the comment above says.
    pub description: Option<String>,
    /// The arguments, in the order of the text.
    pub args: Vec<Arg>,
    /// The secrets.
    pub secrets: Vec<Wanted>,
    /// The SSH agents.
    pub ssh: Vec<Wanted>,
    /// The caches.
    pub caches: Vec<Wanted>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// What it is in this build.
    pub value: Option<String>,
    /// What the comment above says.
    pub description: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// Something that a RUN wants from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is called.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    /// The first RUN that wants it.
    pub span: Span,
}

/// Returns what the target takes, with the stages that it needs.
///
/// # Errors
/// Where the target is not there, or a global argument cannot be expanded.
pub fn outline(dockerfile: &Dockerfile, options: &PlanOptions) -> Result<Outline, Diagnostic> {
    let target = crate::plan::target(dockerfile, options)?;
    let arguments = Arguments::new(dockerfile, options, target)?;
    let stages = Stages::new(dockerfile, &arguments, options);
    let expander = Expander::new(dockerfile.directives.escape);
    let mut sketch = Sketch { dockerfile, arguments: &arguments, expander, args: BTreeMap::new() };
    let mut found = Outline::default();
    let stage = &dockerfile.stages[target];
    found.name = stage.name.as_ref().map(|name| name.value.clone());
    found.description.clone_from(&stage.description);
    for index in stages.reachable(target) {
        let stage = &dockerfile.stages[index];
        for word in [Some(&stage.from.image), stage.from.platform.as_ref()].into_iter().flatten() {
            if let Some(expanded) = stages.expand(word) {
                expanded.used.iter().for_each(|name| sketch.global(name));
            }
        }
        let mut environment = Environment::default();
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(items) => {
                    for item in items {
                        sketch.declare(item, instruction.span, &mut environment);
                    }
                }
                InstructionKind::Env(pairs) => {
                    for pair in pairs {
                        let value = expander.expand(&pair.value.value, &environment);
                        environment.set(&pair.key.value, &value.unwrap_or_default().text);
                    }
                }
                InstructionKind::Run(run) => {
                    mounts(run, instruction.span, expander, &environment, &mut found);
                }
                _ => {}
            }
        }
    }
    found.args = sketch.args.into_values().collect();
    found.args.sort_by_key(|arg| arg.span.start);
    Ok(found)
}

struct Sketch<'a> {
    dockerfile: &'a Dockerfile,
    arguments: &'a Arguments,
    expander: Expander,
    args: BTreeMap<String, Arg>,
}

impl Sketch<'_> {
    /// Notes an argument before the first FROM that is used, and those that its default uses.
    fn global(&mut self, name: &str) {
        let mut waiting = BTreeSet::from([name.to_owned()]);
        while let Some(name) = waiting.pop_first() {
            if self.args.contains_key(&name) {
                continue;
            }
            let declared = self.dockerfile.global_args.iter().rev().find_map(|arg| {
                Some((arg.items.iter().find(|item| item.name.value == name)?, arg.span))
            });
            let Some((item, span)) = declared else { continue };
            if let Some(default) = &item.default
                && let Ok(expanded) =
                    self.expander.expand(&default.value, &self.arguments.globals())
            {
                waiting.extend(expanded.used);
            }
            let value = self.arguments.global(&name).map(str::to_owned);
            let description = item.description.clone();
            self.args.insert(name.clone(), Arg { name, value, description, span });
        }
    }

    /// Notes an argument of a stage.
    fn declare(&mut self, item: &ArgItem, span: Span, environment: &mut Environment) {
        let name = item.name.value.clone();
        let given = self.arguments.given(&name).map(str::to_owned);
        if given.is_none()
            && item.default.is_none()
            && let Some(value) = self.arguments.global(&name).map(str::to_owned)
        {
            environment.declare(&name, Some(&value));
            self.global(&name);
            return;
        }
        let default = item.default.as_ref().and_then(|default| {
            self.expander.expand(&default.value, &*environment).ok().map(|expanded| expanded.text)
        });
        let value = given.or(default);
        environment.declare(&name, value.as_deref());
        let description = item.description.clone();
        let arg = Arg { name: name.clone(), value, description, span };
        self.args.entry(name).or_insert(arg);
    }
}

fn mounts(
    run: &Run,
    span: Span,
    expander: Expander,
    environment: &Environment,
    found: &mut Outline,
) {
    for word in &run.mounts {
        let expand = |text: &str| expander.expand(text, environment).map(|expanded| expanded.text);
        let Ok(mount) = mount::parse_with(&word.value, expand) else { continue };
        let (list, name, required) = match mount.kind {
            MountKind::Secret { id, required, .. } => (&mut found.secrets, id, required),
            MountKind::Ssh { id, required, .. } => (&mut found.ssh, id, required),
            MountKind::Cache { id, .. } => {
                (&mut found.caches, id.unwrap_or_else(|| mount.target.clone()), false)
            }
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => continue,
        };
        match list.iter_mut().find(|wanted| wanted.name == name) {
            Some(wanted) => wanted.required |= required,
            None => list.push(Wanted { name, required, span }),
        }
    }
}
