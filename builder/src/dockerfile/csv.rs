//! One line of comma-separated values, as `--mount` and `--device` are given.

/// Why a line is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum CsvError {
    #[error("it is empty")]
    Empty,
    #[error("a quote stands in a field that is not quoted")]
    BareQuote,
    #[error("a quoted field does not end properly")]
    Quote,
}

/// Splits a line at commas; a field in `"` may hold commas, and `""` for a quote.
///
/// # Errors
/// Where the line is empty, or a quote is out of place.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest.split_once(',').map_or((rest, None), |(f, a)| (f, Some(a)));
            if field.contains('"') {
                return Err(CsvError::BareQuote);
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let (field, after) = quoted_field(quoted)?;
        fields.push(field);
        if after.is_empty() {
            return Ok(fields);
        }
        rest = after.strip_prefix(',').ok_or(CsvError::Quote)?;
    }
}

/// Reads a field behind its opening quote; returns it and what follows its closing one.
fn quoted_field(text: &str) -> Result<(String, &str), CsvError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or(CsvError::Quote)?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, after)),
        }
    }
}
