//! Ruby's Marshal format, as far as the description of a gem needs it: `gem install` asks for that of
//! the version that it has chosen, and reads nothing but its name, version and dependencies.
//!
//! ```text
//! 04 08                          the format's version, 4.8
//! "<length><bytes>               a string;  :<length><bytes>  a symbol
//! [<count>...                    an array;  i<number>  0 nil  T true  F false
//! U<symbol><value>               an object by what its `marshal_dump` gave
//! u<symbol><length><bytes>       one by what its `_dump` gave
//! o<symbol><count>(<symbol><value>)...   one by its variables
//! ```

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// The version of specifications that is written; it has 18 fields.
const SPECIFICATION_VERSION: i32 = 4;

/// Returns the description of a gem (`.gemspec.rz`), from the forms that the compact index has:
/// version and platform, `rack:>= 1&< 3,rake:>= 0`, `ruby:>= 2.7`.
pub(super) fn description(
    name: &str,
    (number, platform): (&str, &str),
    dependencies: &str,
    requirements: &str,
) -> io::Result<Vec<u8>> {
    let required = |of: &str| {
        let words = requirements.split(',').filter_map(|word| word.split_once(':'));
        let found = words.filter(|(name, _)| *name == of).map(|(_, required)| required).next();
        found.unwrap_or(">= 0").to_owned()
    };
    let mut fields = Writer::default();
    fields.bytes.extend([4, 8]);
    fields.array(18);
    fields.string("3.0.0");
    fields.fixnum(SPECIFICATION_VERSION);
    fields.string(name);
    fields.version(number);
    fields.string("2020-01-01");
    fields.string("");
    fields.requirement(&required("ruby"));
    fields.requirement(&required("rubygems"));
    fields.string(platform);
    let needed: Vec<(&str, &str)> =
        dependencies.split(',').filter_map(|word| word.split_once(':')).collect();
    fields.array(needed.len());
    for (name, required) in needed {
        fields.dependency(name, required);
    }
    // What RubyForge had, e-mail, authors, description, homepage, documentation, platform, licences.
    fields.string("");
    fields.nil();
    fields.array(0);
    fields.nil();
    fields.nil();
    fields.bytes.push(b'T');
    fields.string(platform);
    fields.array(0);
    let mut whole = Writer { bytes: vec![4, 8, b'u'] };
    whole.symbol("Gem::Specification");
    whole.length(fields.bytes.len());
    whole.bytes.extend(fields.bytes);
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&whole.bytes)?;
    packed.finish()
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn nil(&mut self) {
        self.bytes.push(b'0');
    }

    fn fixnum(&mut self, number: i32) {
        self.bytes.push(b'i');
        self.number(number);
    }

    /// Writes a number: small ones in a byte, others after the count of their bytes.
    fn number(&mut self, number: i32) {
        match u8::try_from(number) {
            Ok(0) => self.bytes.push(0),
            Ok(small @ 1..=122) => self.bytes.push(small + 5),
            _ => {
                let bytes = number.to_le_bytes();
                let count = 4 - bytes.iter().rev().take_while(|byte| **byte == 0).count();
                self.bytes.push(u8::try_from(count).unwrap_or(4));
                self.bytes.extend(&bytes[..count]);
            }
        }
    }

    fn length(&mut self, length: usize) {
        self.number(i32::try_from(length).unwrap_or(i32::MAX));
    }

    /// Writes a string in UTF-8, which its variable `E` says.
    fn string(&mut self, text: &str) {
        self.bytes.extend(b"I\"");
        self.length(text.len());
        self.bytes.extend(text.as_bytes());
        self.number(1);
        self.symbol("E");
        self.bytes.push(b'T');
    }

    fn symbol(&mut self, name: &str) {
        self.bytes.push(b':');
        self.length(name.len());
        self.bytes.extend(name.as_bytes());
    }

    fn array(&mut self, count: usize) {
        self.bytes.push(b'[');
        self.length(count);
    }

    fn version(&mut self, number: &str) {
        self.bytes.push(b'U');
        self.symbol("Gem::Version");
        self.array(1);
        self.string(number);
    }

    /// Writes a requirement: `>= 1&< 3`.
    fn requirement(&mut self, text: &str) {
        self.bytes.push(b'U');
        self.symbol("Gem::Requirement");
        self.array(1);
        let parts: Vec<(&str, &str)> =
            text.split('&').filter_map(|part| part.split_once(' ')).collect();
        self.array(parts.len());
        for (sign, number) in parts {
            self.array(2);
            self.string(sign);
            self.version(number);
        }
    }

    fn dependency(&mut self, name: &str, required: &str) {
        self.bytes.push(b'o');
        self.symbol("Gem::Dependency");
        self.number(4);
        self.symbol("@name");
        self.string(name);
        self.symbol("@requirement");
        self.requirement(required);
        self.symbol("@type");
        self.symbol("runtime");
        self.symbol("@prerelease");
        self.bytes.push(b'F');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_ruby_writes_them() {
        let of = |number| {
            let mut writer = Writer::default();
            writer.number(number);
            writer.bytes
        };
        assert_eq!(of(0), [0]);
        assert_eq!(of(1), [6]);
        assert_eq!(of(122), [127]);
        assert_eq!(of(123), [1, 123]);
        assert_eq!(of(256), [2, 0, 1]);
        assert_eq!(of(65_536), [3, 0, 0, 1]);
    }
}
