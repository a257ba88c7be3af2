//! Running `git`.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::shown;

/// The protocols that git may speak.
const PROTOCOLS: &str = "https:http:ssh:git";
/// What is set for each call: nothing of it comes from a file.
const SETTINGS: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "core.autocrlf=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "http.followRedirects=initial",
    "init.defaultBranch=main",
    "protocol.version=2",
    "safe.directory=*",
];
/// What is told of git's own words.
const TOLD_BYTES_MAX: usize = 2000;

/// The `git` program, and what it may know of this machine.
#[derive(Clone, Debug)]
pub struct GitProgram {
    /// Where programs are looked for.
    pub search: Vec<PathBuf>,
    /// The home directory, for ssh's keys and known hosts.
    pub home: Option<PathBuf>,
    /// The socket of an ssh agent.
    pub ssh_agent: Option<PathBuf>,
    /// Variables that ssh and http need of the environment: proxies.
    pub variables: Vec<(OsString, OsString)>,
}

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no such program.
    #[error(
        "{remote} is a Git repository, and there is no `git` on this machine: install it, or fetch the files yourself and use them as a context"
    )]
    Program {
        /// The repository.
        remote: String,
    },
    /// The program could not be started.
    #[error("cannot run git")]
    Start(#[source] io::Error),
    /// The program failed.
    #[error("git cannot {doing} {remote}: {told}")]
    Failed {
        /// What it was to do.
        doing: String,
        /// The repository.
        remote: String,
        /// Its own words.
        told: String,
    },
    /// Nobody may be asked, and it is not here.
    #[error("`{name}` of {remote} is not here, and nobody may be asked for it")]
    Offline {
        /// The repository.
        remote: String,
        /// What is missing.
        name: String,
    },
    /// There is no such branch, tag or commit.
    #[error("{remote} has no branch, tag or commit `{name}`; a commit needs its whole id")]
    NoReference {
        /// The repository.
        remote: String,
        /// What was asked for.
        name: String,
    },
    /// Something in the repository could do harm.
    #[error("{remote} cannot be checked out safely: {problem}")]
    Hostile {
        /// The repository.
        remote: String,
        /// What is wrong.
        problem: String,
    },
    /// A directory of ours could not be read or written.
    #[error("cannot keep {remote}")]
    Io {
        /// The repository.
        remote: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl GitError {
    /// Says whether there is no `git`.
    pub fn is_missing_program(&self) -> bool {
        matches!(self, GitError::Program { .. })
    }
}

impl GitProgram {
    /// Runs git and returns what it writes; `repository` is a bare one.
    pub(super) fn output(
        &self,
        repository: Option<&Path>,
        arguments: &[&str],
        remote: &str,
    ) -> Result<Vec<u8>, GitError> {
        let mut command = self.command(repository, remote)?;
        command.args(arguments);
        finish(command, arguments, remote)
    }

    /// Returns a call of git that has its settings and needs its arguments.
    pub(super) fn command(
        &self,
        repository: Option<&Path>,
        remote: &str,
    ) -> Result<Command, GitError> {
        let missing = || GitError::Program { remote: shown(remote) };
        let program = self.search.iter().map(|directory| directory.join("git"));
        let program = program.into_iter().find(|path| path.is_file()).ok_or_else(missing)?;
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null());
        let path = std::env::join_paths(&self.search).unwrap_or_default();
        command.env("PATH", path).env("LC_ALL", "C");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", PROTOCOLS);
        command.env("GIT_ATTR_NOSYSTEM", "1").env("GIT_NO_REPLACE_OBJECTS", "1");
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
        if let Some(agent) = &self.ssh_agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        if let Some(repository) = repository {
            command.arg("--git-dir").arg(repository);
        }
        Ok(command)
    }
}

/// Runs a call of git to its end.
pub(super) fn finish(
    mut command: Command,
    arguments: &[&str],
    remote: &str,
) -> Result<Vec<u8>, GitError> {
    let Output { status, stdout, stderr } = command.output().map_err(GitError::Start)?;
    if status.success() {
        return Ok(stdout);
    }
    let told = String::from_utf8_lossy(&stderr);
    let told: Vec<&str> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut told = told.join("; ").replace(remote, &shown(remote));
    if told.len() > TOLD_BYTES_MAX {
        let end = (0..=TOLD_BYTES_MAX).rev().find(|at| told.is_char_boundary(*at));
        told.truncate(end.unwrap_or(0));
    }
    let doing = arguments.first().copied().unwrap_or("work on").to_owned();
    Err(GitError::Failed { doing, remote: shown(remote), told })
}
