//! What an observer is told, and routes that change.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::support::{Served, ask};
use crate::{Exchange, Labels, Limits, Observer, Routes};

/// Passes on what it is told: path, status, bytes, whether all of it was sent, and the service.
#[derive(Debug)]
struct Witness(Mutex<mpsc::UnboundedSender<Told>>);

type Told = (String, Option<u16>, u64, bool, &'static str);

impl Observer for Witness {
    fn began(&self) {}

    fn ended(&self, exchange: &Exchange) {
        let status = exchange.status.as_ref().map(StatusCode::as_u16);
        let Exchange { path, sent, complete, labels, .. } = exchange;
        let told = (path.clone(), status, *sent, *complete, labels.service);
        self.0.lock().unwrap().send(told).unwrap();
    }
}

fn router() -> Router {
    let endless = || async {
        let pieces =
            stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[7; 65536])));
        axum::body::Body::from_stream(pieces)
    };
    let labelled = || async {
        (axum::Extension(Labels { service: "registry", ..Labels::default() }), "hello")
    };
    Router::new().route("/hello", get(labelled)).route("/endless", get(endless))
}

fn witness() -> (Arc<Witness>, mpsc::UnboundedReceiver<Told>) {
    let (send, told) = mpsc::unbounded_channel();
    (Arc::new(Witness(Mutex::new(send))), told)
}

#[tokio::test]
async fn an_observer_is_told_what_became_of_each_request() {
    let (witness, mut told) = witness();
    let served = Served::observed(router().into(), Limits::default(), witness);
    let mut connection = served.connect().await;
    assert!(ask(&mut connection, "/hello").await.contains("x-request-id: "));
    let expected = ("/hello".to_owned(), Some(200), 5, true, "registry");
    assert_eq!(told.recv().await, Some(expected));
    ask(&mut connection, "/none?secret=1").await;
    assert_eq!(told.recv().await, Some(("/none".to_owned(), Some(404), 0, true, "")));
    let request = b"GET /endless HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n\r\n";
    connection.write_all(request).await.unwrap();
    connection.read_exact(&mut [0; 100_000]).await.unwrap();
    drop(connection);
    let (path, status, sent, complete, _) = told.recv().await.unwrap();
    assert_eq!((&path[..], status, complete), ("/endless", Some(200), false), "{sent}");
}

#[tokio::test]
async fn routes_change_under_an_open_connection() {
    let routes = Routes::from(Router::new().route("/", get(|| async { "old" })));
    let (witness, _told) = witness();
    let served = Served::observed(routes.clone(), Limits::default(), witness);
    let mut connection = served.connect().await;
    assert!(ask(&mut connection, "/").await.ends_with("old"));
    routes.replace(Router::new().route("/", get(|| async { "new" })));
    assert!(ask(&mut connection, "/").await.ends_with("new"));
}
