//! A store as its readers see it.

mod create;
mod index;
mod index_writer;
pub(crate) mod objects;
mod readahead;
mod refs;

pub(crate) use index::remove_all;
pub(crate) use index_writer::IndexWriter;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::cache::Cache;
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::hash::{BlobKey, BlobRef, Digest, PackId, TreeId};
use crate::index::Index;
use crate::lock::{Lock, Purpose};
use crate::log::{Change, Log, Refs};
use crate::pack::Pack;
use crate::reads::{Counts, Reads};
use crate::state::{State, StateId};
use crate::tree::Tree;
use objects::Piece;
use readahead::Readahead;

/// The first line of STORE/format.
pub(crate) const FORMAT: &str = "cairn store 1, xxh3-128, blake3-256, zstd";

/// Plain bytes of frames that are kept in memory for files: small files in no order find theirs
/// in each other's frames.
const FRAMES_KEPT: usize = 64 << 20;
/// The same for trees, which are kept decoded as well, and of which a walk asks once.
const TREE_FRAMES_KEPT: usize = 16 << 20;
/// Bytes of decoded trees that are kept in memory, roughly.
const TREES_KEPT: usize = 8 << 20;
/// Packs that are kept open.
const PACKS_KEPT: usize = 512;

/// A store: everything that can be read from it, and the way to change it.
///
/// Clones share their caches. Any number of processes may read a store while
/// one changes it; what a `Store` shows of states and tags is as of its
/// opening or the last [`Store::refresh`].
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Frames of packs by their numbers.
type Frames = Cache<(PackId, u32), Arc<Vec<u8>>>;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    log: RwLock<Log>,
    index: Mutex<Option<Arc<Index>>>,
    /// Whether it was checked that the index knows each pack.
    knows_all_packs: Mutex<bool>,
    packs: Cache<PackId, Arc<Pack>>,
    frames: Frames,
    tree_frames: Frames,
    /// Held by whoever decodes one of the frames that share it.
    decoding: [Mutex<()>; 16],
    readahead: Readahead,
    trees: Cache<TreeId, Arc<Tree>>,
    counts: Counts,
}

impl Store {
    /// Opens the store in `path`.
    ///
    /// Reads refs/log; the index is opened when it is first needed, and healed
    /// then when it lags behind the log or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_on(Arc::new(RealDisk), path)
    }

    /// Checks that there is a store in `path`, and that its format is known.
    pub(crate) fn check_format(path: &Path) -> Result<()> {
        let format = path.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text.trim_end() == FORMAT => Ok(()),
            Ok(text) => {
                let found = text.lines().next().unwrap_or("").into();
                Err(Error::UnknownFormat { path: path.into(), found, known: FORMAT })
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotAStore { path: path.into() })
            }
            Err(err) => Err(Error::io(format)(err)),
        }
    }

    /// Like [`Store::open`], on a given disk.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        Self::check_format(path)?;
        let log = Log::read(&path.join("refs/log"))?;
        let inner = Inner {
            path: path.into(),
            disk,
            log: RwLock::new(log),
            index: Mutex::new(None),
            knows_all_packs: Mutex::default(),
            packs: Cache::new(PACKS_KEPT),
            frames: Cache::new(FRAMES_KEPT),
            tree_frames: Cache::new(TREE_FRAMES_KEPT),
            decoding: Default::default(),
            readahead: Readahead::default(),
            trees: Cache::new(TREES_KEPT),
            counts: Counts::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Where the store is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Looks again at what was committed since the store was opened.
    pub fn refresh(&self) -> Result<()> {
        let log = Log::read(&self.inner.log_path())?;
        let has_new_objects = log.published != self.inner.log().published;
        self.inner.set_log(log);
        if has_new_objects {
            self.inner.set_index(None);
            // The disk has the room of a removed pack only when nobody holds it.
            self.inner.packs.clear();
            *self.inner.knows_all_packs.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
        Ok(())
    }

    /// The states, the current one and the tags.
    #[must_use]
    pub fn refs(&self) -> Refs {
        self.inner.log().refs
    }

    /// The state `id`.
    pub fn state(&self, id: StateId) -> Result<State> {
        self.inner.log().refs.states.remove(&id).ok_or(Error::UnknownState(id))
    }

    /// The state that live roots follow.
    pub fn current(&self) -> Result<State> {
        let mut refs = self.inner.log().refs;
        let state = refs.current.and_then(|id| refs.states.remove(&id));
        state.ok_or(Error::NoState)
    }

    /// The directory `id`, verified.
    ///
    /// Costs nothing for a tree that was used lately, else a look-up and the
    /// decompression of one frame.
    pub fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        self.inner.tree(id)
    }

    /// The directories `old` and `new`, verified, of which some or all of the entries that
    /// both have may be missing.
    ///
    /// Costs what differs: of two large directories, a look-up and a frame for each page
    /// of about 32 entries that only one of them has.
    pub fn differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        self.inner.differing(old, new)
    }

    /// Reads part of a blob into `buf`, starting `offset` bytes into it.
    ///
    /// Returns how many bytes were written to the front of `buf`: 0 at or past
    /// the end, fewer than `buf.len()` only when the blob ends inside the
    /// range. Each frame that the range touches is verified by its checksum
    /// when it comes from the disk; the whole blob is not (see
    /// [`Store::read`]).
    pub fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.inner.at_blob(blob, |location| {
            let read = Piece::fill(buf, |done| self.inner.piece(location, offset + done))?;
            if read > 0 && offset + read as u64 == blob.size {
                self.inner.file_ended(location);
            }
            Ok(read)
        })
    }

    /// Whether [`Store::read_ahead`] would read something. Costs nothing.
    #[must_use]
    pub fn wants_to_read_ahead(&self) -> bool {
        self.inner.readahead.wants()
    }

    /// Decodes one frame that readers of files are likely to ask for, if there is such a one:
    /// those behind what [`Store::read_at`] had to wait for. For a thread beside the readers.
    pub fn read_ahead(&self) {
        self.inner.read_ahead();
    }

    /// Gives `each` a whole blob piece by piece, without copying it. Frames are
    /// verified as in [`Store::read_at`].
    pub fn write_to(
        &self,
        blob: &BlobRef,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        // Where gc has moved the blob meanwhile, it goes on behind what was given.
        self.inner.at_blob(blob, |location| {
            while done < blob.size {
                let piece = self.inner.piece(location, done)?;
                each(piece.bytes())?;
                done += piece.bytes().len() as u64;
            }
            Ok(())
        })
    }

    /// Reads a whole blob and verifies it by its digest.
    pub fn read(&self, blob: &BlobRef) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_to(blob, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        if Digest::of(&bytes) != blob.digest {
            return Err(Error::DamagedBlob { key: blob.key });
        }
        Ok(bytes)
    }

    /// Finds a blob by its key alone, and tells what proves it.
    pub fn find_blob(&self, key: BlobKey) -> Result<Option<BlobRef>> {
        let found = self.inner.with_index(|index| index.blob(key))?;
        Ok(found.map(|(digest, location)| BlobRef { key, digest, size: location.len }))
    }

    /// What this store and its clones have read so far.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.inner.counts.reads()
    }

    /// What an upper floor noted with [`crate::Transaction::set_note`]; it may
    /// be lost at any time.
    pub fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.with_index(|index| index.note(key))
    }
}

impl Inner {
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join("refs/log")
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.join("index")
    }

    pub(crate) fn pack_path(&self, id: PackId) -> PathBuf {
        self.path.join(format!("packs/{id}.pack"))
    }

    pub(crate) fn log(&self) -> Log {
        self.log.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_log(&self, log: Log) {
        *self.log.write().unwrap_or_else(PoisonError::into_inner) = log;
    }

    /// Lets go of the files of packs.
    pub(crate) fn forget_packs(&self) {
        self.packs.clear();
    }

    /// Has everything be read from the disk again.
    pub(crate) fn forget_all(&self) {
        self.packs.clear();
        self.frames.clear();
        self.tree_frames.clear();
        self.trees.clear();
    }

    /// Takes the writer's lock and looks at the log as it is now.
    pub(crate) fn lock(&self) -> Result<Lock> {
        self.locked(Lock::take(&self.path, Purpose::Change)?)
    }

    /// Does the same as soon as whoever has the lock lets it go.
    pub(crate) fn wait_for_lock(&self, purpose: Purpose) -> Result<Lock> {
        self.locked(Lock::wait(&self.path, purpose)?)
    }

    fn locked(&self, lock: Lock) -> Result<Lock> {
        let log = Log::read(&self.log_path())?;
        if log.published != self.log().published {
            self.set_index(None);
        }
        self.set_log(log);
        Ok(lock)
    }

    /// Appends to the log; the caller holds the lock.
    pub(crate) fn append(&self, changes: Vec<Change>) -> Result<()> {
        let mut log = self.log();
        log.append(&*self.disk, changes)?;
        self.set_log(log);
        Ok(())
    }
}
