//! An agent for keys in files: OpenSSH's own, started for one build.
//!
//! It knows every kind of key, and keeps them in memory. The shell that it started waits for the end
//! of its standard input, which is a pipe from this process: however that ends, the agent is ended
//! too.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::snapshot::layers::Temporary;

/// The socket, in the agent's directory.
const SOCKET: &str = "keys";
/// What the shell says when the agent has the keys.
const READY: &str = "ready";
const SCRIPT: &str = "\
add=$1
shift
\"$add\" -q -- \"$@\" </dev/null || { kill \"$SSH_AGENT_PID\"; exit 1; }
echo ready
cat >/dev/null
kill \"$SSH_AGENT_PID\"";

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A program is not there.
    #[error("keys in files take OpenSSH's {0}, which this machine does not have")]
    NoProgram(&'static str),
    /// The agent's place cannot be made, or its program not started.
    #[error("cannot start an agent for the keys")]
    Start(#[source] io::Error),
    /// A key was refused.
    #[error("ssh-add does not take the keys: {0}")]
    Refused(String),
}

/// An agent with keys, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct KeyAgent {
    directory: Temporary,
    process: Child,
}

impl KeyAgent {
    /// Starts an agent in a directory of its own, and gives it the keys. A key with a passphrase is
    /// refused: nobody is asked.
    pub(crate) fn start(
        directory: Temporary,
        keys: &[PathBuf],
        search: &[PathBuf],
    ) -> Result<KeyAgent, KeysError> {
        let [agent, add] = ["ssh-agent", "ssh-add"].map(|name| find(name, search).ok_or(name));
        let (agent, add) =
            (agent.map_err(KeysError::NoProgram)?, add.map_err(KeysError::NoProgram)?);
        let keys = keys.iter().map(std::path::absolute).collect::<io::Result<Vec<_>>>();
        let path = std::env::join_paths(search).unwrap_or_default();
        let process = Command::new(agent)
            // The path of a socket is short; that of the directory may not be.
            .args([OsStr::new("-a"), OsStr::new(SOCKET), OsStr::new("sh"), OsStr::new("-c")])
            .args([OsStr::new(SCRIPT), OsStr::new("sh"), add.as_os_str()])
            .args(keys.map_err(KeysError::Start)?)
            .current_dir(directory.path())
            .env_clear()
            .env("PATH", path)
            .envs([("SSH_ASKPASS", "/bin/false"), ("SSH_ASKPASS_REQUIRE", "force")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(KeysError::Start)?;
        let mut agent = KeyAgent { directory, process };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<(), KeysError> {
        let mut line = String::new();
        if let Some(stdout) = self.process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(KeysError::Start)?;
        }
        let mut said = String::new();
        if let Some(stderr) = self.process.stderr.take()
            && line.trim_end() != READY
        {
            stderr.take(4096).read_to_string(&mut said).map_err(KeysError::Start)?;
        }
        match line.trim_end() {
            READY => Ok(()),
            _ => Err(KeysError::Refused(in_one_line(&said))),
        }
    }

    /// Returns the socket on which it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // Its end is what was asked for; there is nobody to tell if it does not come.
        let _ = self.process.wait();
    }
}

fn find(name: &str, search: &[PathBuf]) -> Option<PathBuf> {
    search.iter().map(|directory| directory.join(name)).find(|path| Path::is_file(path))
}

fn in_one_line(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_said_becomes_one_line() {
        assert_eq!(in_one_line("@@@\n\n  too open \n"), "@@@; too open");
    }

    #[test]
    fn without_openssh_it_is_said() {
        assert_eq!(find("ssh-agent", &[PathBuf::from("/nonexistent")]), None);
        let text = KeysError::NoProgram("ssh-agent").to_string();
        assert!(text.contains("OpenSSH's ssh-agent"), "{text}");
    }
}
