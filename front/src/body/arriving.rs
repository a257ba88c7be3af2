//! A body whose bytes are still arriving.
//!
//! Pieces come from whoever brings the object, at the pace at which the client takes them; there
//! is never more than one in memory. As soon as the object is whole, what is left of it leaves as
//! any other blob does: mapped, and by `sendfile` where the connection is plain. Where the pieces
//! end in an error, or too early, the connection is cut: the client cannot take what it has for
//! the whole.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use boatyard_content::Piece;
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::JoinHandle;

type BoxError = Box<dyn Error + Send + Sync>;

/// Returns the body that sends `pieces`, which have `len` bytes in all, where that is known: then
/// the answer has a `Content-Length`, otherwise its end is marked by its framing.
pub fn of_pieces<S, E>(pieces: S, len: Option<u64>) -> Body
where
    S: Stream<Item = Result<Piece, E>> + Send + 'static,
    E: Into<BoxError>,
{
    Body::new(ArrivingBody { step: Step::Pieces(Box::pin(pieces)), left: len })
}

struct ArrivingBody<S> {
    step: Step<S>,
    /// How many bytes are still to be sent, where that is known.
    left: Option<u64>,
}

enum Step<S> {
    Pieces(Pin<Box<S>>),
    /// The blob that the object has become is being mapped.
    Opening(JoinHandle<io::Result<Body>>),
    Rest(Body),
    Ended,
}

impl<S, E> ArrivingBody<S>
where
    S: Stream<Item = Result<Piece, E>>,
    E: Into<BoxError>,
{
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            match &mut self.step {
                Step::Pieces(pieces) => match ready!(pieces.as_mut().poll_next(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    Some(Ok(Piece::Bytes(bytes))) => return Poll::Ready(Some(Ok(bytes))),
                    Some(Ok(Piece::Rest(blob, range))) => {
                        let open = move || super::of_blob(&blob, range);
                        self.step = Step::Opening(tokio::task::spawn_blocking(open));
                    }
                },
                Step::Opening(opening) => match ready!(Pin::new(opening).poll(cx)) {
                    Ok(Ok(body)) => self.step = Step::Rest(body),
                    Ok(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                },
                Step::Rest(body) => {
                    let frame = ready!(Pin::new(body).poll_frame(cx));
                    return Poll::Ready(frame.map(|frame| {
                        // A body of ours has no trailers.
                        Ok(frame?.into_data().unwrap_or_default())
                    }));
                }
                Step::Ended => return Poll::Ready(None),
            }
        }
    }

    /// Counts what is sent; what is too much or too little is an error.
    fn count(
        &mut self,
        bytes: Option<Result<Bytes, BoxError>>,
    ) -> Option<Result<Frame<Bytes>, BoxError>> {
        let wrong = |what| Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what).into()));
        match (bytes, &mut self.left) {
            (Some(Err(error)), _) => Some(Err(error)),
            (None, Some(left)) if *left > 0 => wrong("the pieces ended before the body"),
            (None, _) => None,
            (Some(Ok(bytes)), left) => {
                if let Some(left) = left {
                    let Some(after) = left.checked_sub(bytes.len() as u64) else {
                        return wrong("there are more pieces than the body can have");
                    };
                    *left = after;
                }
                Some(Ok(Frame::data(bytes)))
            }
        }
    }
}

impl<S, E> http_body::Body for ArrivingBody<S>
where
    S: Stream<Item = Result<Piece, E>> + Send,
    E: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let bytes = ready!(self.poll_bytes(cx));
        let frame = self.count(bytes);
        if !matches!(frame, Some(Ok(_))) {
            self.step = Step::Ended;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0) || matches!(self.step, Step::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
