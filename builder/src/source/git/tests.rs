use super::*;

fn parsed(text: &str) -> GitAddress {
    GitAddress::parse(text).unwrap().unwrap_or_else(|| panic!("{text} is an address"))
}

/// What BuildKit's own table has.
#[test]
fn what_is_a_repository() {
    let none = [
        "https://git.example/",
        "https://git.example/foo",
        "https://git.example/foo.git/",
        "https://git.example/foo.git.bar",
        "github.com/team/app",
        "custom.xyz/team/app.git",
        "https://git.example/docker.git:#branch",
        "./.git",
        ".git",
        "file:///srv/app.git",
        "ext::sh -c x",
        "app.tar",
        "a@b",
    ];
    for text in none {
        assert_eq!(GitAddress::parse(text), Ok(None), "{text}");
    }
    let table = [
        ("https://git.example/foo.git", None, None),
        ("https://git.example/foo.git#deadbeef", Some("deadbeef"), None),
        ("https://git.example/foo.git#release/1.2", Some("release/1.2"), None),
        ("git://git.example/foo", None, None),
        ("https://foo:bar@git.example/team/app.git", None, None),
        ("git@git.example:team/app", None, None),
        ("ssh://git@git.example/team/app", None, None),
        ("https://git.example/bar.git#baz/qux:quux/quuz", Some("baz/qux"), Some("quux/quuz")),
        ("https://git.example/docker.git#:myfolder", None, Some("myfolder")),
        ("https://git.example/d.git?ref=v1.0.0&subdir=/subdir", Some("v1.0.0"), Some("subdir")),
        ("https://git.example/d.git?branch=main", Some("refs/heads/main"), None),
        ("https://git.example/d.git?tag=v%31", Some("refs/tags/v1"), None),
        ("https://git.example/d.git##ref=v1,subdir=/a/b/", Some("v1"), Some("a/b")),
    ];
    for (text, reference, subdirectory) in table {
        let address = parsed(text);
        assert_eq!(address.reference(), reference, "{text}");
        assert_eq!(address.subdirectory(), subdirectory, "{text}");
    }
}

#[test]
fn keys_of_a_query() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let address = parsed(&format!("https://git.example/d.git?checksum={commit}&keep-git-dir"));
    assert_eq!(address.reference(), Some(commit));
    assert_eq!(address.checksum(), Some(commit));
    assert_eq!(address.keep_git_dir(), Some(true));
    assert!(address.submodules());
    assert!(!parsed("https://git.example/d.git?submodules=false").submodules());
    for bad in [
        "?ref=a#b",
        "?tag=a&branch=b",
        "?ref=",
        "?ref=a&ref=a",
        "?what=1",
        "?keep-git-dir=perhaps",
        "?checksum=xyz",
        "?ref=%zz",
    ] {
        let text = format!("https://git.example/d.git{bad}");
        assert!(GitAddress::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn what_git_would_misunderstand_is_refused() {
    for bad in [
        "https://git.example/d.git#--upload-pack=touch x",
        "https://git.example/d.git#-x",
        "https://git.example/d.git?ref=--help",
        "ssh://-oProxyCommand=x/y",
        "git@-oProxyCommand:y",
        "git://-x/y",
        "https://git.example/d.git#main:../../etc",
        "https://git.example/d.git#a..b",
        "https://git.example/d.git#a\nb",
    ] {
        assert!(GitAddress::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn contexts_may_be_of_github() {
    let address = GitAddress::parse_context("github.com/team/app#main:x").unwrap().unwrap();
    assert_eq!(address.remote(), "https://github.com/team/app.git");
    assert_eq!(address.to_string(), "https://github.com/team/app.git#main:x");
    assert!(address.is_of_user());
    let text = "git@git.example:team/app";
    assert!(GitAddress::parse_context(text).unwrap().unwrap().is_of_user());
    assert!(!parsed(text).is_of_user());
}

#[test]
fn passwords_are_not_shown() {
    let shown = parsed("https://foo:bar@git.example/team/app.git#x").to_string();
    assert_eq!(shown, "https://git.example/team/app.git#x");
    assert_eq!(parsed("git@git.example:team/app").to_string(), "git@git.example:team/app");
}
