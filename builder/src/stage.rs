//! A stage being built: its configuration, its environment, and its stack of layers.
//!
//! [`configure`] has the instructions that only change the configuration, [`run`] and [`files`]
//! those that make a layer, [`environment`] what variables mean.

mod configure;
mod environment;
mod files;
mod run;

use std::collections::HashMap;

use boatyard_oci::{Descriptor, Digest, History, ImageConfig, ImageName};
use jiff::Timestamp;

use crate::base::BaseImage;
use crate::build::{BuildError, Builder, StepFailure, base_failure};
use crate::dockerfile::expansion::Expander;
use crate::dockerfile::{Diagnostic, InstructionKind, Span};
use crate::execute::environment::DEFAULT_PATH;
use crate::layer::ContentTimes;
use crate::pack::Packing;
use crate::plan::{self, Base, PlannedInstruction, PlannedStage};
use crate::snapshot::{Active, ActiveError, LayerDir};

pub(crate) use environment::Environment;

/// Who wrote a history entry, in the words that scanners know.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage's state after some of its instructions.
#[derive(Clone, Debug)]
pub(crate) struct StageState {
    /// What becomes the image's configuration.
    pub(crate) config: ImageConfig,
    /// The layers, bottom first.
    pub(crate) layers: Vec<StackedLayer>,
    /// What RUN and expansions see.
    pub(crate) environment: Environment,
    /// The image that the stage, or the stage it began with, began with.
    pub(crate) base: Option<(ImageName, Digest)>,
    /// CMD was set in this stage: ENTRYPOINT leaves it alone.
    cmd_is_set: bool,
}

/// A layer of a stack.
#[derive(Clone, Debug)]
pub(crate) struct StackedLayer {
    /// Its tree.
    pub(crate) dir: LayerDir,
    /// Its blob.
    pub(crate) blob: LayerBlob,
}

/// A layer's blob.
#[derive(Clone, Debug)]
pub(crate) enum LayerBlob {
    /// It came with the base image.
    There(Box<Descriptor>),
    /// It is being packed.
    Packing(Packing),
    /// Nobody needs it: the layer is not in the image.
    Inside,
}

impl StageState {
    fn trees(&self) -> Vec<LayerDir> {
        self.layers.iter().map(|layer| layer.dir.clone()).collect()
    }

    /// Adds an entry to the history.
    fn tell(&mut self, text: impl Into<String>, layer: bool, at: Timestamp) {
        self.config.history.push(History {
            created: Some(at),
            created_by: text.into(),
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !layer,
            ..History::default()
        });
    }

    /// Returns the shell of shell forms.
    fn shell(&self) -> Vec<String> {
        if self.config.config.shell.is_empty() {
            return vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        self.config.config.shell.clone()
    }

    /// Returns the working directory.
    fn directory(&self) -> &str {
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
    /// The stages that were built before.
    pub(crate) states: &'a HashMap<usize, StageState>,
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

    /// Freezes a snapshot as a layer on top of the stack.
    pub(crate) fn commit(
        &self,
        state: &mut StageState,
        mut active: Active,
        times: ContentTimes,
        stubs: bool,
    ) -> StepResult<()> {
        use crate::layer::WriteOptions;
        use crate::snapshot::DiffOptions;
        let failed = |error: ActiveError| {
            StepFailure::new(self.whole("cannot make a layer of what this step left"))
                .because(error)
        };
        let epoch = self.builder.epoch.map(Timestamp::as_second);
        let options = DiffOptions {
            extra_bottom: stubs.then_some(self.builder.stubs.as_path()),
            write: WriteOptions { times, epoch },
        };
        let written = active.diff(std::io::sink(), &options).map_err(failed)?;
        let dir = active.commit(&written).map_err(failed)?;
        let blob = self.builder.pack(self.stage.index, &dir);
        state.layers.push(StackedLayer { dir, blob });
        Ok(())
    }
}

impl Builder<'_> {
    /// Builds one stage.
    pub(crate) fn stage(
        &self,
        stage: &PlannedStage,
        states: &HashMap<usize, StageState>,
    ) -> Result<StageState, BuildError> {
        let mut state = self.begin(stage, states)?;
        let total = stage.instructions.iter().filter(|p| makes_step(p)).count()
            + usize::from(matches!(stage.base, Base::Image(_)));
        let mut number = usize::from(matches!(stage.base, Base::Image(_)));
        for planned in &stage.instructions {
            let is_step = makes_step(planned);
            number += usize::from(is_step);
            let name = self.step_name(stage, planned, number, total);
            let step = Step { builder: self, stage, planned, states, name };
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

    /// Returns what names the stage in its steps; nothing where there is only one.
    fn prefix(&self, stage: &PlannedStage) -> String {
        if self.plan.stages_in_file > 1 { format!("{} ", stage.name) } else { String::new() }
    }

    /// Returns the state in which a stage begins.
    fn begin(
        &self,
        stage: &PlannedStage,
        states: &HashMap<usize, StageState>,
    ) -> Result<StageState, BuildError> {
        let mut state = match &stage.base {
            Base::Scratch => StageState {
                config: ImageConfig::scratch(&stage.platform),
                layers: Vec::new(),
                environment: Environment::default(),
                base: None,
                cmd_is_set: false,
            },
            Base::Stage(index) => states[index].clone(),
            Base::Image(name) => {
                let failed = |error| BuildError::Step(Box::new(base_failure(error, stage)));
                let base = self.bases.resolve(name, &stage.platform, &|_| {}).map_err(failed)?;
                let total = stage.instructions.iter().filter(|p| makes_step(p)).count() + 1;
                let title =
                    format!("[{}1/{total}] FROM {name}@{}", self.prefix(stage), base.digest());
                self.steps
                    .run(&title, |step| {
                        let say = |text: &str| self.tools.progress.status(step, text);
                        self.stack(&base, &say).map_err(|error| base_failure(error, stage))
                    })
                    .map_err(|failure| BuildError::Step(Box::new(failure)))?
            }
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

    /// Returns the state of a stage that begins with an image.
    fn stack(
        &self,
        base: &BaseImage,
        say: &crate::base::Say<'_>,
    ) -> Result<StageState, crate::base::BaseError> {
        let dirs = self.bases.unpack(base, say)?;
        let blobs =
            base.image.manifest.layers.iter().map(|blob| LayerBlob::There(Box::new(blob.clone())));
        let layers = dirs.into_iter().zip(blobs).map(|(dir, blob)| StackedLayer { dir, blob });
        Ok(StageState {
            config: ImageConfig { created: None, ..base.config.clone() },
            layers: layers.collect(),
            environment: Environment::default(),
            base: Some((base.name.clone(), base.digest().clone())),
            cmd_is_set: false,
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
