//! What builds take from elsewhere beside images: files of URLs, and Git repositories.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use boatyard_builder::base::Say;
use boatyard_builder::secrets::Secrets;
use boatyard_builder::source::git::GitAddress;
use boatyard_builder::source::{Checksum, Fetch, FetchError, FetchedFile};
use boatyard_builder::ssh::{AgentSource, Agents};
use boatyard_content::{Lease, Root};
use boatyard_upstream::downloads::{Download, Downloads};
use boatyard_upstream::git::{GitProgram, Login, Repositories, Resolved, Ssh, Wanted};
use boatyard_upstream::redact::Secret;
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
    lent: Lent<'a>,
    downloads: OnceLock<Downloads>,
    repositories: Repositories,
    /// What references mean, by the remote and their names: nobody is asked twice in a build.
    resolved: Mutex<HashMap<(String, Option<String>), Resolved>>,
}

/// What a build lends: `--secret` and `--ssh`.
#[derive(Clone, Copy, Debug)]
pub struct Lent<'a> {
    /// Among them what servers are sent.
    pub secrets: &'a Secrets,
    /// `default` is the one that Git repositories are asked for with.
    pub agents: &'a Agents,
}

impl<'a> Sources<'a> {
    /// Returns what fetches into a root; `offline` asks nobody.
    pub fn new(
        world: &'a World,
        runtime: &'a Runtime,
        root: &Arc<Root>,
        lease: &Lease,
        offline: bool,
        lent: Lent<'a>,
    ) -> Sources<'a> {
        let environment = &world.environment;
        let program = GitProgram {
            search: environment.path.clone(),
            home: environment.home.clone(),
            ssh_agent: environment.ssh_agent.clone(),
            variables: environment.proxies.clone(),
            login: Login::default(),
        };
        Sources {
            world,
            runtime,
            root: Arc::clone(root),
            lease: lease.clone(),
            offline,
            lent,
            downloads: OnceLock::new(),
            repositories: Repositories::new(&root.layout().cache(), program, offline),
            resolved: Mutex::default(),
        }
    }

    /// Finds the commit of a reference. Who asks holds the lock: others wait.
    fn resolve(&self, address: &GitAddress) -> Result<Resolved, FetchError> {
        let (remote, reference) = (address.remote(), address.reference());
        let repositories = self.repositories(address)?;
        let key = (remote.to_owned(), reference.map(str::to_owned));
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = resolved.get(&key) {
            return Ok(found.clone());
        }
        let found = repositories.resolve(remote, reference)?;
        Ok(resolved.entry(key).or_insert(found).clone())
    }

    /// Returns the repositories, asked as whoever names the address may ask.
    fn repositories(&self, address: &GitAddress) -> Result<Repositories, FetchError> {
        let ssh = match self.lent.agents.get("default") {
            Some(AgentSource::Socket(socket)) => Ssh::Agent(socket.clone()),
            Some(AgentSource::Keys(keys)) => Ssh::Keys(keys.clone()),
            None if address.is_of_user() => Ssh::Own,
            None => Ssh::None,
        };
        let header = self.lent.of_repository(address.remote())?;
        Ok(self.repositories.with_login(Login { ssh, header }))
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

impl Lent<'_> {
    /// Returns the server of a repository and what it is sent: as in BuildKit, the secrets
    /// `GIT_AUTH_HEADER` and `GIT_AUTH_TOKEN`, those of the host (`GIT_AUTH_TOKEN.git.example`) first.
    fn of_repository(&self, remote: &str) -> Result<Option<(String, Secret)>, FetchError> {
        let Some((server, host)) = server_of(remote) else { return Ok(None) };
        for suffix in [format!(".{host}"), String::new()] {
            if let Some(header) = self.text(&format!("GIT_AUTH_HEADER{suffix}"))? {
                return Ok(Some((server, header)));
            }
            if let Some(token) = self.text(&format!("GIT_AUTH_TOKEN{suffix}"))? {
                return Ok(Some((server, Secret::basic("x-access-token", token.expose()))));
            }
        }
        Ok(None)
    }

    /// Returns what the server of a file is sent: `HTTP_AUTH_HEADER_files.example` and
    /// `HTTP_AUTH_TOKEN_files.example`.
    fn of_file(&self, url: &str) -> Result<Option<Secret>, FetchError> {
        let Some((_, host)) = server_of(url) else { return Ok(None) };
        if let Some(header) = self.text(&format!("HTTP_AUTH_HEADER_{host}"))? {
            return Ok(Some(header));
        }
        let token = self.text(&format!("HTTP_AUTH_TOKEN_{host}"))?;
        Ok(token.map(|token| Secret::new(format!("Bearer {}", token.expose()))))
    }

    /// Returns a secret that is one line of text.
    fn text(&self, id: &str) -> Result<Option<Secret>, FetchError> {
        let Some(bytes) = self.secrets.get(id)? else { return Ok(None) };
        let text = String::from_utf8(bytes).unwrap_or_default();
        let text = text.trim();
        if text.is_empty() || text.contains(char::is_control) {
            return Err(format!("the secret `{id}` is no line of text").into());
        }
        Ok(Some(Secret::new(text)))
    }
}

/// Returns `https://host:port/` and `host:port` of a URL; `None` where it is not of HTTP.
fn server_of(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return None;
    }
    let account = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = account.rsplit_once('@').map_or(account, |(_, host)| host).to_ascii_lowercase();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if host.is_empty() || !host.chars().all(is_plain) {
        return None;
    }
    Some((format!("{scheme}://{host}/"), host))
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
        let login = self.lent.of_file(url)?;
        let got = downloads.get(url, wanted, login.as_ref(), &self.lease);
        let got = self.runtime.block_on(got)?;
        if !got.was_here {
            say(&format!("fetched {} ({})", got.facts.from, crate::output::size(got.facts.size)));
        }
        fetched(got)
    }

    fn commit(&self, address: &GitAddress, say: &Say<'_>) -> Result<String, FetchError> {
        let found = self.resolve(address)?;
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
        Ok(self.repositories(address)?.checkout(&wanted, into)?)
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
