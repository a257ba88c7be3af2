//! A server of the test's own on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Health, Limits, Observer, Routes, Server, ServerOptions, StopReport, Tls, TlsFiles};

/// A certificate for localhost and its key, made for this test and known to all.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUGU2TsBqjFr1oj7nwCQHgFmMtuvMwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTEzNTgxNFoYDzIxMjYxMDI4
MTM1ODE0WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASyUt3V3CXPZKEEOtVx+8d3ENBL3kJaGCLf8dDr5b1690NgZ9ri5SoM
p7Ehs4vHSu25F53anu+eSJlR3Jdv3FT7o28wbTAdBgNVHQ4EFgQUdhrBGAlqsPPG
v/y1DT/xgSTalyUwHwYDVR0jBBgwFoAUdhrBGAlqsPPGv/y1DT/xgSTalyUwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgBKQfU7zvYR/gbLapja8N7RSW+rcWdv40P3BF+8z2AzkCIQCJ
Xlx/qAtFDXOTyqMi5vOvInhrBfIgDgoaUcT7KP2quA==
-----END CERTIFICATE-----
";
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgMCSuPSLDD840YPxt
YsOjdkc2RuXEf/KqLnT3XrxG4k2hRANCAASyUt3V3CXPZKEEOtVx+8d3ENBL3kJa
GCLf8dDr5b1690NgZ9ri5SoMp7Ehs4vHSu25F53anu+eSJlR3Jdv3FT7
-----END PRIVATE KEY-----
";

pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) health: Health,
    stop: oneshot::Sender<()>,
    stopped: JoinHandle<StopReport>,
}

impl Served {
    pub(super) fn start(router: Router, limits: Limits, tls: Option<Tls>) -> Served {
        let health = Health::new();
        let routes = router.merge(health.router()).into();
        Served::with(routes, ServerOptions { tls: tls.map(Arc::new), limits, health, ..some() })
    }

    pub(super) fn observed(routes: Routes, limits: Limits, observer: Arc<dyn Observer>) -> Served {
        Served::with(routes, ServerOptions { limits, observer: Some(observer), ..some() })
    }

    fn with(routes: Routes, options: ServerOptions) -> Served {
        let health = options.health.clone();
        let server = Server::bind(options).unwrap();
        let address = server.local_addrs()[0];
        let (stop, told) = oneshot::channel::<()>();
        let stopped = tokio::spawn(server.serve(routes, async {
            let _ = told.await;
        }));
        Served { address, health, stop, stopped }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Tells the server to stop, and returns what says how it did.
    pub(super) fn stop(self) -> JoinHandle<StopReport> {
        self.stop.send(()).unwrap();
        self.stopped
    }
}

fn some() -> ServerOptions {
    let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    ServerOptions { addresses, ..ServerOptions::default() }
}

pub(super) fn tls() -> Tls {
    let directory = tempfile::tempdir().unwrap();
    let certificate = directory.path().join("server.crt");
    let key = directory.path().join("server.key");
    fs_err::write(&certificate, CERTIFICATE).unwrap();
    fs_err::write(&key, KEY).unwrap();
    Tls::load(TlsFiles { certificate, key, clients: None }).unwrap()
}

/// Sends a request on a connection that stays open, and returns the answer's head and body.
pub(super) async fn ask(connection: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = connection.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// Waits until the server closes a connection.
pub(super) async fn closed(connection: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = connection.read_to_end(&mut rest).await;
}
