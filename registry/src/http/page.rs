//! Lists in pages: `n` and `last` of a request, `Link` of its answer.

use http::HeaderValue;

use super::error::{ApiError, Code};
use super::query::Query;

/// Which part of a sorted list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Only what comes behind this.
    pub(crate) last: Option<String>,
    /// At most so many.
    pub(crate) most: usize,
    /// The upstream whose list it is, where `ns` named one: the next page is of the same.
    namespace: Option<String>,
}

impl Page {
    /// Reads `n` and `last`. `n` is clamped to `max`, and is `default` where it is absent.
    pub(crate) fn parse(query: &Query, default: usize, max: usize) -> Result<Page, ApiError> {
        let most = match query.first("n") {
            None => default,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(ApiError::new(
                    Code::PaginationNumberInvalid,
                    "`n` is not a number of entries",
                ));
            }
            // More digits than a number has: more than there is.
            Some(digits) => digits.parse().unwrap_or(usize::MAX),
        };
        let last = query.first("last").filter(|last| !last.is_empty()).map(str::to_owned);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
        let namespace = query.first("ns").filter(|ns| !ns.is_empty() && ns.chars().all(is_plain));
        Ok(Page { last, most: most.min(max), namespace: namespace.map(str::to_owned) })
    }

    /// Returns how many entries to read: one more than asked for says whether there are more.
    pub(crate) fn read_most(&self) -> usize {
        if self.most == 0 { 0 } else { self.most + 1 }
    }

    /// Cuts the one entry too many off, and returns the `Link` to the next page if it was there.
    ///
    /// Names and tags need no escaping in a query.
    pub(crate) fn cut<T: ToString>(&self, path: &str, entries: &mut Vec<T>) -> Option<HeaderValue> {
        if entries.len() <= self.most {
            return None;
        }
        entries.truncate(self.most);
        let last = entries.last()?.to_string();
        let namespace = self.namespace.as_ref().map(|ns| format!("&ns={ns}"));
        link(&format!("{path}?n={}&last={last}{}", self.most, namespace.unwrap_or_default()))
    }
}

/// Returns the `Link` to a next page.
pub(crate) fn link(target: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("<{target}>; rel=\"next\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page, ApiError> {
        Page::parse(&Query::parse(Some(query)), 100, 1000)
    }

    fn page_of(entries: &[&str], query: &str) -> HeaderValue {
        page(query).unwrap().cut("/v2/x/tags/list", &mut entries.to_vec()).unwrap()
    }

    #[test]
    fn numbers_are_clamped_and_checked() {
        let table = [("", 100), ("n=5", 5), ("n=0", 0), ("n=5000", 1000)];
        for (query, most) in table {
            assert_eq!(page(query).unwrap().most, most, "{query}");
        }
        assert_eq!(page("n=9223372036854775808").unwrap().most, 1000);
        assert_eq!(page("n=99999999999999999999999999").unwrap().most, 1000);
        for bad in ["n=-1", "n=x", "n=", "n=1.5", "n=%2B1"] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_full_page_links_to_the_next_and_an_empty_one_does_not() {
        let page = page("n=2&last=a").unwrap();
        let mut entries = vec!["b", "c", "d"];
        let link = page.cut("/v2/x/tags/list", &mut entries).unwrap();
        assert_eq!(link, "</v2/x/tags/list?n=2&last=c>; rel=\"next\"");
        assert_eq!(entries, ["b", "c"]);
        assert_eq!(page.cut("/v2/x/tags/list", &mut entries), None);
        let link = page_of(&["b", "c"], "n=1&ns=docker.io");
        assert_eq!(link, "</v2/x/tags/list?n=1&last=b&ns=docker.io>; rel=\"next\"");
        let none = Page::parse(&Query::parse(Some("n=0")), 100, 1000).unwrap();
        assert_eq!((none.read_most(), none.cut("/", &mut Vec::<&str>::new())), (0, None));
    }
}
