//! What is allowed and probably not meant: BuildKit's lint rules.
//!
//! [`check`] runs the rules that need only the text; [`super::parse`] calls it. The rules that need
//! to know what variables, images or the context hold are functions for the planner, in
//! [`planned`]: each returns a [`Warning`] or nothing, and the planner asks [`Checks::allows`].

mod checks;
pub mod planned;
mod rule;
mod text;

pub use checks::{Checks, ChecksError};
pub use rule::Rule;
pub use text::check;

pub(super) use checks::comment_checks;
pub(super) use text::definition_description;
pub(crate) use text::is_secret_name;

use super::diagnostic::{Diagnostic, Severity};
use super::span::Span;

/// One finding of the linter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// The word to mark.
    pub span: Span,
    /// The instruction that it belongs to.
    pub context: Span,
    /// What was found; BuildKit's words.
    pub message: String,
}

impl Warning {
    /// Returns a finding.
    pub(crate) fn new(rule: Rule, span: Span, context: Span, message: impl Into<String>) -> Self {
        Self { rule, span, context, message: message.into() }
    }

    /// Returns the warning in the form that [`super::render`] draws.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            rule: Some(self.rule.name()),
            message: self.message.clone(),
            span: self.span,
            context: Some(self.context),
            note: None,
            hint: self.rule.hint().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests;
