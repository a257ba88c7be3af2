//! Formats of package managers, as they are and damaged.

use boatyard_oci::MediaType;

use super::package::{Distribution, Kind, Package};
use super::scan::packages;
use super::{apk, dpkg, go, json, lines, rpm};
use crate::image::Image;
use crate::import::testing::{tar, world};
use crate::layer::Compression;

fn shown(packages: &[Package]) -> Vec<String> {
    let mut shown: Vec<_> = packages.iter().map(|package| package.url(None)).collect();
    shown.sort();
    shown
}

#[test]
fn databases_of_distributions() {
    let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\n\
        Version: 2.36-9+deb12u9\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
        Package: perl-base\nStatus: hold ok installed\nSource: perl (5.36.0-7)\nVersion: 1:5.36\n";
    let found = dpkg::packages(status, "/var/lib/dpkg/status");
    assert_eq!(
        shown(&found),
        [
            "pkg:deb/libc6@2.36-9%2Bdeb12u9?arch=amd64&upstream=glibc",
            "pkg:deb/perl-base@1%3A5.36?upstream=perl%405.36.0-7",
        ]
    );
    let debian = lines::os_release("ID=debian\nVERSION_ID=\"12\"\n");
    assert_eq!(debian, Distribution { id: "debian".to_owned(), version: "12".to_owned() });
    let url = found[0].url(Some(&debian));
    assert!(url.starts_with("pkg:deb/debian/libc6@") && url.contains("&distro=debian-12"), "{url}");

    let installed = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\n\nP:ssl_client\nV:1.36-r2\n\
        A:x86_64\nL:GPL-2.0-only\no:busybox\n";
    let found = apk::packages(installed, "/lib/apk/db/installed");
    assert_eq!(
        shown(&found),
        [
            "pkg:apk/musl@1.2.5-r0?arch=x86_64",
            "pkg:apk/ssl_client@1.36-r2?arch=x86_64&upstream=busybox",
        ]
    );
    assert_eq!(found[0].license.as_deref(), Some("MIT"));
}

#[test]
fn packages_and_lock_files_of_languages() {
    let package = r#"{"name":"@scope/tool","version":"1.0.0","license":"ISC"}"#;
    let node = json::package(package, "/a").unwrap();
    assert_eq!(shown(&[node]), ["pkg:npm/%40scope/tool@1.0.0"]);
    let lock = r#"{"lockfileVersion":3,"packages":{"":{"name":"own","version":"9"},
        "node_modules/a":{"version":"1"},"node_modules/a/node_modules/@s/b":{"version":"2"}}}"#;
    assert_eq!(shown(&json::lock(lock, "/a")), ["pkg:npm/%40s/b@2", "pkg:npm/a@1"]);
    let old = r#"{"dependencies":{"a":{"version":"1","dependencies":{"b":{"version":"2"}}}}}"#;
    assert_eq!(shown(&json::lock(old, "/a")), ["pkg:npm/a@1", "pkg:npm/b@2"]);
    let metadata =
        "Metadata-Version: 2.1\nName: Foo_Bar.baz\nVersion: 2.0\nLicense: MIT\n\nName: x\n";
    let python = lines::python(metadata, "/a").unwrap();
    assert_eq!(shown(&[python]), ["pkg:pypi/foo-bar-baz@2.0"]);
    let gems = "GEM\n  remote: x\n  specs:\n    rack (3.0.1)\n    puma (6.0)\n      nio4r (~> 2.0)\n\n\
        DEPENDENCIES\n  rack\n";
    let found = lines::gemfile_lock(gems, "/a");
    assert_eq!(shown(&found), ["pkg:gem/puma@6.0", "pkg:gem/rack@3.0.1"]);
    let gemspec =
        "  s.name = \"rack\".freeze\n  s.version = \"3.0.1\"\n  s.licenses = [\"MIT\".freeze]\n";
    let gem = lines::gemspec(gemspec, "/gems/specifications/rack-3.0.1.gemspec").unwrap();
    assert_eq!(
        (shown(std::slice::from_ref(&gem))[0].as_str(), gem.license.as_deref()),
        ("pkg:gem/rack@3.0.1", Some("MIT"))
    );
    let cargo = "version = 3\n\n[[package]]\nname = \"bytes\"\nversion = \"1.5.0\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
    assert_eq!(
        shown(&lines::cargo_lock(cargo, "/a")),
        ["pkg:cargo/bytes@1.5.0", "pkg:cargo/own@0.1.0"]
    );
    let sums = "example.com/m v1.2.0 h1:x=\nexample.com/m v1.2.0/go.mod h1:y=\nexample.com/n v0.1.0/go.mod h1:z=\n";
    assert_eq!(shown(&lines::go_sum(sums, "/a")), ["pkg:golang/example.com/m@v1.2.0"]);
}

/// What Go's linker writes.
fn program(modules: &str) -> Vec<u8> {
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    let framed = format!("0123456789abcdef{modules}0123456789abcdef");
    for text in ["go1.22.1", &framed] {
        let mut length = text.len();
        while length >= 0x80 {
            info.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        info.push(length as u8);
        info.extend_from_slice(text.as_bytes());
    }
    info
}

#[test]
fn modules_of_programs() {
    let info = program(
        "path\texample.com/cmd\nmod\texample.com/cmd\t(devel)\t\ndep\texample.com/a\tv1.0.0\th1:x=\ndep\texample.com/b\tv1.0.0\n=>\texample.com/c\tv2.0.0\th1:y=\n",
    );
    let mut elf = b"\x7fELF".to_vec();
    elf.resize(4096, 0);
    elf.extend_from_slice(&info);
    assert_eq!(go::find(&elf), Some(4096));
    assert_eq!(
        shown(&go::modules(&info, "/bin/cmd")),
        [
            "pkg:golang/example.com/a@v1.0.0",
            "pkg:golang/example.com/c@v2.0.0",
            "pkg:golang/stdlib@1.22.1"
        ]
    );
    for cut in 0..info.len() {
        go::modules(&info[..cut], "/bin/cmd");
    }
}

struct Bytes(Vec<u8>);

impl super::sqlite::ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let start = usize::try_from(offset).unwrap().min(self.0.len());
        let mut rest = &self.0[start..];
        std::io::Read::read_exact(&mut rest, buffer)
    }
}

/// An rpm's header with a name, a version, a release and an epoch.
fn header(name: &str, padding: usize) -> Vec<u8> {
    let texts = [
        (1000_u32, name.to_owned()),
        (1001, "5.2".to_owned()),
        (1002, "1".to_owned()),
        (1022, "x86_64".to_owned()),
    ];
    let (mut index, mut data) = (Vec::new(), Vec::new());
    let mut entry = |tag: u32, kind: u32, at: usize| {
        for number in [tag, kind, at as u32, 1] {
            index.extend_from_slice(&number.to_be_bytes());
        }
    };
    for (tag, text) in &texts {
        entry(*tag, 6, data.len());
        data.extend_from_slice(text.as_bytes());
        data.push(0);
    }
    data.resize(data.len().next_multiple_of(4), 0);
    entry(1003, 4, data.len());
    data.extend_from_slice(&3_u32.to_be_bytes());
    data.resize(data.len() + padding, 0);
    let mut header = (texts.len() as u32 + 1).to_be_bytes().to_vec();
    header.extend_from_slice(&(data.len() as u32).to_be_bytes());
    header.extend(index);
    header.extend(data);
    header
}

/// A database of rpm in ndb.
fn ndb(headers: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"RpmP".to_vec();
    for number in [0_u32, 1, 1, 0, 0, 0, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    let mut blobs = vec![0; 0];
    for (number, header) in headers.iter().enumerate() {
        let block = (4096 + blobs.len()) / 16;
        file.extend_from_slice(b"Slot");
        for field in [number as u32 + 1, block as u32, 1] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        blobs.extend_from_slice(b"BlbS");
        for field in [number as u32 + 1, 1, header.len() as u32] {
            blobs.extend_from_slice(&field.to_le_bytes());
        }
        blobs.extend_from_slice(header);
        blobs.resize(blobs.len().next_multiple_of(16) + 16, 0);
    }
    file.resize(4096, 0);
    file.extend(blobs);
    file
}

#[test]
fn databases_of_rpm() {
    let file = Bytes(ndb(&[header("bash", 0), header("gpg-pubkey", 0), header("glibc", 9000)]));
    let found = rpm::ndb(&file, "/var/lib/rpm/Packages.db").unwrap();
    assert_eq!(
        shown(&found),
        ["pkg:rpm/bash@5.2-1?arch=x86_64&epoch=3", "pkg:rpm/glibc@5.2-1?arch=x86_64&epoch=3"]
    );
    for cut in (0..file.0.len()).step_by(7) {
        let _ = rpm::ndb(&Bytes(file.0[..cut].to_vec()), "/x");
        let mut damaged = file.0.clone();
        damaged[cut] ^= 0xff;
        let _ = rpm::ndb(&Bytes(damaged), "/x");
    }
}

#[test]
fn what_upper_layers_delete_or_replace_is_not_listed() {
    let world = world();
    let metadata = |name: &str| format!("Name: {name}\nVersion: 1\n\n").into_bytes();
    let (a, b, c, d) = (metadata("a"), metadata("b"), metadata("c"), metadata("d"));
    let below = tar(&[
        ("lib/a.dist-info/METADATA", &a),
        ("lib/b.dist-info/METADATA", &b),
        ("opt/c.dist-info/METADATA", &c),
        ("srv/d.dist-info/METADATA", &d),
    ]);
    let newer = b"Name: b\nVersion: 2\n\n".to_vec();
    let above = tar(&[
        ("lib/.wh.a.dist-info", b""),
        ("lib/b.dist-info/METADATA", &newer),
        ("opt/.wh..wh..opq", b""),
        ("srv", b"->lib"),
    ]);
    let target = world.image(&[(below, Compression::GZIP), (above, Compression::ZSTD)]);
    let image = Image::open(&world.root.store(), &target, None).unwrap();
    assert_eq!(target.media_type, MediaType::OCI_MANIFEST);
    let found = packages(&world.root, &image, 1, &|_| {}).unwrap();
    assert_eq!(shown(&found.packages), ["pkg:pypi/b@2"]);
    assert_eq!(found.packages[0].kind, Kind::Pypi);
    assert_eq!(found.packages[0].found_in, "/lib/b.dist-info/METADATA");
}
