//! The command as a person meets it: help, mistakes and what they are answered with, the options
//! of `build`, builds that anyone can repeat.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use support::place::text;
use support::{Place, Server, images};

#[test]
fn help_names_every_command() {
    let place = Place::new();
    let help = place.boatyard(["--help"]).ok().text();
    let commands = "quickstart build serve images inspect history tag rmi push pull login logout \
        save load import gc fsck completions";
    for command in commands.split_whitespace() {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(command)),
            "{command}\n{help}"
        );
        let its = place.boatyard([command, "--help"]).ok().text();
        assert!(its.contains(&format!("Usage: boatyard {command}")), "{its}");
    }
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let place = Place::new();
    place.boatyard(["build", "--frob", "."]).fails(2).says(["unexpected argument '--frob'"]);
    place.boatyard(["bild"]).fails(2).says(["unrecognized subcommand 'bild'", "'build'"]);
    place.boatyard(["build", "-t", "UPPER", "."]).fails(2).says(["cannot use --tag UPPER"]);
    let nowhere = place.path("nowhere");
    place.boatyard(["build", text(&nowhere)]).fails(1).says(["nowhere does not exist"]);
    let empty = place.path("home");
    place
        .boatyard(["build", text(&empty)])
        .fails(1)
        .says(["there is no Dockerfile in", "hint: -f names a file elsewhere"]);
}

#[test]
fn a_mistake_in_the_configuration_is_shown_with_its_line() {
    let place = Place::new();
    let config = place.write("boatyard.toml", "[serve]\nlissten = 3\n");
    place.boatyard(["--config", text(&config), "serve"]).fails(2).says([
        "boatyard.toml",
        "line 2",
        "lissten = 3",
        "^^^^^^^",
        "`listen`",
    ]);
}

#[test]
fn a_mistake_in_a_dockerfile_is_marked_and_mended() {
    let place = Place::new();
    let context = place.context("app", "FROM scratch\nCOPPY a b\n");
    let said = place.boatyard(["build", "app"]).current_dir(&place.path("")).fails(1).stderr;
    assert_eq!(
        said,
        "error: unknown instruction `COPPY`
  --> app/Dockerfile:2
      2 | COPPY a b
        | ^^^^^
hint: did you mean `COPY`?
"
    );
    fs_err::write(context.join("Dockerfile"), "FROM scratch\nCOPY left-out /\n").unwrap();
    place.write("app/.dockerignore", "left-*\n");
    place.write("app/left-out", "");
    place.boatyard(["build", text(&context)]).fails(1).says([
        "error: `left-out` is not in the build context",
        "2 | COPY left-out /",
        "hint: it is there, but .dockerignore leaves it out",
    ]);
}

#[test]
fn a_step_that_fails_shows_what_it_said() {
    let place = Place::new();
    images::busybox(&place);
    let dockerfile = "FROM busybox\nRUN echo before; echo worse >&2; exit 42\nRUN touch never\n";
    let context = place.context("app", dockerfile);
    let build = place.boatyard(["build", "--progress=plain", "-t", "app", text(&context)]);
    let failed = build.fails(1);
    failed.says([
        " before\n",
        " worse\n",
        "did not complete successfully: exit code: 42",
        "Dockerfile:2\n",
        "2 | >>> RUN echo before",
    ]);
    // What follows is shown, and was not run.
    assert!(!failed.stderr.contains("] RUN touch never"), "{failed}");
}

#[test]
fn results_go_where_output_says() {
    let place = Place::new();
    let context = place.context("app", "FROM scratch\nCOPY hello /dir/\n");
    place.write("app/hello", "hello\n");
    let build = |output: &str| {
        place.boatyard(["build", "-q", "-t", "app:1", "-o", output, text(&context)]).ok()
    };
    let path = |name: &str| place.path(name);

    build(&format!("type=local,dest={}", text(&path("local"))));
    assert_eq!(fs_err::read(path("local/dir/hello")).unwrap(), b"hello\n");
    build(text(&path("short")));
    assert_eq!(fs_err::read(path("short/dir/hello")).unwrap(), b"hello\n");
    let members = |archive: &[u8]| {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        let paths = entries.map(|entry| entry.unwrap().path_bytes().into_owned());
        paths.map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>()
    };
    build(&format!("type=tar,dest={}", text(&path("files.tar"))));
    let files = members(&fs_err::read(path("files.tar")).unwrap());
    assert_eq!(files, ["dir/", "dir/hello"]);
    assert_eq!(members(&build("-").stdout), files);
    build(&format!("type=oci,dest={}", text(&path("oci.tar"))));
    let oci = members(&fs_err::read(path("oci.tar")).unwrap());
    assert!(oci.iter().any(|name| name == "index.json"), "{oci:?}");
    build(&format!("type=docker,dest={}", text(&path("docker.tar"))));
    let docker = members(&fs_err::read(path("docker.tar")).unwrap());
    assert!(docker.iter().any(|name| name == "manifest.json"), "{docker:?}");
    for (kind, archive) in [("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")] {
        let source = format!("{kind}:{}", text(&path(archive)));
        let config = place.run("skopeo", ["inspect", "--config", &source]).ok().json();
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1, "{kind}");
    }
    place.boatyard(["build", "-o", "type=zip,dest=x", text(&context)]).fails(2).says(["zip"]);
}

#[test]
fn a_build_says_what_it_made() {
    let place = Place::new();
    let context = place.context("app", "FROM scratch\nCOPY Dockerfile /\n");
    let (id_file, metadata) = (place.path("id"), place.path("metadata.json"));
    let id = place
        .boatyard(["build", "-q", "-t", "app:1", "--iidfile", text(&id_file)])
        .args(["--metadata-file", text(&metadata), text(&context)])
        .ok();
    assert_eq!(id.stderr, "");
    let id = id.text();
    assert_eq!(fs_err::read_to_string(id_file).unwrap(), id);
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs_err::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert_eq!(metadata["image.name"], "docker.io/library/app:1");
    let digest = &metadata["containerimage.descriptor"]["digest"];
    assert_eq!(&metadata["containerimage.digest"], digest);
}

/// Builds to a directory and returns what the file `/said` holds.
fn said(place: &Place, args: &[&str], dockerfile: &str) -> String {
    let directory = tempfile::tempdir_in(place.path("")).unwrap();
    let output = format!("type=local,dest={}", text(directory.path()));
    place
        .boatyard(["build", "-q", "-o", &output, "-f", "-"])
        .args(args)
        .arg(place.path("home"))
        .input(dockerfile)
        .ok();
    fs_err::read_to_string(directory.path().join("said")).unwrap()
}

#[test]
fn arguments_targets_and_networks_reach_the_steps() {
    let place = Place::new();
    images::busybox(&place);
    let greeting = "ARG WHO=you\nFROM busybox\nARG WHO\nRUN echo \"hello $WHO\" > /said\n";
    assert_eq!(said(&place, &[], greeting), "hello you\n");
    assert_eq!(said(&place, &["--build-arg", "WHO=world"], greeting), "hello world\n");
    let stages = "FROM busybox AS one\nRUN echo one > /said\nFROM one\nRUN echo two > /said\n";
    assert_eq!(said(&place, &["--target", "one"], stages), "one\n");
    assert_eq!(said(&place, &[], stages), "two\n");
    let interfaces = "FROM busybox\nRUN cat /proc/net/dev | grep -c : > /said\n";
    assert_eq!(said(&place, &["--network", "none"], interfaces), "1\n");
    let missing = place.boatyard(["build", "--target", "tow", "-f", "-", "."]).input(stages);
    missing.fails(1).says(["tow"]);
}

#[test]
fn triggers_run_in_the_child_and_in_no_grandchild() {
    let place = Place::new();
    images::busybox(&place);
    let parent = "FROM busybox\nONBUILD RUN echo trigger >> /said\n";
    place.boatyard(["build", "-q", "-t", "parent", "-f", "-", "."]).input(parent).ok();
    assert_eq!(said(&place, &[], "FROM parent\nRUN echo child >> /said\n"), "trigger\nchild\n");
    let stages = "FROM parent AS child\nFROM child\nRUN echo grandchild >> /said\n";
    assert_eq!(said(&place, &[], stages), "trigger\ngrandchild\n");
}

#[test]
fn labels_reach_the_configuration() {
    let place = Place::new();
    let server = Server::start(&place);
    let image = server.image("app:1");
    place
        .boatyard(["build", "-q", "--push", "-t", &image, "--label", "a=b", "--label", "c=d e"])
        .args(["-f", "-", "."])
        .input("FROM scratch\nLABEL a=overruled f=g\nCMD [\"x\"]\n")
        .current_dir(&place.path("home"))
        .ok();
    let source = format!("docker://{image}");
    let inspect = ["inspect", "--tls-verify=false", "--config", &source];
    let config = place.run("skopeo", inspect).ok().json();
    let expected = serde_json::json!({ "a": "b", "c": "d e", "f": "g" });
    assert_eq!(config["config"]["Labels"], expected);
}

#[test]
fn quickstart_shows_the_main_job() {
    let place = Place::new();
    let shown = place.boatyard_at(&place.root(), ["quickstart", "--exit"]).ok().text();
    for part in ["A base image", "listens on", "pulled", "Hello from an image that Boatyard built"]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn the_same_build_has_the_same_digest_on_any_root() {
    let place = Place::new();
    images::busybox(&place);
    let base = place.path("busybox-image/base.tar");
    let dockerfile = "FROM scratch AS base\nADD base.tar /\nENV PATH=/bin\n\
        FROM base\nCOPY src /src\nRUN mkdir /out && cat /src/* > /out/all && chmod 600 /out/all\n\
        FROM base\nCOPY --from=1 /out /out\nRUN date > /dev/null; echo done > /out/done\n";
    let build = |name: &str, order: [&str; 3]| {
        let context = place.context(name, dockerfile);
        fs_err::copy(&base, context.join("base.tar")).unwrap();
        for file in order {
            place.write(&format!("{name}/src/{file}"), file);
        }
        let metadata = place.path(&format!("{name}.json"));
        place
            .boatyard_at(&place.path(&format!("{name}-root")), ["build", "-q"])
            .args(["--metadata-file", text(&metadata), text(&context)])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .ok();
        let metadata: serde_json::Value =
            serde_json::from_slice(&fs_err::read(metadata).unwrap()).unwrap();
        metadata["containerimage.digest"].as_str().unwrap().to_owned()
    };
    let first = build("first", ["a", "b", "c"]);
    // Times of files are seconds: let one pass, so that what depends on the clock differs.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(build("second", ["c", "a", "b"]), first);
}
