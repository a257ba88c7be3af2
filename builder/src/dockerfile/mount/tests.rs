use super::*;

fn kind(text: &str) -> MountKind {
    parse(text).unwrap().kind
}

#[test]
fn bind_is_the_default_and_read_only() {
    let bind = |from: Option<&str>, source: &str, writable| MountKind::Bind {
        from: from.map(str::to_owned),
        source: source.to_owned(),
        writable,
    };
    assert_eq!(kind("target=/a"), bind(None, "", false));
    assert_eq!(kind("type=bind,src=/x,dst=/a,rw"), bind(None, "/x", true));
    assert_eq!(kind("TYPE=Bind,from=base,destination=/a,ro=false"), bind(Some("base"), "", true));
    assert_eq!(parse("\"target=/a,b\"").unwrap().target, "/a,b");
}

#[test]
fn other_kinds_have_their_options() {
    let owner = Ownership { uid: Some(1), gid: Some(2), mode: Some(0o700) };
    assert_eq!(
        kind("type=cache,id=x,target=/c,sharing=locked,uid=1,gid=2,mode=0700,ro"),
        MountKind::Cache {
            id: Some("x".into()),
            sharing: Sharing::Locked,
            from: None,
            source: String::new(),
            read_only: true,
            owner,
        }
    );
    assert_eq!(
        kind("type=tmpfs,target=/t,size=1.5k"),
        MountKind::Tmpfs { size: 1536, read_only: false }
    );
    assert_eq!(
        kind("size=64MiB,type=tmpfs,target=/t"),
        MountKind::Tmpfs { size: 64 << 20, read_only: false }
    );
    let secret = |text: &str| match kind(text) {
        MountKind::Secret { id, env, file, required, .. } => (id, env, file, required),
        other => panic!("{other:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(secret("type=secret,id=s"), ("s".into(), None, some("/run/secrets/s"), false));
    assert_eq!(secret("type=secret,target=/a/s,required"), ("s".into(), None, some("/a/s"), true));
    assert_eq!(secret("type=secret,id=s,env=TOKEN"), ("s".into(), some("TOKEN"), None, false));
    assert_eq!(secret("required=true,type=secret,id=s,env="), ("s".into(), some("s"), None, true));
    let ssh = MountKind::Ssh { id: "default".into(), required: true, owner: Ownership::default() };
    assert_eq!(kind("type=ssh,required=1"), ssh);
}

#[test]
fn mistakes_are_named() {
    let rows = [
        ("", "it is empty"),
        ("a\"b", "a quote stands in a field that is not quoted"),
        ("\"a", "a quoted field does not end properly"),
        ("tpye=bind", "unknown option `tpye`"),
        ("type=bnid", "unknown mount type `bnid`"),
        ("target", "option `target` needs a value"),
        ("ro=maybe", "invalid value `maybe` for `ro`"),
        ("type=cache,sharing=lock", "unknown sharing mode `lock`"),
        ("type=cache,mode=9", "invalid value `9` for `mode`"),
        ("type=cache,uid=-1", "invalid value `-1` for `uid`"),
        ("type=tmpfs,size=big", "invalid value `big` for `size`"),
        ("type=tmpfs,size=1x", "invalid value `1x` for `size`"),
        ("mode=755,target=/a", "`mode` is no option of a bind mount"),
        ("required,target=/a", "`required` is no option of a bind mount"),
        ("sharing=shared,target=/a", "`sharing` is no option of a bind mount"),
        ("type=secret", "a secret mount needs `id`, `source` or `target`"),
        ("type=secret,id=a,src=b", "a secret mount takes `id` or `source`, not both"),
        ("type=secret,from=x,id=a", "`from` is no option of a secret mount"),
        ("type=ssh,source=x", "`source` is no option of a ssh mount"),
        ("from=$x,target=/a", "`from` cannot use variables"),
        ("target=/a,ro,rw", "it is to be read-only, and to be writable"),
        (
            "type=cache,target=/a,source=x",
            "`source` of a cache mount needs `from`: what the cache begins with",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
    }
    assert_eq!(parse("tagret=/a").unwrap_err().hint().unwrap(), "did you mean `target`?");
}

#[test]
fn the_source_is_known_before_anything_is_expanded() {
    assert_eq!(from_of("type=$kind,FROM=build,target=$t").as_deref(), Some("build"));
    assert_eq!(from_of("\"from=a\",target=/x,from=b").as_deref(), Some("b"));
    assert_eq!(from_of("type=cache,target=/x,from="), None);
    assert_eq!(
        parse("target=/a,ro,readonly=true,rw=false").map(|mount| mount.target),
        Ok("/a".into())
    );
}

#[test]
fn values_are_expanded_one_by_one() {
    let mount =
        parse_with(
            "type=bind,source=$x,target=/a",
            |value| Ok(value.replace("$x", "a,type=cache")),
        );
    let expected = MountKind::Bind { from: None, source: "a,type=cache".into(), writable: false };
    assert_eq!(mount.unwrap().kind, expected);
    assert_eq!(check("type=$kind,target=/a"), Ok(()));
    assert!(check("tpye=$kind").is_err());
}
