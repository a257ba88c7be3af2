//! What the local store needs of the kernel that has no safe form.
//!
//! Four calls: mapping a blob that nobody writes any more, asking for a file's dirty pages to be
//! written out early, and telling the allocator to keep an upload's buffers, or to give back what a
//! collection took. Nothing else in this crate is `unsafe`.

#![expect(unsafe_code, reason = "mmap, sync_file_range and malloc's calls have no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::store::BlobFile;

/// A whole blob in memory, read-only, as long as this value lives.
///
/// Cloning shares the mapping. `bytes::Bytes::from_owner(mapping)` makes slices of it that are
/// never copied, which the front's sockets recognise by their address and send with `sendfile`.
#[derive(Clone, Debug)]
pub struct Mapping {
    pages: Arc<Pages>,
}

#[derive(Debug)]
struct Pages {
    address: *mut std::ffi::c_void,
    len: usize,
    file: File,
}

// SAFETY: the pages are only ever read, and belong to no thread.
unsafe impl Send for Pages {}
// SAFETY: as above: shared reading is all that anyone can do.
unsafe impl Sync for Pages {}

impl Mapping {
    /// Maps a blob of the local store.
    pub(crate) fn of(blob: &BlobFile) -> io::Result<Mapping> {
        let file = blob.file().try_clone()?;
        let len = usize::try_from(blob.size()).map_err(io::Error::other)?;
        if len == 0 {
            let pages = Pages { address: std::ptr::null_mut(), len, file };
            return Ok(Mapping { pages: Arc::new(pages) });
        }
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing. Only the
        // local store makes a `BlobFile`, of files that are complete, read-only by mode, and that
        // no code of ours writes or cuts: the bytes do not change under the slice, and reading
        // them cannot raise SIGBUS. There is no safe way: the kernel cannot forbid another
        // process of the same user to cut the file, and nobody else may write below a root.
        let address = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, &file, 0)?
        };
        Ok(Mapping { pages: Arc::new(Pages { address, len, file }) })
    }

    /// Returns the mapped file, for `sendfile`.
    pub fn file(&self) -> &File {
        &self.pages.file
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        if self.pages.len == 0 {
            return &[];
        }
        // SAFETY: the mapping covers `len` bytes, is readable, and lives as long as `pages`.
        unsafe { std::slice::from_raw_parts(self.pages.address.cast(), self.pages.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: this is the mapping that was made in `of`, and nobody refers to it now.
            let _ = unsafe { munmap(self.address, self.len) };
        }
    }
}

/// Asks the kernel to begin writing out a range of a file, without waiting: so that the sync at
/// the end of a large blob finds little to do. Where the kernel will not, nothing is lost.
pub(crate) fn begin_writeback(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
    // SAFETY: the call takes numbers only, and the descriptor is open while `file` lives.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// The largest block that the allocator takes from its heap and not from the kernel, in bytes.
const HEAP_BLOCK_MAX: i32 = 4 << 20;
/// How much unused memory the heap keeps at its end, in bytes.
const HEAP_SLACK_MAX: i32 = 32 << 20;

/// Makes the allocator keep the buffers of an upload for the next ones: by default each, of some
/// 100 KiB, comes from the kernel and goes back to it, and a fifth of the CPU time of a push is
/// the page faults. For the start of a process, before it has threads.
pub fn keep_buffers() {
    // SAFETY: the calls set two numbers of the allocator's; glibc checks them, and takes its own
    // lock. Where one is refused, things are as they were.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_BLOCK_MAX);
        libc::mallopt(libc::M_TRIM_THRESHOLD, HEAP_SLACK_MAX);
    }
}

/// Gives the memory that the allocator keeps and nobody uses back to the kernel: after work that
/// needed much more of it than what comes next, such as a collection of a server that is idle then.
pub fn give_memory_back() {
    // SAFETY: the call takes a number, and the allocator's own locks; memory in use it leaves alone.
    unsafe { libc::malloc_trim(0) };
}
