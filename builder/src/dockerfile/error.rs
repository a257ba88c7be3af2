//! What can be wrong with a Dockerfile's text, each with its place and a way to mend it.

use super::device::DeviceError;
use super::diagnostic::{Diagnostic, Severity, render};
use super::duration::DurationError;
use super::expansion::ExpansionError;
use super::lexer::LINE_BYTES_MAX;
use super::lint::ChecksError;
use super::mount::MountError;
use super::source::Source;
use super::span::Span;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum SyntaxErrorKind {
    #[error("the Dockerfile is not UTF-8 text")]
    NotUtf8,
    #[error("the instruction holds a NUL byte")]
    NulByte,
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("the Dockerfile holds no instruction")]
    NoInstructions,
    #[error("the Dockerfile holds no `FROM`")]
    NoStage,
    #[error("only one `{0}` directive can be used")]
    DuplicateDirective(String),
    #[error("invalid escape character `{0}`")]
    InvalidEscape(String),
    #[error("invalid `check` directive: {0}")]
    InvalidChecks(#[from] ChecksError),
    #[error("unknown instruction `{0}`")]
    UnknownInstruction(String),
    #[error("`{0}` stands before the first `FROM`")]
    OutsideStage(String),
    #[error("heredoc `{0}` is not terminated")]
    UnterminatedHeredoc(String),
    #[error("invalid heredoc delimiter: {0}")]
    HeredocDelimiter(ExpansionError),
    #[error("`{0}` cannot take a heredoc as its destination")]
    HeredocDestination(String),
    #[error("unknown flag `{flag}` for `{instruction}`")]
    UnknownFlag { flag: String, instruction: String },
    #[error("flag `{0}` is given twice")]
    DuplicateFlag(String),
    #[error("flag `{0}` needs a value")]
    FlagWithoutValue(String),
    #[error("flag `{flag}` is either true or false, not `{value}`")]
    FlagNotBoolean { flag: String, value: String },
    #[error("a quote {0} is opened and never closed")]
    UnbalancedQuote(char),
    #[error("the JSON array holds something else than strings")]
    NotStrings,
    #[error("`SHELL` needs a JSON array of strings")]
    ShellNotJson,
    #[error("`{0}` needs at least one argument")]
    ArgumentMissing(String),
    #[error("`{0}` needs at least one source and a destination")]
    DestinationMissing(String),
    #[error("a name in `{0}` is empty")]
    BlankName(String),
    #[error("`{0}` needs a name and a value")]
    ValueMissing(String),
    #[error("`{0}` has no `=`")]
    EqualsMissing(String),
    #[error("`FROM` takes an image, or an image, `AS` and a name")]
    FromArguments,
    #[error("invalid stage name `{0}`")]
    StageName(String),
    #[error("`ONBUILD` cannot trigger `{0}`")]
    Trigger(String),
    #[error("a trigger is one instruction, not several")]
    SeveralTriggers,
    #[error("`HEALTHCHECK NONE` takes no arguments")]
    HealthcheckNone,
    #[error("unknown kind of health check `{0}`")]
    HealthcheckKind(String),
    #[error("`HEALTHCHECK CMD` has no command")]
    HealthcheckCommand,
    #[error("invalid `--{flag}`: {error}")]
    Duration { flag: &'static str, error: DurationError },
    #[error("invalid `--retries`: `{0}` is no count")]
    Retries(String),
    #[error("the path of a `VOLUME` is empty")]
    EmptyVolume,
    #[error("invalid mount: {0}")]
    Mount(MountError),
    #[error("invalid device: {0}")]
    Device(#[from] DeviceError),
    #[error("unknown network mode `{0}`")]
    Network(String),
    #[error("unknown security mode `{0}`")]
    Security(String),
    #[error("`--from` cannot use variables")]
    VariableInFrom,
}

/// One thing that is wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct SyntaxError {
    /// What it is; boxed, so that a `Result` stays small.
    pub kind: Box<SyntaxErrorKind>,
    /// The word to blame.
    pub span: Span,
    /// The whole instruction.
    pub context: Option<Span>,
    /// What one should know to understand it.
    pub note: Option<String>,
    /// How to mend it.
    pub hint: Option<String>,
}

impl SyntaxError {
    pub(super) fn new(kind: SyntaxErrorKind, span: Span) -> Self {
        Self { kind: Box::new(kind), span, context: None, note: None, hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(super) fn within(mut self, instruction: Span) -> Self {
        self.context.get_or_insert(instruction);
        self
    }

    /// Returns the error in the form that [`render`] draws.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            rule: None,
            message: self.kind.to_string(),
            span: self.span,
            context: self.context,
            note: self.note.clone(),
            hint: self.hint.clone(),
        }
    }
}

/// All that is wrong with a Dockerfile: at least one error, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxErrors {
    /// The text that the errors are about.
    pub source: Source,
    /// The errors; never empty.
    pub errors: Vec<SyntaxError>,
}

impl SyntaxErrors {
    /// Draws all errors, an empty line between two.
    #[must_use]
    pub fn render(&self, file_name: &str) -> String {
        let drawn = self.errors.iter().map(|e| render(&self.source, file_name, &e.diagnostic()));
        drawn.collect::<Vec<_>>().join("\n")
    }
}

impl std::fmt::Display for SyntaxErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errors.as_slice() {
            [error] => write!(f, "line {}: {error}", self.source.line_of(error.span.start)),
            errors => write!(f, "the Dockerfile has {} errors", errors.len()),
        }
    }
}

impl std::error::Error for SyntaxErrors {}
