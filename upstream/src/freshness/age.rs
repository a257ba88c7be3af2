//! How old an answer is, and how long it is fresh.

use std::time::Duration;

use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::directives::Directives;

/// The longest time for which an answer is fresh that says nothing about it.
const HEURISTIC_MAX: Duration = Duration::from_secs(24 * 3600);

/// Returns how old an answer is.
///
/// > "apparent_age = max(0, response_time - date_value);
/// > response_delay = response_time - request_time;
/// > corrected_age_value = age_value + response_delay;
/// > corrected_initial_age = max(apparent_age, corrected_age_value);
/// > resident_time = now - response_time;
/// > current_age = corrected_initial_age + resident_time;" (RFC 9111, section 4.2.3)
pub(super) fn current_age(
    headers: &HeaderMap,
    requested: Timestamp,
    received: Timestamp,
    now: Timestamp,
) -> Duration {
    let apparent = date(headers, &DATE).map_or(Duration::ZERO, |date| between(date, received));
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    let corrected =
        Duration::from_secs(age.unwrap_or_default()).saturating_add(between(requested, received));
    apparent.max(corrected).saturating_add(between(received, now))
}

/// Returns for how long an answer is fresh, from when it was made.
///
/// > "If the cache is shared and the s-maxage response directive is present, use its value, or
/// > if the max-age response directive is present, use its value, or if the Expires response
/// > header field is present, use its value minus the value of the Date response header field [...]
/// > Otherwise, no explicit expiration time is present in the response. A heuristic freshness
/// > lifetime might be applicable" (section 4.2.1)
pub(super) fn lifetime(
    headers: &HeaderMap,
    directives: &Directives,
    received: Timestamp,
    heuristic: bool,
) -> Duration {
    if let Some(explicit) = directives.s_maxage.or(directives.max_age) {
        return explicit;
    }
    let made = date(headers, &DATE).unwrap_or(received);
    if headers.contains_key(EXPIRES) {
        // > "A cache recipient MUST interpret invalid date formats, especially the value "0", as
        // > representing a time in the past" (section 5.3)
        return date(headers, &EXPIRES).map_or(Duration::ZERO, |expires| between(made, expires));
    }
    // > "recipients are encouraged to use a heuristic expiration value that is no more than some
    // > fraction of the interval since that time. A typical setting of this fraction might be 10%."
    // > (section 4.2.2)
    let modified = date(headers, &LAST_MODIFIED).filter(|_| heuristic);
    modified.map_or(Duration::ZERO, |modified| (between(modified, made) / 10).min(HEURISTIC_MAX))
}

pub(super) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// Returns how much later the second moment is; nothing where it is earlier.
fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}
