//! From a Dockerfile to the stages that a target needs.
//!
//! The plan says what each stage begins with, which stages and images its instructions copy from,
//! and in which order the needed ones are built; stages that nothing needs are not in it. It is
//! pure: ONBUILD triggers of base images are given to it by whoever has read their configurations.

mod arguments;
pub mod contexts;
pub mod mounts;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use boatyard_oci::{ImageName, Platform};

use crate::dockerfile::expansion::Expander;
use crate::dockerfile::instruction::CopySource;
use crate::dockerfile::{
    Diagnostic, Dockerfile, Instruction, InstructionKind, Severity, Span, Spanned, Stage,
    parse_trigger, suggest,
};

pub use arguments::{Arguments, PREDEFINED};
pub use contexts::{Contexts, NamedContext};
pub use mounts::MountFrom;

/// What decides the plan beside the Dockerfile.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// The stage to build: its name, or its number from 0; the last one if there is none.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--build-context`.
    pub contexts: Contexts,
    /// The platform that the image is for.
    pub platform: Platform,
    /// The platform that builds.
    pub build_platform: Platform,
    /// `--allow`: what steps may do beyond what is usual.
    pub allow: Allow,
}

/// What only whoever starts a build can allow its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// `security.insecure`: `RUN --security=insecure`.
    pub insecure: bool,
    /// `network.host`: `RUN --network=host`.
    pub host_network: bool,
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage, by its number.
    Stage(usize),
    /// An image.
    Image(ImageName),
}

/// Where a COPY, or a mount of a RUN, takes its files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// An earlier stage, by its number.
    Stage(usize),
    /// An image.
    Image(ImageName),
    /// The files of a named context, by the name under which [`Contexts`] has it.
    Named(String),
}

/// A stage that the target needs.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// Its number in the Dockerfile, from 0.
    pub index: usize,
    /// What it is called: its name, or `stage-1`.
    pub name: String,
    /// What it begins with.
    pub base: Base,
    /// The platform that it is built for.
    pub platform: Platform,
    /// Where `FROM` and its image stand.
    pub from: Span,
    /// Its instructions, triggers of the base first.
    pub instructions: Vec<PlannedInstruction>,
}

/// An instruction of a planned stage.
#[derive(Clone, Debug)]
pub struct PlannedInstruction {
    /// The instruction.
    pub instruction: Instruction,
    /// Where a COPY takes its files from.
    pub copy_from: Option<CopyFrom>,
    /// Where the mounts of a RUN take their files from, in their order.
    pub mounts_from: Vec<MountFrom>,
    /// It comes from ONBUILD of the base: its spans do not point into this Dockerfile.
    pub is_trigger: bool,
}

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The stages that the target needs, each after those it needs; the last one is the target.
    pub stages: Vec<PlannedStage>,
    /// The arguments that all stages can redeclare.
    pub arguments: Arguments,
    /// How many stages the Dockerfile has.
    pub stages_in_file: usize,
}

impl Plan {
    /// Returns the images that stages begin with or copy from.
    pub fn images(&self) -> BTreeSet<(ImageName, Platform)> {
        let mut images = BTreeSet::new();
        for stage in &self.stages {
            if let Base::Image(name) = &stage.base {
                images.insert((name.clone(), stage.platform.clone()));
            }
            for planned in &stage.instructions {
                for from in planned.sources() {
                    if let CopyFrom::Image(name) = from {
                        images.insert((name.clone(), stage.platform.clone()));
                    }
                }
            }
        }
        images
    }

    /// Returns the named contexts whose files instructions take.
    pub fn contexts(&self) -> BTreeSet<&str> {
        let instructions = self.stages.iter().flat_map(|stage| &stage.instructions);
        let sources = instructions.flat_map(PlannedInstruction::sources);
        let named = sources.filter_map(|from| match from {
            CopyFrom::Named(name) => Some(name.as_str()),
            _ => None,
        });
        named.collect()
    }

    /// Says whether a RUN sees what an instruction of a stage makes: one after it, in its stage or in
    /// a stage that begins with that. Instructions count from 1.
    pub fn runs_after(&self, stage: usize, ordinal: u32) -> bool {
        let is_run = |planned: &PlannedInstruction| {
            matches!(planned.instruction.kind, InstructionKind::Run(_))
        };
        self.stages.iter().any(|other| {
            if other.index == stage {
                return (1..).zip(&other.instructions).any(|(n, it)| n > ordinal && is_run(it));
            }
            other.base == Base::Stage(stage) && self.runs_after(other.index, 0)
        })
    }

    /// Says whether anything is run.
    pub fn runs_commands(&self) -> bool {
        self.stages
            .iter()
            .flat_map(|stage| &stage.instructions)
            .any(|planned| matches!(planned.instruction.kind, InstructionKind::Run(_)))
    }
}

/// Returns the ONBUILD triggers of a platform's image, parsed; `None` while its configuration is not known.
pub type Triggers<'a> = dyn Fn(&ImageName, &Platform) -> Option<Vec<Instruction>> + 'a;

/// Plans a build.
///
/// # Errors
/// Every reason why the target cannot be built that the text alone shows, each pointing at its
/// word: unknown stages, bad image names, instructions that are not supported yet.
pub fn plan(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    triggers: &Triggers<'_>,
) -> Result<Plan, Vec<Diagnostic>> {
    let target = target(dockerfile, options).map_err(|diagnostic| vec![diagnostic])?;
    let arguments =
        Arguments::new(dockerfile, options, target).map_err(|diagnostic| vec![diagnostic])?;
    let planner = Planner { dockerfile, options, arguments: &arguments, triggers };
    let mut planned: BTreeMap<usize, PlannedStage> = BTreeMap::new();
    let mut waiting = vec![target];
    let mut errors = Vec::new();
    while let Some(index) = waiting.pop() {
        if planned.contains_key(&index) {
            continue;
        }
        match planner.stage(index) {
            Ok(stage) => {
                waiting.extend(needs(&stage));
                planned.insert(index, stage);
            }
            Err(found) => errors.extend(found),
        }
    }
    errors.sort_by_key(|diagnostic| diagnostic.span.start);
    if !errors.is_empty() {
        return Err(errors);
    }
    // A stage can only need earlier ones, so their numbers are an order to build them in.
    let stages = planned.into_values().collect();
    Ok(Plan { stages, arguments, stages_in_file: dockerfile.stages.len() })
}

fn needs(stage: &PlannedStage) -> Vec<usize> {
    let base = match stage.base {
        Base::Stage(index) => Some(index),
        Base::Scratch | Base::Image(_) => None,
    };
    let sources = stage.instructions.iter().flat_map(PlannedInstruction::sources);
    let copies = sources.filter_map(|from| match from {
        CopyFrom::Stage(index) => Some(*index),
        _ => None,
    });
    base.into_iter().chain(copies).collect()
}

/// Finds the stage to build.
pub(crate) fn target(dockerfile: &Dockerfile, options: &PlanOptions) -> Result<usize, Diagnostic> {
    let Some(target) = &options.target else { return Ok(dockerfile.stages.len() - 1) };
    let wanted = target.to_lowercase();
    if let Some(index) = find_stage(dockerfile, &wanted, dockerfile.stages.len()) {
        return Ok(index);
    }
    if let Ok(index) = wanted.parse::<usize>()
        && index < dockerfile.stages.len()
    {
        return Ok(index);
    }
    let mut problem = error(
        format!("target stage `{target}` is not in the Dockerfile"),
        dockerfile.stages[dockerfile.stages.len() - 1].span,
    );
    problem.hint = suggest::nearest(&wanted, stage_names(dockerfile), true)
        .map(|near| format!("did you mean `{near}`?"));
    Err(problem)
}

fn stage_names(dockerfile: &Dockerfile) -> impl Iterator<Item = &str> {
    dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref()).map(|name| name.value.as_str())
}

/// Finds the last stage of a name among those before `end`.
pub(crate) fn find_stage(dockerfile: &Dockerfile, name: &str, end: usize) -> Option<usize> {
    let name = name.to_lowercase();
    dockerfile.stages[..end]
        .iter()
        .rposition(|stage| stage.name.as_ref().is_some_and(|own| own.value == name))
}

/// Returns an error that marks a span.
pub(crate) fn error(message: impl Into<String>, span: Span) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        rule: None,
        message: message.into(),
        span,
        context: None,
        note: None,
        hint: None,
    }
}

/// Returns what a stage begins with in whose place, or for whose base, a context was given: files
/// are copied into an empty one.
fn given_base(
    (name, given): (&str, &NamedContext),
    span: Span,
    instructions: &mut Vec<PlannedInstruction>,
) -> Base {
    match given {
        NamedContext::Image(image) => Base::Image(image.clone()),
        NamedContext::Files(_) => {
            let mut instruction = parse_trigger("COPY . /").expect("it is an instruction");
            // It stands nowhere: messages show the FROM.
            (instruction.span, instruction.keyword.span) = (span, span);
            if let InstructionKind::Copy(copy) = &mut instruction.kind {
                copy.destination.span = span;
                for source in &mut copy.sources {
                    if let CopySource::Path(word) = source {
                        word.span = span;
                    }
                }
            }
            let copy_from = Some(CopyFrom::Named(name.to_owned()));
            let mounts_from = Vec::new();
            instructions.push(PlannedInstruction {
                instruction,
                copy_from,
                mounts_from,
                is_trigger: false,
            });
            Base::Scratch
        }
    }
}

struct Planner<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a PlanOptions,
    arguments: &'a Arguments,
    triggers: &'a Triggers<'a>,
}

impl Planner<'_> {
    fn stage(&self, index: usize) -> Result<PlannedStage, Vec<Diagnostic>> {
        let stage = &self.dockerfile.stages[index];
        let platform = self.platform(stage).map_err(|problem| vec![problem])?;
        let mut errors = Vec::new();
        let mut instructions = Vec::new();
        let given = stage.name.as_ref().and_then(|name| self.options.contexts.find(&name.value));
        let base = match given {
            // All that the stage says is replaced.
            Some(given) => return Ok(self.given_stage(index, given, platform)),
            None => self.base(index, stage, &mut instructions),
        };
        let base = base.map_err(|problem| vec![problem])?;
        let platform = match base {
            Base::Stage(index) => self.platform_of(index).map_err(|problem| vec![problem])?,
            Base::Scratch | Base::Image(_) => platform,
        };
        for trigger in self.base_triggers(&base, &platform) {
            self.instruction(index, &trigger, true, &mut instructions, &mut errors);
        }
        for instruction in &stage.instructions {
            self.instruction(index, instruction, false, &mut instructions, &mut errors);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(PlannedStage {
            index,
            name: stage
                .name
                .as_ref()
                .map_or_else(|| format!("stage-{index}"), |name| name.value.clone()),
            base,
            platform,
            from: stage.from.image.span,
            instructions,
        })
    }

    fn instruction(
        &self,
        stage: usize,
        instruction: &Instruction,
        is_trigger: bool,
        planned: &mut Vec<PlannedInstruction>,
        errors: &mut Vec<Diagnostic>,
    ) {
        let from = self.dockerfile.stages[stage].from.image.span;
        let mark = |mut problem: Diagnostic| {
            if is_trigger {
                // The trigger's own text is in the base image, not here.
                problem.message = format!("{} (in ONBUILD of the base image)", problem.message);
                (problem.span, problem.context) = (from, None);
            }
            problem
        };
        let missing = support::missing(instruction, self.options.allow);
        errors.extend(missing.into_iter().map(mark));
        let sources = self
            .copy_from(stage, instruction)
            .and_then(|copy| Ok((copy, self.mounts_from(stage, instruction)?)));
        match sources {
            Ok((copy_from, mounts_from)) => planned.push(PlannedInstruction {
                instruction: instruction.clone(),
                copy_from,
                mounts_from,
                is_trigger,
            }),
            Err(problem) => errors.push(mark(problem)),
        }
    }

    /// Returns the triggers of a base, which run first.
    fn base_triggers(&self, base: &Base, platform: &Platform) -> Vec<Instruction> {
        match base {
            Base::Scratch => Vec::new(),
            Base::Image(name) => (self.triggers)(name, platform).unwrap_or_default(),
            // One that a context replaced has no triggers.
            Base::Stage(index) if self.is_given(*index) => Vec::new(),
            Base::Stage(index) => self.dockerfile.stages[*index]
                .instructions
                .iter()
                .filter_map(|instruction| match &instruction.kind {
                    InstructionKind::OnBuild(trigger) => Some((*trigger.instruction).clone()),
                    _ => None,
                })
                .collect(),
        }
    }

    fn expand_global(&self, word: &Spanned<String>) -> Result<String, Diagnostic> {
        let expander = Expander::new(self.dockerfile.directives.escape);
        let expanded = expander.expand(&word.value, &self.arguments.globals());
        expanded
            .map(|expanded| expanded.text)
            .map_err(|problem| error(problem.to_string(), word.span))
    }

    fn platform(&self, stage: &Stage) -> Result<Platform, Diagnostic> {
        let Some(word) = &stage.from.platform else { return Ok(self.options.platform.clone()) };
        let text = self.expand_global(word)?;
        text.parse().map_err(|problem: boatyard_oci::platform::PlatformError| {
            error(problem.to_string(), word.span)
        })
    }

    /// Returns the platform of a stage: one that begins with another has that one's, whatever it
    /// says.
    fn platform_of(&self, index: usize) -> Result<Platform, Diagnostic> {
        let stage = &self.dockerfile.stages[index];
        let text = self.expand_global(&stage.from.image)?;
        match find_stage(self.dockerfile, &text, index).filter(|_| text != "scratch") {
            Some(earlier) => self.platform_of(earlier),
            None => self.platform(stage),
        }
    }

    fn base(
        &self,
        index: usize,
        stage: &Stage,
        instructions: &mut Vec<PlannedInstruction>,
    ) -> Result<Base, Diagnostic> {
        let word = &stage.from.image;
        let text = self.expand_global(word)?;
        if text.is_empty() {
            let mut problem =
                error(format!("base name ({}) should not be blank", word.value), word.span);
            problem.hint =
                Some("variables in FROM need an ARG before the first FROM, and a value".to_owned());
            return Err(problem);
        }
        if text == "scratch" {
            return Ok(Base::Scratch);
        }
        if let Some(earlier) = find_stage(self.dockerfile, &text, index) {
            return Ok(Base::Stage(earlier));
        }
        if let Some(given) = self.options.contexts.find(&text) {
            return Ok(given_base(given, word.span, instructions));
        }
        match text.parse() {
            Ok(name) => Ok(Base::Image(name)),
            Err(problem) => Err(error(problem.to_string(), word.span)),
        }
    }

    fn is_given(&self, stage: usize) -> bool {
        let name = self.dockerfile.stages[stage].name.as_ref();
        name.is_some_and(|name| self.options.contexts.find(&name.value).is_some())
    }

    /// Plans a stage in whose place a context was given.
    fn given_stage(
        &self,
        index: usize,
        given: (&str, &NamedContext),
        platform: Platform,
    ) -> PlannedStage {
        let stage = &self.dockerfile.stages[index];
        let mut instructions = Vec::new();
        let base = given_base(given, stage.from.image.span, &mut instructions);
        let name = stage.name.as_ref().map_or_else(String::new, |name| name.value.clone());
        PlannedStage { index, name, base, platform, from: stage.from.image.span, instructions }
    }

    /// Finds where an instruction takes its files from.
    fn copy_from(
        &self,
        stage: usize,
        instruction: &Instruction,
    ) -> Result<Option<CopyFrom>, Diagnostic> {
        let from = match &instruction.kind {
            InstructionKind::Copy(copy) => &copy.from,
            InstructionKind::Add(_) => return Ok(Some(CopyFrom::Context)),
            _ => return Ok(None),
        };
        match from {
            Some(from) => self.source(stage, from, instruction.span).map(Some),
            None => Ok(Some(CopyFrom::Context)),
        }
    }

    /// Finds what `from=` of an instruction of a stage means: a context that was given under this
    /// name, an earlier stage by its name or number, or an image.
    fn source(
        &self,
        stage: usize,
        from: &Spanned<String>,
        instruction: Span,
    ) -> Result<CopyFrom, Diagnostic> {
        match self.options.contexts.find(&from.value) {
            Some((name, NamedContext::Files(_))) => return Ok(CopyFrom::Named(name.to_owned())),
            Some((_, NamedContext::Image(image))) => return Ok(CopyFrom::Image(image.clone())),
            None => {}
        }
        if from.value == "scratch" {
            let text = "`scratch` is empty: there is nothing to copy from it";
            return Err(error(text, from.span));
        }
        if let Some(earlier) = find_stage(self.dockerfile, &from.value, stage) {
            return Ok(CopyFrom::Stage(earlier));
        }
        if let Ok(number) = from.value.parse::<usize>() {
            if number < stage {
                return Ok(CopyFrom::Stage(number));
            }
            let mut problem = error(format!("cannot copy from stage {number}"), from.span);
            problem.note = Some(match stage {
                0 => "there is no earlier stage".to_owned(),
                1 => "the only earlier stage is 0".to_owned(),
                _ => format!("the earlier stages are 0 to {}", stage - 1),
            });
            return Err(problem);
        }
        if let Some(later) = find_stage(self.dockerfile, &from.value, self.dockerfile.stages.len())
        {
            let line = self.dockerfile.source.line_of(self.dockerfile.stages[later].span.start);
            let mut problem = error(format!("cannot copy from stage `{}`", from.value), from.span);
            problem.note = Some(if later == stage {
                "a stage cannot copy from itself".to_owned()
            } else {
                format!("it begins later, on line {line}: a stage can copy from earlier ones only")
            });
            return Err(problem);
        }
        match from.value.parse::<ImageName>() {
            Ok(name) => {
                // A name of one word that nearly is a stage's is more likely a slip than an image.
                let near = suggest::nearest(&from.value, stage_names(self.dockerfile), false);
                if let Some(near) = near.filter(|_| !from.value.contains(['/', ':', '.'])) {
                    let mut problem =
                        error(format!("cannot copy from stage `{}`", from.value), from.span);
                    problem.context = Some(instruction);
                    problem.note = Some("no stage has this name".to_owned());
                    problem.hint = Some(format!("did you mean `{near}`?"));
                    return Err(problem);
                }
                Ok(CopyFrom::Image(name))
            }
            Err(problem) => Err(error(problem.to_string(), from.span)),
        }
    }
}

#[cfg(test)]
mod tests;
