//! Reproducible builds: the same inputs and `SOURCE_DATE_EPOCH` give the same digests, wherever and
//! however they are built, and whatever epoch the cache was filled under.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use support::built::Built;
use support::place::text;
use support::{Place, Run, images, until};

/// What a Dockerfile can do to times: the clock's, old ones, one that is yet to come; hard links,
/// copies, links, removals, in stages that are in the image and in one that is not.
const DOCKERFILE: &str = "FROM scratch AS base\n\
    ADD base.tar /\n\
    ENV PATH=/bin\n\
    FROM base AS build\n\
    RUN mkdir /out && touch -d @978307200 /out/old && touch -d @4102444800 /out/late \\\n\
     && echo new > /out/new && ln /out/new /out/other\n\
    FROM base\n\
    WORKDIR /app/deep\n\
    COPY --chown=app src .\n\
    RUN echo made > /made && ln /made /zz && touch -d @978307200 /old && rm /etc/group \\\n\
     && touch -d @4102444800 /late && mkfifo /fifo && chmod 700 /app\n\
    COPY --from=build /out /out\n\
    ADD more.tar /more\n\
    RUN touch /made && chown -R app /more && chmod 600 one && mkdir -p /x/y && ln -s /made /x/y/z\n\
    CMD [\"cat\", \"/made\"]\n";

const EARLIER: &str = "1000000000";
const LATER: &str = "1500000000";
/// Later than the files' chosen times, and than the clock.
const FUTURE: &str = "4200000000";

/// A context for [`DOCKERFILE`], whose files have this time.
fn context(place: &Place, name: &str, mtime: u64) -> PathBuf {
    let context = place.context(name, DOCKERFILE);
    place.write(&format!("{name}/src/one"), "one\n");
    place.write(&format!("{name}/src/sub/two"), "two\n");
    images::archive(place, &images::busybox_tree(place), &format!("{name}/base.tar"));
    images::archive(place, &context.join("src"), &format!("{name}/more.tar"));
    let times = format!("@{mtime}");
    place.run("find", []).arg(&context).args(["-exec", "touch", "-d", &times, "{}", "+"]).ok();
    context
}

fn build(place: &Place, root: &str, context: &Path, epoch: Option<&str>) -> Run {
    let run = place.boatyard_at(&place.path(root), ["build", "--progress=json", text(context)]);
    with_epoch(run, epoch)
}

fn with_epoch(run: Run, epoch: Option<&str>) -> Run {
    match epoch {
        Some(epoch) => run.env("SOURCE_DATE_EPOCH", epoch),
        None => run,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn the_digest_is_the_same_everywhere() {
    let place = Place::new();
    let began = now();
    let first = context(&place, "here", 1_600_000_000);
    let digest = Built::of(&build(&place, "first", &first, Some(EARLIER)).ok()).digest;
    assert!(digest.starts_with("sha256:"));
    // Another path, other times of files, another time of day.
    let second = context(&place, "elsewhere/in/a/longer/path", 500_000_000);
    until("the clock to go on", || now() > began + 1);
    let boatyard = env!("CARGO_BIN_EXE_boatyard");
    let ways = [
        ("path and clock", vec![]),
        ("one thread", vec!["taskset", "-c", "0"]),
        ("umask", vec!["sh", "-c", "umask 077; exec \"$@\"", "sh"]),
        ("wide umask", vec!["sh", "-c", "umask 000; exec \"$@\"", "sh"]),
        ("zone", vec!["env", "TZ=Pacific/Auckland", "LC_ALL=C"]),
    ];
    for (number, (way, before)) in ways.into_iter().enumerate() {
        let words: Vec<&str> =
            before.into_iter().chain([boatyard, "build", "--progress=json"]).collect();
        let run = place.run(words[0], []).args(&words[1..]).arg(&second);
        let root = place.path(&format!("root-{number}"));
        let run = run.env("BOATYARD_ROOT", root).env("SOURCE_DATE_EPOCH", EARLIER);
        assert_eq!(Built::of(&run.ok()).digest, digest, "{way}");
    }
    for isolation in ["userns", "chroot"] {
        let run = build(&place, isolation, &second, Some(EARLIER));
        let run = run.arg(format!("--isolation={isolation}"));
        assert_eq!(Built::of(&run.ok()).digest, digest, "{isolation}");
    }
    // The argument is the same as the variable, and what a step sees of it counts.
    let run = build(&place, "argument", &second, None);
    let run = run.arg(format!("--build-arg=SOURCE_DATE_EPOCH={EARLIER}"));
    assert_eq!(Built::of(&run.ok()).digest, digest);
}

#[test]
fn another_epoch_runs_no_step_and_gives_the_digest_of_a_clean_build() {
    let place = Place::new();
    let context = context(&place, "app", 1_600_000_000);
    let clean = |epoch: &str| {
        let root = format!("clean-{epoch}");
        Built::of(&build(&place, &root, &context, Some(epoch)).ok()).digest
    };
    let expected = [EARLIER, LATER, FUTURE].map(|epoch| (epoch, clean(epoch)));
    for first in [None, Some(EARLIER), Some(FUTURE)] {
        let root = format!("shared-{}", first.unwrap_or("none"));
        build(&place, &root, &context, first).ok();
        for (epoch, digest) in &expected {
            let again = Built::of(&build(&place, &root, &context, Some(epoch)).ok());
            again.ran([]);
            assert_eq!(again.digest, *digest, "{first:?} then {epoch}\n{again}");
        }
    }
}

#[test]
fn layers_of_an_epoch_are_written_for_the_image_alone() {
    let place = Place::new();
    let context = context(&place, "app", 1_600_000_000);
    let told = |epoch: &str| build(&place, "root", &context, Some(epoch)).ok().stderr;
    told(EARLIER);
    let again = told(LATER);
    let restamped = again.matches("setting its times").count();
    assert_eq!(restamped, 7, "of the nine steps, the one of `build` is in no image\n{again}");
    let third = told(LATER);
    assert!(!third.contains("setting its times"), "{third}");
}

#[test]
fn a_step_above_another_epochs_layers_sees_this_ones_times() {
    let place = Place::new();
    images::busybox(&place);
    let context = place
        .context("app", "FROM busybox\nRUN echo a > /a\nARG AGAIN\nRUN stat -c %Y /a > /seen\n");
    let seen = |epoch: &str, again: &str| {
        let run = place.boatyard(["build", "--progress=json", "-o", text(&place.path(again))]);
        let run = run.arg(format!("--build-arg=AGAIN={again}")).arg(&context);
        run.env("SOURCE_DATE_EPOCH", epoch).ok();
        fs_err::read_to_string(place.path(again).join("seen")).unwrap()
    };
    assert_eq!(seen(EARLIER, "one").trim(), EARLIER);
    assert_eq!(seen(LATER, "two").trim(), LATER);
}

#[test]
fn without_an_epoch_what_an_epoch_made_is_used_where_times_are_known() {
    let place = Place::new();
    let context = context(&place, "app", 1_600_000_000);
    build(&place, "root", &context, Some(EARLIER)).ok();
    let plain = Built::of(&build(&place, "root", &context, None).ok());
    let ran = plain.that_are("done");
    assert!(ran.iter().all(|step| !step.starts_with("RUN")), "{plain}");
}

#[test]
fn layers_keep_their_times_where_only_the_image_is_to_be_dated() {
    let place = Place::new();
    images::busybox(&place);
    let context = place.context("app", "FROM busybox\nRUN touch -d @1600000000 /a\n");
    let layout = |name: &str, rewrite: &str| {
        let output = format!("type=oci,tar=false,dest={}{rewrite}", text(&place.path(name)));
        let run = place.boatyard(["build", "--output", &output, text(&context)]);
        run.env("SOURCE_DATE_EPOCH", EARLIER).ok();
        let image = format!("oci:{}", text(&place.path(name)));
        place.run("skopeo", ["inspect", &image]).ok().json()
    };
    let (dated, kept) = (layout("dated", ""), layout("kept", ",rewrite-timestamp=false"));
    assert_eq!(kept["Created"], "2001-09-09T01:46:40Z");
    assert_eq!(kept["Created"], dated["Created"]);
    assert_ne!(kept["Layers"][1], dated["Layers"][1]);
}
