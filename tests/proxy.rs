//! The cache proxy as its clients meet it: curl, raw sockets, an upstream that fails as the test
//! wants it to.

mod support;

use std::io::{Read as _, Write as _};

use support::origin::{Origin, Reply};
use support::proxy::{World, curl, proxy_of, rest_of, start};
use support::server::wait_for;
use support::{Place, Server, images};

#[test]
fn what_is_kept_is_fresh_revalidated_or_served_while_the_upstream_is_away() {
    let world = World::new("");
    let origin = &world.origin;
    origin.put("/fresh", Reply::fresh("fresh"));
    origin.put("/index", Reply::stale("one").tagged("1").with("Cache-Control: max-age=0\r\n"));
    assert_eq!(world.get("/fresh").cache(), "MISS");
    assert_eq!(world.get("/index").text(), "one");
    let again = world.get("/fresh");
    assert_eq!((again.cache(), again.text()), ("HIT", "fresh"));
    assert!(again.header("age").is_some() && again.header("via").is_some());
    assert_eq!(world.get("/index").cache(), "REVALIDATED");
    assert_eq!(origin.asked(), ["GET /fresh", "GET /index", "GET /index \"1\""]);
    origin.put("/index", Reply::stale("two").tagged("2").with("Cache-Control: max-age=0\r\n"));
    assert_eq!(world.get("/index").text(), "two", "what changes is seen at once");
    // Who asks again waits until it is kept.
    assert_eq!(world.get("/index").cache(), "REVALIDATED");

    // Another process, without any index, and nobody to ask.
    origin.go_down();
    let World { origin, server, place, .. } = world;
    server.kill();
    let _ = fs_err::remove_dir_all(place.root().join("index"));
    let server = start(&place, &origin, "");
    let world = World { proxy: proxy_of(&server), origin, server, place };
    assert_eq!(world.get("/fresh").cache(), "HIT");
    let stale = world.get("/index");
    assert_eq!((stale.cache(), stale.text()), ("STALE", "two"));
    assert!(stale.header("warning").is_some());
    assert!(world.server.log().contains("the upstream does not answer"));
    assert_eq!(world.get("/never").status, 502);
}

#[test]
fn one_transfer_serves_everybody_and_belongs_to_nobody() {
    let world = World::new("");
    let body = images::noise(3, 1 << 20);
    world.origin.put("/big", Reply { waits_at: Some(1 << 19), ..Reply::fresh(body.clone()) });
    let mut first = world.connect();
    first.write_all(&world.request("/big")).unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).unwrap();
    let answers = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..100).map(|_| scope.spawn(|| world.raw(&world.request("/big")))).collect();
        // It goes away before it has all; the others do not even notice.
        drop(first);
        world.origin.release();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect::<Vec<_>>()
    });
    for answer in answers {
        assert!(answer.ends_with(&body), "{} bytes", answer.len());
    }
    assert_eq!(world.origin.asked(), ["GET /big"]);
}

#[test]
fn what_breaks_off_is_resumed() {
    let world = World::new("");
    let body = images::noise(5, 1 << 20);
    let reply = Reply { breaks_at: Some(600_000), ..Reply::fresh(body.clone()).tagged("x") };
    world.origin.put("/broken", reply);
    assert_eq!(world.get("/broken").body, body);
    let asked = world.origin.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[1].starts_with("GET /broken bytes=") && !asked[1].contains("bytes=0-"),
        "{asked:?}"
    );
    // Without a validator, nobody can tell whether parts belong together.
    let reply = Reply { breaks_at: Some(600_000), ..Reply::fresh(body) };
    world.origin.put("/unsure", reply);
    let cut = world.raw(&world.request("/unsure"));
    assert!(cut.len() < 1 << 20, "nobody takes it for the whole");
}

#[test]
fn pipelined_requests_are_fetched_side_by_side_and_answered_in_order() {
    let world = World::new("");
    for n in 0..40 {
        // The first waits until the others were asked for.
        let waits_at = (n == 0).then_some(0);
        let body = format!("<{n}>");
        world.origin.put(&format!("/{n}"), Reply { waits_at, ..Reply::fresh(body) });
    }
    let ask = |n: usize| {
        let last = if n == 39 { "Connection: close\r\n" } else { "" };
        format!("GET {} HTTP/1.1\r\nHost: x\r\n{last}\r\n", world.origin.url(&format!("/{n}")))
    };
    let mut connection = world.connect();
    connection.write_all((0..40).map(ask).collect::<String>().as_bytes()).unwrap();
    wait_for("those behind the first to be asked for", || world.origin.count() >= 30);
    world.origin.release();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).unwrap();
    let order: Vec<usize> = answers
        .split('<')
        .skip(1)
        .map(|rest| rest.split('>').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(order, (0..40).collect::<Vec<_>>());
}

#[test]
fn what_is_one_users_is_nobody_elses() {
    let world = World::new("");
    let origin = &world.origin;
    origin.put("/private", Reply::stale("mine").with("Cache-Control: private\r\n"));
    origin.put("/cookie", Reply::fresh("mine").with("Set-Cookie: a=b\r\n"));
    origin.put("/star", Reply::fresh("mine").with("Vary: *\r\n"));
    for path in ["/private", "/cookie", "/star"] {
        for _ in 0..2 {
            assert_eq!(world.get(path).cache(), "PASS", "{path}");
        }
        assert_eq!(origin.asked().len(), 2, "{path}");
    }
    origin.put("/shown", Reply::fresh("for me"));
    let me = world.ask(&origin.url("/shown"), &["-H", "Authorization: Basic eA=="]);
    assert_eq!((me.cache(), me.text()), ("PASS", "for me"));
    assert_eq!(world.get("/shown").cache(), "MISS", "nothing of that was kept");
    origin.put("/varied", Reply::fresh("html").with("Vary: Accept\r\n"));
    let accept =
        |kind: &str| world.ask(&origin.url("/varied"), &["-H", &format!("Accept: {kind}")]);
    assert_eq!(accept("text/html").text(), "html");
    origin.put("/varied", Reply::fresh("json").with("Vary: Accept\r\n"));
    assert_eq!(accept("application/json").text(), "json");
    assert_eq!((accept("text/html").cache(), accept("text/html").text()), ("HIT", "html"));
}

#[test]
fn ranges_conditions_heads_and_writes() {
    let world = World::new("");
    let url = world.origin.url("/r");
    world.origin.put("/r", Reply::fresh("0123456789").tagged("r"));
    let head = world.ask(&url, &["-I"]);
    assert_eq!((head.status, head.cache()), (200, "PASS"), "a HEAD keeps nothing");
    assert_eq!(world.get("/r").cache(), "MISS");
    let part = world.ask(&url, &["-r", "2-4"]);
    assert_eq!((part.status, part.text()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let parts = world.ask(&url, &["-r", "0-1,8-9"]);
    assert!(parts.header("content-type").unwrap().starts_with("multipart/byteranges"));
    assert!(parts.text().contains("bytes 0-1/10") && parts.text().contains("\r\n89\r\n"));
    assert_eq!(world.ask(&url, &["-r", "20-"]).header("content-range"), Some("bytes */10"));
    assert_eq!(world.ask(&url, &["-H", "If-None-Match: \"r\""]).status, 304);
    assert_eq!(world.ask(&url, &["-I"]).header("content-length"), Some("10"));
    assert_eq!(world.ask(&url, &["-d", "new"]).status, 200);
    world.origin.put("/r", Reply::fresh("after"));
    assert_eq!(world.get("/r").text(), "after", "what was written is fetched anew");
    assert_eq!(world.get("/absent").status, 404);
    assert_eq!(world.get("/absent").status, 404);
    let absent = world.origin.asked().iter().filter(|asked| asked.ends_with("/absent")).count();
    assert_eq!(absent, 1, "that is remembered for a moment");
}

#[test]
fn nothing_is_smuggled_and_nothing_poisoned() {
    let world = World::new("");
    let url = world.origin.url("/p");
    world.origin.put("/p", Reply::fresh("right"));
    for (what, request) in [
        (
            "both lengths",
            format!(
                "POST {url} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST {url} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
            ),
        ),
        (
            "a space before the colon",
            format!("GET {url} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"),
        ),
        ("a folded line", format!("GET {url} HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n")),
        ("a bare line feed", format!("GET {url} HTTP/1.1\nHost: a\n\n")),
        (
            "a body behind GET",
            format!("GET {url} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        ),
        ("no host", format!("GET {url} HTTP/1.1\r\n\r\n")),
        ("an upward path", "GET /o/a/%252e%252e/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
    ] {
        let mut request = request.into_bytes();
        request
            .extend_from_slice(b"GET /o/smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = world.raw(&request);
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{what}");
    }
    let asked = world.origin.asked();
    // What is read to its end and makes no sense does not end the connection.
    assert!(asked.iter().all(|asked| asked == "GET /smuggled"), "{asked:?}");
    assert!(asked.len() <= 1, "{asked:?}");
    // Host says something else than the target: it means nothing.
    let told = world.raw(
        format!("GET {url} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    assert!(told.ends_with(b"right"));
    wait_for("it to be kept", || world.get("/p").cache() == "HIT");
    assert_eq!(world.get("/p").text(), "right");
}

#[test]
fn it_fetches_from_nowhere_but_where_it_may() {
    let world = World::new("");
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://8.8.8.8:22/",
    ] {
        assert_eq!(world.ask(url, &["-g"]).status, 403, "{url}");
    }
    let away = Reply { status: 302, ..Reply::default() };
    world.origin.put("/away", away.with("Location: http://169.254.169.254/latest\r\n"));
    assert_eq!(world.get("/away").status, 403);
    let itself = format!("http://{}/o/x", world.proxy);
    assert_eq!(world.ask(&itself, &[]).status, 403);
    for tunnel in ["127.0.0.1:443", "127.0.0.1:22", "[::1]:443", "8.8.8.8:25"] {
        let answer = world.raw(format!("CONNECT {tunnel} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 403 "), "{tunnel}");
    }
}

#[test]
fn it_is_its_own_upstream_only_once() {
    let world = World::new("allow_private = true\n");
    world.origin.put("/x", Reply::fresh("x"));
    let port = world.proxy.rsplit_once(':').unwrap().1;
    assert_eq!(world.get("/x").text(), "x");
    let via = world.get("/x").header("via").unwrap().to_owned();
    let again = world.ask(&world.origin.url("/x"), &["-H", &format!("Via: {via}")]);
    assert_eq!(again.status, 508, "port {port}");
}

#[test]
fn it_is_found_and_answers_under_paths() {
    let world = World::new("");
    world.origin.put("/a/b", Reply::fresh("b"));
    let at = |path: &str| curl(&world.place, &[], &[], &format!("http://{}{path}", world.proxy));
    let page = at("/");
    assert!(page.head.starts_with("HTTP/1.1 406 Usage Information"), "{}", page.head);
    assert_eq!(at("/o/a/b").text(), "b");
    assert_eq!(world.get("/a/b").cache(), "HIT", "both ways lead to one entry");
    let host = world.origin.url("/a/b");
    assert_eq!(at(&host.replace("http:/", "")).cache(), "HIT");
    assert_eq!(at("/nobody/a").status, 400);
}

#[test]
fn a_mirror_that_fails_is_passed_over() {
    let (place, first, second) = (Place::new(), Origin::start(), Origin::start());
    second.put("/p", Reply::fresh("from the second"));
    first.go_down();
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:0']\n[[proxy.upstream]]\nname = 'o'\nurl = '{}'\nalso = ['{}']\n",
        first.url(""),
        second.url("")
    );
    let server = Server::configured(&place, &place.root(), &config);
    let proxy = proxy_of(&server);
    let get = |url: &str| curl(&place, &["-x", &format!("http://{proxy}")], &[], url);
    assert_eq!(get(&first.url("/p")).text(), "from the second");
    assert_eq!(get(&second.url("/p")).cache(), "HIT", "all servers of a list share what is kept");
    assert_eq!(second.asked().len(), 1);
}

#[test]
fn requests_that_differ_in_what_decides_nothing_share_a_transfer() {
    let world = World::new("");
    let body = images::noise(13, 1 << 20);
    let varied = Reply { waits_at: Some(1 << 19), ..Reply::fresh(body.clone()) };
    world.origin.put("/plain", varied.clone());
    world.origin.put("/varied", varied.with("Vary: Accept\r\n"));
    let ask = |path: &str, accept: &str| {
        let mut connection = world.connect();
        let url = world.origin.url(path);
        let head = format!("GET {url} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n");
        write!(connection, "{head}Connection: close\r\n\r\n").unwrap();
        let mut begun = vec![0; 100];
        connection.read_exact(&mut begun).unwrap();
        (connection, begun)
    };
    let asking: Vec<_> = [("/plain", "a"), ("/plain", "b"), ("/varied", "a"), ("/varied", "b")]
        .map(|(path, accept)| ask(path, accept))
        .into();
    assert_eq!(world.origin.asked(), ["GET /plain", "GET /varied", "GET /varied"]);
    world.origin.release();
    for (connection, mut whole) in asking {
        whole.extend(rest_of(connection));
        assert!(whole.ends_with(&body));
    }
}

#[test]
fn a_head_of_something_else_makes_what_is_kept_stale() {
    let world = World::new("");
    world.origin.put("/h", Reply::fresh("one").tagged("1"));
    assert_eq!(world.get("/h").text(), "one");
    world.origin.put("/h", Reply::fresh("three").tagged("3"));
    wait_for("it to be kept", || world.get("/h").cache() == "HIT");
    let url = world.origin.url("/h");
    let head = world.ask(&url, &["-I", "-H", "Cache-Control: no-cache"]);
    assert_eq!((head.status, head.cache()), (200, "PASS"));
    assert_eq!(world.get("/h").text(), "three");
    // With nobody to ask, what is kept stands in.
    world.origin.go_down();
    let head = world.ask(&url, &["-I", "-H", "Cache-Control: no-cache"]);
    assert_eq!((head.status, head.cache()), (200, "STALE"));
}
