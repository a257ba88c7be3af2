//! The surroundings of a step that failed, kept so that somebody can look around.

use std::path::PathBuf;

use crate::execute::{CancelHandle, Console, Execute, Outcome, Output, Spec};
use crate::run::RunError;
use crate::snapshot::Active;
use crate::snapshot::layers::Temporary;

/// What a failed step saw and left: its files, and what it was run with. Dropped, it is gone.
#[derive(Debug)]
pub struct Scene {
    pub(crate) active: Active,
    pub(crate) spec: Spec,
    pub(crate) stubs: PathBuf,
    pub(crate) shell: Vec<String>,
    /// The script of a heredoc, which is mounted.
    pub(crate) _script: Option<Temporary>,
}

impl Scene {
    /// Runs a command where the step failed, as its user, in its directory, with its environment,
    /// mounts and network: the step's shell, or what that shell is to run.
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
        let mount = self.active.mount(Some(&self.stubs)).map_err(RunError::Mount)?;
        Ok(executor.run(mount, &spec, output, cancel)?)
    }
}
