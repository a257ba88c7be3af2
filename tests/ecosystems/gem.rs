//! gem and bundler.

use std::collections::BTreeMap;
use std::path::Path;

use boatyard_oci::Digest;

use super::support::origin::{Origin, Reply};
use super::support::place::text;
use super::support::proxy::{World, curl};
use super::support::{Place, Run};
use super::{asked, get, hosting, token, world};

/// A source of gems that grows.
struct Source {
    versions: String,
    infos: BTreeMap<String, String>,
}

impl Source {
    fn new() -> Source {
        let versions = "created_at: 2026-01-01T00:00:00Z\n---\n".to_owned();
        Source { versions, infos: BTreeMap::new() }
    }

    /// Publishes a gem, and the indexes that list it. No tag is the MD5 that clients want.
    fn publish(&mut self, place: &Place, origin: &Origin, gem: &Built) {
        let path = format!("/gems/{}-{}.gem", gem.name, gem.version);
        origin.put(&path, Reply::fresh(gem.bytes.clone()));
        let needs =
            if gem.needs.is_empty() { String::new() } else { format!("{}:>= 0", gem.needs) };
        let info = self.infos.entry(gem.name.to_owned()).or_insert_with(|| "---\n".to_owned());
        let sum = Digest::sha256(&gem.bytes);
        info.push_str(&format!("{} {needs}|checksum:{}\n", gem.version, sum.hex()));
        let sum = md5(place, info);
        self.versions.push_str(&format!("{} {} {sum}\n", gem.name, gem.version));
        let tagged = |text: &str| Reply::stale(text).tagged(&format!("t{}", text.len()));
        origin.put(&format!("/info/{}", gem.name), tagged(info));
        origin.put("/versions", tagged(&self.versions));
        let names = self.infos.keys().map(|name| format!("{name}\n")).collect::<String>();
        origin.put("/names", tagged(&format!("---\n{names}")));
    }
}

fn md5(place: &Place, text: &str) -> String {
    let sum = place.run("md5sum", []).input(text).ok().text();
    sum.split(' ').next().unwrap().to_owned()
}

/// A gem.
struct Built {
    name: &'static str,
    version: &'static str,
    needs: &'static str,
    bytes: Vec<u8>,
}

fn build(place: &Place, name: &'static str, version: &'static str, needs: &'static str) -> Built {
    let needed =
        if needs.is_empty() { String::new() } else { format!("s.add_dependency '{needs}'") };
    place.write(&format!("gem/lib/{name}.rb"), format!("puts '{name} {version}'\n"));
    let specification = format!(
        "Gem::Specification.new do |s|\n s.name = '{name}'\n s.version = '{version}'\n \
         s.summary = 'x'\n s.authors = ['x']\n s.files = ['lib/{name}.rb']\n {needed}\nend\n"
    );
    place.write(&format!("gem/{name}.gemspec"), specification);
    let built = place.path(&format!("gem/{name}.gem"));
    place
        .run("gem", ["build", &format!("{name}.gemspec"), "-o", text(&built)])
        .current_dir(&place.path("gem"))
        .ok();
    Built { name, version, needs, bytes: fs_err::read(built).unwrap() }
}

/// A project whose gems come through a mirror of everything.
fn bundle(world: &World, project: &str, args: &[&str]) -> Run {
    let home = world.place.path(&format!("{project}/home"));
    fs_err::create_dir_all(&home).unwrap();
    world
        .place
        .run("bundle", [])
        .args(args)
        .current_dir(&world.place.path(project))
        .env("HOME", &home)
        .env("GEM_HOME", home.join("gems"))
        .env("BUNDLE_PATH", home.join("bundle"))
        .env("BUNDLE_MIRROR__ALL", format!("http://{}", world.proxy))
        .env("BUNDLE_SILENCE_ROOT_WARNING", "1")
        .env("BUNDLE_RETRY", "0")
        .env_remove("RUBYOPT")
        .env_remove("http_proxy")
}

fn gemfile(place: &Place, project: &str, lines: &str) {
    place.write(&format!("{project}/Gemfile"), lines);
}

#[test]
fn bundler_takes_several_sources_through_one_mirror() {
    let other = Origin::start();
    let world = world("gem", Some(&other));
    let place = &world.place;
    let (mut one, mut two) = (Source::new(), Source::new());
    one.publish(place, &world.origin, &build(place, "alpha", "1.0", "beta"));
    one.publish(place, &world.origin, &build(place, "beta", "1.0", ""));
    two.publish(place, &other, &build(place, "gamma", "1.0", ""));
    let lines = format!(
        "source '{}'\ngem 'alpha'\nsource '{}' do\n  gem 'gamma'\nend\n",
        world.origin.url(""),
        other.url("")
    );

    gemfile(place, "first", &lines);
    bundle(&world, "first", &["install"]).ok();
    let files = ["alpha-1.0.gem", "beta-1.0.gem"].map(|file| format!("GET /gems/{file}"));
    let [alpha, beta] = files;
    let expected = [&alpha, &beta, "GET /info/alpha", "GET /info/beta", "GET /versions"];
    assert_eq!(asked(&world.origin), expected);
    assert_eq!(asked(&other), ["GET /gems/gamma-1.0.gem", "GET /info/gamma", "GET /versions"]);
    let run = bundle(&world, "first", &["exec", "ruby", "-e", "require 'alpha'"]).ok();
    assert_eq!(run.text(), "alpha 1.0");
    let lock = fs_err::read_to_string(place.path("first/Gemfile.lock")).unwrap();
    assert!(lock.contains(&format!("remote: {}/\n", world.origin.url(""))), "{lock}");
    assert!(lock.contains(&format!("remote: {}/\n", other.url(""))), "{lock}");
    assert!(!lock.contains(&world.proxy), "{lock}");

    // A new version is seen, and only what is new is fetched.
    one.publish(place, &world.origin, &build(place, "alpha", "1.1", "beta"));
    bundle(&world, "first", &["update"]).ok();
    let run = bundle(&world, "first", &["exec", "ruby", "-e", "require 'alpha'"]).ok();
    assert_eq!(run.text(), "alpha 1.1");
    let asked = asked(&world.origin);
    let fetched = ["GET /gems/alpha-1.1.gem", "GET /info/alpha", "GET /versions"];
    assert!(fetched.iter().all(|line| asked.contains(&(*line).to_owned())), "{asked:?}");
    assert!(!asked.contains(&beta), "{asked:?}");

    // A fresh client needs no upstream for what others have fetched.
    world.origin.go_down();
    other.go_down();
    gemfile(place, "second", &lines);
    bundle(&world, "second", &["install"]).ok();
    let run = bundle(&world, "second", &["exec", "ruby", "-e", "require 'alpha'"]).ok();
    assert_eq!(run.text(), "alpha 1.1");
}

#[test]
fn gem_installs_by_the_compact_index_and_by_the_old_one() {
    for is_compact in [true, false] {
        let world = world("gem", None);
        let place = &world.place;
        let mut source = Source::new();
        let gems = [build(place, "alpha", "1.0", "beta"), build(place, "beta", "1.0", "")];
        for gem in &gems {
            let name = format!("old/gems/{}-{}.gem", gem.name, gem.version);
            place.write(&name, &gem.bytes);
            if is_compact {
                source.publish(place, &world.origin, gem);
            }
        }
        let old = place.path("old");
        place.run("gem", ["generate_index", "--directory", text(&old)]).ok();
        put_all(&world.origin, &old, "");

        install(&world, "alpha", "first").ok();
        let first = asked(&world.origin);
        let asks = |path: &str| first.iter().filter(|line| **line == format!("GET {path}")).count();
        assert_eq!(asks("/gems/alpha-1.0.gem"), 1, "{first:?}");
        assert_eq!(asks("/specs.4.8.gz"), usize::from(!is_compact), "{first:?}");
        assert_eq!(asks("/info/alpha") > 0, is_compact || asks("/info/alpha") > 0);
        world.origin.go_down();
        install(&world, "alpha", "second").ok();
        assert!(place.path("second/gems/beta-1.0/lib/beta.rb").exists());
    }
}

fn install(world: &World, name: &str, home: &str) -> Run {
    let (place, home) = (&world.place, world.place.path(home));
    let source = format!("http://{}/one/", world.proxy);
    place
        .run("gem", ["install", name, "--no-document", "--clear-sources", "--source", &source])
        .args(["--install-dir", text(&home)])
        .env("HOME", &home)
        .env("GEM_HOME", &home)
        .env_remove("http_proxy")
}

fn put_all(origin: &Origin, directory: &Path, below: &str) {
    for file in fs_err::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = format!("{below}/{}", file.file_name().to_str().unwrap());
        if file.file_type().unwrap().is_dir() {
            put_all(origin, &file.path(), &path);
        } else if !path.starts_with("/gems/") || !path.ends_with(".gemspec") {
            origin.put(&path, Reply::stale(fs_err::read(file.path()).unwrap()));
        }
    }
}

#[test]
fn indexes_have_what_clients_check_and_never_go_back() {
    let world = world("gem", None);
    let place = &world.place;
    let mut source = Source::new();
    let fake = |version, bytes: &str| Built {
        name: "alpha",
        version,
        needs: "",
        bytes: bytes.as_bytes().to_vec(),
    };
    source.publish(place, &world.origin, &fake("1.0", "one"));
    let old = source.versions.clone();
    let first = get(&world, "/versions", &[]);
    assert_eq!((first.text(), first.cache()), (old.as_str(), "MISS"));
    assert_eq!(first.header("etag").unwrap(), format!("\"{}\"", md5(place, &old)));
    let sum = Digest::sha256(old.as_bytes());
    let base64 = place.run("sh", ["-c", "xxd -r -p 2>/dev/null | base64"]).input(sum.hex()).run();
    if !base64.text().is_empty() {
        let expected = format!("sha-256=:{}:", base64.text());
        assert_eq!(first.header("repr-digest").unwrap(), expected);
    }
    assert!(first.header("digest").unwrap().starts_with("sha-256="));

    // A client that has a part of it gets the rest, and one that has all of it gets nothing.
    source.publish(place, &world.origin, &fake("1.1", "two"));
    let range = format!("Range: bytes={}-", old.len() - 1);
    let none = format!("If-None-Match: {}", first.header("etag").unwrap());
    let rest = get(&world, "/versions", &["-H", &range, "-H", &none]);
    assert_eq!((rest.status, rest.text()), (206, &source.versions[old.len() - 1..]));
    assert_eq!(rest.header("etag").unwrap(), format!("\"{}\"", md5(place, &source.versions)));
    let none = format!("If-None-Match: {}", rest.header("etag").unwrap());
    assert_eq!(get(&world, "/versions", &["-H", &none]).status, 304);
    let beyond = format!("Range: bytes={}-", source.versions.len() + 1);
    assert_eq!(get(&world, "/versions", &["-H", &beyond]).status, 416);

    // A server of the upstream that is behind.
    world.origin.put("/versions", Reply::stale(old).tagged("old"));
    assert_eq!(get(&world, "/versions", &[]).text(), source.versions);

    // Wrong bytes are not served, nor what is right by another's name.
    assert_eq!(get(&world, "/gems/alpha-1.0.gem", &[]).text(), "one");
    world.origin.put("/gems/alpha-1.1.gem", Reply::fresh("owt"));
    let wrong = get(&world, "/gems/alpha-1.1.gem", &[]);
    assert!(wrong.status == 502 || wrong.body.len() < 3, "{} {:?}", wrong.status, wrong.body);
    world.origin.put("/gems/alpha-1.1.gem", Reply::fresh("two"));
    assert_eq!(get(&world, "/gems/alpha-1.1.gem", &[]).text(), "two");

    // The same by its own address, through the proxy.
    let url = world.origin.url("/gems/alpha-1.0.gem");
    let got = curl(place, &["-x", &format!("http://{}", world.proxy)], &[], &url);
    assert_eq!((got.text(), got.cache()), ("one", "HIT"));
}

#[test]
fn private_gems_are_published_beside_public_ones() {
    let world = hosting("gem", "private = ['acme-*']", None);
    let place = &world.place;
    let mut source = Source::new();
    source.publish(place, &world.origin, &build(place, "alpha", "1.0", "acme-tools"));
    // Somebody publishes a higher version of a private name.
    source.publish(place, &world.origin, &build(place, "acme-tools", "9.0", ""));
    let tools = build(place, "acme-tools", "1.0", "");
    let token = token(place);
    let gem = |verb: &str, built: &Built| gem(&world, &token, verb, built);
    gem("push", &tools).ok();

    gemfile(place, "first", &format!("source '{}'\ngem 'alpha'\n", world.origin.url("")));
    bundle(&world, "first", &["install"]).ok();
    let run = bundle(&world, "first", &["exec", "ruby", "-e", "require 'acme-tools'"]).ok();
    assert_eq!(run.text(), "acme-tools 1.0");
    let asked = asked(&world.origin);
    assert!(!asked.iter().any(|line| line.contains("acme")), "{asked:?}");
    let sum = format!("checksum:{}", Digest::sha256(&tools.bytes).hex());
    assert!(get(&world, "/info/acme-tools", &[]).text().contains(&sum));
    assert!(!get(&world, "/versions", &[]).text().contains("9.0"));

    install(&world, "acme-tools", "installed").ok();
    assert!(place.path("installed/gems/acme-tools-1.0/lib/acme-tools.rb").exists());

    // A version is published once, and other names not at all.
    gem("push", &tools).ok();
    place.write("gem/lib/acme-tools.rb", "puts 'other'\n");
    let other = Built { bytes: build(place, "acme-tools", "1.0", "alpha").bytes, ..tools };
    gem("push", &other).fails(1);
    gem("push", &build(place, "beta", "1.0", "")).fails(1);

    gem("yank", &other).ok();
    assert_eq!(get(&world, "/info/acme-tools", &[]).text(), "---\n");
    assert!(!get(&world, "/versions", &[]).text().contains("acme-tools"));
    assert_eq!(get(&world, "/gems/acme-tools-1.0.gem", &[]).status, 200);
    assert_eq!(get(&world, "/gems/acme-tools-9.0.gem", &[]).status, 404);
}

/// Publishes or withdraws a gem.
fn gem(world: &World, token: &str, verb: &str, gem: &Built) -> Run {
    let place = &world.place;
    let file = place.write("pushed.gem", &gem.bytes);
    let home = place.path("publisher");
    fs_err::create_dir_all(&home).unwrap();
    let run = match verb {
        "push" => place.run("gem", ["push", text(&file)]),
        _ => place.run("gem", [verb, gem.name, "-v", gem.version]),
    };
    let host = format!("http://{}/one", world.proxy);
    run.args(["--host", &host])
        .env("HOME", &home)
        .env("GEM_HOME", &home)
        .env("RUBYGEMS_HOST", &host)
        .env("GEM_HOST_API_KEY", token)
        .env_remove("http_proxy")
}
