//! Delivering: one envelope after the other, the oldest first, each until it is taken.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use boatyard_upstream::transport::{Outgoing, Payload, TransportError};
use boatyard_upstream::{Clock as _, SystemClock};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::event::MEDIA_TYPE;
use super::{Webhook, Webhooks};

/// The signature of an envelope: `sha256=` and the HMAC of its bytes in hex, as GitHub signs.
const SIGNATURE: HeaderName = HeaderName::from_static("x-boatyard-signature-256");
/// How long to wait after the first failure; each further one waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How much of an answer is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How often what is owed is looked at, where nothing says that there is something.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why an envelope was not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Transport(TransportError),
}

impl Webhooks {
    /// Delivers what one webhook is owed, for ever.
    pub(super) async fn deliver(self: Arc<Webhooks>, hook: Arc<Webhook>) {
        let news = self.news(&hook.name);
        let mut failures = 0;
        loop {
            let (webhooks, name) = (Arc::clone(&self), hook.name.clone());
            let oldest = tokio::task::spawn_blocking(move || webhooks.shelf.oldest(&name)).await;
            let owed = match oldest {
                Ok(Ok(Some(owed))) => owed,
                Ok(Ok(None)) => {
                    let _ = tokio::time::timeout(LOOK_EVERY, news.notified()).await;
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::error!("cannot read what webhook `{}` is owed: {error}", hook.name);
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(_) => return,
            };
            match hook.send(owed.bytes.clone()).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("webhook `{}` takes envelopes again", hook.name);
                    }
                    failures = 0;
                    let webhooks = Arc::clone(&self);
                    let settled = tokio::task::spawn_blocking(move || {
                        webhooks.tally.delivered(owed.events());
                        let settled = owed.settle();
                        webhooks.tally.owed(webhooks.shelf.owed());
                        settled
                    });
                    if let Ok(Err(error)) = settled.await {
                        tracing::error!("webhook `{}`: {error}", hook.name);
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
                Err(refused) => {
                    failures += 1;
                    self.tally.failed();
                    let wait = hook.wait(failures, SystemClock.jitter());
                    if failures == 1 || failures == hook.threshold {
                        tracing::warn!(
                            "webhook `{}` took no envelope, {failures} times now: {}",
                            hook.name,
                            crate::chain::chain(&refused)
                        );
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

impl Webhook {
    /// Returns how long to wait after so many failures in a row. A part of it is left to chance, so
    /// that what failed together does not come back together.
    fn wait(&self, failures: u32, jitter: f64) -> Duration {
        if failures >= self.threshold {
            return self.backoff;
        }
        let doubled = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(16));
        doubled.min(self.backoff).mul_f64(0.5 + jitter / 2.0)
    }

    /// Sends an envelope.
    async fn send(&self, envelope: Bytes) -> Result<(), Refused> {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(secret) = &self.secret {
            let signature = signature(secret.expose().as_bytes(), &envelope);
            if let Ok(signature) = HeaderValue::try_from(signature) {
                headers.insert(SIGNATURE, signature);
            }
        }
        let request = Outgoing {
            method: Method::POST,
            url: self.url.clone(),
            headers,
            payload: Payload::Bytes(envelope),
            unchecked: false,
        };
        let answer = self.transport.send(request).await.map_err(Refused::Transport)?;
        let status = answer.status;
        // What it says does not matter, nor that it says too much.
        let _ = answer.bytes(ANSWER_BYTES_MAX).await;
        if status.is_success() { Ok(()) } else { Err(Refused::Status(status)) }
    }
}

fn signature(secret: &[u8], envelope: &[u8]) -> String {
    use std::fmt::Write as _;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), envelope);
    let mut text = "sha256=".to_owned();
    for byte in tag.as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_hmac_of_the_bytes() {
        // RFC 4231, test case 2.
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(b"Jefe", b"what do ya want for nothing?"), expected);
    }
}
