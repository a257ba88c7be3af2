//! An npm registry of our own making, and the clients of one.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::Digest;
use boatyard_oci::digest::Algorithm;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::origin::{Origin, Reply};
use super::{Place, Run};

/// What abbreviated documents are asked for as.
pub const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";

/// A package, with all its versions.
pub struct Package<'o> {
    origin: &'o Origin,
    name: &'static str,
    versions: serde_json::Map<String, Value>,
    time: serde_json::Map<String, Value>,
}

impl<'o> Package<'o> {
    /// Begins a package.
    pub fn new(origin: &'o Origin, name: &'static str) -> Package<'o> {
        Package { origin, name, versions: Default::default(), time: Default::default() }
    }

    /// Publishes a version that needs others.
    #[expect(clippy::needless_pass_by_value, reason = "tests make it where they hand it over")]
    pub fn version(mut self, version: &str, needs: Value) -> Package<'o> {
        let tarball = tarball(self.name, version, &needs);
        let path = self.tarball(version);
        let dist = json!({
            "tarball": self.origin.url(&path),
            "shasum": hex(&Sha1::digest(&tarball)),
            "integrity": integrity(&tarball),
        });
        self.versions.insert(
            version.to_owned(),
            json!({
                "name": self.name, "version": version, "dependencies": needs, "dist": dist,
            }),
        );
        self.time.insert(version.to_owned(), json!("2020-01-01T00:00:00.000Z"));
        self.origin.put(&path, Reply::stale(tarball));
        self.document()
    }

    /// Returns the path of a version's tarball.
    pub fn tarball(&self, version: &str) -> String {
        let bare = self.name.rsplit('/').next().unwrap();
        format!("/{}/-/{bare}-{version}.tgz", self.name)
    }

    fn document(self) -> Package<'o> {
        let latest = self.versions.keys().next_back().unwrap();
        let tags = json!({ "latest": latest });
        let path = format!("/{}", self.name.replace('/', "%2F"));
        // A registry that forgets to say `Vary`.
        let put = |key: &str, document: Value| {
            let body = document.to_string();
            let tag = Digest::sha256(body.as_bytes()).hex()[..16].to_owned();
            self.origin
                .put(key, Reply::stale(body).tagged(&tag).with("Cache-Control: max-age=0\r\n"));
        };
        put(
            &path,
            json!({
                "name": self.name, "dist-tags": tags, "versions": self.versions, "time": self.time,
                "readme": "all of it",
            }),
        );
        let abbreviated = json!({
            "name": self.name, "dist-tags": tags, "versions": self.versions,
            "modified": "2020-01-01T00:00:00.000Z",
        });
        put(&format!("{path} {ABBREVIATED}"), abbreviated);
        self
    }
}

/// Returns the tarball of a package.
pub fn tarball(name: &str, version: &str, needs: &Value) -> Vec<u8> {
    let about =
        json!({ "name": name, "version": version, "dependencies": needs, "main": "index.js" });
    let code = format!("module.exports = '{name} {version}';\n");
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), Default::default()));
    for (path, text) in [("package.json", about.to_string()), ("index.js", code)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("package/{path}"), text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Returns what a document says of bytes.
pub fn integrity(bytes: &[u8]) -> String {
    let digest = Digest::of(Algorithm::Sha512, bytes);
    let raw: Vec<u8> = digest
        .hex()
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    format!("sha512-{}", STANDARD.encode(raw))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A project, and a home that has never seen a registry.
pub struct Project<'p> {
    place: &'p Place,
    directory: PathBuf,
    registry: String,
}

impl<'p> Project<'p> {
    /// Makes a project that needs packages.
    pub fn new(place: &'p Place, name: &str, registry: &str, needs: &Value) -> Project<'p> {
        let about = json!({ "name": "project", "version": "1.0.0", "dependencies": needs });
        place.write(&format!("{name}/package.json"), about.to_string());
        let directory = place.path(name);
        fs_err::create_dir(directory.join("home")).unwrap();
        Project { place, directory, registry: registry.to_owned() }
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) {
        fs_err::write(self.directory.join(name), text).unwrap();
    }

    /// Returns a client, ready to run with nothing of this machine around it.
    pub fn run(&self, program: &str, args: &[&str]) -> Run {
        let (home, registry) = (self.directory.join("home"), &self.registry);
        let home = home.display();
        let run = self.place.run("env", ["-i"]).current_dir(&self.directory);
        run.args([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            // Debian's yarn looks for its own modules where Debian's node does.
            "NODE_PATH=/usr/share/nodejs".to_owned(),
            format!("HOME={home}"),
            format!("npm_config_registry={registry}"),
            format!("npm_config_cache={home}/cache"),
            "npm_config_replace_registry_host=always".to_owned(),
            "npm_config_fetch_retries=0".to_owned(),
            "npm_config_update_notifier=false".to_owned(),
            "npm_config_fund=false".to_owned(),
            format!("YARN_REGISTRY={registry}"),
            format!("YARN_CACHE_FOLDER={home}/cache"),
            program.to_owned(),
        ])
        .args(args)
    }

    /// Says whether it has a file.
    pub fn has(&self, name: &str) -> bool {
        self.directory.join(name).exists()
    }

    /// Returns what a file of it says.
    pub fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.directory.join(name)).unwrap()
    }

    /// Runs what was installed: what a module exports.
    #[track_caller]
    pub fn exports(&self, module: &str) -> String {
        let code = format!("process.stdout.write(require('{module}'))");
        self.run("node", &["-e", &code]).ok().text()
    }
}
