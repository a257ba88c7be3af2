//! Retries: what is worth trying again, and when.
//!
//! The delay before attempt `n` is exponential with full jitter ("full": anything between nothing
//! and the exponential bound), so that many clients which failed together do not return together.
//! A server's `Retry-After` is obeyed as it stands, up to a limit. Chance and time are arguments.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

/// How often and how patiently a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most attempts, the first one included.
    pub attempts_max: u32,
    /// The bound of the first delay; each later bound is twice the one before.
    pub delay_first: Duration,
    /// The largest bound.
    pub delay_max: Duration,
    /// The longest `Retry-After` that is waited for; a longer one makes the request fail at once.
    pub retry_after_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts_max: 5,
            delay_first: Duration::from_millis(250),
            delay_max: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// Returns how long to wait before the next attempt, or `None` where there is to be none.
    ///
    /// `failed` counts the attempts so far, `jitter` lies in `0.0..1.0`.
    pub fn delay(
        &self,
        failed: u32,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> Option<Duration> {
        if failed >= self.attempts_max {
            return None;
        }
        match retry_after {
            Some(asked) => (asked <= self.retry_after_max).then_some(asked),
            None => Some(self.bound(failed).mul_f64(jitter.clamp(0.0, 1.0))),
        }
    }

    fn bound(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(31);
        self.delay_first.saturating_mul(1 << doublings).min(self.delay_max)
    }
}

/// Says whether the same request may succeed a little later.
pub fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns the delay that a `Retry-After` header asks for.
///
/// > "Retry-After = HTTP-date / delay-seconds" (RFC 9110, section 10.2.3)
///
/// A date that has passed is no delay; what is neither is as if it were absent.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_end() {
        let policy = RetryPolicy { attempts_max: 8, ..RetryPolicy::default() };
        let delays: Vec<u128> =
            (1..8).map(|failed| policy.delay(failed, None, 1.0).unwrap().as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 10_000]);
        assert_eq!(policy.delay(8, None, 1.0), None);
        assert_eq!(policy.delay(3, None, 0.0), Some(Duration::ZERO));
        assert_eq!(policy.delay(u32::MAX, None, 1.0), None);
    }

    #[test]
    fn what_the_server_asks_for_is_obeyed_or_given_up() {
        let policy = RetryPolicy::default();
        let minute = Duration::from_secs(60);
        assert_eq!(policy.delay(1, Some(minute), 0.5), Some(minute));
        assert_eq!(policy.delay(1, Some(minute * 60), 0.5), None);
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        let table = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ];
        for (text, expected) in table {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            let seconds = retry_after(&headers, now).map(|delay| delay.as_secs());
            assert_eq!(seconds, expected, "{text}");
        }
    }
}
