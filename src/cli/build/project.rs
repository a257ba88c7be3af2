//! Which project a build is of: what keeps the caches of unrelated builds apart.
//!
//! Two checkouts of one repository are one project, wherever they lie: it is known by where it was
//! cloned from. What is in no repository, or in one that was cloned from nowhere, is known by its
//! path.

use std::path::{Path, PathBuf};

use fs_err as fs;

/// Returns what tells projects apart: of whence the context is, and of the Dockerfile.
pub fn of(context: &Path, dockerfile: &str) -> String {
    if let Some(place) = elsewhere(context) {
        return format!("{place} {dockerfile}");
    }
    let context = match context == Path::new("-") {
        true => Path::new("."),
        false => context,
    };
    let context = fs::canonicalize(context).unwrap_or_else(|_| context.to_path_buf());
    let place = origin(&context).unwrap_or_else(|| context.display().to_string());
    format!("{place} {dockerfile}")
}

/// Returns where a context is that is not on this machine, without the reference: the same as of a
/// directory that was cloned from there.
fn elsewhere(context: &Path) -> Option<String> {
    let text = context.to_str().filter(|text| *text != "-" && !context.exists())?;
    let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
    let url = url.split('?').next().unwrap_or(url);
    let origin = without_credentials(url);
    let below = fragment.split_once(':').map_or("", |(_, below)| below.trim_matches('/'));
    Some(if below.is_empty() { origin } else { format!("{origin} {below}") })
}

/// Returns the repository of a directory, and where in it that is.
fn origin(directory: &Path) -> Option<String> {
    let top = directory.ancestors().find(|directory| directory.join(".git").exists())?;
    let config = fs::read_to_string(git_directory(&top.join(".git"))?.join("config")).ok()?;
    let below = directory.strip_prefix(top).ok()?.display().to_string();
    let origin = without_credentials(remote(&config)?);
    Some(if below.is_empty() { origin } else { format!("{origin} {below}") })
}

/// Returns the directory of a repository that has its configuration.
fn git_directory(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_path_buf());
    }
    // gitrepository-layout(5): a file says where it is, for worktrees and submodules.
    let text = fs::read_to_string(path).ok()?;
    let directory = path.parent()?.join(text.trim().strip_prefix("gitdir:")?.trim());
    match fs::read_to_string(directory.join("commondir")) {
        Ok(common) => Some(directory.join(common.trim())),
        Err(_) => Some(directory),
    }
}

/// Finds the URL of the remote `origin` in a configuration of Git's.
fn remote(config: &str) -> Option<&str> {
    let mut is_origin = false;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            is_origin = line == "[remote \"origin\"]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_origin)
            && key.trim().eq_ignore_ascii_case("url")
        {
            return Some(value.trim());
        }
    }
    None
}

/// Returns host and path of a URL, whatever the protocol: who may read it is nobody's business.
fn without_credentials(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host_end = rest.find('/').unwrap_or(rest.len());
    let rest = rest[..host_end].rfind('@').map_or(rest, |at| &rest[at + 1..]);
    let rest = rest.trim_end_matches('/').trim_end_matches(".git");
    match url.contains("://") {
        true => rest.to_owned(),
        // git@host:path
        false => rest.replacen(':', "/", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_repository_is_one() {
        for url in [
            "https://git.example/team/app.git",
            "https://ada:secret@git.example/team/app",
            "ssh://git@git.example/team/app.git/",
            "git@git.example:team/app.git",
        ] {
            assert_eq!(without_credentials(url), "git.example/team/app", "{url}");
        }
        assert_eq!(without_credentials("/srv/git/app.git"), "/srv/git/app");
    }

    #[test]
    fn checkouts_of_one_repository_are_one_project() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let config = "[core]\n\tbare = false\n[remote \"fork\"]\n\turl = x\n\
                      [remote \"origin\"]\n\tfetch = +refs\n\tURL = git@git.example:team/app.git\n";
        for name in ["one", "two"] {
            fs::create_dir_all(at(name).join(".git")).unwrap();
            fs::create_dir_all(at(name).join("api")).unwrap();
            fs::write(at(name).join(".git/config"), config).unwrap();
        }
        assert_eq!(of(&at("one/api"), "Dockerfile"), "git.example/team/app api Dockerfile");
        assert_eq!(of(&at("one"), "Dockerfile"), of(&at("two"), "Dockerfile"));
        assert_ne!(of(&at("one"), "Dockerfile"), of(&at("one"), "other"));
        assert_ne!(of(&at("one"), "Dockerfile"), of(&at("one/api"), "Dockerfile"));
        let url = Path::new("https://git.example/team/app.git#main:api");
        assert_eq!(of(url, "Dockerfile"), of(&at("one/api"), "Dockerfile"));
        // A worktree has a file in place of the directory.
        fs::create_dir_all(at("one/.git/worktrees/tree")).unwrap();
        fs::write(at("one/.git/worktrees/tree/commondir"), "../..\n").unwrap();
        fs::create_dir(at("tree")).unwrap();
        let text = format!("gitdir: {}\n", at("one/.git/worktrees/tree").display());
        fs::write(at("tree/.git"), text).unwrap();
        assert_eq!(of(&at("tree"), "Dockerfile"), of(&at("one"), "Dockerfile"));
        // Cloned from nowhere.
        fs::write(at("two/.git/config"), "[core]\n").unwrap();
        let path = fs::canonicalize(at("two")).unwrap();
        assert_eq!(of(&at("two"), "Dockerfile"), format!("{} Dockerfile", path.display()));
    }
}
