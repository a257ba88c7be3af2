//! The files of a build: from directories, archives, repositories and URLs, and under names.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::os::unix::fs::symlink;

use support::files::Files;
use support::git::{Daemon, Repository};
use support::place::text;
use support::process::{Ran, Run};
use support::{Place, images};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /all/\n";

/// Returns a build into `out` of the place, which is empty before.
fn build(place: &Place, args: &[&str]) -> Run {
    let _ = fs_err::remove_dir_all(place.path("out"));
    place.boatyard(["build", "-o", text(&place.path("out"))]).args(args)
}

/// Returns the paths of all files below `out`.
fn found(place: &Place) -> Vec<String> {
    let out = place.path("out");
    let listed = place.run("find", [text(&out), "!", "-type", "d", "-printf", "%P\n"]).ok().text();
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Archives `tree` of the place.
fn archive(place: &Place) -> Vec<u8> {
    fs_err::read(images::archive(place, &place.path("tree"), "context.tar")).unwrap()
}

#[test]
fn archives_on_standard_input() {
    let place = Place::new();
    place.write("tree/Dockerfile", DOCKERFILE);
    place.write("tree/.dockerignore", "*.log\n!keep.log\nDockerfile\n.dockerignore\n");
    place.write("tree/dir/a.txt", "a");
    place.write("tree/x.log", "x");
    place.write("tree/keep.log", "k");
    let plain = archive(&place);
    let path = place.path("context.tar");
    for program in ["cat", "gzip", "bzip2", "xz", "zstd"] {
        let packed = match program {
            "cat" => plain.clone(),
            program => place.run(program, ["-c", text(&path)]).ok().stdout,
        };
        build(&place, &["-"]).input(packed).ok();
        assert_eq!(found(&place), ["all/dir/a.txt", "all/keep.log"], "{program}");
    }
    // Whatever else is asked for lies in the archive, too.
    place.write("tree/sub/other", "FROM scratch\nCOPY x.log dir /\n");
    place.write("tree/sub/other.dockerignore", "dir\n");
    let failed = build(&place, &["-f", "sub/other", "-"]).input(archive(&place)).fails(1);
    failed.says(["`dir` is not in the build context", ".dockerignore leaves it out"]);
    build(&place, &["-f", "nothing", "-"]).input(plain).fails(1).says(["there is no nothing"]);
}

#[test]
fn an_archive_says_what_time_it_is_of() {
    let place = Place::new();
    place.write("tree/Dockerfile", "FROM scratch\nCOPY a /\n");
    place.write("tree/a", "a");
    let tree = place.path("tree");
    place.run("touch", ["-d", "@1500000000"]).arg(tree.join("Dockerfile")).ok();
    place.run("touch", ["-d", "@1600000000"]).arg(tree.join("a")).ok();
    let packed = place.run("tar", ["-C", text(&tree), "-c", "."]).ok().stdout;
    let run = place.boatyard(["build", "-t", "app", "-"]).input(packed);
    run.env("SOURCE_DATE_EPOCH", "context").ok();
    let shown = place.boatyard(["inspect", "app"]).ok().text();
    assert!(shown.contains("2020-09-13T12:26:40Z"), "{shown}");
    let here = build(&place, &[text(&tree)]).env("SOURCE_DATE_EPOCH", "context").ok();
    here.says(["this build context says no time"]);
}

#[test]
fn dockerfiles_on_standard_input() {
    let place = Place::new();
    build(&place, &["-"]).input("FROM scratch\nCOPY <<EOF /made\nx\nEOF\n").ok();
    assert_eq!(found(&place), ["made"]);
    let failed = build(&place, &["-"]).input("FROM scratch\nCOPY a /\n").fails(1);
    failed.says(["there is no build context to copy from"]);
    place.write("dir/a", "a");
    build(&place, &["-f", "-", text(&place.path("dir"))]).input(DOCKERFILE).ok();
    assert_eq!(found(&place), ["all/a"]);
    build(&place, &["-f", "-", "-"]).input(DOCKERFILE).fails(2).says(["at once"]);
}

#[test]
fn hostile_archives_are_errors_and_nothing_more() {
    let place = Place::new();
    place.write("secret", "of the host");
    place.write("tree/.dockerignore", "");
    symlink(place.path("secret"), place.path("tree/Dockerfile")).unwrap();
    let failed = build(&place, &["-"]).input(archive(&place)).fails(1);
    failed.says(["there is no Dockerfile"]);
    assert!(!failed.stderr.contains("of the host"), "{failed}");
    // A link that leads out shows nothing of the host, and is an empty one in the image.
    fs_err::remove_file(place.path("tree/Dockerfile")).unwrap();
    place.write("tree/Dockerfile", "FROM scratch\nCOPY out/secret /\n");
    symlink(place.path(""), place.path("tree/out")).unwrap();
    build(&place, &["-"]).input(archive(&place)).fails(1).says(["`out/secret` is not in"]);
    place.run("mknod", [text(&place.path("tree/device")), "c", "1", "3"]).ok();
    build(&place, &["-"]).input(archive(&place)).fails(1).says(["/device is a device"]);
    let failed = build(&place, &["-"]).input(&b"\x1f\x8b\x08damaged"[..]).fails(1);
    failed.says(["cannot unpack the context"]);
}

#[test]
fn contexts_of_urls() {
    let (place, files) = (Place::new(), Files::start());
    place.write("tree/Dockerfile", DOCKERFILE);
    place.write("tree/a", "a");
    files.put_bytes("/context.tar", archive(&place));
    files.put_bytes("/Dockerfile", "FROM scratch\nCOPY <<EOF /made\nx\nEOF\n");
    build(&place, &[&files.url("/context.tar")]).ok();
    assert_eq!(found(&place), ["all/Dockerfile", "all/a"]);
    assert_eq!(files.asked(), ["GET /context.tar 200"]);
    build(&place, &[&files.url("/context.tar")]).ok();
    assert_eq!(files.asked(), ["GET /context.tar 304"]);
    build(&place, &["-f", "-", &files.url("/context.tar")]).input("FROM scratch\nCOPY a /b\n").ok();
    assert_eq!(found(&place), ["b"]);
    build(&place, &[&files.url("/Dockerfile")]).ok();
    assert_eq!(found(&place), ["made"]);
    build(&place, &[&files.url("/nothing")]).fails(1).says(["404"]);
}

#[test]
fn contexts_of_repositories() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let app = Repository::new(&place, "app.git");
    app.write("Dockerfile", DOCKERFILE);
    app.write("sub/Dockerfile", "FROM scratch\nCOPY . /sub/\n");
    app.write("sub/.dockerignore", "Dockerfile\n.dockerignore\nleft-out\n");
    app.write("sub/left-out", "");
    app.write("sub/a", "a");
    app.commit();
    app.git(&["tag", "v1"]);
    let url = daemon.url("app.git");
    build(&place, &[&format!("{url}#v1:sub")]).ok();
    assert_eq!(found(&place), ["sub/a"]);
    build(&place, &[&url]).ok();
    assert!(!place.path("out/all/.git").exists());
    build(&place, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]).ok();
    assert!(place.path("out/all/.git/HEAD").exists());
    build(&place, &[&format!("{url}#v2")]).fails(1).says(["has no branch, tag or commit `v2`"]);
    build(&place, &[&format!("{url}#--help")]).fails(2).says(["cannot be a part of the address"]);
}

#[test]
fn named_contexts_come_before_stages_and_images() {
    let (place, files) = (Place::new(), Files::start());
    let daemon = Daemon::start(&place);
    let app = Repository::new(&place, "app.git");
    app.write("of-git", "1");
    app.commit();
    place.write("tree/of-archive", "1");
    files.put_bytes("/tree.tar", archive(&place));
    files.put_bytes("/single.txt", "1");
    place.write("dir/of-dir", "1");
    place.write("dir/ignored", "1");
    place.write("dir/.dockerignore", "ignored\n.dockerignore\n");
    let context = place.context(
        "context",
        "FROM nowhere.example/base AS base\nRUN false\n\
         FROM base\nCOPY --from=repository . /g/\nCOPY --from=archive . /t/\n\
         COPY --from=single / /s/\nCOPY --from=golang of-dir /d/\n",
    );
    let named = |name: &str, value: &str| format!("--build-context={name}={value}");
    let dir = text(&place.path("dir")).to_owned();
    let args = [
        named("base", &dir),
        named("repository", &daemon.url("app.git")),
        named("archive", &files.url("/tree.tar")),
        named("single", &files.url("/single.txt")),
        named("docker.io/library/golang", &dir),
        named("unused", &files.url("/never-asked")),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).chain([text(&context)]).collect();
    build(&place, &args).ok();
    assert_eq!(found(&place), ["d/of-dir", "g/of-git", "of-dir", "s/single.txt", "t/of-archive"]);
    let asked = files.asked();
    assert!(!asked.iter().any(|line| line.contains("never")), "{asked:?}");
    let fails =
        |context: &str| -> Ran { build(&place, &[context, text(&place.path("context"))]).fails(2) };
    fails("--build-context=x").says(["NAME=DIR"]);
    fails("--build-context=x=target:y").says(["bake"]);
    fails("--build-context=x=nowhere").says(["there is no such directory"]);
}

#[test]
fn images_and_layouts_under_names() {
    let place = Place::new();
    place.write("one/Dockerfile", "FROM scratch\nCOPY a /a\nENV FROM_LAYOUT=yes\n");
    place.write("one/a", "of the layout");
    let (one, packed) = (place.path("one"), place.path("one.tar"));
    let output = format!("type=oci,dest={}", text(&packed));
    place.boatyard(["build", "-t", "one:v1", "-o", &output, text(&one)]).ok();
    let layout = place.path("layout");
    fs_err::create_dir(&layout).unwrap();
    place.run("tar", ["-C", text(&layout), "-xf", text(&packed)]).ok();
    let context = place.context("context", "FROM base\nCOPY --from=other /a /b\n");
    let other_root = place.path("other-root");
    let build = |base: String, other: &str| {
        let _ = fs_err::remove_dir_all(place.path("out"));
        let output = text(&place.path("out")).to_owned();
        place
            .boatyard_at(&other_root, ["build", "--offline", "-o", &output])
            .args([
                format!("--build-context=base={base}"),
                format!("--build-context=other={other}"),
            ])
            .arg(text(&context))
    };
    let layout = format!("oci-layout://{}", text(&layout));
    // On a root that has never seen the image.
    build(layout.clone(), &layout).ok();
    assert_eq!(found(&place), ["a", "b"]);
    build(format!("{layout}:nothing"), &layout).fails(1).says(["has no image `nothing`"]);
    // As an image by its name.
    place.boatyard_at(&other_root, ["load", "-i", text(&packed)]).ok();
    build("docker-image://one:v1".to_owned(), "docker-image://docker.io/library/one:v1").ok();
    assert_eq!(found(&place), ["a", "b"]);
}

/// The rows of BuildKit's reference and of its tests.
#[test]
fn parents_and_excludes() {
    let place = Place::new();
    for name in
        ["x/a.txt", "y/a.txt", "y/b.txt", "x/deep/c.md", "home.txt", "home.md", "homer/d.txt"]
    {
        place.write(&format!("context/{name}"), "");
    }
    place.write("context/test/a/b/c/d/foo", "");
    place.write("context/test/a/b2/c/d/e/bar", "");
    symlink("y", place.path("context/link")).unwrap();
    let rows: [(&str, &[&str]); 14] = [
        ("--parents ./x/a.txt ./y/a.txt", &["x/a.txt", "y/a.txt"]),
        ("--parents x/./deep/c.md", &["deep/c.md"]),
        ("--parents ./**/a.txt", &["x/a.txt", "y/a.txt"]),
        ("--parents test/a/b/./c/d", &["c/d/foo"]),
        ("--parents test/a/./*/c", &["b/c/d/foo", "b2/c/d/e/bar"]),
        ("--parents test/a/b*/./c/**/bar", &["c/d/e/bar"]),
        ("--parents test/a/./b/./c", &["b/c/d/foo"]),
        ("--parents no*/thing", &[]),
        ("--parents --exclude=y x y", &["x/a.txt", "x/deep/c.md"]),
        ("--exclude=*.txt hom*", &["home.md"]),
        ("--exclude=*.txt --exclude=*.md home.* home.md", &[]),
        ("--exclude=**/*.txt x y", &["deep/c.md"]),
        ("--exclude=* --exclude=!deep x", &["deep/c.md"]),
        ("--exclude=deep/ x", &["a.txt"]),
    ];
    for (words, expected) in rows {
        place.context("context", &format!("FROM scratch\nCOPY {words} /\n"));
        build(&place, &[text(&place.path("context"))]).ok();
        assert_eq!(found(&place), expected, "{words}");
    }
    for missing in ["--parents x/nothing", "--parents x/./a/b", "--parents link/a.txt"] {
        place.context("context", &format!("FROM scratch\nCOPY {missing} /\n"));
        build(&place, &[text(&place.path("context"))])
            .fails(1)
            .says(["is not in the build context"]);
    }
}
