use super::*;

#[test]
fn patterns_of_copy_are_gos() {
    let rows = [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*", "a/b", false),
        ("*.go", "main.go", true),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("[^a-c]x", "dx", true),
        ("[!a]x", "!x", true),
        ("[a\\-z]", "-", true),
        ("[a\\-z]", "m", false),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("a.c", "abc", false),
        ("^a$", "^a$", true),
        ("**", "a/b", false),
        ("**", "ab", true),
        ("[z-a]", "b", false),
        ("ö?", "öä", true),
    ];
    for (pattern, path, expected) in rows {
        let matched = Pattern::parse(pattern).unwrap().matches(path);
        assert_eq!(matched, expected, "{pattern} on {path}");
    }
    for pattern in ["[", "[]", "[a", "[]a]", "[-a]", "[a-]", "a\\", "[^]", "[\\"] {
        assert!(Pattern::parse(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn double_stars_cross_directories() {
    let rows = [
        ("**", "a/b", true),
        ("**/b", "b", true),
        ("**/b", "x/y/b", true),
        ("**/b", "xb", false),
        ("**b", "x/ab", true),
        ("a/**", "a/b/c", true),
        ("a/**", "a", false),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("**/*.go", "x/y.go", true),
        ("**/*.go", "y.go", true),
        ("**/a/**", "x/a/y", true),
        ("**/a/**", "xa/y", false),
        ("a**/*.txt", "a/x.txt", true),
    ];
    for (pattern, path, expected) in rows {
        let matched = Pattern::parse_double_star(pattern).unwrap().matches(path);
        assert_eq!(matched, expected, "{pattern} on {path}");
    }
}

#[test]
fn paths_are_cleaned_as_go_does() {
    let rows = [
        ("", "."),
        ("a//b/", "a/b"),
        ("./a/../b", "b"),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("/../a", "/a"),
        ("/", "/"),
        ("..", ".."),
    ];
    for (path, expected) in rows {
        assert_eq!(clean(path), expected, "{path}");
    }
    assert!(has_wildcards("a*") && has_wildcards("[a]") && !has_wildcards("a\\*b"));
}
