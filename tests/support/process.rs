//! Programs that a test runs, and failures that can be read.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that is about to run.
pub struct Run {
    command: Command,
    input: Option<Vec<u8>>,
}

/// What a program said and how it ended.
pub struct Ran {
    /// The program and its arguments.
    pub line: String,
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Returns a program without arguments.
    pub fn new(program: &str) -> Run {
        Run { command: Command::new(program), input: None }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Run {
        self.command.args(args);
        self
    }

    /// Adds an argument.
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Run {
        self.args([arg])
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    /// Removes a variable.
    pub fn env_remove(mut self, name: &str) -> Run {
        self.command.env_remove(name);
        self
    }

    /// Runs it elsewhere.
    pub fn current_dir(mut self, directory: &Path) -> Run {
        self.command.current_dir(directory);
        self
    }

    /// Gives it something to read.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.input = Some(bytes.into());
        self
    }

    /// Runs it to its end, however that is.
    pub fn run(mut self) -> Ran {
        let line = self.line();
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.start();
        let writer = self.input.take().map(|input| {
            let mut stdin = child.stdin.take().unwrap();
            // A program that does not read all of it is no failure of this test.
            std::thread::spawn(move || stdin.write_all(&input).unwrap_or_default())
        });
        let output = child.wait_with_output().unwrap();
        if let Some(writer) = writer {
            writer.join().unwrap();
        }
        Ran {
            line,
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it; anything but success fails the test.
    #[track_caller]
    pub fn ok(self) -> Ran {
        let ran = self.run();
        assert!(ran.code == Some(0), "should succeed:\n{ran}");
        ran
    }

    /// Runs it; the test fails unless it fails with this code.
    #[track_caller]
    pub fn fails(self, code: i32) -> Ran {
        let ran = self.run();
        assert!(ran.code == Some(code), "should fail with {code}:\n{ran}");
        ran
    }

    /// Starts it with the given standard output and error.
    pub fn spawn(mut self, stdout: Stdio, stderr: Stdio) -> Child {
        self.command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        self.start()
    }

    fn start(&mut self) -> Child {
        self.command.spawn().unwrap_or_else(|error| {
            panic!("cannot start `{}`: {error}; is its package installed?", self.line())
        })
    }

    fn line(&self) -> String {
        let args = self.command.get_args().map(OsStr::to_string_lossy);
        let words: Vec<_> =
            [self.command.get_program().to_string_lossy()].into_iter().chain(args).collect();
        words.join(" ")
    }
}

impl Ran {
    /// Returns standard output as text without the last line's end.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap().trim_end().to_owned()
    }

    /// Returns standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}\n{self}"))
    }

    /// Fails the test unless standard error has all of these in it.
    #[track_caller]
    pub fn says<const N: usize>(&self, parts: [&str; N]) -> &Ran {
        for part in parts {
            assert!(self.stderr.contains(part), "should say {part:?}:\n{self}");
        }
        self
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.line)?;
        writeln!(f, "{}", String::from_utf8_lossy(&self.stdout))?;
        writeln!(f, "{}", self.stderr)?;
        match self.code {
            Some(code) => writeln!(f, "exit code {code}"),
            None => writeln!(f, "ended by a signal"),
        }
    }
}

/// Waits for something that happens soon.
#[track_caller]
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "it should happen that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
