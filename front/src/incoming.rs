//! Bodies on their way between hyper and a service, with what the limits need of them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::observe::Attendance;
use crate::patience::Patience;
use crate::pulse::Pulse;

/// A request's body, which fails where the client sends nothing for too long, or too little.
pub(crate) struct RequestBody {
    inner: Incoming,
    patience: Patience,
    /// Running while we wait for the client; since when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    received: Option<Arc<AtomicU64>>,
}

impl RequestBody {
    pub(crate) fn new(
        inner: Incoming,
        patience: Patience,
        received: Option<Arc<AtomicU64>>,
    ) -> RequestBody {
        RequestBody { inner, patience, waiting: None, received }
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
            let waited = self.waiting.take().map(|(since, _)| since.elapsed());
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.patience.moved(waited.unwrap_or_default(), bytes);
                if let Some(received) = &self.received {
                    received.fetch_add(bytes as u64, Ordering::Relaxed);
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let limit = self.patience.left();
        let (_, waiting) = self
            .waiting
            .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(limit))));
        match waiting.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let error = io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client sends nothing, or too slowly",
                );
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
    request: InFlight,
    attendance: Option<Attendance>,
    /// It gave bytes and was not asked for more since.
    handed: bool,
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
        ResponseBody { inner, request, attendance, handed: false }
    }

    fn taken(&mut self) {
        if std::mem::take(&mut self.handed) {
            self.request.0.taken();
        }
    }

    /// Counts a frame of the body, or its end.
    fn attend(&mut self, frame: Option<&Frame<Bytes>>) {
        let is_end = frame.is_none() || http_body::Body::is_end_stream(&self.inner);
        let Some(attendance) = &mut self.attendance else { return };
        attendance.sent(frame.and_then(Frame::data_ref).map_or(0, Bytes::len));
        if is_end {
            attendance.complete();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.taken();
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.taken();
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.handed = true;
                self.request.0.hand_out();
                self.attend(Some(frame));
            }
            Poll::Ready(None) => self.attend(None),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
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
