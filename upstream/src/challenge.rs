//! Challenges: what a `WWW-Authenticate` header asks for.
//!
//! > "challenge = auth-scheme [ 1*SP ( token68 / [ auth-param *( OWS "," OWS auth-param ) ] ) ]"
//! > (RFC 9110, section 11.3)
//!
//! One header line may hold several challenges, divided by the same comma that divides their
//! parameters, and there may be several lines. The text comes from a server that nobody vouches
//! for: it is read with limits, and what does not fit the grammar ends the reading of its line.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The longest header value that is read, in bytes.
const LEN_MAX: usize = 8 * 1024;
/// The most challenges that are kept of one answer.
const CHALLENGES_MAX: usize = 16;

/// One way to authenticate that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password (RFC 7617).
    Basic,
    /// A token, fetched from the realm (distribution's token authentication).
    Bearer(BearerChallenge),
}

/// What a `Bearer` challenge says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BearerChallenge {
    /// The URL of the token service.
    pub realm: String,
    /// The name of the service that the token is for.
    pub service: Option<String>,
    /// The scopes that the refused request would have needed.
    pub scope: Option<String>,
    /// Why a token that was sent did not do: `invalid_token`, `insufficient_scope`.
    pub error: Option<String>,
}

impl Challenge {
    /// Returns the challenges of an answer's headers, in their order. Schemes that we do not
    /// speak, and `Bearer` without a realm, are left out.
    pub fn read_all(headers: &HeaderMap) -> Vec<Challenge> {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter(|value| value.len() <= LEN_MAX)
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_line)
            .filter_map(Parsed::into_challenge)
            .take(CHALLENGES_MAX)
            .collect()
    }
}

/// A scheme and its parameters, names in lower case.
struct Parsed<'a> {
    scheme: &'a str,
    parameters: Vec<(String, String)>,
}

impl Parsed<'_> {
    fn into_challenge(self) -> Option<Challenge> {
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut bearer = BearerChallenge::default();
        // The first of two parameters with one name counts: a later one cannot change what was
        // already looked at.
        for (name, value) in self.parameters.into_iter().rev() {
            match name.as_str() {
                "realm" => bearer.realm = value,
                "service" => bearer.service = Some(value),
                "scope" => bearer.scope = Some(value),
                "error" => bearer.error = Some(value),
                _ => {}
            }
        }
        (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
    }
}

fn parse_line(line: &str) -> Vec<Parsed<'_>> {
    let mut challenges: Vec<Parsed<'_>> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            return challenges;
        }
        rest = after.trim_start_matches([' ', '\t']);
        match (rest.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = split_value(value.trim_start_matches([' ', '\t']))
                else {
                    return challenges;
                };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            // A parameter before any scheme: not the grammar.
            (Some(_), None) => return challenges,
            (None, _) => challenges.push(Parsed { scheme: word, parameters: Vec::new() }),
        }
    }
}

/// Splits a token (RFC 9110, section 5.6.2) off; it may be empty.
fn split_token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Splits a parameter's value off: a quoted string, or, as some registries write it, anything up
/// to a comma or blank.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<Challenge> {
        let headers: HeaderMap =
            lines.iter().map(|line| (WWW_AUTHENTICATE, line.parse().unwrap())).collect();
        Challenge::read_all(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(BearerChallenge {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        })
    }

    #[test]
    fn reads_what_registries_send() {
        let full = r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#;
        assert_eq!(
            read(&[full]),
            [bearer(
                "https://auth.example/token",
                Some("registry"),
                Some("repository:a/b:pull,push")
            )]
        );
        assert_eq!(read(&["Basic realm=\"a, b=c\""]), [Challenge::Basic]);
        assert_eq!(
            read(&["bearer  REALM = https://a.example/t , service=x"]),
            [bearer("https://a.example/t", Some("x"), None)]
        );
    }

    #[test]
    fn reads_several_in_one_line_and_in_several() {
        let both = r#"Negotiate, Basic realm="x", Bearer realm="https://a.example""#;
        let expected = [Challenge::Basic, bearer("https://a.example", None, None)];
        assert_eq!(read(&[both]), expected);
        assert_eq!(read(&["Basic realm=x", "Bearer realm=\"https://a.example\""]), expected);
    }

    #[test]
    fn hostile_text_is_cut_short() {
        for text in [
            "",
            ",,,,",
            "=",
            "realm=\"x\"",
            "Bearer",
            "Bearer realm=\"unterminated",
            "Bearer realm=\"x\\",
            "Bearer realm=",
            "Digest realm=\"x\", nonce=\"y\"",
        ] {
            assert_eq!(read(&[text]), [], "{text}");
        }
        let escaped = r#"Bearer realm="https://a.example/\"x\\y",realm="https://evil.example""#;
        assert_eq!(read(&[escaped]), [bearer("https://a.example/\"x\\y", None, None)]);
        assert_eq!(read(&[&"Basic,".repeat(1000)]).len(), CHALLENGES_MAX);
        assert_eq!(read(&[&format!("Basic realm=\"{}\"", "x".repeat(LEN_MAX))]), []);
    }
}
