//! Why a build, or a step of it, failed.

use std::error::Error;

use boatyard_content::StoreError;

use super::Scene;
use crate::assemble::AssembleError;
use crate::base::BaseError;
use crate::context::load::LoadError;
use crate::dockerfile::{Diagnostic, Source, render, render_step};
use crate::execute::Outcome;
use crate::progress::{Ending, FailedCommand, StepEnd};
use crate::snapshot::LayersError;

/// What helps where an image's blobs are not what they should be.
pub(crate) const DAMAGED_BASE: &str =
    "fetch it again with --pull, or look for more with `boatyard fsck`";

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be built; each points at its word.
    #[error("the Dockerfile cannot be built")]
    Plan(Vec<Diagnostic>),
    /// A step failed.
    #[error("{}", .0.diagnostic.message)]
    Step(Box<StepFailure>),
    /// The image could not be put together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The root's unpacked layers cannot be used.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `# check=error=true`, and the linter found something.
    #[error("the Dockerfile asks for warnings to be errors, and there is `{}`", .0.join("`, `"))]
    Lint(Vec<&'static str>),
    /// A named context cannot be had.
    #[error("cannot use the context `{name}`")]
    Context {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// `--no-cache-filter` names no stage.
    #[error("there is no stage `{0}` whose cache could be left out")]
    NoSuchStage(String),
    /// `SOURCE_DATE_EPOCH` is no number.
    #[error(
        "SOURCE_DATE_EPOCH is `{0}`, and must be a number of seconds since 1970, or `context` for \
         the time of a context from elsewhere"
    )]
    Epoch(String),
    /// A step needs an emulator that is not here.
    #[error("{}", .0.message)]
    Emulation(Box<Diagnostic>),
    /// Somebody cancelled it.
    #[error("the build was cancelled")]
    Cancelled,
}

/// A step that failed.
#[derive(Debug)]
pub struct StepFailure {
    /// What is wrong, and where.
    pub diagnostic: Box<Diagnostic>,
    /// Why.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// How the command ended, if it was a command that failed.
    pub outcome: Option<Outcome>,
    /// What else is known of a command that failed.
    pub command: Option<FailedCommand>,
    /// What it saw and left, if that was asked for.
    pub scene: Option<Box<Scene>>,
}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl Ending for StepFailure {
    fn ending(&self) -> StepEnd {
        match self.outcome {
            Some(Outcome::Cancelled) => StepEnd::Cancelled,
            _ => StepEnd::Failed(self.to_string()),
        }
    }
}

impl Ending for BaseError {}

impl Ending for BuildError {}

impl StepFailure {
    /// Returns the failure without a deeper reason.
    pub(crate) fn new(diagnostic: Diagnostic) -> StepFailure {
        StepFailure {
            diagnostic: Box::new(diagnostic),
            source: None,
            outcome: None,
            command: None,
            scene: None,
        }
    }

    /// Adds the reason.
    #[must_use]
    pub(crate) fn because(
        mut self,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> StepFailure {
        self.source = Some(source.into());
        self
    }
}

impl BuildError {
    /// Draws the failure with the lines it is about, its causes and what may help; `None` where it
    /// is not about the Dockerfile.
    pub fn render(&self, source: &Source, file_name: &str) -> Option<String> {
        match self {
            BuildError::Plan(problems) => {
                let drawn = problems.iter().map(|problem| render(source, file_name, problem));
                Some(drawn.collect::<Vec<_>>().join("\n"))
            }
            BuildError::Emulation(problem) => Some(render(source, file_name, problem)),
            BuildError::Step(failure) => {
                let mut bare = failure.diagnostic.clone();
                let hint = bare.hint.take();
                let mut text = match &failure.command {
                    Some(_) => render_step(source, file_name, &bare),
                    None => render(source, file_name, &bare),
                };
                let mut cause = failure.source.as_deref().map(|cause| cause as &dyn Error);
                let mut last = String::new();
                while let Some(error) = cause {
                    let own = error.to_string();
                    if own != last {
                        text.push_str(&format!("  cause: {own}\n"));
                    }
                    last = own;
                    cause = error.source();
                }
                let log = failure.command.as_ref().and_then(|command| command.log.as_ref());
                if let Some(log) = log {
                    text.push_str(&format!("note: all that it wrote is in {}\n", log.display()));
                }
                if let Some(hint) = hint {
                    text.push_str(&format!("hint: {hint}\n"));
                }
                Some(text)
            }
            _ => None,
        }
    }

    /// Says whether it only tells that the build was ended.
    pub fn is_cancellation(&self) -> bool {
        match self {
            BuildError::Step(step) => step.outcome == Some(Outcome::Cancelled),
            BuildError::Cancelled => true,
            _ => false,
        }
    }
}

/// Returns the failure of what needs an image that cannot be had.
pub(crate) fn base_failure(error: BaseError, mut diagnostic: Diagnostic) -> StepFailure {
    diagnostic.hint = match &error {
        BaseError::Image { .. } => Some(DAMAGED_BASE.to_owned()),
        BaseError::Platform { .. } => {
            Some("choose another image, or another --platform".to_owned())
        }
        _ => None,
    };
    StepFailure::new(diagnostic).because(error)
}
