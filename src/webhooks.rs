//! The webhooks that the configuration asks for.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boatyard_registry::Webhook;
use boatyard_upstream::transport::Transport;
use boatyard_upstream::{ProxyUse, Secret, Timeouts, Trust};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config;
use crate::remote;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// The longest time to connect in.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a webhook's name is, at most.
const NAME_LEN_MAX: usize = 64;

/// Returns the webhooks of the configuration. Blocking: it reads the files that they name.
pub fn open(world: &World) -> Result<Vec<Webhook>> {
    let mut names = BTreeSet::new();
    let mut webhooks = Vec::new();
    for configured in &world.config.webhook {
        let webhook = one(world, configured).map_err(|failure| {
            Failure::usage(format!("[[webhook]] `{}` cannot be used", configured.name))
                .because(failure.to_string().trim_start_matches("error: ").trim_end().to_owned())
        })?;
        if !names.insert(configured.name.as_str()) {
            let name = &configured.name;
            return Err(Failure::usage(format!("there are two [[webhook]] of the name `{name}`")));
        }
        webhooks.push(webhook);
    }
    Ok(webhooks)
}

fn one(world: &World, configured: &config::webhooks::Webhook) -> Result<Webhook> {
    let config::webhooks::Webhook { name, timeout, threshold, .. } = configured;
    let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(is_known) {
        return Err(Failure::usage("its name is not of lower-case letters, digits and `-`"));
    }
    let url: url::Url = configured.url.parse().context("its `url` cannot be read")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Failure::usage("its `url` is no http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::usage(
            "credentials do not belong into its `url`: see authorization_file",
        ));
    }
    if timeout.is_zero() || *threshold == 0 || configured.backoff.is_zero() {
        return Err(Failure::usage("`timeout`, `threshold` and `backoff` are not 0"));
    }
    let agent = HeaderValue::from_static(concat!("boatyard/", env!("CARGO_PKG_VERSION")));
    let timeouts = Timeouts { connect: CONNECT.min(*timeout), idle: *timeout };
    // Who is told is no registry: its registries.conf and certs.d say nothing of them.
    let trust = Trust { registries_conf: Vec::new(), ..remote::trust(world)? };
    Ok(Webhook {
        name: name.clone(),
        url,
        actions: configured.events.iter().copied().collect(),
        repositories: configured.repositories.clone(),
        headers: headers(configured)?,
        secret: match &configured.secret_file {
            Some(file) => Some(Secret::new(secret(file, "secret_file")?)),
            None => None,
        },
        threshold: *threshold,
        backoff: configured.backoff,
        transport: Arc::new(Transport::new(trust, timeouts, agent, ProxyUse::System)),
    })
}

fn headers(configured: &config::webhooks::Webhook) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &configured.headers {
        let wrong = || format!("`{}` cannot be a header", name.escape_debug());
        let name: HeaderName = name.parse().context(wrong())?;
        if name == header::AUTHORIZATION {
            return Err(Failure::usage(
                "`Authorization` is secret: it belongs into authorization_file",
            ));
        }
        let mut value = HeaderValue::try_from(value).context(wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    if let Some(file) = &configured.authorization_file {
        let text = secret(file, "authorization_file")?;
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| Failure::usage("what authorization_file holds cannot be a header"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// Reads a secret, which is not empty.
fn secret(file: &Path, key: &str) -> Result<String> {
    let text = fs_err::read_to_string(file).context(format!("cannot read {key}"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage(format!("{key} is empty")));
    }
    Ok(text.to_owned())
}
