//! What builds take from elsewhere beside images: files of URLs, and Git repositories.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use boatyard_builder::base::Say;
use boatyard_builder::source::git::GitAddress;
use boatyard_builder::source::{Checksum, Fetch, FetchError, FetchedFile};
use boatyard_content::{Lease, Root};
use boatyard_upstream::downloads::{Download, Downloads};
use boatyard_upstream::git::{GitProgram, Repositories, Resolved, Wanted};
use boatyard_upstream::transport::Transport;
use boatyard_upstream::{ProxyUse, Timeouts};
use http::HeaderValue;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::runtime::Runtime;

use crate::remote;
use crate::report::Failure;
use crate::world::World;

/// How we call ourselves.
const USER_AGENT: &str = concat!("boatyard/", env!("CARGO_PKG_VERSION"));

/// Fetches for builds.
pub struct Sources<'a> {
    world: &'a World,
    runtime: &'a Runtime,
    root: Arc<Root>,
    lease: Lease,
    offline: bool,
    downloads: OnceLock<Downloads>,
    repositories: Repositories,
    /// What references mean, by the remote and their names: nobody is asked twice in a build.
    resolved: Mutex<HashMap<(String, Option<String>), Resolved>>,
}

impl<'a> Sources<'a> {
    /// Returns what fetches into a root; `offline` asks nobody.
    pub fn new(
        world: &'a World,
        runtime: &'a Runtime,
        root: &Arc<Root>,
        lease: &Lease,
        offline: bool,
    ) -> Sources<'a> {
        let environment = &world.environment;
        let program = GitProgram {
            search: environment.path.clone(),
            home: environment.home.clone(),
            ssh_agent: environment.ssh_agent.clone(),
            variables: environment.proxies.clone(),
        };
        Sources {
            world,
            runtime,
            root: Arc::clone(root),
            lease: lease.clone(),
            offline,
            downloads: OnceLock::new(),
            repositories: Repositories::new(&root.layout().cache(), program, offline),
            resolved: Mutex::default(),
        }
    }

    /// Finds the commit of a reference. Who asks holds the lock: others wait.
    fn resolve(&self, remote: &str, reference: Option<&str>) -> Result<Resolved, FetchError> {
        let key = (remote.to_owned(), reference.map(str::to_owned));
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = resolved.get(&key) {
            return Ok(found.clone());
        }
        let found = self.repositories.resolve(remote, reference)?;
        Ok(resolved.entry(key).or_insert(found).clone())
    }

    fn downloads(&self) -> Result<&Downloads, FetchError> {
        if let Some(downloads) = self.downloads.get() {
            return Ok(downloads);
        }
        let failed = |failure: Failure| failure.to_string().replacen("error: ", "", 1);
        let trust = remote::trust(self.world).map_err(failed)?;
        let agent = HeaderValue::from_static(USER_AGENT);
        let transport = Transport::new(trust, Timeouts::default(), agent, ProxyUse::System);
        let root = Arc::clone(&self.root);
        let downloads = Downloads::new(root, Arc::new(transport), self.offline);
        Ok(self.downloads.get_or_init(|| downloads))
    }
}

impl Fetch for Sources<'_> {
    fn file(
        &self,
        url: &str,
        checksum: Option<&Checksum>,
        say: &Say<'_>,
    ) -> Result<FetchedFile, FetchError> {
        let wanted = checksum.map(|it| (it.algorithm.name(), it.hex.as_str()));
        let downloads = self.downloads()?;
        let got = self.runtime.block_on(downloads.get(url, wanted, &self.lease))?;
        if !got.was_here {
            say(&format!("fetched {} ({})", got.facts.from, crate::output::size(got.facts.size)));
        }
        fetched(got)
    }

    fn commit(&self, address: &GitAddress, say: &Say<'_>) -> Result<String, FetchError> {
        let (remote, reference) = (address.remote(), address.reference());
        let found = self.resolve(remote, reference)?;
        if let Some(promised) = address.checksum() {
            let agrees = |id: &String| id.starts_with(promised);
            if !agrees(&found.commit) && !found.tag.as_ref().is_some_and(agrees) {
                let commit = &found.commit;
                return Err(format!("{address} is the commit {commit}, not {promised}").into());
            }
        }
        say(&format!("{address} is the commit {}", found.commit));
        Ok(found.commit)
    }

    fn checkout(
        &self,
        address: &GitAddress,
        commit: &str,
        keep_git_dir: bool,
        into: &Path,
        say: &Say<'_>,
    ) -> Result<(), FetchError> {
        let key = (address.remote().to_owned(), address.reference().map(str::to_owned));
        let known = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let reference = known.get(&key).and_then(|resolved| resolved.reference.clone());
        drop(known);
        say(&format!("checking out {commit}"));
        let wanted = Wanted {
            remote: address.remote(),
            commit,
            reference: reference.as_deref(),
            subdirectory: address.subdirectory(),
            submodules: address.submodules(),
            keep_git_dir,
        };
        Ok(self.repositories.checkout(&wanted, into)?)
    }
}

fn fetched(got: Download) -> Result<FetchedFile, FetchError> {
    let header = |name: &str| got.headers.get(name).and_then(|value| value.to_str().ok());
    let modified = header("last-modified").or(got.facts.modified.as_deref());
    let modified = modified.and_then(|text| DateTimeParser::new().parse_timestamp(text).ok());
    let name = header("content-disposition").or(got.facts.disposition.as_deref());
    Ok(FetchedFile {
        size: got.facts.size,
        content: *blake3_of(&got.facts.blake3).ok_or("what is kept of a file is damaged")?.as_ref(),
        modified,
        name: name.and_then(file_name),
        was_here: got.was_here,
        file: got.file,
    })
}

fn blake3_of(hex: &str) -> Option<Box<[u8; 32]>> {
    let mut bytes = Box::new([0; 32]);
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Reads the file name of a `Content-Disposition`: a single name, never a path.
fn file_name(text: &str) -> Option<String> {
    let parameters = text.split(';').skip(1).map(str::trim);
    let value =
        parameters.filter_map(|parameter| parameter.split_once('=')).find_map(|(key, value)| {
            key.trim().eq_ignore_ascii_case("filename").then_some(value.trim())
        })?;
    let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(value);
    let is_name =
        !value.is_empty() && !value.contains(['/', '\\', '\0']) && !value.starts_with('.');
    is_name.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_never_paths() {
        let table = [
            ("attachment; filename=\"a b.tar\"", Some("a b.tar")),
            ("attachment; FileName=x.bin; size=1", Some("x.bin")),
            ("attachment; filename=\"../x\"", None),
            ("attachment; filename=\"/etc/passwd\"", None),
            ("attachment; filename=.bashrc", None),
            ("attachment", None),
            ("inline; filename=", None),
        ];
        for (text, expected) in table {
            assert_eq!(file_name(text).as_deref(), expected, "{text}");
        }
    }
}
