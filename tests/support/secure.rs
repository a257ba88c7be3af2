//! An upstream by HTTPS, with an authority of the test's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use boatyard_front::server::{Server as Front, ServerOptions};
use boatyard_front::tls::{Tls, TlsFiles};

use super::Place;

/// An upstream that speaks HTTPS, and HTTP/2 to whoever wants it.
pub struct Secure {
    pub address: SocketAddr,
    /// The certificate of the authority that vouches for it.
    pub authority: PathBuf,
    /// The version and path of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Secure {
    /// Starts it; `answer` returns the bytes at a path.
    pub fn start(
        place: &Place,
        answer: impl Fn(&str) -> Option<Vec<u8>> + Clone + Send + Sync + 'static,
    ) -> Secure {
        let run = |script: &str| {
            place.run("sh", ["-ec", script]).current_dir(&place.path("home")).ok();
        };
        run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -keyout ca.key -out ca.crt -subj /CN=test-authority");
        run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
             -keyout server.key -out server.csr -subj /CN=server");
        run("printf 'subjectAltName=IP:127.0.0.1\n' > ext; openssl x509 -req -in server.csr \
             -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt");
        let (certificate, key) = (place.path("home/server.crt"), place.path("home/server.key"));
        let tls = Arc::new(Tls::load(TlsFiles { certificate, key, clients: None }).unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&asked);
        let (told, tell) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
                let options = ServerOptions { addresses, tls: Some(tls), ..Default::default() };
                let server = Front::bind(options).unwrap();
                told.send(server.local_addrs()[0]).unwrap();
                let answer = move |request: Request| {
                    let line = format!("{:?} {}", request.version(), request.uri().path());
                    kept.lock().unwrap().push(line);
                    let (status, body) = match answer(request.uri().path()) {
                        Some(body) => (StatusCode::OK, body),
                        None => (StatusCode::NOT_FOUND, Vec::new()),
                    };
                    std::future::ready((status, [("cache-control", "max-age=600")], body))
                };
                server.serve(Router::new().fallback(answer), std::future::pending()).await;
            });
        });
        let authority = place.path("home/ca.crt");
        Secure { address: tell.recv().unwrap(), authority, asked }
    }

    /// Returns what was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}
