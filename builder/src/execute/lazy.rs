//! An executor that is started when it is needed.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use super::{
    CancelHandle, Execute, ExecuteError, Executor, InitCommand, Networks, Outcome, Output, Spec,
};

/// An executor whose helper is started when the first command is to be run.
#[derive(Debug)]
pub struct LazyExecutor {
    init: InitCommand,
    networks: Option<Networks>,
    started: OnceLock<Result<Executor, String>>,
}

impl LazyExecutor {
    /// Returns an executor that is not started yet.
    pub fn new(init: InitCommand) -> LazyExecutor {
        LazyExecutor { init, networks: None, started: OnceLock::new() }
    }

    /// Gives steps with [`Network::Default`](super::Network::Default) networks of `networks`.
    #[must_use]
    pub fn with_networks(self, networks: Networks) -> LazyExecutor {
        LazyExecutor { networks: Some(networks), ..self }
    }
}

impl Execute for LazyExecutor {
    fn run(
        &self,
        rootfs: OwnedFd,
        spec: &Spec,
        output: &mut dyn Output,
        cancel: &CancelHandle,
    ) -> Result<Outcome, ExecuteError> {
        let mut failure = None;
        let started = self.started.get_or_init(|| {
            let started = Executor::start(&self.init);
            started.map(|executor| executor.with_networks(self.networks.clone())).map_err(|error| {
                let text = error.to_string();
                failure = Some(error);
                text
            })
        });
        match started {
            Ok(executor) => executor.run(rootfs, spec, output, cancel),
            Err(_) => Err(failure.unwrap_or(ExecuteError::HelperDied)),
        }
    }
}
