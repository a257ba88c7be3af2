//! Addresses of Git repositories, as ADD and contexts have them.
//!
//! ```text
//! https://git.example/team/app.git#v1.0:docs        reference and directory
//! git@git.example:team/app.git#main                 the same by ssh
//! https://git.example/app.git?branch=main&subdir=docs&checksum=<commit>
//! ```
//!
//! What is no address of a repository is `None`, not an error: it may be a file.

use std::fmt;

/// A repository, and what of it.
///
/// - The remote, the reference and the directory never begin with `-`: git would take them for
///   options.
/// - The remote is of https, http, ssh or git, and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct GitAddress {
    remote: String,
    reference: Option<String>,
    checksum: Option<String>,
    subdirectory: Option<String>,
    keep_git_dir: Option<bool>,
    submodules: bool,
    is_of_user: bool,
}

/// Why an address of a repository cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitAddressError {
    /// A key of the query.
    #[error(
        "`{0}` in the address of a Git repository means nothing: ref, branch, tag, subdir, checksum, commit, keep-git-dir and submodules do"
    )]
    Key(String),
    /// A key without a value, or with one that it cannot have.
    #[error("`{key}={value}` in the address of a Git repository makes no sense")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Two parts say different things.
    #[error("the address of a Git repository says both {what} `{one}` and `{other}`")]
    Conflict {
        /// What they are about.
        what: &'static str,
        /// One.
        one: String,
        /// The other.
        other: String,
    },
    /// Something that git would take for an option, or that leads out.
    #[error("`{0}` cannot be a part of the address of a Git repository")]
    Unsafe(String),
}

impl GitAddress {
    /// Reads a source of ADD.
    ///
    /// # Errors
    /// Where it is an address of a repository, but one that cannot be right.
    pub fn parse(text: &str) -> Result<Option<GitAddress>, GitAddressError> {
        let (whole, fragment) = text.split_once('#').map_or((text, ""), |(a, b)| (a, b));
        let (remote, query) = whole.split_once('?').map_or((whole, ""), |(a, b)| (a, b));
        let scheme = remote.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_repository = match scheme.as_deref() {
            Some("http" | "https") => {
                let path = remote.split_once("://").map_or("", |(_, rest)| rest);
                path.contains('/') && path.ends_with(".git")
            }
            Some("ssh" | "git") => true,
            Some(_) => false,
            None => is_scp(remote),
        };
        if !is_repository {
            return Ok(None);
        }
        let mut address = GitAddress {
            remote: remote.to_owned(),
            reference: None,
            checksum: None,
            subdirectory: None,
            keep_git_dir: None,
            submodules: true,
            is_of_user: false,
        };
        address.read_fragment(fragment)?;
        address.read_query(query)?;
        address.check()?;
        Ok(Some(address))
    }

    /// Reads a context, which may also be `github.com/team/app`. It is whoever runs the build that
    /// names it, not a Dockerfile.
    ///
    /// # Errors
    /// As for [`GitAddress::parse`].
    pub fn parse_context(text: &str) -> Result<Option<GitAddress>, GitAddressError> {
        let of_user = |parsed: Option<GitAddress>| {
            parsed.map(|address| GitAddress { is_of_user: true, ..address })
        };
        if !text.starts_with("github.com/") {
            return GitAddress::parse(text).map(of_user);
        }
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let (path, rest) = text.split_at(end);
        let path = path.trim_end_matches('/');
        let suffix = if path.ends_with(".git") { "" } else { ".git" };
        GitAddress::parse(&format!("https://{path}{suffix}{rest}")).map(of_user)
    }

    /// Says whether whoever runs the build gave it: then their own keys may be used.
    pub fn is_of_user(&self) -> bool {
        self.is_of_user
    }

    /// Returns where the repository is.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Returns the branch, tag or commit that is wanted; without one it is what `HEAD` means.
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// Returns how the commit's id begins, if that was promised.
    pub fn checksum(&self) -> Option<&str> {
        self.checksum.as_deref()
    }

    /// Returns the directory that is wanted, without a slash at either end; none is all.
    pub fn subdirectory(&self) -> Option<&str> {
        self.subdirectory.as_deref()
    }

    /// Returns whether `.git` is wanted, if the address says.
    pub fn keep_git_dir(&self) -> Option<bool> {
        self.keep_git_dir
    }

    /// Says whether `.git` is wanted.
    pub fn set_keep_git_dir(&mut self, keep: bool) {
        self.keep_git_dir = Some(keep);
    }

    /// Returns whether the repositories within it are wanted.
    pub fn submodules(&self) -> bool {
        self.submodules
    }

    /// Returns the same address with a promise.
    ///
    /// # Errors
    /// Where it has another one, or this is none.
    pub fn with_checksum(mut self, checksum: &str) -> Result<GitAddress, GitAddressError> {
        set("checksum", &mut self.checksum, checksum)?;
        self.reference.get_or_insert_with(|| checksum.to_owned());
        self.check()?;
        Ok(self)
    }

    /// `ref:subdir`; with a second `#`, `ref=...,subdir=...,commit=...`.
    fn read_fragment(&mut self, fragment: &str) -> Result<(), GitAddressError> {
        if let Some(fields) = fragment.strip_prefix('#') {
            for field in fields.split(',').filter(|field| !field.is_empty()) {
                let (key, value) = field.split_once('=').unwrap_or((field, ""));
                let key = key.to_ascii_lowercase();
                match key.as_str() {
                    "ref" | "subdir" | "commit" => self.set(&key, value)?,
                    _ => return Err(GitAddressError::Key(key)),
                }
            }
            return self.default_reference();
        }
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        self.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
        self.subdirectory = Some(subdirectory.to_owned()).filter(|text| !text.is_empty());
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitAddressError> {
        let mut seen: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (unescape(key)?, unescape(value)?);
            if seen.contains(&key) {
                return Err(GitAddressError::Value { key, value });
            }
            self.set(&key, &value)?;
            seen.push(key);
        }
        self.default_reference()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), GitAddressError> {
        let wrong = || GitAddressError::Value { key: key.to_owned(), value: value.to_owned() };
        let switch = || match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(wrong()),
        };
        let below = |directory: &str| match value.starts_with(directory) {
            true => value.to_owned(),
            false => format!("{directory}{value}"),
        };
        if value.is_empty() && !matches!(key, "keep-git-dir" | "submodules") {
            return Err(match key {
                "ref" | "branch" | "tag" | "subdir" | "checksum" | "commit" => wrong(),
                _ => GitAddressError::Key(key.to_owned()),
            });
        }
        match key {
            "ref" => set("the reference", &mut self.reference, value),
            "branch" => set("the reference", &mut self.reference, &below("refs/heads/")),
            "tag" => set("the reference", &mut self.reference, &below("refs/tags/")),
            "subdir" => set("the directory", &mut self.subdirectory, value),
            "checksum" | "commit" => set("the commit", &mut self.checksum, value),
            "keep-git-dir" => {
                self.keep_git_dir = Some(switch()?);
                Ok(())
            }
            "submodules" => {
                self.submodules = switch()?;
                Ok(())
            }
            _ => Err(GitAddressError::Key(key.to_owned())),
        }
    }

    fn default_reference(&mut self) -> Result<(), GitAddressError> {
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    /// Refuses what git would not take for what it is.
    fn check(&mut self) -> Result<(), GitAddressError> {
        let refuse = |text: &str| Err(GitAddressError::Unsafe(text.to_owned()));
        let is_odd =
            |text: &str| text.starts_with('-') || text.bytes().any(|byte| byte.is_ascii_control());
        let host = self.remote.split_once("://").map_or(self.remote.as_str(), |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if is_odd(&self.remote) || is_odd(host) || host.is_empty() {
            return refuse(&self.remote);
        }
        if let Some(reference) = &self.reference
            && (is_odd(reference)
                || reference.contains("..")
                || reference.contains([' ', '~', '^', ':', '?', '*', '[', '\\']))
        {
            return refuse(reference);
        }
        if let Some(checksum) = &self.checksum {
            let is_hex = checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_hex || !(7..=64).contains(&checksum.len()) {
                return refuse(checksum);
            }
            self.checksum = Some(checksum.to_ascii_lowercase());
        }
        if let Some(subdirectory) = &self.subdirectory {
            let parts: Vec<&str> =
                subdirectory.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
            if parts.contains(&"..") || is_odd(subdirectory) {
                return refuse(subdirectory);
            }
            self.subdirectory = Some(parts.join("/")).filter(|text| !text.is_empty());
        }
        Ok(())
    }
}

fn set(what: &'static str, slot: &mut Option<String>, value: &str) -> Result<(), GitAddressError> {
    match slot {
        Some(one) if one != value => {
            let (one, other) = (one.clone(), value.to_owned());
            Err(GitAddressError::Conflict { what, one, other })
        }
        _ => {
            *slot = Some(value.to_owned());
            Ok(())
        }
    }
}

/// Says whether a text is `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((account, path)) = text.split_once(':') else { return false };
    let Some((user, host)) = account.split_once('@') else { return false };
    let is_plain = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        !text.is_empty() && text.chars().all(plain)
    };
    is_plain(user) && is_plain(host) && !path.is_empty()
}

fn unescape(text: &str) -> Result<String, GitAddressError> {
    let refuse = || GitAddressError::Unsafe(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(refuse)
                };
                u8::try_from(digit()? * 16 + digit()?).map_err(|_| refuse())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| refuse())
}

impl fmt::Debug for GitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitAddress({self})")
    }
}

impl fmt::Display for GitAddress {
    /// Writes the remote without a user's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.remote.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), self.remote.as_str()),
        };
        let (account, place) = rest.split_once('/').unwrap_or((rest, ""));
        let account = match account.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => host,
            _ => account,
        };
        let slash = if rest.contains('/') { "/" } else { "" };
        write!(f, "{scheme}{account}{slash}{place}")?;
        match (&self.reference, &self.subdirectory) {
            (None, None) => Ok(()),
            (reference, None) => write!(f, "#{}", reference.as_deref().unwrap_or_default()),
            (reference, Some(subdirectory)) => {
                write!(f, "#{}:{subdirectory}", reference.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests;
