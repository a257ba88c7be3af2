//! What `serve` and the commands need of `access`: the policy of the configuration, the authority
//! of a root, and the log of who did what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boatyard_access::authority::WithoutRules;
use boatyard_access::{Audit, Authority, Deed, Entry, Policy, Rules, Surroundings};
use boatyard_content::Root;

use crate::config::Config;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// The shortest time for which a token is good: clients take a minute for granted.
const TOKEN_SECONDS_MIN: u32 = 60;

/// Opens the authority of a root, for a server that listens on `addresses`.
pub fn open(world: &World, root: &Root, addresses: &[SocketAddr]) -> Result<Arc<Authority>> {
    let policy = policy(&world.config, addresses)?;
    let audit = Arc::new(Audit::new(root.path()));
    Authority::open(&root.layout().access(), policy, audit)
        .context("cannot say who may do what")
        .map_err(|failure| failure.hint("`boatyard user list` reads the users' file, too"))
}

/// Opens the authority of a root, for a server on loopback that nobody has configured.
pub fn open_local(root: &Root) -> Result<Arc<Authority>> {
    let surroundings = Surroundings { all_loopback: true, ..Surroundings::default() };
    let policy = Policy { surroundings, ..Policy::default() };
    let audit = Arc::new(Audit::new(root.path()));
    Authority::open(&root.layout().access(), policy, audit).context("cannot say who may do what")
}

/// Reads what the configuration says about access.
pub fn policy(config: &Config, addresses: &[SocketAddr]) -> Result<Policy> {
    let rules = Rules::new(config.rules.clone(), &config.groups)
        .map_err(|problem| Failure::usage(format!("[[rule]]: {problem}")))?;
    let token_seconds = config.access.token_seconds;
    if token_seconds.is_some_and(|seconds| seconds < TOKEN_SECONDS_MIN) {
        return Err(Failure::usage(format!(
            "[access] token_seconds is less than {TOKEN_SECONDS_MIN}, which clients rely on"
        )));
    }
    if let Some(url) = &config.serve.public_url
        && !is_url(url)
    {
        return Err(Failure::usage(format!("[serve] public_url: `{url}` is no http or https URL")));
    }
    Ok(Policy {
        rules,
        surroundings: Surroundings {
            public_url: config.serve.public_url.clone(),
            proxies: config.serve.trusted_proxies.clone(),
            all_loopback: addresses.iter().all(|address| address.ip().is_loopback()),
        },
        htpasswd: config.access.htpasswd.clone(),
        token_seconds,
    })
}

/// Says whether a text can stand in a challenge as the URL of this server.
fn is_url(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-~%[]".contains(&b);
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain))
}

/// Says what holds where there are no rules.
pub fn announce(authority: &Authority) {
    match authority.without_rules() {
        None => {}
        Some(WithoutRules::LocalMayAll) => tracing::info!(
            "there is no [[rule]]: whoever reaches a loopback address of this machine may do \
             everything"
        ),
        Some(WithoutRules::PullOnly) => tracing::warn!(
            "there is no [[rule]] in the configuration, and not all addresses are loopback: \
             everybody may pull, nobody may push. To let somebody push: `boatyard user add NAME`, \
             and [[rule]] repositories = \"**\" who = [\"user:NAME\"] allow = [\"pull\", \"push\"]"
        ),
    }
}

/// Makes the audit log durable, a second after it was written to at the latest.
pub async fn keep_synced(audit: Arc<Audit>) {
    let mut clock =
        tokio::time::interval(Duration::from_secs(boatyard_access::audit::SYNC_SECONDS));
    loop {
        clock.tick().await;
        let audit = Arc::clone(&audit);
        // A log that cannot be synced says so itself.
        let _ = tokio::task::spawn_blocking(move || audit.sync()).await;
    }
}

/// Writes down what was done on this machine, by the owner of the root's files.
pub fn note(root: &Root, deed: Deed, target: &str, detail: Option<String>) -> Result<()> {
    let who = format!("uid:{}", rustix::process::getuid().as_raw());
    let mut entry = Entry::new(deed, who);
    entry.target = Some(target.to_owned());
    entry.detail = detail;
    Audit::new(root.path()).try_record(&entry).context("cannot write to the audit log")
}
