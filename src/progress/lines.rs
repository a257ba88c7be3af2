//! Cuts the bytes of one stream into lines.
//!
//! A line ends with `\n` or `\r\n`. After a lone `\r` the cursor would stand at the line's
//! beginning, and what follows would be written over it: so it replaces the line, as the many
//! states of a progress bar do. The last one stays.

use super::text::whole_chars;

/// The longest line, in bytes: a longer one is cut, so that memory does not grow with it.
pub const LINE_MAX: usize = 8 * 1024;

/// Cuts one stream into lines.
#[derive(Debug, Default)]
pub struct LineCutter {
    line: Vec<u8>,
    /// The line ended by `\r`, so far.
    returned: bool,
}

impl LineCutter {
    /// Takes bytes and gives each line that they end, without its end.
    pub fn push(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&bytes[..at], each);
            if bytes[at] == b'\n' {
                each(&self.line);
                self.line.clear();
                self.returned = false;
            } else {
                self.returned = true;
            }
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes, each);
    }

    /// Gives the last line, if it has no end.
    pub fn close(&mut self, each: &mut dyn FnMut(&[u8])) {
        if !self.line.is_empty() {
            each(&self.line);
        }
        *self = LineCutter::default();
    }

    /// Returns the line that has no end yet.
    pub fn pending(&self) -> &[u8] {
        &self.line
    }

    /// Adds text that ends no line, unless the line gets too long.
    fn extend(&mut self, mut text: &[u8], each: &mut dyn FnMut(&[u8])) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.returned) {
            self.line.clear();
        }
        while self.line.len() + text.len() > LINE_MAX {
            let (now, later) = text.split_at(LINE_MAX - self.line.len());
            self.line.extend_from_slice(now);
            let cut = whole_chars(&self.line);
            each(&self.line[..cut]);
            self.line.drain(..cut);
            text = later;
        }
        self.line.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines of a stream that comes in these pieces.
    fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut cutter = LineCutter::default();
        for piece in pieces {
            cutter.push(piece, &mut |line| lines.push(line.to_vec()));
        }
        cutter.close(&mut |line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn cuts_lines() {
        let table: &[(&[u8], &[&str])] = &[
            (b"", &[]),
            (b"\n", &[""]),
            (b"a\nb\n", &["a", "b"]),
            (b"a\n\nb", &["a", "", "b"]),
            (b"a\r\nb\r\n", &["a", "b"]),
            (b" 1%\r 50%\r100%\n", &["100%"]),
            (b"\r 1%\r 50%\r100%", &["100%"]),
            (b" 1%\r 50%\r", &[" 50%"]),
            (b" 1%\r\r\rdone\r\r\n", &["done"]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected.iter().map(|line| line.as_bytes().to_vec()).collect();
            assert_eq!(cut(&[text]), expected, "{text:?} at once");
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(cut(&bytes), expected, "{text:?} byte by byte");
        }
    }

    #[test]
    fn cuts_a_line_without_end_between_characters() {
        let text = "x".to_owned() + &"é".repeat(LINE_MAX);
        let lines = cut(&[text.as_bytes()]);
        assert!(lines.iter().all(|line| line.len() <= LINE_MAX && !line.is_empty()));
        assert!(lines.iter().all(|line| std::str::from_utf8(line).is_ok()));
        assert_eq!(lines.concat(), text.as_bytes());
    }

    #[test]
    fn bytes_that_are_no_text_are_lines_too() {
        let bytes = vec![0xff; 3 * LINE_MAX + 7];
        assert_eq!(cut(&[&bytes]).concat(), bytes);
    }
}
