//! Git repositories, by the `git` program.
//!
//! ```text
//! ROOT/cache/git/<BLAKE3 of the remote>/repository/   bare, without a work tree, hooks or templates
//!                                      /remote        its address, without secrets
//!                                      /lock          held shared by who reads, alone by who fetches
//! ```
//!
//! A branch or tag is asked for with `ls-remote`, each time; a whole commit id asks nobody. What is
//! missing of a commit is fetched without its history. A commit is checked out through an index of
//! its own into an empty directory, with the modes that git knows and the time of the commit.
//!
//! Nothing of a repository is trusted: git runs without hooks, without a system's or a user's
//! configuration, without prompts, with an environment that we make, and speaks https, http, ssh
//! and its own protocol only, also to submodules. Whatever could be an option comes after `--`, and
//! callers give no name that begins with a dash.

mod checkout;
mod login;
mod program;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;

pub use checkout::Wanted;
pub use login::{Login, Ssh};
pub use program::{GitError, GitProgram};

/// What tells which commit a reference means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit.
    pub commit: String,
    /// The tag object that leads to it, if it was one.
    pub tag: Option<String>,
    /// The whole name of the reference, if it is one.
    pub reference: Option<String>,
}

/// The repositories of a root.
#[derive(Clone, Debug)]
pub struct Repositories {
    directory: PathBuf,
    program: GitProgram,
    offline: bool,
}

impl Repositories {
    /// Returns the repositories below `ROOT/cache`; `offline` asks nobody.
    pub fn new(cache: &Path, program: GitProgram, offline: bool) -> Repositories {
        Repositories { directory: cache.join("git"), program, offline }
    }

    /// Returns the same repositories, asked with another login.
    #[must_use]
    pub fn with_login(&self, login: Login) -> Repositories {
        let program = GitProgram { login, ..self.program.clone() };
        Repositories { program, ..self.clone() }
    }

    /// Returns what a reference means now; without one, what `HEAD` means.
    ///
    /// # Errors
    /// Where the repository cannot be asked, or has no such reference.
    pub fn resolve(&self, remote: &str, reference: Option<&str>) -> Result<Resolved, GitError> {
        self.may_ask(remote)?;
        let name = reference.unwrap_or("HEAD");
        if is_commit(name) {
            let commit = name.to_ascii_lowercase();
            return Ok(Resolved { commit, tag: None, reference: None });
        }
        if self.offline {
            return Err(GitError::Offline { remote: shown(remote), name: name.to_owned() });
        }
        let peeled = format!("{name}^{{}}");
        let listed =
            self.program.output(None, &["ls-remote", "--", remote, name, &peeled], remote)?;
        let listed = String::from_utf8_lossy(&listed);
        let listed: BTreeMap<&str, &str> = listed
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(id, name)| (name, id))
            .collect();
        // As git does, a branch comes before a tag of the same name.
        let names = [
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
            name.to_owned(),
            format!("refs/{name}"),
        ];
        for full in names {
            let Some(id) = listed.get(full.as_str()).filter(|id| is_commit(id)) else { continue };
            let peeled = listed.get(format!("{full}^{{}}").as_str());
            let reference = Some(full);
            return Ok(match peeled {
                Some(commit) => {
                    let tag = Some((*id).to_owned());
                    Resolved { commit: (*commit).to_owned(), tag, reference }
                }
                None => Resolved { commit: (*id).to_owned(), tag: None, reference },
            });
        }
        Err(GitError::NoReference { remote: shown(remote), name: name.to_owned() })
    }

    /// Writes the files of a commit into an empty directory.
    ///
    /// # Errors
    /// Where the commit cannot be had, or cannot be written safely.
    pub fn checkout(&self, wanted: &Wanted<'_>, into: &Path) -> Result<(), GitError> {
        self.checkout_at(wanted, into, 0)
    }

    /// Makes sure that a commit is here; returns its repository, which is held as long as the lock.
    fn bring(&self, wanted: &Wanted<'_>) -> Result<Held, GitError> {
        let Wanted { remote, commit, reference, .. } = wanted;
        self.may_ask(remote)?;
        let home = self.directory.join(blake3::hash(remote.as_bytes()).to_hex().as_str());
        let io = |source| GitError::Io { remote: shown(remote), source };
        let repository = home.join("repository");
        let lock = lock(&home, Access::Shared).map_err(io)?;
        if self.has(&repository, commit) {
            // What is pruned is what was used least recently.
            let _ = lock.set_modified(SystemTime::now());
            return Ok(Held { repository, _lock: lock });
        }
        if self.offline {
            return Err(GitError::Offline { remote: shown(remote), name: commit.to_string() });
        }
        drop(lock);
        let lock = self::lock(&home, Access::Alone).map_err(io)?;
        if !self.has(&repository, commit) {
            self.fetch(&home, remote, commit, *reference)?;
        }
        let _ = lock.set_modified(SystemTime::now());
        Ok(Held { repository, _lock: lock })
    }

    /// Refuses what takes a key where none is lent, also where it is here: somebody else's key
    /// brought it.
    fn may_ask(&self, remote: &str) -> Result<(), GitError> {
        if self.program.login.ssh == Ssh::None && login::is_ssh(remote) {
            return Err(GitError::NoKey { remote: shown(remote) });
        }
        Ok(())
    }

    fn has(&self, repository: &Path, commit: &str) -> bool {
        let spec = format!("{commit}^{{tree}}");
        // The note says that all of it is here: a fetch may have died before its end.
        repository.join("refs/boatyard").join(commit).exists()
            && self.program.output(Some(repository), &["cat-file", "-e", &spec], "").is_ok()
    }

    fn fetch(
        &self,
        home: &Path,
        remote: &str,
        commit: &str,
        reference: Option<&str>,
    ) -> Result<(), GitError> {
        let io = |source| GitError::Io { remote: shown(remote), source };
        let repository = home.join("repository");
        if !repository.join("HEAD").exists() {
            let format = if commit.len() == 64 { "sha256" } else { "sha1" };
            let format = format!("--object-format={format}");
            let path = repository.display().to_string();
            let init = ["init", "--quiet", "--bare", "--template=", &format, "--", &path];
            self.program.output(None, &init, remote)?;
            fs::write(home.join("remote"), shown(remote)).map_err(io)?;
        }
        // What a fetch that was killed left behind would stop the next one.
        let _ = fs::remove_file(repository.join("shallow.lock"));
        let base = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force"];
        let mut ways: Vec<Vec<String>> = vec![vec!["--depth=1".to_owned(), commit.to_owned()]];
        if let Some(reference) = reference {
            ways.push(vec!["--depth=1".to_owned(), format!("{reference}:refs/boatyard/fetched")]);
        }
        ways.push(vec![
            "refs/heads/*:refs/boatyard/heads/*".to_owned(),
            "refs/tags/*:refs/boatyard/tags/*".to_owned(),
        ]);
        let mut last = None;
        for way in ways {
            let (options, wanted): (Vec<&str>, Vec<&str>) =
                way.iter().map(String::as_str).partition(|part| part.starts_with("--"));
            let is_whole = options.is_empty();
            let mut arguments = base.to_vec();
            arguments.extend(options);
            if is_whole && repository.join("shallow").exists() {
                arguments.push("--unshallow");
            }
            arguments.extend(["--", remote]);
            arguments.extend(wanted);
            if let Err(error) = self.program.output(Some(&repository), &arguments, remote) {
                if error.is_missing_program() {
                    return Err(error);
                }
                last = Some(error);
                continue;
            }
            let spec = format!("{commit}^{{commit}}");
            let there = ["cat-file", "-e", &spec];
            if self.program.output(Some(&repository), &there, remote).is_ok() {
                let name = format!("refs/boatyard/{commit}");
                let update = ["update-ref", "--", &name, commit];
                self.program.output(Some(&repository), &update, remote)?;
                return Ok(());
            }
            last = None;
        }
        Err(last.unwrap_or_else(|| GitError::NoReference {
            remote: shown(remote),
            name: commit.to_owned(),
        }))
    }
}

/// A repository that nobody removes meanwhile.
struct Held {
    repository: PathBuf,
    _lock: std::fs::File,
}

/// How a repository is held.
#[derive(Clone, Copy)]
enum Access {
    Shared,
    Alone,
}

/// Locks a repository. One that was removed meanwhile is made anew.
fn lock(home: &Path, access: Access) -> io::Result<std::fs::File> {
    let path = home.join("lock");
    loop {
        fs::create_dir_all(home)?;
        let mut options = fs::OpenOptions::new();
        let lock = match options.create(true).append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            lock => lock?.into_file(),
        };
        match access {
            Access::Shared => lock.lock_shared()?,
            Access::Alone => lock.lock()?,
        }
        let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
        let there = fs::metadata(&path).ok().map(identity);
        if there == Some(identity(lock.metadata()?)) {
            return Ok(lock);
        }
    }
}

/// Says whether a text is the whole id of a commit.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns an address without a user's password.
fn shown(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else { return remote.to_owned() };
    let (account, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match account.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => host,
        _ => account,
    };
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests;
