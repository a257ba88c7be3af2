//! A configuration or a certificate that changes while the server runs.
//!
//! SIGHUP has both read again. A certificate is also read when its file changes, as tools that
//! renew certificates replace it and tell nobody. What cannot be used changes nothing: what was in
//! force stays, and the log says what is wrong.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boatyard_cache_proxy::forward::Proxy;
use boatyard_front::{Routes, Tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::{Services, Tending};
use crate::config::Config;
use crate::proxy::Changed;
use crate::report::{Context as _, Result};
use crate::world::World;

/// How often the files of a certificate are looked at.
const EVERY: Duration = Duration::from_secs(10);

/// A server that runs, and what it runs with.
#[derive(Debug)]
pub struct Running {
    /// The configuration in force.
    pub world: World,
    /// What it answers with.
    pub services: Services,
    /// What it answers.
    pub routes: Routes,
    /// What it does by itself with this configuration.
    pub tending: Tending,
    /// Its certificate.
    pub tls: Option<Arc<Tls>>,
    /// The cache proxy, where it listens.
    pub proxy: Option<Proxy>,
}

impl Running {
    /// Follows what changes, for ever.
    ///
    /// # Errors
    /// Where signals cannot be waited for.
    pub async fn follow(self) -> Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("cannot wait for signals")?;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certificate = Certificate::of(self.tls.clone());
        let mut running = self;
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = ticks.tick() => false,
            };
            let done = tokio::task::spawn_blocking(move || {
                if asked {
                    running.read_again();
                }
                certificate.look(asked, &running.services);
                (running, certificate)
            });
            let Ok(back) = done.await else { return Ok(()) };
            (running, certificate) = back;
        }
    }

    /// Reads the configuration again, and has requests from now on answered by it.
    fn read_again(&mut self) {
        let read = self.world.read_again().and_then(|world| {
            let answers = self.services.answers(&world)?;
            let changed = self
                .proxy
                .as_ref()
                .map(|proxy| Changed::of(&world, &self.services, proxy))
                .transpose()?;
            self.services.configure(&world)?;
            self.services.decide(&answers)?;
            Ok((world, answers, changed))
        });
        self.services.metrics().reloaded(read.is_ok());
        match read {
            Ok((world, answers, changed)) => {
                if let (Some(changed), Some(proxy)) = (changed, &self.proxy) {
                    changed.apply(proxy);
                }
                self.tending = answers.tend();
                self.routes.replace(answers.router);
                for key in fixed(&self.world.config, &world.config) {
                    tracing::warn!("{key} has changed: that needs a restart");
                }
                self.world = world;
                tracing::info!("the configuration was read again");
            }
            Err(failure) => {
                tracing::error!("the configuration stays as it was: {failure}");
            }
        }
    }
}

/// Returns the keys that differ and are read at the start only.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let differs = [
        ("root", old.root != new.root),
        ("serve.listen", old.serve.listen != new.serve.listen),
        ("serve.tls_cert", old.serve.tls_cert != new.serve.tls_cert),
        ("serve.tls_key", old.serve.tls_key != new.serve.tls_key),
        ("[limits] of connections", old.limits.of_connections() != new.limits.of_connections()),
        ("serve.stop_seconds", old.serve.stop_seconds != new.serve.stop_seconds),
        ("[metrics]", old.metrics != new.metrics),
        ("[log]", old.log != new.log),
        ("[traces]", old.traces != new.traces),
        ("gc.every", old.gc.every != new.gc.every),
        ("proxy.listen", old.proxy.listen != new.proxy.listen),
        ("proxy.off", old.proxy.off != new.proxy.off),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The files of a certificate, as they were when it was read.
#[derive(Debug)]
struct Certificate {
    tls: Option<Arc<Tls>>,
    seen: Vec<Option<Seen>>,
    /// The last reason for which they could not be used: it is told once.
    refused: Option<String>,
}

/// What tells a file that was replaced or written from the one before.
type Seen = (u64, i64, i64, u64);

impl Certificate {
    fn of(tls: Option<Arc<Tls>>) -> Certificate {
        let seen = tls.as_deref().map_or_else(Vec::new, seen);
        Certificate { tls, seen, refused: None }
    }

    /// Reads the files if they have changed, or if somebody asks.
    fn look(&mut self, asked: bool, services: &Services) {
        let Some(tls) = &self.tls else { return };
        let now = seen(tls);
        // Certificate and key are two files: until both are new they may not fit.
        if !asked && now == self.seen && self.refused.is_none() {
            return;
        }
        match tls.reload() {
            Ok(()) => {
                services.metrics().reloaded(true);
                tracing::info!("the certificate was read again");
                self.refused = None;
            }
            Err(error) => {
                let reason = crate::report::Failure::new("the certificate stays as it was")
                    .because(error)
                    .to_string();
                if self.refused.as_ref() != Some(&reason) {
                    services.metrics().reloaded(false);
                    tracing::error!("{reason}");
                }
                self.refused = Some(reason);
            }
        }
        self.seen = now;
    }
}

fn seen(tls: &Tls) -> Vec<Option<Seen>> {
    let look = |path: &Path| {
        let metadata = fs_err::metadata(path).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
    };
    let files = tls.files();
    [&files.certificate, &files.key].into_iter().map(|path| look(path)).collect()
}
