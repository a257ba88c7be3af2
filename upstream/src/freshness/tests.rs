//! Tables: one line, one rule.

use jiff::SignedDuration;

use super::*;

type Pairs<'a> = &'a [(&'static str, &'a str)];

fn headers(pairs: Pairs<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn start() -> Timestamp {
    "1994-11-06T08:49:37Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

fn get(headers: &HeaderMap) -> Request<'_> {
    Request { method: &Method::GET, headers }
}

fn keep(request: Pairs<'_>, status: u16, answer: Pairs<'_>) -> Result<Policy, NotKept> {
    let status = StatusCode::from_u16(status).unwrap();
    Policy::of(get(&headers(request)), status, &headers(answer), start(), start())
}

#[test]
fn what_may_be_kept() {
    let table: [(Pairs<'_>, u16, Pairs<'_>, Option<NotKept>); 19] = [
        (&[], 200, &[], None),
        (&[], 404, &[], None),
        (&[], 302, &[], Some(NotKept::Status)),
        (&[], 302, &[("cache-control", "max-age=1")], None),
        (&[], 500, &[], Some(NotKept::Status)),
        (&[], 206, &[("cache-control", "public")], Some(NotKept::Status)),
        (&[], 304, &[("cache-control", "public")], Some(NotKept::Status)),
        (&[], 200, &[("cache-control", "no-store")], Some(NotKept::NoStore)),
        (&[], 200, &[("cache-control", "no-store, must-understand")], None),
        (&[], 299, &[("cache-control", "public, must-understand")], Some(NotKept::Status)),
        (&[("cache-control", "no-store")], 200, &[], Some(NotKept::NoStore)),
        (&[], 200, &[("cache-control", "private, max-age=9")], Some(NotKept::Private)),
        (&[("authorization", "x")], 200, &[("expires", "0")], Some(NotKept::Authorized)),
        (&[("authorization", "x")], 200, &[("cache-control", "public")], None),
        (&[("authorization", "x")], 200, &[("cache-control", "s-maxage=0")], None),
        (&[("authorization", "x")], 200, &[("cache-control", "must-revalidate")], None),
        (&[], 200, &[("set-cookie", "a=b")], Some(NotKept::Cookie)),
        (&[], 200, &[("vary", "accept, *")], Some(NotKept::Varies)),
        (&[], 200, &[("vary", "accept")], None),
    ];
    for (request, status, answer, expected) in table {
        assert_eq!(keep(request, status, answer).err(), expected, "{status} {answer:?}");
    }
    let post = Request { method: &Method::POST, headers: &HeaderMap::new() };
    let kept = Policy::of(post, StatusCode::OK, &HeaderMap::new(), start(), start());
    assert_eq!(kept.unwrap_err(), NotKept::Method);
}

/// What becomes of an answer after so many seconds: fresh, asked about, sent meanwhile, on error.
fn outcome(answer: Pairs<'_>, request: Pairs<'_>, seconds: i64) -> &'static str {
    let policy = keep(&[], 200, answer).unwrap();
    match decide(&policy, get(&headers(request)), after(seconds)) {
        Decision::Fresh { .. } => "fresh",
        Decision::Revalidate(Conditions { meanwhile: true, on_error: true, .. }) => "meanwhile",
        Decision::Revalidate(Conditions { on_error: true, .. }) => "ask",
        Decision::Revalidate(_) => "must",
        Decision::Unusable(Why::OnlyIfCached) => "504",
        Decision::Unusable(_) => "no",
    }
}

#[test]
fn how_long_an_answer_is_fresh() {
    let now = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    let table: [(Pairs<'_>, i64, &str); 22] = [
        (&[("cache-control", "max-age=60")], 59, "fresh"),
        (&[("cache-control", "max-age=60")], 60, "ask"),
        (&[("cache-control", "max-age=60"), ("age", "50")], 9, "fresh"),
        (&[("cache-control", "max-age=60"), ("age", "50")], 10, "ask"),
        (&[("cache-control", "max-age=60"), ("age", "x")], 59, "fresh"),
        (&[("cache-control", "max-age=60, s-maxage=10")], 9, "fresh"),
        (&[("cache-control", "max-age=60, s-maxage=10")], 10, "must"),
        (&[("cache-control", "max-age=60, must-revalidate")], 59, "fresh"),
        (&[("cache-control", "max-age=60, must-revalidate")], 61, "must"),
        (&[("cache-control", "max-age=60, proxy-revalidate")], 61, "must"),
        (&[("cache-control", "max-age=60, no-cache")], 0, "must"),
        (&[now, ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")], 59, "fresh"),
        (&[now, ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")], 60, "ask"),
        (&[now, ("expires", "0")], 0, "ask"),
        (&[("expires", "soon"), ("cache-control", "max-age=60")], 59, "fresh"),
        (&[now, ("last-modified", "Sun, 06 Nov 1994 08:32:57 GMT")], 99, "fresh"),
        (&[now, ("last-modified", "Sun, 06 Nov 1994 08:32:57 GMT")], 100, "ask"),
        (&[now, ("last-modified", "Sun, 06 Nov 1904 08:32:57 GMT")], 86_399, "fresh"),
        (&[now, ("last-modified", "Sun, 06 Nov 1904 08:32:57 GMT")], 86_400, "ask"),
        (&[("date", "Sun, 06 Nov 1994 08:48:37 GMT"), ("cache-control", "max-age=61")], 0, "fresh"),
        (&[("date", "Sun, 06 Nov 1994 08:48:37 GMT"), ("cache-control", "max-age=60")], 0, "ask"),
        (&[], 0, "ask"),
    ];
    for (answer, seconds, expected) in table {
        assert_eq!(outcome(answer, &[], seconds), expected, "{answer:?} after {seconds} s");
    }
}

#[test]
fn what_a_request_may_ask_for() {
    let minute = "max-age=60";
    let table = [
        (minute, "no-cache", 0, "ask"),
        (minute, "max-age=0", 0, "fresh"),
        (minute, "max-age=0", 1, "ask"),
        (minute, "max-age=30", 30, "fresh"),
        (minute, "max-age=30", 31, "ask"),
        (minute, "min-fresh=10", 49, "fresh"),
        (minute, "min-fresh=10", 50, "ask"),
        (minute, "max-stale", 9999, "fresh"),
        (minute, "max-stale=10", 70, "fresh"),
        (minute, "max-stale=10", 71, "ask"),
        (minute, "max-stale, max-age=65", 66, "ask"),
        ("max-age=60, must-revalidate", "max-stale", 61, "must"),
        ("s-maxage=60", "max-stale", 61, "must"),
        (minute, "only-if-cached", 59, "fresh"),
        (minute, "only-if-cached", 61, "504"),
        ("max-age=60, stale-while-revalidate=10", "", 70, "meanwhile"),
        ("max-age=60, stale-while-revalidate=10", "", 71, "ask"),
        ("max-age=60, stale-while-revalidate=10", "no-cache", 61, "ask"),
        ("max-age=60, stale-while-revalidate=10", "max-age=0", 61, "ask"),
        ("max-age=60, stale-if-error=10", "", 70, "ask"),
        ("max-age=60, stale-if-error=10", "", 71, "must"),
    ];
    for (answer, request, seconds, expected) in table {
        let got = outcome(&[("cache-control", answer)], &[("cache-control", request)], seconds);
        assert_eq!(got, expected, "{answer} / {request} after {seconds} s");
    }
}

#[test]
fn an_answer_serves_the_requests_that_are_alike() {
    let policy = keep(
        &[("accept", "text/html"), ("accept", "*/*")],
        200,
        &[("vary", "Accept,"), ("vary", "x"), ("cache-control", "max-age=9")],
    )
    .unwrap();
    let table: [(Pairs<'_>, bool); 5] = [
        (&[("accept", "text/html"), ("accept", "*/*")], true),
        (&[("accept", "text/html"), ("accept", "*/*"), ("y", "1")], true),
        (&[("accept", "text/html")], false),
        (&[], false),
        (&[("accept", "text/html"), ("accept", "*/*"), ("x", "1")], false),
    ];
    for (request, serves) in table {
        let decision = decide(&policy, get(&headers(request)), start());
        assert_eq!(decision != Decision::Unusable(Why::Varies), serves, "{request:?}");
    }
    let empty = HeaderMap::new();
    let plain = keep(&[], 200, &[("cache-control", "max-age=9")]).unwrap();
    for (method, serves) in [(Method::HEAD, true), (Method::PUT, false)] {
        let decision = decide(&plain, Request { method: &method, headers: &empty }, start());
        assert_eq!(decision != Decision::Unusable(Why::Method), serves, "{method}");
    }
}

#[test]
fn asking_and_being_told_that_it_holds() {
    let modified = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");
    let answer = [("etag", "\"x\""), modified, ("content-length", "7"), ("age", "100")];
    let policy = keep(&[], 200, &answer).unwrap();
    let Decision::Revalidate(asking) = decide(&policy, get(&HeaderMap::new()), after(99_999))
    else {
        panic!("it is old")
    };
    let expected = [("if-none-match", "\"x\""), ("if-modified-since", modified.1)];
    assert_eq!(asking.headers, headers(&expected));

    let told = [("cache-control", "max-age=60"), ("content-length", "0"), ("etag", "\"x\"")];
    let refreshed = policy.refreshed(&headers(&told), after(100_000), after(100_000)).unwrap();
    assert_eq!(refreshed.headers["content-length"], "7", "that is about the bytes");
    assert_eq!(refreshed.headers["last-modified"], modified.1);
    let decision = decide(&refreshed, get(&HeaderMap::new()), after(100_059));
    assert_eq!(decision, Decision::Fresh { age: Duration::from_secs(59) });

    for (tag, holds) in [("\"y\"", false), ("W/\"x\"", true), ("\"x\"", true)] {
        let told = headers(&[("etag", tag)]);
        let refreshed = policy.refreshed(&told, start(), start());
        let kept = refreshed.map(|policy| policy.headers["etag"].clone());
        assert_eq!(kept, holds.then(|| HeaderValue::from_static("\"x\"")), "{tag}");
    }
}
