//! The build cache: what a second build does not do again, and what it must.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use support::built::Built;
use support::place::text;
use support::rendezvous::Rendezvous;
use support::{Place, Run, Server, images};

/// Returns a place whose root has the image `busybox`.
fn place() -> Place {
    let place = Place::new();
    images::busybox(&place);
    place
}

fn build(place: &Place, context: &Path) -> Run {
    place.boatyard(["build", "--progress=json", text(context)])
}

/// The same where steps come to a server of the test, on this machine.
fn meet(place: &Place, context: &Path) -> Run {
    build(place, context).arg("--network=host")
}

#[track_caller]
fn built(run: Run) -> Built {
    Built::of(&run.ok())
}

fn set_mode(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Removes what lies in a directory of the root.
fn empty(place: &Place, directory: &str) {
    for entry in fs_err::read_dir(place.root().join(directory)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) }
            .unwrap();
    }
}

/// Removes the blobs of layers, and leaves manifests and configurations: whatever is no JSON.
fn remove_layer_blobs(place: &Place) {
    for shard in fs_err::read_dir(place.root().join("blobs/sha256")).unwrap() {
        for blob in fs_err::read_dir(shard.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            if fs_err::read(&path).unwrap().first() != Some(&b'{') {
                fs_err::remove_file(path).unwrap();
            }
        }
    }
}

/// An application as one finds them: dependencies by a list, then the files, then their compiler.
fn application(place: &Place, name: &str) -> PathBuf {
    let context = place.context(
        name,
        "FROM busybox\n\
         WORKDIR /app\n\
         COPY bin/install bin/compile /bin/\n\
         COPY Gemfile .\n\
         RUN install Gemfile\n\
         ENV RAILS_ENV=production\n\
         COPY . .\n\
         RUN compile\n\
         CMD [\"cat\", \"/app/compiled\"]\n",
    );
    let script = |path: &str, content: &str| {
        let path = place.write(&format!("{name}/bin/{path}"), content);
        set_mode(&path, 0o755);
    };
    script(
        "install",
        "#!/bin/sh\ntr a-z A-Z < $1 > /installed; cat /proc/sys/kernel/random/uuid >> /installed\n",
    );
    script("compile", "#!/bin/sh\ncat app/*.rb > compiled\n");
    place.write(&format!("{name}/Gemfile"), "rake\nrails\n");
    place.write(&format!("{name}/app/one.rb"), "one\n");
    place.write(&format!("{name}/app/two.rb"), "two\n");
    context
}

const APPLICATION: [&str; 6] = [
    "COPY . .",
    "COPY Gemfile .",
    "COPY bin/install bin/compile /bin/",
    "RUN compile",
    "RUN install Gemfile",
    "WORKDIR /app",
];

#[test]
fn a_second_build_runs_nothing_and_has_the_same_digest() {
    let place = place();
    let context = application(&place, "app");
    let first = built(build(&place, &context));
    first.ran(APPLICATION);
    let second = built(build(&place, &context));
    assert_eq!(second.that_are("cached"), APPLICATION, "{second}");
    assert_eq!(second.digest, first.digest);
}

#[test]
fn a_changed_line_runs_only_what_is_below_the_dependencies() {
    let place = place();
    let context = application(&place, "app");
    build(&place, &context).ok();
    place.write("app/app/one.rb", "one, changed\n");
    let second = built(build(&place, &context));
    second.ran(["COPY . .", "RUN compile"]);
    place.write("app/Gemfile", "rake\nrails\npuma\n");
    let third = built(build(&place, &context));
    third.ran(["COPY . .", "COPY Gemfile .", "RUN compile", "RUN install Gemfile"]);
}

#[test]
fn a_cached_build_needs_no_layer_and_unpacks_none() {
    let place = place();
    let context = application(&place, "app");
    let first = built(build(&place, &context));
    empty(&place, "layers/root/diff/sha256");
    empty(&place, "layers/root/chain/sha256");
    let second = built(build(&place, &context));
    assert_eq!(second.that_are("cached"), APPLICATION, "{second}");
    assert_eq!(second.digest, first.digest);
    let unpacked = fs_err::read_dir(place.root().join("layers/root/diff/sha256")).unwrap();
    assert_eq!(unpacked.count(), 0);
    // The first RUN that misses needs what lies below it.
    place.write("app/app/one.rb", "one, changed\n");
    built(build(&place, &context)).ran(["COPY . .", "RUN compile"]);
}

#[test]
fn keys_are_of_what_files_say_not_of_where_and_when() {
    let place = place();
    build(&place, &application(&place, "app")).ok();
    // Another checkout, made in another order, at another time, for another umask.
    let other = place.path("elsewhere/deep");
    fs_err::create_dir_all(other.join("app")).unwrap();
    for name in ["app/two.rb", "app/one.rb", "Gemfile", "Dockerfile"] {
        fs_err::copy(place.path("app").join(name), other.join(name)).unwrap();
    }
    fs_err::create_dir(other.join("bin")).unwrap();
    for name in ["bin/compile", "bin/install"] {
        fs_err::copy(place.path("app").join(name), other.join(name)).unwrap();
    }
    let second = built(
        place
            .run("sh", ["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_boatyard")])
            .env("BOATYARD_ROOT", place.root())
            .env_remove("BOATYARD_CONFIG")
            .env_remove("SOURCE_DATE_EPOCH")
            .args(["build", "--progress=json", text(&other)]),
    );
    assert_eq!(second.that_are("cached"), APPLICATION, "{second}");
}

#[test]
fn a_mode_counts_as_much_as_a_byte() {
    let place = place();
    let context = application(&place, "app");
    build(&place, &context).ok();
    set_mode(&context.join("app/one.rb"), 0o600);
    built(build(&place, &context)).ran(["COPY . .", "RUN compile"]);
    set_mode(&context.join("app/one.rb"), 0o644);
    built(build(&place, &context)).ran([]);
}

#[test]
fn what_a_step_does_not_see_is_no_part_of_its_key() {
    let place = place();
    let context = place
        .context("app", "FROM busybox\nARG DECLARED=1\nRUN echo $DECLARED $http_proxy > /said\n");
    build(&place, &context).ok();
    let same: [&[&str]; 5] = [
        &["--build-arg=http_proxy=http://127.0.0.1:9"],
        &["--build-arg=UNDECLARED=2"],
        &["--add-host=db:10.0.0.5"],
        &["--ulimit=nofile=1024:4096", "--shm-size=1m"],
        &["--label=a=b"],
    ];
    for options in same {
        built(build(&place, &context).args(options)).ran([]);
    }
    let other: [&[&str]; 2] = [&["--build-arg=DECLARED=2"], &["--network=none"]];
    for options in other {
        built(build(&place, &context).args(options))
            .ran(["RUN echo $DECLARED $http_proxy > /said"]);
    }
}

#[test]
fn the_same_content_again_lets_what_follows_hit() {
    let place = place();
    let dockerfile = |comment: &str| {
        format!("FROM busybox\nRUN echo content > /file # {comment}\nRUN cat /file > /copy\n")
    };
    let context = place.context("app", &dockerfile("first"));
    build(&place, &context).ok();
    place.context("app", &dockerfile("second"));
    built(build(&place, &context)).ran(["RUN echo content > /file # second"]);
}

#[test]
fn a_copy_from_a_stage_goes_by_what_it_copies() {
    let place = place();
    let dockerfile = |other: &str| {
        format!(
            "FROM busybox AS build\nRUN echo {other} > /other; echo out > /out\n\
             FROM busybox\nCOPY --from=build /out /out\nRUN cat /out\n"
        )
    };
    let context = place.context("app", &dockerfile("one"));
    let first = built(build(&place, &context));
    place.context("app", &dockerfile("two"));
    let second = built(build(&place, &context));
    second.ran(["RUN echo two > /other; echo out > /out"]);
    assert_eq!(first.digest, second.digest);
    // Now by definition.
    built(build(&place, &context)).ran([]);
}

#[test]
fn what_no_cache_made_is_what_later_builds_find() {
    let place = place();
    let run = "RUN cat /proc/sys/kernel/random/uuid > /id";
    let context = place.context("app", &format!("FROM busybox\n{run}\n"));
    let first = built(build(&place, &context));
    let second = built(build(&place, &context).arg("--no-cache"));
    second.ran([run]);
    assert_ne!(first.digest, second.digest);
    let third = built(build(&place, &context));
    third.ran([]);
    assert_eq!(third.digest, second.digest);
}

#[test]
fn no_cache_that_makes_the_same_again_keeps_the_digest() {
    let place = place();
    let context = place.context("app", "FROM busybox\nRUN echo same > /file\n");
    let first = built(build(&place, &context));
    let second = built(build(&place, &context).arg("--no-cache"));
    second.ran(["RUN echo same > /file"]);
    assert_eq!(first.digest, second.digest);
}

#[test]
fn the_cache_of_one_stage_can_be_left_out() {
    let place = place();
    let context = place.context(
        "app",
        "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS two\nRUN echo 2 > /2\n\
         FROM busybox\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n",
    );
    build(&place, &context).ok();
    let second = built(build(&place, &context).arg("--no-cache-filter=Two"));
    second.ran(["RUN echo 2 > /2"]);
    build(&place, &context)
        .arg("--no-cache-filter=three")
        .fails(1)
        .says(["there is no stage `three`"]);
}

/// Starts a build and returns it with the lines that it tells.
fn start(place: &Place, context: &Path) -> (Child, impl Iterator<Item = String>) {
    let mut build = meet(place, context).spawn(Stdio::null(), Stdio::piped());
    let lines = BufReader::new(build.stderr.take().unwrap()).lines().map_while(Result::ok);
    (build, lines)
}

/// Reads lines until one has a text in it.
#[track_caller]
fn until(lines: &mut impl Iterator<Item = String>, text: &str) {
    assert!(lines.any(|line| line.contains(text)), "a line should have {text:?} in it");
}

const WAITING: &str = "runs this step";

#[test]
fn two_builds_at_once_run_a_step_once() {
    let place = place();
    let meeting = Rendezvous::open();
    let run = format!("FROM busybox\nRUN {} > /told\n", meeting.command("step"));
    let context = place.context("app", &run);
    let (mut first, mut first_lines) = start(&place, &context);
    let guest = meeting.next();
    let (mut second, mut second_lines) = start(&place, &context);
    until(&mut second_lines, WAITING);
    guest.let_go("told");
    until(&mut second_lines, "\"cached\"");
    assert!(second_lines.count() > 0);
    assert!(first_lines.by_ref().count() > 0);
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert!(meeting.others().is_empty());
}

#[test]
fn two_stages_that_want_one_step_run_it_once() {
    let place = place();
    let meeting = Rendezvous::open();
    let run = meeting.command("step");
    let context = place.context(
        "app",
        &format!(
            "FROM busybox AS a\nRUN {run} > /told\nFROM busybox AS b\nRUN {run} > /told\n\
             FROM busybox\nCOPY --from=a /told /a\nCOPY --from=b /told /b\n"
        ),
    );
    let (mut build, mut lines) = start(&place, &context);
    let guest = meeting.next();
    until(&mut lines, WAITING);
    guest.let_go("told");
    assert!(lines.count() > 0);
    assert!(build.wait().unwrap().success());
    assert!(meeting.others().is_empty());
}

#[test]
fn who_waits_for_a_build_that_dies_takes_its_step_over() {
    let place = place();
    let meeting = Rendezvous::open();
    let run = format!("FROM busybox\nRUN {} > /told\n", meeting.command("step"));
    let context = place.context("app", &run);
    let (mut first, _first_lines) = start(&place, &context);
    let left_behind = meeting.next();
    let (mut second, mut second_lines) = start(&place, &context);
    until(&mut second_lines, WAITING);
    first.kill().unwrap();
    first.wait().unwrap();
    meeting.next().let_go("told");
    assert!(second_lines.count() > 0);
    assert!(second.wait().unwrap().success());
    drop(left_behind);
    built(meet(&place, &context)).ran([]);
}

#[test]
fn independent_stages_run_at_once() {
    let place = place();
    let meeting = Rendezvous::open();
    let context = place.context(
        "app",
        &format!(
            "FROM busybox AS a\nRUN {} > /told\nFROM busybox AS b\nRUN {} > /told\n\
             FROM busybox\nCOPY --from=a /told /a\nCOPY --from=b /told /b\n",
            meeting.command("a"),
            meeting.command("b"),
        ),
    );
    let (mut build, lines) = start(&place, &context);
    // Neither goes on before both have come.
    let (one, other) = (meeting.next(), meeting.next());
    let mut words = [one.word.clone(), other.word.clone()];
    words.sort();
    assert_eq!(words, ["a", "b"]);
    one.let_go("told");
    other.let_go("told");
    assert!(lines.count() > 0);
    assert!(build.wait().unwrap().success());
}

#[test]
fn a_stage_waits_for_another_only_where_it_copies_from_it() {
    let place = place();
    let meeting = Rendezvous::open();
    let context = place.context(
        "app",
        &format!(
            "FROM busybox AS a\nRUN {} > /told\n\
             FROM busybox\nRUN {} > /own\nCOPY --from=a /told /a\n",
            meeting.command("a"),
            meeting.command("target"),
        ),
    );
    let (mut build, lines) = start(&place, &context);
    let (one, other) = (meeting.next(), meeting.next());
    one.let_go("");
    other.let_go("");
    assert!(lines.count() > 0);
    assert!(build.wait().unwrap().success());
}

#[test]
fn the_first_failure_ends_the_other_stages_and_is_the_one_that_is_told() {
    let place = place();
    let meeting = Rendezvous::open();
    let (good, bad) = (meeting.command("good"), meeting.command("bad"));
    let context = place.context(
        "app",
        &format!(
            "FROM busybox AS good\nRUN {good} > /told\nFROM busybox AS bad\nRUN {bad}; exit 7\n\
             FROM busybox\nCOPY --from=good /told /a\nCOPY --from=bad /told /b\n"
        ),
    );
    let mut build = meet(&place, &context).spawn(Stdio::null(), Stdio::piped());
    let (one, other) = (meeting.next(), meeting.next());
    let (bad, good) = if one.word == "bad" { (one, other) } else { (other, one) };
    bad.let_go("");
    let mut said = String::new();
    build.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(build.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("did not complete successfully: exit code: 7"), "{said}");
    assert!(said.contains("\"cancelled\""), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    drop(good);
}

#[test]
fn stages_that_nothing_needs_are_not_begun() {
    let place = place();
    let context = place.context(
        "app",
        "FROM busybox AS unneeded\nRUN false\nFROM nowhere.invalid/x AS gone\nRUN false\n\
         FROM busybox AS target\nRUN true\nFROM target AS later\nRUN false\n",
    );
    built(build(&place, &context).arg("--target=target")).ran(["RUN true"]);
}

#[test]
fn offline_is_enough_once_everything_is_here() {
    let place = place();
    let server = Server::start(&place);
    let image = server.image("base:1");
    let base = place.context("base", "FROM busybox\nRUN echo base > /base\n");
    place.boatyard(["build", "-q", "--push", "-t", &image, text(&base)]).ok();

    let other = place.path("other-root");
    let context = place.context("app", &format!("FROM {image}\nRUN cat /base > /copy\n"));
    let build = || place.boatyard_at(&other, ["build", "--progress=json", text(&context)]);
    build().arg("--offline").fails(1).says(["base:1", "--offline"]);
    let first = built(build());
    server.stop();
    let second = built(build());
    second.ran([]);
    assert_eq!(first.digest, second.digest);
    let third = built(build().args(["--offline", "--no-cache"]));
    third.ran(["RUN cat /base > /copy"]);
    build().args(["--offline", "--pull"]).fails(2);
}

#[test]
fn a_layer_that_is_gone_is_packed_or_made_again() {
    let place = place();
    let context = place.context("app", "FROM busybox\nRUN echo made > /file\n");
    let first = built(build(&place, &context));
    // The base is part of what is lost.
    remove_layer_blobs(&place);
    images::busybox(&place);
    let second = built(build(&place, &context));
    second.ran([]);
    assert_eq!(first.digest, second.digest);
    remove_layer_blobs(&place);
    empty(&place, "layers/root/diff/sha256");
    empty(&place, "layers/root/chain/sha256");
    images::busybox(&place);
    let third = built(build(&place, &context));
    third.ran(["RUN echo made > /file"]);
    let fourth = built(build(&place, &context));
    fourth.ran([]);
    assert_eq!(fourth.digest, third.digest);
}

#[test]
fn a_damaged_record_is_a_warning_and_its_step_runs() {
    let place = place();
    let context = place.context("app", "FROM busybox\nRUN echo made > /file\n");
    let first = built(build(&place, &context));
    for shard in fs_err::read_dir(place.root().join("cache/records")).unwrap() {
        for record in fs_err::read_dir(shard.unwrap().path()).unwrap() {
            let path = record.unwrap().path();
            let bytes = fs_err::read(&path).unwrap();
            fs_err::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    let ran = build(&place, &context).ok();
    ran.says(["\"warning\"", "is damaged"]);
    let second = Built::of(&ran);
    second.ran(["RUN echo made > /file"]);
    assert_ne!(first.digest, "");
    built(build(&place, &context)).ran([]);
}

#[test]
fn an_epoch_makes_digests_equal_on_two_roots() {
    let place = place();
    let context = application(&place, "app");
    // What is random has no place in an image that anyone can build again.
    let install = place.write("app/bin/install", "#!/bin/sh\ntr a-z A-Z < $1 > /installed\n");
    set_mode(&install, 0o755);
    let digest = |root: &Path| {
        let build = place.boatyard_at(root, ["build", "--progress=json", text(&context)]);
        built(build.env("SOURCE_DATE_EPOCH", "1700000000"))
    };
    let first = digest(&place.root());
    let other = place.path("other-root");
    let base = place.path("busybox-image");
    place.boatyard_at(&other, ["build", "-q", "-t", "busybox", text(&base)]).ok();
    let second = digest(&other);
    second.ran(APPLICATION);
    // The bases were built at two times, and an epoch changes no base: only ours is compared.
    assert_eq!(layers(&place, &place.root(), &first), layers(&place, &other, &second));
    digest(&place.root()).ran([]);
}

/// Returns the digests of an image's own layers: all but the base's one.
fn layers(_place: &Place, root: &Path, built: &Built) -> Vec<String> {
    let hex = built.digest.strip_prefix("sha256:").unwrap();
    let manifest = fs_err::read(root.join("blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.skip(1).map(|layer| layer["digest"].to_string()).collect()
}

#[test]
fn explain_names_what_differs() {
    let place = place();
    let context = place.context("app", "FROM busybox\nARG WORD=one\nRUN echo $WORD > /word\n");
    let explained = |options: &[&str]| {
        let run = place.boatyard(["build", "--quiet", "--explain", text(&context)]);
        run.args(options).ok().stderr
    };
    assert!(explained(&[]).contains("no earlier build ran this step"));
    assert!(explained(&[]).contains("all were cached"));
    let said = explained(&["--build-arg=WORD=two"]);
    assert!(said.contains("arg WORD: `one` -> `two`"), "{said}");
    let ran =
        place.boatyard(["build", "--quiet", "--explain=json", "--no-cache", text(&context)]).ok();
    let object: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert_eq!(object["why"], "not-reused", "{object}");
    assert_eq!(object["line"], 3);
}
