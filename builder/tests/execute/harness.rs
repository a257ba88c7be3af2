//! The part of libtest's command line that cargo and nextest use.

use std::panic::catch_unwind;
use std::process::ExitCode;

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

/// Options whose value is the next argument.
const WITH_VALUE: [&str; 4] = ["--format", "--color", "--test-threads", "--skip"];

fn filters(arguments: &[String]) -> Vec<&str> {
    let mut filters = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            filters.push(argument.as_str());
        }
    }
    filters
}

/// Lists or runs the tests that the command line selects. Without root, all are ignored.
pub(crate) fn main(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let filters = filters(&arguments);
    let selected = |name: &str| match (filters.is_empty(), has("--exact")) {
        (true, _) => true,
        (_, true) => filters.contains(&name),
        (_, false) => filters.iter().any(|filter| name.contains(*filter)),
    };
    let ignored = !rustix::process::geteuid().is_root();
    let tests: Vec<&Test> = tests.iter().filter(|(name, _)| selected(name)).collect();
    if has("--list") {
        for (name, _) in tests.iter().filter(|_| ignored || !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, test) in &tests {
        let result = match ignored && !has("--include-ignored") {
            true => "ignored, needs root",
            false if catch_unwind(test).is_ok() => "ok",
            false => {
                failed += 1;
                "FAILED"
            }
        };
        println!("test {name} ... {result}");
    }
    println!("\n{} tests, {failed} failed", tests.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
