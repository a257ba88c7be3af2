//! The stages of a Dockerfile as the linter sees them: what each begins with and needs.

use std::collections::BTreeSet;

use boatyard_oci::{ImageName, Platform};

use crate::dockerfile::expansion::{Expanded, Expander};
use crate::dockerfile::instruction::Stage;
use crate::dockerfile::{Dockerfile, Instruction, InstructionKind, Spanned};
use crate::plan::{Arguments, Base, Contexts, NamedContext, PlanOptions, find_stage};

/// The stages, with what they begin with where that can be told.
pub(super) struct Stages<'a> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) bases: Vec<Option<Base>>,
    pub(super) platforms: Vec<Platform>,
    expander: Expander,
    arguments: &'a Arguments,
    contexts: &'a Contexts,
}

impl<'a> Stages<'a> {
    pub(super) fn new(
        dockerfile: &'a Dockerfile,
        arguments: &'a Arguments,
        options: &'a PlanOptions,
    ) -> Stages<'a> {
        let expander = Expander::new(dockerfile.directives.escape);
        let (bases, platforms) = (Vec::new(), Vec::new());
        let contexts = &options.contexts;
        let mut stages = Stages { dockerfile, bases, platforms, expander, arguments, contexts };
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let base = stages.base(index, stage);
            let platform = match base {
                Some(Base::Stage(earlier)) => Some(stages.platforms[earlier].clone()),
                _ => {
                    let word = stage.from.platform.as_ref();
                    word.and_then(|word| stages.expand(word)?.text.parse().ok())
                }
            };
            stages.bases.push(base);
            stages.platforms.push(platform.unwrap_or_else(|| options.platform.clone()));
        }
        stages
    }

    /// Expands a word of FROM.
    pub(super) fn expand(&self, word: &Spanned<String>) -> Option<Expanded> {
        self.expander.expand(&word.value, &self.arguments.globals()).ok()
    }

    fn base(&self, index: usize, stage: &Stage) -> Option<Base> {
        if let Some(given) = self.given(index) {
            return Some(given);
        }
        let name = self.expand(&stage.from.image)?.text;
        if let Some((_, given)) = self.contexts.find(&name) {
            return Some(base_of(given));
        }
        if name == "scratch" {
            return Some(Base::Scratch);
        }
        match find_stage(self.dockerfile, &name, index) {
            Some(earlier) => Some(Base::Stage(earlier)),
            None => name.parse::<ImageName>().ok().map(Base::Image),
        }
    }

    /// Returns what a stage does: nothing, where a context is in its place.
    pub(super) fn instructions(&self, index: usize) -> &'a [Instruction] {
        match self.given(index) {
            Some(_) => &[],
            None => &self.dockerfile.stages[index].instructions,
        }
    }

    /// Returns what a context puts in the place of a stage.
    pub(super) fn given(&self, index: usize) -> Option<Base> {
        let name = self.dockerfile.stages[index].name.as_ref()?;
        self.contexts.find(&name.value).map(|(_, given)| base_of(given))
    }

    pub(super) fn all(&self) -> BTreeSet<usize> {
        (0..self.dockerfile.stages.len()).collect()
    }

    /// Returns the stages that one needs, with itself.
    pub(super) fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![target];
        while let Some(index) = waiting.pop() {
            if found.insert(index) {
                waiting.extend(self.needs(index));
            }
        }
        found
    }

    /// Returns the stages whose layers are in the image of one, that one last.
    pub(super) fn in_image(&self, target: usize) -> Vec<usize> {
        let mut chain = vec![target];
        let mut next = &self.bases[target];
        while let Some(Base::Stage(index)) = next {
            chain.push(*index);
            next = &self.bases[*index];
        }
        chain.reverse();
        chain
    }

    fn needs(&self, index: usize) -> Vec<usize> {
        let mut needs = Vec::new();
        if let Some(Base::Stage(base)) = self.bases[index] {
            needs.push(base);
        }
        let named = |name: &str| {
            if self.contexts.find(name).is_some() {
                return None;
            }
            let number = || name.parse::<usize>().ok().filter(|number| *number < index);
            find_stage(self.dockerfile, name, index).or_else(number)
        };
        for instruction in self.instructions(index) {
            match &instruction.kind {
                InstructionKind::Copy(copy) => {
                    needs.extend(copy.from.iter().filter_map(|from| named(&from.value)));
                }
                InstructionKind::Run(run) => {
                    let options = run.mounts.iter().flat_map(|mount| mount.value.split(','));
                    let from = options.filter_map(|option| option.trim().strip_prefix("from="));
                    needs.extend(from.filter_map(named));
                }
                _ => {}
            }
        }
        needs
    }
}

fn base_of(given: &NamedContext) -> Base {
    match given {
        NamedContext::Image(name) => Base::Image(name.clone()),
        NamedContext::Files(_) => Base::Scratch,
    }
}
