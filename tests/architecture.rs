//! The house stands as ARCHITECTURE.md draws it: arrows point one way, `unsafe` lives in two small rooms,
//! libraries neither print nor read the environment, and only one of them dials out.
//!
//! These are checks of text and of `cargo metadata`: they run nothing, and they say which line is
//! wrong.

#![expect(clippy::unwrap_used, reason = "a check that cannot be made has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// `src -> builder | registry | cache-proxy -> front | upstream | access -> content -> oci`
///
/// A crate may use any crate of a column to its right, none to its left, and none of its own.
const COLUMNS: [&[&str]; 5] = [
    &["boatyard"],
    &["boatyard-builder", "boatyard-registry", "boatyard-cache-proxy"],
    &["boatyard-front", "boatyard-upstream", "boatyard-access"],
    &["boatyard-content"],
    &["boatyard-oci"],
];

/// The directories of the libraries.
const LIBRARIES: [&str; 8] =
    ["oci", "content", "access", "front", "upstream", "builder", "registry", "cache-proxy"];

/// The libraries that have one module with `unsafe`, and where it is.
const UNSAFE_ROOMS: [(&str, &str); 2] =
    [("builder", "builder/src/execute/sys"), ("content", "content/src/local/sys.rs")];

#[test]
fn arrows_point_one_way() {
    let members = members();
    let known: BTreeSet<&str> = COLUMNS.iter().copied().flatten().copied().collect();
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, known, "each crate of the workspace has a place in the line");
    let mut wrong = Vec::new();
    for member in &members {
        for dependency in &member.dependencies {
            let Some(to) = column(&dependency.name) else { continue };
            if Some(to) <= column(&member.name) {
                wrong.push(format!("{} must not use {}", member.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_upstream_has_an_http_client() {
    let is_client = |dependency: &Dependency| dependency.name == "reqwest" && !dependency.is_dev;
    let clients: Vec<String> = members()
        .into_iter()
        .filter(|member| member.dependencies.iter().any(is_client))
        .map(|member| member.name)
        .collect();
    assert_eq!(clients, ["boatyard-upstream"]);
    let dials = ["TcpStream::connect", "UnixStream::connect", "lookup_host", "to_socket_addrs"];
    // The relay asks the host's name servers for build steps: a named exception.
    let relay = Path::new("builder/src/execute/network/relay.rs");
    // So does the one that passes on what steps ask of an SSH agent.
    let agents = Path::new("builder/src/ssh/relay.rs");
    let elsewhere = |path: &Path| !path.starts_with("upstream") && path != relay && path != agents;
    assert_absent(&dials, elsewhere, "only `upstream` opens connections");
}

#[test]
fn unsafe_code_lives_in_two_modules() {
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];
    let elsewhere = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        !UNSAFE_ROOMS.iter().any(|(_, room)| path.starts_with(room))
    };
    assert_absent(&forms, elsewhere, "unsafe code belongs in a module `sys`");
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let mut roots: Vec<(String, PathBuf)> =
        LIBRARIES.iter().map(|name| ((*name).to_owned(), lib(name))).collect();
    roots.push(("src".to_owned(), workspace().join("src/main.rs")));
    for (name, path) in roots {
        let text = fs_err::read_to_string(&path).unwrap();
        let has_room = UNSAFE_ROOMS.iter().any(|(library, _)| *library == name);
        // `forbid` cannot be lifted for a module; `deny` can, once, where everybody sees it.
        let wanted = if has_room { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        assert!(text.contains(wanted), "{} says {wanted}", path.display());
        let lifted = sources(&workspace().join(&name))
            .iter()
            .filter(|path| {
                let text = fs_err::read_to_string(path).unwrap();
                text.contains("(unsafe_code, reason") || text.contains("allow(unsafe_code)")
            })
            .count();
        assert_eq!(lifted, usize::from(has_room), "{name} lifts it in one place, or in none");
    }
}

#[test]
fn libraries_do_not_print_exit_or_read_the_environment() {
    let deeds = [
        "println!",
        "eprintln!",
        " print!(",
        " eprint!(",
        "dbg!(",
        "env::var(",
        "env::var_os(",
        "env::vars",
        "env::home_dir",
        "process::exit(",
    ];
    assert_absent(&deeds, |_| true, "that is for `src` to do");
}

/// A member of the workspace.
struct Member {
    name: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    is_dev: bool,
}

fn members() -> Vec<Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let members = packages.map(|package| Member {
        name: text(&package["name"]),
        dependencies: package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|dependency| Dependency {
                name: text(&dependency["name"]),
                is_dev: dependency["kind"] == "dev",
            })
            .collect(),
    });
    members.collect()
}

/// Returns the place of a crate in the line, counted from the left.
fn column(name: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.contains(&name))
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn lib(library: &str) -> PathBuf {
    workspace().join(library).join("src/lib.rs")
}

/// Asserts that none of `forms` is in the code of a library, where `applies` says that it counts.
fn assert_absent(forms: &[&str], applies: impl Fn(&Path) -> bool, why: &str) {
    let mut found = Vec::new();
    for library in LIBRARIES {
        for path in sources(&workspace().join(library).join("src")) {
            let relative = path.strip_prefix(workspace()).unwrap();
            if !applies(relative) || is_for_tests(relative) {
                continue;
            }
            let text = fs_err::read_to_string(&path).unwrap();
            for (number, line) in code(&text) {
                if forms.iter().any(|form| line.contains(form)) {
                    found.push(format!("{}:{number}: {}", relative.display(), line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

/// Returns the lines that are neither comments nor in the module of tests at a file's end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|line| !line.starts_with("mod tests {"))
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at + 1, line))
}

fn is_for_tests(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// Returns the Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
