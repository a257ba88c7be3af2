//! Secrets: texts that no `Debug`, message or log shows.

use std::fmt;

use url::Url;

/// A password or token. [`fmt::Debug`] shows only that there is one; there is no `Display`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Returns a secret that holds this text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// Returns the `Authorization` of a user and a password.
    pub fn basic(user: &str, password: &str) -> Secret {
        use base64::Engine as _;
        let pair = format!("{user}:{password}");
        Secret(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }

    /// Returns the text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Returns a URL as a message may show it: no user, password, query or fragment. A redirect to a
/// storage service carries its signature, which is a credential, in the query.
pub fn url_without_secrets(url: &Url) -> String {
    let mut shown = url.clone();
    // Both fail only for URLs that cannot have a user at all.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_fragment(None);
    shown.set_query(None);
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_secret() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(Secret(..))");
        let url = Url::parse("https://me:hunter2@cdn.example/x?sig=hunter2#hunter2").unwrap();
        assert_eq!(url_without_secrets(&url), "https://cdn.example/x");
    }
}
