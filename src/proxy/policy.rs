//! What the configuration says of upstreams, as the cache proxy wants it.

use std::time::Duration;

use boatyard_cache_proxy::policy::{NamePatterns, Policy, Rule, Rules, Treatment, Withdrawn};

use crate::config::{self, ProxyRule, ProxyUpstream, UrlIs};
use crate::report::{Context as _, Failure, Result};

/// Returns the policy of an upstream.
pub fn of(configured: &ProxyUpstream, defaults: &config::Proxy, base: &str) -> Result<Policy> {
    let exclude: Vec<&String> = defaults
        .minimum_release_age_exclude
        .iter()
        .chain(&configured.minimum_release_age_exclude)
        .collect();
    let age = configured.minimum_release_age.or(defaults.minimum_release_age);
    let withdrawn = match configured.withdrawn.or(defaults.withdrawn) {
        None | Some(config::Withdrawn::Serve) => Withdrawn::Serve,
        Some(config::Withdrawn::Warn) => Withdrawn::Warn,
        Some(config::Withdrawn::Refuse) => Withdrawn::Refuse,
    };
    let names = |names: &[&String], key: &str| {
        NamePatterns::new(names)
            .context(format!("`{key}` of the upstream `{}` cannot be used", configured.name))
    };
    Ok(Policy {
        private: names(&configured.private.iter().collect::<Vec<_>>(), "private")?,
        minimum_age: age.filter(|age| *age > Duration::ZERO),
        minimum_age_exclude: names(&exclude, "minimum_release_age_exclude")?,
        withdrawn,
        rules: rules(&configured.rules, Some(base))?,
    })
}

/// Returns rules for URLs; a pattern may lie below `base`.
pub fn rules(configured: &[ProxyRule], base: Option<&str>) -> Result<Rules> {
    let rule = |rule: &ProxyRule| {
        let treatment = match (rule.is, rule.r#for) {
            (UrlIs::Immutable, None) => Treatment::Immutable,
            (UrlIs::Pass, None) => Treatment::Pass,
            (UrlIs::Revalidate, time) => Treatment::Revalidate(time.unwrap_or_default()),
            (_, Some(_)) => {
                let url = &rule.url;
                return Err(Failure::usage(format!(
                    "the rule for `{url}`: `for` needs `revalidate`"
                )));
            }
        };
        Rule::new(&rule.url, base, treatment).context("a rule of the cache proxy cannot be used")
    };
    Ok(Rules::new(configured.iter().map(rule).collect::<Result<_>>()?))
}
