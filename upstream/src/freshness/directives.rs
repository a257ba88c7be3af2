//! `Cache-Control`, as far as a shared cache understands it.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// The directives of a request or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    /// `max-stale` without an argument is the longest time there is.
    pub(super) max_stale: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
}

impl Directives {
    /// Reads the directives of a request or an answer; what is not known is passed over.
    ///
    /// > "When there is more than one value present for a given directive [...], either the first
    /// > occurrence should be used or the response should be considered stale. [...] Caches are
    /// > encouraged to consider responses that have invalid freshness information [...] to be
    /// > stale." (RFC 9111, section 4.2.1)
    pub fn of(headers: &HeaderMap) -> Directives {
        let mut all = Directives::default();
        let mut seen = false;
        for value in headers.get_all(CACHE_CONTROL) {
            seen = true;
            for directive in split(&String::from_utf8_lossy(value.as_bytes())) {
                let (name, argument) = match directive.split_once('=') {
                    Some((name, argument)) => (name, Some(argument.trim().trim_matches('"'))),
                    None => (directive, None),
                };
                all.add(&name.trim().to_ascii_lowercase(), argument);
            }
        }
        // > "Pragma [...] `no-cache` [...] when the Cache-Control header field is not present"
        // > (section 5.4)
        let pragma = headers.get(PRAGMA).is_some_and(|pragma| {
            String::from_utf8_lossy(pragma.as_bytes()).to_ascii_lowercase().contains("no-cache")
        });
        all.no_cache |= pragma && !seen;
        all
    }

    fn add(&mut self, name: &str, argument: Option<&str>) {
        match name {
            "no-store" => self.no_store = true,
            // With a list of fields, both mean these fields only; a cache may take them for all.
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => first(&mut self.max_age, seconds(argument)),
            "s-maxage" => first(&mut self.s_maxage, seconds(argument)),
            "min-fresh" => first(&mut self.min_fresh, seconds(argument)),
            "max-stale" => {
                first(&mut self.max_stale, argument.map_or(Duration::MAX, |_| seconds(argument)));
            }
            "stale-while-revalidate" => {
                first(&mut self.stale_while_revalidate, seconds(argument));
            }
            "stale-if-error" => first(&mut self.stale_if_error, seconds(argument)),
            _ => {}
        }
    }
}

fn first(slot: &mut Option<Duration>, value: Duration) {
    slot.get_or_insert(value);
}

/// Reads delta-seconds.
///
/// > "If a cache receives a delta-seconds value greater than the greatest integer it can represent
/// > [...], the cache MUST consider the value to be 2147483648" (section 1.2.2)
fn seconds(argument: Option<&str>) -> Duration {
    const GREATEST: u64 = 1 << 31;
    let digits = argument.unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Duration::ZERO;
    }
    Duration::from_secs(digits.parse().unwrap_or(GREATEST).min(GREATEST))
}

/// Splits at commas that are not quoted.
fn split(text: &str) -> Vec<&str> {
    let mut quoted = false;
    let comma = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    text.split(comma).map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Directives {
        let value = |text: &&str| (CACHE_CONTROL, HeaderValue::from_str(text).unwrap());
        Directives::of(&values.iter().map(value).collect())
    }

    #[test]
    fn reads_what_is_there_and_passes_over_the_rest() {
        let age = |text: &str| of(&[text]).max_age.map(|age| age.as_secs());
        let table = [
            ("max-age=60", Some(60)),
            ("Max-Age=\"60\"", Some(60)),
            ("public , max-age=60,", Some(60)),
            ("max-age=60, max-age=7", Some(60)),
            ("x=\"max-age=7, y\", max-age=60", Some(60)),
            ("max-age=99999999999999999999", Some(1 << 31)),
            ("max-age=1.5", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age", Some(0)),
            ("max-agee=60", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(age(text), expected, "{text}");
        }
        let both = of(&["no-cache=\"set-cookie\"", "private, max-stale"]);
        assert!(both.no_cache && both.private && both.max_stale == Some(Duration::MAX));
    }

    #[test]
    fn pragma_counts_where_nothing_else_is_said() {
        let mut headers = HeaderMap::from_iter([(PRAGMA, HeaderValue::from_static("no-cache"))]);
        assert!(Directives::of(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
        assert!(!Directives::of(&headers).no_cache);
    }
}
