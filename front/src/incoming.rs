//! Bodies on their way between hyper and a service, with what the limits need of them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::observe::Attendance;
use crate::pulse::Pulse;

/// A request's body, which fails where the client sends nothing for too long.
pub(crate) struct RequestBody {
    inner: Incoming,
    stall_timeout: Duration,
    /// Running while we wait for the client.
    waiting: Option<Pin<Box<Sleep>>>,
    received: Option<Arc<AtomicU64>>,
}

impl RequestBody {
    pub(crate) fn new(
        inner: Incoming,
        stall_timeout: Duration,
        received: Option<Arc<AtomicU64>>,
    ) -> RequestBody {
        RequestBody { inner, stall_timeout, waiting: None, received }
    }

    fn count(&self, frame: &Option<Result<Frame<Bytes>, hyper::Error>>) {
        if let (Some(received), Some(Ok(frame))) = (&self.received, frame) {
            let len = frame.data_ref().map_or(0, Bytes::len);
            received.fetch_add(len as u64, Ordering::Relaxed);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.waiting = None;
            self.count(&frame);
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let limit = self.stall_timeout;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match waiting.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the client sends no more");
                Poll::Ready(Some(Err(axum::Error::new(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// One request in the connection's [`Pulse`], from its header to the end of its answer.
pub(crate) struct InFlight(Arc<Pulse>);

impl InFlight {
    pub(crate) fn begin(pulse: Arc<Pulse>) -> InFlight {
        pulse.begin_request();
        InFlight(pulse)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// An answer's body, with which the request ends.
pub(crate) struct ResponseBody {
    inner: Body,
    _request: InFlight,
    attendance: Option<Attendance>,
}

impl ResponseBody {
    pub(crate) fn new(
        inner: Body,
        request: InFlight,
        mut attendance: Option<Attendance>,
    ) -> ResponseBody {
        if http_body::Body::is_end_stream(&inner)
            && let Some(attendance) = &mut attendance
        {
            attendance.complete();
        }
        ResponseBody { inner, _request: request, attendance }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let is_end = self.inner.is_end_stream();
        if let (Poll::Ready(frame), Some(attendance)) = (&polled, &mut self.attendance) {
            match frame {
                Some(Ok(frame)) => attendance.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => return polled,
                None => attendance.complete(),
            }
            if is_end {
                attendance.complete();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
