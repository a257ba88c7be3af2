//! Reading ahead: files are read and hashed on several threads, and handed over in order.
//!
//! Small files are read whole before their turn comes, as long as all that waits stays below a limit;
//! large ones flow through in chunks. So the memory that this takes grows neither with the size of a
//! file nor with their number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::hash::CHUNK_BYTES;
use super::origin::open_file_in_context;
use crate::contents::view::OpenFile;
use crate::context::directory::Directory;
use crate::layer::{Content, EntryPath};

/// What may wait to be written.
const WAITING_BYTES_MAX: u64 = 16 << 20;
/// Files may wait by number, too: empty ones weigh nothing.
const WAITING_FILES_MAX: usize = 1024;
/// Chunks of a large file that may wait.
const WAITING_CHUNKS_MAX: usize = 4;

/// A file to be read.
pub(super) struct Job<'a> {
    /// Where its bytes are.
    pub(super) bytes: Bytes<'a>,
    /// How many they were when it was selected.
    pub(super) size: u64,
    /// What they hashed to.
    pub(super) digest: [u8; 32],
}

/// Where bytes are.
pub(super) enum Bytes<'a> {
    Context(&'a Directory, EntryPath),
    Stack { open: &'a OpenFile<'a>, layer: usize, path: EntryPath },
    Spool(&'a File, u64),
    Fetched(&'a File),
    Memory(&'a [u8]),
}

impl Bytes<'_> {
    /// Opens them if they are a file of their own.
    pub(super) fn open_file(&self) -> io::Result<Option<File>> {
        match self {
            Bytes::Context(directory, path) => open_file_in_context(directory, path).map(Some),
            Bytes::Stack { open, layer, path } => open(*layer, path).map(Some),
            // Who reads it by its position is alone with that: others read at an offset.
            Bytes::Fetched(file) => file.try_clone().map(Some),
            Bytes::Spool(..) | Bytes::Memory(_) => Ok(None),
        }
    }
}

/// The files, in the order in which they are wanted.
pub(super) trait Jobs: Sync {
    /// Returns how many there are.
    fn count(&self) -> usize;
    /// Returns one of them.
    fn job(&self, number: usize) -> Option<Job<'_>>;
}

/// Why a file's bytes cannot be had.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// They are not those that were selected.
    Changed,
    Io(io::Error),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        ReadFailure::Io(error)
    }
}

/// The jobs, and how far they are.
struct Shared<'a> {
    jobs: &'a dyn Jobs,
    state: Mutex<State>,
    /// Something was read, or taken.
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// The next job that nobody took.
    next: usize,
    waiting_bytes: u64,
    waiting_files: usize,
    ready: HashMap<usize, Ready>,
    /// Nobody wants more.
    ended: bool,
}

enum Ready {
    Whole(Vec<u8>),
    Chunks(Receiver<Chunk>),
    Failed(ReadFailure),
}

enum Chunk {
    Bytes(Vec<u8>),
    Failed(ReadFailure),
}

/// Hands the files over, in order.
pub(super) struct ReadAhead<'a> {
    shared: &'a Shared<'a>,
    next: usize,
}

/// Reads jobs on threads while `work` takes what they read.
pub(super) fn read_ahead<T>(
    jobs: &dyn Jobs,
    threads: usize,
    work: impl FnOnce(&mut ReadAhead<'_>) -> T,
) -> T {
    let shared = Shared { jobs, state: Mutex::default(), moved: Condvar::new() };
    let threads = threads.max(1).min(jobs.count());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.read());
        }
        let mut ahead = ReadAhead { shared: &shared, next: 0 };
        // However the work ends, those who wait for room are told.
        let _end = End(&shared);
        work(&mut ahead)
    })
}

struct End<'a>(&'a Shared<'a>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        state.ready.clear();
        self.0.moved.notify_all();
    }
}

impl Shared<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one job after the other.
    fn read(&self) {
        while let Some((index, job)) = self.take() {
            if job.weight() < job.size {
                let (sender, receiver) = sync_channel(WAITING_CHUNKS_MAX);
                self.put(index, Ready::Chunks(receiver));
                if let Err(failure) = job.stream(&sender) {
                    // Nobody listens any more if the work ended.
                    let _ = sender.send(Chunk::Failed(failure));
                }
                continue;
            }
            let read = job.whole();
            self.put(index, read.map_or_else(Ready::Failed, Ready::Whole));
        }
    }

    /// Takes the next job as soon as there is room for it. Jobs are taken in the order in which they
    /// are wanted, so whoever waits for one waits for a thread that has room.
    fn take(&self) -> Option<(usize, Job<'_>)> {
        let mut state = self.state();
        loop {
            let job = self.jobs.job(state.next).filter(|_| !state.ended)?;
            let weight = job.weight();
            let alone = state.waiting_files == 0;
            if alone
                || (state.waiting_bytes + weight <= WAITING_BYTES_MAX
                    && state.waiting_files < WAITING_FILES_MAX)
            {
                state.waiting_bytes += weight;
                state.waiting_files += 1;
                state.next += 1;
                return Some((state.next - 1, job));
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, index: usize, ready: Ready) {
        let mut state = self.state();
        if !state.ended {
            state.ready.insert(index, ready);
        }
        self.moved.notify_all();
    }
}

impl<'a> ReadAhead<'a> {
    /// Returns the content of the next file, if that is wanted.
    pub(super) fn next_if(&mut self, wanted: bool) -> Option<Ahead<'a>> {
        let index = self.next;
        let job = if wanted { self.shared.jobs.job(index)? } else { return None };
        self.next += 1;
        let mut state = self.shared.state();
        let ready = loop {
            if let Some(ready) = state.ready.remove(&index) {
                break ready;
            }
            state = self.shared.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        let mut ahead = Ahead {
            shared: self.shared,
            weight: job.weight(),
            digest: job.digest,
            chunk: Vec::new(),
            at: 0,
            chunks: None,
            failure: None,
        };
        match ready {
            Ready::Whole(bytes) => ahead.chunk = bytes,
            Ready::Chunks(chunks) => ahead.chunks = Some(chunks),
            Ready::Failed(failure) => ahead.failure = Some(failure),
        }
        Some(ahead)
    }
}

/// The content of a file that was, or is, read on another thread. It is what was selected: the last
/// bytes are withheld until that is known.
pub(super) struct Ahead<'a> {
    shared: &'a Shared<'a>,
    weight: u64,
    digest: [u8; 32],
    chunk: Vec<u8>,
    at: usize,
    chunks: Option<Receiver<Chunk>>,
    failure: Option<ReadFailure>,
}

impl Ahead<'_> {
    /// Returns why it could not be read, if that is so.
    pub(super) fn failure(&mut self) -> Option<ReadFailure> {
        self.failure.take()
    }
}

impl Read for Ahead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len()
            && let Some(chunks) = &self.chunks
        {
            match chunks.recv() {
                Ok(Chunk::Bytes(bytes)) => (self.chunk, self.at) = (bytes, 0),
                Ok(Chunk::Failed(failure)) => {
                    (self.failure, self.chunks) = (Some(failure), None);
                }
                Err(_) => self.chunks = None,
            }
        }
        if self.failure.is_some() {
            return Err(io::Error::other("the file cannot be read as it was selected"));
        }
        let length = buffer.len().min(self.chunk.len() - self.at);
        buffer[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

impl Content for Ahead<'_> {
    fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.waiting_bytes -= self.weight;
        state.waiting_files -= 1;
        self.shared.moved.notify_all();
    }
}

impl Job<'_> {
    /// Returns the bytes that it takes while it waits.
    fn weight(&self) -> u64 {
        self.size.min(CHUNK_BYTES as u64 * (WAITING_CHUNKS_MAX as u64 + 2))
    }

    fn whole(&self) -> Result<Vec<u8>, ReadFailure> {
        let mut source = self.open()?;
        let length = usize::try_from(self.size).map_err(|_| ReadFailure::Changed)?;
        let mut bytes = vec![0; length + 1];
        let read = fill(&mut source, &mut bytes)?;
        bytes.truncate(read);
        if read != length || blake3::hash(&bytes).as_bytes() != &self.digest {
            return Err(ReadFailure::Changed);
        }
        Ok(bytes)
    }

    /// Sends the file chunk by chunk. The last chunk goes only if all agrees.
    fn stream(&self, sender: &SyncSender<Chunk>) -> Result<(), ReadFailure> {
        let mut source = self.open()?;
        let (mut hasher, mut left) = (blake3::Hasher::new(), self.size);
        while left > 0 {
            let length = CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES));
            let mut bytes = vec![0; length];
            if fill(&mut source, &mut bytes)? != length {
                return Err(ReadFailure::Changed);
            }
            hasher.update(&bytes);
            left -= length as u64;
            let is_last = left == 0;
            if is_last
                && (source.read(&mut [0])? != 0 || hasher.finalize().as_bytes() != &self.digest)
            {
                return Err(ReadFailure::Changed);
            }
            if sender.send(Chunk::Bytes(bytes)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn open(&self) -> io::Result<Opened<'_>> {
        Ok(match &self.bytes {
            Bytes::Fetched(file) => Opened::Spool { file, offset: 0, left: self.size },
            Bytes::Spool(file, offset) => Opened::Spool { file, offset: *offset, left: self.size },
            Bytes::Memory(bytes) => Opened::Memory(bytes),
            bytes => bytes.open_file()?.map_or(Opened::Memory(&[]), Opened::File),
        })
    }
}

enum Opened<'a> {
    File(File),
    Spool { file: &'a File, offset: u64, left: u64 },
    Memory(&'a [u8]),
}

impl Read for Opened<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Opened::File(file) => file.read(buffer),
            Opened::Memory(bytes) => bytes.read(buffer),
            Opened::Spool { file, offset, left } => {
                let length = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let read = file.read_at(&mut buffer[..length], *offset)?;
                *offset += read as u64;
                *left -= read as u64;
                Ok(read)
            }
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match source.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}
