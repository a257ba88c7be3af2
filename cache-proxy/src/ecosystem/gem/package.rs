//! What a `.gem` says of itself: the specification in its `metadata.gz`, as far as the compact index
//! has it. Pure: whoever sent it is not trusted.
//!
//! A `.gem` is a tar archive; the specification is YAML as Ruby writes it, one key to a line, read
//! by lines and their indentation.

use std::io::{self, Read};

use flate2::read::GzDecoder;

/// The longest specification that is read, unpacked.
const METADATA_MAX: u64 = 4 * 1024 * 1024;
/// How many members of the archive are looked at.
const MEMBERS_MAX: usize = 16;
/// The most dependencies of a gem.
const DEPENDENCIES_MAX: usize = 2000;

/// A gem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its version, with the platform where it has one: `1.0-java`.
    pub(super) version: String,
    /// What it needs at run time, as the compact index says it: `rack:>= 1&< 3,rake:>= 0`.
    pub(super) dependencies: String,
    /// What it needs of Ruby and of RubyGems: `ruby:>= 2.7`, `rubygems:>= 3`.
    pub(super) requirements: Vec<String>,
}

/// What is no gem.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackageError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is no gem: it has no `metadata.gz`")]
    NoMetadata,
    #[error("its specification has no {0} that can be one")]
    Field(&'static str),
}

impl Package {
    /// Reads a `.gem`.
    pub(super) fn read(gem: impl Read) -> Result<Package, PackageError> {
        let packed = metadata(gem)?;
        let mut text = Vec::new();
        GzDecoder::new(packed.as_slice()).take(METADATA_MAX).read_to_end(&mut text)?;
        let text = String::from_utf8(text).map_err(|_| PackageError::Field("text"))?;
        Package::parse(&text)
    }

    /// Reads a specification.
    fn parse(text: &str) -> Result<Package, PackageError> {
        let lines: Vec<Line<'_>> = text.lines().filter_map(Line::of).collect();
        let top = |key: &str| lines.iter().position(|line| line.depth == 0 && line.key == key);
        let below = |at: usize| {
            let count = lines[at + 1..].iter().take_while(|line| line.is_below(&lines[at])).count();
            &lines[at + 1..at + 1 + count]
        };
        let value = |key: &str| top(key).map(|at| lines[at].value);
        let name = value("name").filter(|name| is_name(name)).ok_or(PackageError::Field("name"))?;
        let number = top("version").and_then(|at| version_in(below(at)));
        let mut version = number.ok_or(PackageError::Field("version"))?.to_owned();
        let platform = value("platform").unwrap_or("ruby");
        if platform != "ruby" {
            if !is_name(platform) {
                return Err(PackageError::Field("platform"));
            }
            version = format!("{version}-{platform}");
        }
        let dependencies = match top("dependencies") {
            Some(at) => dependencies(below(at))?,
            None => String::new(),
        };
        let mut requirements = Vec::new();
        for (key, name) in
            [("required_ruby_version", "ruby"), ("required_rubygems_version", "rubygems")]
        {
            let Some(at) = top(key) else { continue };
            let required = requirement(below(at)).ok_or(PackageError::Field(key))?;
            if required != ">= 0" {
                requirements.push(format!("{name}:{required}"));
            }
        }
        Ok(Package { name: name.to_owned(), version, dependencies, requirements })
    }

    /// Returns its file name.
    pub(super) fn file(&self) -> String {
        format!("{}-{}.gem", self.name, self.version)
    }
}

/// A line of YAML: `- ` begins a thing that is as deep as what follows it.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    depth: usize,
    is_item: bool,
    key: &'a str,
    value: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Line<'a>> {
        let text = line.trim_start_matches(' ');
        let depth = line.len() - text.len();
        let is_item = text.starts_with("- ");
        let bare = text.trim_start_matches("- ");
        if bare.is_empty() || bare.starts_with("---") {
            return None;
        }
        let (key, value) = match bare.split_once(':') {
            Some((key, value)) if is_word(key) => (key, value),
            _ => ("", bare),
        };
        Some(Line { depth, is_item, key, value: unquoted(value.trim()) })
    }

    /// Says whether it belongs to a key: deeper, or an item as deep as the key.
    fn is_below(&self, key: &Line<'_>) -> bool {
        self.depth > key.depth || (self.depth == key.depth && self.is_item && !key.is_item)
    }
}

/// Reads the dependencies that matter at run time.
fn dependencies(lines: &[Line<'_>]) -> Result<String, PackageError> {
    let broken = PackageError::Field("dependency");
    let mut found: Vec<String> = Vec::new();
    let depth = lines.first().map_or(0, |line| line.depth);
    let starts = lines.iter().enumerate().filter(|(_, line)| line.depth == depth && line.is_item);
    let mut starts: Vec<usize> = starts.map(|(at, _)| at).collect();
    if starts.len() > DEPENDENCIES_MAX {
        return Err(broken);
    }
    starts.push(lines.len());
    for pair in starts.windows(2) {
        let item = &lines[pair[0]..pair[1]];
        let at =
            |key: &str| item.iter().position(|line| line.key == key && line.depth == depth + 2);
        let is_runtime = at("type").is_none_or(|at| item[at].value == ":runtime");
        if !is_runtime {
            continue;
        }
        let name = at("name").map(|at| item[at].value).filter(|name| is_name(name));
        let required = at("requirement").and_then(|at| {
            let below = item[at + 1..].iter().take_while(|line| line.depth > depth + 2).count();
            requirement(&item[at + 1..at + 1 + below])
        });
        match (name, required) {
            (Some(name), Some(required)) => found.push(format!("{name}:{required}")),
            _ => return Err(PackageError::Field("dependency")),
        }
    }
    found.sort();
    Ok(found.join(","))
}

/// Reads a requirement: `- - ">="` and, below it, `version: '1'`, once or more.
fn requirement(lines: &[Line<'_>]) -> Option<String> {
    const SIGNS: [&str; 7] = ["=", "!=", ">", "<", ">=", "<=", "~>"];
    let mut parts = Vec::new();
    let mut sign = None;
    for line in lines {
        if line.is_item && line.key.is_empty() && SIGNS.contains(&line.value) {
            sign = Some(line.value);
        }
        if line.key == "version"
            && let Some(sign) = sign.take()
        {
            is_version(line.value).then_some(())?;
            parts.push(format!("{sign} {}", line.value));
        }
    }
    // What was written once is named the second time (`*id001`): that is what everybody takes.
    if parts.is_empty() { Some(">= 0".to_owned()) } else { Some(parts.join("&")) }
}

fn version_in<'a>(lines: &[Line<'a>]) -> Option<&'a str> {
    let line = lines.iter().find(|line| line.key == "version")?;
    is_version(line.value).then_some(line.value)
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
    begins && text.len() <= 128 && text.bytes().all(plain)
}

fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    let begins = text.starts_with(|first: char| first.is_ascii_digit());
    begins && text.len() <= 128 && text.bytes().all(plain)
}

/// Returns `metadata.gz` of a `.gem`.
fn metadata(mut gem: impl Read) -> Result<Vec<u8>, PackageError> {
    for _ in 0..MEMBERS_MAX {
        let mut head = [0; 512];
        gem.read_exact(&mut head).map_err(|_| PackageError::NoMetadata)?;
        let text = |from: usize, to: usize| {
            let bytes = head[from..to].split(|byte| *byte == 0).next().unwrap_or_default();
            std::str::from_utf8(bytes).unwrap_or_default().trim()
        };
        let size = u64::from_str_radix(text(124, 136), 8).map_err(|_| PackageError::NoMetadata)?;
        if text(0, 100) == "metadata.gz" {
            let mut bytes = Vec::new();
            gem.take(size.min(METADATA_MAX)).read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        let padded = size.div_ceil(512).saturating_mul(512);
        io::copy(&mut (&mut gem).take(padded), &mut io::sink())?;
    }
    Err(PackageError::NoMetadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIFICATION: &str = r#"--- !ruby/object:Gem::Specification
name: acme-tools
version: !ruby/object:Gem::Version
  version: '1.0'
platform: java
authors:
- x
dependencies:
- !ruby/object:Gem::Dependency
  name: rack
  requirement: !ruby/object:Gem::Requirement
    requirements:
    - - ">="
      - !ruby/object:Gem::Version
        version: '1.0'
    - - "<"
      - !ruby/object:Gem::Version
        version: '3'
  type: :runtime
  prerelease: false
  version_requirements: !ruby/object:Gem::Requirement
    requirements:
    - - ">="
      - !ruby/object:Gem::Version
        version: '1.0'
- !ruby/object:Gem::Dependency
  name: rspec
  requirement: &id001 !ruby/object:Gem::Requirement
    requirements:
    - - "~>"
      - !ruby/object:Gem::Version
        version: '3.0'
  type: :development
  prerelease: false
description: |
  name: evil
  version: 9
required_ruby_version: !ruby/object:Gem::Requirement
  requirements:
  - - ">="
    - !ruby/object:Gem::Version
      version: '2.7'
required_rubygems_version: !ruby/object:Gem::Requirement
  requirements:
  - - ">="
    - !ruby/object:Gem::Version
      version: '0'
"#;

    #[test]
    fn a_specification_is_read() {
        let package = Package::parse(SPECIFICATION).unwrap();
        assert_eq!(package.file(), "acme-tools-1.0-java.gem");
        assert_eq!(package.dependencies, "rack:>= 1.0&< 3");
        assert_eq!(package.requirements, ["ruby:>= 2.7"]);
    }

    #[test]
    fn what_is_no_gem() {
        for bad in [
            SPECIFICATION.replace("acme-tools", "../evil"),
            SPECIFICATION.replace("acme-tools", "a b"),
            SPECIFICATION.replace("version: '1.0'\nplatform", "version: '1,0'\nplatform"),
            SPECIFICATION.replace("name: rack", "name: 'rack|checksum:0'"),
            SPECIFICATION.replace("platform: java", "platform: a/b"),
            String::new(),
        ] {
            assert!(Package::parse(&bad).is_err(), "{bad}");
        }
        assert!(Package::read([0; 5000].as_slice()).is_err());
        assert!(Package::read(b"short".as_slice()).is_err());
        let mut endless = [0; 512];
        endless[..11].copy_from_slice(b"metadata.gz");
        endless[124..135].copy_from_slice(b"77777777777");
        assert!(Package::read(endless.as_slice()).is_err());
    }
}
