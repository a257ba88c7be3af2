//! Writes in progress, as files.
//!
//! ```text
//! ROOT/ingest/<key>/data    the bytes, locked by their writer
//!                  /state   to which offset the saved hash states belong
//!                  /note    announced: others may read `data` while it grows
//! ```
//!
//! `state` is written whole, after `data` was synced. On resume `data` is cut to its offset,
//! unless it was announced since the machine started: then what is in `data` was read by others
//! and is as it was written, so that what lies behind the offset is hashed again and kept. A
//! writer that must begin anew deletes `data` and creates another: it never cuts what is read.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use boatyard_oci::{Algorithm, Digest, Hasher};
use bytes::Bytes;
use fs_err as fs;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::ingest::{Expected, Growing, IngestKey, Landed, Sink};
use crate::lease::{Holding, Lease};
use crate::local::durable::{Staged, make_directories};
use crate::local::layout::shard_name;
use crate::local::lock::{Lock, try_lock};
use crate::local::root::Shared;
use crate::local::{shelves, sys};
use crate::store::{BlobInfo, Doing as _, StoreError};

mod note;

/// After how many bytes the kernel is asked to begin writing them out.
const WRITEBACK_LEN: u64 = 8 * 1024 * 1024;

/// From how many bytes on it pays to hash on a thread beside the one that writes: starting one
/// takes about 20 µs, hashing this much 140.
const SIDE_BY_SIDE_LEN: usize = 256 * 1024;

/// What may lie beside `data`.
const BESIDE: [&str; 3] = ["state", note::NAME, note::STAGED];

/// What stands in `state`.
#[derive(Serialize, Deserialize)]
struct Saved {
    offset: u64,
    hashes: Vec<(String, Vec<u8>)>,
}

/// The writer of one ingest.
pub(crate) struct LocalSink {
    root: Arc<Shared>,
    key: IngestKey,
    data: fs::File,
    lease: Lease,
    hashers: Vec<Hasher>,
    offset: u64,
    written_back: u64,
    unsynced: bool,
}

impl LocalSink {
    /// Begins an ingest, or takes up the one that was put aside.
    pub(crate) fn open(
        root: Arc<Shared>,
        key: IngestKey,
        lease: Lease,
    ) -> Result<LocalSink, StoreError> {
        let data = open_data(&root, &key)?;
        let mut sink = LocalSink {
            root,
            key,
            data,
            lease,
            hashers: vec![Hasher::new(Algorithm::Sha256)],
            offset: 0,
            written_back: 0,
            unsynced: true,
        };
        sink.resume()?;
        Ok(sink)
    }

    fn resume(&mut self) -> Result<(), StoreError> {
        let len = self.data.metadata().doing("look at an ingest")?.len();
        if let Some((offset, hashers)) = self.saved(len)? {
            (self.offset, self.hashers) = (offset, hashers);
        }
        if len > self.offset && note::of(&self.root, &self.key, &self.data)?.is_some() {
            return self.hash_rest();
        }
        if len > self.offset {
            self.root.disk.cut(&self.data, self.offset).doing("cut an ingest")?;
        }
        self.data.seek(SeekFrom::Start(self.offset)).doing("seek in an ingest")?;
        Ok(())
    }

    /// Goes on behind what an earlier writer has written but not saved.
    fn hash_rest(&mut self) -> Result<(), StoreError> {
        self.data.seek(SeekFrom::Start(self.offset)).doing("read an ingest again")?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = self.data.read(&mut buffer).doing("read an ingest again")?;
            if read == 0 {
                return Ok(());
            }
            hash(&mut self.hashers, &[&buffer[..read]]);
            self.offset += read as u64;
        }
    }

    /// Returns what was saved, if it can be relied on: otherwise the ingest begins anew.
    fn saved(&self, len: u64) -> Result<Option<(u64, Vec<Hasher>)>, StoreError> {
        let path = self.root.layout.ingest(&self.key).join("state");
        let Some(bytes) = shelves::read_if_there(&path)? else { return Ok(None) };
        let Ok(saved) = serde_json::from_slice::<Saved>(&bytes) else { return Ok(None) };
        let hashers: Option<Vec<Hasher>> = saved
            .hashes
            .iter()
            .map(|(name, state)| Hasher::restore(name.parse().ok()?, state))
            .collect();
        Ok(hashers
            .filter(|hashers| saved.offset <= len && !hashers.is_empty())
            .map(|hashers| (saved.offset, hashers)))
    }

    /// Returns the digest of what was written, from the running hash or by reading it again.
    fn digest(&mut self, algorithm: Algorithm) -> Result<Digest, StoreError> {
        if let Some(hasher) = self.hashers.iter().find(|hasher| hasher.algorithm() == algorithm) {
            return Ok(hasher.clone().finish());
        }
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; 1 << 20];
        self.data.seek(SeekFrom::Start(0)).doing("read an ingest again")?;
        loop {
            let read = self.data.read(&mut buffer).doing("read an ingest again")?;
            if read == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..read]);
        }
    }

    /// Counts what was written and hashed.
    fn wrote(&mut self, len: u64) {
        self.offset += len;
        self.unsynced = true;
        if self.offset - self.written_back >= WRITEBACK_LEN {
            let len = self.offset - self.written_back;
            sys::begin_writeback(self.data.file(), self.written_back, len);
            self.written_back = self.offset;
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.unsynced {
            self.root.disk.sync(&self.data).doing("sync a blob")?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Gives the file its name. The steps, in order:
    ///
    /// 1. the lease names the digest, so that the collector leaves it alone;
    /// 2. if the blob is there already, its ctime is touched, and these bytes are dropped;
    /// 3. the data's mode forbids writing, which tells readers that it is whole; it is synced;
    /// 4. it is renamed to its name, under the shared lock of the shard;
    /// 5. the shard's directory is synced. Only then does anybody hear of it.
    fn land(&mut self, info: BlobInfo, agreed: &dyn Fn()) -> Result<Landed, StoreError> {
        let layout = &self.root.layout;
        let (blob, shard) = (layout.blob(&info.digest), layout.shard(&info.digest));
        let lock_path = layout.shard_lock(shard_name(&info.digest));
        {
            let _shared = Lock::shared(&lock_path)?;
            self.lease.add(&Holding::Blob(info.digest.clone()))?;
            if shelves::touch(&blob)?.is_some_and(|size| size == info.size) {
                set_mode(&self.data, 0o444)?;
                agreed();
                return Ok(Landed::AlreadyPresent(info));
            }
        }
        set_mode(&self.data, 0o444)?;
        agreed();
        self.sync()?;
        let layout = &self.root.layout;
        make_directories(&*self.root.disk, &shard)?;
        let _shared = Lock::shared(&lock_path)?;
        let directory = layout.ingest(&self.key);
        // First: once `data` has left, another writer of this key may begin anew here.
        for beside in BESIDE {
            self.root.disk.remove_file(&directory.join(beside)).doing("delete an ingest")?;
        }
        self.root.disk.rename(&directory.join("data"), &blob).doing("give a blob its name")?;
        self.root.disk.sync_directory(&shard).doing("sync the directory of a blob")?;
        Ok(Landed::New(info))
    }
}

impl Sink for LocalSink {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn also(&mut self, algorithm: Algorithm) {
        let known = self.hashers.iter().any(|hasher| hasher.algorithm() == algorithm);
        if self.offset == 0 && !known {
            self.hashers.push(Hasher::new(algorithm));
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.root.disk.write(&mut self.data, bytes).doing("write a blob")?;
        hash(&mut self.hashers, &[bytes]);
        self.wrote(bytes.len() as u64);
        Ok(())
    }

    fn write_batch(&mut self, batch: &[Bytes]) -> Result<(), StoreError> {
        let len: usize = batch.iter().map(Bytes::len).sum();
        let (hashers, data, disk) = (&mut self.hashers, &mut self.data, &*self.root.disk);
        let mut write = || batch.iter().try_for_each(|bytes| disk.write(data, bytes));
        let written = if len < SIDE_BY_SIDE_LEN || cores() < 2 {
            hash(hashers, batch);
            write()
        } else {
            write_beside(hashers, batch, write)
        };
        written.doing("write a blob")?;
        self.wrote(len as u64);
        Ok(())
    }

    fn announce(&mut self, note: &Bytes) -> Result<(), StoreError> {
        note::write(&self.root, &self.key, &self.data, note)
    }

    fn save(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        let hashes = self
            .hashers
            .iter()
            .map(|hasher| (hasher.algorithm().name().to_owned(), hasher.save()))
            .collect();
        let saved = Saved { offset: self.offset, hashes };
        let bytes = serde_json::to_vec(&saved).expect("numbers and texts always serialise");
        let mut staged = Staged::new(&*self.root.disk);
        let directory = self.root.layout.ingest(&self.key);
        staged.put(directory.join("state"), &bytes)?;
        staged.publish()?;
        let parent = directory.parent().unwrap_or(&directory);
        self.root.disk.sync_directory(parent).doing("sync the directory of an ingest")
    }

    fn commit(
        mut self: Box<Self>,
        expected: &Expected,
        agreed: &dyn Fn(),
    ) -> Result<Landed, StoreError> {
        let digest = self.digest(expected.algorithm())?;
        let info = BlobInfo { digest, size: self.offset };
        let landed = expected.check(&info).and_then(|()| self.land(info, agreed));
        match &landed {
            // The bytes may be whole: a disk that was full may have room later.
            Err(StoreError::Io { .. }) => {}
            // What stays behind has no meaning, and the collector finds it.
            Ok(Landed::New(_)) => {
                let directory = self.root.layout.ingest(&self.key);
                let _ = self.root.disk.remove_directory(&directory);
            }
            _ => drop(forget(&self.root, &self.key)),
        }
        landed
    }

    fn abort(self: Box<Self>) -> Result<(), StoreError> {
        forget(&self.root, &self.key)
    }
}

/// Hashes pieces, under every algorithm that was asked for.
fn hash<T: AsRef<[u8]>>(hashers: &mut [Hasher], pieces: &[T]) {
    for hasher in hashers {
        pieces.iter().for_each(|bytes| hasher.update(bytes.as_ref()));
    }
}

/// Writes while a second thread hashes: copying into the page cache takes as long as SHA-256.
fn write_beside(
    hashers: &mut [Hasher],
    batch: &[Bytes],
    mut write: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    std::thread::scope(|scope| {
        let started = std::thread::Builder::new().spawn_scoped(scope, || hash(hashers, batch));
        let written = write();
        // Without a second thread the upload fails, as it does without a disk.
        started?.join().map_err(|_| io::Error::other("the hashing thread stopped"))?;
        written
    })
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}

/// Opens the data of an ingest and locks it.
fn open_data(root: &Shared, key: &IngestKey) -> Result<fs::File, StoreError> {
    let directory = root.layout.ingest(key);
    let path = directory.join("data");
    // Between opening and locking, the one who had it may have deleted it: then it begins anew.
    for _ in 0..100 {
        let file = match fs::OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(root, &directory)?;
                match root.disk.create(&path) {
                    Ok(file) => file,
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                        ) =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error).doing("create an ingest"),
                }
            }
            // A landing may have been cut short between making the file read-only and renaming it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                make_writable(&path, key)?;
                continue;
            }
            Err(error) => return Err(error).doing("open an ingest"),
        };
        if !try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
            return Err(StoreError::IngestBusy { key: key.clone() });
        }
        if is_at(&file, &path)? {
            // Root may open what is read-only, so the branch above does not see it.
            set_mode(&file, 0o644)?;
            return Ok(file);
        }
    }
    Err(StoreError::IngestBusy { key: key.clone() })
}

/// Makes the directory of an ingest. What is not saved need not outlive the machine.
fn make_directory(root: &Shared, directory: &Path) -> Result<(), StoreError> {
    match root.disk.make_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(&*root.disk, directory)
        }
        made => made.map(drop).doing("create a directory"),
    }
}

/// Lets a file be written again that a dead writer has made read-only.
fn make_writable(path: &Path, key: &IngestKey) -> Result<(), StoreError> {
    let file = fs::File::open(path).doing("open an ingest")?;
    if !try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
        return Err(StoreError::IngestBusy { key: key.clone() });
    }
    set_mode(&file, 0o644)
}

/// Without the right to write, the data is whole: so its readers are told.
fn set_mode(data: &fs::File, mode: u32) -> Result<(), StoreError> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    data.set_permissions(permissions).doing("change the mode of an ingest")
}

/// Opens an announced ingest for reading.
pub(crate) fn follow(root: &Shared, key: &IngestKey) -> Result<Option<Growing>, StoreError> {
    let file = match fs::File::open(root.layout.ingest(key).join("data")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing("open an ingest"),
    };
    match note::of(root, key, &file)? {
        Some(note) => Growing::in_file(file, note).map(Some),
        None => Ok(None),
    }
}

/// Says whether the path still leads to the open file.
fn is_at(file: &fs::File, path: &Path) -> Result<bool, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let open = file.metadata().doing("look at an ingest")?;
    match fs::metadata(path) {
        Ok(named) => Ok(named.ino() == open.ino() && named.dev() == open.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing("look at an ingest"),
    }
}

/// Opens and locks the data of an ingest that nobody is writing. `None` where somebody is.
fn lock_idle(root: &Shared, key: &IngestKey) -> Result<Option<Option<fs::File>>, StoreError> {
    match fs::File::open(root.layout.ingest(key).join("data")) {
        Ok(file) if try_lock(&file, FlockOperation::NonBlockingLockExclusive)? => {
            Ok(Some(Some(file)))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(None)),
        Err(error) => Err(error).doing("open an ingest"),
    }
}

/// Deletes an ingest that nobody is writing.
pub(crate) fn discard(root: &Shared, key: &IngestKey) -> Result<(), StoreError> {
    match lock_idle(root, key)? {
        Some(_locked) => forget(root, key),
        None => Err(StoreError::IngestBusy { key: key.clone() }),
    }
}

/// Deletes an ingest whose data the caller has locked. The data goes last: until then nobody
/// else can begin anew under this key.
fn forget(root: &Shared, key: &IngestKey) -> Result<(), StoreError> {
    let directory = root.layout.ingest(key);
    for beside in BESIDE {
        root.disk.remove_file(&directory.join(beside)).doing("delete an ingest")?;
    }
    root.disk.remove_file(&directory.join("data")).doing("delete an ingest")?;
    root.disk.remove_directory(&directory).doing("delete an ingest")
}
