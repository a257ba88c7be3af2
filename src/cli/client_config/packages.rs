//! What points clients of packages at the cache proxy.
//!
//! apt and dnf use it as their proxy, whatever archives they have. All others are told a mirror of
//! one archive: the upstream that is configured for it. The proxy speaks plain HTTP; behind a TLS
//! proxy its URL is `https`, and the client may have to be told of the authority.

use std::path::PathBuf;

use url::Url;

use super::lines::Setting;
use super::place::{Content, File, MARK_TEXT, Settings};
use crate::config::ProxyUpstream;
use crate::report::{Failure, Result};

/// Whose settings are made.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Those of one user, by their home.
    User(PathBuf),
    /// Those of the machine.
    System,
}

/// What the settings are made of.
#[derive(Clone, Debug)]
pub struct Proxy {
    url: Url,
    ca: Option<String>,
    scope: Scope,
}

impl Proxy {
    /// Reads how the proxy is reached.
    pub fn new(url: &str, ca: Option<PathBuf>, scope: Scope) -> Result<Proxy> {
        let wrong = || {
            Failure::usage(format!("`{url}` is not how the cache proxy is reached"))
                .hint("write http://HOST:PORT, or https://HOST[:PORT] of a TLS proxy before it")
        };
        let mut parsed: Url = url.parse().map_err(|_| wrong())?;
        let plain =
            |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'`\\$<>&".contains(&b));
        let fine = ["http", "https"].contains(&parsed.scheme())
            && parsed.has_host()
            && parsed.query().is_none()
            && parsed.fragment().is_none()
            && plain(parsed.as_str());
        if !fine {
            return Err(wrong());
        }
        if !parsed.path().ends_with('/') {
            let path = format!("{}/", parsed.path());
            parsed.set_path(&path);
        }
        let ca = ca.map(|ca| ca.display().to_string());
        if let Some(ca) = ca.as_deref().filter(|ca| !plain(ca)) {
            return Err(Failure::usage(format!("`{ca}` cannot stand in the settings of a client")));
        }
        Ok(Proxy { url: parsed, ca, scope })
    }

    /// The proxy itself, without a slash at its end.
    fn origin(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// What lies below an upstream: `http://127.0.0.1:3142/npm/`.
    fn below(&self, upstream: &ProxyUpstream, path: &str) -> String {
        format!("{}{}/{path}", self.url, upstream.name)
    }

    fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// `HOST` or `HOST:PORT`.
    fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    /// The file of the user, or of the machine, where there is one for that.
    fn place(&self, client: &str, user: Option<&str>, system: Option<&str>) -> Result<PathBuf> {
        let (path, other) = match &self.scope {
            Scope::User(home) => (user.map(|user| home.join(user)), "--system"),
            Scope::System => (system.map(PathBuf::from), "--user"),
        };
        path.ok_or_else(|| {
            Failure::usage(format!("{client} has no such settings")).hint(format!("use {other}"))
        })
    }
}

/// A key, what stands behind it, and its value.
fn key(section: Option<&'static str>, key: &str, between: &'static str, value: &str) -> Setting {
    Setting { section, key: key.to_owned(), between, value: value.to_owned() }
}

fn lines(path: PathBuf, settings: Vec<Setting>) -> Settings {
    Settings { files: vec![File { path, content: Content::Lines(settings) }], notes: Vec::new() }
}

fn whole(path: PathBuf, text: String) -> Settings {
    Settings { files: vec![File { path, content: Content::Whole(text) }], notes: Vec::new() }
}

/// A text as TOML, YAML and JSON alike have it.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// apt.
pub fn apt(proxy: &Proxy) -> Result<Settings> {
    let path = proxy.place("apt", None, Some("/etc/apt/apt.conf.d/30boatyard"))?;
    let mut text = format!("// {MARK_TEXT}\nAcquire::http::Proxy \"{}\";\n", proxy.origin());
    if let Some(ca) = &proxy.ca {
        text.push_str(&format!("Acquire::https::CAInfo \"{ca}\";\n"));
    }
    let mut settings = whole(path, text);
    settings.notes.push(
        "https:// sources go through the proxy as tunnels, of which nothing is kept: write \
         http://HTTPS///HOST/PATH in the place of https://HOST/PATH to have them kept."
            .to_owned(),
    );
    Ok(settings)
}

/// dnf, with the proxy of all its repositories.
pub fn dnf(proxy: &Proxy) -> Result<Settings> {
    let path = proxy.place("dnf", None, Some("/etc/dnf/dnf.conf"))?;
    let mut keys = vec![key(Some("main"), "proxy", "=", proxy.origin())];
    if let Some(ca) = &proxy.ca {
        keys.push(key(Some("main"), "proxy_sslcacert", "=", ca));
    }
    let mut settings = lines(path, keys);
    settings.notes.push(
        "Repositories with a baseurl= of http:// are kept; https:// ones and metalinks to them pass \
         as tunnels."
            .to_owned(),
    );
    Ok(settings)
}

/// pip.
pub fn pip(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("pip", Some(".config/pip/pip.conf"), Some("/etc/pip.conf"))?;
    let section = Some("global");
    let mut keys = vec![key(section, "index-url", " = ", &proxy.below(upstream, "simple/"))];
    if proxy.is_plain() && !proxy.is_loopback() {
        keys.push(key(section, "trusted-host", " = ", &proxy.authority()));
    }
    if let Some(ca) = &proxy.ca {
        keys.push(key(section, "cert", " = ", ca));
    }
    Ok(lines(path, keys))
}

/// uv.
pub fn uv(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("uv", Some(".config/uv/uv.toml"), Some("/etc/uv/uv.toml"))?;
    let url = quoted(&proxy.below(upstream, "simple/"));
    let text = format!("# {MARK_TEXT}\n[[index]]\nurl = {url}\ndefault = true\n");
    let mut settings = whole(path, text);
    if let Some(ca) = &proxy.ca {
        settings
            .notes
            .push(format!("uv takes the authority from the environment: SSL_CERT_FILE={ca}"));
    }
    Ok(settings)
}

/// npm, and pnpm, which reads the same file.
pub fn npm(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("npm", Some(".npmrc"), Some("/etc/npmrc"))?;
    let mut keys = vec![key(None, "registry", "=", &proxy.below(upstream, ""))];
    if let Some(ca) = &proxy.ca {
        keys.push(key(None, "cafile", "=", ca));
    }
    let mut settings = lines(path, keys);
    settings.notes.push(token_of_npm(proxy, upstream));
    Ok(settings)
}

fn token_of_npm(proxy: &Proxy, upstream: &ProxyUpstream) -> String {
    let below = proxy.below(upstream, "");
    let place = below.split_once(':').map_or(below.as_str(), |(_, rest)| rest);
    format!(
        "To publish, and to read private packages where rules ask for it: {place}:_authToken=TOKEN"
    )
}

/// yarn, of either kind: the classic one reads `.yarnrc`, the later ones `.yarnrc.yml`.
pub fn yarn(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let classic = proxy.place("yarn", Some(".yarnrc"), None)?;
    let berry = proxy.place("yarn", Some(".yarnrc.yml"), None)?;
    let url = quoted(&proxy.below(upstream, ""));
    let mut keys = vec![key(None, "npmRegistryServer", ": ", &url)];
    if proxy.is_plain() {
        let host = proxy.url.host_str().unwrap_or_default();
        keys.push(key(None, "unsafeHttpWhitelist", ": ", &format!("[{}]", quoted(host))));
    }
    let mut classic_keys = vec![key(None, "registry", " ", &url)];
    if let Some(ca) = &proxy.ca {
        keys.push(key(None, "httpsCaFilePath", ": ", &quoted(ca)));
        classic_keys.push(key(None, "cafile", " ", &quoted(ca)));
    }
    let mut settings = lines(berry, keys);
    settings.files.extend(lines(classic, classic_keys).files);
    Ok(settings)
}

/// gem.
pub fn gem(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("gem", Some(".gemrc"), Some("/etc/gemrc"))?;
    let sources = format!("[{}]", quoted(&proxy.below(upstream, "")));
    let mut keys = vec![key(None, ":sources", ": ", &sources)];
    if let Some(ca) = &proxy.ca {
        keys.push(key(None, ":ssl_ca_cert", ": ", &quoted(ca)));
    }
    let mut settings = lines(path, keys);
    let host = proxy.below(upstream, "");
    settings
        .notes
        .push(format!("To publish: GEM_HOST_API_KEY=TOKEN gem push --host {host} NAME.gem"));
    Ok(settings)
}

/// bundler: all sources of a Gemfile by one mirror, so that no lock file names it.
pub fn bundler(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("bundler", Some(".bundle/config"), None)?;
    let url = quoted(&proxy.below(upstream, ""));
    let mut keys = vec![key(None, "BUNDLE_MIRROR__ALL", ": ", &url)];
    if let Some(ca) = &proxy.ca {
        keys.push(key(None, "BUNDLE_SSL_CA_CERT", ": ", &quoted(ca)));
    }
    Ok(lines(path, keys))
}

/// cargo: the public registry replaced, so that no lock file names the proxy.
pub fn cargo(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("cargo", Some(".cargo/config.toml"), Some("/.cargo/config.toml"))?;
    let url = quoted(&format!("sparse+{}", proxy.below(upstream, "")));
    let mut keys = vec![
        key(Some("source.crates-io"), "replace-with", " = ", &quoted("boatyard")),
        key(Some("source.boatyard"), "registry", " = ", &url),
    ];
    if !upstream.private.is_empty() || upstream.url.is_none() {
        // Private crates come from, and go to, a registry with a name.
        keys.push(key(Some("registries.boatyard"), "index", " = ", &url));
    }
    if let Some(ca) = &proxy.ca {
        keys.push(key(Some("http"), "cainfo", " = ", &quoted(ca)));
    }
    Ok(lines(path, keys))
}

/// go. Only one module proxy: what it does not have is not looked for elsewhere.
pub fn go(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("go", Some(".config/go/env"), None)?;
    let url = proxy.below(upstream, "");
    let mut keys = vec![key(None, "GOPROXY", "=", url.trim_end_matches('/'))];
    if !upstream.private.is_empty() {
        // No public database has their checksums.
        let names: Vec<&str> =
            upstream.private.iter().map(|name| name.trim_end_matches("/*")).collect();
        keys.push(key(None, "GONOSUMDB", "=", &names.join(",")));
    }
    let mut settings = lines(path, keys);
    if let Some(ca) = &proxy.ca {
        settings
            .notes
            .push(format!("go takes the authority from the environment: SSL_CERT_FILE={ca}"));
    }
    Ok(settings)
}

/// Maven.
pub fn maven(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("maven", Some(".m2/settings.xml"), Some("/etc/maven/settings.xml"))?;
    let url = proxy.below(upstream, "");
    let text = format!(
        "<!-- {MARK_TEXT} -->\n\
         <settings xmlns=\"http://maven.apache.org/SETTINGS/1.2.0\">\n  \
           <mirrors>\n    \
             <mirror>\n      \
               <id>boatyard</id>\n      \
               <mirrorOf>central</mirrorOf>\n      \
               <url>{url}</url>\n    \
             </mirror>\n  \
           </mirrors>\n\
         </settings>\n"
    );
    let mut settings = whole(path, text);
    settings.notes.push(format!(
        "To publish: mvn deploy -DaltDeploymentRepository=boatyard::default::{url}, with a <server> \
         of the id boatyard that has a user name and a token as its password."
    ));
    if let Some(ca) = &proxy.ca {
        settings
            .notes
            .push(format!("Java has a store of its own: keytool -importcert -file {ca} ..."));
    }
    Ok(settings)
}

/// apk: the lines of its repositories that lie at the upstream's servers.
pub fn apk(proxy: &Proxy, upstream: &ProxyUpstream) -> Result<Settings> {
    let path = proxy.place("apk", None, Some("/etc/apk/repositories"))?;
    let from: Vec<String> = upstream.url.iter().chain(&upstream.also).cloned().collect();
    let to = proxy.below(upstream, "");
    let files = vec![File { path, content: Content::Moved { from, to } }];
    Ok(Settings { files, notes: Vec::new() })
}
