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

/// Returns what is demanded of public packages and cannot be had of an ecosystem, a line each:
/// whoever demands it is not to believe that it is done.
pub fn unheeded(config: &config::Proxy) -> Vec<String> {
    const HEEDING: [&str; 3] = ["npm", "pypi", "cargo"];
    let mut lines = Vec::new();
    for upstream in config.upstream.iter().filter(|upstream| upstream.url.is_some()) {
        let ecosystem = upstream.ecosystem.as_deref();
        if ecosystem.is_some_and(|ecosystem| HEEDING.contains(&ecosystem)) {
            continue;
        }
        let of = match ecosystem {
            Some(ecosystem) => format!("in {ecosystem}"),
            None => "without an `ecosystem`".to_owned(),
        };
        let age = upstream.minimum_release_age.or(config.minimum_release_age);
        let withdrawn = upstream.withdrawn.or(config.withdrawn);
        let demands = [
            ("minimum_release_age", "0s", age.is_some_and(|age| age > Duration::ZERO)),
            ("withdrawn", "serve", withdrawn.is_some_and(|it| it != config::Withdrawn::Serve)),
        ];
        for (key, off, _) in demands.into_iter().filter(|(_, _, is_demanded)| *is_demanded) {
            lines.push(format!(
                "`{key}` holds back nothing of the upstream `{}`: {of} the proxy reads no index that \
                 says it (`{key} = \"{off}\"` there takes note of that)",
                upstream.name
            ));
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_said() {
        let text = "minimum_release_age = \"3d\"\nwithdrawn = \"refuse\"\n\
            upstream = [{ name = \"js\", url = \"http://a.example\", ecosystem = \"npm\" },\
            { name = \"rb\", url = \"http://b.example\", ecosystem = \"gem\", withdrawn = \"serve\" },\
            { name = \"any\", url = \"http://c.example\", minimum_release_age = \"0s\" },\
            { name = \"own\", ecosystem = \"maven\" }]";
        let lines = unheeded(&toml::from_str(text).unwrap());
        let starts = [
            "`minimum_release_age` holds back nothing of the upstream `rb`: in gem ",
            "`withdrawn` holds back nothing of the upstream `any`: without an `ecosystem` ",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }
}
