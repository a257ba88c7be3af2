//! Heads of requests, read strictly.
//!
//! Pure functions over slices. What two readers could understand differently is refused, for the
//! one behind us may be the other reader: a request that only one of them sees is smuggled.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The most bytes of a head.
pub const HEAD_MAX: usize = 64 * 1024;
/// The most headers.
const HEADERS_MAX: usize = 128;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// What the request line has for a target.
    pub target: String,
    /// Whether it is HTTP/1.1; otherwise it is HTTP/1.0.
    pub is_11: bool,
    /// All headers.
    pub headers: HeaderMap,
    /// What follows.
    pub length: Length,
}

/// How long the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    None,
    /// So many bytes.
    Known(u64),
    /// Its chunks say.
    Chunked,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It does not end.
    #[error("the head has more than {HEAD_MAX} bytes, or {HEADERS_MAX} headers")]
    TooLong,
    /// A line that ends in another way than CR LF, or a CR within one.
    #[error("a line does not end in CR LF")]
    LineEnd,
    /// The request line is none.
    #[error("the request line is not `METHOD target HTTP/1.1`")]
    RequestLine,
    /// Another version of HTTP.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// A line that is no header.
    #[error("a header's name or value has a character that does not belong there")]
    Header,
    /// There is no `Host`, or several.
    #[error("there must be one Host header")]
    Host,
    /// Its length can be understood in two ways.
    #[error("the length of the body is not clear")]
    Framing,
}

/// Reads the head at the front of some bytes, and how long it is; `None` where more must come.
///
/// # Errors
/// Why it is none, and never will be.
pub fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    // > "a server that is expecting to receive and parse a request-line SHOULD ignore at least one
    // > empty line (CRLF) received prior to the request-line" (RFC 9112, section 2.2)
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let bytes = &bytes[skipped..];
    let end = bytes.windows(4).take(HEAD_MAX).position(|window| window == b"\r\n\r\n");
    let looked = &bytes[..end.map_or(bytes.len(), |end| end + 2).min(HEAD_MAX)];
    check_line_ends(looked, end.is_some())?;
    let Some(end) = end else {
        return if bytes.len() >= HEAD_MAX { Err(HeadError::TooLong) } else { Ok(None) };
    };
    let mut lines = bytes[..end]
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (method, target, is_11) = request_line(lines.next().unwrap_or_default())?;
    let mut headers = HeaderMap::new();
    for (count, line) in lines.enumerate() {
        if count >= HEADERS_MAX {
            return Err(HeadError::TooLong);
        }
        let (name, value) = header(line)?;
        headers.append(name, value);
    }
    let hosts = headers.get_all(HOST).iter().count();
    // > "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a
    // > Host header field and to any request message that contains more than one" (RFC 9112, 3.2)
    if hosts > 1 || (is_11 && hosts == 0) {
        return Err(HeadError::Host);
    }
    let length = length(&headers, is_11)?;
    Ok(Some((Head { method, target, is_11, headers, length }, skipped + end + 4)))
}

/// Checks that LF comes behind CR, and CR before LF, and that there is no NUL.
fn check_line_ends(bytes: &[u8], whole: bool) -> Result<(), HeadError> {
    for (at, byte) in bytes.iter().enumerate() {
        let fine = match byte {
            b'\n' => at > 0 && bytes[at - 1] == b'\r',
            b'\r' => bytes.get(at + 1).map_or(!whole, |next| *next == b'\n'),
            0 => false,
            _ => true,
        };
        if !fine {
            return Err(HeadError::LineEnd);
        }
    }
    Ok(())
}

fn request_line(line: &[u8]) -> Result<(Method, String, bool), HeadError> {
    let line = std::str::from_utf8(line).map_err(|_| HeadError::RequestLine)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadError::RequestLine);
    };
    if target.is_empty() || !target.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err(HeadError::RequestLine);
    }
    let is_token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| is_token);
    let method = method.ok_or(HeadError::RequestLine)?;
    match version {
        "HTTP/1.1" => Ok((method, target.to_owned(), true)),
        "HTTP/1.0" => Ok((method, target.to_owned(), false)),
        _ => Err(HeadError::Version),
    }
}

/// Reads a header. A line that goes on with the one before it (obs-fold) begins with a space, which
/// no name does; nor is there one between name and colon.
fn header(line: &[u8]) -> Result<(HeaderName, HeaderValue), HeadError> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(HeadError::Header)?;
    let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| HeadError::Header)?;
    let value = line[colon + 1..].trim_ascii();
    let value = HeaderValue::from_bytes(value).map_err(|_| HeadError::Header)?;
    Ok((name, value))
}

/// > "If a message is received with both a Transfer-Encoding and a Content-Length header field, [...]
/// > Such a message might indicate an attempt to perform request smuggling" (RFC 9112, section 6.3)
fn length(headers: &HeaderMap, is_11: bool) -> Result<Length, HeadError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), lengths.next(), encodings.next(), encodings.next()) {
        (None, _, None, _) => Ok(Length::None),
        (Some(length), None, None, _) => {
            let digits = length.as_bytes();
            let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let number = length.to_str().ok().filter(|_| plain).and_then(|text| text.parse().ok());
            match number.ok_or(HeadError::Framing)? {
                0 => Ok(Length::None),
                number => Ok(Length::Known(number)),
            }
        }
        (None, _, Some(encoding), None) if is_11 && encoding.as_bytes() == b"chunked" => {
            Ok(Length::Chunked)
        }
        _ => Err(HeadError::Framing),
    }
}

/// Reads the size of a chunk from its line; `None` where that makes no sense. Extensions are
/// passed over.
pub fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_request_and_no_more() {
        let bytes = b"\r\nGET http://a.example/x HTTP/1.1\r\nHost:  b \r\nX-Y:\r\n\r\nGET /";
        let (head, len) = head(bytes).unwrap().unwrap();
        assert_eq!(
            (head.method, head.target.as_str(), head.is_11),
            (Method::GET, "http://a.example/x", true)
        );
        assert_eq!(head.headers[HOST], "b");
        assert_eq!(&bytes[len..], b"GET /");
        for part in 0..bytes.len() - 6 {
            assert_eq!(super::head(&bytes[..part]), Ok(None), "{part}");
        }
    }

    #[test]
    fn what_could_be_understood_twice_is_refused() {
        use HeadError::{Framing, Header, Host, LineEnd, RequestLine, Version};
        let get = "GET / HTTP/1.1\r\nHost: a\r\n";
        let post = "POST / HTTP/1.1\r\nHost: a\r\n";
        let table = [
            (format!("{post}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), Framing),
            (format!("{post}Content-Length: 1\r\nContent-Length: 1\r\n\r\n"), Framing),
            (format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), Framing),
            (format!("{post}Content-Length: 1, 1\r\n\r\n"), Framing),
            (format!("{post}Content-Length: +1\r\n\r\n"), Framing),
            (format!("{post}Content-Length: -1\r\n\r\n"), Framing),
            (format!("{post}Content-Length: 0x1\r\n\r\n"), Framing),
            (format!("{post}Content-Length: 99999999999999999999\r\n\r\n"), Framing),
            (format!("{post}Content-Length:\r\n\r\n"), Framing),
            (format!("{post}Transfer-Encoding: xchunked\r\n\r\n"), Framing),
            (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"), Framing),
            (format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n"), Framing),
            (format!("{post}Transfer-Encoding: Chunked\r\n\r\n"), Framing),
            (format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"), Framing),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Framing),
            (format!("{post}Transfer-Encoding : chunked\r\n\r\n"), Header),
            (format!("{post}Content-Length : 1\r\n\r\n"), Header),
            (format!("{post} Content-Length: 1\r\n\r\n"), Header),
            (format!("{get}X: a\r\n b\r\n\r\n"), Header),
            (format!("{get}X: a\r\n\tb: c\r\n\r\n"), Header),
            (format!("{get}no colon\r\n\r\n"), Header),
            (format!("{get}: x\r\n\r\n"), Header),
            (format!("{get}X(: x\r\n\r\n"), Header),
            (format!("{get}X\u{7f}: x\r\n\r\n"), Header),
            (format!("{get}X: a\u{1}b\r\n\r\n"), Header),
            (format!("{get}X: a\nY: b\r\n\r\n"), LineEnd),
            (format!("{get}X: a\rY: b\r\n\r\n"), LineEnd),
            (format!("{get}X: a\0b\r\n\r\n"), LineEnd),
            ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), LineEnd),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), Host),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), Host),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), RequestLine),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(), RequestLine),
            ("GET /\r\nHost: a\r\n\r\n".to_owned(), RequestLine),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), RequestLine),
            ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), RequestLine),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), RequestLine),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), Version),
            ("GET / http/1.1\r\nHost: a\r\n\r\n".to_owned(), Version),
        ];
        for (text, expected) in table {
            assert_eq!(head(text.as_bytes()), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn heads_have_an_end() {
        let long = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &vec![b'a'; HEAD_MAX]].concat();
        assert_eq!(head(&long), Err(HeadError::TooLong));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX));
        assert_eq!(head(many.as_bytes()), Err(HeadError::TooLong));
    }

    #[test]
    fn chunks_have_sizes() {
        for (line, size) in [("0", Some(0)), ("1f;x=y", Some(31)), ("A ", Some(10))] {
            assert_eq!(chunk_size(line.as_bytes()), size, "{line}");
        }
        for bad in ["", ";", "-1", "0x1", " 1", "g", "fffffffffffffffff"] {
            assert_eq!(chunk_size(bad.as_bytes()), None, "{bad}");
        }
    }
}
