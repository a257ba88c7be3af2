//! Asking a person for what nobody else should see.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::report::{self, Context as _, Failure, Result};

/// Longer ones are no passwords: tokens have a few thousand bytes.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Reads all of standard input, without the line's end that `echo` adds.
pub fn password_from_input() -> Result<String> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .context("cannot read the password from standard input")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks a person, who must be at a terminal.
pub fn ask(question: &str, hidden: bool) -> Result<String> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is nobody to ask: standard input is no terminal")
            .hint("give the user with -u and the password with --password-stdin"));
    }
    report::prompt(question);
    let quiet = if hidden { Some(Quiet::new()?) } else { None };
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if quiet.is_some() {
        report::note("");
    }
    read.context("cannot read the answer")?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn new() -> Result<Quiet> {
        let before = tcgetattr(io::stdin()).context("cannot hide what is typed")?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &quiet)
            .context("cannot hide what is typed")?;
        Ok(Quiet { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no setting.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Returns a new password: from standard input, or asked for twice.
pub fn new_password(from_input: bool) -> Result<String> {
    let password = if from_input { password_from_input()? } else { ask("New password: ", true)? };
    if password.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    if !from_input && ask("The same again: ", true)? != password {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(password)
}
