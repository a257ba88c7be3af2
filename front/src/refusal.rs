//! Telling a client that it has too many connections.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tracing::warn;

/// How many clients are told at once; others are cut without a word.
const TOLD_AT_ONCE_MAX: usize = 64;
/// How long one is listened to, so that it sees the answer before the end of the connection.
const LISTEN_MAX: Duration = Duration::from_secs(5);
const LISTEN_BYTES_MAX: u64 = 64 * 1024;
/// How often the log says that clients are refused.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What refuses connections.
#[derive(Debug)]
pub(crate) struct Refusals {
    began: Instant,
    telling: Arc<Semaphore>,
    refused: AtomicU64,
    /// When the log was told last, in milliseconds since the beginning, plus one.
    logged: AtomicU64,
}

impl Refusals {
    pub(crate) fn new() -> Refusals {
        Refusals {
            began: Instant::now(),
            telling: Arc::new(Semaphore::new(TOLD_AT_ONCE_MAX)),
            refused: AtomicU64::new(0),
            logged: AtomicU64::new(0),
        }
    }

    /// Refuses a connection of a client that has `most` already: in HTTP where it is `plain`.
    pub(crate) fn refuse(&self, stream: TcpStream, client: IpAddr, most: usize, plain: bool) {
        self.log(client, most);
        if !plain {
            return;
        }
        if let Ok(permit) = Arc::clone(&self.telling).try_acquire_owned() {
            tokio::spawn(async move {
                // A client that has gone away was told enough.
                let _ = tokio::time::timeout(LISTEN_MAX, tell(stream, most)).await;
                drop(permit);
            });
        }
    }

    fn log(&self, client: IpAddr, most: usize) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.began.elapsed().as_millis() as u64 + 1;
        let last = self.logged.load(Ordering::Relaxed);
        let is_time = last == 0 || now - last >= LOG_EVERY.as_millis() as u64;
        let changed = self.logged.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if is_time && changed.is_ok() {
            warn!(
                %client,
                refused,
                "a client has as many connections as it may \
                 (connections_per_client_max = {most}): further ones are refused"
            );
        }
    }
}

/// Answers whatever the client is about to ask.
async fn tell(mut stream: TcpStream, most: usize) -> io::Result<()> {
    let body = format!(
        "{{\"errors\":[{{\"code\":\"TOOMANYREQUESTS\",\"message\":\"the client has as many \
         connections as connections_per_client_max allows ({most})\",\"detail\":null}}]}}"
    );
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would be a reset, in which the answer can be lost.
    let mut rest = stream.take(LISTEN_BYTES_MAX);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map(drop)
}
