//! One JSON object per line, for programs.
//!
//! Every object has `event`, one of those below, and `at`, the time of day (RFC 3339, UTC). The
//! other members are there if they have something to say; programs should ignore those that they
//! do not know.
//!
//! | event | members |
//! |---|---|
//! | `begin` | `step`, its number, from 1; `name` |
//! | `output` | `step`; `stream`: `stdout` or `stderr`; `text`; `base64`; `seconds` since the step began |
//! | `status` | `step`; `text`: what it is doing; `seconds` since it began |
//! | `end` | `step`; `outcome`: `done`, `cached`, `failed` or `cancelled`; `error`, if it failed; `seconds` that it took |
//! | | and where its command failed: `line` of the Dockerfile; `command`, an array; `reason`: `exit-code`, `signal`, `out-of-memory` or `timeout`; `exit_code` or `signal`; `last_lines` of its output; `log`, a file with all of it |
//! | `warning` | `text` |
//! | `finish` | `outcome`: `done`, `failed` or `cancelled`; `text`: the summary; `seconds` that the build took |
//!
//! Output comes as it was written, lines may be cut anywhere, nothing is left out: the `text`s of
//! a stream, one after the other, are the stream. Where its bytes are not UTF-8, `text` has
//! replacement characters in their place and `base64` (RFC 4648, with padding) has the bytes.
//!
//! ```json
//! {"event":"output","step":5,"stream":"stdout","text":"hi\n","seconds":0.123,"at":"2024-05-01T12:00:00.623Z"}
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use boatyard_builder::execute::Outcome;
use boatyard_builder::progress::{FailedCommand, StepEnd, StepId, Stream};
use serde::Serialize;

use super::renderer::{Event, Moment, Renderer};
use super::text::whole_chars;
use super::{Ending, Summary};

/// Renders objects.
#[derive(Debug, Default)]
pub struct Json {
    running: BTreeMap<StepId, Step>,
}

#[derive(Debug)]
struct Step {
    began: Duration,
    /// The beginning of a character, of each stream: at most three bytes.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    failed: Option<FailedCommand>,
}

/// A line. The order of the members is that in which they are written.
#[derive(Default, Serialize)]
struct Object<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    failed: Option<Failed<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    at: String,
}

/// How a command failed.
#[derive(Serialize)]
struct Failed<'a> {
    line: usize,
    command: &'a [String],
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    last_lines: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a Path>,
}

impl<'a> Failed<'a> {
    fn of(failed: &'a FailedCommand) -> Failed<'a> {
        let (reason, exit_code, signal) = match failed.outcome {
            Outcome::Exited(code) => ("exit-code", Some(code), None),
            Outcome::Signaled(number) => ("signal", None, Some(number)),
            Outcome::OutOfMemory { .. } => ("out-of-memory", None, None),
            Outcome::TimedOut => ("timeout", None, None),
            Outcome::Cancelled => ("cancelled", None, None),
        };
        let FailedCommand { line, command, last_lines, log, .. } = failed;
        Failed { line: *line, command, reason, exit_code, signal, last_lines, log: log.as_deref() }
    }
}

impl Renderer for Json {
    fn tell(&mut self, event: &Event<'_>, now: Moment, out: &mut Vec<u8>) {
        match *event {
            Event::Begin { step, name } => {
                let (stdout, stderr) = (Vec::new(), Vec::new());
                self.running
                    .insert(step, Step { began: now.elapsed, stdout, stderr, failed: None });
                Object { step: Some(step.0), name: Some(name), ..object("begin") }.print(now, out);
            }
            Event::Output { step, stream, bytes } => self.output(step, stream, bytes, now, out),
            Event::Status { step, text } => {
                let seconds = self.since_began(step, now);
                Object { step: Some(step.0), text: Some(text), seconds, ..object("status") }
                    .print(now, out);
            }
            Event::Failed { step, command } => {
                if let Some(running) = self.running.get_mut(&step) {
                    running.failed = Some(command.clone());
                }
            }
            Event::End { step, end, took } => {
                let ended = self.close(step, now, out);
                let failed = ended.as_ref().and_then(|ended| ended.failed.as_ref());
                let failed = failed.map(Failed::of);
                let (outcome, error) = outcome(end);
                let (outcome, seconds) = (Some(outcome), Some(seconds(took)));
                Object { step: Some(step.0), outcome, error, failed, seconds, ..object("end") }
                    .print(now, out);
            }
            Event::Warning { text } => {
                Object { text: Some(text), ..object("warning") }.print(now, out);
            }
        }
    }

    fn finish(&mut self, summary: Option<&Summary>, now: Moment, out: &mut Vec<u8>) {
        while let Some(&step) = self.running.keys().next() {
            self.close(step, now, out);
        }
        let Some(summary) = summary else { return };
        let outcome = match summary.ending {
            Ending::Done => "done",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
        };
        let text = (!summary.text.is_empty()).then_some(summary.text.as_str());
        let (outcome, seconds) = (Some(outcome), Some(seconds(now.elapsed)));
        Object { text, outcome, seconds, ..object("finish") }.print(now, out);
    }
}

impl Json {
    fn output(
        &mut self,
        step: StepId,
        stream: Stream,
        bytes: &[u8],
        now: Moment,
        out: &mut Vec<u8>,
    ) {
        let mut bytes = std::borrow::Cow::Borrowed(bytes);
        if let Some(running) = self.running.get_mut(&step) {
            let cut_off = match stream {
                Stream::Stdout => &mut running.stdout,
                Stream::Stderr => &mut running.stderr,
            };
            if !cut_off.is_empty() {
                bytes = [cut_off, bytes.as_ref()].concat().into();
            }
            let whole = whole_chars(&bytes);
            *cut_off = bytes[whole..].to_vec();
            match &mut bytes {
                std::borrow::Cow::Borrowed(bytes) => *bytes = &bytes[..whole],
                std::borrow::Cow::Owned(bytes) => bytes.truncate(whole),
            }
        }
        print_output(step, stream, &bytes, self.since_began(step, now), now, out);
    }

    /// Ends the streams of a step.
    fn close(&mut self, step: StepId, now: Moment, out: &mut Vec<u8>) -> Option<Step> {
        let since = self.since_began(step, now);
        let ended = self.running.remove(&step)?;
        print_output(step, Stream::Stdout, &ended.stdout, since, now, out);
        print_output(step, Stream::Stderr, &ended.stderr, since, now, out);
        Some(ended)
    }

    fn since_began(&self, step: StepId, now: Moment) -> Option<f64> {
        self.running.get(&step).map(|step| seconds(now.elapsed.saturating_sub(step.began)))
    }
}

fn print_output(
    step: StepId,
    stream: Stream,
    bytes: &[u8],
    since: Option<f64>,
    now: Moment,
    out: &mut Vec<u8>,
) {
    if bytes.is_empty() {
        return;
    }
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let lossy = String::from_utf8_lossy(bytes);
    Object {
        step: Some(step.0),
        stream: Some(stream),
        text: Some(&lossy),
        base64: std::str::from_utf8(bytes).is_err().then(|| base64(bytes)),
        seconds: since,
        ..object("output")
    }
    .print(now, out);
}

fn object(event: &'static str) -> Object<'static> {
    Object { event, ..Object::default() }
}

impl Object<'_> {
    fn print(mut self, now: Moment, out: &mut Vec<u8>) {
        self.at = format!("{:.3}", now.wall);
        serde_json::to_writer(&mut *out, &self).expect("strings and finite numbers, into memory");
        out.push(b'\n');
    }
}

fn outcome(end: &StepEnd) -> (&'static str, Option<&str>) {
    match end {
        StepEnd::Done => ("done", None),
        StepEnd::Cached => ("cached", None),
        StepEnd::Cancelled => ("cancelled", None),
        StepEnd::Failed(error) => ("failed", Some(error)),
    }
}

/// Returns seconds with milliseconds: more would be noise.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Returns the Base 64 encoding of RFC 4648 section 4: "a 65-character subset of US-ASCII".
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        // "proceeding from left to right, a 24-bit input group is formed by concatenating 3 8-bit
        // input groups" which are "treated as 4 concatenated 6-bit groups"
        let byte = |at: usize| group.get(at).map_or(0, |&byte| usize::from(byte));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let index = bits >> (18 - 6 * place) & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::renderer::testing::{Stage, summary};
    use super::*;

    fn objects(stage: &mut Stage<Json>) -> Vec<Value> {
        stage.printed().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn tells_a_build() {
        let mut stage = Stage::new(Json::default());
        stage.begin(0, 1, "[1/2] FROM alpine");
        stage.status(500, 1, "unpacking");
        stage.end(501, 1, &StepEnd::Cached, 501);
        stage.tell(600, Event::Warning { text: "warning: \"x\"\n  --> 3\n" });
        stage.begin(1000, 2, "[2/2] RUN make");
        stage.stderr(1123, 2, "no\nrule");
        stage.end(2000, 2, &StepEnd::Failed("exit code: 2".into()), 1000);
        stage.finish(2001, &summary(Ending::Failed, ""));
        assert_eq!(
            stage.printed(),
            r#"{"event":"begin","step":1,"name":"[1/2] FROM alpine","at":"2024-05-01T12:00:00.000Z"}
{"event":"status","step":1,"text":"unpacking","seconds":0.5,"at":"2024-05-01T12:00:00.500Z"}
{"event":"end","step":1,"outcome":"cached","seconds":0.501,"at":"2024-05-01T12:00:00.501Z"}
{"event":"warning","text":"warning: \"x\"\n  --> 3\n","at":"2024-05-01T12:00:00.600Z"}
{"event":"begin","step":2,"name":"[2/2] RUN make","at":"2024-05-01T12:00:01.000Z"}
{"event":"output","step":2,"stream":"stderr","text":"no\nrule","seconds":0.123,"at":"2024-05-01T12:00:01.123Z"}
{"event":"end","step":2,"outcome":"failed","error":"exit code: 2","seconds":1.0,"at":"2024-05-01T12:00:02.000Z"}
{"event":"finish","outcome":"failed","seconds":2.001,"at":"2024-05-01T12:00:02.001Z"}
"#
        );
    }

    #[test]
    fn a_character_that_is_cut_waits_for_its_rest() {
        let mut stage = Stage::new(Json::default());
        stage.begin(0, 1, "x");
        stage.printed();
        let whale = "🐳".as_bytes();
        stage.stdout(1, 1, [b"a", &whale[..1]].concat());
        stage.stdout(2, 1, &whale[1..3]);
        stage.stderr(3, 1, "between");
        stage.stdout(4, 1, &whale[3..]);
        stage.stdout(5, 1, &whale[..2]);
        stage.end(6, 1, &StepEnd::Done, 6);
        let printed: Vec<Value> = objects(&mut stage)
            .into_iter()
            .map(|object| json!([object["stream"], object["text"], object["base64"]]))
            .collect();
        assert_eq!(
            printed,
            [
                json!(["stdout", "a", null]),
                json!(["stderr", "between", null]),
                json!(["stdout", "🐳", null]),
                json!(["stdout", "\u{fffd}", "8J8="]),
                json!([null, null, null]),
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_text_come_as_base64_too() {
        let mut stage = Stage::new(Json::default());
        stage.begin(0, 1, "x");
        stage.printed();
        stage.stdout(1, 1, b"caf\xe9\n");
        let printed = objects(&mut stage);
        assert_eq!(printed[0]["text"], "caf\u{fffd}\n");
        assert_eq!(printed[0]["base64"], "Y2Fm6Qo=");
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // Section 10: test vectors.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
