//! Errors and warnings as a person reads them: the line, a mark under the word, how to mend it.
//!
//! [`Diagnostic`] is what all errors and warnings of this module become, and [`render`] is the one
//! place that draws them:
//!
//! ```text
//! error: unknown instruction `RUNN`
//!   --> Dockerfile:12
//!      12 | RUNN apt-get update
//!         | ^^^^
//! hint: did you mean `RUN`?
//! ```
//!
//! The text may come from anywhere, so control characters never reach the terminal, and a line of
//! thousands of characters is cut around the marked word.

use std::fmt::Write as _;

use super::source::{Source, floor_char_boundary};
use super::span::Span;

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// The build goes on; the text is probably not what its author means.
    Warning,
}

/// One error or warning about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The name of the lint rule, shown in brackets.
    pub rule: Option<&'static str>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The word to mark.
    pub span: Span,
    /// The instruction that the word belongs to, whose first line is shown too.
    pub context: Option<Span>,
    /// What one should know to understand it.
    pub note: Option<String>,
    /// How to mend it.
    pub hint: Option<String>,
}

/// Characters of a source line that are shown at most.
const LINE_CHARS_MAX: usize = 160;
/// Characters before the marked word that a cut line still shows.
const LEAD_CHARS: usize = 40;
/// Lines between an instruction's first line and the marked one that are shown in full.
const CONTEXT_LINES_MAX: usize = 4;

/// Draws a diagnostic as text; every line of it ends with a line feed.
#[must_use]
pub fn render(source: &Source, file_name: &str, diagnostic: &Diagnostic) -> String {
    let mut out = String::new();
    let heading = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let rule = diagnostic.rule.map(|name| format!(" [{name}]")).unwrap_or_default();
    let line = source.location(diagnostic.span.start).line;
    push_line(&mut out, &format!("{heading}: {}{rule}", printable(&diagnostic.message)));
    push_line(&mut out, &format!("  --> {}:{line}", printable(file_name)));
    if !source.text().is_empty() {
        push_context(&mut out, source, diagnostic, line);
        push_marked_line(&mut out, source, diagnostic.span, line);
    }
    if let Some(note) = &diagnostic.note {
        push_line(&mut out, &format!("note: {}", printable(note)));
    }
    if let Some(hint) = &diagnostic.hint {
        push_line(&mut out, &format!("hint: {}", printable(hint)));
    }
    out
}

/// Lines before and after a step that are shown with it.
const STEP_LINES_AROUND: usize = 2;
/// Lines of a step that are shown; of more, the first ones.
const STEP_LINES_MAX: usize = 12;

/// Draws the failure of a step: all lines of its instruction are marked, and those around it shown.
///
/// ```text
/// error: process "/bin/sh -c make" did not complete successfully: exit code: 2
///   --> Dockerfile:3
///       1 |     FROM debian
///       2 |     COPY . .
///       3 | >>> RUN make
///       4 |     CMD ["/app"]
/// ```
#[must_use]
pub fn render_step(source: &Source, file_name: &str, diagnostic: &Diagnostic) -> String {
    let span = diagnostic.context.unwrap_or(diagnostic.span);
    let first = source.location(span.start).line;
    let body = source.slice(span).unwrap_or_default().trim_end();
    let last = source.location(span.start + body.len()).line.max(first);
    let mut out = String::new();
    push_line(&mut out, &format!("error: {}", printable(&diagnostic.message)));
    push_line(&mut out, &format!("  --> {}:{first}", printable(file_name)));
    let end = source.location(source.text().trim_end().len()).line;
    let from = first.saturating_sub(STEP_LINES_AROUND).max(1);
    for line in from..=(last + STEP_LINES_AROUND).min(end.max(last)) {
        let is_step = (first..=last).contains(&line);
        if is_step && line - first >= STEP_LINES_MAX {
            if line - first == STEP_LINES_MAX {
                push_line(&mut out, "    ...");
            }
            continue;
        }
        let mark = if is_step { ">>> " } else { "    " };
        let text = printable(clip(source.line(line)));
        push_line(&mut out, format!("{line:>7} | {mark}{text}").trim_end());
    }
    if let Some(note) = &diagnostic.note {
        push_line(&mut out, &format!("note: {}", printable(note)));
    }
    out
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// Shows the lines of the instruction above the marked one, the middle of a long one left out.
fn push_context(out: &mut String, source: &Source, diagnostic: &Diagnostic, marked: usize) {
    let Some(context) = diagnostic.context else { return };
    let first = source.location(context.start).line;
    if first >= marked {
        return;
    }
    let all = marked - first <= CONTEXT_LINES_MAX;
    for line in first..marked {
        if all || line == first || line == marked - 1 {
            push_line(out, &format!("{line:>7} | {}", printable(clip(source.line(line)))));
        } else if line == first + 1 {
            push_line(out, "    ...");
        }
    }
}

fn push_marked_line(out: &mut String, source: &Source, span: Span, line: usize) {
    let line_span = source.line_span(line);
    let text = source.line(line);
    let mark_start = span.start.clamp(line_span.start, line_span.end) - line_span.start;
    let mark_end = span.end.clamp(line_span.start + mark_start, line_span.end) - line_span.start;
    let mark_start = floor_char_boundary(text, mark_start);
    let mark_end = floor_char_boundary(text, mark_end).max(mark_start);

    let lead = text[..mark_start].chars().count();
    let marked = text[mark_start..mark_end].chars().count().max(1);
    let skipped = if text.chars().count() > LINE_CHARS_MAX && lead > LEAD_CHARS {
        lead - LEAD_CHARS
    } else {
        0
    };
    let window: String = text.chars().skip(skipped).take(LINE_CHARS_MAX).collect();
    let before = if skipped > 0 { "..." } else { "" };
    let after = if text.chars().count() > skipped + LINE_CHARS_MAX { "..." } else { "" };
    let shown = printable(&window);
    push_line(out, format!("{line:>7} | {before}{shown}{after}").trim_end());

    // Tabs stay tabs in the mark's line, so that it lines up however wide the terminal draws them.
    let mut padding = " ".repeat(before.len());
    let lead_text = window.chars().take(lead - skipped);
    padding.extend(lead_text.map(|c| if c == '\t' { '\t' } else { ' ' }));
    let marked = marked.min(LINE_CHARS_MAX);
    push_line(out, &format!("        | {padding}{}", "^".repeat(marked)));
}

fn clip(line: &str) -> &str {
    line.char_indices().nth(LINE_CHARS_MAX).map_or(line, |(end, _)| &line[..end])
}

/// Replaces what a terminal would obey rather than show.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push('\t'),
            c if c.is_control() || is_direction_control(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Tells whether a character can reorder the text around it ("Trojan Source").
const fn is_direction_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str, span: Span) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            rule: None,
            message: message.into(),
            span,
            context: None,
            note: None,
            hint: None,
        }
    }

    #[test]
    fn an_error_shows_line_mark_and_hint() {
        let source = Source::new("FROM a\nRUNN apt-get update\n");
        let mut it = error("unknown instruction `RUNN`", Span::new(7, 11));
        it.hint = Some("did you mean `RUN`?".into());
        let expected = "\
error: unknown instruction `RUNN`
  --> Dockerfile:2
      2 | RUNN apt-get update
        | ^^^^
hint: did you mean `RUN`?
";
        assert_eq!(render(&source, "Dockerfile", &it), expected);
    }

    #[test]
    fn a_step_is_shown_whole_with_what_is_around_it() {
        let text = "FROM a\nCOPY b c\n\nRUN make \\\n  all\nCMD x\n";
        let start = text.find("RUN").unwrap();
        let mut it = error("failed", Span::new(start, start + 3));
        it.context = Some(Span::new(start, text.find("CMD").unwrap()));
        let expected = "\
error: failed
  --> D:4
      2 |     COPY b c
      3 |
      4 | >>> RUN make \\
      5 | >>>   all
      6 |     CMD x
";
        assert_eq!(render_step(&Source::new(text), "D", &it), expected);
        it.context = Some(Span::new(usize::MAX - 1, usize::MAX));
        let _ = render_step(&Source::new(""), "D", &it);
    }

    #[test]
    fn a_word_in_a_continuation_is_shown_below_the_start_of_its_instruction() {
        let text = "FROM a\nRUN --network=none \\\n  # why\n  --mount=x \\\n  true\n";
        let source = Source::new(text);
        let at = text.find("--mount").unwrap();
        let mut it = error("bad mount", Span::new(at, at + 9));
        it.severity = Severity::Warning;
        it.rule = Some("SomeRule");
        it.context = Some(Span::new(7, text.len() - 1));
        it.note = Some("so it is".into());
        let expected = "\
warning: bad mount [SomeRule]
  --> Dockerfile:4
      2 | RUN --network=none \\
      3 |   # why
      4 |   --mount=x \\
        |   ^^^^^^^^^
note: so it is
";
        assert_eq!(render(&source, "Dockerfile", &it), expected);
    }

    #[test]
    fn control_characters_and_endless_lines_do_not_reach_the_terminal() {
        let text = format!("RUN {} x\u{1b}[31m {}", "a".repeat(1000), "b".repeat(1000));
        let at = text.find("x\u{1b}").unwrap();
        let shown = render(&Source::new(text), "D\u{1b}", &error("e", Span::new(at, at + 1)));
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(shown.lines().all(|line| line.len() < 200), "{shown}");
        assert!(shown.contains("...aaa") && shown.contains("bbb..."), "{shown}");
    }
}
