//! Byte ranges: what `Range` asks of a blob, and where `Content-Range` puts a chunk.

use std::ops::Range;

/// What a request wants of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// A part, which lies within it.
    Part(Range<u64>),
    /// A part that it does not have.
    Unsatisfiable,
}

/// Reads a `Range` header against a blob of `size` bytes.
///
/// > "A server that supports range requests MAY ignore or reject a Range header field that
/// > contains an invalid ranges-specifier ... with more than two overlapping ranges" (RFC 9110,
/// > section 14.2)
///
/// Other units, several ranges, and what cannot be read are ignored. `500-0` is refused, as the
/// conformance suite demands. An empty blob has no range at all, and is sent whole, as Go's server
/// does: containerd asks for `0-` of every blob, and would not get it otherwise.
pub(crate) fn wanted(header: &str, size: u64) -> Wanted {
    if size == 0 {
        return Wanted::Whole;
    }
    let Some(spec) = header.strip_prefix("bytes=") else { return Wanted::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    if !(is_number_or_empty(first) && is_number_or_empty(last)) {
        return Wanted::Whole;
    }
    let part = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Wanted::Whole,
        (true, false) => size.saturating_sub(number(last))..size,
        (false, true) => number(first)..size,
        (false, false) => number(first)..number(last).saturating_add(1).min(size),
    };
    if part.start < part.end { Wanted::Part(part) } else { Wanted::Unsatisfiable }
}

/// Reads the `Content-Range` of a chunk: its first and last byte.
///
/// > "It MUST match the following regular expression: ^[0-9]+-[0-9]+$" (distribution-spec,
/// > "Pushing a blob in chunks")
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let (first, last) = header.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && is_number_or_empty(text);
    if !is_number(first) || !is_number(last) {
        return None;
    }
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn is_number_or_empty(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the number that these digits are; one too large to say is larger than any blob.
fn number(digits: &str) -> u64 {
    digits.parse().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let table = [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=500-1499", Wanted::Part(500..1500)),
            ("bytes=500-", Wanted::Part(500..4000)),
            ("bytes=-500", Wanted::Part(3500..4000)),
            ("bytes=-9999", Wanted::Part(0..4000)),
            ("bytes=2000-5000", Wanted::Part(2000..4000)),
            ("bytes=2000-99999999999999999999999", Wanted::Part(2000..4000)),
            ("bytes=500-0", Wanted::Unsatisfiable),
            ("bytes=4000-", Wanted::Unsatisfiable),
            ("bytes=5000-10000", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=1--1", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ];
        for (header, expected) in table {
            assert_eq!(wanted(header, 4000), expected, "{header}");
        }
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-9"] {
            assert_eq!(wanted(header, 0), Wanted::Whole, "{header}");
        }
    }

    #[test]
    fn chunks() {
        assert_eq!(chunk("0-9"), Some((0, 9)));
        assert_eq!(chunk("10-5"), Some((10, 5)));
        for bad in ["", "-", "5-", "-5", "bytes 0-9", "0-9/10", "+1-2", "0-99999999999999999999"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
