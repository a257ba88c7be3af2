//! `--debug-on-error`: a shell where a step failed.

use std::io::IsTerminal as _;

use boatyard_builder::build::Scene;
use boatyard_builder::execute::{CancelHandle, Console, Execute, Outcome, Source};
use tokio::runtime::Runtime;

use super::options::Args;
use crate::cli::run::Attendant;
use crate::progress::{Ending, Reporter, Summary};
use crate::report::{self, Context as _, Failure, Result};

/// How one looks around where a step failed.
pub struct Debug<'a> {
    /// What the shell runs; it reads the terminal if that is nothing.
    command: Option<&'a str>,
    reporter: &'a Reporter,
}

impl<'a> Debug<'a> {
    /// Returns what was asked for, if it is possible here.
    pub fn of(args: &'a Args, reporter: &'a Reporter) -> Option<Debug<'a>> {
        let command = args.debug_shell.as_deref();
        if !args.debug_on_error && command.is_none() {
            return None;
        }
        let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if command.is_none() && !is_terminal {
            report::warn(
                "--debug-on-error needs a terminal, and this is none: --debug-shell names a \
                 command to run instead",
            );
            return None;
        }
        Some(Debug { command, reporter })
    }

    /// Tells of the failure, and opens the shell. However that ends, the build has failed.
    pub fn look_around(
        &self,
        scene: &Scene,
        failure: &Failure,
        executor: &dyn Execute,
        runtime: &Runtime,
    ) {
        self.reporter.finish(&Summary { ending: Ending::Failed, text: String::new() });
        report::note(&failure.to_string());
        report::note(match self.command {
            Some(_) => "debug: the step's files as it left them:",
            None => "debug: a shell in the step's files as it left them; `exit` ends the build",
        });
        match self.run(scene, executor, runtime) {
            Ok(Outcome::Exited(0)) => {}
            Ok(outcome) => report::note(&format!("debug: the shell ended: {outcome}")),
            Err(failure) => report::note(&failure.to_string()),
        }
    }

    fn run(&self, scene: &Scene, executor: &dyn Execute, runtime: &Runtime) -> Result<Outcome> {
        let cancel = CancelHandle::new().context("cannot prepare to be cancelled")?;
        let console = match self.command {
            None => Console::Terminal,
            Some(_) => {
                let nothing = fs_err::File::open("/dev/null").context("cannot open /dev/null")?;
                Console::Input(Source::new(nothing.into_parts().0.into()))
            }
        };
        let mut attendant = Attendant::new(runtime, &cancel, self.command.is_none())?;
        let outcome = scene.run(executor, self.command, console, &mut attendant, &cancel);
        // What it wrote last is still on its way.
        drop(attendant);
        outcome.context("cannot open a shell where the step failed")
    }
}
