//! The surroundings of a step that failed, kept so that somebody can look around.

use std::path::PathBuf;

use crate::execute::{CancelHandle, Console, Execute, MountKind, Outcome, Output, Spec};
use crate::run::RunError;
use crate::snapshot::Active;
use crate::snapshot::layers::Temporary;
use crate::stage::Furnished;

/// What a failed step saw and left: its files, and what it was run with. Dropped, it is gone.
#[derive(Debug)]
pub struct Scene {
    spec: Spec,
    /// What its mounts are made of.
    furnished: Furnished,
    /// The script of a heredoc, which is mounted.
    _script: Option<Temporary>,
    active: Active,
    stubs: PathBuf,
    shell: Vec<String>,
}

impl Scene {
    /// Keeps what a step had, but for its secrets: nobody gave them to whoever looks around.
    pub(crate) fn new(
        active: Active,
        mut spec: Spec,
        furnished: Furnished,
        stubs: PathBuf,
        shell: Vec<String>,
        script: Option<Temporary>,
    ) -> Scene {
        spec.secret_env.clear();
        spec.mounts.retain(|mount| !matches!(mount.kind, MountKind::Secret { .. }));
        Scene { spec, furnished, _script: script, active, stubs, shell }
    }

    /// Runs a command where the step failed, as its user, in its directory, with its environment,
    /// mounts (but for secrets) and network: the step's shell, or what that shell is to run.
    ///
    /// # Errors
    /// Where it could not be started. A command that starts and fails is no error.
    pub fn run(
        &self,
        executor: &dyn Execute,
        command: Option<&str>,
        console: Console,
        output: &mut dyn Output,
        cancel: &CancelHandle,
    ) -> Result<Outcome, RunError> {
        let mut spec = self.spec.clone();
        let program = self.shell.first().cloned().unwrap_or_else(|| "/bin/sh".to_owned());
        spec.args = match command {
            Some(command) => self.shell.iter().cloned().chain([command.to_owned()]).collect(),
            None => vec![program],
        };
        if matches!(console, Console::Terminal) && spec.env.iter().all(|(name, _)| name != "TERM") {
            spec.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        spec.console = console;
        spec.timeout = None;
        self.furnished.mount_again(&mut spec).map_err(RunError::Mount)?;
        let mount = self.active.mount(Some(&self.stubs)).map_err(RunError::Mount)?;
        Ok(executor.run(mount, &spec, output, cancel)?)
    }
}
