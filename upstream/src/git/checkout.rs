//! A commit's files, in a directory.

use std::collections::BTreeMap;
use std::fs::FileTimes;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;

use super::program::{GitError, finish};
use super::{Repositories, shown};

/// How deep repositories may lie within one another.
const NESTED_MAX: usize = 8;

/// What of a repository is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where it is.
    pub remote: &'a str,
    /// The whole id of the commit.
    pub commit: &'a str,
    /// The whole name of a reference that led to it, where one is known.
    pub reference: Option<&'a str>,
    /// The directory that is wanted; all of it without one.
    pub subdirectory: Option<&'a str>,
    /// The repositories within it are wanted, too.
    pub submodules: bool,
    /// `.git` is wanted, with this commit alone; never with a directory.
    pub keep_git_dir: bool,
}

impl Repositories {
    pub(super) fn checkout_at(
        &self,
        wanted: &Wanted<'_>,
        into: &Path,
        depth: usize,
    ) -> Result<(), GitError> {
        let held = self.bring(wanted)?;
        let repository = held.repository.as_path();
        let remote = wanted.remote;
        if wanted.keep_git_dir && wanted.subdirectory.is_none() {
            self.keep_git_dir(repository, wanted, into)?;
        }
        let tree = match wanted.subdirectory {
            Some(subdirectory) => format!("{}:{subdirectory}", wanted.commit),
            None => format!("{}^{{tree}}", wanted.commit),
        };
        let kind = ["cat-file", "-t", &tree];
        let kind = self.program.output(Some(repository), &kind, remote);
        if !kind.is_ok_and(|kind| kind.trim_ascii() == b"tree") {
            let name = wanted.subdirectory.unwrap_or_default();
            let problem = format!("`{name}` is no directory of the commit {}", wanted.commit);
            return Err(GitError::Hostile { remote: shown(remote), problem });
        }
        self.write_tree(repository, &tree, remote, into)?;
        if wanted.submodules {
            self.submodules(repository, &tree, wanted, into, depth)?;
        }
        let time = ["show", "--no-patch", "--format=%ct", wanted.commit, "--"];
        let time = self.program.output(Some(repository), &time, remote)?;
        let time = std::str::from_utf8(time.trim_ascii()).ok().and_then(|text| text.parse().ok());
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.unwrap_or_default());
        if depth == 0 {
            settle(into, time, true)
                .map_err(|source| GitError::Io { remote: shown(remote), source })?;
        }
        Ok(())
    }

    /// Writes a tree through an index of its own: git checks each name as it enters that.
    fn write_tree(
        &self,
        repository: &Path,
        tree: &str,
        remote: &str,
        into: &Path,
    ) -> Result<(), GitError> {
        let io = |source| GitError::Io { remote: shown(remote), source };
        // What a killed process leaves of this name is swept with the cache.
        let index = tempfile::Builder::new().prefix(".index-").tempfile_in(&self.directory);
        let index = index.map_err(io)?.into_temp_path();
        // git makes it itself, and takes an empty one for a damaged one.
        fs::remove_file(&index).map_err(io)?;
        let read = ["read-tree", tree];
        let mut command = self.program.command(Some(repository), remote)?;
        command.env("GIT_INDEX_FILE", index.as_os_str()).args(read);
        finish(command, &read, remote)?;
        let write = ["checkout-index", "--all", "--force", "--quiet"];
        let mut command = self.program.command(Some(repository), remote)?;
        command.arg("--work-tree").arg(into).current_dir(into);
        command.env("GIT_INDEX_FILE", index.as_os_str()).args(write);
        finish(command, &write, remote).map(drop)
    }

    /// Makes `.git` with this commit alone.
    fn keep_git_dir(
        &self,
        repository: &Path,
        wanted: &Wanted<'_>,
        into: &Path,
    ) -> Result<(), GitError> {
        let Wanted { remote, commit, .. } = *wanted;
        let git = into.join(".git");
        let own = format!("refs/boatyard/{commit}");
        let path = repository.display().to_string();
        let format = if commit.len() == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        let place = into.display().to_string();
        self.program.output(
            None,
            &["init", "--quiet", "--template=", &format, "--", &place],
            remote,
        )?;
        let origin = shown(remote);
        self.program.output(Some(&git), &["remote", "add", "--", "origin", &origin], remote)?;
        let fetch = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-write-fetch-head",
            "--",
            &path,
            &own,
        ];
        let mut command = self.program.command(Some(&git), remote)?;
        // From here to there: the one time that files are a repository to fetch from.
        command.env("GIT_ALLOW_PROTOCOL", "file").args(fetch);
        finish(command, &fetch, remote)?;
        let head = ["update-ref", "--no-deref", "HEAD", commit];
        self.program.output(Some(&git), &head, remote)?;
        if let Some(branch) = wanted.reference.and_then(|name| name.strip_prefix("refs/heads/")) {
            let name = format!("refs/remotes/origin/{branch}");
            self.program.output(Some(&git), &["update-ref", "--", &name, commit], remote)?;
        }
        self.program.output(Some(&git), &["read-tree", commit], remote)?;
        let io = |source| GitError::Io { remote: shown(remote), source };
        for left in ["logs", "hooks"] {
            if git.join(left).exists() {
                fs::remove_dir_all(git.join(left)).map_err(io)?;
            }
        }
        Ok(())
    }

    /// Checks out the repositories within a tree.
    fn submodules(
        &self,
        repository: &Path,
        tree: &str,
        wanted: &Wanted<'_>,
        into: &Path,
        depth: usize,
    ) -> Result<(), GitError> {
        let remote = wanted.remote;
        let hostile = |problem: String| GitError::Hostile { remote: shown(remote), problem };
        let list = ["ls-tree", "-r", "-z", "--full-tree", tree];
        let listed = self.program.output(Some(repository), &list, remote)?;
        let links: Vec<(String, String)> = listed
            .split(|byte| *byte == 0)
            .filter_map(|line| std::str::from_utf8(line).ok()?.split_once('\t'))
            .filter_map(|(facts, path)| {
                let commit = facts.strip_prefix("160000 commit ")?;
                Some((path.to_owned(), commit.trim().to_owned()))
            })
            .collect();
        if links.is_empty() {
            return Ok(());
        }
        if depth >= NESTED_MAX {
            return Err(hostile("submodules within submodules without end".to_owned()));
        }
        let urls = self.submodule_urls(repository, wanted)?;
        for (path, commit) in links {
            let whole = match wanted.subdirectory {
                Some(subdirectory) => format!("{subdirectory}/{path}"),
                None => path.clone(),
            };
            let url = urls.get(&whole).ok_or_else(|| {
                hostile(format!("`{whole}` is a submodule, and .gitmodules does not say of what"))
            })?;
            let url = absolute(remote, url).ok_or_else(|| {
                hostile(format!("the submodule `{whole}` has the address `{url}`"))
            })?;
            let place = place(into, &path).ok_or_else(|| {
                hostile(format!("the submodule `{whole}` has no place of its own"))
            })?;
            fs::create_dir_all(&place)
                .map_err(|source| GitError::Io { remote: shown(remote), source })?;
            let inner = Wanted {
                remote: &url,
                commit: &commit,
                reference: None,
                subdirectory: None,
                submodules: true,
                keep_git_dir: false,
            };
            self.checkout_at(&inner, &place, depth + 1)?;
        }
        Ok(())
    }

    /// Returns the addresses of submodules by their paths.
    fn submodule_urls(
        &self,
        repository: &Path,
        wanted: &Wanted<'_>,
    ) -> Result<BTreeMap<String, String>, GitError> {
        let blob = format!("{}:.gitmodules", wanted.commit);
        let read = ["config", "--no-includes", "--blob", &blob, "-z", "--list"];
        let Ok(listed) = self.program.output(Some(repository), &read, wanted.remote) else {
            return Ok(BTreeMap::new());
        };
        let mut modules: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
        for line in listed.split(|byte| *byte == 0) {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((key, value)) = line.split_once('\n') else { continue };
            let Some((name, key)) =
                key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.'))
            else {
                continue;
            };
            let module = modules.entry(name.to_owned()).or_default();
            match key {
                "path" => module.0 = Some(value.trim_matches('/').to_owned()),
                "url" => module.1 = Some(value.to_owned()),
                _ => {}
            }
        }
        let whole = modules.into_values().filter_map(|(path, url)| Some((path?, url?)));
        Ok(whole.collect())
    }
}

/// Returns where a submodule is, seen from the repository that names it; `None` for an address that
/// git may not be given.
fn absolute(remote: &str, url: &str) -> Option<String> {
    let is_odd = |text: &str| {
        text.is_empty() || text.starts_with('-') || text.bytes().any(|byte| byte.is_ascii_control())
    };
    if is_odd(url) {
        return None;
    }
    let whole = match url.starts_with("./") || url.starts_with("../") {
        true => relative(remote, url)?,
        false => url.to_owned(),
    };
    if let Some((scheme, rest)) = whole.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let is_known = ["https", "http", "ssh", "git"].contains(&scheme);
        return (is_known && !is_odd(host)).then_some(whole);
    }
    // `user@host:path`, and nothing that could be a path or another transport.
    let (account, path) = whole.split_once(':')?;
    let (user, host) = account.split_once('@')?;
    let is_plain = |text: &str| {
        !is_odd(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
    };
    (is_plain(user) && is_plain(host) && !path.is_empty() && !path.starts_with(':'))
        .then_some(whole)
}

/// Resolves `../x` against an address, which keeps its host.
fn relative(remote: &str, url: &str) -> Option<String> {
    let start = match remote.split_once("://") {
        Some((scheme, rest)) => scheme.len() + 3 + rest.find('/').unwrap_or(rest.len()) + 1,
        None => remote.find(':')? + 1,
    };
    let (host, path) = remote.split_at(start.min(remote.len()));
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in url.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(format!("{}{}", host, parts.join("/")))
}

/// Returns where a submodule goes; `None` if that is not inside, or leads through a link.
fn place(into: &Path, path: &str) -> Option<PathBuf> {
    let mut place = into.to_path_buf();
    for part in path.split('/') {
        if matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git") {
            return None;
        }
        if place.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            return None;
        }
        place.push(part);
    }
    match place.symlink_metadata() {
        Ok(found) if !found.is_dir() => None,
        _ => Some(place),
    }
}

/// Gives all files the modes that git knows, whatever the process's umask, and a time.
fn settle(directory: &Path, time: SystemTime, is_top: bool) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if is_top && entry.file_name() == ".git" {
            continue;
        }
        if kind.is_dir() {
            settle(&path, time, false)?;
        } else if kind.is_file() {
            let file = fs::File::open(&path)?;
            let runs = file.metadata()?.permissions().mode() & 0o111 != 0;
            let mode = if runs { 0o755 } else { 0o644 };
            fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            file.file().set_times(FileTimes::new().set_modified(time))?;
        }
    }
    fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    fs::File::open(directory)?.file().set_times(FileTimes::new().set_modified(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_submodules() {
        let https = "https://git.example/team/app.git";
        let table = [
            (https, "../lib.git", Some("https://git.example/team/lib.git")),
            (https, "./sub.git", Some("https://git.example/team/app.git/sub.git")),
            (https, "../../x.git", Some("https://git.example/x.git")),
            (https, "../../../x.git", None),
            ("git@git.example:team/app", "../lib", Some("git@git.example:team/lib")),
            (https, "https://other.example/x", Some("https://other.example/x")),
            (https, "git@other.example:x", Some("git@other.example:x")),
            (https, "file:///etc", None),
            (https, "/etc", None),
            (https, "ext::sh -c x", None),
            (https, "-u./payload", None),
            (https, "ssh://-oProxyCommand=x/y", None),
            (https, "a@-b:c", None),
            (https, "https://h/\nx", None),
            (https, "", None),
        ];
        for (remote, url, expected) in table {
            assert_eq!(absolute(remote, url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn submodules_stay_inside() {
        let into = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", into.path().join("link")).unwrap();
        for bad in ["../x", "a/../../x", ".git/hooks", "a/.GIT", "link/x", "link", "/x"] {
            assert_eq!(place(into.path(), bad), None, "{bad}");
        }
        assert!(place(into.path(), "a/b").is_some());
    }
}
