//! `RUN --mount` of every type, as Dockerfiles use them, in every way in which steps are isolated.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

#[path = "mounts/caches.rs"]
mod caches;
#[path = "mounts/cves.rs"]
mod cves;
#[path = "mounts/secrets.rs"]
mod secrets;
mod support;
#[allow(clippy::allow_attributes, dead_code, reason = "each test file uses its own part of it")]
#[path = "rootless/user.rs"]
mod user;

use std::path::Path;

use support::built::Built;
use support::place::text;
use support::{Place, Run, images};
use user::User;

/// Returns a place whose root has the image `busybox`.
fn place() -> Place {
    let place = Place::new();
    images::busybox(&place);
    place
}

fn build(place: &Place, context: &Path) -> Run {
    place.boatyard(["build", "--progress=json", text(context)])
}

#[track_caller]
fn built(run: Run) -> Built {
    Built::of(&run.ok())
}

/// What a bind mount shows, of everything that it can show; and at the end what is left of it.
const BINDS: &str = r#"
FROM busybox AS made
RUN mkdir -p /out/sub && echo one > /out/one && echo two > /out/sub/two && chown 1000:50 /out/one \
 && ln -s /etc/passwd /out/absolute && ln -s ../../../../../../../../etc/passwd /out/up && ln -s /out /in
FROM busybox
RUN --mount=target=/c test "$(ls -A /c | sort | tr '\n' ' ')" = ".dockerignore Dockerfile a b "
RUN --mount=source=a,target=/c test "$(cat /c/x)" = x && test "$(stat -c %u:%g /c/x)" = 0:0
RUN --mount=source=a/x,target=/c/file,readonly test "$(cat /c/file)" = x
RUN --mount=source=b/to-a,target=/c test "$(cat /c/x)" = x
WORKDIR /work
RUN --mount=from=made,source=/out,target=. test "$(cat one sub/two | tr '\n' ' ')" = "one two " && test "$(stat -c %u:%g one)" = 1000:50
RUN --mount=from=made,source=in/sub,target=/s test "$(cat /s/two)" = two
RUN --mount=from=made,source=/out/absolute,target=/s --mount=from=made,source=/out/up,target=/t grep -q ^app: /s && grep -q ^app: /t
RUN --mount=from=busybox,target=/other,rw rm /other/etc/passwd && touch /other/new && test ! -e /other/etc/passwd
RUN --mount=from=busybox,target=/other test -e /other/etc/passwd && test ! -e /other/new
RUN --mount=target=/c,rw echo changed > /c/a/x && touch /c/new && test "$(cat /c/a/x)" = changed
RUN --mount=target=/c test "$(cat /c/a/x)" = x && test ! -e /c/new
RUN --mount=from=scratch,target=/empty,rw test -z "$(ls -A /empty)" && touch /empty/x
RUN --mount=from=made,source=/out,target=/deep/er/tmp --mount=from=made,target=/deep/er touch /deep/kept && test -e /deep/er/out/one && test -e /deep/er/tmp/one
ARG WHERE=/var/here
RUN --mount=from=made,target=$WHERE/out,source=${NOTHING:-/out} test -e /var/here/out/one
RUN --mount=type=tmpfs,target=/tmp/t touch /tmp/t/x && test "$(stat -c %a /tmp/t)" = 1777
"#;

/// What enforces itself only where there are mounts.
const ENFORCED: &str = r#"
RUN --mount=from=made,target=/m --mount=target=/c ! touch /m/x && ! touch /c/x && ! echo > /c/a/x
RUN --mount=type=tmpfs,target=/t,size=64k ! dd if=/dev/zero of=/t/x bs=1k count=100 2>/dev/null
RUN --mount=type=tmpfs,target=/t,ro ! touch /t/x
RUN --mount=type=secret,id=s ! echo > /run/secrets/s && ! rm /run/secrets/s
"#;

fn write_binds(place: &Place, dockerfile: &str) -> std::path::PathBuf {
    let context = place.context("binds", dockerfile);
    for (name, content) in
        [("a/x", "x\n"), ("b/file", ""), ("ignored/x", ""), (".dockerignore", "ignored\n")]
    {
        place.write(&format!("binds/{name}"), content);
    }
    fs_err::os::unix::fs::symlink("/a", context.join("b/to-a")).unwrap();
    context
}

/// Fails the test unless a directory holds the image's files and nothing that was a mount point.
#[track_caller]
fn holds_no_mount_point(output: &Path) {
    let names = |directory: &Path| {
        let mut names: Vec<_> = fs_err::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let root = ["bin", "deep", "etc", "root", "tmp", "usr", "work"];
    assert_eq!(names(output), root);
    assert_eq!(names(&output.join("deep")), ["kept"]);
    for empty in ["tmp", "work", "root"] {
        assert!(names(&output.join(empty)).is_empty(), "{empty}");
    }
}

#[test]
fn files_of_stages_images_and_contexts_are_shown_in_every_isolation() {
    let place = place();
    let context = write_binds(&place, BINDS);
    let run = |isolation: &str, name: &str| {
        let output = place.path(name);
        let options = ["--isolation", isolation, "--no-cache", "--output", text(&output)];
        build(&place, &context).args(options).ok();
        holds_no_mount_point(&output);
    };
    run("full", "full");
    run("chroot", "chroot");
    let copies = ["--snapshots=copy", "--no-cache"];
    build(&place, &context).args(copies).ok();

    let enforced = write_enforced(&place);
    let secret = place.write("secret", "s");
    let secret = format!("id=s,src={}", text(&secret));
    build(&place, &enforced).args(["--secret", &secret]).ok();

    let user = User::with_subordinate_ids(&place);
    let base = place.path("busybox.tar");
    place.boatyard(["save", "--output", text(&base), "busybox"]).ok();
    user.boatyard(["load", "--input", text(&base)]).ok();
    for context in [&context, &enforced] {
        user.boatyard(["build", "--progress=plain", "--secret", &secret, text(context)]).ok();
    }
    user.boatyard(["gc", "--layers", "0"]).ok();
}

fn write_enforced(place: &Place) -> std::path::PathBuf {
    let context =
        place.context("enforced", &format!("FROM busybox AS made\nFROM busybox\n{ENFORCED}"));
    place.write("enforced/a/x", "x");
    context
}

#[test]
fn what_is_shown_decides_and_nothing_else() {
    let place = place();
    let dockerfile = "FROM busybox AS made\nRUN mkdir /out && echo 1 > /out/x\n\
                      FROM busybox\nRUN --mount=source=src,target=/src cat /src/x > /x\n\
                      RUN --mount=from=made,source=/out,target=/out cat /out/x > /y\n";
    let context = place.context("app", dockerfile);
    place.write("app/src/x", "x");
    place.write("app/docs/y", "y");
    let again = |expected: &[&str]| {
        let built = built(build(&place, &context));
        assert_eq!(built.that_are("done"), expected, "{built}");
    };
    built(build(&place, &context));
    again(&[]);
    // What is not shown, how it is called, and options that say what is so anyhow.
    place.write("app/docs/y", "changed");
    let same = dockerfile
        .replace("AS made", "AS other")
        .replace("from=made", "from=other")
        .replace("target=/src ", "type=bind,destination=/./src/,ro ");
    place.write("app/Dockerfile", &same);
    let built = built(build(&place, &context));
    assert!(built.that_are("done").is_empty(), "{built}");
    place.write("app/Dockerfile", dockerfile);
    // The layers of the stage are not needed to know that.
    fs_err::remove_dir_all(place.root().join("contents")).unwrap();
    again(&[]);

    place.write("app/src/new", "");
    let said = build(&place, &context).arg("--explain").ok();
    said.says(["(line 4) ran: it differs", "--mount=target=/src: new: added"]);
    let rw = dockerfile.replace("target=/src ", "target=/src,rw ");
    place.write("app/Dockerfile", rw);
    let said = build(&place, &context).arg("--explain").ok();
    said.says(["(line 4) ran: it differs", "mount /src: `type=bind` -> `type=bind,rw`"]);
}

#[test]
fn what_cannot_be_mounted_is_said_at_its_word() {
    let place = place();
    place.write("app/.dockerignore", "ignored\n");
    place.write("app/ignored", "");
    let says = |line: &str, expected: &[&str]| {
        let dockerfile = format!("FROM busybox AS first\nFROM busybox\nARG WORD=/x\n{line} true\n");
        let context = place.context("app", &dockerfile);
        let said = place.boatyard(["build", "--progress=plain", text(&context)]).fails(1);
        said.says(["Dockerfile:4\n"]);
        for part in expected {
            assert!(said.stderr.contains(part), "should say {part:?}:\n{said}");
        }
    };
    says("RUN --mount=tagret=/a", &["unknown option `tagret`", "did you mean `target`?"]);
    says("RUN --mount=target=/a,ro,rw", &["it is to be read-only, and to be writable"]);
    says("RUN --mount=target=/", &["a mount cannot take the place of the root"]);
    says("RUN --mount=type=${WORD#/},target=/a", &["unknown mount type `x`"]);
    says("RUN --mount=target=${WORD:?gone}${NO:?gone}", &["gone"]);
    says("RUN --mount=from=$WORD,target=/a", &["`from` cannot use variables", "AS name"]);
    says("RUN --mount=from=0,target=/a", &["cannot take its files from stage 0 by its number"]);
    says(
        "RUN --mount=from=fisrt,target=/a",
        &["cannot mount from stage `fisrt`", "did you mean `first`?"],
    );
    says(
        "RUN --mount=source=none,target=/a",
        &["`none` is not in the build context", "relative to the build context"],
    );
    says("RUN --mount=source=ignored,target=/a", &[".dockerignore leaves it out"]);
    says("RUN --mount=from=first,source=/no/*,target=/a", &["`/no/*` is not in stage first"]);
    says("RUN --mount=type=cache,target=/a,source=x", &["`source` of a cache mount needs `from`"]);
    says(
        "RUN --mount=type=secret,id=a,required",
        &["needs the secret `a`, which was not given", "--secret id=a,src=FILE"],
    );
    says("RUN --mount=type=ssh,required", &["needs the SSH agent `default`", "--ssh default"]);
    says("RUN --security=insecure", &["needs permission", "--allow security.insecure gives it"]);
    says("RUN --network=host", &["needs permission", "--allow network.host gives it"]);
    says(
        "RUN --device=v.example/c=x,required",
        &["no device `v.example/c=x`", "without `required`"],
    );
    says("RUN --mount=from=first,source=/bin,target=/proc/x", &["/proc"]);

    let context = place.context("app", "FROM busybox\nRUN --device=v.example/c=x true\n");
    build(&place, &context).ok().says(["runs without the device `v.example/c=x`"]);
    place.boatyard(["build", "--allow", "everything", text(&context)]).fails(2);
}

#[test]
fn might_is_given_by_whoever_builds() {
    let place = place();
    let mighty = "FROM busybox\nRUN --security=insecure mkdir /m && busybox mount -t tmpfs x /m\n";
    let context = place.context("mighty", mighty);
    for isolation in ["full", "userns"] {
        let options = ["--isolation", isolation, "--no-cache"];
        build(&place, &context).args(options).args(["--allow", "security.insecure"]).ok();
    }
    let sandboxed = place.context("sandboxed", &mighty.replace("insecure", "sandbox"));
    build(&place, &sandboxed).args(["--allow", "security.insecure"]).fails(1);
    let host = place.context("host", "FROM busybox\nRUN --network=host true\n");
    for leave in [["--allow=network.host"], ["--network=host"]] {
        build(&place, &host).args(leave).ok();
    }
}

#[test]
fn a_named_context_is_mounted_too() {
    let place = place();
    place.write("lib/header", "lib");
    let context = place
        .context("app", "FROM busybox\nRUN --mount=from=lib,target=/lib cat /lib/header > /x\n");
    let given = format!("lib={}", text(&place.path("lib")));
    let runs = || {
        let built = built(build(&place, &context).args(["--build-context", &given]));
        built.that_are("done").iter().any(|step| step.starts_with("RUN"))
    };
    assert!(runs());
    assert!(!runs());
    place.write("lib/header", "new");
    assert!(runs());
}
