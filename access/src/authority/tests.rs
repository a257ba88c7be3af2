//! What an authority says of each credential, and what it costs to be nobody.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::caller::Origin;
use crate::identity::{Identity, Name};
use crate::origin::Connection;
use crate::password::{Cost, PasswordHash};
use crate::rules::{Groups, Rule};
use crate::tokens::Token;

const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };

struct World {
    directory: tempfile::TempDir,
    authority: Arc<Authority>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn repository(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn rules(of: &[(&str, &str, &str)]) -> Rules {
    let rule = |(repositories, who, allow): &(&str, &str, &str)| Rule {
        repositories: vec![repositories.parse().unwrap()],
        who: who.split(' ').map(|who| who.parse().unwrap()).collect(),
        allow: allow.split(' ').map(|right| right.parse().unwrap()).collect(),
    };
    Rules::new(of.iter().map(rule).collect(), &Groups::new()).unwrap()
}

impl World {
    fn with(policy: Policy) -> World {
        let directory = tempfile::tempdir().unwrap();
        let users = UsersFile::new(directory.path().join("access"));
        users.add(&name("alice"), PasswordHash::of("secret", CHEAP).unwrap()).unwrap();
        World::over(directory, policy)
    }

    fn over(directory: tempfile::TempDir, policy: Policy) -> World {
        let audit = Arc::new(Audit::new(directory.path()));
        let authority = Authority::open(&directory.path().join("access"), policy, audit).unwrap();
        World { directory, authority }
    }

    fn ruled() -> World {
        World::with(Policy {
            rules: rules(&[
                ("team/**", "user:alice token:ci", "pull push"),
                ("open/*", "anonymous", "pull"),
            ]),
            ..Policy::default()
        })
    }

    fn access(&self) -> PathBuf {
        self.directory.path().join("access")
    }

    fn admit(&self, authorization: Option<&str>) -> Caller {
        self.try_admit(authorization).unwrap()
    }

    fn try_admit(&self, authorization: Option<&str>) -> Result<Caller, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:5000"));
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let peer = Some([127, 0, 0, 1].into());
        let connection = Connection { peer, ..Connection::default() };
        self.authority.admit(&Presented::of(&headers, None, connection))
    }

    fn may(&self, caller: &Caller, action: Action, of: &str) -> bool {
        self.authority.decide(caller, action, Some(&repository(of))) == Verdict::Allowed
    }

    fn bearer(&self, caller: &Caller, scope: &str) -> Caller {
        let token = self.issue(caller, scope, false)["token"].as_str().unwrap().to_owned();
        self.admit(Some(&format!("Bearer {token}")))
    }

    fn issue(&self, caller: &Caller, scope: &str, offline: bool) -> serde_json::Value {
        let asked = AskedScope::parse_all([scope]);
        let issued = self.authority.issue(caller, &asked, &|_| None, offline).unwrap();
        serde_json::to_value(issued).unwrap()
    }

    fn token(&self, change: impl FnOnce(&mut Token)) -> String {
        let mut token = Token {
            name: name("ci"),
            user: None,
            scopes: None,
            created: Timestamp::now(),
            expires: None,
            note: String::new(),
            rescue: false,
        };
        change(&mut token);
        Tokens::new(self.access()).create(&token).unwrap()
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn a_password_proves_a_user_until_it_is_another_one() {
    let world = World::ruled();
    let alice = world.admit(Some(&basic("alice", "secret")));
    assert_eq!(alice.identity, Identity::User(name("alice")));
    assert!(
        world.may(&alice, Action::Push, "team/a") && !world.may(&alice, Action::Delete, "team/a")
    );
    assert_eq!(world.authority.password_checks(), 1);
    world.admit(Some(&basic("alice", "secret")));
    assert_eq!(world.authority.password_checks(), 1, "it is not computed again");
    let bearer = world.bearer(&alice, "repository:team/a:pull,push");
    assert!(world.may(&bearer, Action::Push, "team/a"));
    let users = UsersFile::new(world.access());
    users.set(&name("alice"), PasswordHash::of("other", CHEAP).unwrap()).unwrap();
    assert!(world.admit(Some(&basic("alice", "secret"))).is_refused);
    let token =
        world.issue(&world.admit(Some(&basic("alice", "other"))), "repository:team/a:pull", true);
    users.remove(&name("alice")).unwrap();
    for kind in ["token", "access_token"] {
        let bearer = format!("Bearer {}", token[kind].as_str().unwrap());
        assert!(world.admit(Some(&bearer)).is_refused, "a removed user is out at once");
    }
    let refresh = token["refresh_token"].as_str().unwrap();
    assert!(world.authority.refresh(refresh, &Origin::default()).is_none());
}

#[test]
fn nobody_costs_what_somebody_costs() {
    let world = World::ruled();
    for user in ["alice", "nobody", "", "with space", &"x".repeat(3000)] {
        let before = world.authority.password_checks();
        assert!(world.admit(Some(&basic(user, "wrong"))).is_refused);
        assert_eq!(world.authority.password_checks(), before + 1, "{user}");
    }
    // That an unknown user's password agrees with the one that it is compared with is no login.
    assert!(world.admit(Some(&basic("nobody", "secret"))).is_refused);
}

#[test]
fn a_signed_token_is_good_for_what_it_names_and_no_more() {
    let world = World::ruled();
    let alice = world.admit(Some(&basic("alice", "secret")));
    let bearer = world.bearer(&alice, "repository:team/a:pull repository:other:pull,push");
    assert!(world.may(&bearer, Action::Pull, "team/a"));
    for (action, of) in [(Action::Push, "team/a"), (Action::Pull, "team/b")] {
        let verdict = world.authority.decide(&bearer, action, Some(&repository(of)));
        let Verdict::Unauthenticated { challenge } = verdict else { panic!("{verdict:?}") };
        assert!(challenge.contains("insufficient_scope") && challenge.contains(of), "{challenge}");
    }
    let verdict = world.authority.decide(&bearer, Action::Pull, Some(&repository("other")));
    assert_eq!(verdict, Verdict::Denied);
    assert!(world.authority.issue(&bearer, &[], &|_| None, true).is_none(), "it begets no other");
    // Everybody gets a token for what is everybody's.
    let nobody = world.admit(None);
    let bearer = world.bearer(&nobody, "repository:open/x:pull,push");
    assert!(
        world.may(&bearer, Action::Pull, "open/x") && !world.may(&bearer, Action::Push, "open/x")
    );
    assert_eq!(world.authority.decide(&bearer, Action::Ping, None), Verdict::Allowed);
    assert_ne!(world.authority.decide(&nobody, Action::Ping, None), Verdict::Allowed);
    assert!(world.issue(&nobody, "", true).get("refresh_token").is_none());
}

#[test]
fn an_api_token_is_a_password_and_a_bearer() {
    let world = World::ruled();
    let text = world.token(|token| {
        token.scopes = Some(vec![Scope {
            repositories: "team/a".parse().unwrap(),
            allow: vec![crate::Right::Pull, crate::Right::Delete],
        }]);
    });
    for shown in [basic("anybody", &text), format!("Bearer {text}"), format!("bearer  {text}")] {
        let caller = world.admit(Some(&shown));
        assert_eq!(caller.identity.to_string(), "token:ci");
        assert!(world.may(&caller, Action::Pull, "team/a"));
        // Neither what the rules do not give, nor what the scope leaves out.
        assert!(!world.may(&caller, Action::Delete, "team/a"));
        assert!(!world.may(&caller, Action::Push, "team/a"));
        assert!(!world.may(&caller, Action::Pull, "team/b"));
        let bearer = world.bearer(&caller, "repository:team/a:pull,push repository:team/b:pull");
        assert!(
            world.may(&bearer, Action::Pull, "team/a")
                && !world.may(&bearer, Action::Pull, "team/b")
        );
    }
    assert_eq!(world.authority.password_checks(), 0, "no password was computed");
    let caller = world.admit(Some(&format!("Bearer {text}")));
    let signed = world.issue(&caller, "repository:team/a:pull", true);
    Tokens::new(world.access()).revoke(&name("ci")).unwrap();
    let signed = signed["token"].as_str().unwrap();
    for shown in [basic("anybody", &text), format!("Bearer {text}"), format!("Bearer {signed}")] {
        assert!(world.admit(Some(&shown)).is_refused, "a revoked token is out at once");
    }
}

#[test]
fn a_token_ends_with_its_time_and_with_its_user() {
    let world = World::ruled();
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let old = world.token(|token| token.expires = Some(past));
    assert!(world.admit(Some(&format!("Bearer {old}"))).is_refused);
    let hers = world.token(|token| {
        token.name = name("laptop");
        token.user = Some(name("alice"));
    });
    let caller = world.admit(Some(&format!("Bearer {hers}")));
    assert!(world.may(&caller, Action::Push, "team/a"), "it may do what she may");
    UsersFile::new(world.access()).remove(&name("alice")).unwrap();
    assert!(world.admit(Some(&format!("Bearer {hers}"))).is_refused);
}

#[test]
fn a_rescue_token_opens_what_the_rules_lock() {
    let world = World::with(Policy {
        rules: rules(&[("nothing", "user:nobody", "pull")]),
        ..Policy::default()
    });
    let text = world.token(|token| token.rescue = true);
    let caller = world.admit(Some(&format!("Bearer {text}")));
    for action in [Action::Pull, Action::Push, Action::Overwrite, Action::Delete] {
        assert!(world.may(&caller, action, "any/thing"));
    }
}

#[test]
fn without_rules_this_machine_may_all_and_others_pull() {
    let local = Surroundings { all_loopback: true, ..Surroundings::default() };
    let world = World::with(Policy { surroundings: local, ..Policy::default() });
    let caller = world.admit(None);
    assert!(world.may(&caller, Action::Delete, "a"));
    assert_eq!(world.authority.decide(&caller, Action::Ping, None), Verdict::Allowed);
    assert_eq!(world.authority.without_rules(), Some(WithoutRules::LocalMayAll));
    // The same server, reached through a proxy.
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
    let peer = Some([127, 0, 0, 1].into());
    let connection = Connection { peer, ..Connection::default() };
    let caller = world.authority.admit(&Presented::of(&headers, None, connection)).unwrap();
    assert!(world.may(&caller, Action::Pull, "a") && !world.may(&caller, Action::Push, "a"));
    let world = World::with(Policy::default());
    let alice = world.admit(Some(&basic("alice", "secret")));
    assert!(world.may(&alice, Action::Pull, "a") && !world.may(&alice, Action::Push, "a"));
}

#[test]
fn tries_are_slowed_but_not_for_who_is_known() {
    let world = World::ruled();
    world.admit(Some(&basic("alice", "secret")));
    let refused = (0..100).find_map(|_| world.try_admit(Some(&basic("alice", "x"))).err());
    assert!(matches!(refused, Some(Refusal::TooMany { seconds: 1.. })), "{refused:?}");
    let before = world.authority.password_checks();
    assert!(world.try_admit(Some(&basic("bob", "y"))).is_err(), "the address is slowed");
    assert_eq!(world.authority.password_checks(), before, "nothing is computed");
    assert!(!world.admit(Some(&basic("alice", "secret"))).is_refused);
    let mut failures = Vec::new();
    world
        .authority
        .audit()
        .read(|entry| {
            failures.push(entry.who);
            true
        })
        .unwrap();
    assert_eq!(failures.len(), 10);
    assert!(failures.iter().all(|who| who == "user:alice"), "{failures:?}");
}

#[test]
fn what_was_typed_as_a_name_is_in_no_log() {
    let world = World::ruled();
    world.admit(Some(&basic("correct-horse", "alice")));
    world.admit(Some("Bearer boatyard_correct-horse"));
    let path = world.directory.path().join("logs/audit/00000001.jsonl");
    let text = fs_err::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains("horse"), "{text}");
}

#[test]
fn hostile_headers_prove_nothing() {
    let world = World::ruled();
    for value in [
        "",
        " ",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YWxpY2U=",
        "Bearer",
        "Bearer ",
        "Digest x",
        "Bearer a.b.c",
        "Bearer ..",
        "Negotiate abc",
        "basic\tx",
        "alice:secret",
        &format!("Bearer {}", "a".repeat(100_000)),
        &format!("Basic {}", "A".repeat(100_000)),
    ] {
        let Ok(caller) = world.try_admit(Some(value)) else { continue };
        assert!(caller.is_refused, "{value:.40}");
        assert!(!world.may(&caller, Action::Pull, "open/x"), "{value:.40}");
    }
    let mut headers = HeaderMap::new();
    headers.append(header::AUTHORIZATION, basic("alice", "secret").parse().unwrap());
    headers.append(header::AUTHORIZATION, basic("alice", "secret").parse().unwrap());
    let twice = Presented::of(&headers, None, Connection::default());
    assert!(world.authority.admit(&twice).unwrap().is_refused);
}

#[test]
fn a_restart_forgets_no_token() {
    let world = World::ruled();
    let alice = world.admit(Some(&basic("alice", "secret")));
    let token = world.issue(&alice, "repository:team/a:pull", false);
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let policy = world.authority.configured().policy.clone();
    let again = World::over(world.directory, policy);
    assert!(again.may(&again.admit(Some(&bearer)), Action::Pull, "team/a"));
    // Another configuration holds at once.
    let policy = Policy { rules: rules(&[("x", "anonymous", "pull")]), ..Policy::default() };
    again.authority.configure(policy).unwrap();
    assert!(!again.may(&again.admit(Some(&bearer)), Action::Pull, "team/a"));
    let missing = Policy { htpasswd: Some("/nowhere/htpasswd".into()), ..Policy::default() };
    assert!(again.authority.configure(missing).is_err());
    assert_eq!(again.authority.without_rules(), None, "the old one stays");
}
