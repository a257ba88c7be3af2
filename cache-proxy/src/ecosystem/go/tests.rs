use std::io::Cursor;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::address::{Address, File, Kind, Module, unescaped};
use super::dirhash::{of_mod, of_zip, recorded};
use crate::hosted::Admitted;
use crate::request::Request;
use crate::upstreams::Upstream;

fn kind(below: &str) -> Option<Kind> {
    let mut upstream = Upstream::new("go", &["http://go.example/p".to_owned()]).unwrap();
    upstream.ecosystem = Some("go".to_owned());
    let target = format!("http://go.example/p/{below}").parse().unwrap();
    let client = ([127, 0, 0, 1], 1).into();
    let (method, headers) = (Method::GET, HeaderMap::new());
    let upstream = Some(Arc::new(upstream));
    let admitted = Admitted::default();
    let request = Request { method, target, headers, upstream, base: None, client, admitted };
    Some(Address::of(&request)?.kind)
}

fn module(file: File) -> Module {
    Module { path: "m.example/!x".to_owned(), version: "v1.0.0".to_owned(), file }
}

#[test]
fn paths_of_a_module_proxy() {
    for (below, expected) in [
        ("m.example/x/@v/list", Some(Kind::Changing)),
        ("m.example/x/@latest", Some(Kind::Changing)),
        ("m.example/x/@v/main.info", Some(Kind::Changing)),
        ("m.example/x/@v/v1.info", Some(Kind::Changing)),
        ("m.example/x/@v/v1.2.info", Some(Kind::Changing)),
        ("m.example/x/@v/v1.2.3.info", Some(Kind::Constant)),
        ("m.example/!x/@v/v1.0.0.mod", Some(Kind::File(module(File::Mod)))),
        ("m.example/!x/@v/v1.0.0.zip", Some(Kind::File(module(File::Zip)))),
        ("m.example/x/@v/v1.2.3.tar", None),
        ("m.example/x/@v/a/b.zip", None),
        ("sumdb/sum.example/supported", Some(Kind::Supported("sum.example".to_owned()))),
        ("sumdb/sum.example/lookup/m.example/x@v1.0.0", Some(Kind::Constant)),
        ("sumdb/sum.example/tile/8/0/x001/234.p/5", Some(Kind::Constant)),
        ("sumdb/sum.example/latest", Some(Kind::Changing)),
        ("sumdb/a@b/supported", None),
        ("other", None),
    ] {
        assert_eq!(kind(below), expected, "{below}");
    }
    let versions = ["v0.0.0-20260101000000-abcdef123456", "v2.0.0+incompatible", "v1.0.0-!r!c1"];
    for version in versions {
        let is_file = matches!(kind(&format!("m/@v/{version}.zip")), Some(Kind::File(_)));
        assert!(is_file, "{version}");
    }
    assert_eq!(unescaped("m.example/!x%21y!"), "m.example/XY");
}

#[test]
fn what_a_database_records() {
    let record = "7\nm.example/X v1.0.0 h1:zip=\nm.example/X v1.0.0/go.mod h1:mod=\n\n\
                  m.example/X v1.0.0 h1:forged=\n";
    let of = |file| recorded(record, &module(file)).map(|hash| hash.to_string());
    assert_eq!(of(File::Zip).as_deref(), Some("h1:zip="));
    assert_eq!(of(File::Mod).as_deref(), Some("h1:mod="));
    assert_eq!(recorded("7\n\nm.example/X v1.0.0 h1:a=\n", &module(File::Zip)), None);
    assert_eq!(recorded("", &module(File::Zip)), None);
}

/// An archive with one stored member, `a`, that has `b` in it.
fn archive() -> Vec<u8> {
    let common = b"\x14\0\0\0\0\0\0\0\0\0\xf9\xef\xbe\x71\x01\0\0\0\x01\0\0\0\x01\0\0\0";
    let mut archive = [b"PK\x03\x04", common.as_slice(), b"ab"].concat();
    let list = [b"PK\x01\x02\x14\0", common.as_slice(), &[0; 14], b"a"].concat();
    archive.extend(&list);
    archive.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    archive.extend([list.len() as u8, 0, 0, 0, 32, 0, 0, 0, 0, 0]);
    archive
}

#[test]
fn hashes_are_those_of_the_go_command() {
    let hash = of_mod(b"module m.example/X\n".as_slice()).unwrap().to_string();
    assert!(hash.starts_with("h1:") && hash.len() == 47, "{hash}");
    let hash = of_zip(Cursor::new(archive())).unwrap();
    let list = format!("{}  a\n", boatyard_oci::Digest::sha256(b"b").hex());
    let expected = boatyard_oci::Digest::sha256(list.as_bytes());
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(&hash.to_string()[3..]).unwrap();
    let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(digits, expected.hex());
}

#[test]
fn broken_archives_have_no_hash() {
    let whole = archive();
    for length in 0..whole.len() {
        assert!(of_zip(Cursor::new(&whole[..length])).is_err(), "{length}");
    }
    for at in 0..whole.len() {
        for value in [0, 0x7f, 0xff] {
            let mut broken = whole.clone();
            broken[at] = value;
            // It may have another hash, or none; it never panics.
            let _ = of_zip(Cursor::new(broken));
        }
    }
}
