//! Arguments as words: the pairs of ENV and LABEL, the names of ARG, JSON or shell form.

use super::error::{SyntaxError, SyntaxErrorKind};
use super::instruction::{ArgItem, KeyValue};
use super::lexer::Fragment;
use super::span::Spanned;

/// A word that keeps its quotes and escapes, for the expansion to resolve.
struct Word<'a> {
    text: String,
    fragment: Fragment<'a>,
}

impl Word<'_> {
    /// Splits at the first `=`.
    fn pair(&self) -> Option<(Spanned<String>, Spanned<String>)> {
        let (name, value) = self.text.split_once('=')?;
        let length = self.fragment.text().len();
        let equals = name.len().min(length);
        let name = Spanned::new(name.to_owned(), self.fragment.at(0..equals).span());
        let value_start = (equals + 1).min(length);
        let value = Spanned::new(value.to_owned(), self.fragment.at(value_start..length).span());
        Some((name, value))
    }
}

/// Splits at blanks outside of quotes. Only an escape at the very end is dropped.
fn quoted_words(from: Fragment<'_>, escape: char) -> Vec<Word<'_>> {
    let text = from.text();
    let mut words = Vec::new();
    let mut start = None;
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if let Some(start) = start.take() {
                let text = std::mem::take(&mut word);
                words.push(Word { text, fragment: from.at(start..at) });
            }
            continue;
        }
        start.get_or_insert(at);
        if c == escape && quote != Some('\'') {
            if let Some((_, escaped)) = chars.next() {
                word.push(c);
                word.push(escaped);
            }
            continue;
        }
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
        }
        word.push(c);
    }
    if let Some(start) = start
        && !word.is_empty()
    {
        words.push(Word { text: word, fragment: from.at(start..text.len()) });
    }
    words
}

/// Reads `k=v ...` or, if the first word has no `=`, the old `k rest of the line`.
pub(super) fn key_values(
    arguments: Fragment<'_>,
    escape: char,
    instruction: &str,
) -> Result<Vec<KeyValue>, SyntaxError> {
    let words = quoted_words(arguments, escape);
    let Some(first) = words.first() else {
        let kind = SyntaxErrorKind::ArgumentMissing(instruction.to_owned());
        return Err(SyntaxError::new(kind, arguments.span()));
    };
    if !first.text.contains('=') {
        return Ok(vec![legacy_pair(arguments, instruction)?]);
    }
    words.iter().map(|word| pair(word, instruction)).collect()
}

fn pair(word: &Word<'_>, instruction: &str) -> Result<KeyValue, SyntaxError> {
    let span = word.fragment.span();
    let Some((key, value)) = word.pair() else {
        let kind = SyntaxErrorKind::EqualsMissing(word.text.clone());
        let hint = format!("write `{instruction} name=value`; quote values that hold blanks");
        return Err(SyntaxError::new(kind, span).hint(hint));
    };
    if key.value.is_empty() {
        return Err(SyntaxError::new(SyntaxErrorKind::BlankName(instruction.to_owned()), span));
    }
    Ok(KeyValue { key, value, legacy: false })
}

fn legacy_pair(arguments: Fragment<'_>, instruction: &str) -> Result<KeyValue, SyntaxError> {
    let (key, value) = arguments.split_word();
    if value.is_empty() {
        let kind = SyntaxErrorKind::ValueMissing(instruction.to_owned());
        let hint = format!("write `{instruction} {0}=value`", key.text());
        return Err(SyntaxError::new(kind, key.span()).hint(hint));
    }
    Ok(KeyValue { key: key.spanned(), value: value.spanned(), legacy: true })
}

/// Reads the names of ARG, each with an optional default; `comments` may describe them.
pub(super) fn arg_items(
    arguments: Fragment<'_>,
    escape: char,
    comments: &[String],
) -> Result<Vec<ArgItem>, SyntaxError> {
    let words = quoted_words(arguments, escape);
    if words.is_empty() {
        let kind = SyntaxErrorKind::ArgumentMissing("ARG".to_owned());
        return Err(SyntaxError::new(kind, arguments.span()));
    }
    let item = |word: &Word<'_>| {
        let span = word.fragment.span();
        let (name, default) = match word.pair() {
            Some((name, value)) => (name, Some(value)),
            None => (Spanned::new(word.text.clone(), span), None),
        };
        if name.value.is_empty() {
            return Err(SyntaxError::new(SyntaxErrorKind::BlankName("ARG".to_owned()), span));
        }
        let description = description(&name.value, comments);
        Ok(ArgItem { name, default, description })
    };
    words.iter().map(item).collect()
}

/// Returns what a comment above says about a name: the rest of the line that begins with it.
pub(super) fn description(name: &str, comments: &[String]) -> Option<String> {
    let found = comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map(str::to_owned)
}

/// Reads the JSON form: an array of strings. Nothing if it is no JSON array, for then it is
/// shell form, however much it looks like JSON.
pub(super) fn json_strings(arguments: Fragment<'_>) -> Result<Option<Vec<String>>, SyntaxError> {
    if !arguments.text().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(arguments.text()) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(SyntaxError::new(SyntaxErrorKind::NotStrings, arguments.span())),
    });
    strings.collect::<Result<_, _>>().map(Some)
}
