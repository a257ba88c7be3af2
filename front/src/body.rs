//! Bodies of answers that are blobs: whole or a range of one, without copying its bytes; and of
//! what is about to become one ([`of_pieces`]).
//!
//! A large blob is mapped into memory and leaves in frames that are slices of the mapping. On a
//! plain connection the socket recognises them and calls `sendfile`; TLS and HTTP/2 read the
//! mapping. Memory that is not in the page cache would make the thread that serves other
//! connections wait for the disk, so each frame is probed first and, where it is cold, read ahead
//! on a blocking thread.

mod arriving;

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use boatyard_content::store::{Blob, BlobFile, Mapping};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use crate::mapped::Listed;

pub use arriving::of_pieces;

/// The most bytes of one frame.
pub const FRAME_MAX: usize = 1024 * 1024;
/// Up to this size a blob is read at once: two system calls instead of a mapping and its end.
const READ_MAX: u64 = 64 * 1024;
/// How far ahead of a cold frame the kernel is asked to read.
const AHEAD: u64 = 8 * 1024 * 1024;

/// Returns the body that sends the bytes of `blob` within `range`. Blocking.
///
/// # Errors
/// Where the file cannot be read or mapped, or `range` does not lie within the blob.
pub fn of_blob(blob: &Blob, range: Range<u64>) -> io::Result<Body> {
    match blob {
        Blob::Memory(bytes) => {
            check(&range, blob.size())?;
            Ok(Body::from(bytes.slice(to_usize(&range)?)))
        }
        Blob::File(file) => of_file(file, range),
    }
}

/// Returns the body that sends the bytes of a blob's file within `range`. Blocking.
///
/// # Errors
/// As [`of_blob`].
pub fn of_file(file: &BlobFile, range: Range<u64>) -> io::Result<Body> {
    check(&range, file.size())?;
    let len = range.end - range.start;
    if len <= READ_MAX {
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.file().read_exact_at(&mut bytes, range.start)?;
        return Ok(Body::from(bytes));
    }
    MappedBlob::of(file)?.body(range)
}

/// A blob that is mapped into memory, from which any number of bodies can be made.
///
/// To open and map a blob costs as much as to send some hundred kilobytes of it: who keeps this
/// saves that for the next request. It keeps the file open, and so its bytes on the disk.
#[derive(Clone, Debug)]
pub struct MappedBlob {
    mapping: Mapping,
    /// All its bytes, listed for the sockets as long as a slice of them lives.
    whole: Bytes,
}

impl MappedBlob {
    /// The fewest bytes for which a mapping pays: see [`of_file`].
    pub const SIZE_MIN: u64 = READ_MAX + 1;

    /// Maps a blob.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn of(file: &BlobFile) -> io::Result<MappedBlob> {
        let mapping = file.map()?;
        let whole = Bytes::from_owner(Listed::new(mapping.clone()));
        Ok(MappedBlob { mapping, whole })
    }

    /// Returns the number of bytes.
    pub fn size(&self) -> u64 {
        self.whole.len() as u64
    }

    /// Returns the body that sends the bytes within `range`. Does not block.
    ///
    /// # Errors
    /// Where `range` does not lie within the blob.
    pub fn body(&self, range: Range<u64>) -> io::Result<Body> {
        check(&range, self.size())?;
        let rest = self.whole.slice(to_usize(&range)?);
        let mapping = self.mapping.clone();
        Ok(Body::new(FileBody { mapping, rest, offset: range.start, reading: None }))
    }
}

fn check(range: &Range<u64>, size: u64) -> io::Result<()> {
    if range.start > range.end || range.end > size {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the range exceeds the blob"));
    }
    Ok(())
}

fn to_usize(range: &Range<u64>) -> io::Result<Range<usize>> {
    let convert = |place: u64| usize::try_from(place).map_err(io::Error::other);
    Ok(convert(range.start)?..convert(range.end)?)
}

/// A range of a mapped file, in frames.
struct FileBody {
    mapping: Mapping,
    /// What is left to send, and the place of its first byte in the file.
    rest: Bytes,
    offset: u64,
    /// The blocking read that makes the next frame warm.
    reading: Option<JoinHandle<io::Result<()>>>,
}

impl FileBody {
    fn next_frame(&mut self) -> Bytes {
        let frame = self.rest.split_to(self.rest.len().min(FRAME_MAX));
        self.offset += frame.len() as u64;
        frame
    }

    fn next_len(&self) -> u64 {
        self.rest.len().min(FRAME_MAX) as u64
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(reading) = &mut self.reading {
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            // The task fails only where the runtime goes down or our code panicked.
            if let Err(error) = read.map_err(io::Error::other).flatten() {
                return Poll::Ready(Some(Err(error)));
            }
            return Poll::Ready(Some(Ok(Frame::data(self.next_frame()))));
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let (offset, len) = (self.offset, self.next_len());
        if is_cold(self.mapping.file(), offset, len) {
            let mapping = self.mapping.clone();
            let read = move || read_ahead(mapping.file(), offset, len);
            self.reading = Some(tokio::task::spawn_blocking(read));
            return self.poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_frame()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Says whether reading there would wait for the disk, as far as its first and last byte tell.
///
/// File systems that cannot say (`EOPNOTSUPP`) are taken for warm: they keep files in memory.
pub(crate) fn is_cold(file: &File, offset: u64, len: u64) -> bool {
    let probe = |place| {
        let mut byte = [0];
        let buffers = &mut [IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(file, buffers, place, ReadWriteFlags::NOWAIT) == Err(Errno::AGAIN)
    };
    probe(offset) || probe(offset + len - 1)
}

/// Brings a frame into the page cache, and has the kernel begin with what follows. Blocking.
pub(crate) fn read_ahead(file: &File, offset: u64, len: u64) -> io::Result<()> {
    const STEP: usize = 128 * 1024;
    // Only advice: without it the frame is still read below.
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(AHEAD), Advice::WillNeed);
    let mut buffer = vec![0; STEP];
    let end = offset + len;
    let mut place = offset;
    while place < end {
        match file.read_at(&mut buffer, place)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => place += read as u64,
        }
    }
    Ok(())
}
