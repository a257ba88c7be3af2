//! What `twine upload` sends: a form, `multipart/form-data` (RFC 7578), part by part. Of the file in
//! it, a buffer's length is in memory.

use std::io::{self, Read};

/// The longest delimiter, and the longest head of a part.
const DELIMITER_MAX: usize = 256;
const HEAD_MAX: usize = 16 * 1024;
/// How much is read at once.
const STEP: usize = 64 * 1024;

/// The parts of a form.
pub(super) struct Parts<R> {
    from: R,
    buffer: Vec<u8>,
    is_at_end: bool,
    delimiter: Vec<u8>,
}

impl<R: Read> Parts<R> {
    /// Begins to read a form whose content type is this; `None` where that is of no form.
    pub(super) fn new(from: R, content_type: &str) -> Option<Parts<R>> {
        let (kind, parameters) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameters.split(';').find_map(|one| {
            let (name, value) = one.trim().split_once('=')?;
            name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"'))
        })?;
        if boundary.is_empty() || boundary.len() > DELIMITER_MAX {
            return None;
        }
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter may lack the line's end that begins all others.
        let buffer = b"\r\n".to_vec();
        Some(Parts { from, buffer, is_at_end: false, delimiter })
    }

    /// Returns the name of the next part, whose bytes are then read; `None` after the last.
    ///
    /// # Errors
    /// Where the form breaks off, or its parts have no names.
    pub(super) fn next(&mut self) -> io::Result<Option<Part<'_, R>>> {
        io::copy(&mut Part { form: self, name: String::new(), file: None }, &mut io::sink())?;
        self.fill(self.delimiter.len() + 2)?;
        if !self.buffer.starts_with(&self.delimiter) {
            return Err(broken("it breaks off"));
        }
        self.buffer.drain(..self.delimiter.len());
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            let had = self.buffer.len();
            self.fill(had + STEP)?;
            if had > HEAD_MAX || self.buffer.len() == had {
                return Err(broken("a part has no head"));
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let disposition = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let disposition = disposition.ok_or_else(|| broken("a part has no name"))?;
        let name = parameter(disposition, "name").ok_or_else(|| broken("a part has no name"))?;
        let file = parameter(disposition, "filename");
        Ok(Some(Part { form: self, name, file }))
    }

    /// Reads on until so many bytes are there, or no more come.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.buffer.len() < wanted && !self.is_at_end {
            let had = self.buffer.len();
            self.buffer.resize(had + STEP, 0);
            let read = self.from.read(&mut self.buffer[had..])?;
            self.buffer.truncate(had + read);
            self.is_at_end = read == 0;
        }
        Ok(())
    }
}

/// A part of a form.
pub(super) struct Part<'f, R> {
    form: &'f mut Parts<R>,
    /// What it is called.
    pub(super) name: String,
    /// The name of the file that it is.
    pub(super) file: Option<String>,
}

impl<R: Read> Part<'_, R> {
    /// Reads it as a text of at most so many bytes.
    ///
    /// # Errors
    /// Where it has more, or is no text.
    pub(super) fn text(&mut self, most: u64) -> io::Result<String> {
        let mut text = String::new();
        self.take(most + 1).read_to_string(&mut text)?;
        if text.len() as u64 > most {
            return Err(broken("a part is too long"));
        }
        Ok(text)
    }
}

impl<R: Read> Read for Part<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let form = &mut *self.form;
        let len = form.delimiter.len();
        form.fill(len.max(STEP))?;
        let ready = match find(&form.buffer, &form.delimiter) {
            Some(at) => at,
            // Its last bytes may begin a delimiter.
            None if form.is_at_end => return Err(broken("it breaks off")),
            None => form.buffer.len() - (len - 1),
        };
        let taken = ready.min(to.len());
        to[..taken].copy_from_slice(&form.buffer[..taken]);
        form.buffer.drain(..taken);
        Ok(taken)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == wanted[0]) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn parameter(disposition: &str, name: &str) -> Option<String> {
    disposition.split(';').find_map(|one| {
        let (known, value) = one.trim().split_once('=')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the form makes no sense: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = (String, Option<String>, Vec<u8>);

    fn parts(form: &[u8]) -> io::Result<Vec<Sent>> {
        let kind = "multipart/form-data; charset=x; boundary=\"B\"";
        let mut parts = Parts::new(form, kind).unwrap();
        let mut all = Vec::new();
        while let Some(mut part) = parts.next()? {
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes)?;
            all.push((part.name.clone(), part.file.clone(), bytes));
        }
        Ok(all)
    }

    #[test]
    fn parts_are_read_to_their_ends() {
        let large = [b"\r\n--A\r\r\n-".repeat(30_000), b"\r\n--".to_vec()].concat();
        let mut form = b"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n\
            --B\r\ncontent-disposition: form-data; name=b\r\n\r\n\r\n\
            --B\r\nContent-Disposition: form-data; name=\"content\"; filename=\"x-1.whl\"\r\n\
            Content-Type: a/b\r\n\r\n"
            .to_vec();
        form.extend_from_slice(&large);
        form.extend_from_slice(b"\r\n--B--\r\n");
        let all = parts(&form).unwrap();
        assert_eq!(all[0], ("a".to_owned(), None, b"one".to_vec()));
        assert_eq!(all[1], ("b".to_owned(), None, Vec::new()));
        assert_eq!(all[2].1.as_deref(), Some("x-1.whl"));
        assert!(all[2].2 == large && all.len() == 3);
        // Wherever it is cut, that is an error.
        for end in (0..form.len() - 6).step_by(29_989) {
            assert!(parts(&form[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn what_is_no_form() {
        for kind in ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary="] {
            assert!(Parts::new(&b""[..], kind).is_none(), "{kind}");
        }
        for bad in [
            &b""[..],
            b"--B",
            b"--B\r\n",
            b"--B\r\n\r\nx\r\n--B--",
            b"--B\r\nA: b\r\n\r\nx\r\n--B--",
        ] {
            assert!(parts(bad).is_err());
        }
    }
}
