//! A TCP connection that sends mapped files by `sendfile` instead of copying them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use boatyard_content::store::Mapping;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::mapped;
use crate::pulse::Pulse;

/// From how many bytes on `sendfile` is worth a system call of its own and a look at the list.
const SENDFILE_MIN: usize = 32 * 1024;

/// How many bytes went by `sendfile`, for tests: nothing else can tell.
#[cfg(test)]
pub(crate) static SENT_BY_KERNEL: std::sync::atomic::AtomicU64 =
    std::sync::atomic::AtomicU64::new(0);

/// A TCP connection, as hyper and rustls see it.
///
/// Vectored writes are looked through for slices of files ([`mapped`]); everything else is the
/// stream's own. What happens is noted in the connection's [`Pulse`].
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

/// What the front of a vectored write is.
enum Front {
    /// So many bytes of a file, from this place on.
    File { mapping: Mapping, offset: u64, len: usize },
    /// So many slices of memory, then a slice of a file.
    MemoryThenFile(usize),
    /// Nothing but memory.
    Memory,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Socket {
        Socket { stream, pulse }
    }

    /// Tries a system call that writes, until it succeeds or the socket takes no more.
    fn poll_write_by(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || write(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn noting(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.pulse.write_blocked(),
            Poll::Ready(result) => self.pulse.written(*result.as_ref().unwrap_or(&0)),
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.pulse.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noting(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match front(bufs) {
            Front::Memory => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
            Front::MemoryThenFile(count) => {
                self.poll_write_by(cx, |stream| send_more(stream, &bufs[..count]))
            }
            Front::File { mapping, offset, len } => {
                self.poll_write_by(cx, |stream| send_file(stream, &mapping, offset, len))
            }
        };
        self.noting(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn front(bufs: &[IoSlice<'_>]) -> Front {
    for (count, slice) in bufs.iter().enumerate() {
        if slice.len() < SENDFILE_MIN {
            continue;
        }
        if let Some((mapping, offset)) = mapped::find(slice) {
            return match first_filled(bufs) {
                first if first == count => Front::File { mapping, offset, len: slice.len() },
                _ => Front::MemoryThenFile(count),
            };
        }
    }
    Front::Memory
}

fn first_filled(bufs: &[IoSlice<'_>]) -> usize {
    bufs.iter().take_while(|slice| slice.is_empty()).count()
}

/// Sends a header in front of a file: `MSG_MORE` lets it share a packet with what follows.
fn send_more(stream: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(stream, bufs, &mut SendAncillaryBuffer::default(), flags)?)
}

fn send_file(
    stream: &TcpStream,
    mapping: &Mapping,
    mut offset: u64,
    len: usize,
) -> io::Result<usize> {
    let sent = rustix::fs::sendfile(stream, mapping.file(), Some(&mut offset), len)?;
    if sent == 0 {
        // The file is shorter than its mapping: somebody cut it. The client must not take what
        // it has for the whole.
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob's file was cut short"));
    }
    #[cfg(test)]
    SENT_BY_KERNEL.fetch_add(sent as u64, std::sync::atomic::Ordering::Relaxed);
    Ok(sent)
}
