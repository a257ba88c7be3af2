//! A plain connection, written to by somebody who frames his own answers.
//!
//! What hyper does for services, the cache proxy's own loop does for itself, because it answers
//! pipelined requests; this is how its bytes leave: memory in one call, with `MSG_MORE` where more
//! follows, and files by `sendfile`. Each wait for the client has a limit.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use boatyard_content::BlobFile;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::body::{FRAME_MAX, is_cold, read_ahead};

/// The writing side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a> {
    stream: &'a TcpStream,
    stall_timeout: Duration,
}

impl<'a> Wire<'a> {
    /// Returns the writing side of a connection whose client may take nothing for so long.
    pub fn new(stream: &'a TcpStream, stall_timeout: Duration) -> Wire<'a> {
        Wire { stream, stall_timeout }
    }

    /// Writes two pieces of memory, one behind the other. With `more`, what follows may share their
    /// last packet.
    ///
    /// # Errors
    /// Where the connection is gone, or the client takes nothing for too long.
    pub async fn write(&self, head: &[u8], body: &[u8], more: bool) -> io::Result<()> {
        let flags = if more { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        let whole = head.len() + body.len();
        let mut written = 0;
        while written < whole {
            let (first, second) = match written.checked_sub(head.len()) {
                None => (&head[written..], body),
                Some(past) => (&body[past..], &[][..]),
            };
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            written += self
                .attempt(|| {
                    let mut control = SendAncillaryBuffer::default();
                    Ok(rustix::net::sendmsg(self.stream, &slices, &mut control, flags)?)
                })
                .await?;
        }
        Ok(())
    }

    /// Sends a range of a blob's file.
    ///
    /// # Errors
    /// As [`Wire::write`]; and where the file is shorter than it was.
    pub async fn send_file(&self, file: &Arc<BlobFile>, range: Range<u64>) -> io::Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(FRAME_MAX as u64);
            if is_cold(file.file(), offset, len) {
                let cold = Arc::clone(file);
                let read = move || read_ahead(cold.file(), offset, len);
                tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
            }
            let end = offset + len;
            while offset < end {
                let most = usize::try_from(end - offset).map_err(io::Error::other)?;
                let sent = self
                    .attempt(|| {
                        let mut from = offset;
                        Ok(rustix::fs::sendfile(self.stream, file.file(), Some(&mut from), most)?)
                    })
                    .await?;
                if sent == 0 {
                    let cut = "a blob's file was cut short";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
                }
                offset += sent as u64;
            }
        }
        Ok(())
    }

    /// Tries a system call that writes, until it does or the client takes nothing for too long.
    async fn attempt(&self, mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match self.stream.try_io(Interest::WRITABLE, &mut write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            }
            let writable = tokio::time::timeout(self.stall_timeout, self.stream.writable());
            writable.await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the client takes no more")
            })??;
        }
    }
}
