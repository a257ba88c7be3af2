//! apt itself, with sources, lists and caches of its own.

use std::path::PathBuf;
use std::process::Command;

/// A machine's apt.
pub struct Apt {
    home: tempfile::TempDir,
}

/// What a run of it said.
#[derive(Debug)]
pub struct Ran {
    /// Whether it ended well.
    pub is_ok: bool,
    /// All that it said.
    pub text: String,
}

impl Ran {
    /// Checks that it ended well.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert!(self.is_ok, "{}", self.text);
        self
    }

    /// Checks that it ended badly and said this.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Ran {
        assert!(!self.is_ok && self.text.contains(text), "{text}: {}", self.text);
        self
    }
}

impl Apt {
    /// Makes a machine with these sources; `proxy` is the value of `Acquire::http::Proxy`, empty for
    /// none.
    pub fn new(sources: &str, proxy: &str) -> Apt {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        for directory in ["lists/partial", "archives/partial", "none"] {
            fs_err::create_dir_all(path(directory)).unwrap();
        }
        fs_err::write(path("status"), "").unwrap();
        fs_err::write(path("sources.list"), sources).unwrap();
        let proxy = if proxy.is_empty() { "DIRECT" } else { proxy };
        let at = home.path().display();
        let config = format!(
            "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"{at}/none\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"{at}/none\";\n\
             Dir::Etc::trusted \"/dev/null\";\nDir::Etc::trustedparts \"{at}/none\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"{at}/none\";\n\
             Dir::State::status \"{at}/status\";\nDir::State::lists \"{at}/lists\";\n\
             Dir::State::extended_states \"{at}/extended\";\nDir::Cache \"{at}\";\n\
             Dir::Cache::archives \"{at}/archives\";\nDir::Log \"{at}\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"\";\nAPT::Update::Error-Mode \"any\";\n\
             Acquire::http::Proxy \"{proxy}\";\nAcquire::Languages \"none\";\nAcquire::Retries \"0\";\n\
             Acquire::Check-Valid-Until \"true\";\nAcquire::Check-Date \"true\";\n\
             Debug::NoLocking \"true\";\nDebug::Acquire::http \"false\";\n"
        );
        fs_err::write(path("apt.conf"), config).unwrap();
        Apt { home }
    }

    /// Updates the lists.
    pub fn update(&self) -> Ran {
        self.run("apt-get", &["update"])
    }

    /// Returns the version of a package that the lists have.
    #[track_caller]
    pub fn version(&self, package: &str) -> String {
        let shown = self.run("apt-cache", &["show", package]).ok();
        let version = shown.text.lines().find_map(|line| line.strip_prefix("Version: "));
        version.unwrap_or_else(|| panic!("{}", shown.text)).to_owned()
    }

    /// Downloads packages, which checks them against the lists.
    pub fn download(&self, packages: &[&str]) -> Ran {
        let archives = self.home.path().join("archives");
        for file in fs_err::read_dir(archives).unwrap().flatten() {
            if file.file_type().unwrap().is_file() {
                fs_err::remove_file(file.path()).unwrap();
            }
        }
        let args = ["install", "--download-only", "--yes", "--no-install-recommends"];
        self.run("apt-get", &[&args[..], packages].concat())
    }

    /// Returns a file of its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs a program of apt's.
    pub fn run(&self, program: &str, args: &[&str]) -> Ran {
        let output = Command::new(program)
            .args(args)
            .env("APT_CONFIG", self.path("apt.conf"))
            .env("LC_ALL", "C")
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .env_remove("no_proxy")
            .output()
            .expect("apt is installed");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ran { is_ok: output.status.success(), text }
    }
}
