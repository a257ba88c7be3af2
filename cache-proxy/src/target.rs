//! What a request is for: an absolute URL in one form, whatever way the client wrote it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use boatyard_content::cache::Cache;
use boatyard_content::entries::EntryKey;
use url::{Host, Url};

/// The longest URL that is understood.
const LENGTH_MAX: usize = 8 * 1024;

/// The absolute URL of a resource, normalised.
///
/// - The scheme is `http` or `https`, the host is lower-case, a default port is left out.
/// - No user, password or fragment.
/// - Percent-encoded characters that need no encoding are decoded, the digits of all others are
///   upper-case (RFC 3986, section 6.2.2).
/// - No segment of the path is `..`, or becomes `.` or `..` however often it is decoded; a plain `.`
///   is left out (apt asks flat archives for `/flat/./InRelease`). No NUL, no control character and
///   no backslash, encoded or not.
///
/// Clones are cheap, and so is reading a text again that was read lately.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target(Arc<Read>);

/// What was read of a text.
#[derive(Debug)]
struct Read {
    url: Url,
    key: EntryKey,
}

impl PartialEq for Read {
    fn eq(&self, other: &Read) -> bool {
        self.key == other.key && self.url == other.url
    }
}

impl Eq for Read {}

impl Hash for Read {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// How many bytes of texts that were read lately are remembered: what is hot is asked for again and
/// again, and reading it costs more than everything else about it.
const READ_BYTES: usize = 4 * 1024 * 1024;
static READ: LazyLock<Cache<Box<str>, Target>> = LazyLock::new(|| Cache::new(READ_BYTES));

/// A text that is no [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is too long.
    #[error("the address has more than {LENGTH_MAX} bytes")]
    TooLong,
    /// It has a character that no URL has.
    #[error("the address has a character that does not belong there")]
    Character,
    /// It is no absolute URL with a host.
    #[error("the address is no absolute URL")]
    NotAbsolute,
    /// Its scheme is another one.
    #[error("only http and https are fetched")]
    Scheme,
    /// It holds a user or a password.
    #[error("credentials do not belong into the address")]
    Credentials,
    /// Its path leads upwards.
    #[error("the path leads upwards")]
    Upwards,
}

impl Target {
    /// Returns the URL.
    pub fn url(&self) -> &Url {
        &self.0.url
    }

    /// Returns the text of the URL.
    pub fn as_str(&self) -> &str {
        self.0.url.as_str()
    }

    /// Returns `host`, or `host:port` where the port is not the scheme's.
    pub fn authority(&self) -> String {
        match self.0.url.port() {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_owned(),
        }
    }

    /// Returns the host; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        self.0.url.host_str().unwrap_or_default()
    }

    /// Returns the port, also where it is the scheme's.
    pub fn port(&self) -> u16 {
        self.0.url.port_or_known_default().unwrap_or_default()
    }

    /// Returns the path, which begins with `/`.
    pub fn path(&self) -> &str {
        self.0.url.path()
    }

    /// Returns the last segment of the path, with `%XX` decoded where that is UTF-8.
    pub fn file_name(&self) -> String {
        let last = self.path().rsplit('/').next().unwrap_or_default();
        decode(last.as_bytes())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_else(|| last.to_owned())
    }

    /// Returns the key of its entry.
    pub fn key(&self) -> EntryKey {
        self.0.key.clone()
    }

    /// Returns the target of another reference, as a document at this one means it.
    ///
    /// # Errors
    /// Where that is no target.
    pub fn join(&self, reference: &str) -> Result<Target, TargetError> {
        check(reference)?;
        let joined = self.0.url.join(reference).map_err(|_| TargetError::NotAbsolute)?;
        Target::of(joined)
    }

    /// Returns the target at another path and query of the same server, such as
    /// `/debian/dists/sid/InRelease`.
    ///
    /// # Errors
    /// Where that is no target.
    pub fn at(&self, path: &str) -> Result<Target, TargetError> {
        let origin = self.0.url.origin().ascii_serialization();
        if !path.starts_with('/') {
            return Err(TargetError::NotAbsolute);
        }
        format!("{origin}{path}").parse()
    }

    fn of(mut url: Url) -> Result<Target, TargetError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        match url.host() {
            None => return Err(TargetError::NotAbsolute),
            // One dot at the end is the root's; any other empty label is nobody's.
            Some(Host::Domain(name))
                if name.strip_suffix('.').unwrap_or(name).split('.').any(str::is_empty) =>
            {
                return Err(TargetError::NotAbsolute);
            }
            Some(_) => {}
        }
        url.set_fragment(None);
        let path = normalise(url.path());
        url.set_path(&path);
        if let Some(query) = url.query().map(normalise) {
            url.set_query(Some(&query));
        }
        let key = EntryKey::of(url.as_str());
        Ok(Target(Arc::new(Read { url, key })))
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        if let Some(target) = READ.get(text) {
            return Ok(target);
        }
        check(text)?;
        // The parser of URLs forgives much (`http:host`, backslashes): what it forgives, another
        // one on the way may understand otherwise.
        let (scheme, rest) = text.split_once("://").ok_or(TargetError::NotAbsolute)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.bytes().all(plain) || rest.starts_with(['/', '?', '#']) {
            return Err(TargetError::NotAbsolute);
        }
        let target = Target::of(Url::parse(text).map_err(|_| TargetError::NotAbsolute)?)?;
        READ.put(text.into(), target.clone(), 2 * text.len() + 512);
        Ok(target)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks what the parser of URLs would quietly mend.
fn check(text: &str) -> Result<(), TargetError> {
    if text.len() > LENGTH_MAX {
        return Err(TargetError::TooLong);
    }
    if !text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && !b"\"<>\\^`{|}".contains(&byte)) {
        return Err(TargetError::Character);
    }
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let path = path
        .split_once("://")
        .map_or(path, |(_, rest)| rest.find('/').map_or("", |slash| &rest[slash..]));
    check_path(path.as_bytes())
}

/// Checks that a path stays where it is, however often somebody decodes it.
fn check_path(path: &[u8]) -> Result<(), TargetError> {
    let segments = path.split(|byte| *byte == b'/').filter(|segment| *segment != b".");
    let mut path = segments.collect::<Vec<_>>().join(&b'/');
    loop {
        if path.iter().any(|byte| *byte < 0x20 || *byte == 0x7f || *byte == b'\\') {
            return Err(TargetError::Character);
        }
        if path.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..") {
            return Err(TargetError::Upwards);
        }
        match decode(&path) {
            Some(decoded) if decoded != path => path = decoded,
            Some(_) => return Ok(()),
            // `%` that begins no `%XX` stands for itself, but nobody should have to guess.
            None => return Err(TargetError::Character),
        }
    }
}

/// Decodes `%XX` once; `None` where a `%` begins no such thing.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            decoded.push(hex(tail)?);
            rest = &tail[2..];
        } else {
            decoded.push(first);
            rest = tail;
        }
    }
    Some(decoded)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Decodes what needs no encoding, and writes all other encodings with upper-case digits.
fn normalise(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        normal.push_str(before);
        match hex(&from.as_bytes()[1..]) {
            Some(byte) => {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        normal.push(char::from(byte));
                    }
                    _ => normal.push_str(&format!("%{byte:02X}")),
                }
                rest = &from[3..];
            }
            None => {
                normal.push('%');
                rest = &from[1..];
            }
        }
    }
    normal + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_has_one_form() {
        for (written, normal) in [
            ("http://Deb.Example", "http://deb.example/"),
            ("http://deb.example:80/a", "http://deb.example/a"),
            ("HTTPS://deb.example:443/a?B=%2f#c", "https://deb.example/a?B=%2F"),
            ("http://deb.example:8080/a%7eb%2Db", "http://deb.example:8080/a~b-b"),
            ("http://deb.example/p_1%3a2%2b3", "http://deb.example/p_1%3A2%2B3"),
            ("http://deb.example//a//b/", "http://deb.example//a//b/"),
            ("http://npm.example/@s%2fp", "http://npm.example/@s%2Fp"),
            ("http://[::1]/a", "http://[::1]/a"),
            ("http://0x7f.1/a", "http://127.0.0.1/a"),
            ("http://deb.example/flat/./InRelease", "http://deb.example/flat/InRelease"),
            ("http://2130706433/a", "http://127.0.0.1/a"),
        ] {
            assert_eq!(written.parse::<Target>().unwrap().as_str(), normal, "{written}");
        }
    }

    #[test]
    fn what_is_no_target() {
        use TargetError::{Character, Credentials, NotAbsolute, Scheme, Upwards};
        for (text, expected) in [
            ("ftp://deb.example/", Scheme),
            ("http:deb.example/", NotAbsolute),
            ("http:///deb.example", NotAbsolute),
            ("http://../etc/passwd", NotAbsolute),
            ("http://a..example/", NotAbsolute),
            ("/debian", NotAbsolute),
            ("", NotAbsolute),
            ("http://me:secret@deb.example/", Credentials),
            ("http://me@deb.example/", Credentials),
            ("http://deb.example/a b", Character),
            ("http://deb.example/\t", Character),
            ("http://deb.example\\@evil.example/", Character),
            ("http://deb.example/a%", Character),
            ("http://deb.example/a%zz", Character),
            ("http://deb.example/%00", Character),
            ("http://deb.example/%5c", Character),
            ("http://deb.example/%255c", Character),
            ("http://deb.example/../a", Upwards),
        ] {
            let got = text.parse::<Target>().unwrap_err();
            // The parser may find that there is no host before anything else is looked at.
            assert!(got == expected || (got == NotAbsolute && expected == Scheme), "{text}: {got}");
        }
    }

    #[test]
    fn no_encoding_leads_upwards() {
        let ups = [
            "..",
            "%2e%2e",
            "%2E.",
            ".%2e",
            "%252e%252e",
            "%25252e.",
            "a%2f..",
            "..%2f",
            "..%2fa",
            "%2e%2e%2f",
            "a%2f%2e%2e%2fb",
            "..%252f",
            "%252e%252e%252f",
            "%2e",
            "%252e",
            "..%5c",
            "..\\",
            "%5c..",
            "..%255c",
            "%c0%ae%2f..",
            "..%00",
            "%2e%2e%00",
            "..%0a",
            "%2e%2e/",
            "..;/..",
            "%u002e/..",
            "....//..",
            "%2f..%2f..",
            "/../",
            "//..//",
        ];
        assert!(ups.len() >= 30);
        for up in ups {
            for path in [format!("/a/{up}"), format!("/a/{up}/etc/passwd")] {
                let text = format!("http://deb.example{path}");
                assert!(text.parse::<Target>().is_err(), "{text}");
            }
        }
    }

    #[test]
    fn others_are_found_from_one() {
        let target: Target = "http://deb.example/debian/dists/sid/InRelease".parse().unwrap();
        let joined = target.join("main/Packages.xz").unwrap();
        assert_eq!(joined.as_str(), "http://deb.example/debian/dists/sid/main/Packages.xz");
        assert_eq!(target.at("/x?y").unwrap().as_str(), "http://deb.example/x?y");
        assert!(target.join("../x").is_err() && target.join("ftp://a/").is_err());
        assert!(target.at("//evil.example/").unwrap().host() == "deb.example");
        assert_eq!(joined.file_name(), "Packages.xz");
    }
}
