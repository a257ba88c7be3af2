//! Private packages beside those of upstreams, rules for URLs, and what points clients at the proxy.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use support::disk::SmallDisk;
use support::origin::{Origin, Reply};
use support::place::text;
use support::proxy::{Got, curl, proxy_of};
use support::server::Server;
use support::{Place, images};

/// A server whose proxy hosts artifacts.
struct World {
    place: Place,
    origin: Origin,
    server: Server,
    proxy: String,
}

const JAR: &str = "/m/com/acme/app/1.0/app-1.0.jar";

impl World {
    fn new(more: &str) -> World {
        let place = Place::new();
        let root = place.root();
        World::at(place, &root, more)
    }

    fn at(place: Place, root: &Path, more: &str) -> World {
        let origin = Origin::start();
        let server = start(&place, root, &origin, more);
        let proxy = proxy_of(&server);
        World { place, origin, server, proxy }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy)
    }

    fn get(&self, path: &str) -> Got {
        self.ask(path, &[])
    }

    fn ask(&self, path: &str, more: &[&str]) -> Got {
        curl(&self.place, &[], more, &self.url(path))
    }

    /// Puts bytes, as Maven does.
    fn put(&self, path: &str, bytes: impl AsRef<[u8]>, more: &[&str]) -> Got {
        let name = format!("sent-{}", path.replace('/', "-"));
        let file = self.place.write(&name, bytes);
        self.ask(path, &[&["-H", "Expect:", "-T", text(&file)], more].concat())
    }
}

fn start(place: &Place, root: &Path, origin: &Origin, more: &str) -> Server {
    let url = origin.url("");
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:0']\n\
         [[proxy.upstream]]\nname = 'm'\nurl = '{url}'\necosystem = 'maven'\n\
         private = ['com.acme:*']\n\
         [[proxy.upstream]]\nname = 'own'\necosystem = 'maven'\n{more}"
    );
    Server::configured(place, root, &config)
}

#[test]
fn a_private_artifact_is_published_once_and_never_looked_up_upstream() {
    let world = World::new("");
    world.origin.put("/com/acme/app/1.0/app-1.0.jar", Reply::fresh("stolen"));
    world.origin.put("/com/acme/app/maven-metadata.xml", Reply::fresh("<stolen/>"));
    assert_eq!(world.get(JAR).status, 404);
    assert_eq!(world.get("/m/com/acme/app/maven-metadata.xml").status, 404);

    let published = world.put(JAR, "one", &[]);
    assert_eq!(published.status, 201, "{}", published.text());
    assert_eq!(world.put(JAR, "one", &[]).status, 200, "the same once more does no harm");
    assert_eq!(world.put(JAR, "two", &[]).status, 409);
    let got = world.get(JAR);
    assert_eq!((got.status, got.text()), (200, "one"));
    let tag = format!("If-None-Match: {}", got.header("etag").unwrap());
    assert_eq!(world.ask(JAR, &["-H", &tag]).status, 304);
    assert_eq!(world.ask(JAR, &["-r", "1-"]).text(), "ne");
    // sha1 of "one".
    let sha1 = "fe05bcdcdc4928012781a5f1a2a77cbb5398e106";
    assert_eq!(world.get(&format!("{JAR}.sha1")).text(), sha1);
    assert_eq!(world.put(&format!("{JAR}.sha1"), sha1, &[]).status, 200);
    assert_eq!(world.put(&format!("{JAR}.sha1"), "0".repeat(40), &[]).status, 400);
    let metadata = world.get("/m/com/acme/app/maven-metadata.xml");
    assert!(metadata.text().contains("<release>1.0</release>"), "{}", metadata.text());
    assert_eq!(world.put("/m/com/acme/app/maven-metadata.xml", "<metadata/>", &[]).status, 200);
    let listed = world.get("/m/com/acme/app/maven-metadata.xml.sha1");
    assert_eq!((listed.status, listed.body.len()), (200, 40));

    // A public name is the upstream's; nobody publishes under it, nor in a browser's name.
    assert_eq!(world.put("/m/org/other/x/1/x-1.jar", "x", &[]).status, 403);
    let by_page = world.put("/m/com/acme/app/2.0/app-2.0.jar", "x", &["-H", "Origin: http://x"]);
    assert_eq!(by_page.status, 403);
    // Where there is no upstream, any name is private.
    assert_eq!(world.put("/own/org/any/x/1/x-1.jar", "x", &[]).status, 201);
    assert_eq!(world.get("/own/org/any/x/1/x-1.jar").text(), "x");
    assert_eq!(world.get("/own/org/any/x/2/x-2.jar").status, 404);
    assert_eq!(world.get("/own/whatever").status, 404);
    assert_eq!(world.ask("/own/whatever", &["-X", "POST", "-d", "x"]).status, 405);
    assert_eq!(world.origin.asked(), Vec::<String>::new());

    assert_eq!(world.ask(JAR, &["-X", "DELETE"]).status, 204);
    assert_eq!(world.get(JAR).status, 404);
    assert_eq!(world.put(JAR, "one", &[]).status, 409, "its name stays taken");
    let log = world.place.boatyard(["audit", "--format", "json"]).ok().text();
    assert!(log.contains("packages/m/com.acme/app"), "{log}");
    world.server.stop();
}

#[test]
fn of_many_who_publish_a_version_at_once_one_wins() {
    let world = World::new("");
    let ways: Vec<String> = (0..6).map(|number| format!("jar {number}")).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let put = |(number, body): (usize, &String)| {
            let file = world.place.write(&format!("racing-{number}"), body);
            let (place, url) = (&world.place, world.url(JAR));
            let send = move || curl(place, &["-H", "Expect:", "-T", text(&file)], &[], &url);
            scope.spawn(move || send().status)
        };
        let threads: Vec<_> = ways.iter().enumerate().map(put).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let of = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((of(201), of(409)), (1, 5), "{statuses:?}");
    let winner = statuses.iter().position(|status| *status == 201).unwrap();
    assert_eq!(world.get(JAR).text(), ways[winner]);
    world.server.stop();
}

#[test]
fn who_publishes_has_logged_in_and_may() {
    let rules = "[[rule]]\nrepositories = 'packages/m/com.acme/app'\nwho = ['user:alice']\n\
                 allow = ['push']\n\
                 [[rule]]\nrepositories = 'packages/m'\nwho = ['user:alice', 'user:bob']\n\
                 allow = ['pull']\n";
    let place = Place::new();
    for name in ["alice", "bob", "carol"] {
        place.boatyard(["user", "add", name, "--password-stdin"]).input("secret").ok();
    }
    let token = place.boatyard(["token", "create", "ci", "--user", "alice"]).ok().text();
    let token = token.lines().find_map(|line| {
        line.split_whitespace().find(|word| word.starts_with("boatyard_")).map(str::to_owned)
    });
    let token = token.unwrap();
    let root = place.root();
    let world = World::at(place, &root, rules);
    world.origin.put("/org/public/x/1/x-1.pom", Reply::fresh("public"));

    let anonymous = world.put(JAR, "jar", &[]);
    assert_eq!(anonymous.status, 401);
    assert!(anonymous.header("www-authenticate").unwrap().starts_with("Basic "));
    assert_eq!(world.put(JAR, "jar", &["-u", "alice:wrong"]).status, 401);
    assert_eq!(world.put(JAR, "jar", &["-u", "bob:secret"]).status, 403);
    assert_eq!(world.put(JAR, "jar", &["-u", "alice:secret"]).status, 201);
    let other = "/m/com/acme/other/1/other-1.jar";
    assert_eq!(world.put(other, "x", &["-u", "alice:secret"]).status, 403);
    // A token: as a password, a bearer's, and alone, as gem and cargo send it.
    for header in [format!("Bearer {token}"), token.clone()] {
        let header = format!("Authorization: {header}");
        assert_eq!(world.put(JAR, "jar", &["-H", &header]).status, 200, "{header}");
    }
    assert_eq!(world.get(JAR).status, 401);
    assert_eq!(world.ask(JAR, &["-u", "carol:secret"]).status, 401);
    assert_eq!(world.ask(JAR, &["-u", "bob:secret"]).text(), "jar");
    assert_eq!(world.ask(JAR, &["-u", &format!("x:{token}")]).text(), "jar");
    // Public ones need no right, and the upstream sees nobody's password.
    let public = world.ask("/m/org/public/x/1/x-1.pom", &["-u", "carol:secret"]);
    assert_eq!(public.text(), "public");
    assert_eq!(world.get("/m/org/public/x/1/x-1.pom").text(), "public");
    let asked = world.origin.asked();
    assert!(!asked.iter().any(|asked| asked.contains("Basic")), "{asked:?}");
    world.server.stop();
}

#[test]
fn a_server_that_is_killed_has_what_it_acknowledged_and_a_full_disk_takes_nothing() {
    let place = Place::new();
    let disk_place = Place::new();
    let disk = SmallDisk::mount(&disk_place, "48m");
    let world = World::at(place, &disk.root(), "");
    let big = images::noise(3, 4 << 20);
    disk.fill_but(1 << 20);
    let refused = world.put(JAR, &big, &[]);
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(world.get(JAR).status, 404);
    disk.make_space();
    assert_eq!(world.put(JAR, &big, &[]).status, 201);
    // A blob without its record, as it is left between the two: nobody holds it, and publishing
    // once more is as if nothing had been.
    let World { place, origin, server, .. } = world;
    server.kill();
    let record = disk.root().join("packages/maven/m/com.acme%3Aapp/1.0/app-1.0.jar");
    let kept: Vec<_> = fs_err::read_dir(&record).unwrap().map(|it| it.unwrap().path()).collect();
    let [only] = kept.as_slice() else { panic!("{kept:?}") };
    let half = only.with_file_name(".new-half");
    fs_err::rename(only, &half).unwrap();
    let server = start(&place, &disk.root(), &origin, "");
    let proxy = proxy_of(&server);
    let world = World { place, origin, server, proxy };
    assert_eq!(world.get(JAR).status, 404);
    assert_eq!(world.put(JAR, &big, &[]).status, 201);
    let World { place, origin, server, .. } = world;
    server.kill();
    let server = start(&place, &disk.root(), &origin, "");
    let proxy = proxy_of(&server);
    let world = World { place, origin, server, proxy };
    assert_eq!(world.get(JAR).body, big, "it was acknowledged");
    world.server.stop();
}

#[test]
fn public_artifacts_are_checked_and_kept_and_their_metadata_agrees_with_its_checksum() {
    let world = World::new("");
    let origin = &world.origin;
    let (jar, path) = ("/org/x/lib/1/lib-1.jar", "/m/org/x/lib/1/lib-1.jar");
    origin.put(jar, Reply::stale("lib"));
    // sha1 of "lib".
    origin.put(&format!("{jar}.sha1"), Reply::stale("bc87bec1acc29ee4ec6a0ae4a9b1f3fbd1cd1cf4"));
    let wrong = world.get(path);
    assert_eq!(wrong.status, 502, "{}", wrong.text());
    let right = sha1_of(&world.place, "lib");
    origin.put("/org/x/two/1/two-1.jar", Reply::stale("lib"));
    origin.put("/org/x/two/1/two-1.jar.sha1", Reply::stale(format!("{right}  two-1.jar\n")));
    assert_eq!(world.get("/m/org/x/two/1/two-1.jar").text(), "lib");
    origin.asked();
    assert_eq!(world.get("/m/org/x/two/1/two-1.jar").text(), "lib");
    let again: Vec<_> =
        origin.asked().into_iter().filter(|asked| asked.ends_with("two-1.jar")).collect();
    assert_eq!(again, Vec::<String>::new(), "what never changes is asked for once");

    let (metadata, at) = ("/org/x/two/maven-metadata.xml", "/m/org/x/two/maven-metadata.xml");
    origin.put(metadata, Reply::stale("<one/>").tagged("1"));
    origin.put(&format!("{metadata}.sha1"), Reply::stale("of another version"));
    assert_eq!(world.get(at).text(), "<one/>");
    assert_eq!(world.get(&format!("{at}.sha1")).text(), sha1_of(&world.place, "<one/>"));
    origin.put(metadata, Reply::stale("<two/>").tagged("2"));
    assert_eq!(world.get(at).text(), "<two/>", "each use asks");
    assert_eq!(world.get(&format!("{at}.sha1")).text(), sha1_of(&world.place, "<two/>"));
    origin.go_down();
    assert_eq!(world.get("/m/org/x/two/1/two-1.jar").text(), "lib");
    assert_eq!(world.get(at).text(), "<two/>");
    world.server.stop();
}

fn sha1_of(place: &Place, text: &str) -> String {
    let sum = place.run("sha1sum", []).input(text.as_bytes().to_vec()).ok().text();
    sum.split(' ').next().unwrap().to_owned()
}

#[test]
fn rules_say_what_urls_are_that_nobody_knows() {
    let place = Place::new();
    let origin = Origin::start();
    let url = origin.url("");
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:0']\n\
         [[proxy.rule]]\nurl = '{url}/far/**'\nis = 'immutable'\n\
         [[proxy.upstream]]\nname = 'g'\nurl = '{url}/files'\necosystem = 'generic'\n\
         rules = [{{ url = '/latest/*', is = 'revalidate', for = '1h' }}, \
         {{ url = '/never/**', is = 'pass' }}, {{ url = '/asks/**', is = 'revalidate' }}, \
         {{ url = '/**', is = 'immutable' }}]\n"
    );
    let server = Server::configured(&place, &place.root(), &config);
    let proxy = proxy_of(&server);
    for name in ["latest/a", "never/a", "asks/a", "other/a"] {
        origin.put(&format!("/files/{name}"), Reply::stale(name).tagged("t"));
    }
    origin.put("/far/a", Reply::stale("far"));
    let mut asked = Vec::new();
    for _ in 0..2 {
        for path in ["g/latest/a", "g/never/a", "g/asks/a", "g/other/a"] {
            let got = curl(&place, &[], &[], &format!("http://{proxy}/{path}"));
            assert_eq!(got.status, 200, "{path}");
        }
        let through = ["-x", &format!("http://{proxy}")];
        assert_eq!(curl(&place, &through, &[], &format!("{url}/far/a")).text(), "far");
        asked = origin.asked();
    }
    assert_eq!(asked, ["GET /files/never/a", "GET /files/asks/a \"t\""], "the second time");
    let fresh = ["-H", "Cache-Control: no-cache"];
    curl(&place, &fresh, &[], &format!("http://{proxy}/g/latest/a"));
    assert_eq!(origin.asked(), ["GET /files/latest/a \"t\""], "a client may insist");
    server.stop();
}
