use http::{HeaderMap, HeaderValue};

use super::address::{Kind, kind, splits};
use super::listing::{Info, Versions, md5};
use super::source;
use crate::headers::X_GEMFILE_SOURCE;
use crate::upstreams::{Upstream, Upstreams};

#[test]
fn paths_of_a_source() {
    let gem = |file: &str| Kind::Gem(file.to_owned());
    for (path, expected) in [
        ("/versions", Some(("/", Kind::Versions))),
        ("/a/b/names", Some(("/a/b/", Kind::Names))),
        ("/info/versions", Some(("/", Kind::Info))),
        ("/x/info/rack", Some(("/x/", Kind::Info))),
        ("/gems/rack-1.0.gem", Some(("/", gem("rack-1.0")))),
        ("/g/gems/rack-1.0-java.gem", Some(("/g/", gem("rack-1.0-java")))),
        ("/quick/Marshal.4.8/rack-1.0.gemspec.rz", Some(("/", Kind::Spec))),
        ("/latest_specs.4.8.gz", Some(("/", Kind::Marshal))),
        ("/info/", None),
        ("/info/a%2Fb", None),
        ("/gems/.gem/x", None),
        ("/gems/rack", None),
        ("", None),
        ("versions", None),
    ] {
        assert_eq!(kind(path), expected, "{path}");
    }
}

#[test]
fn file_names_are_split_where_versions_begin() {
    let of = |file| splits(file).collect::<Vec<_>>();
    assert_eq!(of("rack-1.0"), [("rack", "1.0")]);
    assert_eq!(of("a-b-1.0-x86_64-linux"), [("a-b", "1.0-x86_64-linux")]);
    assert_eq!(of("a-1-2.0"), [("a-1", "2.0"), ("a", "1-2.0")]);
    assert_eq!(of("-1.0"), []);
    assert_eq!(of("rack"), []);
}

#[test]
fn the_last_line_of_a_name_counts() {
    let (one, two) = ("00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100");
    let text = format!(
        "created_at: 2026-01-01T00:00:00Z\n---\nrack 1.0,1.1 {one}\nx 1 {two}\nrack -1.0 {two}\n\
         broken\nalso broken x\n\n"
    );
    let versions = Versions::read(text.as_bytes()).unwrap();
    assert_eq!(versions.created_at.as_deref(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(versions.sum("rack"), md5(two.as_bytes()));
    assert_eq!(versions.sum("x"), md5(two.as_bytes()));
    assert_eq!(versions.sum("broken"), None);
    assert!(Versions::read(b"".as_slice()).unwrap().sum("").is_none());
    assert!(Versions::read([0xff; 100].as_slice()).unwrap().created_at.is_none());
}

#[test]
fn sums_of_gems() {
    let sum = "ab".repeat(32);
    let text = format!(
        "---\n1.0 beta:>= 1&< 3,gamma:= 2|checksum:{sum},ruby:>= 2\n1.1-java |checksum:{sum}\n\
         1.2 |ruby:>= 3\n1.3 |checksum:xyz\n"
    );
    let info = Info::parse(text.as_bytes());
    assert_eq!(info.sum("1.0").unwrap().to_string(), format!("sha256:{sum}"));
    assert!(info.sum("1.1-java").is_some());
    assert!(info.sum("1.1").is_none() && info.sum("1.2").is_none() && info.sum("1.3").is_none());
    assert!(Info::parse(b"\xff\n").sum("").is_none());
}

#[test]
fn a_gemfile_says_which_source_is_meant() {
    let upstream = |name: &str, url: &str| Upstream::new(name, &[url.to_owned()]).unwrap();
    let upstreams = Upstreams::new(vec![
        upstream("gems", "https://gems.example"),
        upstream("own", "http://own.example/g"),
    ])
    .unwrap();
    let of = |path: &str, source: &str| {
        let value = HeaderValue::from_str(source).unwrap();
        let headers = HeaderMap::from_iter([(X_GEMFILE_SOURCE, value)]);
        source::target(&upstreams, path, &headers).map(|target| target.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    let public = "https://gems.example/";
    for (path, source, expected) in [
        ("versions", public, some("https://gems.example/versions")),
        ("gems/rack-1.0.gem", public, some("https://gems.example/gems/rack-1.0.gem")),
        ("info/rack", "http://own.example/g/", some("http://own.example/g/info/rack")),
        ("gems/info/rack", "http://own.example/g", some("http://own.example/g/info/rack")),
        // The path says it, and nothing else is known of the source.
        ("gems/info/rack", public, None),
        ("gems/info/rack", "https://other.example", None),
        (
            "api/v1/dependencies?gems=a",
            public,
            some("https://gems.example/api/v1/dependencies?gems=a"),
        ),
        ("etc/passwd", public, None),
        ("versions", "file:///etc", None),
        ("versions", "http://me:secret@own.example/", None),
        ("versions", "http://own.example/?x=", None),
    ] {
        assert_eq!(of(path, source), expected, "{path} of {source}");
    }
    assert_eq!(source::target(&upstreams, "versions", &HeaderMap::new()), None);
}
