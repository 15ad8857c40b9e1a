//! A store as its readers see it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::cache::Cache;
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::hash::{BlobKey, BlobRef, Digest, PackId, PageId, TreeId};
use crate::index::{Batch, Index};
use crate::lock::Lock;
use crate::log::{Change, Log, Refs};
use crate::pack::{FRAME_LEN, Location, Pack};
use crate::state::{State, StateId, Tag};
use crate::tree::Tree;

/// The first line of STORE/format.
const FORMAT: &str = "cairn store 1, xxh3-128, blake3-256, zstd";

/// Plain bytes of frames that are kept in memory.
const FRAMES_KEPT: usize = 32 << 20;
/// Bytes of decoded trees that are kept in memory, roughly.
const TREES_KEPT: usize = 32 << 20;
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

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    log: RwLock<Log>,
    index: Mutex<Option<Arc<Index>>>,
    /// Whether it was checked that the index knows each pack.
    knows_all_packs: AtomicBool,
    packs: Cache<PackId, Arc<Pack>>,
    frames: Cache<(PackId, u32), Arc<Vec<u8>>>,
    trees: Cache<TreeId, Arc<Tree>>,
}

impl Store {
    /// Makes an empty store in `path`, which must not exist or be empty, or hold
    /// what an interrupted call of this left. Only its owner may look into it.
    pub fn create(path: &Path) -> Result<Self> {
        Self::create_on(Arc::new(RealDisk), path)
    }

    /// Like [`Store::create`], on a given disk.
    pub fn create_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let make = |path: &Path| disk.create_directory(path).map_err(Error::io(path));
        if path.is_dir() {
            if !is_unfinished(path).map_err(Error::io(path))? {
                return Err(Error::NotEmpty { path: path.into() });
            }
        } else if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
            make(path)?;
            disk.sync_directory(parent).map_err(Error::io(parent))?;
        }
        // Packs hold the files of all users, and a key opens every one of them.
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(Error::io(path))?;
        make(&path.join("run"))?;
        let lock = Lock::take(path)?;
        // Another process may have made the store before it gave the lock away.
        if !is_unfinished(path).map_err(Error::io(path))? {
            return Err(Error::NotEmpty { path: path.into() });
        }
        for name in ["packs", "packs/new", "refs", "cache"] {
            make(&path.join(name))?;
        }
        let log = path.join("refs/log");
        let (format, temporary) = (path.join("format"), path.join("format.new"));
        for leftover in [&log, &temporary] {
            match disk.remove(leftover) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(leftover)(err));
                }
                _ => {}
            }
        }
        disk.create(&log).and_then(|mut file| file.sync()).map_err(Error::io(&log))?;
        // The format file makes it a store, so it comes last.
        disk.create(&temporary)
            .and_then(|mut file| {
                file.write_at(format!("{FORMAT}\n").as_bytes(), 0)?;
                file.sync()
            })
            .map_err(Error::io(&temporary))?;
        for directory in ["packs", "refs"].map(|name| path.join(name)) {
            disk.sync_directory(&directory).map_err(Error::io(&directory))?;
        }
        disk.rename(&temporary, &format).map_err(Error::io(&format))?;
        disk.sync_directory(path).map_err(Error::io(path))?;
        drop(lock);
        Self::open_on(disk, path)
    }

    /// Opens the store in `path`.
    ///
    /// Reads refs/log; the index is opened when it is first needed, and healed
    /// then when it lags behind the log or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_on(Arc::new(RealDisk), path)
    }

    /// Like [`Store::open`], on a given disk.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let format = path.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text.trim_end() == FORMAT => {}
            Ok(text) => {
                let found = text.lines().next().unwrap_or("").into();
                return Err(Error::UnknownFormat { path: path.into(), found, known: FORMAT });
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotAStore { path: path.into() });
            }
            Err(err) => return Err(Error::io(format)(err)),
        }
        let log = Log::read(&path.join("refs/log"))?;
        let inner = Inner {
            path: path.into(),
            disk,
            log: RwLock::new(log),
            index: Mutex::new(None),
            knows_all_packs: AtomicBool::new(false),
            packs: Cache::new(PACKS_KEPT),
            frames: Cache::new(FRAMES_KEPT),
            trees: Cache::new(TREES_KEPT),
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
            self.inner.knows_all_packs.store(false, Ordering::Relaxed);
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

    /// Reads part of a blob into `buf`, starting `offset` bytes into it.
    ///
    /// Returns how many bytes were written to the front of `buf`: 0 at or past
    /// the end, fewer than `buf.len()` only when the blob ends inside the
    /// range. Each frame that the range touches is verified by its checksum
    /// when it comes from the disk; the whole blob is not (see
    /// [`Store::read`]).
    pub fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let location = self.inner.locate(blob)?;
        let mut done = 0;
        while done < buf.len() {
            let piece = self.inner.piece(&location, offset + done as u64)?;
            if piece.is_empty() {
                break;
            }
            let bytes = piece.bytes();
            let len = bytes.len().min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&bytes[..len]);
            done += len;
        }
        Ok(done)
    }

    /// Reads a whole blob and verifies it by its digest.
    pub fn read(&self, blob: &BlobRef) -> Result<Vec<u8>> {
        let bytes = self.inner.object(&self.inner.locate(blob)?)?;
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

    /// What an upper floor noted with [`crate::Transaction::set_note`]; it may
    /// be lost at any time.
    pub fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.index()?.note(key)
    }

    /// Makes an existing state the current one.
    ///
    /// Costs one record of refs/log, whatever the two states hold.
    pub fn switch(&self, id: StateId) -> Result<State> {
        let _lock = self.inner.lock()?;
        let state = self.state(id)?;
        self.inner.append(vec![Change::Current(id)])?;
        Ok(state)
    }

    /// Gives a state a name that keeps it; an existing tag moves.
    pub fn tag(&self, tag: Tag, id: StateId) -> Result<()> {
        let _lock = self.inner.lock()?;
        self.state(id)?;
        self.inner.append(vec![Change::Tag(tag, id)])
    }

    /// Removes a tag.
    pub fn untag(&self, tag: &Tag) -> Result<()> {
        let _lock = self.inner.lock()?;
        if !self.inner.log().refs.tags.contains_key(tag) {
            return Err(Error::UnknownTag(tag.clone()));
        }
        self.inner.append(vec![Change::Untag(tag.clone())])
    }

    /// Removes states, all or none; what only they hold is left to gc.
    ///
    /// # Errors
    /// [`Error::StateIsCurrent`] and [`Error::StateIsTagged`] protect what is
    /// in use.
    pub fn remove_states(&self, ids: &[StateId]) -> Result<()> {
        let _lock = self.inner.lock()?;
        let refs = self.inner.log().refs;
        let mut changes = Vec::new();
        for id in ids {
            if !refs.states.contains_key(id) {
                return Err(Error::UnknownState(*id));
            }
            if refs.current == Some(*id) {
                return Err(Error::StateIsCurrent(*id));
            }
            if let Some((tag, _)) = refs.tags.iter().find(|(_, tagged)| *tagged == id) {
                return Err(Error::StateIsTagged { state: *id, tag: tag.clone() });
            }
            if !changes.contains(&Change::Remove(*id)) {
                changes.push(Change::Remove(*id));
            }
        }
        self.inner.append(changes)
    }

    /// Makes the whole index anew from the packs alone.
    ///
    /// Packs that cannot be read are left out and returned with the reason.
    pub fn rebuild_index(&self) -> Result<Vec<Error>> {
        let _lock = self.inner.lock()?;
        self.inner.set_index(None);
        let (_, damaged) = self.inner.rebuild(&self.inner.log())?;
        Ok(damaged)
    }
}

/// Whether a directory holds nothing but what [`Store::create_on`] makes before the
/// format file: no state, and no pack.
fn is_unfinished(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let is_ours = ["packs", "refs", "run", "cache", "format.new"].iter().any(|it| name == *it);
        if !is_ours {
            return Ok(false);
        }
    }
    let has_packs = match fs::read_dir(path.join("packs")) {
        Ok(packs) => packs.flatten().any(|entry| entry.file_name() != "new"),
        Err(err) if err.kind() == io::ErrorKind::NotFound => false,
        Err(err) => return Err(err),
    };
    let has_states = match fs::metadata(path.join("refs/log")) {
        Ok(log) => log.len() > 0,
        Err(err) if err.kind() == io::ErrorKind::NotFound => false,
        Err(err) => return Err(err),
    };
    Ok(!has_packs && !has_states)
}

/// Plain bytes of one frame from some offset on.
pub(crate) struct Piece {
    frame: Option<Arc<Vec<u8>>>,
    from: usize,
    to: usize,
}

impl Piece {
    fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    fn bytes(&self) -> &[u8] {
        self.frame.as_ref().map_or(&[], |frame| &frame[self.from..self.to])
    }
}

impl Inner {
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join("refs/log")
    }

    fn index_path(&self) -> PathBuf {
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

    fn index_slot(&self) -> MutexGuard<'_, Option<Arc<Index>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_index(&self, index: Option<Arc<Index>>) {
        *self.index_slot() = index;
    }

    /// Takes the writer's lock and looks at the log as it is now.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let lock = Lock::take(&self.path)?;
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

    /// The index, opened if it is not yet.
    pub(crate) fn index(&self) -> Result<Arc<Index>> {
        let mut slot = self.index_slot();
        if let Some(index) = &*slot {
            return Ok(index.clone());
        }
        let index = Arc::new(self.open_view()?);
        *slot = Some(index.clone());
        Ok(index)
    }

    /// Opens a view of the index; one that lags or is damaged is healed first,
    /// unless a writer is at work, who has done so itself.
    fn open_view(&self) -> Result<Index> {
        let path = self.index_path();
        let lags = match Index::open_view(&path).and_then(|index| Ok((index.generation()?, index)))
        {
            Ok((generation, index)) if generation == self.log().published => return Ok(index),
            Ok((generation, index)) => {
                // What this store shows of the log may be older than the index:
                // it is as of the last refresh.
                let log = Log::read(&self.log_path())?;
                self.check_generation(&log, generation)?;
                if generation == log.published {
                    return Ok(index);
                }
                Some(index)
            }
            Err(_) => None,
        };
        match (Lock::take(&self.path), lags) {
            (Ok(_lock), _) => {
                drop(self.open_writer(&Log::read(&self.log_path())?)?);
                Index::open_view(&path)
            }
            // Another process commits just now, or this one may not write.
            (Err(_), Some(index)) => Ok(index),
            (Err(Error::Locked { .. }), None) => Index::open_view(&path),
            (Err(err), None) => Err(err),
        }
    }

    fn check_generation(&self, log: &Log, generation: u64) -> Result<()> {
        if generation > log.published {
            let (path, found) = (self.log_path(), log.published);
            return Err(Error::LostRecords { path, found, expected: generation });
        }
        Ok(())
    }

    /// Opens the index for writing, healed; the caller holds the lock and has
    /// read `log` since.
    pub(crate) fn open_writer(&self, log: &Log) -> Result<Index> {
        let opened = Index::open_writer(&self.index_path())
            .and_then(|index| Ok((index.generation()?, index)));
        let (generation, index) = match opened {
            Ok(opened) => opened,
            Err(err) if err.is_of_the_machine() => return Err(err),
            Err(_) => return Ok(self.rebuild(log)?.0),
        };
        self.check_generation(log, generation)?;
        if generation < log.published {
            self.index_packs(&index)?;
            index.set_generation(log.published)?;
        }
        Ok(index)
    }

    /// Makes the index anew; the caller holds the lock.
    fn rebuild(&self, log: &Log) -> Result<(Index, Vec<Error>)> {
        let path = self.index_path();
        match fs::remove_dir_all(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(Error::io(path)(err)),
            _ => {}
        }
        let index = Index::open_writer(&path)?;
        let damaged = self.index_packs(&index)?;
        index.set_generation(log.published)?;
        Ok((index, damaged))
    }

    /// Adds every pack that the index does not know, and returns why some
    /// could not be read.
    fn index_packs(&self, index: &Index) -> Result<Vec<Error>> {
        let mut damaged = Vec::new();
        for id in self.list_packs()? {
            if index.has_pack(id)? {
                continue;
            }
            let path = self.pack_path(id);
            match Pack::open(&path, id).and_then(|pack| pack.objects()) {
                Ok(objects) => {
                    let len = fs::metadata(&path).map_err(Error::io(&path))?.len();
                    let mut batch = Batch::default();
                    batch.add(id, len, objects);
                    index.write(batch)?;
                }
                Err(err) => damaged.push(err),
            }
        }
        Ok(damaged)
    }

    /// The ids of all packs that lie in the store, sorted.
    pub(crate) fn list_packs(&self) -> Result<Vec<PackId>> {
        let directory = self.path.join("packs");
        let mut packs: Vec<PackId> = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let name = entry.map_err(Error::io(&directory))?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".pack"));
            packs.extend(id.and_then(|id| id.parse::<PackId>().ok()));
        }
        packs.sort_unstable();
        Ok(packs)
    }

    /// Looks something up; when it is not found, looks again in a new view,
    /// since it may have been committed after the present one was opened.
    pub(crate) fn with_index<T>(
        &self,
        look_up: impl Fn(&Index) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let index = self.index()?;
        match look_up(&index) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) if self.is_current(&index) => return Ok(None),
            // A view may also meet a table that the writer has removed.
            Ok(None) | Err(_) => {}
        }
        let mut slot = self.index_slot();
        if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &index)) {
            *slot = None;
        }
        drop((slot, index));
        look_up(&*self.index()?)
    }

    /// Looks up something that a tree or a state refers to. If it is not there,
    /// the index may have lost entries: packs that it does not know are read.
    fn find<T>(&self, look_up: impl Fn(&Index) -> Result<Option<T>>) -> Result<Option<T>> {
        let found = self.with_index(&look_up)?;
        if found.is_some() || self.knows_all_packs.swap(true, Ordering::Relaxed) {
            return Ok(found);
        }
        let index = self.index()?;
        let mut unknown = false;
        for pack in self.list_packs()? {
            unknown |= !index.has_pack(pack)?;
        }
        if !unknown {
            return Ok(None);
        }
        if index.is_writable() {
            self.index_packs(&index)?;
        } else {
            let _lock = Lock::take(&self.path)?;
            self.set_index(None);
            drop(index);
            self.index_packs(&self.open_writer(&Log::read(&self.log_path())?)?)?;
        }
        self.with_index(look_up)
    }

    /// Whether nothing can have been published that `index` does not show.
    fn is_current(&self, index: &Index) -> bool {
        let Ok(log) = Log::read(&self.log_path()) else { return false };
        index.generation().is_ok_and(|generation| generation == log.published)
    }

    pub(crate) fn pack(&self, id: PackId) -> Result<Arc<Pack>> {
        if let Some(pack) = self.packs.get(&id) {
            return Ok(pack);
        }
        let pack = Arc::new(Pack::open(&self.pack_path(id), id)?);
        self.packs.insert(id, pack.clone(), 1);
        Ok(pack)
    }

    fn frame(&self, pack: PackId, number: u32) -> Result<Arc<Vec<u8>>> {
        if let Some(frame) = self.frames.get(&(pack, number)) {
            return Ok(frame);
        }
        let frame = Arc::new(self.pack(pack)?.frame(number)?);
        self.frames.insert((pack, number), frame.clone(), frame.len());
        Ok(frame)
    }

    /// The bytes of an object from `offset` to the end of the frame or object.
    pub(crate) fn piece(&self, location: &Location, offset: u64) -> Result<Piece> {
        if offset >= location.len {
            return Ok(Piece { frame: None, from: 0, to: 0 });
        }
        let rest = location.len - offset;
        let number = u64::from(location.frame) + offset / FRAME_LEN as u64;
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let frame = self.frame(location.pack, number)?;
        let within = usize::try_from(offset % FRAME_LEN as u64).expect("it is below FRAME_LEN");
        let from = location.offset as usize + within;
        let to = usize::try_from(rest).map_or(frame.len(), |rest| frame.len().min(from + rest));
        let is_whole = to - from.min(to) == usize::try_from(rest).unwrap_or(usize::MAX);
        if from >= to || (!is_whole && from + FRAME_LEN - within != to) {
            let (pack, problem) = (location.pack, "it is shorter than an object in it");
            return Err(Error::DamagedFrame { pack, frame: number, problem });
        }
        Ok(Piece { frame: Some(frame), from, to })
    }

    pub(crate) fn locate(&self, blob: &BlobRef) -> Result<Location> {
        let key = blob.key;
        match self.find(|index| index.blob(key))? {
            Some((digest, location)) if digest == blob.digest && location.len == blob.size => {
                Ok(location)
            }
            Some(_) => Err(Error::DamagedBlob { key }),
            None => Err(Error::MissingBlob { key }),
        }
    }

    pub(crate) fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        if let Some(tree) = self.trees.get(&id) {
            return Ok(tree);
        }
        let location = self.find(|index| index.tree(id))?.ok_or(Error::MissingTree { id })?;
        let bytes = self.object(&location)?;
        if TreeId::of(&bytes) != id {
            return Err(Error::DamagedTree { id });
        }
        let mut weight = 2 * bytes.len();
        let tree = Tree::decode(&bytes, |id| {
            let location = self.find(|index| index.page(id))?;
            let bytes = self.object(&location.ok_or(Error::MissingPage { id })?)?;
            if PageId::of(&bytes) != id {
                return Err(Error::DamagedPage { id });
            }
            weight += 2 * bytes.len();
            Ok(bytes)
        })?;
        let tree = Arc::new(tree);
        self.trees.insert(id, tree.clone(), weight);
        Ok(tree)
    }

    /// All bytes of an object.
    fn object(&self, location: &Location) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let piece = self.piece(location, bytes.len() as u64)?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(piece.bytes());
        }
    }
}
