//! Rules that need to know more than the text; the planner calls these where it knows.

use super::{Rule, Warning};
use crate::context::ignore::Patterns;
use crate::dockerfile::expose::Ports;
use crate::dockerfile::span::{Span, Spanned};
use crate::dockerfile::suggest;

/// `UndefinedVar`: an expansion met an unset variable. `known` are the names that are set.
pub fn undefined_variable<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    word: Span,
    instruction: Span,
) -> Warning {
    let near = suggest::nearest(name, known, true);
    let near = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
    let message = format!("Usage of undefined variable '${name}'{near}");
    Warning::new(Rule::UndefinedVar, word, instruction, message)
}

/// `UndefinedArgInFrom`: `FROM` uses an argument that no global `ARG` declares.
pub fn undefined_arg_in_from<'a>(
    name: &str,
    declared: impl IntoIterator<Item = &'a str>,
    word: Span,
    instruction: Span,
) -> Warning {
    let near = suggest::nearest(name, declared, true);
    let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    let message = format!("FROM argument '{name}' is not declared{near}");
    Warning::new(Rule::UndefinedArgInFrom, word, instruction, message)
}

/// `InvalidDefaultArgInFrom`: with the arguments' defaults alone, `image` is no image name.
#[must_use]
pub fn invalid_default_arg_in_from(image: &Spanned<String>, instruction: Span) -> Warning {
    let message = format!(
        "Default value for ARG {} results in empty or invalid base image name",
        image.value
    );
    Warning::new(Rule::InvalidDefaultArgInFrom, image.span, instruction, message)
}

/// `InvalidBaseImagePlatform`: the image that was found is of another platform.
#[must_use]
pub fn invalid_base_image_platform(
    image: &Spanned<String>,
    expected: &str,
    actual: &str,
    instruction: Span,
) -> Warning {
    let message = format!(
        "Base image {} was pulled with platform {actual:?}, expected {expected:?} for current build",
        image.value
    );
    Warning::new(Rule::InvalidBaseImagePlatform, image.span, instruction, message)
}

/// `CopyIgnoredFile`: .dockerignore hides a source of COPY (or ADD).
///
/// Nothing is said where any line begins with `!`: what then remains cannot be told from the
/// patterns alone.
#[must_use]
pub fn copy_ignored_file(
    is_add: bool,
    source: &Spanned<String>,
    ignored: &Patterns,
    instruction: Span,
) -> Option<Warning> {
    if ignored.has_exceptions() {
        return None;
    }
    let path = crate::context::glob::clean(&source.value);
    let hidden = match path.as_str() {
        "." | "/" => ignored.hides_all(),
        path => ignored.matches(path, false),
    };
    let verb = if is_add { "Add" } else { "Copy" };
    let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
    hidden.then(|| Warning::new(Rule::CopyIgnoredFile, source.span, instruction, message))
}

/// `ExposeProtoCasing` and `ExposeInvalidFormat`, for a word once expanded.
#[must_use]
pub fn exposed(word: &str, ports: &Ports, span: Span, instruction: Span) -> Vec<Warning> {
    let mut found = Vec::new();
    if ports.protocol_has_capitals {
        let message =
            format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        found.push(Warning::new(Rule::ExposeProtoCasing, span, instruction, message));
    }
    if ports.names_host {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
        );
        found.push(Warning::new(Rule::ExposeInvalidFormat, span, instruction, message));
    }
    found
}
