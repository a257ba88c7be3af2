//! `boatyard proxy why`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use boatyard_cache_proxy::catalogue;
use boatyard_cache_proxy::engine::Explanation;
use boatyard_cache_proxy::statistics::Counters;
use boatyard_cache_proxy::{Admitted, Class, Entry, Request};
use boatyard_upstream::freshness::{Decision, Directives};
use http::{HeaderMap, Method};
use serde::Serialize;

use crate::access;
use crate::cli::runtime;
use crate::output;
use crate::proxy::record::Recorded;
use crate::proxy::{engine, target_of};
use crate::report::{Failure, Result};
use crate::world::World;

/// Say what is kept of an address and what a request for it would get, and why.
///
/// No upstream is asked. The answer is for a client that sends no header of its own; what it cannot
/// know is what a running server has in memory alone: that an upstream failed a moment ago.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address: a URL, or NAME/path of a configured upstream
    url: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    url: String,
    upstream: Option<String>,
    ecosystem: Option<&'static str>,
    /// What would become of a request: `serve`, `revalidate`, `fetch` or `pass`.
    would: &'static str,
    why: String,
    notes: Vec<String>,
    kept: Vec<Kept>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<crate::proxy::record::Decided>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    digest: String,
    bytes: u64,
    received_at: jiff::Timestamp,
    from: String,
    verified_by: Option<String>,
    varies: Vec<String>,
    headers: Vec<String>,
}

/// Explains.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let Some((target, upstream)) = target_of(world, &args.url)? else {
        return Err(Failure::usage(format!("`{}` is no address", args.url))
            .hint("write it as http://HOST/PATH, or as NAME/PATH of a configured upstream"));
    };
    let root = world.open_root()?;
    let request = Request {
        method: Method::GET,
        target: target.clone(),
        headers: HeaderMap::new(),
        upstream: upstream.clone(),
        base: None,
        client: ([127, 0, 0, 1], 0).into(),
        admitted: Admitted::default(),
    };
    let authority = access::open(world, &root, &[])?;
    let engine = engine(world, &root, &authority, Arc::new(Counters::default()))?;
    let explanation = runtime()?.block_on(engine.explain(&request));
    let (would, why) = verdict(&explanation);
    let kept = catalogue::of(&root, &target).map(|listed| listed.entries).unwrap_or_default();
    let report = Report {
        url: target.to_string(),
        upstream: upstream.map(|upstream| upstream.name.clone()),
        ecosystem: explanation.ecosystem,
        would,
        why,
        notes: explanation.notes,
        kept: kept.iter().map(Kept::of).collect(),
        last: Recorded::read(root.path()).last(target.as_str()).cloned(),
    };
    if args.json {
        output::json(&report)?;
    } else {
        for line in report.lines() {
            output::line(&output::one_line(&line))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what would become of a request, and by which rule.
fn verdict(explanation: &Explanation) -> (&'static str, String) {
    let Explanation { class, kept, freshness, .. } = explanation;
    let promise = class.as_ref().and_then(Class::promise);
    if let Some(promise) = promise {
        let by = &promise.by;
        return match kept {
            Some(_) if !explanation.is_refuted => {
                ("serve", format!("it is what {by} promises, and never asked for again"))
            }
            _ if explanation.is_at_hand => {
                ("serve", format!("the bytes that {by} promises are here, from another address"))
            }
            Some(_) => ("fetch", format!("{by} promises other bytes than those that are kept")),
            None => ("fetch", format!("nothing is kept; {by} says which bytes are taken")),
        };
    }
    match (class, kept, freshness) {
        (None, ..) => ("serve", "its ecosystem answers for it: see below".to_owned()),
        (Some(Class::Pass), ..) => ("pass", "what is of this kind is never kept".to_owned()),
        (Some(Class::Immutable(_)), Some(_), _) => {
            ("serve", "what has such a name never changes".to_owned())
        }
        (Some(Class::Mutable(mutable)), Some(_), _) if mutable.always_ask => {
            ("revalidate", "nobody vouches for it: the upstream is asked on each use".to_owned())
        }
        (_, Some(entry), Some(Decision::Fresh { age })) => {
            ("serve", format!("it is fresh: {}, and it is {} old", rule(entry), time(*age)))
        }
        (_, Some(entry), Some(Decision::Revalidate(conditions))) => {
            let away = match conditions.on_error {
                true => "it is served while the upstream does not answer",
                false => "without the upstream it is not served, as that wants it",
            };
            let how = match conditions.headers.is_empty() {
                true => "all of it is fetched again, for it has neither ETag nor Last-Modified",
                false => "the upstream is asked whether it has changed",
            };
            let age = time(conditions.age);
            (
                "revalidate",
                format!("it is stale: {}, and it is {age} old; {how}; {away}", rule(entry)),
            )
        }
        _ => ("fetch", "nothing is kept of it".to_owned()),
    }
}

/// Says which rule of HTTP tells how long an answer is fresh.
fn rule(entry: &Entry) -> String {
    let headers = &entry.policy.headers;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(control) = text("cache-control")
        && Directives::of(headers) != Directives::default()
    {
        return format!("`Cache-Control: {control}`");
    }
    match (text("expires"), text("last-modified")) {
        (Some(expires), _) => format!("`Expires: {expires}`"),
        (None, Some(modified)) => {
            format!("a tenth of its age when it came, by `Last-Modified: {modified}`")
        }
        (None, None) => "the upstream did not say how long it holds".to_owned(),
    }
}

fn time(time: Duration) -> String {
    output::span(time).to_lowercase()
}

impl Kept {
    fn of(entry: &Entry) -> Kept {
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        let varies = entry.policy.varied.iter().map(|(name, values)| {
            let values: Vec<_> =
                values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            format!("{name}: {}", values.join(", "))
        });
        Kept {
            digest: entry.blob.to_string(),
            bytes: entry.size,
            received_at: entry.policy.received,
            from: entry.from.clone(),
            verified_by: entry.verified.clone(),
            varies: varies.collect(),
            headers: entry.policy.headers.iter().map(header).collect(),
        }
    }
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.url.clone()];
        lines.extend(self.upstream.as_ref().map(|name| format!("  upstream    {name}")));
        lines.extend(self.ecosystem.map(|name| format!("  ecosystem   {name}")));
        lines.push(format!("  would       {}: {}", self.would, self.why));
        lines.extend(self.notes.iter().map(|note| format!("  note        {note}")));
        for kept in &self.kept {
            lines.push(format!("  kept        {}, {}", kept.digest, output::size(kept.bytes)));
            lines.push(format!("    fetched   {} from {}", kept.received_at, kept.from));
            let by = kept.verified_by.as_deref().unwrap_or("nothing");
            lines.push(format!("    vouched   by {by}"));
            lines.extend(kept.varies.iter().map(|header| format!("    variant   {header}")));
            lines.extend(kept.headers.iter().map(|header| format!("    header    {header}")));
        }
        lines.extend(
            self.last.as_ref().map(|last| {
                format!("  last        {} {} at {}", last.outcome, last.status, last.at)
            }),
        );
        lines
    }
}
