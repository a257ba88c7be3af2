//! What ADD takes from elsewhere: files of URLs and Git repositories, from servers that count what they
//! are asked.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use boatyard_oci::{Algorithm, Digest};
use support::built::Built;
use support::files::{File, Files};
use support::git::{Daemon, Repository, git};
use support::place::text;
use support::{Place, images};

/// Builds a Dockerfile into `out` of the place, which is empty before.
#[track_caller]
fn build(place: &Place, dockerfile: &str) -> Built {
    build_with(place, dockerfile, &[])
}

#[track_caller]
fn build_with(place: &Place, dockerfile: &str, args: &[&str]) -> Built {
    let context = place.context("context", dockerfile);
    let out = place.path("out");
    let _ = fs_err::remove_dir_all(&out);
    let run = place.boatyard(["build", "--progress=json", "-o", text(&out)]).args(args);
    Built::of(&run.arg(text(&context)).ok())
}

#[track_caller]
fn read(place: &Place, name: &str) -> String {
    fs_err::read_to_string(place.path("out").join(name)).unwrap()
}

#[test]
fn a_url_is_fetched_once_and_asked_for_again() {
    let (place, files) = (Place::new(), Files::start());
    let headers = "Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n".to_owned();
    let file = File { body: b"one".to_vec(), tag: "1".to_owned(), headers, ..File::default() };
    files.put("/dir/a%20file.txt?sig=secret", file.clone());
    let url = files.url("/dir/a%20file.txt?sig=secret");
    let dockerfile = format!(
        "FROM scratch AS other\nADD {url} /\nFROM scratch\nADD {url} /in/\nADD {url} /as\n\
         COPY --from=other / /other/\n"
    );
    build(&place, &dockerfile);
    assert_eq!(files.asked(), ["GET /dir/a%20file.txt?sig=secret 200"]);
    assert_eq!(read(&place, "in/a file.txt"), "one");
    let found = fs_err::metadata(place.path("out/as")).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime()), (0o600, 1_000_000_000));

    let again = build(&place, &dockerfile);
    again.ran([]);
    assert_eq!(files.asked(), ["GET /dir/a%20file.txt?sig=secret 304"]);

    files.put(
        "/dir/a%20file.txt?sig=secret",
        File {
            body: b"two".to_vec(),
            tag: "2".to_owned(),
            headers: "Cache-Control: max-age=1000\r\n".to_owned(),
            ..file
        },
    );
    assert_eq!(build(&place, &dockerfile).that_are("done").len(), 4);
    assert_eq!(read(&place, "as"), "two");
    // It said how long it is fresh: nobody is asked.
    assert_eq!(files.asked(), ["GET /dir/a%20file.txt?sig=secret 200"]);
    build(&place, &dockerfile).ran([]);
    assert_eq!(files.asked(), Vec::<String>::new());
    build_with(&place, &dockerfile, &["--offline"]).ran([]);
}

#[test]
fn a_checksum_is_a_promise_and_saves_the_question() {
    let (place, files) = (Place::new(), Files::start());
    files.put_bytes("/f", "content");
    let sha256 = Digest::sha256(b"content");
    let sha512 = Digest::of(Algorithm::Sha512, b"content");
    let with = |path: &str, checksum: &str| {
        format!("FROM scratch\nARG SUM={checksum}\nADD --checksum=$SUM {} /f\n", files.url(path))
    };
    build(&place, &with("/f", &sha256.to_string()));
    assert_eq!(files.asked(), ["GET /f 200"]);
    // The same file, by whatever checksum and from wherever, is here.
    build(&place, &with("/f", &sha256.to_string())).ran([]);
    build(&place, &with("/f", &sha512.to_string())).ran([]);
    build_with(&place, &with("/elsewhere", &sha256.to_string()), &["--offline"]);
    assert_eq!(files.asked(), Vec::<String>::new());

    let wrong = Digest::sha256(b"other").to_string();
    let context = place.context("context", &with("/f", &wrong));
    let failed = place.boatyard(["build", text(&context)]).fails(1);
    failed.says(["cannot fetch this source", "Dockerfile:3", &wrong, &sha256.to_string()]);
    let context = place.context("context", &with("/f", "sha256:abc"));
    place.boatyard(["build", text(&context)]).fails(1).says(["is no checksum", "64 digits"]);
    let context =
        place.context("context", "FROM scratch\nADD --checksum=sha256:abc Dockerfile /f\n");
    place.boatyard(["build", text(&context)]).fails(1).says(["--checksum needs one source"]);
}

#[test]
fn redirects_are_followed_and_what_breaks_off_is_resumed() {
    let (place, files) = (Place::new(), Files::start());
    let body = images::noise(7, 300_000);
    let file = File {
        body: body.clone(),
        tag: "x".to_owned(),
        breaks_at: Some(100_000),
        ..File::default()
    };
    files.put("/real", file);
    files.put("/moved.bin", File { moved: Some("/real".to_owned()), ..File::default() });
    build(&place, &format!("FROM scratch\nADD {} /\n", files.url("/moved.bin")));
    assert_eq!(fs_err::read(place.path("out/moved.bin")).unwrap(), body);
    let asked = files.asked();
    assert_eq!(asked.first().map(String::as_str), Some("GET /moved.bin 302"));
    assert!(asked.contains(&"GET /real 206".to_owned()), "{asked:?}");
    let context = place.context("context", &format!("FROM scratch\nADD {} /\n", files.url("/no")));
    place.boatyard(["build", text(&context)]).fails(1).says(["/no: the answer was 404"]);
}

#[test]
fn archives_of_urls_are_unpacked_only_if_asked_for() {
    let (place, files) = (Place::new(), Files::start());
    place.write("tree/dir/file", "packed");
    let archive = images::archive(&place, &place.path("tree"), "a.tar");
    files.put_bytes("/a.tar", fs_err::read(archive).unwrap());
    let url = files.url("/a.tar");
    build(
        &place,
        &format!(
            "FROM scratch\nADD {url} /kept/\nADD --unpack {url} /open/\nADD --unpack=true --exclude=*.tar {url} /none/\n"
        ),
    );
    assert!(place.path("out/kept/a.tar").is_file());
    assert_eq!(read(&place, "open/dir/file"), "packed");
    assert!(!place.path("out/none/a.tar").exists());
    let context = place.context("context", "FROM scratch\nCOPY http://files.example/x /\n");
    place.boatyard(["build", text(&context)]).fails(1).says(["ADD takes them from URLs"]);
}

#[test]
fn a_branch_is_asked_for_each_time_and_a_commit_never() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let app = Repository::new(&place, "app");
    app.write("run.sh", "#!/bin/sh\n");
    fs_err::set_permissions(app.path("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    app.write("docs/a.txt", "first");
    symlink("docs/a.txt", app.path("link")).unwrap();
    let first = app.commit();
    app.git(&["tag", "--annotate", "--message=x", "v1"]);
    let url = daemon.url("app");
    let branch = format!("FROM scratch\nADD {url}#v1:docs /docs/\nADD {url}#main /app\n");
    build(&place, &branch);
    assert_eq!(read(&place, "app/docs/a.txt"), "first");
    assert_eq!(read(&place, "docs/a.txt"), "first");
    assert!(!place.path("out/app/.git").exists());
    let found = fs_err::metadata(place.path("out/app/run.sh")).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime()), (0o755, 1_000_000_000));
    let found = fs_err::symlink_metadata(place.path("out/app/link")).unwrap();
    assert!(found.is_symlink());

    let before = daemon.requests();
    build(&place, &branch).ran([]);
    assert_eq!(daemon.requests() - before, 2, "each reference was asked for, and nothing fetched");
    app.write("docs/a.txt", "second");
    app.commit();
    build(&place, &branch).ran([&format!("ADD {url}#main /app")]);
    assert_eq!(read(&place, "app/docs/a.txt"), "second");

    // A commit that no reference names any more, and that the server may refuse to name.
    let commit = format!("FROM scratch\nADD --checksum={first} {url}#{first} /app\n");
    build(&place, &commit);
    assert_eq!(read(&place, "app/docs/a.txt"), "first");
    let before = daemon.requests();
    build(&place, &commit).ran([]);
    build_with(&place, &commit, &["--offline", "--no-cache"]);
    assert_eq!(read(&place, "app/docs/a.txt"), "first");
    assert_eq!(daemon.requests(), before);
    let wrong = format!("FROM scratch\nADD {url}?branch=main&checksum={first} /app\n");
    let context = place.context("context", &wrong);
    place.boatyard(["build", text(&context)]).fails(1).says(["is the commit", &first]);
    let context = place.context("context", &format!("FROM scratch\nADD {url}#nothing /app\n"));
    place
        .boatyard(["build", text(&context)])
        .fails(1)
        .says(["has no branch, tag or commit `nothing`"]);

    // What was fetched is listed, and goes with the cache.
    let listed = place.boatyard(["cache", "list", "--no-trunc"]).ok().text();
    assert!(listed.contains(&format!("fetched from {url}")), "{listed}");
    place.boatyard(["cache", "prune", "--all"]).ok();
    assert_eq!(fs_err::read_dir(place.root().join("cache/git")).unwrap().count(), 0);
}

#[test]
fn the_git_directory_is_kept_if_asked_for() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let app = Repository::new(&place, "app");
    app.write("a", "1");
    app.commit();
    app.write("a", "2");
    let commit = app.commit();
    build(
        &place,
        &format!("FROM scratch\nADD --keep-git-dir=true {}#main /app\n", daemon.url("app")),
    );
    let kept = place.path("out/app");
    assert_eq!(git(&place, &kept).args(["rev-parse", "HEAD"]).ok().text(), commit);
    assert_eq!(git(&place, &kept).args(["log", "--format=%H"]).ok().text(), commit, "alone");
    assert_eq!(git(&place, &kept).args(["status", "--porcelain"]).ok().text(), "");
    let origin = git(&place, &kept).args(["remote", "get-url", "origin"]).ok().text();
    assert_eq!(origin, daemon.url("app"));
    assert!(!kept.join(".git/hooks").exists());
}

#[test]
fn submodules_come_along_unless_they_are_hostile() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let lib = Repository::new(&place, "lib");
    lib.write("lib.txt", "of the library");
    let commit = lib.commit();
    let app = Repository::new(&place, "app");
    let module = |url: &str| {
        app.write(".gitmodules", &format!("[submodule \"x\"]\n\tpath = deep/lib\n\turl = {url}\n"));
        app.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},deep/lib")]);
        app.git(&["add", ".gitmodules"]);
        app.git(&["commit", "--quiet", "--message=x"]);
    };
    module("../lib");
    let url = daemon.url("app");
    build(&place, &format!("FROM scratch\nADD {url} /app\nADD {url}?submodules=false /bare\n"));
    assert_eq!(read(&place, "app/deep/lib/lib.txt"), "of the library");
    assert!(!place.path("out/bare/deep/lib/lib.txt").exists());
    let marker = place.path("marker");
    let harm = format!("ext::touch {}", text(&marker));
    let local = format!("file://{}", text(&place.path("repositories/lib")));
    for hostile in
        [local.as_str(), &harm, "--upload-pack=touch x", text(&place.path("repositories"))]
    {
        module(hostile);
        let context = place.context("context", &format!("FROM scratch\nADD {url} /app\n"));
        let failed = place.boatyard(["build", text(&context)]).fails(1);
        failed.says(["cannot be checked out safely", "deep/lib"]);
    }
    assert!(!marker.exists());
}

#[test]
fn addresses_that_git_would_misunderstand_do_nothing() {
    let place = Place::new();
    for bad in [
        "git://127.0.0.1/x#--upload-pack=touch${IFS}x",
        "ssh://-oProxyCommand=x/y",
        "https://git.example/x.git?ref=-x",
        "https://git.example/x.git#main:../../etc",
    ] {
        let context = place.context("context", &format!("FROM scratch\nADD {bad} /app\n"));
        let failed = place.boatyard(["build", text(&context)]).fails(1);
        failed.says(["cannot use this source"]);
    }
    let context = place.context("context", "FROM scratch\nADD https://git.example/x.git /app\n");
    let run = place.boatyard(["build", text(&context)]).env("PATH", place.path("empty"));
    run.fails(1).says(["there is no `git` on this machine", "install it"]);
}

/// Serves a repository as files, to whoever logs in.
fn serve_files(place: &Place, files: &Files, name: &str, login: &str) -> String {
    let git = place.path("repositories").join(name).join(".git");
    let listed = place.run("find", [text(&git), "-type", "f", "-printf", "%P\n"]).ok().text();
    for path in listed.lines() {
        let body = fs_err::read(git.join(path)).unwrap();
        let file = File { body, login: login.to_owned(), ..File::default() };
        if path == "info/refs" {
            let question = format!("/{name}/info/refs?service=git-upload-pack");
            files.put(&question, file.clone());
        }
        files.put(&format!("/{name}/{path}"), file);
    }
    files.url(&format!("/{name}"))
}

#[test]
fn logins_come_from_secrets_and_go_to_their_host() {
    let (place, files) = (Place::new(), Files::start());
    let app = Repository::new(&place, "app.git");
    app.write("Dockerfile", "FROM scratch\nCOPY f /f\n");
    app.write("f", "of git");
    app.commit();
    app.git(&["update-server-info"]);
    // `x-access-token:hunter2`, as BuildKit sends a token.
    let url = serve_files(&place, &files, "app.git", "Basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==");
    let bearer = "Bearer hunter2".to_owned();
    files.put("/f", File { body: b"of http".to_vec(), login: bearer, ..File::default() });
    let host = url.split('/').nth(2).unwrap().to_owned();
    let of_git = format!("FROM scratch\nADD {url} /\n");
    let of_http = format!("FROM scratch\nADD {} /f\n", files.url("/f"));
    let run = |what: &str, id: &str| {
        let out = place.path("out");
        let _ = fs_err::remove_dir_all(&out);
        let secret = format!("id={id},env=TOKEN");
        let run = place.boatyard(["build", "-o", text(&out), "--secret", &secret, what]);
        let ran = run.env("TOKEN", "hunter2").run();
        assert!(!ran.stderr.contains("hunter2"), "{ran}");
        fs_err::read_to_string(out.join("f")).ok()
    };
    let context = place.context("context", &of_git);
    let other = "git.example";
    assert_eq!(run(text(&context), &format!("GIT_AUTH_TOKEN.{other}")), None);
    for id in ["GIT_AUTH_TOKEN".to_owned(), format!("GIT_AUTH_TOKEN.{host}")] {
        // Nothing is here any more, so that it has to be asked for.
        let _ = fs_err::remove_dir_all(place.root().join("cache"));
        assert_eq!(run(text(&context), &id).as_deref(), Some("of git"), "{id}");
        let _ = fs_err::remove_dir_all(place.root().join("cache"));
        assert_eq!(run(&url, &id).as_deref(), Some("of git"), "as a context, with {id}");
    }
    place.context("context", &of_http);
    assert_eq!(run(text(&context), &format!("HTTP_AUTH_TOKEN_{other}")), None);
    let id = format!("HTTP_AUTH_TOKEN_{host}");
    assert_eq!(run(text(&context), &id).as_deref(), Some("of http"));
    // It is nowhere in what is kept.
    place.run("grep", ["-rlF", "hunter2", text(&place.root())]).fails(1);
}

#[test]
fn a_dockerfile_asks_by_ssh_with_what_it_is_lent() {
    let place = Place::new();
    let told = place.path("told");
    let script =
        format!("#!/bin/sh\necho \"$SSH_AUTH_SOCK $HOME $*\" >> {}\nexit 1\n", text(&told));
    let ssh = place.write("bin/ssh", script);
    fs_err::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", text(&place.path("bin")));
    let socket = place.path("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let run = |args: &[&str]| {
        let _ = fs_err::remove_file(&told);
        let run = place.boatyard(["build"]).args(args).env("PATH", &path);
        let ran = run.env("SSH_AUTH_SOCK", "/own/agent").fails(1);
        (fs_err::read_to_string(&told).unwrap_or_default(), ran)
    };
    for address in ["git@git.example:app.git", "ssh://git@git.example/app.git"] {
        let context = place.context("context", &format!("FROM scratch\nADD {address} /\n"));
        let context = text(&context);
        let (asked, ran) = run(&[context]);
        assert_eq!(asked, "", "{ran}");
        ran.says(["cannot fetch this source", "--ssh default"]);
        let lent = format!("default={}", text(&socket));
        let (asked, ran) = run(&["--ssh", &lent, context]);
        assert!(asked.starts_with(&format!("{} /dev/null -", text(&socket))), "{asked}{ran}");
        assert!(asked.contains("-F /dev/null"), "{asked}");
        // The context is what whoever builds asks for.
        let (asked, ran) = run(&[address]);
        assert!(asked.starts_with("/own/agent "), "{asked}{ran}");
        assert!(!asked.contains("-F /dev/null"), "{asked}");
    }
}
