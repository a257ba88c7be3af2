//! The Dockerfile language, as BuildKit's reference has it: from text to stages.
//!
//! [`parse`] turns a text into a [`Dockerfile`]: directives, global arguments, stages with their
//! instructions, and what the linter has to say. Everything in it knows where it was written, so
//! that a later complaint can point at the word. Nothing in it is expanded: what a variable means
//! depends on the build, so the planner calls [`expansion`], and then the small parsers for what
//! may only be read afterwards: [`mount`], [`expose`], [`signal`], [`chmod`].
//!
//! All of it is pure functions over text. Texts come from strangers: no input panics, and what
//! could grow without measure (lines, nesting, results) has a limit with a name.
//!
//! Left out on purpose: image names (the `oci` crate), which stage a name means (the planner), and
//! frontends named by `# syntax=` (we read the directive and are the frontend).

pub mod chmod;
pub mod csv;
pub mod device;
pub mod diagnostic;
pub mod directive;
pub mod duration;
mod error;
pub mod expansion;
pub mod expose;
mod flags;
mod heredoc;
pub mod instruction;
mod lexer;
pub mod lint;
pub mod mount;
mod parser;
pub mod signal;
pub mod source;
pub mod span;
mod statement;
pub mod suggest;
mod words;

pub use diagnostic::{Diagnostic, Severity, render, render_step};
pub use directive::Directives;
pub use error::{SyntaxError, SyntaxErrorKind, SyntaxErrors};
pub use heredoc::Heredoc;
pub use instruction::{Instruction, InstructionKind, Stage};
pub use lint::{Checks, Rule, Warning};
pub use parser::{parse, parse_bytes, parse_bytes_with, parse_trigger, parse_with};
pub use source::Source;
pub use span::{Span, Spanned};

use instruction::GlobalArg;

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its text.
    pub source: Source,
    /// The directives at its top.
    pub directives: Directives,
    /// What `# check=` says.
    pub checks: Checks,
    /// `ARG` before the first `FROM`.
    pub global_args: Vec<GlobalArg>,
    /// Its stages, in order; never empty.
    pub stages: Vec<Stage>,
    /// What the linter found in the text alone, in the order of the text.
    pub warnings: Vec<Warning>,
}

#[cfg(test)]
mod tests;
