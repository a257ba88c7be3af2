//! The whole table of rights: every endpoint with every verb, for every kind of caller.
//!
//! Each row is a thing that one can ask for; each column is somebody. The letters of a row are in
//! the order of [`CALLERS`], and a row with a letter too few does not compile.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_access::{
    Audit, Authority, Cost, Groups, Name, PasswordHash, Policy, Right, Rule, Rules, Scope, Token,
    Tokens, UsersFile,
};
use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_oci::{Digest, MediaType};
use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::support::{Answer, Served, image};
use crate::{Limits, Mirrors, Registry};

/// Everybody there is: nobody; a user without rights there; one who may pull; one who may push;
/// one who may do all; then tokens of that last one: whole, expired, revoked, for another
/// repository, for pulling alone; a bearer token of theirs for this repository, one for another
/// repository, and a forged one; and a wrong password.
const CALLERS: [&str; 14] = [
    "anonymous",
    "other",
    "reader",
    "writer",
    "owner",
    "token",
    "expired",
    "revoked",
    "elsewhere",
    "pull-only",
    "bearer",
    "bearer-elsewhere",
    "forged",
    "wrong-password",
];

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Ping,
    Catalog,
    Tags,
    Referrers,
    GetManifest,
    HeadManifest,
    PutNew,
    PutOver,
    PutParameter,
    DeleteTag,
    DeleteManifest,
    GetBlob,
    HeadBlob,
    RangeBlob,
    DeleteBlob,
    Begin,
    AtOnce,
    MountHere,
    UploadStatus,
    UploadPatch,
    UploadPut,
    UploadCancel,
}

/// `+` it is done; `?` who are you (401); `-` there is no such thing (404); `!` you may not (403).
/// `o` is for referrers and mounts: an answer that says nothing (200 and empty; 202).
#[rustfmt::skip]
const TABLE: [(Ask, [char; 14]); 22] = [
    //                       anon other read write own  tok  exp  rev  else pull bear b-el forg wrong
    (Ask::Ping,             ['?', '+', '+', '+', '+', '+', '?', '?', '+', '+', '+', '+', '?', '?']),
    (Ask::Catalog,          ['?', '+', '+', '+', '+', '+', '?', '?', '+', '+', '?', '?', '?', '?']),
    (Ask::Tags,             ['?', '-', '+', '+', '+', '+', '?', '?', '-', '+', '+', '?', '?', '?']),
    (Ask::Referrers,        ['?', 'o', '+', '+', '+', '+', '?', '?', 'o', '+', '+', '?', '?', '?']),
    (Ask::GetManifest,      ['?', '-', '+', '+', '+', '+', '?', '?', '-', '+', '+', '?', '?', '?']),
    (Ask::HeadManifest,     ['?', '-', '+', '+', '+', '+', '?', '?', '-', '+', '+', '?', '?', '?']),
    (Ask::PutNew,           ['?', '!', '!', '+', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::PutOver,          ['?', '!', '!', '!', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::PutParameter,     ['?', '!', '!', '!', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::DeleteTag,        ['?', '!', '!', '!', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::DeleteManifest,   ['?', '!', '!', '!', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::GetBlob,          ['?', '-', '+', '+', '+', '+', '?', '?', '-', '+', '+', '?', '?', '?']),
    (Ask::HeadBlob,         ['?', '-', '+', '+', '+', '+', '?', '?', '-', '+', '+', '?', '?', '?']),
    (Ask::RangeBlob,        ['?', '-', '+', '+', '+', '+', '?', '?', '-', '+', '+', '?', '?', '?']),
    (Ask::DeleteBlob,       ['?', '!', '!', '!', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::Begin,            ['?', '!', '!', '+', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::AtOnce,           ['?', '!', '!', '+', '+', '+', '?', '?', '!', '!', '+', '?', '?', '?']),
    // From here to a repository where everybody who is known may push: the source decides.
    (Ask::MountHere,        ['?', 'o', '+', '+', '+', '+', '?', '?', '!', '!', '?', '?', '?', '?']),
    // A session of the owner: nobody else's, not even of the owner's token.
    (Ask::UploadStatus,     ['?', '!', '!', '-', '+', '-', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::UploadPatch,      ['?', '!', '!', '-', '+', '-', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::UploadPut,        ['?', '!', '!', '-', '+', '-', '?', '?', '!', '!', '+', '?', '?', '?']),
    (Ask::UploadCancel,     ['?', '!', '!', '-', '+', '-', '?', '?', '!', '!', '+', '?', '?', '?']),
];

struct World {
    served: Served,
    authority: Arc<Authority>,
    texts: Vec<(&'static str, String)>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

impl World {
    async fn start() -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let access = root.layout().access();
        let users = UsersFile::new(&access);
        for user in ["other", "reader", "writer", "owner"] {
            let hash = PasswordHash::of(user, Cost { memory_kib: 8, passes: 1 }).unwrap();
            users.add(&name(user), hash).unwrap();
        }
        let rule = |repositories: &str, who: &str, allow: &[Right]| Rule {
            repositories: vec![repositories.parse().unwrap()],
            who: vec![who.parse().unwrap()],
            allow: allow.to_vec(),
        };
        let rules = vec![
            rule("team/**", "user:reader", &[Right::Pull]),
            rule("team/**", "user:writer", &[Right::Pull, Right::Push]),
            rule("team/**", "user:owner", &Right::ALL),
            rule("common", "authenticated", &[Right::Pull, Right::Push]),
        ];
        let rules = Rules::new(rules, &Groups::new()).unwrap();
        let policy = Policy { rules, ..Policy::default() };
        let audit = Arc::new(Audit::new(root.path()));
        let authority = Authority::open(&access, policy, audit).unwrap();
        let registry =
            Registry::new(root, Mirrors::default(), Arc::clone(&authority) as _, Limits::default());
        let router = crate::guarded_router(registry, Arc::clone(&authority));
        let served = Served::routing(directory, router).await;
        let mut world = World { served, authority, texts: Vec::new() };
        world.make_tokens(&Tokens::new(&access)).await;
        world
    }

    async fn make_tokens(&mut self, tokens: &Tokens) {
        let now = Timestamp::now();
        let scope = |pattern: &str, allow: &[Right]| Scope {
            repositories: pattern.parse().unwrap(),
            allow: allow.to_vec(),
        };
        let make = |of: &str, scopes: Option<Vec<Scope>>, expires| {
            let token = Token {
                name: name(of),
                user: Some(name("owner")),
                scopes,
                created: now,
                expires,
                note: String::new(),
                rescue: false,
            };
            tokens.create(&token).unwrap()
        };
        let past = now - SignedDuration::from_secs(1);
        self.texts.push(("token", make("token", None, None)));
        self.texts.push(("expired", make("expired", None, Some(past))));
        self.texts.push(("revoked", make("revoked", None, None)));
        let elsewhere = Some(vec![scope("other/**", &Right::ALL)]);
        self.texts.push(("elsewhere", make("elsewhere", elsewhere, None)));
        let pull_only = Some(vec![scope("team/**", &[Right::Pull])]);
        self.texts.push(("pull-only", make("pull-only", pull_only, None)));
        tokens.revoke(&name("revoked")).unwrap();
        let bearer = self.bearer("repository:team/app:pull,push,delete").await;
        let (head, claims) = bearer.split_once('.').unwrap();
        let claims = claims.split_once('.').unwrap().0;
        self.texts.push(("forged", format!("{head}.{claims}.{}", "A".repeat(86))));
        let elsewhere = self.bearer("repository:team/else:pull,push,delete").await;
        self.texts.push(("bearer", bearer));
        self.texts.push(("bearer-elsewhere", elsewhere));
    }

    async fn bearer(&self, scope: &str) -> String {
        let path = format!("/v2/token?service=boatyard&scope={scope}");
        let owner = basic("owner", "owner");
        let headers = [("authorization", owner.as_str())];
        let answer = self.served.send(Method::GET, &path, &headers, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    fn authorization(&self, caller: &str) -> Option<String> {
        match caller {
            "anonymous" => None,
            "wrong-password" => Some(basic("owner", "wrong")),
            "other" | "reader" | "writer" | "owner" => Some(basic(caller, caller)),
            _ => {
                let (_, text) = self.texts.iter().find(|(name, _)| *name == caller).unwrap();
                // A token is as good as a password as it is as a bearer.
                let as_password = matches!(caller, "token" | "expired");
                Some(if as_password { basic("x", text) } else { format!("Bearer {text}") })
            }
        }
    }

    async fn send(&self, caller: &str, method: Method, path: &str, body: &[u8]) -> Answer {
        let authorization = self.authorization(caller);
        let manifest = MediaType::OCI_MANIFEST;
        let mut headers = vec![("content-type", manifest.as_str())];
        if let Some(value) = &authorization {
            headers.push(("authorization", value));
        }
        if method == Method::GET && path.contains("#range") {
            headers.push(("range", "bytes=0-1"));
        }
        let path = path.trim_end_matches("#range");
        self.served.send(method, path, &headers, body.to_vec()).await
    }

    /// Has the owner make what the question is about, and asks it.
    async fn ask(&self, caller: &str, ask: Ask) -> Answer {
        let put = async |reference: &str, manifest: &[u8]| {
            let path = format!("/v2/team/app/manifests/{reference}");
            let answer = self.send("owner", Method::PUT, &path, manifest).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        };
        for blob in [b"{}".as_slice(), b"one", b"two", b"loose"] {
            let digest = Digest::sha256(blob);
            let path = format!("/v2/team/app/blobs/uploads/?digest={digest}");
            assert_eq!(self.send("owner", Method::POST, &path, blob).await.status, 201);
        }
        let (one, two) = (image("one", serde_json::json!({})), image("two", serde_json::json!({})));
        put("1", &one).await;
        let _ = self.send("owner", Method::DELETE, "/v2/team/app/manifests/new", b"").await;
        let begun = self.send("owner", Method::POST, "/v2/team/app/blobs/uploads/", b"").await;
        let session = begun.location();
        let loose = Digest::sha256(b"loose");
        let at = |rest: &str| format!("/v2/team/app/{rest}");
        let (method, path, body): (Method, String, &[u8]) = match ask {
            Ask::Ping => (Method::GET, "/v2/".to_owned(), b""),
            Ask::Catalog => (Method::GET, "/v2/_catalog".to_owned(), b""),
            Ask::Tags => (Method::GET, at("tags/list"), b""),
            Ask::Referrers => (Method::GET, at(&format!("referrers/{loose}")), b""),
            Ask::GetManifest => (Method::GET, at("manifests/1"), b""),
            Ask::HeadManifest => (Method::HEAD, at("manifests/1"), b""),
            Ask::PutNew => (Method::PUT, at("manifests/new"), &one),
            Ask::PutOver => (Method::PUT, at("manifests/1"), &two),
            Ask::PutParameter => {
                let digest = Digest::sha256(&two);
                (Method::PUT, at(&format!("manifests/{digest}?tag=new&tag=1")), &two)
            }
            Ask::DeleteTag => (Method::DELETE, at("manifests/1"), b""),
            Ask::DeleteManifest => {
                (Method::DELETE, at(&format!("manifests/{}", Digest::sha256(&one))), b"")
            }
            Ask::GetBlob => (Method::GET, at(&format!("blobs/{loose}")), b""),
            Ask::HeadBlob => (Method::HEAD, at(&format!("blobs/{loose}")), b""),
            Ask::RangeBlob => (Method::GET, at(&format!("blobs/{loose}#range")), b""),
            Ask::DeleteBlob => (Method::DELETE, at(&format!("blobs/{loose}")), b""),
            Ask::Begin => (Method::POST, at("blobs/uploads/"), b""),
            Ask::AtOnce => (Method::POST, at(&format!("blobs/uploads/?digest={loose}")), b"loose"),
            Ask::MountHere => {
                let query = format!("mount={loose}&from=team/app");
                (Method::POST, format!("/v2/common/blobs/uploads/?{query}"), b"")
            }
            Ask::UploadStatus => (Method::GET, session, b""),
            Ask::UploadPatch => (Method::PATCH, session, b"loose"),
            Ask::UploadPut => {
                let mark = if session.contains('?') { '&' } else { '?' };
                (Method::PUT, format!("{session}{mark}digest={loose}"), b"loose")
            }
            Ask::UploadCancel => (Method::DELETE, session, b""),
        };
        self.send(caller, method, &path, body).await
    }
}

fn letter(ask: Ask, answer: &Answer) -> char {
    match (ask, answer.status.as_u16()) {
        (_, 401) => '?',
        (_, 403) => '!',
        (_, 404) => '-',
        (Ask::MountHere, 202) => 'o',
        (_, 200..=299) => '+',
        (_, status) => char::from_digit(u32::from(status / 100), 10).unwrap(),
    }
}

#[tokio::test]
async fn everybody_may_do_what_the_table_says() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for (ask, row) in TABLE {
        for (caller, expected) in CALLERS.into_iter().zip(row) {
            // Many wrong passwords from one address would be slowed.
            if matches!(caller, "wrong-password" | "expired" | "revoked") {
                world.authority.forgive();
            }
            let answer = world.ask(caller, ask).await;
            let got = letter(ask, &answer);
            // An empty list of referrers is the same for all: it says nothing.
            let expected =
                if matches!(ask, Ask::Referrers) && expected == 'o' { '+' } else { expected };
            if got != expected {
                wrong.push(format!("{ask:?} by {caller}: {got} and not {expected}: {answer:?}"));
            }
            if got == '?' {
                let challenge = answer.header("www-authenticate").unwrap_or_default();
                assert!(challenge.starts_with("Bearer realm=\"http://127.0.0.1:"), "{challenge}");
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is forbidden and what is not there: the same status, the same headers, the same bytes.
#[tokio::test]
async fn forbidden_and_unknown_are_the_same() {
    let world = World::start().await;
    world.ask("owner", Ask::Tags).await;
    let (loose, one) =
        (Digest::sha256(b"loose"), Digest::sha256(&image("one", serde_json::json!({}))));
    for caller in ["anonymous", "other", "elsewhere"] {
        for (method, rest) in [
            (Method::GET, "tags/list".to_owned()),
            (Method::GET, "manifests/1".to_owned()),
            (Method::HEAD, "manifests/1".to_owned()),
            (Method::GET, format!("manifests/{one}")),
            (Method::GET, format!("blobs/{loose}")),
            (Method::HEAD, format!("blobs/{loose}")),
            (Method::GET, format!("referrers/{loose}")),
            (Method::GET, "tags/list?n=1&last=0".to_owned()),
            (Method::PUT, "manifests/1".to_owned()),
            (Method::DELETE, "manifests/1".to_owned()),
            (Method::DELETE, format!("blobs/{loose}")),
            (Method::POST, "blobs/uploads/".to_owned()),
        ] {
            let mut answers = Vec::new();
            for repository in ["team/app", "team/non"] {
                let path = format!("/v2/{repository}/{rest}");
                let answer = world.send(caller, method.clone(), &path, b"").await;
                let mut headers = answer.headers.clone();
                headers.remove("date");
                headers.remove("x-request-id");
                let headers = format!("{headers:?}").replace(repository, "NAME");
                answers.push((answer.status, headers, answer.body));
            }
            assert_eq!(answers[0], answers[1], "{caller} {method} {rest}");
        }
    }
    // A mount says nothing about what the caller may not read.
    let mut answers = Vec::new();
    for (digest, from) in [(&loose, "&from=team/app"), (&loose, "&from=team/non"), (&loose, "")] {
        let path = format!("/v2/common/blobs/uploads/?mount={digest}{from}");
        answers.push(world.send("other", Method::POST, &path, b"").await.status);
    }
    assert_eq!(answers, [202, 202, 202]);
}

#[tokio::test]
async fn the_token_service_speaks_both_dialects() {
    let world = World::start().await;
    let form = |text: &str| {
        let text = text.to_owned();
        let served = &world.served;
        async move {
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            served.send(Method::POST, "/v2/token", &headers, text).await
        }
    };
    let password = "grant_type=password&username=owner&password=owner&service=boatyard&\
                    scope=repository%3Ateam%2Fapp%3Apull+repository%3Ateam%2Fb%3Apush&access_type=offline";
    let answer = form(password).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(body["scope"], "repository:team/app:pull repository:team/b:push");
    assert_eq!((body["token"] == body["access_token"], &body["expires_in"]), (true, &300.into()));
    let refresh = body["refresh_token"].as_str().unwrap();
    let again = form(&format!("grant_type=refresh_token&refresh_token={refresh}&scope=")).await;
    assert_eq!(again.status, 200, "{again:?}");
    for wrong in [
        "grant_type=password&username=owner&password=no".to_owned(),
        "grant_type=refresh_token&refresh_token=x".to_owned(),
        format!("grant_type=refresh_token&refresh_token={}", body["token"].as_str().unwrap()),
    ] {
        form(&wrong).await.refuses(401, "UNAUTHORIZED");
    }
    for bad in ["", "grant_type=authorization_code", "grant_type=password&username=x"] {
        form(bad).await.refuses(400, "UNSUPPORTED");
    }
    // Anonymous: a token for nothing, which is no error.
    let nobody =
        world.served.get("/v2/token?scope=repository:team/app:pull&offline_token=true").await;
    assert_eq!((nobody.status.as_u16(), nobody.json()["scope"].as_str()), (200, Some("")));
    assert!(nobody.json().get("refresh_token").is_none());
    world.served.delete("/v2/token").await.refuses(405, "UNSUPPORTED");
}

#[tokio::test]
async fn what_was_done_is_written_down() {
    let world = World::start().await;
    world.ask("owner", Ask::PutOver).await;
    world.ask("writer", Ask::DeleteTag).await;
    world.ask("owner", Ask::DeleteManifest).await;
    world.ask("wrong-password", Ask::Tags).await;
    let mut deeds = Vec::new();
    world
        .authority
        .audit()
        .read(|entry| {
            assert_eq!(entry.from.as_deref(), Some("127.0.0.1"));
            assert!(entry.request.is_some());
            deeds.push((entry.deed.as_str(), entry.who.clone(), entry.target.clone()));
            true
        })
        .unwrap();
    let count = |deed, who: &str| deeds.iter().filter(|(d, w, _)| *d == deed && w == who).count();
    assert!(count("push", "user:owner") >= 4, "{deeds:?}");
    // To the second image, and back to the first.
    assert_eq!(count("overwrite", "user:owner"), 2, "{deeds:?}");
    assert_eq!(count("denied", "user:writer"), 1, "{deeds:?}");
    assert!(count("delete", "user:owner") >= 1, "{deeds:?}");
    assert_eq!(count("login-failed", "user:owner"), 1, "{deeds:?}");
}

/// zot: who may create tags could overwrite `latest`; and those that the `tag` parameters of a push
/// by digest name were not looked at.
#[tokio::test]
async fn cve_2026_31801_every_tag_is_overwritten_by_who_may_alone() {
    let world = World::start().await;
    world.ask("owner", Ask::Ping).await;
    let (one, two) = (image("one", serde_json::json!({})), image("two", serde_json::json!({})));
    let put = async |caller: &str, reference: &str, manifest: &[u8]| {
        let path = format!("/v2/team/app/manifests/{reference}");
        world.send(caller, Method::PUT, &path, manifest).await.status.as_u16()
    };
    assert_eq!(put("writer", "latest", &one).await, 201);
    assert_eq!(put("writer", "latest", &one).await, 201, "it points there already");
    assert_eq!(put("writer", "latest", &two).await, 403);
    let digest = Digest::sha256(&two);
    assert_eq!(put("writer", &format!("{digest}?tag=fresh&tag=latest"), &two).await, 403);
    let tag = async |tag: &str| {
        let path = format!("/v2/team/app/manifests/{tag}");
        world.send("owner", Method::GET, &path, b"").await.status.as_u16()
    };
    assert_eq!(tag("fresh").await, 404, "none of several is written");
    // Of two who create it at once, one overwrites.
    let both = tokio::join!(put("writer", "once", &one), put("writer", "once", &two));
    assert!(matches!(both, (201, 403) | (403, 201)), "{both:?}");
}

/// zot: who was taken out of a group kept what it may.
#[tokio::test]
async fn cve_2025_23208_who_leaves_a_group_loses_its_rights_at_once() {
    let world = World::start().await;
    world.ask("owner", Ask::Ping).await;
    let policy = |members: &[&str]| {
        let members = members.iter().map(|who| who.parse().unwrap()).collect();
        let rule = Rule {
            repositories: vec!["team/**".parse().unwrap()],
            who: vec!["group:readers".parse().unwrap()],
            allow: vec![Right::Pull],
        };
        let groups = Groups::from([(name("readers"), members)]);
        Policy { rules: Rules::new(vec![rule], &groups).unwrap(), ..Policy::default() }
    };
    let bearer = world.bearer("repository:team/app:pull").await;
    let pulls = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        let path = "/v2/team/app/manifests/1";
        world.served.send(Method::GET, path, &headers, "").await.status.as_u16()
    };
    let (password, bearer) = (basic("owner", "owner"), format!("Bearer {bearer}"));
    world.authority.configure(policy(&["user:owner", "user:reader"])).unwrap();
    assert_eq!((pulls(&password).await, pulls(&bearer).await), (200, 200));
    world.authority.configure(policy(&["user:reader"])).unwrap();
    assert_eq!((pulls(&password).await, pulls(&bearer).await), (404, 404));
}
