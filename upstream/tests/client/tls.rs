//! HTTPS with an authority of one's own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use boatyard_oci::ImageName;
use boatyard_upstream::{Client, ClientOptions};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{Content, Server, TestClock, chain, client, image, options};

/// Makes an authority and a certificate for 127.0.0.1 in a directory.
fn certificates(directory: &Path) {
    let run = |script: &str| {
        let output = Command::new("sh").arg("-ec").arg(script).current_dir(directory).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
         -keyout ca.key -out ca.crt -subj /CN=test-authority");
    run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
         -keyout server.key -out server.csr -subj /CN=server");
    run("printf 'subjectAltName=IP:127.0.0.1\n' > ext; openssl x509 -req -in server.csr \
         -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt");
}

fn tls_server(directory: &Path) -> Server {
    certificates(directory);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_file(directory.join("server.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let content = Content::default().image("1", &image(&[b"layer"]));
    Server::start_at("127.0.0.1:0", Some(Arc::new(config)), move |request| content.answer(request))
}

async fn fetch(client: &Client, server: &Server) -> Result<(), String> {
    let name: ImageName = format!("{}/app:1", server.host()).parse().unwrap();
    client.manifest(&name).await.map(drop).map_err(|error| chain(&error))
}

#[tokio::test]
async fn a_private_authority_is_trusted_for_its_host_only() {
    let root = tempfile::tempdir().unwrap();
    let server = tls_server(root.path());

    let error = fetch(&client(options()), &server).await.unwrap_err();
    assert!(error.contains("there is no answer"), "{error}");

    let certs_d = root.path().join("certs.d");
    let own = certs_d.join(server.host());
    fs_err::create_dir_all(&own).unwrap();
    fs_err::copy(root.path().join("ca.crt"), own.join("ca.crt")).unwrap();
    let mut with_certs_d = options();
    with_certs_d.trust.certs_d = vec![certs_d.clone()];
    fetch(&client(with_certs_d), &server).await.unwrap();

    let mut with_file = options();
    with_file.trust.authorities = vec![root.path().join("ca.crt")];
    fetch(&client(with_file), &server).await.unwrap();

    let conf = root.path().join("registries.conf");
    let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true", server.host());
    fs_err::write(&conf, text).unwrap();
    let mut insecure = options();
    insecure.trust.registries_conf = vec![conf];
    fetch(&client(insecure), &server).await.unwrap();

    // Another authority of the same name: waiting would not mend it, so nothing waits.
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    fs_err::copy(other.path().join("ca.crt"), own.join("ca.crt")).unwrap();
    let clock = TestClock::new();
    let mut wrong = ClientOptions { clock: Arc::clone(&clock) as _, ..options() };
    wrong.trust.certs_d = vec![certs_d.clone()];
    let error = fetch(&client(wrong), &server).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(clock.slept(), []);

    fs_err::write(own.join("ca.crt"), "not a certificate").unwrap();
    let mut corrupt = options();
    corrupt.trust.certs_d = vec![certs_d];
    let error = fetch(&client(corrupt), &server).await.unwrap_err();
    assert!(error.contains(own.join("ca.crt").to_str().unwrap()), "{error}");
}
