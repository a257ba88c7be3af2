use super::*;

#[test]
fn the_last_line_that_matches_decides() {
    let rows = [
        ("a", "a", true),
        ("a", "a/b/c", true),
        ("a", "b/a", false),
        ("/a/", "a/b", true),
        ("./a", "a", true),
        ("a/../b", "b", true),
        ("*.md\n!README.md", "x.md", true),
        ("*.md\n!README.md", "README.md", false),
        ("!README.md\n*.md", "README.md", true),
        ("dir\n!dir/keep", "dir/keep", false),
        ("dir\n!dir/keep", "dir/keep/x", false),
        ("dir\n!dir/keep", "dir/other", true),
        ("dir\n!dir/keep\ndir/keep/not", "dir/keep/not", true),
        ("*\n!src", "src/main.rs", false),
        ("*\n! src", "src/main.rs", false),
        ("**/*.log", "a/b/x.log", true),
        ("**/*.log", "x.log", true),
        ("node_modules", "a/node_modules", false),
        ("**/node_modules", "a/node_modules/b", true),
        ("# a\na", "a", true),
        ("#a", "#a", false),
        (" #a", "#a", true),
        ("\\#a", "#a", true),
        ("\u{feff}a", "a", true),
        ("  a  \r\n", "a", true),
        ("[a-c]", "b", true),
        ("\\*", "*", true),
        (".", ".", false),
        ("*", "", false),
        ("a*", "ab/c", true),
        ("foo**", "foobar/x", true),
    ];
    for (text, path, expected) in rows {
        let patterns = Patterns::parse(text).unwrap();
        assert_eq!(patterns.matches(path, false), expected, "{text:?} on {path}");
    }
}

#[test]
fn malformed_lines_are_named() {
    let error = |text| Patterns::parse(text).unwrap_err().to_string();
    assert_eq!(error("a\n!"), "line 2: `!` excludes nothing");
    assert_eq!(error("\n\n[a"), "line 3: invalid pattern `[a`");
    assert_eq!(error("a\\"), "line 1: invalid pattern `a\\`");
    assert!(Patterns::parse("").unwrap().is_empty());
}

#[test]
fn an_ignored_directory_is_entered_only_for_an_exception() {
    let rows = [
        ("a", "a", false),
        ("a", "b", true),
        ("a\n!a/b", "a", true),
        ("a\n!a/b", "a/x", false),
        ("a\n!a/b", "a/b", true),
        ("a\n!a/b/c", "a/b", true),
        ("a\n!b", "a", false),
        ("!a/b\na", "a", false),
        ("*\n!**/keep", "a", true),
        ("*\n!*/keep", "a", true),
        ("*\n!*/keep", "a/b", false),
        ("*\n!a/**", "b", false),
        ("*\n!a/**/x", "a/b/c", true),
        ("*\n![^z]/x", "a", true),
    ];
    for (text, dir, expected) in rows {
        assert_eq!(Patterns::parse(text).unwrap().may_descend(dir), expected, "{text:?} on {dir}");
    }
}

/// A walker that skips what it may skip finds what one that visits all finds.
#[test]
fn pruned_walks_miss_nothing() {
    let mut state: u64 = 7;
    let mut pick = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let parts = ["a", "b", "*", "**", "?", "a*", "[ab]", "[^a]"];
    let names = ["a", "b", "ab"];
    for _ in 0..400 {
        let mut text = String::new();
        for _ in 0..=pick(4) {
            if pick(2) == 0 {
                text.push('!');
            }
            let line: Vec<_> = (0..=pick(3)).map(|_| parts[pick(parts.len())]).collect();
            text.push_str(&line.join("/"));
            text.push('\n');
        }
        let patterns = Patterns::parse(&text).unwrap();
        let mut pending = vec![(String::new(), patterns.root(), true, 0)];
        while let Some((dir, matched, entered, depth)) = pending.pop() {
            for name in names {
                let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
                let ignored = patterns.matches(&path, false);
                assert_eq!(ignored, patterns.matches_in(&path, &matched), "{text:?} on {path}");
                assert!(entered || ignored, "{text:?}: {path} was never visited");
                let inner = patterns.enter(&path, &matched);
                let enters = entered && patterns.may_descend_in(&path, &inner);
                if depth < 3 {
                    pending.push((path, inner, enters, depth + 1));
                }
            }
        }
    }
}
