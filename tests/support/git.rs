//! Git repositories and a server of them, by the `git` of Debian.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::place::text;
use super::{Place, Run, until};

/// How many ports are tried.
const TRIES: usize = 5;

/// A server of all repositories below a directory; it ends when this is dropped.
pub struct Daemon {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Daemon {
    /// Serves what lies in `repositories` of a place.
    pub fn start(place: &Place) -> Daemon {
        let base = place.path("repositories");
        fs_err::create_dir_all(&base).unwrap();
        let log = place.path("daemon.log");
        // `git daemon` is a program of its own, which `git` would start and not take along.
        let programs = place.run("git", ["--exec-path"]).ok().text();
        let program = format!("{programs}/git-daemon");
        for _ in 0..TRIES {
            // Somebody may take the port before git does: then it ends, and another is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = place
                .run(&program, ["--verbose", "--export-all", "--listen=127.0.0.1"])
                .args([format!("--port={port}"), format!("--base-path={}", text(&base))])
                .arg(text(&base))
                .spawn(Stdio::null(), fs_err::File::create(&log).unwrap().into_file().into());
            let mut has_ended = false;
            until("git serves, or ends", || {
                has_ended = child.try_wait().unwrap().is_some();
                has_ended || fs_err::read_to_string(&log).unwrap().contains("Ready to rumble")
            });
            if !has_ended {
                return Daemon { child, port, log };
            }
        }
        panic!("git daemon does not start: {}", fs_err::read_to_string(&log).unwrap());
    }

    /// Returns the address of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// Returns how many requests for repositories came so far.
    pub fn requests(&self) -> usize {
        let log = fs_err::read_to_string(&self.log).unwrap();
        log.lines().filter(|line| line.contains("Request upload-pack")).count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It serves each request by a process of its own; these end with their connections.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repository with a work tree, below `repositories` of a place.
pub struct Repository<'a> {
    place: &'a Place,
    name: String,
}

impl<'a> Repository<'a> {
    /// Makes an empty one.
    pub fn new(place: &'a Place, name: &str) -> Repository<'a> {
        let repository = Repository { place, name: name.to_owned() };
        fs_err::create_dir_all(repository.path("")).unwrap();
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Returns a path in its work tree.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path("repositories").join(&self.name).join(name)
    }

    /// Writes a file of its work tree.
    pub fn write(&self, name: &str, content: &str) {
        self.place.write(&format!("repositories/{}/{name}", self.name), content);
    }

    /// Commits all of its work tree; returns the commit.
    pub fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in it.
    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        git(self.place, &self.path("")).args(args).ok().text()
    }
}

/// Returns git, about to run in a directory, as somebody whose clock stands still.
pub fn git(place: &Place, directory: &Path) -> Run {
    let who =
        [("NAME", "somebody"), ("EMAIL", "somebody@git.example"), ("DATE", "1000000000 +0000")];
    let run = place.run("git", ["-C", text(directory), "-c", "safe.directory=*"]);
    who.iter().fold(run, |run, (key, value)| {
        run.env(&format!("GIT_AUTHOR_{key}"), value).env(&format!("GIT_COMMITTER_{key}"), value)
    })
}
