//! What points clients of registries at a mirror.
//!
//! dockerd's own store asks a mirror of docker.io alone, and says neither which registry it means
//! nor anything in the path: the server needs a default upstream for that. containerd says it in
//! `ns`; podman and BuildKit put the mirror's name into the path.

use std::path::PathBuf;

use boatyard_oci::RegistryHost;
use serde_json::json;

use super::place::{Content, File, MARK, Settings};
use crate::config;
use crate::report::{Failure, Result};

/// How clients reach the server.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
    /// Without the scheme.
    address: String,
    plain_http: bool,
    ca: Option<PathBuf>,
}

/// A registry that is mirrored, and its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorOf {
    host: String,
    name: String,
    is_default: bool,
}

impl Server {
    /// Reads the URL of the server.
    pub fn new(url: &str, ca: Option<PathBuf>) -> Result<Server> {
        let wrong = || {
            Failure::usage(format!("`{url}` is not how this server is reached"))
                .hint("write http://HOST:PORT or https://HOST[:PORT]")
        };
        let (scheme, address) = url.split_once("://").ok_or_else(wrong)?;
        let address = address.trim_end_matches('/');
        if !["http", "https"].contains(&scheme) || address.parse::<RegistryHost>().is_err() {
            return Err(wrong());
        }
        Ok(Server {
            url: format!("{scheme}://{address}"),
            address: address.to_owned(),
            plain_http: scheme == "http",
            ca,
        })
    }
}

impl MirrorOf {
    /// Returns a mirror of the configuration.
    pub fn configured(mirror: &config::Mirror) -> Result<MirrorOf> {
        let url = mirror.url.split_once("://").map_or(mirror.url.as_str(), |(_, rest)| rest);
        let host = url.split('/').next().unwrap_or_default();
        let is_default = mirror.default || !mirror.default_for.is_empty();
        Ok(MirrorOf { host: canonical(host)?, name: mirror.name.clone(), is_default })
    }

    /// Reads `docker.io` or `docker.io=hub`.
    pub fn named(text: &str) -> Result<MirrorOf> {
        let (host, name) = text.split_once('=').unwrap_or((text, text));
        Ok(MirrorOf { host: canonical(host)?, name: name.to_owned(), is_default: true })
    }

    /// Where the registry itself is.
    fn server(&self) -> String {
        let host = match self.host.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        format!("https://{host}")
    }
}

fn canonical(host: &str) -> Result<String> {
    if host == "registry-1.docker.io" || host == "index.docker.io" {
        return Ok("docker.io".to_owned());
    }
    let host: RegistryHost = host
        .parse()
        .map_err(|error| Failure::usage(format!("`{host}` is no registry")).because(error))?;
    Ok(host.to_string())
}

/// dockerd.
pub fn docker(server: &Server, mirrors: &[MirrorOf]) -> Settings {
    let mut settings = Settings::default();
    let mut keys = json!({});
    if let Some(hub) = mirrors.iter().find(|mirror| mirror.host == "docker.io") {
        keys["registry-mirrors"] = json!([server.url]);
        if !hub.is_default {
            settings.notes.push(format!(
                "dockerd does not say which registry it means: give the [[mirror]] `{}` \
                 `default = true`, or `default_for = [...]` with a host name or port of its own",
                hub.name
            ));
        }
    }
    if server.plain_http {
        keys["insecure-registries"] = json!([server.address]);
    }
    if keys.as_object().is_some_and(|keys| !keys.is_empty()) {
        let path = PathBuf::from("/etc/docker/daemon.json");
        settings.files.push(File { path, content: Content::Keys(keys) });
    }
    // Only the containerd image store reads these, and only where there is more than docker.io.
    let others = mirrors.iter().filter(|mirror| mirror.host != "docker.io");
    settings.files.extend(others.map(|mirror| hosts_toml("/etc/docker/certs.d", server, mirror)));
    if mirrors.iter().any(|mirror| mirror.host != "docker.io") {
        settings.notes.push(
            "The files below /etc/docker/certs.d are read by the containerd image store alone \
             (\"features\": {\"containerd-snapshotter\": true}); dockerd's own store mirrors \
             docker.io and nothing else."
                .to_owned(),
        );
    }
    settings.notes.push("Then: systemctl restart docker".to_owned());
    settings
}

/// containerd.
pub fn containerd(server: &Server, mirrors: &[MirrorOf]) -> Settings {
    let files = mirrors.iter().map(|mirror| hosts_toml("/etc/containerd/certs.d", server, mirror));
    let notes = vec![
        "/etc/containerd/config.toml needs config_path = \"/etc/containerd/certs.d\" in the \
         section of the CRI's registries; `ctr` and nerdctl take --hosts-dir."
            .to_owned(),
    ];
    Settings { files: files.collect(), notes }
}

fn hosts_toml(directory: &str, server: &Server, mirror: &MirrorOf) -> File {
    let mut text = format!(
        "{MARK}\nserver = \"{}\"\n\n[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        mirror.server(),
        server.url
    );
    if let Some(ca) = &server.ca {
        text.push_str(&format!("  ca = \"{}\"\n", ca.display()));
    }
    let path = PathBuf::from(format!("{directory}/{}/hosts.toml", mirror.host));
    File { path, content: Content::Whole(text) }
}

/// podman, and all that reads its configuration.
pub fn podman(server: &Server, mirrors: &[MirrorOf]) -> Settings {
    let mut text = format!("{MARK}\n");
    for mirror in mirrors {
        text.push_str(&format!(
            "\n[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n[[registry.mirror]]\n\
             location = \"{}/{}\"\ninsecure = {}\n",
            server.address,
            mirror.name,
            server.plain_http,
            host = mirror.host,
        ));
    }
    let path = PathBuf::from("/etc/containers/registries.conf.d/50-boatyard.conf");
    let notes = server.ca.as_ref().map(|ca| {
        format!(
            "Then: install -D {} /etc/containers/certs.d/{}/ca.crt",
            ca.display(),
            server.address
        )
    });
    Settings {
        files: vec![File { path, content: Content::Whole(text) }],
        notes: notes.into_iter().collect(),
    }
}

/// buildkitd.
pub fn buildkit(server: &Server, mirrors: &[MirrorOf]) -> Settings {
    let mut text = format!("{MARK}\n");
    for mirror in mirrors {
        text.push_str(&format!(
            "\n[registry.\"{}\"]\n  mirrors = [\"{}/{}\"]\n",
            mirror.host, server.address, mirror.name
        ));
    }
    text.push_str(&format!("\n[registry.\"{}\"]\n", server.address));
    if server.plain_http {
        text.push_str("  http = true\n");
    }
    if let Some(ca) = &server.ca {
        text.push_str(&format!("  ca = [\"{}\"]\n", ca.display()));
    }
    let path = PathBuf::from("/etc/buildkit/buildkitd.toml");
    Settings { files: vec![File { path, content: Content::Whole(text) }], notes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors() -> Vec<MirrorOf> {
        vec![MirrorOf::named("docker.io=hub").unwrap(), MirrorOf::named("quay.io").unwrap()]
    }

    #[test]
    fn each_client_in_its_own_words() {
        let plain = Server::new("http://mirror.lan:5000/", None).unwrap();
        let shown = docker(&plain, &mirrors()).to_string();
        for line in [
            "==> /etc/docker/daemon.json <==",
            "\"http://mirror.lan:5000\"",
            "\"insecure-registries\"",
            "==> /etc/docker/certs.d/quay.io/hosts.toml <==",
        ] {
            assert!(shown.contains(line), "{line} in\n{shown}");
        }
        let shown = podman(&plain, &mirrors()).to_string();
        assert!(shown.contains("location = \"mirror.lan:5000/hub\"\ninsecure = true"), "{shown}");
        let shown = buildkit(&plain, &mirrors()).to_string();
        assert!(shown.contains("mirrors = [\"mirror.lan:5000/quay.io\"]"), "{shown}");
        assert!(shown.contains("[registry.\"mirror.lan:5000\"]\n  http = true"), "{shown}");
        let secure = Server::new("https://mirror.lan", Some("/etc/ssl/lan.pem".into())).unwrap();
        let shown = containerd(&secure, &mirrors()).to_string();
        assert!(shown.contains("server = \"https://registry-1.docker.io\""), "{shown}");
        assert!(shown.contains("ca = \"/etc/ssl/lan.pem\""), "{shown}");
    }

    #[test]
    fn dockerd_needs_a_default_upstream() {
        let server = Server::new("https://mirror.lan", None).unwrap();
        let hub = MirrorOf { is_default: false, ..mirrors()[0].clone() };
        assert!(docker(&server, &[hub]).notes[0].contains("default = true"));
    }

    #[test]
    fn what_is_no_server() {
        for bad in ["mirror.lan", "ftp://mirror.lan", "http://", "http://a b", "http://a/b"] {
            assert!(Server::new(bad, None).is_err(), "{bad}");
        }
        assert!(MirrorOf::named("a b").is_err());
    }
}
