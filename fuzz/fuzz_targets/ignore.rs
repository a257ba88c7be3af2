//! Ignore files and patterns: the first line is a path, the rest the file.
#![no_main]

use boatyard_builder::context::glob::{Pattern, clean};
use boatyard_builder::context::ignore::Patterns;

libfuzzer_sys::fuzz_target!(|data: &str| {
    let (path, file) = data.split_once('\n').unwrap_or((data, ""));
    let path = clean(path);
    assert_eq!(clean(&path), path, "what is clean stays as it is");
    for pattern in file.lines() {
        let _ = Pattern::parse(pattern).map(|pattern| pattern.matches(&path));
        let _ = Pattern::parse_double_star(pattern).map(|pattern| pattern.matches(&path));
    }
    let Ok(patterns) = Patterns::parse(file) else { return };
    let relative = path.trim_start_matches('/');
    // What is found by walking is what is found by asking.
    let mut state = patterns.root();
    for (at, _) in relative.match_indices('/') {
        state = patterns.enter(&relative[..at], &state);
    }
    assert_eq!(patterns.matches(relative, false), patterns.matches_in(relative, &state));
    if let Some((directory, _)) = relative.rsplit_once('/')
        && !patterns.matches(relative, false)
    {
        assert!(patterns.may_descend(directory), "{directory} holds {relative}");
    }
});
