//! A stage being built: its configuration, its environment, and its stack of layers.
//!
//! [`configure`] has the instructions that only change the configuration, [`run`], [`files`] and
//! [`landing`] those that make a layer, [`environment`] what variables mean.

mod configure;
mod environment;
mod files;
mod landing;
mod mounts;
mod origin;
mod remote;
mod run;

use boatyard_oci::{Digest, History, ImageConfig, ImageName, Platform};
use jiff::Timestamp;

use crate::base::Found;
use crate::build::{BuildError, Builder, DAMAGED_BASE, StepFailure, base_failure};
use crate::dockerfile::expansion::Expander;
use crate::dockerfile::{Diagnostic, InstructionKind, Span};
use crate::execute::environment::DEFAULT_PATH;
use crate::layer::{ContentTimes, Written};
use crate::plan::{self, Base, PlannedInstruction, PlannedStage};
use crate::progress::{StepEnd, StepId};
use crate::snapshot::{Active, ActiveError, LayerDir};
use crate::solve::{Kept, LayerStack, Made, Solved, Stages};

pub(crate) use environment::Environment;
pub(crate) use mounts::furnish::Furnished;
pub(crate) use remote::{is_elsewhere, without_secrets};

/// Who wrote a history entry, in the words that scanners know.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage's state after some of its instructions.
#[derive(Clone, Debug)]
pub(crate) struct StageState {
    /// What becomes the image's configuration.
    pub(crate) config: ImageConfig,
    /// The layers.
    pub(crate) stack: LayerStack,
    /// What RUN and expansions see.
    pub(crate) environment: Environment,
    /// The image that the stage, or the stage it began with, began with.
    pub(crate) base: Option<(ImageName, Digest)>,
    /// CMD was set in this stage: ENTRYPOINT leaves it alone.
    cmd_is_set: bool,
}

impl StageState {
    /// Returns the state of a stage that begins with nothing.
    pub(crate) fn scratch(platform: &Platform) -> StageState {
        StageState {
            config: ImageConfig::scratch(platform),
            stack: LayerStack::scratch(),
            environment: Environment::default(),
            base: None,
            cmd_is_set: false,
        }
    }

    /// Adds an entry to the history; one without a time has that of the next.
    fn tell(&mut self, text: impl Into<String>, layer: bool, at: Option<Timestamp>) {
        self.config.history.push(History {
            created: at,
            created_by: text.into(),
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !layer,
            ..History::default()
        });
    }

    /// Returns the shell of shell forms.
    pub(crate) fn shell(&self) -> Vec<String> {
        if self.config.config.shell.is_empty() {
            return vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        self.config.config.shell.clone()
    }

    /// Returns the working directory.
    pub(crate) fn directory(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        }
    }
}

/// An instruction being carried out.
pub(crate) struct Step<'a> {
    pub(crate) builder: &'a Builder<'a>,
    pub(crate) stage: &'a PlannedStage,
    pub(crate) planned: &'a PlannedInstruction,
    /// The other stages.
    pub(crate) stages: &'a Stages,
    /// Which of the stage's instructions it is, from 1.
    pub(crate) ordinal: u32,
    /// What progress calls it.
    pub(crate) name: String,
}

pub(crate) type StepResult<T> = Result<T, StepFailure>;

impl Step<'_> {
    /// Returns an error about a word of the instruction.
    pub(crate) fn error(&self, message: impl Into<String>, span: Span) -> Diagnostic {
        if self.planned.is_trigger {
            let message = format!("{} (in ONBUILD of the base image)", message.into());
            return plan::error(message, self.stage.from);
        }
        let mut diagnostic = plan::error(message, span);
        diagnostic.context = Some(self.planned.instruction.span);
        diagnostic
    }

    /// Returns an error about the instruction as a whole: its first line is shown.
    pub(crate) fn whole(&self, message: impl Into<String>) -> Diagnostic {
        self.error(message, self.planned.instruction.keyword.span)
    }

    /// Returns the expander for words of this instruction. Triggers were kept without their
    /// Dockerfile's escape directive.
    pub(crate) fn expander(&self) -> Expander {
        let escape = match self.planned.is_trigger {
            true => '\\',
            false => self.builder.request.dockerfile.directives.escape,
        };
        Expander::new(escape)
    }

    /// Returns the trees of a stack; the step says what is unpacked for it.
    pub(crate) fn trees(&self, stack: &LayerStack, id: StepId) -> StepResult<Vec<LayerDir>> {
        let say = |text: &str| self.builder.tools.progress.status(id, text);
        self.builder.trees.of(stack.layers(), &say).map_err(|error| {
            let mut problem = self.whole("cannot unpack what lies below this step");
            problem.hint = Some(DAMAGED_BASE.to_owned());
            StepFailure::new(problem).because(error)
        })
    }

    /// Makes a layer of what a snapshot holds; it is kept later.
    pub(crate) fn layer<'m>(
        &'m self,
        mut active: Active,
        times: ContentTimes,
        base_layers: usize,
        stubs: Option<&std::path::Path>,
    ) -> StepResult<Made<'m>> {
        use crate::layer::WriteOptions;
        use crate::snapshot::DiffOptions;
        let failed = |error: ActiveError| {
            StepFailure::new(self.whole("cannot make a layer of what this step left"))
                .because(error)
        };
        let write = WriteOptions { times, restamp: self.builder.times.restamp() };
        let options = DiffOptions { extra_bottom: stubs, base_layers, write };
        let written = active.diff(std::io::sink(), &options).map_err(failed)?;
        let keep = Box::new(move |written: &Written| {
            let tree = active.commit(written).map_err(failed)?;
            Ok(Kept { tree: Some(tree), blob: None })
        });
        Ok(Made { written, keep })
    }

    /// Returns the time that a solved step has in the history.
    pub(crate) fn time(&self, solved: &Solved) -> Option<Timestamp> {
        self.builder.epoch.or(Some(solved.created))
    }
}

impl Builder<'_> {
    /// Builds one stage.
    pub(crate) fn stage(
        &self,
        stage: &PlannedStage,
        stages: &Stages,
    ) -> Result<StageState, BuildError> {
        let mut state = self.begin(stage, stages)?;
        let total = stage.instructions.iter().filter(|p| makes_step(p)).count()
            + usize::from(matches!(stage.base, Base::Image(_)));
        let mut number = usize::from(matches!(stage.base, Base::Image(_)));
        for (ordinal, planned) in (1..).zip(&stage.instructions) {
            if stages.is_stopped() {
                return Err(BuildError::Cancelled);
            }
            let is_step = makes_step(planned);
            number += usize::from(is_step);
            let name = self.step_name(stage, planned, number, total);
            let step = Step { builder: self, stage, planned, stages, ordinal, name };
            step.carry_out(&mut state, is_step)
                .map_err(|failure| BuildError::Step(Box::new(failure)))?;
        }
        Ok(state)
    }

    fn step_name(
        &self,
        stage: &PlannedStage,
        planned: &PlannedInstruction,
        number: usize,
        total: usize,
    ) -> String {
        let trigger = if planned.is_trigger { "ONBUILD " } else { "" };
        format!("[{}{number}/{total}] {trigger}{}", self.prefix(stage), planned.instruction.text)
    }

    /// Returns what names the stage in its steps, and its platform where there are several; nothing
    /// where there is only one.
    fn prefix(&self, stage: &PlannedStage) -> String {
        let name =
            if self.plan.stages_in_file > 1 { format!("{} ", stage.name) } else { String::new() };
        if self.request.platforms.len() < 2 {
            return name;
        }
        match stage.platform == *self.platform {
            true => format!("{} {name}", stage.platform),
            // In BuildKit's words: it runs there, for the other one.
            false => format!("{}->{} {name}", stage.platform, self.platform.architecture),
        }
    }

    /// Returns the state in which a stage begins.
    fn begin(&self, stage: &PlannedStage, stages: &Stages) -> Result<StageState, BuildError> {
        let mut state = match &stage.base {
            Base::Scratch => StageState::scratch(&stage.platform),
            Base::Stage(index) => stages.wait(*index).map_err(|_| BuildError::Cancelled)?,
            Base::Image(name) => self
                .begin_with_image(name, stage)
                .map_err(|failure| BuildError::Step(Box::new(failure)))?,
        };
        state.cmd_is_set = false;
        state.config.config.on_build.clear();
        let has_path = state.config.config.env.iter().any(|pair| pair.starts_with("PATH="));
        if !has_path {
            state.config.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        state.environment.inherit(&state.config.config.env);
        Ok(state)
    }

    /// Returns the state of a stage that begins with an image. Nothing of it is unpacked yet.
    fn begin_with_image(&self, name: &ImageName, stage: &PlannedStage) -> StepResult<StageState> {
        let found = self.bases.resolve(name, &stage.platform, &|_| {}).map_err(|error| {
            base_failure(error, plan::error("cannot begin this stage", stage.from))
        })?;
        let Found { image, stack } = found;
        let total = stage.instructions.iter().filter(|p| makes_step(p)).count() + 1;
        let title = format!("[{}1/{total}] FROM {name}@{}", self.prefix(stage), image.digest());
        self.steps.solve(&title, |_| {
            let end = if image.was_here { StepEnd::Cached } else { StepEnd::Done };
            let state = StageState {
                config: ImageConfig { created: None, ..image.config.clone() },
                stack,
                environment: Environment::default(),
                base: Some((image.name.clone(), image.digest().clone())),
                cmd_is_set: false,
            };
            Ok((state, end))
        })
    }
}

/// Says whether an instruction is a step that people see, since it works on files.
fn makes_step(planned: &PlannedInstruction) -> bool {
    matches!(
        planned.instruction.kind,
        InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
    )
}
