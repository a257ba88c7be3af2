//! Credential helpers: programs named `docker-credential-<name>` that keep secrets elsewhere.
//!
//! The protocol is docker-credential-helpers': the action is the one argument; the server's name,
//! or a JSON object for `store`, goes to standard input; `get` answers with a JSON object. A
//! failure is an exit code and a message on standard output.

use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Credential;
use crate::redact::Secret;

/// The most that is read of a helper's output, in bytes.
const OUTPUT_MAX: u64 = 256 * 1024;
/// How often a running helper is looked at.
const POLL: Duration = Duration::from_millis(5);
/// The user name that marks a secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// A helper that failed.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Its name could be a path.
    #[error("`{name}` is not the name of a credential helper")]
    Name {
        /// What the file has.
        name: String,
    },
    /// It cannot be started.
    #[error("`{program}` cannot be run: is it installed?")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ran too long and was ended.
    #[error("`{program}` did not answer within {} s", after.as_secs())]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        after: Duration,
    },
    /// It said that it failed.
    #[error("`{program} {action}` failed: {message}")]
    Failed {
        /// The program.
        program: String,
        /// What it was asked.
        action: &'static str,
        /// Its first line.
        message: String,
    },
    /// Its answer is not what the protocol says.
    #[error("`{program}` did not answer with a user and a secret")]
    Answer {
        /// The program.
        program: String,
    },
}

/// A helper program.
#[derive(Clone, Debug)]
pub struct Helper {
    program: String,
    path: PathBuf,
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Helper {
    /// Returns the helper of this name, looked for in `directory`, or where the system looks.
    ///
    /// # Errors
    /// Where the name has other characters than letters, digits, `-`, `_` and `.`.
    pub fn new(
        name: &str,
        directory: Option<&std::path::Path>,
        timeout: Duration,
    ) -> Result<Helper, HelperError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(plain) {
            return Err(HelperError::Name { name: first_line(name) });
        }
        let program = format!("docker-credential-{name}");
        let path = directory.map_or_else(|| PathBuf::from(&program), |d| d.join(&program));
        Ok(Helper { program, path, timeout })
    }

    /// Returns the name of the program.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Asks for a server's credential; `None` where the helper has none. Blocks.
    ///
    /// # Errors
    /// Where the helper cannot be run, fails, or answers something else.
    pub fn get(&self, server: &str) -> Result<Option<Credential>, HelperError> {
        let output = match self.run("get", server.as_bytes()) {
            Err(HelperError::Failed { message, .. }) if is_not_found(&message) => return Ok(None),
            other => other?,
        };
        let answer: Answer = serde_json::from_slice(&output)
            .map_err(|_| HelperError::Answer { program: self.program.clone() })?;
        if answer.secret.is_empty() {
            return Ok(None);
        }
        let secret = Secret::new(answer.secret);
        Ok(Some(match answer.username.as_str() {
            TOKEN_USER => Credential::IdentityToken { token: secret },
            _ => Credential::Password { user: answer.username, password: secret },
        }))
    }

    /// Gives it a credential to keep. Blocks.
    ///
    /// # Errors
    /// As [`Helper::get`].
    pub fn store(&self, server: &str, credential: &Credential) -> Result<(), HelperError> {
        let (user, secret) = match credential {
            Credential::Password { user, password } => (user.as_str(), password),
            Credential::IdentityToken { token } | Credential::RegistryToken { token } => {
                (TOKEN_USER, token)
            }
        };
        let input = serde_json::json!({
            "ServerURL": server, "Username": user, "Secret": secret.expose(),
        });
        self.run("store", input.to_string().as_bytes()).map(drop)
    }

    /// Makes it forget a credential; that it had none is no error. Blocks.
    ///
    /// # Errors
    /// As [`Helper::get`].
    pub fn erase(&self, server: &str) -> Result<(), HelperError> {
        match self.run("erase", server.as_bytes()) {
            Err(HelperError::Failed { message, .. }) if is_not_found(&message) => Ok(()),
            other => other.map(drop),
        }
    }

    fn run(&self, action: &'static str, input: &[u8]) -> Result<Vec<u8>, HelperError> {
        let start = |source| HelperError::Start { program: self.program.clone(), source };
        let mut child = Command::new(&self.path)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(start)?;
        let deadline = Instant::now() + self.timeout;
        let result = self.talk(&mut child, action, input, deadline);
        if result.is_err() {
            // It may have ended by itself meanwhile; then there is nothing to end.
            let _ = child.kill();
            let _ = child.wait();
        }
        result
    }

    fn talk(
        &self,
        child: &mut Child,
        action: &'static str,
        input: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, HelperError> {
        let (send, output) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // On its own thread: a grandchild could hold the pipe open for ever.
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stdout.take(OUTPUT_MAX).read_to_end(&mut bytes);
                let _ = send.send(bytes);
            });
        }
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that exits without reading shows itself by its exit code.
            let _ = stdin.write_all(input).and_then(|()| stdin.write_all(b"\n"));
        }
        let timeout =
            || HelperError::Timeout { program: self.program.clone(), after: self.timeout };
        let status = loop {
            let ended = child
                .try_wait()
                .map_err(|source| HelperError::Start { program: self.program.clone(), source })?;
            match ended {
                Some(status) => break status,
                None if Instant::now() >= deadline => return Err(timeout()),
                None => std::thread::sleep(POLL),
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let output = output.recv_timeout(left).map_err(|_| timeout())?;
        if !status.success() {
            return Err(HelperError::Failed {
                program: self.program.clone(),
                action,
                message: first_line(&String::from_utf8_lossy(&output)),
            });
        }
        Ok(output)
    }
}

/// docker-credential-helpers' words for "no such credential".
fn is_not_found(message: &str) -> bool {
    message.contains("credentials not found") || message.contains("not found in keychain")
}

fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("no message");
    line.chars().take(200).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    pub(in crate::credentials) fn script(directory: &Path, name: &str, body: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        let text = format!("#!/bin/sh\n{body}\n");
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn helper(directory: &Path, name: &str) -> Helper {
        Helper::new(name, Some(directory), Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn gets_stores_and_erases() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("log");
        script(
            root.path(),
            "x",
            &format!(
                r#"input=$(cat); echo "$1 $input" >> {}
                case "$1 $input" in
                "get r.example") echo '{{"ServerURL":"r.example","Username":"me","Secret":"p"}}';;
                "get t.example") echo '{{"ServerURL":"t.example","Username":"<token>","Secret":"t"}}';;
                get*|erase*) echo "credentials not found in native keychain"; exit 1;;
                esac"#,
                log.display()
            ),
        );
        let helper = helper(root.path(), "x");
        let me = Credential::Password { user: "me".to_owned(), password: Secret::new("p") };
        assert_eq!(helper.get("r.example").unwrap(), Some(me.clone()));
        let token = Credential::IdentityToken { token: Secret::new("t") };
        assert_eq!(helper.get("t.example").unwrap(), Some(token));
        assert_eq!(helper.get("other.example").unwrap(), None);
        helper.store("r.example", &me).unwrap();
        helper.erase("r.example").unwrap();
        let log = fs_err::read_to_string(log).unwrap();
        assert!(log.contains(r#"store {"ServerURL":"r.example","Username":"me","Secret":"p"}"#));
        assert!(log.ends_with("erase r.example\n"));
    }

    #[test]
    fn helpers_that_misbehave() {
        let root = tempfile::tempdir().unwrap();
        script(root.path(), "garbage", "echo hunter2");
        script(root.path(), "fails", "echo 'the vault is locked'; exit 3");
        script(root.path(), "hangs", "exec sleep 600");
        let get = |name: &str| helper(root.path(), name).get("r.example").unwrap_err();
        let garbage = get("garbage");
        assert!(matches!(garbage, HelperError::Answer { .. }), "{garbage}");
        assert!(!format!("{garbage:?} {garbage}").contains("hunter2"));
        assert!(get("fails").to_string().contains("the vault is locked"));
        assert!(get("absent").to_string().contains("docker-credential-absent"));
        let hangs = Helper::new("hangs", Some(root.path()), Duration::from_millis(20)).unwrap();
        assert!(matches!(hangs.get("r.example"), Err(HelperError::Timeout { .. })));
        for name in ["", "../x", "a/b", "a b", "$(x)"] {
            assert!(Helper::new(name, None, POLL).is_err(), "{name}");
        }
    }
}
