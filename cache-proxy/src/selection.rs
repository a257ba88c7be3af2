//! Which part of the bytes answers a request, and with which status: conditions and ranges.
//!
//! Pure. RFC 9110, sections 13 and 14.

use std::ops::Range;

use http::header::{
    CACHE_CONTROL, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, PRAGMA, RANGE,
};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The most ranges that one request gets; more are as if none were asked for.
const RANGES_MAX: usize = 16;

/// What of a resource answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it: 200.
    Whole,
    /// One range: 206. The second number is the size of the whole.
    Part(Range<u64>, u64),
    /// Several: 206, `multipart/byteranges`.
    Parts(Vec<Range<u64>>, u64),
    /// The client has it: 304.
    NotModified,
    /// A condition does not hold: 412.
    PreconditionFailed,
    /// No byte of what was asked for is there: 416, with the size of the whole.
    Unsatisfiable(u64),
}

/// Selects what a GET or HEAD gets of a resource with these headers; `size` where it is known.
pub fn select(request: &HeaderMap, resource: &HeaderMap, size: Option<u64>) -> Selection {
    if let Some(conditioned) = conditions(request, resource) {
        return conditioned;
    }
    // > "An origin server that supports range requests MAY ignore or reject a Range header field
    // > that contains an invalid ranges-specifier" (section 14.2); and where nobody knows yet how
    // > long the resource is, all of it is sent.
    let (Some(size), Some(range)) = (size, text(request, RANGE)) else { return Selection::Whole };
    if !if_range_holds(request, resource) {
        return Selection::Whole;
    }
    let Some(mut ranges) = ranges(range, size) else { return Selection::Whole };
    match ranges.len() {
        0 => Selection::Unsatisfiable(size),
        1 => Selection::Part(ranges.remove(0), size),
        _ => Selection::Parts(ranges, size),
    }
}

/// Says whether a client insists on asking the upstream: `no-cache`, `max-age=0`.
pub fn insists(request: &HeaderMap) -> bool {
    let has = |name: HeaderName, words: &[&str]| {
        let text = text(request, name).unwrap_or_default().to_ascii_lowercase();
        text.split(',').any(|word| words.contains(&word.trim()))
    };
    has(CACHE_CONTROL, &["no-cache", "max-age=0"]) || has(PRAGMA, &["no-cache"])
}

/// Evaluates conditions in the order of section 13.2.2.
fn conditions(request: &HeaderMap, resource: &HeaderMap) -> Option<Selection> {
    let tag = text(resource, ETAG);
    let modified = date(resource, LAST_MODIFIED);
    if request.contains_key(IF_MATCH) {
        let holds = tags(request, IF_MATCH)
            .iter()
            .any(|wanted| *wanted == "*" || Some(*wanted) == tag.filter(|tag| is_strong(tag)));
        if !holds {
            return Some(Selection::PreconditionFailed);
        }
    } else if let Some(since) = date(request, IF_UNMODIFIED_SINCE)
        && modified.is_some_and(|modified| modified > since)
    {
        return Some(Selection::PreconditionFailed);
    }
    if request.contains_key(IF_NONE_MATCH) {
        let same =
            |wanted: &&str| *wanted == "*" || tag.is_some_and(|tag| opaque(tag) == opaque(wanted));
        return tags(request, IF_NONE_MATCH).iter().any(same).then_some(Selection::NotModified);
    }
    let since = date(request, IF_MODIFIED_SINCE)?;
    (modified? <= since).then_some(Selection::NotModified)
}

/// > "the If-Range condition [...] true if the validator matches exactly" (section 13.1.5)
fn if_range_holds(request: &HeaderMap, resource: &HeaderMap) -> bool {
    let Some(validator) = text(request, IF_RANGE) else { return true };
    if validator.starts_with('"') {
        return text(resource, ETAG) == Some(validator);
    }
    !validator.starts_with("W/") && text(resource, LAST_MODIFIED) == Some(validator)
}

/// Reads the ranges that can be satisfied, in order; `None` where it is no set of byte ranges, or
/// one that only does harm: too many, or overlapping ones.
fn ranges(text: &str, size: u64) -> Option<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for (count, spec) in text.trim().strip_prefix("bytes=")?.split(',').enumerate() {
        if count >= RANGES_MAX {
            return None;
        }
        let (first, last) = spec.trim().split_once('-')?;
        let digits = |text: &str| -> Option<u64> {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse().unwrap_or(u64::MAX))
        };
        let range = match (first, last) {
            ("", last) => size.saturating_sub(digits(last)?)..size,
            (first, "") => digits(first)?..size,
            (first, last) => {
                let (first, last) = (digits(first)?, digits(last)?);
                if last < first {
                    return None;
                }
                first..last.saturating_add(1).min(size)
            }
        };
        if range.start < range.end {
            found.push(range);
        }
    }
    let overlap = |one: &Range<u64>, two: &Range<u64>| one.start < two.end && two.start < one.end;
    let harmful =
        found.iter().enumerate().any(|(at, one)| found[..at].iter().any(|two| overlap(one, two)));
    (!harmful).then_some(found)
}

fn tags(request: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let mut tags = Vec::new();
    for value in request.get_all(name) {
        let mut rest = value.to_str().unwrap_or_default().trim();
        while !rest.is_empty() {
            let start = rest.find('"').map(|quote| quote + 1);
            // A tag may hold commas: it ends at its second quote.
            let end = start.and_then(|start| Some(start + rest[start..].find('"')? + 1));
            let end = end.unwrap_or_else(|| rest.find(',').unwrap_or(rest.len()));
            tags.push(rest[..end].trim());
            rest = rest[end..].trim_start_matches([',', ' ', '\t']);
        }
    }
    tags
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn is_strong(tag: &str) -> bool {
    tag.starts_with('"')
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text(headers, name)?).ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(header).collect()
    }

    #[test]
    fn ranges_of_ten_bytes() {
        let resource = headers(&[("etag", "\"a\""), ("last-modified", OLD)]);
        let of = |range| select(&headers(&[("range", range)]), &resource, Some(10));
        for (range, expected) in [
            ("bytes=0-0", Selection::Part(0..1, 10)),
            ("bytes=5-", Selection::Part(5..10, 10)),
            ("bytes=-3", Selection::Part(7..10, 10)),
            ("bytes=-30", Selection::Part(0..10, 10)),
            ("bytes=5-99999999999999999999999", Selection::Part(5..10, 10)),
            ("bytes=0-1, 5-6", Selection::Parts(vec![0..2, 5..7], 10)),
            ("bytes=10-", Selection::Unsatisfiable(10)),
            ("bytes=-0", Selection::Unsatisfiable(10)),
            ("bytes=10-,0-0", Selection::Part(0..1, 10)),
            ("bytes=5-4", Selection::Whole),
            ("bytes=0-5,3-9", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("lines=0-1", Selection::Whole),
            ("bytes=", Selection::Whole),
            ("bytes=+1-2", Selection::Whole),
        ] {
            assert_eq!(of(range), expected, "{range}");
        }
        let many = headers(&[(
            "range",
            "bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9,0-0,1-1,2-2,3-3,4-4,5-5,6-6",
        )]);
        assert_eq!(select(&many, &resource, Some(10)), Selection::Whole);
        assert_eq!(select(&headers(&[("range", "bytes=0-0")]), &resource, None), Selection::Whole);
    }

    #[test]
    fn conditions_before_ranges() {
        let resource = headers(&[("etag", "\"a,b\""), ("last-modified", OLD)]);
        let part = Selection::Part(1..2, 10);
        let range = ("range", "bytes=1-1");
        for (request, expected) in [
            (vec![("if-none-match", "\"a,b\""), range], Selection::NotModified),
            (vec![("if-none-match", "W/\"x\", W/\"a,b\"")], Selection::NotModified),
            (vec![("if-none-match", "*")], Selection::NotModified),
            (vec![("if-none-match", "\"x\""), ("if-modified-since", NEW)], Selection::Whole),
            (vec![("if-modified-since", OLD)], Selection::NotModified),
            (vec![("if-modified-since", "nonsense")], Selection::Whole),
            (vec![("if-match", "\"x\"")], Selection::PreconditionFailed),
            (vec![("if-match", "\"x\", \"a,b\""), range], part.clone()),
            (vec![("if-range", "\"a,b\""), range], part.clone()),
            (vec![("if-range", "W/\"a,b\""), range], Selection::Whole),
            (vec![("if-range", "\"b\""), range], Selection::Whole),
            (vec![("if-range", OLD), range], part),
            (vec![("if-range", NEW), range], Selection::Whole),
        ] {
            assert_eq!(select(&headers(&request), &resource, Some(10)), expected, "{request:?}");
        }
        let unmodified = headers(&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]);
        assert_eq!(select(&unmodified, &resource, None), Selection::PreconditionFailed);
    }

    #[test]
    fn who_insists() {
        assert!(insists(&headers(&[("cache-control", "max-age=0")])));
        assert!(insists(&headers(&[("cache-control", "x, No-Cache")])));
        assert!(insists(&headers(&[("pragma", "no-cache")])));
        assert!(!insists(&headers(&[("cache-control", "max-age=01")])));
    }
}
