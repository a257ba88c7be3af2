//! A small apk through the cache proxy: it does what Alpine's does with an index and its packages,
//! checks included. Debian has none.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    dead_code,
    reason = "it is shared with others"
)]
#[path = "../../tests/support/origin.rs"]
mod origin;
mod started;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_cache_proxy::ecosystem::apk::Apk;
use boatyard_cache_proxy::generation::Options;
use boatyard_cache_proxy::{Ecosystem, Upstream};
use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use flate2::bufread::GzDecoder;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use origin::{Origin, Reply};

const DIRECTORY: &str = "/edge/main/x86_64/";

/// Makes a segment: a packed tar.
fn segment(files: &[(&str, &[u8])]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gzip);
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands for a signature: the test's client knows how it is made.
fn signature(of: &[u8]) -> Vec<u8> {
    segment(&[(".SIGN.RSA.test.rsa.pub", hex(&Sha1::digest(of)).as_bytes())])
}

/// A package of some content, and its line of an index.
fn package(name: &str, version: &str, content: &str) -> (String, Vec<u8>, String) {
    let data = segment(&[("usr/share/text", content.repeat(500).as_bytes())]);
    let info = format!(
        "pkgname = {name}\npkgver = {version}\ndatahash = {}\n",
        hex(&Sha256::digest(&data))
    );
    let control = segment(&[(".PKGINFO", info.as_bytes())]);
    let sum = STANDARD.encode(Sha1::digest(&control));
    let whole = [signature(&control), control, data].concat();
    let stanza =
        format!("C:Q1{sum}\nP:{name}\nV:{version}\nA:x86_64\nS:{}\np:cmd:{name}\n\n", whole.len());
    (format!("{DIRECTORY}{name}-{version}.apk"), whole, stanza)
}

fn index(stanzas: &[&str]) -> Vec<u8> {
    let text = stanzas.concat();
    let index = segment(&[("DESCRIPTION", b"test"), ("APKINDEX", text.as_bytes())]);
    [signature(&index), index].concat()
}

struct World {
    origin: Origin,
    root: Arc<Root>,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let origin = Origin::start();
        let address = ([127, 0, 0, 1], 0).into();
        let mut world = World { origin, root, address, _directory: directory };
        world.start();
        world
    }

    /// Starts a proxy that knows what is on the root, and nothing else.
    fn start(&mut self) {
        let upstream = Upstream::new("o", &[self.origin.url("")]).unwrap();
        let apk: Arc<dyn Ecosystem> =
            Arc::new(Apk::new(Arc::clone(&self.root), Options::default()));
        self.address = started::start(&self.root, upstream, vec![apk]).1;
    }

    fn publish(&self, path: &str, bytes: &[u8]) {
        let tag = hex(&Sha256::digest(bytes));
        self.origin.put(path, Reply::stale(bytes).tagged(&tag));
    }

    fn publish_index(&self, stanzas: &[&str]) {
        self.publish(&format!("{DIRECTORY}APKINDEX.tar.gz"), &index(stanzas));
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nUser-Agent: libfetch/2.0\r\nConnection: close\r\n\r\n",
            self.origin.url(path)
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), answer[end + 4..].to_vec())
    }

    /// Gets the index as apk does: the packages by their file names.
    fn update(&self) -> BTreeMap<String, (String, u64)> {
        let (status, bytes) = self.get(&format!("{DIRECTORY}APKINDEX.tar.gz"));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        let (signature, packed) = split(&bytes);
        assert_eq!(signature[0].1, hex(&Sha1::digest(packed)).into_bytes(), "the signature");
        let (files, rest) = split(packed);
        assert!(rest.is_empty());
        let text = &files.iter().find(|(name, _)| name == "APKINDEX").unwrap().1;
        let mut packages = BTreeMap::new();
        for stanza in String::from_utf8_lossy(text).split("\n\n").filter(|text| !text.is_empty()) {
            let field =
                |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let file = format!("{}-{}.apk", field("P:"), field("V:"));
            let sum = field("C:Q1").to_owned();
            packages.insert(file, (sum, field("S:").parse().unwrap()));
        }
        packages
    }

    /// Gets a package of an index as apk does, and returns what is in it.
    fn install(
        &self,
        index: &BTreeMap<String, (String, u64)>,
        file: &str,
    ) -> Result<String, (u16, String)> {
        let (sum, size) = &index[file];
        let (status, bytes) = self.get(&format!("{DIRECTORY}{file}"));
        if status != 200 {
            return Err((status, String::from_utf8_lossy(&bytes).into_owned()));
        }
        assert_eq!(bytes.len() as u64, *size);
        let (signature, rest) = split(&bytes);
        let control = &rest[..rest.len() - split(rest).1.len()];
        assert_eq!(signature[0].1, hex(&Sha1::digest(control)).into_bytes(), "the signature");
        assert_eq!(*sum, STANDARD.encode(Sha1::digest(control)));
        let (info, data) = split(rest);
        let info = String::from_utf8_lossy(&info[0].1).into_owned();
        assert!(info.contains(&format!("datahash = {}", hex(&Sha256::digest(data)))));
        let mut text = String::new();
        text.write_str(&String::from_utf8_lossy(&split(data).0[0].1)).unwrap();
        text.truncate(text.len() / 500);
        Ok(text)
    }
}

/// Splits the first segment off: its files, and what is behind it.
fn split(bytes: &[u8]) -> (Vec<(String, Vec<u8>)>, &[u8]) {
    let mut rest = bytes;
    let mut plain = Vec::new();
    GzDecoder::new(&mut rest).read_to_end(&mut plain).unwrap();
    rest.fill_buf().unwrap();
    let mut archive = tar::Archive::new(&plain[..]);
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    (files.collect(), rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_client_needs_no_upstream_and_updates_are_seen() {
    let mut world = World::new();
    let (path, one, first) = package("hello", "1.0-r0", "one");
    let (other, two, second) = package("hello", "2.0-r0", "two");
    world.publish(&path, &one);
    world.publish_index(&[&first]);
    let old = world.update();
    assert_eq!(world.install(&old, "hello-1.0-r0.apk").unwrap(), "one");
    let root = format!("GET {DIRECTORY}APKINDEX.tar.gz");
    assert_eq!(world.origin.asked(), [root.clone(), format!("GET {path}")]);
    assert_eq!(world.install(&old, "hello-1.0-r0.apk").unwrap(), "one");
    assert_eq!(world.origin.asked(), [""; 0]);

    world.publish(&other, &two);
    world.publish_index(&[&second]);
    world.origin.put(&path, Reply { status: 404, ..Reply::default() });
    let new = world.update();
    assert_eq!(world.install(&new, "hello-2.0-r0.apk").unwrap(), "two");
    // Who has the old index still gets what it lists, though the upstream has it no longer.
    assert_eq!(world.install(&old, "hello-1.0-r0.apk").unwrap(), "one");

    world.origin.asked();
    world.origin.go_down();
    world.start();
    let fresh = world.update();
    assert_eq!(world.install(&fresh, "hello-2.0-r0.apk").unwrap(), "two");
    assert_eq!(world.origin.asked(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_what_is_replaced_is_fetched_anew() {
    let world = World::new();
    let (path, one, first) = package("hello", "1.0-r0", "one");
    let file = "hello-1.0-r0.apk";
    world.publish_index(&[&first]);
    let index = world.update();
    let (status, message) = world.install(&index, file).unwrap_err();
    assert!(status == 404 && message.contains("not published yet"), "{status} {message}");
    // In the control segment, and in the files.
    let behind = split(&one).1;
    let control = one.len() - behind.len();
    for at in [control + 20, one.len() - 10] {
        let mut wrong = one.clone();
        wrong[at] ^= 1;
        world.publish(&path, &wrong);
        let (status, message) = world.install(&index, file).unwrap_err();
        assert_eq!(status, 502, "{message}");
    }
    world.publish(&path, &one[..one.len() - 1]);
    assert_eq!(world.install(&index, file).unwrap_err().0, 502);
    world.publish(&path, &one);
    assert_eq!(world.install(&index, file).unwrap(), "one");

    // Rebuilt without a new version.
    let (_, two, second) = package("hello", "1.0-r0", "two");
    world.publish(&path, &two);
    world.publish_index(&[&second]);
    assert_eq!(world.install(&world.update(), file).unwrap(), "two");

    // An index that broke off is shown to nobody.
    let whole = self::index(&[&first]);
    world.publish(&format!("{DIRECTORY}APKINDEX.tar.gz"), &whole[..whole.len() / 2]);
    assert_eq!(world.install(&world.update(), file).unwrap(), "two");
}
