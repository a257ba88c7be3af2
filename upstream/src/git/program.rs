//! Running `git`.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::login::Login;
use super::shown;

/// The protocols that git may speak.
const PROTOCOLS: &str = "https:http:ssh:git";
/// What is set for each call: nothing of it comes from a file.
const SETTINGS: [&str; 18] = [
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
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "init.defaultBranch=main",
    "protocol.version=2",
    "safe.directory=*",
];
/// What is told of git's own words.
const TOLD_BYTES_MAX: usize = 2000;
/// The most that is read of what git writes: names of a tree's files.
const OUTPUT_BYTES_MAX: u64 = 256 << 20;
/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(3600);

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
    /// As whom it asks.
    pub login: Login,
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
    /// The program did not come to an end.
    #[error("git does not come to an end with {remote}: it was stopped after {} minutes", after.as_secs() / 60)]
    Endless {
        /// The repository.
        remote: String,
        /// The limit.
        after: Duration,
    },
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
    /// It takes a key, and none is lent.
    #[error(
        "{remote} is asked for by ssh, and a Dockerfile has no keys of yours: --ssh default lends it your agent, --ssh default=KEY a key"
    )]
    NoKey {
        /// The repository.
        remote: String,
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
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
        if let Some(agent) = &self.ssh_agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.login.furnish(&mut command);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        if let Some(repository) = repository {
            command.arg("--git-dir").arg(repository);
        }
        Ok(command)
    }
}

/// Reads a stream on a thread of its own.
fn gather(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What cannot be read is missing, and what is too much is passed over.
            let _ = stream.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Runs a call of git to its end.
pub(super) fn finish(
    mut command: Command,
    arguments: &[&str],
    remote: &str,
) -> Result<Vec<u8>, GitError> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(GitError::Start)?;
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let began = Instant::now();
    let mut all = Vec::with_capacity(2);
    for stream in [stdout, stderr] {
        let Ok(bytes) = stream.recv_timeout(CALL_MAX.saturating_sub(began.elapsed())) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(GitError::Endless { remote: shown(remote), after: CALL_MAX });
        };
        all.push(bytes);
    }
    let status = child.wait().map_err(GitError::Start)?;
    let stderr = all.pop().unwrap_or_default();
    if status.success() {
        return Ok(all.pop().unwrap_or_default());
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
