//! Who asks for a repository.
//!
//! Whoever runs a build may ask as himself: with his keys, his agent, his `.netrc`. A Dockerfile may
//! be a stranger's, and gets what the build was told to lend. A header goes to the server that it is
//! for and to nobody else, and travels in git's environment: the arguments of a process are for all
//! to read.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::redact::Secret;

/// How ssh behaves for everybody.
const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=30";
/// What of a user's own settings is not for strangers.
const SSH_LENT: &str = " -F /dev/null -oForwardAgent=no -oControlPath=none";

/// With what git logs in.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// By ssh.
    pub ssh: Ssh,
    /// A server's address (`https://git.example/`), and the `Authorization` that it is sent.
    pub header: Option<(String, Secret)>,
}

/// Whose keys ssh has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ssh {
    /// Those of whoever runs this, and their agent.
    #[default]
    Own,
    /// What an agent holds that listens on a socket.
    Agent(PathBuf),
    /// These files.
    Keys(Vec<PathBuf>),
    /// Nobody's: no ssh.
    None,
}

impl Login {
    /// Gives a call of git its login, and nothing beside.
    pub(super) fn furnish(&self, command: &mut Command) {
        let mut ssh = SSH.to_owned();
        if self.ssh != Ssh::Own {
            // Neither a `.netrc` nor anything else of a user.
            command.env("HOME", "/dev/null").env_remove("SSH_AUTH_SOCK");
            ssh.push_str(SSH_LENT);
        }
        match &self.ssh {
            Ssh::Own => {}
            Ssh::Agent(socket) => {
                command.env("SSH_AUTH_SOCK", socket);
                ssh.push_str(" -oIdentityFile=none");
            }
            Ssh::Keys(keys) => {
                ssh.push_str(" -oIdentityAgent=none -oIdentitiesOnly=yes");
                for key in keys {
                    // For the shell, and for ssh, which knows tokens that begin with a percent sign.
                    let key = key.to_string_lossy().replace('%', "%%").replace('\'', r"'\''");
                    // Writing to a string cannot fail.
                    let _ = write!(ssh, " -i '{key}'");
                }
            }
            Ssh::None => ssh = "false".to_owned(),
        }
        command.env("GIT_SSH_COMMAND", ssh);
        if let Some((server, header)) = &self.header {
            command.env("GIT_CONFIG_COUNT", "1");
            command.env("GIT_CONFIG_KEY_0", format!("http.{server}.extraHeader"));
            command.env("GIT_CONFIG_VALUE_0", format!("Authorization: {}", header.expose()));
        }
    }
}

/// Says whether a repository is asked for by ssh.
pub(super) fn is_ssh(remote: &str) -> bool {
    match remote.split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn furnished(login: &Login) -> BTreeMap<String, Option<String>> {
        let mut command = Command::new("git");
        login.furnish(&mut command);
        let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
        assert_eq!(command.get_args().count(), 0, "arguments are for all to read");
        command.get_envs().map(|(name, value)| (text(name), value.map(text))).collect()
    }

    #[test]
    fn strangers_get_what_is_lent() {
        let own = furnished(&Login::default());
        assert_eq!(own.keys().collect::<Vec<_>>(), ["GIT_SSH_COMMAND"]);
        let none = furnished(&Login { ssh: Ssh::None, header: None });
        assert_eq!(none["GIT_SSH_COMMAND"].as_deref(), Some("false"));
        assert_eq!(none["HOME"].as_deref(), Some("/dev/null"));
        assert_eq!(none["SSH_AUTH_SOCK"], None);
        let agent = furnished(&Login { ssh: Ssh::Agent("/a/socket".into()), header: None });
        assert_eq!(agent["SSH_AUTH_SOCK"].as_deref(), Some("/a/socket"));
        assert!(agent["GIT_SSH_COMMAND"].as_ref().unwrap().ends_with("-oIdentityFile=none"));
        let keys = furnished(&Login { ssh: Ssh::Keys(vec!["/it's 1%".into()]), header: None });
        assert!(keys["GIT_SSH_COMMAND"].as_ref().unwrap().ends_with(r" -i '/it'\''s 1%%'"));
        assert_eq!(keys["SSH_AUTH_SOCK"], None);
    }

    #[test]
    fn a_header_is_of_one_server_and_not_shown() {
        let header = Some(("https://git.example/".to_owned(), Secret::new("bearer hunter2")));
        let login = Login { ssh: Ssh::Own, header };
        assert!(!format!("{login:?}").contains("hunter2"));
        let got = furnished(&login);
        let key = got["GIT_CONFIG_KEY_0"].as_deref();
        assert_eq!(key, Some("http.https://git.example/.extraHeader"));
        let value = got["GIT_CONFIG_VALUE_0"].as_deref();
        assert_eq!(value, Some("Authorization: bearer hunter2"));
    }

    #[test]
    fn what_is_asked_for_by_ssh() {
        for (remote, expected) in [
            ("git@git.example:x", true),
            ("ssh://git.example/x", true),
            ("SSH://git.example/x", true),
            ("https://git.example/x.git", false),
            ("git://git.example/x", false),
        ] {
            assert_eq!(is_ssh(remote), expected, "{remote}");
        }
    }
}
