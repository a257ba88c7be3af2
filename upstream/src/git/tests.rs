use super::*;

fn repositories(search: &[&str], cache: &Path, offline: bool) -> Repositories {
    let search = search.iter().map(PathBuf::from).collect();
    let (variables, login) = (Vec::new(), Login::default());
    let program = GitProgram { search, home: None, ssh_agent: None, variables, login };
    Repositories::new(cache, program, offline)
}

#[test]
fn a_whole_commit_asks_nobody() {
    let cache = tempfile::tempdir().unwrap();
    // Without a program nobody can be asked.
    let repositories = repositories(&[], cache.path(), false);
    let commit = "0123456789ABCDEF0123456789abcdef01234567";
    let found = repositories.resolve("https://git.example/a.git", Some(commit)).unwrap();
    assert_eq!(found.commit, commit.to_lowercase());
    let error = repositories.resolve("https://git.example/a.git", Some("main")).unwrap_err();
    assert!(error.is_missing_program(), "{error}");
    assert!(error.to_string().contains("install it"), "{error}");
}

#[test]
fn offline_nobody_is_asked() {
    let cache = tempfile::tempdir().unwrap();
    let repositories = repositories(&["/usr/bin"], cache.path(), true);
    let error = repositories.resolve("https://u:p@git.example/a.git", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`HEAD` of https://git.example/a.git is not here, and nobody may be asked for it"
    );
}

#[test]
fn without_a_key_nothing_is_asked_for_by_ssh() {
    let cache = tempfile::tempdir().unwrap();
    let login = Login { ssh: Ssh::None, header: None };
    let repositories = repositories(&[], cache.path(), false).with_login(login);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for remote in ["git@git.example:app", "ssh://git.example/app"] {
        let error = repositories.resolve(remote, Some(commit)).unwrap_err().to_string();
        assert!(error.contains("--ssh default lends"), "{error}");
    }
}
