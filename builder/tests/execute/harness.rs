//! The part of libtest's command line that cargo and nextest use.

use std::panic::catch_unwind;
use std::process::ExitCode;

use crate::world::Way;

/// A test: its name, and what fails by panicking.
pub(crate) type Test = (&'static str, fn());

/// Makes a [`Test`] of each function named.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::harness::Test] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name as fn())),*];
    };
}
pub(crate) use tests;

/// A test, and the way in which steps run in it.
pub(crate) struct Case {
    name: String,
    way: Way,
    test: fn(),
}

impl Case {
    pub(crate) fn new((name, test): &Test, way: Way) -> Case {
        let name = match way {
            Way::Namespaces => (*name).to_owned(),
            Way::Chroot => format!("without_namespaces::{name}"),
        };
        Case { name, way, test: *test }
    }

    fn run(&self) -> bool {
        self.way.choose();
        catch_unwind(self.test).is_ok()
    }
}

/// What the command line selects.
#[derive(Default)]
struct Selection {
    filters: Vec<String>,
    skipped: Vec<String>,
    flags: Vec<String>,
}

impl Selection {
    fn read(mut arguments: impl Iterator<Item = String>) -> Selection {
        let mut selection = Selection::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--skip" => selection.skipped.extend(arguments.next()),
                "--format" | "--color" | "--test-threads" => drop(arguments.next()),
                flag if flag.starts_with('-') => selection.flags.push(argument),
                _ => selection.filters.push(argument),
            }
        }
        selection
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    fn takes(&self, name: &str) -> bool {
        let exact = self.has("--exact");
        let matches = |filter: &String| if exact { filter == name } else { name.contains(filter) };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skipped.iter().any(matches)
    }
}

/// Lists or runs the tests that the command line selects. Without root, all are ignored.
pub(crate) fn main(tests: &[Case]) -> ExitCode {
    let selection = Selection::read(std::env::args().skip(1));
    let ignored = !rustix::process::geteuid().is_root();
    let tests: Vec<&Case> = tests
        .iter()
        .filter(|case| selection.takes(&case.name) && (ignored || !selection.has("--ignored")))
        .collect();
    if selection.has("--list") {
        for case in tests {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let run_anyway = selection.has("--include-ignored") || selection.has("--ignored");
    let mut failed = 0;
    for case in &tests {
        let result = match ignored && !run_anyway {
            true => "ignored, needs root",
            false if case.run() => "ok",
            false => {
                failed += 1;
                "FAILED"
            }
        };
        println!("test {} ... {result}", case.name);
    }
    println!("\n{} tests, {failed} failed", tests.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
