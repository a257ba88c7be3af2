//! What can go wrong, inside a step and outside.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::network::NetworkError;

/// Why a step could not be run, as opposed to a command that ran and failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// The helper process cannot be started.
    #[error("cannot start the executor's helper process {}", program.display())]
    Start {
        /// Its program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The builder's own side failed: descriptors, memory.
    #[error("cannot {operation}")]
    Builder {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The helper process ended while it was needed.
    #[error("the executor's helper process ended unexpectedly")]
    HelperDied,
    /// The helper has several threads, so it cannot copy itself.
    #[error("the executor's helper must be entered before any thread is started")]
    Threads,
    /// The step asks for more mounts than can be handed over.
    #[error("a step cannot have more than {limit} mounts, this one has {count}")]
    TooManyMounts {
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A bind mount came without what it binds.
    #[error("the mount at {target} has no source")]
    NoSource {
        /// Where it was to be.
        target: String,
    },
    /// A command that is to read has nothing to read from.
    #[error("the command's standard input is missing")]
    NoInput,
    /// The step's surroundings cannot be made.
    #[error("cannot {operation} {path}")]
    Setup {
        /// What was tried, such as "mount proc at".
        operation: String,
        /// On what, as the step would see it.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A place that the executor needs is of another kind in the image.
    #[error("{path} in the image is {found}, not {wanted}")]
    Kind {
        /// The place.
        path: String,
        /// What is there.
        found: String,
        /// What has to be there.
        wanted: String,
    },
    /// The step cannot have a network of its own.
    #[error("cannot give this step a network of its own")]
    Network(#[source] NetworkError),
    /// What gave the step its network ended.
    #[error("the step was ended: it lost its network")]
    NetworkLost(#[source] NetworkError),
    /// The process does not hold a right.
    #[error("this process lacks {what}")]
    Lacking {
        /// Which.
        what: String,
    },
    /// There is no user namespace of our own to be had.
    #[error("{reason}")]
    Namespace {
        /// Why not.
        reason: String,
    },
    /// The step asks for what takes namespaces of its own.
    #[error("without namespaces of its own, a step cannot {wish}")]
    NoNamespaces {
        /// What it asks for.
        wish: String,
    },
    /// There is no command to run.
    #[error("the command is empty")]
    NoCommand,
    /// The program is not in the image.
    #[error("{program} was not found in the image's PATH ({path})")]
    NotInPath {
        /// The program's name, without a slash.
        program: String,
        /// The `PATH` that was searched.
        path: String,
    },
    /// The program, given by its path, is not in the image.
    #[error("the image has no {program}{}", shell_hint(program))]
    NoProgram {
        /// Its path.
        program: String,
    },
    /// The program is there, but what is to interpret it is not.
    #[error("{program} is in the image, but not the interpreter or dynamic loader that it names")]
    NoInterpreter {
        /// Its path.
        program: String,
    },
    /// The file is not something that this machine can run.
    #[error("{program} is not a program for this machine: wrong architecture, or no #! line")]
    NotAProgram {
        /// Its path.
        program: String,
    },
    /// The file may not be executed.
    #[error("cannot execute {program}")]
    Execute {
        /// Its path.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn shell_hint(program: &str) -> &'static str {
    match program {
        "/bin/sh" => ": use the exec form, RUN [\"program\", \"argument\"]",
        _ => "",
    }
}

impl ExecuteError {
    pub(super) fn builder(operation: &'static str) -> impl Fn(Errno) -> ExecuteError {
        move |errno| ExecuteError::Builder { operation, source: errno.into() }
    }
}

/// An [`ExecuteError`] of the helper or of a step, in a form that can be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Failure {
    Threads,
    Setup { operation: String, path: String, errno: i32 },
    Kind { path: String, found: String, wanted: String },
    Lacking { what: String },
    Namespace { reason: String },
    NoNamespaces { wish: String },
    NoCommand,
    NotInPath { program: String, path: String },
    NoProgram { program: String },
    NoInterpreter { program: String },
    NotAProgram { program: String },
    Execute { program: String, errno: i32 },
}

impl From<Failure> for ExecuteError {
    fn from(failure: Failure) -> ExecuteError {
        let source = io::Error::from_raw_os_error;
        match failure {
            Failure::Threads => ExecuteError::Threads,
            Failure::Setup { operation, path, errno } => {
                ExecuteError::Setup { operation, path, source: source(errno) }
            }
            Failure::Kind { path, found, wanted } => ExecuteError::Kind { path, found, wanted },
            Failure::Namespace { reason } => ExecuteError::Namespace { reason },
            Failure::Lacking { what } => ExecuteError::Lacking { what },
            Failure::NoNamespaces { wish } => ExecuteError::NoNamespaces { wish },
            Failure::NoCommand => ExecuteError::NoCommand,
            Failure::NotInPath { program, path } => ExecuteError::NotInPath { program, path },
            Failure::NoProgram { program } => ExecuteError::NoProgram { program },
            Failure::NoInterpreter { program } => ExecuteError::NoInterpreter { program },
            Failure::NotAProgram { program } => ExecuteError::NotAProgram { program },
            Failure::Execute { program, errno } => {
                ExecuteError::Execute { program, source: source(errno) }
            }
        }
    }
}

/// Says what was being done when a kernel call failed.
pub(super) trait During<T> {
    /// Turns the error into a [`Failure`]: "cannot `operation` `path`".
    fn during(self, operation: &str, path: &str) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, Errno> {
    fn during(self, operation: &str, path: &str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Setup {
            operation: operation.to_owned(),
            path: path.to_owned(),
            errno: errno.raw_os_error(),
        })
    }
}
