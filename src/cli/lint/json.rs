//! Findings as BuildKit tells them to programs, with the bytes and the cure added.

use boatyard_builder::dockerfile::{Rule, Source, Span, SyntaxErrors};
use boatyard_builder::lint::Finding;
use serde::Serialize;

/// Where BuildKit's rules are explained.
const RULES: &str = "https://docs.docker.com/go/dockerfile/rule/";

/// All that was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    warnings: Vec<Warning<'a>>,
    sources: [SourceInfo<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: &'a str,
    location: Location,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

#[derive(Serialize)]
struct SourceInfo<'a> {
    filename: &'a str,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

/// Some lines of the Dockerfile.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    ranges: [Range; 1],
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
    character: usize,
}

impl Location {
    /// Returns the place of a span.
    pub fn of(source: &Source, span: Span) -> Location {
        let position = |offset| {
            let at = source.location(offset);
            Position { line: at.line, character: at.column - 1 }
        };
        Location { ranges: [Range { start: position(span.start), end: position(span.end) }] }
    }
}

/// Returns where a rule is explained.
pub fn url(rule: Rule) -> Option<String> {
    let has_page = !rule.is_lesson() && rule != Rule::InvalidBaseImagePlatform;
    has_page.then(|| format!("{RULES}{}/", rule.slug()))
}

/// Returns what was found.
pub fn report<'a>(
    source: &Source,
    file_name: &'a str,
    found: &'a [Finding],
    errors: Option<&SyntaxErrors>,
) -> Report<'a> {
    let warning = |finding: &'a Finding| Warning {
        rule_name: finding.warning.rule.name(),
        description: finding.warning.rule.description(),
        url: url(finding.warning.rule),
        detail: &finding.warning.message,
        location: Location::of(source, finding.warning.span),
        bytes: finding.bytes,
        hint: finding.warning.rule.hint(),
    };
    let first = errors.and_then(|errors| errors.errors.first());
    Report {
        warnings: found.iter().map(warning).collect(),
        sources: [SourceInfo { filename: file_name, language: "Dockerfile" }],
        build_error: first.map(|error| BuildError {
            message: error.to_string(),
            location: Location::of(source, error.span),
        }),
    }
}
