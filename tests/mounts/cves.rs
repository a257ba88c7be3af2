//! What went wrong with BuildKit's mounts, tried on ours: each test has the number in its name.
//!
//! The executor's own part of it is in the builder's tests.

use std::path::Path;

use crate::support::place::text;
use crate::{build, place};

/// Returns the names of all that lies below a directory.
fn below(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        names.push(text(entry.path().as_path()).to_owned());
        if entry.file_type().unwrap().is_dir() {
            names.extend(below(&entry.path()));
        }
    }
    names.sort();
    names
}

/// There, a step swapped the directory of a cache that `source` named, while another was mounting
/// it. Here `source` names no part of a cache; what is left to swap is the mount's place, and the
/// directory itself where it is moved into the tree.
#[test]
fn cve_2024_23651_a_cache_that_a_step_replaces_by_a_link_shows_nothing_of_the_host() {
    let place = place();
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,target=/c,id=i,source=sub true\n";
    let context = place.context("source", dockerfile);
    build(&place, &context).fails(1).says(["`source` of a cache mount needs `from`"]);

    place.write("host/secret", "of the host");
    let host = place.path("host");
    let before = below(&host);
    let dockerfile = format!(
        "FROM busybox\n\
         RUN --mount=type=cache,target=/c,id=i (rm -rf /c; ln -s {host} /c; ln -s {host} /c/in; true) 2>&1\n\
         RUN --mount=type=cache,target=/c,id=i,readonly cat /c/secret /c/in/secret && echo it-is-seen; true\n\
         RUN --mount=type=cache,target=/c,id=i touch /c/evil /c/in/evil; true\n",
        host = text(&host),
    );
    let context = place.context("swap", &dockerfile);
    for isolation in ["full", "userns", "chroot"] {
        let run = build(&place, &context).args(["--no-cache", "--isolation", isolation]);
        let said = run.args(["--progress=plain"]).run();
        assert!(!said.stderr.contains("of the host\n"), "{isolation}: {said}");
        assert_eq!(below(&host), before, "{isolation}");
    }
}

/// There, the place of a mount was removed after the step, through a link that the step had made.
#[test]
fn cve_2024_23652_the_place_of_a_mount_is_not_removed_through_a_link() {
    let place = place();
    fs_err::create_dir_all(place.path("host/b/c")).unwrap();
    place.write("host/file", "");
    let host = place.path("host");
    let before = below(&host);
    let swap = format!(
        "(mv /a /x || mv /a/b /x || rm -rf /a/b || true; ln -s {h} /a; ln -s {h}/b /a/b; true) 2>&1",
        h = text(&host)
    );
    for mount in [
        "type=tmpfs,target=/a/b/c",
        "type=cache,target=/a/b/c",
        "type=bind,from=busybox,target=/a/b/c",
        "type=bind,from=busybox,source=/etc/passwd,target=/a/file",
    ] {
        let dockerfile = format!("FROM busybox\nRUN --mount={mount} {swap}\n");
        let context = place.context("swap", &dockerfile);
        for isolation in ["full", "userns", "chroot"] {
            // Whether that is an error matters less than what is left.
            build(&place, &context).args(["--no-cache", "--isolation", isolation]).run();
            assert_eq!(below(&host), before, "{mount} {isolation}");
        }
    }
}

/// There, a build that asked in another way had might that nobody gave it.
#[test]
fn cve_2024_23653_might_is_not_had_without_leave() {
    let place = place();
    for asked in ["RUN --security=insecure", "RUN --mount=type=tmpfs,target=/t --security=insecure"]
    {
        let context = place.context("app", &format!("FROM busybox\n{asked} true\n"));
        for other in ["network.host", "network.host,network.host"] {
            let run = build(&place, &context).args(["--allow", other]).run();
            assert_ne!(run.code, Some(0), "{run}");
        }
        build(&place, &context).fails(1).says(["needs permission", "--allow security.insecure"]);
    }
}
