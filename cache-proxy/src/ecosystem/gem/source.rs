//! One address for many sources: bundler with `mirror.all` sends every request to it, and names the
//! source of the Gemfile in `X-Gemfile-Source`.
//!
//! ```text
//! BUNDLE_MIRROR__ALL=http://proxy.example:3142         the source that the Gemfile names
//! BUNDLE_MIRROR__ALL=http://proxy.example:3142/gems    the same where an upstream has its URL, and
//!                                                      otherwise the upstream `gems`
//! ```

use http::HeaderMap;

use super::address;
use crate::headers::X_GEMFILE_SOURCE;
use crate::target::Target;
use crate::upstreams::Upstreams;

/// Returns what a request is for by the source that it names; `path` as in the request's line,
/// without the slash that it begins with. `None` where the path alone says it.
pub fn target(upstreams: &Upstreams, path: &str, headers: &HeaderMap) -> Option<Target> {
    let source: Target = headers.get(X_GEMFILE_SOURCE)?.to_str().ok()?.parse().ok()?;
    if source.url().query().is_some() {
        return None;
    }
    let base = source.as_str().trim_end_matches('/');
    let (name, below) = path.split_once('/').unwrap_or((path, ""));
    let below_base = |path: &str| format!("{base}/{path}").parse().ok();
    let Some(named) = upstreams.named(name).filter(|_| is_index(below)) else {
        return is_index(path).then(|| below_base(path)).flatten();
    };
    let target: Target = below_base(below)?;
    let (other, _) = upstreams.of(&target)?;
    (other.name != named.name).then_some(target)
}

/// Says whether a path is one of a source, all of it.
fn is_index(path: &str) -> bool {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let api = path.starts_with("api/v1/dependencies");
    let whole = format!("/{path}");
    api || (query.is_empty() && address::kind(&whole).is_some_and(|(above, _)| above == "/"))
}
