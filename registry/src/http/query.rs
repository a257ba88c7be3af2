//! The parameters behind a path's `?`.

use axum::extract::Query as Extract;
use http::Uri;

/// The parameters of a request, in their order. What cannot be decoded is as if it were absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Query {
        let Some(query) = query.filter(|query| !query.is_empty()) else { return Query::default() };
        let uri = Uri::builder().path_and_query(format!("/?{query}")).build().ok();
        let pairs = uri.and_then(|uri| Extract::<Vec<(String, String)>>::try_from_uri(&uri).ok());
        Query(pairs.map(|Extract(pairs)| pairs).unwrap_or_default())
    }

    /// Reads a form, as `POST` has them.
    pub(crate) fn of_form(text: &str) -> Query {
        Query::parse(Some(text.trim()))
    }

    /// Returns the first parameter of this name.
    pub(crate) fn first(&self, name: &'static str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns all parameters of this name.
    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_repeated_and_escaped_parameters() {
        let query = Query::parse(Some("tag=a&tag=b&digest=sha256%3Aab&empty="));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.first("digest"), Some("sha256:ab"));
        assert_eq!((query.first("empty"), query.first("none")), (Some(""), None));
        assert!(Query::parse(None).first("x").is_none());
    }
}
