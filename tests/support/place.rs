//! A directory of a test's own, with a root and a home in it.

use std::path::{Path, PathBuf};

use super::Run;

/// A directory of a test's own; removed at the end.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Makes the directory. Its path is short: sockets lie below it.
    pub fn new() -> Place {
        assert!(rustix::process::geteuid().is_root(), "the end-to-end tests need root");
        let directory = tempfile::Builder::new().prefix("by-").tempdir().unwrap();
        let place = Place { directory };
        fs_err::create_dir(place.path("home")).unwrap();
        place
    }

    /// Returns a path below the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns Boatyard's root.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Returns our command, ready to run on [`Self::root`] with a home that holds nothing.
    pub fn boatyard<const N: usize>(&self, args: [&str; N]) -> Run {
        self.boatyard_at(&self.root(), args)
    }

    /// Returns our command on another root.
    pub fn boatyard_at<const N: usize>(&self, root: &Path, args: [&str; N]) -> Run {
        self.run(env!("CARGO_BIN_EXE_boatyard"), [])
            .env("BOATYARD_ROOT", root)
            .env_remove("BOATYARD_CONFIG")
            .env_remove("SOURCE_DATE_EPOCH")
            .args(args)
    }

    /// Returns another's program, ready to run with a home that holds nothing.
    pub fn run<const N: usize>(&self, program: &str, args: [&str; N]) -> Run {
        Run::new(program)
            .args(args)
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.directory.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("DOCKER_CONFIG")
            .env_remove("DOCKER_HOST")
    }

    /// Writes a file, and the directories that lead to it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        path
    }

    /// Writes a build context of a Dockerfile alone and returns its directory.
    pub fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        self.write(&format!("{name}/Dockerfile"), dockerfile);
        self.path(name)
    }
}

/// Returns a path as text: the paths of tests are.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
