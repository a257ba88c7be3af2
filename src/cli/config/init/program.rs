//! A client's own program, asked a question.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a program may take to answer: some begin with a look at the disk.
const ANSWER: Duration = Duration::from_secs(30);
/// The most that is read of an answer.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// There is no such program.
    Absent,
    /// It failed, or took too long.
    Failed,
    /// What it printed.
    Text(String),
}

/// Runs a program, which gets nothing to read and whose complaints nobody sees. One that does not
/// answer in time is ended.
pub fn ask(mut command: Command) -> Said {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // What it says is to be in a language that we read, on lines as long as they are.
    command.env("LC_ALL", "C").env("COLUMNS", "2000");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Said::Absent,
        Err(_) => return Said::Failed,
    };
    let Some(output) = child.stdout.take() else { return Said::Failed };
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        // Nobody waits any more where the time is over.
        let _ = send.send(read.map(|_| bytes));
    });
    let Ok(Ok(bytes)) = receive.recv_timeout(ANSWER) else {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        return Said::Failed;
    };
    match child.wait() {
        Ok(status) if status.success() => Said::Text(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Said::Failed,
    }
}

/// Returns a program with its arguments.
pub fn program(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(args);
    command
}
