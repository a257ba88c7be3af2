//! A machine of a test's own: a home, a root, and programs that know of nothing else.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_front::{Server, ServerOptions};
use boatyard_oci::{Descriptor, MediaType};
use boatyard_registry::{Limits, Mirrors, OpenAccess};
use serde_json::Value;

/// The home and the root of one user.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
}

/// What a command printed.
pub(crate) struct Output {
    command: String,
    code: Option<i32>,
    text: String,
    pub(crate) errors: String,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        Machine { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the path of a file of this machine.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs boatyard.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"")
    }

    /// Runs boatyard with something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.execute(env!("CARGO_BIN_EXE_boatyard"), arguments, input)
    }

    /// Runs another program, which must be installed.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> Output {
        self.execute(program, arguments, b"")
    }

    /// Runs podman on a storage of this machine's own.
    pub(crate) fn podman(&self, arguments: &[&str]) -> Output {
        let (root, run) = (self.path("podman"), self.path("podman-run"));
        let own = ["--storage-driver", "vfs", "--root", &root, "--runroot", &run];
        self.client("podman", &[&own, arguments].concat())
    }

    /// Makes an image of one file and returns its ID.
    pub(crate) fn import(&self, name: &str) -> String {
        self.import_for(name, "linux/amd64")
    }

    /// Makes an image for a platform.
    pub(crate) fn import_for(&self, name: &str, platform: &str) -> String {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(3);
        archive.append_data(&mut header, "./bin/sh", &b"#!\n"[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        let change = r#"CMD ["/bin/sh"]"#;
        let arguments = ["import", "-", name, "--message", "from a test", "--change", change];
        let fixed = ["--platform", platform, "--source-date-epoch", "1700000000"];
        let output = self.run_with(&[&arguments[..], &fixed].concat(), &archive);
        output.lines().remove(0)
    }

    /// Makes an index of images, each of which has a name here.
    pub(crate) fn index(&self, name: &str, images: &[(&str, &str)]) {
        let root = Root::open(&self.home().join("root"), RootOptions::default()).unwrap();
        let lease = root.lease().unwrap();
        let listed = images.iter().map(|(name, platform)| {
            let mut descriptor = self.descriptor(name);
            descriptor.platform = Some(platform.parse().unwrap());
            descriptor
        });
        let bytes = boatyard_oci::Index::new(listed.collect()).to_bytes();
        let key = boatyard_content::IngestKey::random();
        let mut ingest = root.store().ingest_blocking(&key, &lease).unwrap();
        ingest.write_all(&bytes).unwrap();
        ingest.commit_blocking(&boatyard_content::Expected::any()).unwrap();
        let target = Descriptor::of(MediaType::OCI_INDEX, &bytes);
        boatyard_builder::import::name(&root, &lease, &target, &[name.parse().unwrap()]).unwrap();
    }

    /// Returns the descriptor of an image's manifest.
    fn descriptor(&self, name: &str) -> Descriptor {
        let bytes = self.run(&["inspect", "--raw", name]).text;
        Descriptor::of(MediaType::OCI_MANIFEST, bytes.as_bytes())
    }

    fn execute(&self, program: &str, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.home())
            .env("BOATYARD_ROOT", self.home().join("root"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} must be installed for this test: {error}"));
        // A program that does not read its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap_or_default();
        Output {
            command: format!("{program} {}", arguments.join(" ")),
            code: output.status.code(),
            text: text(output.stdout),
            errors: text(output.stderr),
        }
    }
}

impl Output {
    /// Asserts that it succeeded.
    pub(crate) fn ok(&self) {
        assert_eq!(self.code, Some(0), "{}\n{}\n{}", self.command, self.text, self.errors);
    }

    /// Asserts that it succeeded and said nothing.
    pub(crate) fn silent(&self) {
        self.ok();
        assert_eq!((self.text.as_str(), self.errors.as_str()), ("", ""), "{}", self.command);
    }

    /// Returns the lines that it printed.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.ok();
        self.text.lines().map(str::to_owned).collect()
    }

    /// Returns the JSON that it printed.
    pub(crate) fn json(&self) -> Value {
        self.ok();
        serde_json::from_str(&self.text).unwrap()
    }

    /// Asserts that it failed with a code, and returns what it said.
    pub(crate) fn fails(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.command, self.errors);
        self.errors.clone()
    }
}

/// A registry on loopback, until it is dropped.
pub(crate) struct Registry {
    pub(crate) address: String,
    _runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start() -> Registry {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("root");
        let root = Root::open(&path, RootOptions::default()).unwrap();
        let registry = boatyard_registry::Registry::new(
            root,
            Mirrors::default(),
            Arc::new(OpenAccess),
            Limits::default(),
        );
        let router = boatyard_registry::router(registry);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let entered = runtime.enter();
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let server = Server::bind(ServerOptions { addresses, ..ServerOptions::default() }).unwrap();
        let address = server.local_addrs()[0].to_string();
        runtime.spawn(server.serve(router, std::future::pending()));
        drop(entered);
        Registry { address, _runtime: runtime, _directory: directory }
    }
}
