//! What the configuration says about tags and space, as the registry keeps to it.

use boatyard_registry::{Immutable, QuotaRule, RetentionRule};

use crate::config::Config;
use crate::report::{Failure, Result};

/// Returns the rules of retention.
pub fn retention(config: &Config) -> Result<Vec<RetentionRule>> {
    let rules: Vec<RetentionRule> = config.retention.iter().map(RetentionRule::from).collect();
    for (at, rule) in rules.iter().enumerate() {
        rule.check().map_err(|problem| {
            Failure::usage(format!("[[retention]] {}: {problem}", rule.title(at)))
        })?;
    }
    Ok(rules)
}

/// Returns the tags that cannot be moved.
pub fn immutable(config: &Config) -> Immutable {
    Immutable::new(config.immutable.iter().map(Into::into).collect())
}

/// Returns the quotas.
pub fn quotas(config: &Config) -> Result<Vec<QuotaRule>> {
    let rules: Vec<QuotaRule> = config.quota.iter().map(QuotaRule::from).collect();
    for rule in &rules {
        if rule.bytes_max.is_none() && rule.tags_max.is_none() {
            let problem = "limits nothing: say max_size or max_tags";
            return Err(Failure::usage(format!("[[quota]] `{}` {problem}", rule.title())));
        }
    }
    Ok(rules)
}
