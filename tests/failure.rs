//! What is told of a step that failed, and a shell where it did.

mod support;

use support::Place;
use support::images::busybox;
use support::place::text;

const DOCKERFILE: &str = "FROM busybox\nENV WHO=me\nWORKDIR /work\nUSER app\n\n\
                          RUN echo made > /tmp/made && \\\n    echo first && \\\n    \
                          echo last >&2 && exit 42\nCMD [\"x\"]\n";

/// Returns a place with a context whose build fails.
fn place() -> Place {
    let place = Place::new();
    busybox(&place);
    place.context("context", DOCKERFILE);
    place
}

#[test]
fn a_failed_step_is_shown_with_its_lines_and_its_log() {
    let place = place();
    let context = place.path("context");
    let ran = place.boatyard(["build", "--explain", text(&context)]).fails(1);
    ran.says([
        "did not complete successfully: exit code: 42",
        "      6 | >>> RUN echo made > /tmp/made && \\\n",
        "      8 | >>>     echo last >&2 && exit 42\n",
        "      9 |     CMD [\"x\"]\n",
        "(line 6) ran: no earlier build ran this step",
    ]);
    let log = ran.stderr.lines().find_map(|line| line.split("all that it wrote is in ").nth(1));
    let log = fs_err::read_to_string(log.expect("a log is named")).expect("it can be read");
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["first", "last"]);
    // Of what succeeds nothing is left.
    place.context("context", "FROM busybox\nRUN echo fine\n");
    place.boatyard(["build", text(&context)]).ok();
    let logs = fs_err::read_dir(place.root().join("logs/steps")).expect("it is there");
    assert_eq!(logs.count(), 1);
}

#[test]
fn programs_are_told_the_same() {
    let place = place();
    let end = |arguments: &[&str]| -> serde_json::Value {
        let context = place.path("context");
        let build = place.boatyard(["build", "--progress=json", text(&context)]);
        let ran = build.args(arguments).fails(1);
        let is_end = |line: &&str| line.contains("\"end\"") && line.contains("\"failed\"");
        serde_json::from_str(ran.stderr.lines().find(is_end).expect("a step failed"))
            .expect("it is JSON")
    };
    let told = end(&[]);
    assert_eq!((&told["reason"], &told["exit_code"]), (&"exit-code".into(), &42.into()));
    assert_eq!(told["line"], 6);
    assert_eq!(told["command"][0], "/bin/sh");
    let mut lines: Vec<&str> =
        told["last_lines"].as_array().into_iter().flatten().filter_map(|it| it.as_str()).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["first", "last"]);
    assert!(std::path::Path::new(told["log"].as_str().expect("a log is named")).exists());
    place.context("context", "FROM busybox\nRUN kill -SEGV $$\n");
    assert_eq!(end(&[])["signal"], 11);
    place.context("context", "FROM busybox\nRUN sleep 1000\n");
    assert_eq!(end(&["--timeout", "100ms"])["reason"], "timeout");
}

#[test]
fn a_shell_opens_where_the_step_failed() {
    let place = place();
    let context = place.path("context");
    let command = "id -un; pwd; echo $WHO; cat /tmp/made; exit 7";
    let build = ["build", "--progress=quiet", "--debug-shell", command, text(&context)];
    let ran = place.boatyard(build).fails(1);
    assert_eq!(ran.text(), "app\n/work\nme\nmade");
    ran.says(["exit code: 42", "debug: the shell ended: exit code: 7"]);
    // What it was to show is gone with it.
    let left = fs_err::read_dir(place.root().join("active")).expect("it is there");
    for view in left {
        let view = view.expect("it can be read").path();
        assert_eq!(fs_err::read_dir(view).expect("it can be read").count(), 0);
    }
    let build = ["build", "--debug-on-error", text(&context)];
    place.boatyard(build).fails(1).says(["--debug-on-error needs a terminal", "exit code: 42"]);
}
