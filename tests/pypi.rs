//! Python indexes through the cache proxy, as pip and uv meet them.

mod support;

use support::origin::Reply;
use support::proxy::{Got, curl, proxy_of};
use support::pypi::{Index, Machine, Wheel};
use support::{Place, Run, Server};

/// An index with a project that needs another, and a proxy that has it as `pypi`.
struct World {
    index: Index,
    _server: Server,
    place: Place,
    url: String,
    wheels: [Wheel; 2],
}

const ACCEPT_JSON: &str = "Accept: application/vnd.pypi.simple.v1+json";

impl World {
    fn new(is_json: bool) -> World {
        let (place, index) = (Place::new(), Index::start());
        let needed = Wheel::new(&place, "needed", "1.0", "");
        let top = Wheel::new(&place, "top", "1.0", "needed>=1");
        index.publish("needed", &[&needed], is_json, 5);
        index.publish("top", &[&top], is_json, 5);
        let server = Server::configured(&place, &place.root(), &index.config(""));
        let url = format!("http://{}/pypi/simple/", proxy_of(&server));
        World { index, _server: server, place, url, wheels: [needed, top] }
    }

    fn get(&self, path: &str, more: &[&str]) -> Got {
        curl(&self.place, &[], more, &format!("{}{path}", self.url))
    }

    /// Installs cold, sees an update, then installs on a fresh machine while all upstreams are away.
    fn installs(&self, is_json: bool, install: impl Fn(&Machine<'_>, &[&str]) -> Run) {
        let cold = Machine::new(&self.place, "cold", &self.url);
        install(&cold, &["top"]).ok();
        assert_eq!(
            (cold.version("top"), cold.version("needed")),
            ("top 1.0".into(), "needed 1.0".into())
        );
        let asked = self.index.files.asked();
        let wheels = asked.iter().filter(|line| line.ends_with(".whl")).count();
        assert_eq!(wheels, 2, "each wheel once: {asked:?}");

        let new = Wheel::new(&self.place, "needed", "1.1", "");
        self.index.publish("needed", &[&self.wheels[0], &new], is_json, 6);
        let updated = Machine::new(&self.place, "updated", &self.url);
        install(&updated, &["top"]).ok();
        assert_eq!(updated.version("needed"), "needed 1.1");

        self.index.go_down();
        let fresh = Machine::new(&self.place, "fresh", &self.url);
        install(&fresh, &["top"]).ok();
        assert_eq!(fresh.version("needed"), "needed 1.1");
    }
}

#[test]
fn pip_installs_through_us() {
    if Run::new("/usr/bin/python3").args(["-m", "pip", "--version"]).run().code != Some(0) {
        eprintln!("skipped: pip is not installed");
        return;
    }
    for is_json in [true, false] {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "it is for one lifetime only"
        )]
        World::new(is_json).installs(is_json, |machine, args| machine.pip(args));
    }
}

#[test]
fn uv_installs_through_us() {
    let found = Run::new("sh").args(["-c", "command -v uv"]).run();
    if found.code != Some(0) {
        eprintln!("skipped: uv is not installed");
        return;
    }
    let uv = found.text().trim().to_owned();
    World::new(true).installs(true, |machine, args| machine.uv(&uv, args));
}

#[test]
fn one_page_upstream_is_every_form_here() {
    let world = World::new(true);
    let html = world.get("top/", &[]);
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    let digest = boatyard_oci::Digest::sha256(&world.wheels[1].bytes);
    let link = format!("<a href=\"files/top-1.0-py3-none-any.whl#sha256={}\"", digest.hex());
    assert!(html.text().contains(&link), "{}", html.text());
    let json = world.get("top/", &["-H", ACCEPT_JSON]);
    assert_eq!(json.header("content-type"), Some("application/vnd.pypi.simple.v1+json"));
    let page: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(page["files"][0]["url"], "files/top-1.0-py3-none-any.whl");
    assert_eq!(page["files"][0]["upload-time"], "2020-01-01T00:00:00Z");
    // Both are of one version, so the second one only asked whether it still holds.
    let asked = world.index.pages.asked();
    assert!(asked.len() == 2 && asked[0] == "GET /simple/top/", "{asked:?}");
    assert!(asked[1].starts_with("GET /simple/top/ \""), "{asked:?}");

    for (spelling, right) in [("Top/", "top/"), ("top", "top/"), ("a__b.C/", "a-b-c/")] {
        let moved = world.get(spelling, &[]);
        assert_eq!(moved.status, 301);
        assert_eq!(moved.header("location"), Some(&*format!("{}{right}", world.url)));
    }
}

#[test]
fn files_come_from_where_the_page_says_and_are_what_it_says() {
    let world = World::new(true);
    let wheel = "top/files/top-1.0-py3-none-any.whl";
    // Nobody has read the page; a part is all that some clients want.
    let part = world.get(wheel, &["-r", "0-3"]);
    assert_eq!((part.status, &part.body[..]), (206, &b"PK\x03\x04"[..]));
    let metadata = world.get(&format!("{wheel}.metadata"), &[]);
    assert_eq!(metadata.body, world.wheels[1].metadata);
    assert_eq!(world.get("top/files/other-1.0.whl", &[]).status, 404);
    assert_eq!(world.get("absent/files/absent-1.0.whl", &[]).status, 404);

    let digest = boatyard_oci::Digest::sha256(&world.wheels[0].bytes);
    let path = format!("/packages/{}/{}", &digest.hex()[..8], world.wheels[0].file);
    let mut wrong = world.wheels[0].bytes.clone();
    wrong[0] ^= 1;
    for suffix in ["", ".metadata"] {
        world.index.files.put(&format!("{path}{suffix}"), Reply::stale(wrong.clone()));
        let got = world.get(&format!("needed/files/{}{suffix}", world.wheels[0].file), &[]);
        assert_ne!(got.body, wrong, "wrong bytes never arrive whole");
    }
    world.index.files.put(&path, Reply::stale(world.wheels[0].bytes.clone()));
    let right = world.get(&format!("needed/files/{}", world.wheels[0].file), &[]);
    assert_eq!(right.body, world.wheels[0].bytes);
}

#[test]
fn a_page_never_goes_back() {
    let world = World::new(true);
    let new = Wheel::new(&world.place, "top", "2.0", "");
    world.index.publish("top", &[&world.wheels[1], &new], true, 9);
    assert!(world.get("top/", &[]).text().contains("top-2.0"));
    // A mirror that lags behind, then one that has no numbers, which may be anything.
    world.index.publish("top", &[&world.wheels[1]], true, 8);
    let kept = world.get("top/", &[]);
    assert!(kept.text().contains("top-2.0"));
    assert_eq!(kept.cache(), "STALE");
    world.index.publish("top", &[&world.wheels[1]], true, 10);
    assert!(!world.get("top/", &[]).text().contains("top-2.0"));
}

#[test]
fn what_twine_uploads_is_private_and_stays() {
    if Run::new("sh").args(["-c", "command -v twine"]).run().code != Some(0) {
        eprintln!("skipped: twine is not installed");
        return;
    }
    let (place, index) = (Place::new(), Index::start());
    let server = Server::configured(&place, &place.root(), &index.config("private = ['acme*']"));
    let address = format!("http://{}/pypi", proxy_of(&server));
    // The same name, and a higher version, upstream: nobody ever sees it.
    let evil = Wheel::new(&place, "acme_tool", "9.0", "");
    index.publish("acme-tool", &[&evil], true, 1);
    let scope = "packages/**:pull,push,delete";
    let token = place.boatyard(["token", "create", "ci", "--scope", scope]).ok().text();
    let machine = Machine::new(&place, "machine", &format!("{address}/simple/"));
    let upload = |wheel: &Wheel| {
        let file = place.write(&format!("dist/{}", wheel.file), &wheel.bytes);
        let login = ["-u", "__token__", "-p", token.trim()];
        let run = machine.run("twine", &["upload", "--non-interactive", "--repository-url"]);
        run.arg(format!("{address}/legacy/")).args(login).arg(file).run()
    };
    let wheel = Wheel::new(&place, "acme_tool", "1.0", "");
    let first = upload(&wheel);
    assert_eq!(first.code, Some(0), "{first}");
    assert_eq!(upload(&wheel).code, Some(0), "the same once more is no harm");
    let other = Wheel::new(&place, "acme_tool", "1.0", "other");
    let refused = upload(&other);
    assert!(refused.code != Some(0) && format!("{refused}").contains("409"), "{refused}");
    let public = upload(&Wheel::new(&place, "other", "1.0", ""));
    assert_ne!(public.code, Some(0), "a public name is the upstream's: {public}");

    // It stands among the names of all projects, once, for whoever may read it.
    let names = "{\"meta\":{},\"projects\":[{\"name\":\"Other\"},{\"name\":\"acme_tool\"}]}";
    index.pages.put("/simple/", Reply::fresh(names));
    let all = curl(&place, &[], &["-H", ACCEPT_JSON], &format!("{address}/simple/"));
    let all: serde_json::Value = serde_json::from_slice(&all.body).unwrap();
    let expected = serde_json::json!([{ "name": "acme-tool" }, { "name": "Other" }]);
    assert_eq!(all["projects"], expected);

    machine.pip(&["acme-tool"]).ok();
    assert_eq!(machine.version("acme_tool"), "acme_tool 1.0");
    let asked = index.pages.asked();
    assert!(asked.iter().all(|line| !line.contains("GET /simple/acme")), "{asked:?}");
}

#[test]
fn files_too_young_or_yanked_are_not_shown() {
    let (place, index) = (Place::new(), Index::start());
    let config = index.config("minimum_release_age = '3d'\nwithdrawn = 'refuse'");
    let server = Server::configured(&place, &place.root(), &config);
    let url = format!("http://{}/pypi/simple/", proxy_of(&server));
    let file = |version: &str, uploaded: &str, yanked: bool| {
        let name = format!("top-{version}.tar.gz");
        index.files.put(&format!("/{name}"), Reply::fresh("bytes"));
        serde_json::json!({
            "filename": name, "url": index.files.url(&format!("/{name}")), "hashes": {},
            "upload-time": uploaded, "yanked": yanked,
        })
    };
    let files = [
        file("1.0", "2020-01-01T00:00:00Z", false),
        file("2.0", "2020-01-01T00:00:00Z", true),
        file("3.0", "2999-01-01T00:00:00Z", false),
    ];
    let page =
        serde_json::json!({ "meta": { "api-version": "1.1" }, "name": "top", "files": files });
    index.pages.put("/simple/top/", Reply::fresh(page.to_string()));
    let get = |path: &str| curl(&place, &[], &[], &format!("{url}{path}"));
    let shown = get("top/");
    let has = ["1.0", "2.0", "3.0"].map(|version| shown.text().contains(&format!("top-{version}")));
    assert_eq!(has, [true, false, false], "{}", shown.text());
    let statuses =
        ["1.0", "2.0", "3.0"].map(|version| get(&format!("top/files/top-{version}.tar.gz")).status);
    assert_eq!(statuses, [200, 403, 403]);
}
