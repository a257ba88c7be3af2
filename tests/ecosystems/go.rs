//! Go, with a checksum database.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::Digest;

use super::checksums::{Database, NAME, hash};
use super::support::Run;
use super::support::origin::Reply;
use super::support::proxy::World;
use super::{asked, get, world};

const MODULE: &str = "mod.example/Alpha";
/// As Go writes it: `!` before a letter that is a capital, and that encoded.
const ESCAPED: &str = "/mod.example/%21alpha";

/// A version of the module.
struct Version {
    number: &'static str,
    go_mod: String,
    zip: Vec<u8>,
    /// The lines that the checksum database has.
    lines: String,
}

impl Version {
    fn new(number: &'static str) -> Version {
        let go_mod = format!("module {MODULE}\n\ngo 1.18\n");
        let source = format!("package alpha\n\nconst Version = \"{number}\"\n");
        let files = [("alpha.go", source.as_str()), ("go.mod", go_mod.as_str())];
        let files = files.map(|(name, text)| (format!("{MODULE}@{number}/{name}"), text));
        let h1 = |files: &[(String, &str)]| {
            let line = |(name, text): &(String, &str)| {
                format!("{}  {name}\n", Digest::sha256(text.as_bytes()).hex())
            };
            let list = files.iter().map(line).collect::<String>();
            format!("h1:{}", STANDARD.encode(hash(&[list.as_bytes()])))
        };
        let lines = format!(
            "{MODULE} {number} {}\n{MODULE} {number}/go.mod {}\n",
            h1(&files),
            h1(&[("go.mod".to_owned(), &go_mod)])
        );
        let zip = zip(&files);
        Version { number, go_mod, zip, lines }
    }

    fn publish(&self, world: &World) {
        let put = |kind: &str, bytes: &[u8]| {
            let path = format!("{ESCAPED}/@v/{}.{kind}", self.number);
            world.origin.put(&path, Reply::stale(bytes));
        };
        let info = format!("{{\"Version\":\"{}\",\"Time\":\"2026-01-01T00:00:00Z\"}}", self.number);
        put("info", info.as_bytes());
        put("mod", self.go_mod.as_bytes());
        put("zip", &self.zip);
    }
}

/// Makes an archive of files that are stored as they are.
fn zip(files: &[(String, &str)]) -> Vec<u8> {
    let (mut archive, mut list) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let mut crc = flate2::Crc::new();
        crc.update(text.as_bytes());
        let at = archive.len() as u32;
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend((text.len() as u32).to_le_bytes());
        common.extend((text.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        archive.extend([b"PK\x03\x04".as_slice(), &common].concat());
        archive.extend([name.as_bytes(), text.as_bytes()].concat());
        list.extend([b"PK\x01\x02\x14\x00".as_slice(), &common, &[0; 10]].concat());
        list.extend(at.to_le_bytes());
        list.extend(name.as_bytes());
    }
    let (count, at) = ((files.len() as u16).to_le_bytes(), archive.len() as u32);
    archive.extend(&list);
    archive.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count].concat());
    archive.extend((list.len() as u32).to_le_bytes());
    archive.extend(at.to_le_bytes());
    archive.extend([0, 0]);
    archive
}

fn list(world: &World, versions: &[&Version]) {
    let lines = versions.iter().map(|version| format!("{}\n", version.number)).collect::<String>();
    world.origin.put(&format!("{ESCAPED}/@v/list"), Reply::stale(lines));
}

/// Runs go in a project of its own.
fn go(world: &World, database: &Database, project: &str, args: &[&str]) -> Run {
    let place = &world.place;
    let home = place.path(&format!("{project}/home"));
    fs_err::create_dir_all(&home).unwrap();
    if !place.path(&format!("{project}/go.mod")).exists() {
        place.write(&format!("{project}/go.mod"), "module app.example\n\ngo 1.18\n");
        let source = format!(
            "package main\n\nimport alpha \"{MODULE}\"\n\nfunc main() {{ println(alpha.Version) }}\n"
        );
        place.write(&format!("{project}/main.go"), source);
    }
    place
        .run("go", [])
        .args(args)
        .current_dir(&place.path(project))
        .env("HOME", &home)
        .env("GOPATH", home.join("go"))
        .env("GOCACHE", home.join("cache"))
        .env("GOENV", "off")
        .env("GOFLAGS", "-modcacherw")
        .env("GOPROXY", format!("http://{}/one", world.proxy))
        .env("GOSUMDB", database.public())
        .env_remove("GOROOT")
        .env_remove("GONOSUMDB")
        .env_remove("GOPRIVATE")
        .env_remove("GONOPROXY")
        .env_remove("http_proxy")
}

#[test]
fn go_takes_modules_and_checksums_through_the_proxy() {
    let world = world("go", None);
    let [one, two, three] = ["v1.0.0", "v1.1.0", "v1.2.0"].map(Version::new);
    let record = |version: &Version| {
        (format!("mod.example/%21alpha@{}", version.number), version.lines.clone())
    };
    let database = Database::new([&one, &two, &three].map(record).to_vec());
    for (path, bytes) in database.files() {
        world.origin.put(&path, Reply::stale(bytes));
    }
    one.publish(&world);
    list(&world, &[&one]);

    let latest = format!("{MODULE}@latest");
    go(&world, &database, "first", &["get", &latest]).ok();
    let sums = fs_err::read_to_string(world.place.path("first/go.sum")).unwrap();
    assert_eq!(sums, one.lines);
    let first = asked(&world.origin);
    let asks = |path: String| first.iter().filter(|line| **line == format!("GET {path}")).count();
    for path in [
        format!("{ESCAPED}/@v/v1.0.0.zip"),
        format!("{ESCAPED}/@v/v1.0.0.mod"),
        format!("/sumdb/{NAME}/lookup/mod.example/%21alpha@v1.0.0"),
        format!("/sumdb/{NAME}/tile/8/0/000.p/3"),
    ] {
        assert_eq!(asks(path.clone()), 1, "{path} of {first:?}");
    }

    // A new version is seen.
    two.publish(&world);
    list(&world, &[&one, &two]);
    go(&world, &database, "first", &["get", &latest]).ok();
    let required = fs_err::read_to_string(world.place.path("first/go.mod")).unwrap();
    assert!(required.contains("v1.1.0"), "{required}");
    assert!(!required.contains("127.0.0.1"), "{required}");

    // Wrong bytes are refused by us, until they are right.
    three.publish(&world);
    let path = format!("{ESCAPED}/@v/v1.2.0.zip");
    let mut wrong = three.zip.clone();
    let at = wrong.iter().position(|byte| *byte == b'\"').unwrap();
    wrong[at + 1] = b'w';
    world.origin.put(&path, Reply::stale(wrong));
    let refused = get(&world, &path, &[]);
    assert_eq!(refused.status, 502);
    assert!(refused.text().contains("sum.example"), "{}", refused.text());
    world.origin.put(&path, Reply::stale("no archive"));
    assert_eq!(get(&world, &path, &[]).status, 502);
    world.origin.put(&path, Reply::stale(three.zip.clone()));
    let right = get(&world, &path, &[]);
    assert_eq!((right.status, &right.body), (200, &three.zip));
    assert_eq!(get(&world, &path, &[]).cache(), "HIT");

    // A fresh client needs no upstream.
    world.origin.go_down();
    let exact = format!("{MODULE}@v1.1.0");
    go(&world, &database, "second", &["get", &exact]).ok();
    let sums = fs_err::read_to_string(world.place.path("second/go.sum")).unwrap();
    assert_eq!(sums, two.lines);
}
