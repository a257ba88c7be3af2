//! What a command works with: the configuration, the root, the client of other registries.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boatyard_builder::execute::Rung;
use boatyard_builder::snapshot::Layers;
use boatyard_content::local::{RootError, RootOptions};
use boatyard_content::{Lease, Root};

use crate::config::Config;
use crate::isolation::{Account, Snapshots};
use crate::report::{Context as _, Failure, Result};

/// What the environment says, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The home directory.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// `DOCKER_CONFIG`.
    pub docker_config: Option<PathBuf>,
    /// `REGISTRY_AUTH_FILE`.
    pub auth_file: Option<PathBuf>,
    /// `PATH`: where programs of others are looked for.
    pub path: Vec<PathBuf>,
    /// `SSH_AUTH_SOCK`.
    pub ssh_agent: Option<PathBuf>,
    /// The variables that name proxies: programs of others that we run need them.
    pub proxies: Vec<(OsString, OsString)>,
    /// Whether this is the superuser.
    pub superuser: bool,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn read() -> Environment {
        let path = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        Environment {
            home: path("HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            data_home: path("XDG_DATA_HOME"),
            runtime: path("XDG_RUNTIME_DIR"),
            docker_config: path("DOCKER_CONFIG"),
            auth_file: path("REGISTRY_AUTH_FILE"),
            path: path("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect()),
            ssh_agent: path("SSH_AUTH_SOCK"),
            proxies: std::env::vars_os().filter(|(name, _)| is_proxy(name)).collect(),
            superuser: rustix::process::geteuid().is_root(),
        }
    }

    /// Returns the directory of a user's configuration.
    pub fn config_directory(&self) -> Option<PathBuf> {
        let base = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")));
        base.map(|base| base.join("boatyard"))
    }

    /// Returns where a configuration is looked for.
    pub fn usual_configs(&self) -> Vec<PathBuf> {
        let user = self.config_directory().map(|directory| directory.join("boatyard.toml"));
        user.into_iter().chain([PathBuf::from("/etc/boatyard/boatyard.toml")]).collect()
    }

    /// Returns where a root is if nobody says.
    fn default_root(&self) -> Result<PathBuf> {
        if self.superuser {
            return Ok(PathBuf::from("/var/lib/boatyard"));
        }
        let base =
            self.data_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")));
        base.map(|base| base.join("boatyard")).ok_or_else(|| {
            Failure::usage("cannot tell where to keep things: HOME is not set")
                .hint("name a directory with --root")
        })
    }
}

/// Says whether a variable names a proxy, or who is reached without one.
fn is_proxy(name: &OsStr) -> bool {
    let names = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
    name.to_str().is_some_and(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// What a command works with.
#[derive(Clone, Debug)]
pub struct World {
    /// The configuration.
    pub config: Config,
    /// What the environment says.
    pub environment: Environment,
    snapshots: Snapshots,
    rung: Rung,
    root: PathBuf,
    command: &'static str,
    /// The file that the configuration was read from, or is to be read from.
    config_file: Option<PathBuf>,
}

impl World {
    /// Reads the configuration and decides where the root is.
    pub fn new(root: Option<&Path>, config: Option<&Path>, command: &'static str) -> Result<World> {
        let mut environment = Environment::read();
        let config_file = Config::find(config, &environment.usual_configs());
        let config = config_file.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
        let root = match root.or(config.root.as_deref()) {
            Some(root) => root.to_path_buf(),
            None => environment.default_root()?,
        };
        if environment.superuser
            && let Some(owner) = Account::of_root(&root)
        {
            owner.enter()?;
            environment.superuser = false;
            environment.home = Some(owner.home);
        }
        Ok(World {
            config,
            environment,
            snapshots: Snapshots::default(),
            rung: Rung::Full,
            root,
            command,
            config_file,
        })
    }

    /// Returns the same world with its configuration read again.
    pub fn read_again(&self) -> Result<World> {
        let config =
            self.config_file.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
        Ok(World { config, ..self.clone() })
    }

    /// Returns the same world with the configuration of another file.
    pub fn with_config(&self, file: &Path) -> Result<World> {
        let config_file = Some(file.to_path_buf());
        Ok(World { config: Config::read(file)?, config_file, ..self.clone() })
    }

    /// Returns the file that the configuration was read from.
    pub fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    /// Returns the same world with another way to make snapshots.
    pub fn with_snapshots(self, snapshots: Snapshots) -> World {
        World { snapshots, ..self }
    }

    /// Returns the same world with another way to isolate steps.
    pub fn with_rung(&self, rung: Rung) -> World {
        World { rung, ..self.clone() }
    }

    /// Returns how steps are isolated.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Returns the same world with another root.
    pub fn with_root(&self, root: PathBuf) -> World {
        World { root, ..self.clone() }
    }

    /// Returns where the root is, or would be.
    pub fn root_path(&self) -> &Path {
        &self.root
    }

    /// Opens the unpacked layers of a root, in the view that works there.
    pub fn open_layers(&self, root: &Root, lease: &Lease) -> Result<Layers> {
        let choice = self.snapshots.choose(root.path(), self.rung)?;
        Layers::open(root.path(), lease.clone(), choice.view).context("cannot open unpacked layers")
    }

    /// Opens the root, and makes it where there is none.
    pub fn open_root(&self) -> Result<Arc<Root>> {
        Root::open(&self.root, self.root_options()).map_err(root_failure)
    }

    /// Opens the root for this process alone, and makes it where there is none.
    pub fn open_root_alone(&self) -> Result<Arc<Root>> {
        Root::open_alone(&self.root, self.root_options()).map_err(root_failure)
    }

    fn root_options(&self) -> RootOptions {
        RootOptions { command: self.command.to_owned(), ..RootOptions::default() }
    }
}

fn root_failure(error: RootError) -> Failure {
    let hint = match &error {
        RootError::Foreign { .. } => "name an empty directory, or a new one, with --root",
        RootError::Newer { .. } => "a newer Boatyard made it: use that one, or another --root",
        RootError::Owner { .. } => {
            "run as the user who owns it, or name a directory of your own with --root"
        }
        RootError::Unfit { missing, .. } => missing.feature.remedy(),
        RootError::Locked { .. } | RootError::InUse { .. } => "try again when it is done",
        RootError::Restoring { .. } => {
            "run `boatyard restore` again: it goes on where it was interrupted"
        }
        RootError::Store { .. } => "--root names another place",
    };
    Failure::new(error.to_string()).because(error).hint(hint)
}
