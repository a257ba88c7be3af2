//! What goes wrong around the cache proxy: full disks, processes that die, clients that read nothing,
//! entries that are broken. What was fetched is served, and nobody is sent half of it for the whole.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use support::disk::SmallDisk;
use support::origin::{Origin, Reply};
use support::proxy::{World, connect, proxy_of, rest_of, start, start_at};
use support::server::wait_for;
use support::{Place, Server, images};

/// How many bytes a client reads before something happens: less than what is withheld of them.
const BEGUN: usize = 256 * 1024;

#[test]
fn a_full_disk_keeps_nothing_and_serves_everything() {
    let (disk_place, place, origin) = (Place::new(), Place::new(), Origin::start());
    let disk = SmallDisk::mount(&disk_place, "48m");
    let server = start_at(&place, &disk.root(), &origin, "");
    let world = World { proxy: proxy_of(&server), origin, server, place };
    let origin = &world.origin;
    origin.put("/kept", Reply::fresh("kept"));
    origin.put("/index", Reply::stale("index").tagged("i").with("Cache-Control: max-age=0\r\n"));
    for path in ["/kept", "/index"] {
        assert_eq!(world.get(path).status, 200);
    }
    wait_for("it to be kept", || world.get("/kept").cache() == "HIT");
    origin.asked();

    let body = images::noise(7, 4 << 20);
    let plain = Reply { waits_at: Some(1 << 20), ..Reply::fresh(body.clone()) };
    origin.put("/plain", plain.clone());
    origin.put("/tagged", plain.clone().tagged("t"));
    for (path, again) in [("/tagged", "GET /tagged bytes="), ("/plain", "GET /plain")] {
        origin.hold();
        let (connection, begun) = world.begin(path, BEGUN);
        let (other, other_begun) = world.begin(path, 1);
        disk.fill();
        origin.release();
        for (connection, mut whole) in [(connection, begun), (other, other_begun)] {
            whole.extend(rest_of(connection));
            assert!(
                whole.ends_with(&body),
                "{path}: {} bytes\n{}",
                whole.len(),
                world.server.log()
            );
        }
        let asked = origin.asked();
        assert_eq!(asked[0], format!("GET {path}"), "{asked:?}");
        assert!(asked.len() > 1, "{asked:?}");
        assert!(asked[1..].iter().all(|asked| asked.starts_with(again)), "{asked:?}");
        disk.make_space();
    }
    // Bytes that are others by now are not joined to those that were sent.
    origin.hold();
    origin.put("/changes", plain);
    let (connection, mut whole) = world.begin("/changes", BEGUN);
    origin.put("/changes", Reply::fresh(images::noise(8, 4 << 20)));
    disk.fill();
    origin.release();
    whole.extend(rest_of(connection));
    assert!(whole.len() < body.len(), "the connection is cut");

    // What is kept needs no room, and what is new is not refused.
    assert_eq!(world.get("/kept").cache(), "HIT");
    assert_eq!(world.get("/index").text(), "index");
    origin.put("/new", Reply::fresh("new"));
    let new = world.get("/new");
    assert_eq!((new.status, new.text(), new.cache()), (200, "new", "PASS"));
    origin.go_down();
    let stale = world.get("/index");
    assert_eq!((stale.status, stale.text()), (200, "index"), "{}", world.server.log());
    disk.make_space();
}

#[test]
fn a_killed_process_leaves_what_the_next_one_goes_on_with() {
    let world = World::new("");
    let body = images::noise(9, 4 << 20);
    let reply = Reply { waits_at: Some(2 << 20), ..Reply::fresh(body.clone()).tagged("x") };
    world.origin.put("/big", reply);
    let begun = world.begin("/big", 1 << 20);
    let World { origin, server, place, .. } = world;
    server.kill();
    drop(begun);
    origin.release();
    assert_eq!(origin.asked(), ["GET /big"]);
    let server = start(&place, &origin, "");
    let world = World { proxy: proxy_of(&server), origin, server, place };
    // Whoever asks in the same words goes on with it.
    assert!(world.raw(&world.request("/big")).ends_with(&body));
    let asked = world.origin.asked();
    let first = asked[0].strip_prefix("GET /big bytes=").unwrap_or_else(|| panic!("{asked:?}"));
    let from: usize = first.split('-').next().unwrap().parse().unwrap();
    assert!((1 << 20..=2 << 20).contains(&from), "{asked:?}");
    wait_for("it to be kept", || world.get("/big").cache() == "HIT");
}

#[test]
fn who_reads_nothing_makes_nobody_wait() {
    let world = World::new("");
    let body = images::noise(10, 24 << 20);
    world.origin.put("/big", Reply::fresh(body.clone()));
    let (slow, mut begun) = world.begin("/big", 1);
    assert!(world.get("/big").body == body);
    wait_for("it to be kept", || world.get("/big").cache() == "HIT");
    begun.extend(rest_of(slow));
    assert!(begun.ends_with(&body));
    assert_eq!(world.origin.asked(), ["GET /big"]);
}

/// Returns how many bytes the large files below a directory have.
fn large(directory: &Path) -> u64 {
    let found =
        walk(directory).into_iter().map(|path| path.metadata().map_or(0, |file| file.len()));
    found.filter(|len| *len > 1 << 20).sum()
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    // What goes away meanwhile is not there.
    let Ok(entries) = fs_err::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn the_limit_is_kept_and_nobody_notices() {
    let world = World::new("max_size = '40MB'\n[gc]\ngrace_seconds = 0\n");
    let root = world.place.root();
    // An entry that nobody can read hinders nothing.
    let broken = root.join("entries/ab").join(format!("ab{:062}", 0));
    fs_err::create_dir_all(&broken).unwrap();
    fs_err::write(broken.join("vary"), [0xff, 0xfe]).unwrap();
    fs_err::write(broken.join(format!("{:064}", 1)), "no entry").unwrap();
    let read = images::noise(11, 24 << 20);
    world.origin.put("/read", Reply::fresh(read.clone()));
    let (reader, mut begun) = world.begin("/read", 1);
    wait_for("it to be kept", || world.get("/read").cache() == "HIT");
    let fetch = |number: u64| {
        let path = format!("/{number}");
        world.origin.put(&path, Reply::fresh(images::noise(20 + number, 8 << 20)));
        assert_eq!(world.get(&path).status, 200);
    };
    (0..6).for_each(fetch);
    wait_for("the broken entry to go", || !broken.exists());
    wait_for("what was read first to be forgotten", || {
        world.server.log().contains("within its limit again")
    });
    begun.extend(rest_of(reader));
    assert!(begun.ends_with(&read), "who reads reads on");
    // What somebody read goes with the next that is to go.
    fetch(6);
    wait_for("the limit to be kept", || large(&root) <= 40_000_000);
    assert_eq!(world.get("/6").cache(), "HIT", "what is new stays");
    assert_eq!(world.get("/read").cache(), "MISS", "what was not used for longest went");
}

/// Reads an answer without a body's end in sight: its head, and the two bytes of `no`.
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
fn refused(reader: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the connection ended after: {head}");
    }
    let mut body = [0; 2];
    reader.read_exact(&mut body).unwrap();
    assert!(head.starts_with("HTTP/1.1 403 ") && &body == b"no", "{head}");
    head
}

#[test]
fn an_upstream_that_wants_no_body_costs_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(&connection);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap_or_default() == 0 {
                        return;
                    }
                }
                let answer = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
                let _ = (&connection).write_all(answer);
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
            });
        }
    });
    let place = Place::new();
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:0']\n[[proxy.upstream]]\nname = 'early'\nurl = '{url}'\n"
    );
    let server = Server::configured(&place, &place.root(), &config);
    let mut client = connect(&proxy_of(&server));
    let mut answers = BufReader::new(client.try_clone().unwrap());
    let post = |length: usize| {
        format!("POST /early/x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
    };
    for length in [200_000, 10] {
        // The body is sent when the answer is here, as if it had been slow.
        client.write_all(post(length).as_bytes()).unwrap();
        let head = refused(&mut answers);
        assert!(!head.contains("connection: close"), "{head}");
        client.write_all(&vec![b'x'; length]).unwrap();
    }
    // Nobody reads all of this for nothing, and the answer says so.
    client.write_all(post(100_000_000).as_bytes()).unwrap();
    let head = refused(&mut answers);
    assert!(head.contains("connection: close"), "{head}");
    let mut rest = Vec::new();
    answers.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}
