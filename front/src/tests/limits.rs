//! Clients that are slow, silent, or too many.

use std::io::Error;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use bytes::Bytes;
use http::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Served, ask, closed, tls};
use crate::{Limits, Peer};

const SHORT: Duration = Duration::from_millis(100);

fn router() -> Router {
    let peer =
        |axum::Extension(peer): axum::Extension<Peer>| async move { peer.address.to_string() };
    let endless = || async {
        let piece = Bytes::from(vec![0; 65_536]);
        let zeros = futures_util::stream::repeat_with(move || Ok::<_, Error>(piece.clone()));
        Body::from_stream(zeros).into_response()
    };
    let swallow = |body: Body| async move {
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::REQUEST_TIMEOUT,
        }
    };
    Router::new()
        .route("/", get(peer))
        .route("/endless", get(endless))
        .route("/swallow", post(swallow))
}

#[tokio::test]
async fn five_thousand_idle_connections_are_cheap() {
    const IDLE: usize = 5000;
    let limit = getrlimit(Resource::Nofile);
    let wanted = (IDLE * 2 + 500) as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("10,500 descriptors are allowed");
    }
    let served = Served::start(router(), Limits::default(), None);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(served.connect().await);
    }
    let mut connection = served.connect().await;
    let answer = ask(&mut connection, "/").await;
    assert!(answer.ends_with(&connection.local_addr().unwrap().to_string()), "{answer}");
    // The first and the last of them are served as well.
    for one in [0, IDLE - 1] {
        assert!(ask(&mut idle[one], "/").await.starts_with("HTTP/1.1 200"));
    }
    let report = served.stop().await.unwrap();
    assert_eq!((report.finished, report.cut), (IDLE + 1, 0));
}

#[tokio::test]
async fn a_header_that_trickles_in_ends_the_connection_and_an_idle_one_stays() {
    let limits = Limits { header_timeout: SHORT, ..Limits::default() };
    let served = Served::start(router(), limits, None);
    let mut idle = served.connect().await;
    ask(&mut idle, "/").await;
    let begun = Instant::now();
    let (mut reading, mut writing) = served.connect().await.into_split();
    let trickle = async {
        // Until the server has gone away.
        while writing.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let end = async {
        let mut rest = Vec::new();
        let _ = reading.read_to_end(&mut rest).await;
    };
    tokio::join!(trickle, end);
    assert!((SHORT..SHORT * 20).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(ask(&mut idle, "/").await.starts_with("HTTP/1.1 200"), "idling is not trickling");
}

#[tokio::test]
async fn an_idle_connection_ends_in_the_end() {
    let limits = Limits { idle_timeout: SHORT, ..Limits::default() };
    let served = Served::start(router(), limits, None);
    let mut silent = served.connect().await;
    let mut used = served.connect().await;
    ask(&mut used, "/").await;
    closed(&mut silent).await;
    closed(&mut used).await;
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let limits = Limits { header_timeout: SHORT, ..Limits::default() };
    let served = Served::start(router(), limits, Some(tls()));
    let mut silent = served.connect().await;
    closed(&mut silent).await;
    let mut not_tls = served.connect().await;
    not_tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut not_tls).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let limits = Limits { stall_timeout: SHORT, ..Limits::default() };
    let served = Served::start(router(), limits, None);
    let mut connection = served.connect().await;
    let request = b"POST /swallow HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    connection.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let limits = Limits { stall_timeout: SHORT, connections_max: 1, ..Limits::default() };
    let served = Served::start(router(), limits, None);
    let mut greedy = served.connect().await;
    greedy.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // There is room for one: the next is served once the first was cut.
    let mut next = served.connect().await;
    assert!(ask(&mut next, "/").await.starts_with("HTTP/1.1 200"));
    closed(&mut greedy).await;
}

#[tokio::test]
async fn a_header_that_is_too_large_is_refused() {
    let limits = Limits { header_bytes_max: 10_000, ..Limits::default() };
    let served = Served::start(router(), limits, None);
    let mut connection = served.connect().await;
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(50_000));
    let _ = connection.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up() {
    // 50 bytes in half a second are too few, however short the pauses.
    let limits = Limits { stall_timeout: SHORT, rate_min: 1 << 20, ..Limits::default() };
    let served = Served::start(router(), limits, None);
    let (mut reading, mut writing) = served.connect().await.into_split();
    let head = b"POST /swallow HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    writing.write_all(head).await.unwrap();
    let trickle = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let mut answer = Vec::new();
    let end = async {
        let _ = reading.read_to_end(&mut answer).await;
    };
    // The writer ends by the reset that follows, or with the reader.
    tokio::select! { () = trickle => {}, () = end => {} }
    drop(writing);
    let _ = reading.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_client_with_too_many_connections_is_told_so() {
    let limits = Limits { connections_per_client_max: 2, ..Limits::default() };
    let served = Served::start(router(), limits, None);
    let mut first = served.connect().await;
    let mut second = served.connect().await;
    for connection in [&mut first, &mut second] {
        assert!(ask(connection, "/").await.starts_with("HTTP/1.1 200"));
    }
    let mut third = served.connect().await;
    let answer = ask(&mut third, "/").await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n") && answer.contains("TOOMANYREQUESTS"));
    assert!(answer.contains("connections_per_client_max allows (2)"), "{answer}");
    closed(&mut third).await;
    // When one has gone, there is room for the next.
    drop(second);
    loop {
        let mut next = served.connect().await;
        if ask(&mut next, "/").await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
}
