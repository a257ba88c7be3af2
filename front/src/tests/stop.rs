//! How a server ends.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::sync::mpsc;

use super::support::{Served, ask, closed};
use crate::{Limits, Server, ServerError, ServerOptions, StopReport};

/// A download of which the test sends every piece.
fn slow() -> (Router, mpsc::Sender<Bytes>) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = Arc::new(Mutex::new(receiver));
    let download = move || {
        let receiver = Arc::clone(&receiver);
        async move {
            Body::from_stream(futures_util::stream::unfold(receiver, |receiver| async move {
                let piece = receiver.lock().await.recv().await?;
                Some((Ok::<_, std::io::Error>(piece), receiver))
            }))
        }
    };
    (Router::new().route("/slow", get(download)), sender)
}

#[tokio::test]
async fn a_download_in_flight_is_finished() {
    let (router, pieces) = slow();
    let served = Served::start(router, Limits::default(), None);
    let health = served.health.clone();
    let mut idle = served.connect().await;
    assert!(ask(&mut idle, "/readyz").await.contains("200 OK"));
    let mut silent = served.connect().await;
    let mut download = served.connect().await;
    let request = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    download.write_all(request).await.unwrap();
    pieces.send("before ".into()).await.unwrap();
    let mut received = vec![0; 1];
    download.read_exact(&mut received).await.unwrap();

    let address = served.address;
    let stopped = served.stop();
    closed(&mut idle).await;
    closed(&mut silent).await;
    assert!(!health.is_ready());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
    pieces.send("after".into()).await.unwrap();
    drop(pieces);
    download.read_to_end(&mut received).await.unwrap();
    let received = String::from_utf8(received).unwrap();
    assert!(received.contains("before ") && received.ends_with("after\r\n0\r\n\r\n"), "{received}");
    assert_eq!(stopped.await.unwrap(), StopReport { finished: 3, cut: 0 });
}

#[tokio::test]
async fn a_download_that_does_not_end_is_cut() {
    let (router, pieces) = slow();
    let limits = Limits { stop_timeout: Duration::from_millis(50), ..Limits::default() };
    let served = Served::start(router, limits, None);
    let mut download = served.connect().await;
    download.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    pieces.send("begun".into()).await.unwrap();
    let mut received = vec![0; 1];
    download.read_exact(&mut received).await.unwrap();
    assert_eq!(served.stop().await.unwrap(), StopReport { finished: 0, cut: 1 });
    closed(&mut download).await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let served = Served::start(Router::new(), Limits::default(), None);
    let taken = vec![served.address];
    let options = ServerOptions { addresses: taken, ..ServerOptions::default() };
    let error = Server::bind(options).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", served.address));
    let none = Server::bind(ServerOptions::default()).unwrap_err();
    assert!(matches!(none, ServerError::NoAddress));
}
