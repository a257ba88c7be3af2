//! Findings in the form of SARIF 2.1.0, which code hosts and editors read.

use boatyard_builder::dockerfile::{Rule, Source, Span, SyntaxErrors};
use boatyard_builder::lint::Finding;
use serde_json::{Value, json};

use super::json::url;

/// What stands for "this is no Dockerfile" among the rules.
const SYNTAX: &str = "DockerfileSyntax";

/// Returns what was found.
pub fn report(
    source: &Source,
    file_name: &str,
    found: &[Finding],
    errors: Option<&SyntaxErrors>,
) -> Value {
    let rules = Rule::ALL.iter().map(|rule| {
        let mut descriptor = json!({
            "id": rule.name(),
            "shortDescription": { "text": rule.description() },
        });
        if let Some(url) = url(*rule) {
            descriptor["helpUri"] = url.into();
        }
        if let Some(hint) = rule.hint() {
            descriptor["help"] = json!({ "text": hint });
        }
        descriptor
    });
    let syntax = json!({ "id": SYNTAX, "shortDescription": { "text": "what cannot be read" } });
    let rules: Vec<Value> = rules.chain([syntax]).collect();
    let place = |span: Span| {
        let (start, end) = (source.location(span.start), source.location(span.end));
        json!([{ "physicalLocation": {
            "artifactLocation": { "uri": uri(file_name) },
            "region": {
                "startLine": start.line,
                "startColumn": start.column,
                "endLine": end.line,
                "endColumn": end.column,
            },
        }}])
    };
    let warnings = found.iter().map(|finding| {
        let warning = &finding.warning;
        let mut result = json!({
            "ruleId": warning.rule.name(),
            "ruleIndex": Rule::ALL.iter().position(|rule| *rule == warning.rule),
            "level": "warning",
            "message": { "text": warning.message },
            "locations": place(warning.span),
        });
        if let Some(bytes) = finding.bytes {
            result["properties"] = json!({ "bytes": bytes });
        }
        result
    });
    let errors = errors.into_iter().flat_map(|errors| &errors.errors).map(|error| {
        json!({
            "ruleId": SYNTAX,
            "ruleIndex": Rule::ALL.len(),
            "level": "error",
            "message": { "text": error.to_string() },
            "locations": place(error.span),
        })
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "boatyard",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": warnings.chain(errors).collect::<Vec<Value>>(),
        }],
    })
}

/// Returns a path as a reference: "A path-noscheme ... *( segment )" of RFC 3986, other bytes
/// percent-encoded.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_references() {
        assert_eq!(uri("a/Dockerfile.dev"), "a/Dockerfile.dev");
        assert_eq!(uri("mein tö:1"), "mein%20t%C3%B6%3A1");
    }
}
