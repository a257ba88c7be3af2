//! Durations as Go writes them: `1m30s`, `1.5h`, `100ms`.

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum DurationError {
    #[error("`{0}` is no duration")]
    Malformed(String),
    #[error("`{0}` has no unit")]
    NoUnit(String),
    #[error("`{0}` is too long")]
    TooLong(String),
    #[error("`{0}` is negative")]
    Negative(String),
    #[error("`{0}` is shorter than a millisecond")]
    TooShort(String),
}

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Reads a duration; returns nanoseconds, at most what an `i64` holds.
///
/// # Errors
///
/// On anything that Go's `time.ParseDuration` refuses, and on negative durations.
pub fn parse(text: &str) -> Result<u64, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(DurationError::NoUnit(text.to_owned()));
        }
        let scale = nanos_per(unit).ok_or_else(malformed)?;
        let nanos = scaled(number, scale).ok_or_else(malformed)?;
        total = nanos
            .and_then(|nanos| total.checked_add(nanos))
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| DurationError::TooLong(text.to_owned()))?;
        rest = after;
    }
    if negative && total > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    Ok(total)
}

/// Reads a duration of HEALTHCHECK: zero (the engine's default), or a millisecond and more.
///
/// # Errors
///
/// As for [`parse`], and for durations between.
pub fn parse_interval(text: &str) -> Result<u64, DurationError> {
    match parse(text)? {
        0 => Ok(0),
        nanos if nanos < NANOS_PER_MILLI => Err(DurationError::TooShort(text.to_owned())),
        nanos => Ok(nanos),
    }
}

fn nanos_per(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => NANOS_PER_MILLI,
        "s" => 1_000 * NANOS_PER_MILLI,
        "m" => 60_000 * NANOS_PER_MILLI,
        "h" => 3_600_000 * NANOS_PER_MILLI,
        _ => return None,
    })
}

/// Returns `number * scale`; outer nothing if it is no number, inner nothing if it is too large.
fn scaled(number: &str, scale: u64) -> Option<Option<u64>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
    let mut nanos = 0;
    let mut step = scale;
    for digit in fraction.bytes() {
        // Hours have 13 digits of nanoseconds; what lies below is dropped.
        step /= 10;
        nanos += u64::from(digit - b'0') * step;
    }
    Some(whole.and_then(|whole| whole.checked_mul(scale)?.checked_add(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let cases = [
            ("0", Ok(0)),
            ("5s", Ok(5_000_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            (".5s", Ok(500_000_000)),
            ("+1ms", Ok(1_000_000)),
            ("1us", Err("`1us` is shorter than a millisecond")),
            ("-1s", Err("`-1s` is negative")),
            ("5", Err("`5` has no unit")),
            ("", Err("`` is no duration")),
            (".s", Err("`.s` is no duration")),
            ("1x", Err("`1x` is no duration")),
            ("1.2.3s", Err("`1.2.3s` is no duration")),
            ("9999999h", Err("`9999999h` is too long")),
            ("99999999999999999999s", Err("`99999999999999999999s` is too long")),
        ];
        for (text, expected) in cases {
            let result = parse_interval(text).map_err(|error| error.to_string());
            assert_eq!(result, expected.map_err(str::to_owned), "{text}");
        }
    }
}
