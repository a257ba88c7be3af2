use super::*;

const VARS: [(&str, &str); 9] = [
    ("a", "apple"),
    ("b", "bread"),
    ("empty", ""),
    ("path", "/usr/local/lib/libc.tar.gz"),
    ("star", "*"),
    ("spaced", "  one  two "),
    ("größe", "xl"),
    ("dollar", "$a"),
    ("lines", "one\ntwo"),
];

fn expand(word: &str) -> Result<String, String> {
    let expanded = Expander::new('\\').expand(word, &VARS);
    expanded.map(|it| it.text).map_err(|error| error.to_string())
}

/// Checks rows of `word`, `result`; a result that begins with `!` is an error's message.
fn check(rows: &[(&str, &str)], expand: impl Fn(&str) -> Result<String, String>) {
    for (word, expected) in rows {
        let result = expand(word).unwrap_or_else(|error| format!("!{error}"));
        assert_eq!(result, *expected, "{word}");
    }
}

#[test]
fn plain_variables() {
    let rows = [
        ("$a", "apple"),
        ("${a}", "apple"),
        ("x$a-$b.", "xapple-bread."),
        ("$ax", ""),
        ("${a}x", "applex"),
        ("$none.", "."),
        ("$größe", "xl"),
        ("$1x$12$0", "x"),
        ("$@$*$#$?$-$$$!", ""),
        ("$@@", "@"),
        ("$", "$"),
        ("$.", "$."),
        ("a$ b", "a$ b"),
        ("$dollar", "$a"),
        ("${}", "!bad substitution: `${` needs a variable's name"),
        ("${{a}}", "!bad substitution: `${` needs a variable's name"),
        ("${:-x}", "!bad substitution: `${` needs a variable's name"),
        ("${a", "!missing `}` after `${`"),
        ("${", "!missing `}` after `${`"),
        ("${a}}", "apple}"),
        ("${.}", "!unsupported modifier `.` in `${....}`"),
        ("${a=x}", "!unsupported modifier `=` in `${a=...}`"),
        ("${a:=x}", "!unsupported modifier `:=` in `${a:=...}`"),
        ("${a:x}", "!unsupported modifier `:x` in `${a:x...}`"),
    ];
    check(&rows, expand);
}

#[test]
fn defaults_alternatives_and_demands() {
    let rows = [
        ("${a:-x}", "apple"),
        ("${a-x}", "apple"),
        ("${none:-x}", "x"),
        ("${none-x}", "x"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${a:+x}", "x"),
        ("${a+x}", "x"),
        ("${none:+x}", ""),
        ("${none+x}", ""),
        ("${empty:+x}", ""),
        ("${empty+x}", "x"),
        ("${none:-$b}", "bread"),
        ("${none:-${nope:-${b}s}}", "breads"),
        ("${none:-a b}", "a b"),
        ("${none:-'$a'}", "$a"),
        ("${none:-\\}}", "}"),
        ("${none:-}", ""),
        ("${1:-x}", "x"),
        ("${@:-x}", "x"),
        ("${a:?m}", "apple"),
        ("${empty?m}", ""),
        ("${none:?say $b}", "!none: say bread"),
        ("${none?}", "!none: is not allowed to be unset"),
        ("${empty:?}", "!empty: is not allowed to be empty"),
        ("${none:-x", "!missing `}` after `${`"),
        ("${none:-${a}", "!missing `}` after `${`"),
    ];
    check(&rows, expand);
}

#[test]
fn prefixes_suffixes_and_replacements() {
    let rows = [
        ("${path#*/}", "usr/local/lib/libc.tar.gz"),
        ("${path##*/}", "libc.tar.gz"),
        ("${path%.*}", "/usr/local/lib/libc.tar"),
        ("${path%%.*}", "/usr/local/lib/libc"),
        ("${path%/*}", "/usr/local/lib"),
        ("${a#?}", "pple"),
        ("${a#x}", "apple"),
        ("${a#$none}", "apple"),
        ("${a%${b}}", "apple"),
        ("${star#\\*}", ""),
        ("${a#\\*}", "apple"),
        ("${a#[a]}", "apple"),
        ("${none#x}", ""),
        ("${lines#*o}", "ne\ntwo"),
        ("${lines##*o}", "ne\ntwo"),
        ("${a/p/b}", "abple"),
        ("${a//p/b}", "abble"),
        ("${path//\\//_}", "_usr_local_lib_libc.tar.gz"),
        ("${a/l*/X}", "appX"),
        ("${a/p/}", "aple"),
        ("${a//p}", "!missing second `/` in `${a/...}`"),
        ("${a/p/b", "!missing `}` after `${`"),
        ("${a:#x}", "!unsupported modifier `:#` in `${a:#...}`"),
        ("${a#\\x}", "!invalid pattern `\\x`: `\\` may precede `*`, `?`, `\\`, `/` or `}`"),
        ("${größe/x/$a}", "applel"),
        ("${a/a/$star}", "*pple"),
        ("${dollar//a/$dollar}", "$$a"),
    ];
    check(&rows, expand);
}

#[test]
fn quotes_and_escapes() {
    let rows = [
        ("'$a'", "$a"),
        ("\"$a\"", "apple"),
        ("a'b'c", "abc"),
        ("'a\\'", "a\\"),
        ("\"a\\b\"", "a\\b"),
        ("\"\\$a \\\" \\\\\"", "$a \" \\"),
        ("\\$a", "$a"),
        ("\\a\\\\", "a\\"),
        ("a\\", "a"),
        ("'\"'\"'\"", "\"'"),
        ("\"${none:-\"x y\"}\"", "x y"),
        ("it's", "!missing closing '"),
        ("\"x", "!missing closing \""),
        ("\"x\\\"", "!missing closing \""),
        ("a<b", "a<b"),
        ("<<  a", "<<  a"),
    ];
    check(&rows, expand);
    let backtick = [("`$a", "$a"), ("c:\\$a", "c:\\apple"), ("\"`$a`x\"", "$a`x"), ("a`", "a")];
    check(&backtick, |word| {
        Expander::new('`').expand(word, &VARS).map(|it| it.text).map_err(|e| e.to_string())
    });
}

#[test]
fn heredoc_bodies_keep_their_quotes() {
    let rows = [
        ("say '$a' \"$b\"\n", "say 'apple' \"bread\"\n"),
        ("it's $a", "it's apple"),
        ("\\$a \\\\", "$a \\"),
    ];
    check(&rows, |body| {
        let expanded = Expander::new('`').expand_raw(body, &VARS);
        expanded.map(|it| it.text).map_err(|e| e.to_string())
    });
}

#[test]
fn words_are_split_at_unquoted_blanks_also_those_of_values() {
    let rows: [(&str, &[&str]); 12] = [
        ("a b", &["a", "b"]),
        ("x${spaced}y", &["x", "one", "two", "y"]),
        ("x\"${spaced}\"y", &["x  one  two y"]),
        ("\"a b\" c", &["a b", "c"]),
        ("a\\ b", &["a b"]),
        ("'' b", &["b"]),
        ("$none", &[]),
        ("  ", &[]),
        ("x${none:-p q}", &["xp", "q"]),
        ("80${none:-81}", &["8081"]),
        ("<< a", &["<< a"]),
        ("$empty$a", &["apple"]),
    ];
    for (word, expected) in rows {
        assert_eq!(
            Expander::new('\\').expand_words(word, &VARS).unwrap().words,
            expected,
            "{word}"
        );
    }
}

#[test]
fn used_and_unset_names_are_told() {
    let result = Expander::new('\\').expand("$a ${x:-$y} ${b:+1} $a", &VARS).unwrap();
    assert_eq!(result.used.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(result.unset.into_iter().collect::<Vec<_>>(), ["x", "y"]);
}

#[test]
fn hostile_words_end_in_errors() {
    let deep = "${a:-".repeat(100_000);
    assert_eq!(Expander::new('\\').expand(&deep, &()), Err(ExpansionError::TooDeep));
    let large = [("a", "x".repeat(1 << 20))];
    let word = "$a".repeat(100);
    assert_eq!(Expander::new('\\').expand(&word, &large), Err(ExpansionError::TooLarge));
    let stars = format!("${{a##{}b}}", "*x".repeat(5_000));
    let _ = Expander::new('\\').expand(&stars, &[("a", "x".repeat(5_000))]);
    for word in ["\0", "${\0}", "$\u{feff}", "'", "\\", "${a/", "${a//", "${a#", "${a:"] {
        let _ = Expander::new('\\').expand(word, &VARS);
        let _ = Expander::new('\\').expand_words(word, &VARS);
    }
}
