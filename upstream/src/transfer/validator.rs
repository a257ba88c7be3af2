//! Strong validators: what tells that two answers are parts of the same bytes.

use http::header::{DATE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// A strong validator, as it stands in `If-Range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator(HeaderValue);

impl Validator {
    /// Returns an answer's strong validator, where it has one.
    ///
    /// > "A client MUST NOT generate an If-Range header field containing an entity tag that is
    /// > marked as weak." (RFC 9110, section 13.1.5)
    ///
    /// > "[Last-Modified is strong if] the validator is being compared by an origin server or
    /// > cache ... and that Date value is at least one second later than the Last-Modified value"
    /// > (section 8.8.2.2). A minute, as RFC 7232 had it, forgives clocks that differ.
    pub fn of(headers: &HeaderMap) -> Option<Validator> {
        match headers.get(ETAG) {
            Some(tag) if tag.as_bytes().starts_with(b"\"") => Some(Validator(tag.clone())),
            // Who has a weak tag says that the bytes may differ.
            Some(_) => None,
            None => {
                let modified = headers.get(LAST_MODIFIED)?;
                let age = date(headers.get(DATE)?)?.as_second() - date(modified)?.as_second();
                (age >= 60).then(|| Validator(modified.clone()))
            }
        }
    }

    /// Returns the text for `If-Range`.
    pub fn header(&self) -> &HeaderValue {
        &self.0
    }
}

fn date(value: &HeaderValue) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strong_ones() {
        let old = "Sun, 06 Nov 1994 08:48:00 GMT";
        let now = "Sun, 06 Nov 1994 08:49:37 GMT";
        let table: [(&[(_, &str)], Option<&str>); 7] = [
            (&[(ETAG, "\"x\"")], Some("\"x\"")),
            (&[(ETAG, "W/\"x\""), (LAST_MODIFIED, old), (DATE, now)], None),
            (&[(LAST_MODIFIED, old), (DATE, now)], Some(old)),
            (&[(LAST_MODIFIED, now), (DATE, now)], None),
            (&[(LAST_MODIFIED, old)], None),
            (&[(LAST_MODIFIED, "soon"), (DATE, now)], None),
            (&[], None),
        ];
        for (headers, expected) in table {
            let map: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
                .collect();
            let expected = expected.map(|text| Validator(HeaderValue::from_str(text).unwrap()));
            assert_eq!(Validator::of(&map), expected, "{headers:?}");
        }
    }
}
