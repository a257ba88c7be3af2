//! Who is shown what: the bearer flow, basic, and credentials that must not leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::{ImageName, RegistryHost};
use boatyard_upstream::{
    Client, ClientError, ClientOptions, Credential, CredentialSources, Secret,
};

use crate::support::{
    Content, Request, Response, Server, TestClock, chain, client, image, options,
};

fn password(user: &str, password: &str) -> Credential {
    Credential::Password { user: user.to_owned(), password: Secret::new(password) }
}

fn with(registry: &str, credential: Credential, options: ClientOptions) -> Client {
    let given = vec![(registry.parse().unwrap(), credential)];
    let credentials = CredentialSources { given, ..CredentialSources::default() };
    client(ClientOptions { credentials, ..options })
}

fn name(registry: &str) -> ImageName {
    format!("{registry}/team/app:1").parse().unwrap()
}

/// A registry that lets in who shows `Bearer <token>`, and sends others to `realm`.
fn guarded(realm: String, token: &'static str) -> Server {
    let content = Content::default().image("1", &image(&[b"layer"]));
    Server::start(move |request| {
        if request.header("authorization") == Some(&format!("Bearer {token}")) {
            return content.answer(request);
        }
        let challenge = format!("Bearer realm=\"{realm}\",service=\"registry\"");
        Response::new(401)
            .header("WWW-Authenticate", challenge)
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#)
    })
}

fn tokens(token: &'static str) -> Server {
    Server::start(move |_| Response::new(200).body(format!(r#"{{"token":"{token}"}}"#)))
}

fn realm_of(server: &Server) -> String {
    format!("http://{}/token", server.host())
}

#[tokio::test]
async fn an_anonymous_token_is_asked_for_once() {
    let service = tokens("t");
    let registry = guarded(realm_of(&service), "t");
    let client = client(options());
    for _ in 0..3 {
        client.manifest(&name(&registry.host())).await.unwrap();
    }
    assert_eq!(
        service.lines(),
        ["GET /token?service=registry&scope=repository%3Ateam%2Fapp%3Apull"]
    );
    assert_eq!(service.log()[0].header("authorization"), None);
    // The probe for plain HTTP has learnt what is wanted: no request was made in vain.
    assert_eq!(registry.lines().len(), 3);
}

#[tokio::test]
async fn a_password_is_shown_to_the_registrys_own_token_service() {
    let service = tokens("t");
    let registry = guarded(realm_of(&service), "t");
    let client = with(&registry.host(), password("me", "pw"), options());
    client.manifest(&name(&registry.host())).await.unwrap();
    let request = &service.log()[0];
    assert_eq!(
        request.header("authorization"),
        Some(&*format!("Basic {}", STANDARD.encode("me:pw")))
    );
    assert!(request.target.contains("account=me"));
    let leaked = |request: &Request| {
        request.header("authorization").is_some_and(|header| header.starts_with("Basic"))
    };
    assert!(!registry.log().iter().any(leaked));
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let service = tokens("t");
    let registry = guarded(realm_of(&service), "t");
    let credential = Credential::IdentityToken { token: Secret::new("refresh me") };
    with(&registry.host(), credential, options()).manifest(&name(&registry.host())).await.unwrap();
    let request = &service.log()[0];
    assert_eq!(request.line(), "POST /token");
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "grant_type=refresh_token&client_id=boatyard&service=registry\
         &scope=repository%3Ateam%2Fapp%3Apull&refresh_token=refresh+me"
    );
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let registry = guarded("http://127.0.0.1:1/never".to_owned(), "t");
    let credential = |text: &str| Credential::RegistryToken { token: Secret::new(text) };
    let host = registry.host();
    with(&host, credential("t"), options()).manifest(&name(&host)).await.unwrap();
    let error = with(&host, credential("bad"), options()).manifest(&name(&host)).await;
    assert!(matches!(error, Err(ClientError::WrongCredentials { .. })));
}

#[tokio::test]
async fn a_realm_elsewhere_gets_no_credentials() {
    let thief = Server::start_at("127.0.0.2:0", None, |_| Response::new(401));
    let registry = guarded(realm_of(&thief), "t");
    for credential in
        [password("me", "hunter2"), Credential::IdentityToken { token: Secret::new("hunter2") }]
    {
        let client = with(&registry.host(), credential, options());
        let error = client.manifest(&name(&registry.host())).await.unwrap_err();
        assert!(chain(&error).contains("were withheld"), "{}", chain(&error));
    }
    assert_eq!(thief.log().len(), 2);
    for request in thief.log() {
        assert_eq!(request.method, "GET");
        assert_eq!(request.header("authorization"), None);
        assert!(!request.target.contains("account") && request.body.is_empty());
    }
}

#[tokio::test]
async fn a_realm_elsewhere_that_is_trusted_gets_them() {
    let other = Server::start_at("127.0.0.2:0", None, |_| {
        Response::new(200).body(r#"{"access_token":"t"}"#)
    });
    let registry = guarded(realm_of(&other), "t");
    let mut options = options();
    options.trust.realms.insert("127.0.0.2".to_owned());
    let client = with(&registry.host(), password("me", "pw"), options);
    client.manifest(&name(&registry.host())).await.unwrap();
    assert!(other.log()[0].header("authorization").is_some());
}

#[tokio::test]
async fn a_token_service_that_redirects_does_not_pass_them_on() {
    let thief =
        Server::start_at("127.0.0.2:0", None, |_| Response::new(200).body(r#"{"token":"t"}"#));
    let target = realm_of(&thief);
    let service = Server::start(move |_| Response::new(307).header("Location", &target));
    let registry = guarded(realm_of(&service), "t");
    let client = with(&registry.host(), password("me", "hunter2"), options());
    client.manifest(&name(&registry.host())).await.unwrap();
    assert!(service.log()[0].header("authorization").is_some());
    assert_eq!(thief.log()[0].header("authorization"), None);
}

#[tokio::test]
async fn wrong_credentials_are_named_and_not_shown() {
    let registry = Server::start(|_| {
        Response::new(401).header("WWW-Authenticate", "Basic realm=\"r\"").body("{}")
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let auth = STANDARD.encode("me:hunter2");
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host());
    std::io::Write::write_all(&mut file.as_file(), text.as_bytes()).unwrap();
    let credentials =
        CredentialSources { docker: vec![file.path().to_owned()], ..CredentialSources::default() };
    let client = client(ClientOptions { credentials, ..options() });
    let error = client.manifest(&name(&registry.host())).await.unwrap_err();
    let text = format!("{} {error:?}", chain(&error));
    assert!(text.contains(file.path().to_str().unwrap()), "{text}");
    assert!(!text.contains("hunter2") && !text.contains(&auth), "{text}");
    assert_eq!(registry.lines().len(), 1);
}

#[tokio::test]
async fn without_credentials_the_message_says_how_to_log_in() {
    let registry = Server::start(|_| {
        Response::new(401).header("WWW-Authenticate", "Basic realm=\"r\"").body("{}")
    });
    let error = client(options()).manifest(&name(&registry.host())).await.unwrap_err();
    assert!(error.to_string().contains(&format!("run `boatyard login {}`", registry.host())));
}

#[tokio::test]
async fn corrupt_files_stop_the_request() {
    let registry = guarded("http://127.0.0.1:1/never".to_owned(), "t");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file.as_file(), b"{\"auths\": hunter2").unwrap();
    let credentials =
        CredentialSources { podman: vec![file.path().to_owned()], ..CredentialSources::default() };
    let client = client(ClientOptions { credentials, ..options() });
    let error = client.manifest(&name(&registry.host())).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains(file.path().to_str().unwrap()) && !text.contains("hunter2"), "{text}");
}

/// A registry and its token service in one, whose tokens the registry forgets after `uses` uses.
fn forgetful(uses: usize) -> Server {
    let content = Content::default().image("1", &image(&[b"layer"]));
    let (issued, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Server::start(move |request| {
        if request.path() == "/token" {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            used.store(0, Ordering::SeqCst);
            return Response::new(200).body(format!(r#"{{"token":"t{number}","expires_in":300}}"#));
        }
        let good = format!("Bearer t{}", issued.load(Ordering::SeqCst));
        if request.header("authorization") == Some(&good)
            && used.fetch_add(1, Ordering::SeqCst) < uses
        {
            return content.answer(request);
        }
        let realm = format!("http://{}/token", request.header("host").unwrap());
        Response::new(401)
            .header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
            .body("{}")
    })
}

#[tokio::test]
async fn a_token_that_is_refused_early_is_replaced() {
    let server = forgetful(2);
    let client = client(options());
    for _ in 0..5 {
        client.manifest(&name(&server.host())).await.unwrap();
    }
    let count = server.lines().iter().filter(|line| line.starts_with("GET /token")).count();
    assert_eq!(count, 3);
}

#[tokio::test]
async fn a_registry_that_refuses_every_token_is_not_asked_for_ever() {
    let server = forgetful(0);
    let error = client(options()).manifest(&name(&server.host())).await.unwrap_err();
    assert!(matches!(error, ClientError::NoCredentials { .. }), "{}", chain(&error));
    assert_eq!(server.lines().len(), 4, "{:?}", server.lines());
}

#[tokio::test]
async fn an_expired_token_is_not_shown() {
    let server = forgetful(100);
    let clock = TestClock::new();
    let client = client(ClientOptions { clock: Arc::clone(&clock) as _, ..options() });
    for _ in 0..2 {
        client.manifest(&name(&server.host())).await.unwrap();
        clock.advance(291);
    }
    let lines = server.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("GET /token")).count(), 2);
    assert_eq!(lines.len(), 4, "{lines:?}");
}

#[tokio::test]
async fn login_tries_before_it_keeps() {
    let registry = Server::start(|request| {
        let good = format!("Basic {}", STANDARD.encode("me:right"));
        match request.header("authorization") {
            Some(header) if header == good => Response::new(200),
            _ => Response::new(401).header("WWW-Authenticate", "Basic realm=\"r\"").body("{}"),
        }
    });
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("boatyard/auth.json");
    let credentials = CredentialSources { own: Some(own.clone()), ..CredentialSources::default() };
    let client = client(ClientOptions { credentials, ..options() });
    let host: RegistryHost = registry.host().parse().unwrap();
    let error = client.login(&host, "me", Secret::new("wrong")).await.unwrap_err();
    assert!(matches!(error, ClientError::WrongCredentials { .. }), "{}", chain(&error));
    assert!(!own.exists());
    let login = client.login(&host, "me", Secret::new("right")).await.unwrap();
    assert!(login.checked && own.exists());
    assert!(client.logout(&host).await.unwrap());
    assert!(!client.logout(&host).await.unwrap());
}

#[tokio::test]
async fn login_sends_no_password_to_a_realm_elsewhere() {
    let thief =
        Server::start_at("127.0.0.2:0", None, |_| Response::new(200).body(r#"{"token":"t"}"#));
    let registry = guarded(realm_of(&thief), "t");
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("auth.json");
    let credentials = CredentialSources { own: Some(own.clone()), ..CredentialSources::default() };
    let client = client(ClientOptions { credentials, ..options() });
    let error = client.login(&registry.host().parse().unwrap(), "me", Secret::new("pw")).await;
    assert!(matches!(error, Err(ClientError::RealmNotTrusted { .. })));
    assert!(thief.log().is_empty() && !own.exists());
}

#[tokio::test]
async fn replaced_credentials_are_found_without_a_restart() {
    let content = Content::default().image("1", &image(&[]));
    let registry = Server::start(move |request| {
        let good = format!("Basic {}", STANDARD.encode("me:new"));
        match request.header("authorization") {
            Some(header) if header == good => content.answer(request),
            _ => Response::new(401).header("WWW-Authenticate", "Basic realm=\"r\"").body("{}"),
        }
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |password: &str| {
        let auth = STANDARD.encode(format!("me:{password}"));
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host());
        fs_err::write(file.path(), text).unwrap();
    };
    let credentials =
        CredentialSources { docker: vec![file.path().to_owned()], ..CredentialSources::default() };
    let client = client(ClientOptions { credentials, ..options() });
    write("old");
    assert!(client.manifest(&name(&registry.host())).await.is_err());
    write("new");
    client.manifest(&name(&registry.host())).await.unwrap();
}
