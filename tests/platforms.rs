//! Images for several platforms: one build, one index, and steps for machines that this one is not.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use support::built::Built;
use support::place::text;
use support::{Place, images};

const BOTH: &str = "--platform=linux/amd64,linux/arm64/v8";

/// Returns a place whose root has the image `busybox`.
fn place() -> Place {
    let place = Place::new();
    images::busybox(&place);
    place
}

#[test]
fn stages_of_the_building_machine_cross_compile_and_common_steps_run_once() {
    let place = place();
    let context = place.context(
        "app",
        "FROM --platform=$BUILDPLATFORM busybox AS common\n\
         RUN cat /proc/sys/kernel/random/uuid > /common\n\
         FROM common AS build\n\
         ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT TARGETSTAGE BUILDPLATFORM\n\
         RUN echo $TARGETPLATFORM $TARGETOS $TARGETARCH \"<$TARGETVARIANT>\" $TARGETSTAGE \\\n\
          $BUILDPLATFORM > /out\n\
         FROM scratch AS final\n\
         COPY --from=build /common /out /\n",
    );
    let out = place.path("out");
    let run = place.boatyard(["build", "--progress=json", "-t", "app", "-o", text(&out), BOTH]);
    let run = run.arg("--platform=linux/arm/v7").arg(&context).ok();
    let built = Built::of(&run);
    let done = built.that_are("done");
    let count = |word: &str| done.iter().filter(|step| step.contains(word)).count();
    assert_eq!(count("random/uuid"), 1, "{built}");
    assert_eq!(count("$TARGETPLATFORM"), 3, "{built}");
    for named in ["[linux/amd64->arm64 build 1/1] RUN", "[linux/arm64 final 1/1] COPY"] {
        assert!(run.stderr.contains(named), "{named}\n{}", run.stderr);
    }
    let read = |path: &str| fs_err::read_to_string(out.join(path)).unwrap();
    assert_eq!(read("linux_amd64/out"), "linux/amd64 linux amd64 <> final linux/amd64\n");
    assert_eq!(read("linux_arm64/out"), "linux/arm64 linux arm64 <> final linux/amd64\n");
    assert_eq!(read("linux_arm_v7/out"), "linux/arm/v7 linux arm <v7> final linux/amd64\n");
    assert_eq!(read("linux_amd64/common"), read("linux_arm64/common"));
    // What was built is an index of this machine.
    let again = place.boatyard(["build", "-q", BOTH, "--platform=linux/arm/v7", text(&context)]);
    assert_eq!(again.ok().text().trim(), built.digest);
    let archive = place.path("app.tar");
    let save = ["save", "--format=oci-archive", "-o", text(&archive), "app"];
    place.boatyard(save).ok();
    let index = inspect(&place, &format!("oci-archive:{}", text(&archive)), &["--raw"]);
    let platforms: Vec<String> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listed| listed["platform"]["architecture"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64", "arm"]);
    let arm64 = inspect(
        &place,
        &format!("oci-archive:{}", text(&archive)),
        &["--override-arch=arm64", "--config"],
    );
    assert_eq!(arm64["architecture"], "arm64");
}

fn inspect(place: &Place, image: &str, options: &[&str]) -> Value {
    let (overriding, options): (Vec<&str>, Vec<&str>) =
        options.iter().partition(|option| option.starts_with("--override"));
    place.run("skopeo", []).args(overriding).arg("inspect").args(options).arg(image).ok().json()
}

#[test]
fn what_this_machine_cannot_run_is_told_before_anything_runs() {
    let place = place();
    let context = place.context(
        "app",
        "FROM busybox AS first\nRUN echo first\nFROM scratch\nCOPY --from=first /bin /bin\n\
         RUN [\"/bin/true\"]\n",
    );
    let run = place.boatyard(["build", "--platform=linux/s390x", "--progress=json"]);
    let dockerfile = place.write(
        "other/Dockerfile",
        "FROM --platform=$BUILDPLATFORM busybox AS first\nRUN echo first\nFROM scratch\n\
         COPY --from=first /bin /bin\nRUN [\"/bin/true\"]\n",
    );
    let failed = run.args(["-f", text(&dockerfile)]).arg(&context).fails(1);
    failed.says([
        "error: this machine cannot run programs for linux/s390x",
        "Dockerfile:5",
        "note: it is linux/amd64, and no emulator is registered with its kernel",
        "hint: register one, with `apt install qemu-user-static`",
    ]);
    assert_eq!(Built::of(&failed).that_are("done"), [""; 0]);
    let wrong = place.boatyard(["build", "--platform=windows/amd64", text(&context)]).fails(2);
    wrong.says(["cannot build for windows/amd64: only for linux"]);
}

/// An emulator that all can tell from the real thing: `touch` is given the program and its words.
const REGISTER: &str = "set -e\n\
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc\n\
    flags=$1 interpreter=$2; shift 2\n\
    magic='\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00'\n\
    echo \":arm64:M:0:$magic::$interpreter:$flags\" > /proc/sys/fs/binfmt_misc/register\n\
    exec \"$@\"\n";

#[test]
fn a_step_for_another_machine_runs_in_the_emulator_that_the_kernel_knows() {
    let place = Place::new();
    images::busybox_tree(&place);
    let emulator = place.path("touch");
    fs_err::copy(place.path("busybox/bin/busybox"), &emulator).unwrap();
    let context =
        place.context("app", "FROM scratch\nCOPY prog /\nRUN [\"/prog\", \"/emulated\"]\n");
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0".to_vec();
    program.resize(200, 0);
    let program = place.write("app/prog", program);
    fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    // The kernel has a table of emulators for each user namespace: this machine's stays as it is.
    let run = |flags: &str| {
        let run = place.run("unshare", ["--user", "--map-root-user", "--mount", "sh", "-c"]);
        run.args([REGISTER, "sh", flags, text(&emulator), env!("CARGO_BIN_EXE_boatyard"), "build"])
            .env("BOATYARD_ROOT", place.path(&format!("root{flags}")))
            .env_remove("SOURCE_DATE_EPOCH")
            .args(["--platform=linux/arm64", "--network=none", "-o", text(&place.path("out"))])
            .arg(&context)
    };
    run("F").ok();
    assert!(place.path("out/emulated").exists());
    let refused = run("P").fails(1);
    refused.says([
        "error: programs for linux/arm64 run here in",
        "which is not found from within an image",
        "note: it is registered with the kernel without the flag F",
    ]);
}

#[test]
fn triggers_copy_from_stages_of_whoever_builds_on_them() {
    let place = place();
    let base = place.context(
        "base",
        "FROM busybox\n\
         ONBUILD ARG WHO=nobody\n\
         ONBUILD COPY --from=assets /made /assets\n\
         ONBUILD COPY --from=busybox /etc/passwd /passwd\n\
         ONBUILD RUN echo $WHO > /who\n",
    );
    place.boatyard(["build", "-q", "-t", "base", text(&base)]).ok();
    let app = place.context(
        "app",
        "FROM busybox AS assets\nRUN echo made > /made\n\
         FROM base AS child\nRUN cat /assets >> /who\n\
         FROM child\nRUN echo grandchild >> /who\n",
    );
    let out = place.path("out");
    let build = ["build", "--build-arg=WHO=me", "--progress=json", "-o", text(&out), text(&app)];
    let built = Built::of(&place.boatyard(build).ok());
    assert_eq!(fs_err::read_to_string(out.join("who")).unwrap(), "me\nmade\ngrandchild\n");
    assert!(out.join("passwd").exists());
    let ran = built.that_are("done");
    assert_eq!(ran.iter().filter(|step| step.contains("echo $WHO")).count(), 1, "{built}");
    // Without the stage that the trigger names there is nothing to copy from.
    let alone = place.context("alone", "FROM base\n");
    let failed = place.boatyard(["build", "--offline", text(&alone)]).fails(1);
    failed.says(["cannot read what this step copies from", "Dockerfile:1"]);
    for refused in ["ONBUILD ONBUILD RUN x", "ONBUILD FROM x", "ONBUILD MAINTAINER x"] {
        let context = place.context("refused", &format!("FROM busybox\n{refused}\n"));
        place.boatyard(["build", text(&context)]).fails(1);
    }
}
