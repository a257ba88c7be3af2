//! A refusal in the registry's own words.
//!
//! > "{ "errors": [ { "code": "<error identifier>", "message": "<message describing condition>",
//! > "detail": "<unstructured>" }, ... ] }" (distribution-spec, "Error Codes")

use std::fmt;

use http::StatusCode;
use serde::Deserialize;

use crate::transport::Incoming;

/// The most that is read of an error's body, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// The most characters that are shown of one message.
const MESSAGE_MAX: usize = 300;
/// The most errors that are shown.
const ERRORS_MAX: usize = 4;

/// What a registry or token service answered when it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Its errors; none where the body is not of the specification's form.
    pub errors: Vec<AnswerError>,
}

/// One error of an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerError {
    /// The specification's code, such as `MANIFEST_UNKNOWN`.
    pub code: String,
    /// What it says.
    pub message: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<BodyError>,
    // Token services of the OAuth kind, and others, answer with one of these instead.
    error: Option<serde_json::Value>,
    error_description: Option<String>,
    details: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct BodyError {
    code: Option<serde_json::Value>,
    message: Option<String>,
}

impl Answer {
    /// Reads what an answer with an error's status says. A body that cannot be read says nothing.
    pub(crate) async fn read(answer: Incoming) -> Answer {
        let status = answer.status;
        let errors = match answer.bytes(BODY_MAX).await {
            Ok(body) => parse(&body),
            Err(_) => Vec::new(),
        };
        Answer { status, errors }
    }

    /// Says whether one of the errors has this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code == code)
    }
}

fn parse(body: &[u8]) -> Vec<AnswerError> {
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return Vec::new();
    };
    let mut errors: Vec<AnswerError> = body
        .errors
        .into_iter()
        .take(ERRORS_MAX)
        .map(|error| AnswerError {
            code: error.code.map(text_of).unwrap_or_default(),
            message: shorten(&error.message.unwrap_or_default()),
        })
        .collect();
    if errors.is_empty() {
        let code = body.error.map(text_of).unwrap_or_default();
        let message = body.error_description.or(body.details).or(body.message).unwrap_or_default();
        if !code.is_empty() || !message.is_empty() {
            errors.push(AnswerError { code, message: shorten(&message) });
        }
    }
    errors
}

fn text_of(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => shorten(&text),
        serde_json::Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// Makes a stranger's text fit for a terminal.
fn shorten(text: &str) -> String {
    let head: String = text.trim().chars().take(MESSAGE_MAX).collect();
    head.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer was {}", self.status)?;
        for (number, error) in self.errors.iter().enumerate() {
            f.write_str(if number == 0 { ": " } else { "; " })?;
            match (error.code.as_str(), error.message.as_str()) {
                ("", message) => f.write_str(message)?,
                (code, "") => f.write_str(code)?,
                (code, message) => write!(f, "{code}: {message}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Answer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_the_registry_says_and_no_more() {
        let table = [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m \"way\""},{"code":"X"}]}"#,
                "the answer was 403 Forbidden: DENIED: no\\u{1b}[31m \"way\"; X",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"expired"}"#,
                "the answer was 403 Forbidden: invalid_grant: expired",
            ),
            (r#"{"details":"incorrect"}"#, "the answer was 403 Forbidden: incorrect"),
            ("<html>", "the answer was 403 Forbidden"),
            (r#"{"errors":7}"#, "the answer was 403 Forbidden"),
        ];
        for (body, expected) in table {
            let answer = Answer { status: StatusCode::FORBIDDEN, errors: parse(body.as_bytes()) };
            assert_eq!(answer.to_string(), expected, "{body}");
        }
    }
}
