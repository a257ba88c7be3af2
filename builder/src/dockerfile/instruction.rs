//! The instructions of a Dockerfile as types. Texts are as written: nothing here is expanded.

use super::device::Device;
use super::heredoc::Heredoc;
use super::lint::Checks;
use super::span::{Span, Spanned};

/// A Dockerfile's stage: `FROM`, and what follows up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The name behind `AS`, in lower case.
    pub name: Option<Spanned<String>>,
    /// What it begins with.
    pub from: From,
    /// Its instructions, in order.
    pub instructions: Vec<Instruction>,
    /// The whole `FROM` instruction.
    pub span: Span,
    /// `FROM` as it was typed.
    pub keyword: Spanned<String>,
    /// The text of the `FROM` instruction.
    pub text: String,
    /// What a comment directly above says about the name.
    pub description: Option<String>,
    /// What `# check=` directly above says about this instruction.
    pub checks: Option<Checks>,
}

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// An image, an earlier stage, or `scratch`; may hold variables.
    pub image: Spanned<String>,
    /// The value of `--platform`; may hold variables.
    pub platform: Option<Spanned<String>>,
}

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it is.
    pub kind: InstructionKind,
    /// Where it stands, with its heredocs.
    pub span: Span,
    /// Its name as it was typed.
    pub keyword: Spanned<String>,
    /// Its text, continuations joined and comments taken out, without heredocs' bodies.
    pub text: String,
    /// Its heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// What `# check=` directly above says about this instruction.
    pub checks: Option<Checks>,
}

/// The instructions that stages are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// Runs a command.
    Run(Run),
    /// Copies files from the context, a stage or an image.
    Copy(Copy),
    /// Copies files, unpacks archives, downloads.
    Add(Add),
    /// Sets environment variables.
    Env(Vec<KeyValue>),
    /// Declares build arguments.
    Arg(Vec<ArgItem>),
    /// Sets labels.
    Label(Vec<KeyValue>),
    /// Changes the working directory.
    Workdir(Spanned<String>),
    /// Changes the user.
    User(Spanned<String>),
    /// Changes the shell of shell forms.
    Shell(Vec<String>),
    /// Sets the default command.
    Cmd(CommandLine),
    /// Sets the entry point.
    Entrypoint(CommandLine),
    /// Declares ports; validate with [`super::expose::ports`] once expanded.
    Expose(Vec<Spanned<String>>),
    /// Declares volumes.
    Volume(Vec<Spanned<String>>),
    /// Sets the signal that stops a container; validate with [`super::signal::validate`].
    StopSignal(Spanned<String>),
    /// Says how to tell whether a container is well.
    Healthcheck(Healthcheck),
    /// Keeps an instruction for the builds that use this image.
    OnBuild(OnBuild),
    /// Names the author.
    Maintainer(Spanned<String>),
}

/// A command: text for a shell, or a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// One text behind `SHELL`.
    Shell(String),
    /// The JSON form.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: RunCommand,
    /// The values of `--mount`, for [`super::mount::parse_with`].
    pub mounts: Vec<Spanned<String>>,
    /// `--network`.
    pub network: Option<Spanned<Network>>,
    /// `--security`.
    pub security: Option<Spanned<Security>>,
    /// `--device`.
    pub devices: Vec<Spanned<Device>>,
}

/// What `RUN` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// One text behind `SHELL`: the line; or a lone heredoc's body; or, where heredocs are part of
    /// a command, the line with the bodies below it, for the shell to read.
    Shell(String),
    /// The JSON form.
    Exec(Vec<String>),
    /// A lone heredoc that begins with `#!`: a file `/dev/pipes/<name>`, mode 0755, that is run.
    Script {
        /// The file's name.
        name: String,
        /// Its content.
        content: String,
    },
}

/// The network of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// The build's own.
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// What a step may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// What a container may.
    Sandbox,
    /// Everything.
    Insecure,
}

/// A source of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern or (for `ADD`) a URL; may hold variables.
    Path(Spanned<String>),
    /// A file with this body, mode 0644.
    Heredoc(Heredoc),
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// What is copied; never empty.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: Spanned<String>,
    /// `--from`: stage, image or named context.
    pub from: Option<Spanned<String>>,
    /// `--chown`.
    pub chown: Option<Spanned<String>>,
    /// `--chmod`, for [`super::chmod::Mode`] once expanded.
    pub chmod: Option<Spanned<String>>,
    /// `--link`.
    pub link: Option<Spanned<bool>>,
    /// `--parents`.
    pub parents: Option<Spanned<bool>>,
    /// `--exclude`, not expanded.
    pub exclude: Vec<Spanned<String>>,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// What is added; never empty.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: Spanned<String>,
    /// `--chown`.
    pub chown: Option<Spanned<String>>,
    /// `--chmod`.
    pub chmod: Option<Spanned<String>>,
    /// `--link`.
    pub link: Option<Spanned<bool>>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<Spanned<bool>>,
    /// `--checksum`.
    pub checksum: Option<Spanned<String>>,
    /// `--unpack`; nothing leaves the choice to the kind of source.
    pub unpack: Option<Spanned<bool>>,
    /// `--exclude`, not expanded.
    pub exclude: Vec<Spanned<String>>,
}

/// A pair of `ENV` or `LABEL`, with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name; may hold variables.
    pub key: Spanned<String>,
    /// The value; may hold variables.
    pub value: Spanned<String>,
    /// The form `ENV name value`, without `=`.
    pub legacy: bool,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgItem {
    /// Its name.
    pub name: Spanned<String>,
    /// Its default with its quotes; may hold variables.
    pub default: Option<Spanned<String>>,
    /// What a comment directly above says about it.
    pub description: Option<String>,
}

/// `ARG` before the first `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArg {
    /// The arguments that it declares; never empty.
    pub items: Vec<ArgItem>,
    /// Where it stands.
    pub span: Span,
    /// `ARG` as it was typed.
    pub keyword: Spanned<String>,
    /// Its text, continuations joined.
    pub text: String,
    /// What `# check=` directly above says about this instruction.
    pub checks: Option<Checks>,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// The base image's check is switched off.
    None,
    /// A command tells.
    Check {
        /// The command.
        command: CommandLine,
        /// Nanoseconds between two checks; 0 for the engine's default, as for all of these.
        interval: u64,
        /// Nanoseconds that a check may take.
        timeout: u64,
        /// Nanoseconds during which failures do not count.
        start_period: u64,
        /// Nanoseconds between two checks during that time.
        start_interval: u64,
        /// Failures in a row that make a container unwell.
        retries: u32,
    },
}

/// `ONBUILD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBuild {
    /// The trigger as the image's configuration keeps it, heredocs' bodies below it.
    pub text: String,
    /// The trigger's heredocs.
    pub heredocs: Vec<Heredoc>,
    /// The trigger as it reads today; the child build parses `text` anew.
    pub instruction: Box<Instruction>,
}

impl InstructionKind {
    /// Returns the instruction's name in capitals.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "RUN",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Env(_) => "ENV",
            Self::Arg(_) => "ARG",
            Self::Label(_) => "LABEL",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Shell(_) => "SHELL",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::OnBuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}
