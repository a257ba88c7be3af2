//! What ADD takes from elsewhere: files of URLs, and Git repositories.
//!
//! Before anything is looked up, a URL is its file, whose content is known without reading it if
//! it was fetched before, and a repository is a commit. Only if no earlier build added the same is
//! a commit checked out.

use std::path::Path;

use super::files::{Files, Words};
use super::{Step, StepResult};
use crate::base::Say;
use crate::build::StepFailure;
use crate::cache::{Key, Parts};
use crate::context::directory::Directory;
use crate::context::stat_cache::StatCache;
use crate::copy::Source;
use crate::dockerfile::Span;
use crate::progress::StepId;
use crate::source::git::GitAddress;
use crate::source::{Checksum, Fetch, FetchError, FetchedFile};

/// The name of a file whose URL has none.
const UNNAMED: &str = "__unnamed__";

/// A source that is elsewhere, as the Dockerfile says it.
pub(super) struct RemoteWord {
    pub(super) span: Span,
    pub(super) what: What,
}

/// What a remote source is.
pub(super) enum What {
    Url { url: String, checksum: Option<Checksum> },
    Repository { address: GitAddress, keep_git_dir: bool },
}

/// A source that is elsewhere, as far as it is known before it is read.
pub(super) enum Remote {
    File { url: String, name: String, file: FetchedFile },
    Commit(Commit),
}

/// A commit that is to be added.
pub(super) struct Commit {
    span: Span,
    address: GitAddress,
    id: String,
    keep_git_dir: bool,
}

/// The files of a commit, for as long as the step lasts.
pub(super) struct Checkout {
    directory: Directory,
    known: StatCache,
}

impl Remote {
    /// Returns what it is called.
    pub(super) fn name(&self) -> String {
        match self {
            Remote::File { url, .. } => without_secrets(url),
            Remote::Commit(commit) => commit.address.to_string(),
        }
    }
}

impl Checkout {
    /// Returns the files.
    pub(super) fn source(&self) -> Source<'_> {
        Source::Context { directory: &self.directory, known: &self.known }
    }
}

impl Step<'_> {
    /// Reads a source of ADD; `None` for a path of the context.
    pub(super) fn remote_word(
        &self,
        files: &Files<'_>,
        checksum: Option<&str>,
        text: &str,
        span: Span,
    ) -> StepResult<Option<RemoteWord>> {
        let wrong = |error: FetchError| {
            StepFailure::new(self.error("cannot use this source", span)).because(error)
        };
        let address = GitAddress::parse(text).map_err(|error| wrong(error.into()))?;
        let is_url = text.starts_with("http://") || text.starts_with("https://");
        if address.is_none() && !is_url {
            return Ok(None);
        }
        if !files.may_be_remote {
            let mut problem = self.error("COPY takes files from the build context only", span);
            problem.hint = Some("ADD takes them from URLs and Git repositories".to_owned());
            return Err(StepFailure::new(problem));
        }
        let checksum_span = files.checksum.map_or(span, |word| word.span);
        let unusable = |error: FetchError| {
            StepFailure::new(self.error("cannot use this checksum", checksum_span)).because(error)
        };
        let what = match address {
            None => {
                let checksum = checksum.map(str::parse).transpose();
                let checksum = checksum
                    .map_err(|error: crate::source::ChecksumError| unusable(error.into()))?;
                What::Url { url: text.to_owned(), checksum }
            }
            Some(mut address) => {
                if let Some(checksum) = checksum {
                    address =
                        address.with_checksum(checksum).map_err(|error| unusable(error.into()))?;
                }
                let asked = files.keep_git_dir.map(|keep| keep.value);
                if asked.is_some() && address.keep_git_dir().is_some_and(|own| Some(own) != asked) {
                    let text = "--keep-git-dir and the address say different things";
                    return Err(StepFailure::new(self.error(text, span)));
                }
                let keep_git_dir = address.keep_git_dir().or(asked).unwrap_or(false);
                What::Repository { address, keep_git_dir }
            }
        };
        Ok(Some(RemoteWord { span, what }))
    }

    /// Finds out what remote sources are now.
    pub(super) fn remotes(&self, words: &Words, id: StepId) -> StepResult<Vec<Remote>> {
        let say = |text: &str| self.builder.tools.progress.status(id, text);
        words.remotes.iter().map(|word| self.remote(word, &say)).collect()
    }

    fn remote(&self, word: &RemoteWord, say: &Say<'_>) -> StepResult<Remote> {
        let fetch = self.fetch(word.span)?;
        match &word.what {
            What::Url { url, checksum } => {
                let file = fetch
                    .file(url, checksum.as_ref(), say)
                    .map_err(|error| self.cannot_fetch(word.span, error))?;
                let name = name(url, file.name.as_deref());
                Ok(Remote::File { url: url.clone(), name, file })
            }
            What::Repository { address, keep_git_dir } => {
                let id = fetch
                    .commit(address, say)
                    .map_err(|error| self.cannot_fetch(word.span, error))?;
                let (address, keep_git_dir) = (address.clone(), *keep_git_dir);
                Ok(Remote::Commit(Commit { span: word.span, address, id, keep_git_dir }))
            }
        }
    }

    /// Checks out the commits among remote sources, in their order.
    pub(super) fn checkouts(
        &self,
        remotes: &[Remote],
        scratch: &Path,
        id: StepId,
    ) -> StepResult<Vec<Checkout>> {
        let say = |text: &str| self.builder.tools.progress.status(id, text);
        let mut checkouts = Vec::new();
        for remote in remotes {
            let Remote::Commit(commit) = remote else { continue };
            let into = scratch.join(format!("checkout-{}", checkouts.len()));
            let failed = |error: FetchError| self.cannot_fetch(commit.span, error);
            fs_err::create_dir(&into).map_err(|error| failed(error.into()))?;
            self.fetch(commit.span)?
                .checkout(&commit.address, &commit.id, commit.keep_git_dir, &into, &say)
                .map_err(failed)?;
            let directory = Directory::plain(&into).map_err(|error| failed(error.into()))?;
            checkouts.push(Checkout { directory, known: StatCache::default() });
        }
        Ok(checkouts)
    }

    fn fetch(&self, span: Span) -> StepResult<&dyn Fetch> {
        self.builder.tools.fetch.ok_or_else(|| {
            StepFailure::new(self.error("this build takes nothing from elsewhere", span))
        })
    }

    fn cannot_fetch(&self, span: Span, error: FetchError) -> StepFailure {
        StepFailure::new(self.error("cannot fetch this source", span)).because(error)
    }
}

/// Returns a key that tells what is added without a file of a repository. `None` where there is none
/// to be checked out, or where files of the context are added as well.
pub(super) fn definition(parts: &Parts, words: &Words, remotes: &[Remote]) -> Option<Key> {
    let has_commit = remotes.iter().any(|remote| matches!(remote, Remote::Commit(_)));
    if !has_commit || !words.paths.is_empty() {
        return None;
    }
    let mut parts = parts.clone();
    for remote in remotes {
        match remote {
            Remote::File { name, file, .. } => {
                parts.push(format!("file {name}"), blake3::Hash::from(file.content).to_string());
            }
            Remote::Commit(commit) => {
                let Commit { address, id, keep_git_dir, .. } = commit;
                let mut text = format!("{id}:{}", address.subdirectory().unwrap_or_default());
                if !address.submodules() {
                    text.push_str(" without submodules");
                }
                if *keep_git_dir {
                    text.push_str(&format!(" with .git of {address}"));
                }
                parts.push("commit", text);
            }
        }
    }
    for (name, body) in &words.heredocs {
        parts.push(format!("heredoc {name}"), body);
    }
    Some(parts.key())
}

/// Says whether a source of ADD is no path of the context.
pub(crate) fn is_elsewhere(text: &str) -> bool {
    text.contains("://") || GitAddress::parse(text).is_ok_and(|address| address.is_some())
}

/// Returns the name of a file: what the server calls it, or the last part of its URL's path.
fn name(url: &str, told: Option<&str>) -> String {
    let is_name = |name: &&str| !name.is_empty() && *name != "." && *name != "..";
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let path = url[..end].split_once("://").map_or("", |(_, rest)| rest);
    let own = path.trim_end_matches('/').split('/').skip(1).last().map(unescaped);
    // The URL's name is known before anybody is asked, so it comes first.
    let own = own.filter(|name| is_name(&name.as_str()) && !name.contains(['/', '\0']));
    own.or_else(|| told.filter(is_name).map(str::to_owned)).unwrap_or_else(|| UNNAMED.to_owned())
}

/// Returns a part of a path without its escapes; as it is where that makes no text.
fn unescaped(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [byte, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escape = digits.filter(|_| *byte == b'%');
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(own) => {
                bytes.push(own);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

/// Returns a URL without a user's password and without its query, which may hold a signature.
pub(crate) fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (scheme, rest) = url[..end].split_once("://").unwrap_or(("", &url[..end]));
    let (account, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = account.rsplit_once('@').map_or(account, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_url_first() {
        let table = [
            ("http://h.example/a/b.txt?x=1#y", None, "b.txt"),
            ("http://h.example/a/b%20c.txt", Some("other"), "b c.txt"),
            ("http://h.example/a/%2e%2e", None, UNNAMED),
            ("http://h.example/a/x%2fy", None, UNNAMED),
            ("http://h.example/", Some("told.bin"), "told.bin"),
            ("http://h.example", Some(".."), UNNAMED),
            ("http://h.example/dir/", None, "dir"),
            ("http://h.example/%zz", None, "%zz"),
        ];
        for (url, told, expected) in table {
            assert_eq!(name(url, told), expected, "{url}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = without_secrets("https://user:pass@h.example/a/b?sig=1");
        assert_eq!(shown, "https://h.example/a/b");
    }
}
