//! dnf itself through the cache proxy, against RPM repositories that change while it reads.

#![expect(clippy::unwrap_used, clippy::panic, reason = "that is how a test fails")]

mod support;

use std::path::Path;
use std::process::Command;

use support::archive::{Fault, Key, Origin, Step};
use support::proxy::{curl, proxy_of, trusting};
use support::{Place, Server};

/// One generation of a repository, in the parts that are published one after the other.
#[derive(Clone, Default)]
struct Edition {
    packages: Step,
    metadata: Step,
    root: Step,
    signature: Step,
}

impl Edition {
    /// Makes the edition of a number: each package of it has that version.
    fn new(number: i64, arguments: &[&str], key: Option<&Key>) -> Edition {
        let directory = tempfile::tempdir().unwrap();
        let repository = directory.path().join("repository");
        for name in ["hello", "world"] {
            let spec = format!(
                "Name: {name}\nVersion: {number}\nRelease: 1\nSummary: a test\nLicense: none\n\
                 BuildArch: noarch\n%description\na test\n%install\n\
                 mkdir -p %{{buildroot}}/usr/share\necho {number} > %{{buildroot}}/usr/share/{name}\n\
                 %files\n/usr/share/{name}\n"
            );
            let path = directory.path().join("spec");
            fs_err::write(&path, spec).unwrap();
            let define = |name: &str, value: &Path| format!("{name} {}", value.display());
            let top = define("_topdir", &directory.path().join("top"));
            let to = define("_rpmdir", &repository.join("Packages"));
            run(Command::new("rpmbuild")
                .args(["-bb", "--quiet"])
                .arg(&path)
                .args(["--define", &top, "--define", &to]));
        }
        // Some hours ago; a minute for each edition.
        let made = jiff::Timestamp::now().as_second() - 6 * 3600 + number * 60;
        run(Command::new("createrepo_c")
            .args(["--quiet", "--workers=1", "--no-database", "--set-timestamp-to-revision"])
            .args(["--revision", &made.to_string()])
            .args(arguments)
            .arg(&repository));
        let mut edition = Edition::default();
        for (path, bytes) in files(&repository, "") {
            let part = match path.as_str() {
                "repodata/repomd.xml" => {
                    if let Some(key) = key {
                        let signature = Some(key.sign(&bytes));
                        edition.signature.insert(format!("{path}.asc"), signature);
                    }
                    &mut edition.root
                }
                path if path.starts_with("repodata/") => &mut edition.metadata,
                _ => &mut edition.packages,
            };
            part.insert(path, Some(bytes));
        }
        edition
    }

    fn whole(&self) -> Step {
        let parts = [&self.packages, &self.metadata, &self.root, &self.signature];
        parts.into_iter().flat_map(Clone::clone).collect()
    }

    /// Returns the step that deletes what another edition has no file of.
    fn gone(&self, next: &Edition) -> Step {
        let next = next.whole();
        let gone = self.whole().into_keys().filter(|path| !next.contains_key(path));
        gone.map(|path| (path, None)).collect()
    }
}

fn files(directory: &Path, below: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path(), &format!("{name}/")));
        } else {
            all.push((name, fs_err::read(entry.path()).unwrap()));
        }
    }
    all
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// A repository, a proxy, and clients of both.
struct Lab {
    origin: Origin,
    place: Place,
    server: Option<Server>,
}

impl Lab {
    fn new() -> Lab {
        let mut lab = Lab { origin: Origin::start(), place: Place::new(), server: None };
        lab.start();
        lab
    }

    /// Ends the server as a power cut would, where one runs, and starts one on the same root.
    fn start(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
        let config = format!("[[proxy.upstream]]\nname = 'rpm'\nurl = '{}'\n", self.origin.url());
        self.server = Some(trusting(&self.place, None, &config));
    }

    fn proxy(&self) -> String {
        format!("http://{}", proxy_of(self.server.as_ref().unwrap()))
    }

    /// A machine that has never seen the repository.
    fn client(&self) -> Dnf {
        Dnf::new(&self.origin.url(), &format!("proxy={}\n", self.proxy()))
    }

    /// The same, with another `User-Agent` than all others: where nothing else tells clients apart,
    /// one that comes while another reads is given what that one was given.
    fn other(&self, name: i64) -> Dnf {
        let more = format!("proxy={}\nuser_agent=test/{name}\n", self.proxy());
        Dnf::new(&self.origin.url(), &more)
    }
}

/// A machine's dnf, with a configuration and caches of its own.
struct Dnf {
    home: tempfile::TempDir,
}

impl Dnf {
    fn new(url: &str, more: &str) -> Dnf {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().display();
        fs_err::create_dir_all(home.path().join("root")).unwrap();
        let config = format!(
            "[main]\ngpgcheck=0\ninstallroot={at}/root\ncachedir={at}/cache\npersistdir={at}/persist\n\
             logdir={at}/log\nreposdir={at}/none\npluginpath={at}/none\nvarsdir={at}/none\nretries=1\n\
             {more}[test]\nname=test\nbaseurl={url}/\nmetadata_expire=0\n"
        );
        fs_err::write(home.path().join("dnf.conf"), config).unwrap();
        Dnf { home }
    }

    fn run(&self, args: &[&str]) -> (bool, String) {
        let path = |name: &str| self.home.path().join(name).display().to_string();
        let output = Command::new("dnf")
            .args(["--assumeyes", "--releasever=1", &format!("--config={}", path("dnf.conf"))])
            .args([format!("--installroot={}", path("root"))])
            .args([format!("--setopt=reposdir={}", path("none"))])
            .args(args)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("http_proxy")
            .env_remove("no_proxy")
            .output()
            .expect("dnf is installed");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Reads the metadata anew, and returns the version that all packages have.
    #[track_caller]
    fn version(&self) -> i64 {
        let query = ["--quiet", "repoquery", "--queryformat=%{name} %{version}"];
        let (is_ok, text) = self.run(&query);
        assert!(is_ok, "{text}");
        let version = |name: &str| {
            let version =
                text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            version.unwrap_or_else(|| panic!("no {name}: {text}"))
        };
        let hello: i64 = version("hello");
        assert_eq!(hello, version("world"));
        hello
    }

    /// Downloads the packages, which checks them against the metadata.
    fn download(&self) -> (bool, String) {
        self.run(&["install", "--downloadonly", "hello", "world"])
    }

    #[track_caller]
    fn downloads(&self) {
        let (is_ok, text) = self.download();
        assert!(is_ok, "{text}");
    }
}

#[test]
fn a_fresh_client_needs_no_upstream() {
    let mut lab = Lab::new();
    lab.origin.make(&Edition::new(1, &[], None).whole());
    let client = lab.client();
    assert_eq!(client.version(), 1);
    client.downloads();
    lab.origin.set_stopped(true);
    lab.start();
    lab.origin.asked();
    let of_path = Dnf::new(&format!("{}/rpm", lab.proxy()), "");
    for client in [lab.client(), of_path] {
        assert_eq!(client.version(), 1);
        client.downloads();
    }
    assert_eq!(lab.origin.asked(), [""; 0]);
}

#[test]
fn no_mixture_while_it_is_published() {
    for arguments in [&["--unique-md-filenames"][..], &["--simple-md-filenames", "--xz"]] {
        let lab = Lab::new();
        let mut shown = Edition::new(1, arguments, None);
        lab.origin.make(&shown.whole());
        let old = lab.client();
        assert_eq!(old.version(), 1);
        // The root comes first, and last but for the packages.
        for (number, order) in (2..).zip([[0, 1, 2], [1, 0, 2]]) {
            let next = Edition::new(number, arguments, None);
            let mut metadata = next.metadata.clone();
            // What was is gone when its metadata is replaced.
            let gone = shown.gone(&next).into_iter();
            metadata.extend(gone.filter(|(path, _)| path.contains("repodata")));
            let parts = [&next.root, &metadata, &next.packages];
            for part in order {
                lab.origin.make(parts[part]);
                let seen = lab.other(number).version();
                assert!(seen == number || seen == number - 1, "{seen} of {number}: {order:?}");
            }
            // It was here before, and so may be given again what it was given, if only all of it.
            assert!(old.version() <= number);
            let new = lab.other(-number);
            assert_eq!(new.version(), number, "{order:?}");
            new.downloads();
            shown = next;
        }
    }
}

#[test]
fn a_signature_goes_with_its_root() {
    let (lab, key) = (Lab::new(), Key::new());
    let (first, next) = (Edition::new(1, &[], Some(&key)), Edition::new(2, &[], Some(&key)));
    lab.origin.make(&first.whole());
    let armored = lab.place.write("key.asc", key.armored());
    let checking = || {
        let more = format!("proxy={}\n", lab.proxy());
        let url = format!(
            "{}/\nrepo_gpgcheck=1\ngpgkey=file://{}\n#",
            lab.origin.url(),
            armored.display()
        );
        Dnf::new(&url, &more)
    };
    assert_eq!(checking().version(), 1);
    let mut half = next.clone();
    half.signature.clear();
    lab.origin.make(&half.whole());
    assert_eq!(checking().version(), 1);
    lab.origin.make(&next.signature);
    assert_eq!(checking().version(), 2);
}

#[test]
fn wrong_bytes_are_refused() {
    let lab = Lab::new();
    let (first, next) = (Edition::new(1, &[], None), Edition::new(2, &[], None));
    lab.origin.make(&first.whole());
    assert_eq!(lab.client().version(), 1);
    lab.origin.make(&next.whole());
    let find =
        |step: &Step, part: &str| step.keys().find(|path| path.contains(part)).unwrap().clone();
    // Each fault follows the one before without a moment in which all is well.
    let (primary, root) = (find(&next.metadata, "primary"), find(&next.root, "repomd"));
    for (path, fault) in
        [(&primary, Fault::Truncate(20)), (&primary, Fault::Corrupt), (&root, Fault::Truncate(20))]
    {
        lab.origin.harm(path, fault);
        assert_eq!(lab.client().version(), 1, "{path}");
    }
    lab.origin.heal();
    let client = lab.client();
    assert_eq!(client.version(), 2);
    // Packages of a generation that nobody has asked for any of, and of one whose list only we have.
    let path = find(&next.packages, "hello");
    let whole = next.packages[&path].clone().unwrap();
    lab.origin.harm(&path, Fault::Corrupt);
    let url = format!("{}/{path}", lab.origin.url());
    let got = curl(&lab.place, &["-x", &lab.proxy()], &[], &url);
    assert!(got.body.len() < whole.len(), "{}", got.head);
    assert!(!client.download().0);
    lab.origin.heal();
    client.downloads();
    let got = curl(&lab.place, &["-x", &lab.proxy()], &[], &url);
    assert_eq!((got.cache(), got.body == whole), ("HIT", true));
}
