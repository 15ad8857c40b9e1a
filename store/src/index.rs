//! Where each object lies: RocksDB, always rebuildable from the packs.
//!
//! The index never decides what exists. It is written after the packs are
//! durable and before the commit point, without a sync of its own: a power cut
//! may lose its latest entries, never the packs. How far it has come is told
//! by its generation, the number of the log's last publishing record that it
//! has seen.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};

use crate::error::{Error, Result};
use crate::hash::{BlobKey, Digest, PackId, PageId, TreeId};
use crate::pack::{Location, ObjectId};

// The first byte of a key tells what it is the key of. Column families would
// keep these apart as well, but each costs every opening a sync.
const BLOB: u8 = b'b';
const TREE: u8 = b't';
const PAGE: u8 = b'g';
const PACK: u8 = b'p';
const NOTE: u8 = b'n';
const GENERATION: &[u8] = b"generation";

/// An open index.
#[derive(Debug)]
pub(crate) struct Index {
    db: DB,
    path: PathBuf,
    is_writable: bool,
    /// Write-ahead logs that are there.
    logs: AtomicUsize,
    /// Whether something in it could not be read.
    is_damaged: AtomicBool,
}

/// New packs, and what is no longer there.
#[derive(Default)]
pub(crate) struct Batch {
    packs: Vec<NewPack>,
    moved: Vec<(ObjectId, Location)>,
    forgotten: Vec<ObjectId>,
    removed: Vec<PackId>,
}

struct NewPack {
    id: PackId,
    len: u64,
    objects: Vec<(ObjectId, Location)>,
}

impl Batch {
    /// Notes a pack of `len` bytes with its objects.
    pub(crate) fn add(&mut self, id: PackId, len: u64, objects: Vec<(ObjectId, Location)>) {
        self.packs.push(NewPack { id, len, objects });
    }

    /// Notes that an object of a pack that is known lies somewhere else.
    pub(crate) fn relocate(&mut self, object: ObjectId, location: Location) {
        self.moved.push((object, location));
    }

    /// Forgets where an object lies.
    pub(crate) fn forget(&mut self, object: ObjectId) {
        self.forgotten.push(object);
    }

    /// Forgets a pack, whose objects are moved or forgotten as well.
    pub(crate) fn remove(&mut self, pack: PackId) {
        self.removed.push(pack);
    }
}

/// The wrapper makes a directory that is missing, with those above: where the disk of the store
/// has gone, on another filesystem.
fn check_is_there(directory: &Path) -> Result<()> {
    std::fs::metadata(directory).map(drop).map_err(Error::io(directory))
}

impl Index {
    /// Opens the index as it is now; it does not follow later changes.
    pub(crate) fn open_view(path: &Path) -> Result<Self> {
        let failed = |source| Error::Index { path: path.into(), source };
        check_is_there(path)?;
        let options = options().map_err(failed)?;
        let db = DB::open_for_read_only(&options, path, false).map_err(failed)?;
        Ok(Self::of(db, path, false, 0))
    }

    /// Opens the index for changes; the caller holds the store's lock.
    pub(crate) fn open_writer(path: &Path) -> Result<Self> {
        let failed = |source| Error::Index { path: path.into(), source };
        let mut options = options().map_err(failed)?;
        options.create_if_missing(true);
        let logs = count_logs(path);
        let db = DB::open(&options, path).map_err(failed)?;
        Ok(Self::of(db, path, true, logs))
    }

    /// An empty index in memory, for a disk that has no room for one or cannot be
    /// written; `path` is where it would lie.
    pub(crate) fn in_memory(path: &Path) -> Result<Self> {
        let failed = |source| Error::Index { path: path.into(), source };
        let mut options = options().map_err(failed)?;
        options.set_env(&rocksdb::Env::mem_env().map_err(failed)?);
        options.create_if_missing(true);
        // Only who holds the store's lock may change what others see; nobody sees this one.
        // The wrapper makes the directory that it is told, in the filesystem: one that is there.
        // The memory knows no working directory.
        let absolute = std::path::absolute(path).map_err(Error::io(path))?;
        check_is_there(absolute.parent().unwrap_or(&absolute))?;
        let db = DB::open(&options, absolute.parent().unwrap_or(&absolute)).map_err(failed)?;
        Ok(Self::of(db, path, false, 0))
    }

    fn of(db: DB, path: &Path, is_writable: bool, logs: usize) -> Self {
        let (logs, is_damaged) = (AtomicUsize::new(logs), AtomicBool::new(false));
        Self { db, path: path.into(), is_writable, logs, is_damaged }
    }

    /// Whether it was opened for changes.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something in it could not be read so far.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Number of the last publishing record of the log that was indexed.
    pub(crate) fn generation(&self) -> Result<u64> {
        let Some(bytes) = self.db.get(GENERATION).map_err(self.failed())? else {
            return Ok(0);
        };
        let bytes = bytes.as_slice().try_into().map_err(|_| self.malformed())?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn set_generation(&self, generation: u64) -> Result<()> {
        self.db.put(GENERATION, generation.to_le_bytes()).map_err(self.failed())
    }

    /// Where a blob lies, and what proves it.
    pub(crate) fn blob(&self, key: BlobKey) -> Result<Option<(Digest, Location)>> {
        let Some(bytes) = self.get(BLOB, key.as_bytes())? else { return Ok(None) };
        let (digest, location) = bytes
            .split_first_chunk()
            .and_then(|(digest, rest)| Some((*digest, *rest.as_array()?)))
            .ok_or_else(|| self.malformed())?;
        Ok(Some((Digest::from_bytes(digest), Location::from_bytes(&location))))
    }

    /// Where a tree lies.
    pub(crate) fn tree(&self, id: TreeId) -> Result<Option<Location>> {
        self.location(TREE, id.as_bytes())
    }

    /// Where a page of a tree lies.
    pub(crate) fn page(&self, id: PageId) -> Result<Option<Location>> {
        self.location(PAGE, id.as_bytes())
    }

    fn location(&self, kind: u8, id: &[u8]) -> Result<Option<Location>> {
        let Some(bytes) = self.get(kind, id)? else { return Ok(None) };
        let bytes = bytes.as_array().ok_or_else(|| self.malformed())?;
        Ok(Some(Location::from_bytes(bytes)))
    }

    /// Where an object lies; records of states are not indexed.
    pub(crate) fn location_of(&self, object: ObjectId) -> Result<Option<Location>> {
        match object {
            ObjectId::Blob(key, digest) => {
                let found = self.blob(key)?;
                Ok(found.filter(|(stored, _)| *stored == digest).map(|(_, location)| location))
            }
            ObjectId::Tree(id) => self.tree(id),
            ObjectId::Page(id) => self.page(id),
            ObjectId::State(_) => Ok(None),
        }
    }

    /// The objects that are said to lie in a pack.
    ///
    /// Costs the whole index.
    pub(crate) fn objects_in(&self, pack: PackId) -> Result<Vec<ObjectId>> {
        let mut objects = Vec::new();
        self.each_object(|object, at| {
            if at.pack == pack {
                objects.push(object);
            }
        })?;
        Ok(objects)
    }

    /// Tells `visit` each object and where it is said to lie. All of the index is read, so
    /// that an error also tells of damage elsewhere in it.
    pub(crate) fn each_object(&self, mut visit: impl FnMut(ObjectId, Location)) -> Result<()> {
        for kind in [NOTE, PACK] {
            self.each(kind, |_, _| Some(()))?;
        }
        for kind in [BLOB, TREE, PAGE] {
            self.each(kind, |key, value| {
                let object = match kind {
                    BLOB => {
                        let digest = Digest::from_bytes(*value.first_chunk()?);
                        ObjectId::Blob(BlobKey::from_bytes(*key.as_array()?), digest)
                    }
                    TREE => ObjectId::Tree(TreeId::from_bytes(*key.as_array()?)),
                    _ => ObjectId::Page(PageId::from_bytes(*key.as_array()?)),
                };
                visit(object, Location::from_bytes(value.last_chunk()?));
                Some(())
            })?;
        }
        Ok(())
    }

    /// All packs whose objects are indexed.
    pub(crate) fn packs(&self) -> Result<Vec<PackId>> {
        let mut packs = Vec::new();
        self.each(PACK, |key, _| {
            packs.push(PackId::from_bytes(*key.as_array()?));
            Some(())
        })?;
        Ok(packs)
    }

    /// Tells `visit` key and value of each entry of a kind, until it returns `None`
    /// for one that is malformed.
    fn each(&self, kind: u8, mut visit: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Result<()> {
        let from = IteratorMode::From(&[kind], Direction::Forward);
        for entry in self.db.iterator(from) {
            let (key, value) = entry.map_err(self.failed())?;
            match key.split_first() {
                // Of the kind of pages by its first letter only.
                _ if *key == *GENERATION => {}
                Some((first, rest)) if *first == kind => {
                    visit(rest, &value).ok_or_else(|| self.malformed())?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Forgets packs, and all objects that are said to lie in them.
    ///
    /// Costs the whole index.
    pub(crate) fn forget_packs(&self, gone: &HashSet<PackId>) -> Result<()> {
        let mut changes = WriteBatch::default();
        for kind in [BLOB, TREE, PAGE] {
            self.each(kind, |key, value| {
                let location = Location::from_bytes(value.last_chunk()?);
                if gone.contains(&location.pack) {
                    changes.delete(key_of(kind, key));
                }
                Some(())
            })?;
        }
        for pack in gone {
            changes.delete(key_of(PACK, pack.as_bytes()));
        }
        self.db.write(changes).map_err(self.failed())
    }

    /// Whether the pack's objects are indexed.
    pub(crate) fn has_pack(&self, id: PackId) -> Result<bool> {
        Ok(self.get(PACK, id.as_bytes())?.is_some())
    }

    /// What an upper floor has noted under `key`.
    pub(crate) fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.get(NOTE, key)?.map(|bytes| bytes.to_vec()))
    }

    /// Keeps a note of an upper floor, or forgets it.
    pub(crate) fn set_note(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let key = key_of(NOTE, key);
        match value {
            Some(value) => self.db.put(key, value),
            None => self.db.delete(key),
        }
        .map_err(self.failed())
    }

    /// Makes the changes: first what is new, then what is no longer there.
    ///
    /// Large changes are also moved out of the write-ahead log, which every
    /// view would have to replay; and so is all of it when many small changes
    /// have left a log each.
    pub(crate) fn write(&self, batch: &Batch) -> Result<()> {
        let mut count = 0;
        for NewPack { id, len, objects } in &batch.packs {
            let mut changes = WriteBatch::default();
            count += objects.len();
            objects.iter().for_each(|(object, at)| put(&mut changes, *object, at));
            changes.put(key_of(PACK, id.as_bytes()), len.to_le_bytes());
            self.db.write(changes).map_err(self.failed())?;
        }
        count += batch.moved.len() + batch.forgotten.len();
        for some in batch.moved.chunks(Self::CHANGES) {
            let mut changes = WriteBatch::default();
            some.iter().for_each(|(object, at)| put(&mut changes, *object, at));
            self.db.write(changes).map_err(self.failed())?;
        }
        for some in batch.forgotten.chunks(Self::CHANGES) {
            let mut changes = WriteBatch::default();
            some.iter().filter_map(|object| key_of_object(*object)).for_each(|key| {
                changes.delete(key);
            });
            self.db.write(changes).map_err(self.failed())?;
        }
        let mut changes = WriteBatch::default();
        for pack in &batch.removed {
            changes.delete(key_of(PACK, pack.as_bytes()));
        }
        self.db.write(changes).map_err(self.failed())?;
        if count > 10_000 || self.logs.load(Ordering::Relaxed) >= Self::LOGS {
            self.db.flush().map_err(self.failed())?;
            self.logs.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Changes that are written together at most, which bounds their memory.
    const CHANGES: usize = 50_000;

    /// With so many logs the next change writes them out as a table. Opening a
    /// view costs some 0.1 ms for each of them, writing a table about 10 ms.
    const LOGS: usize = 8;

    fn get(&self, kind: u8, key: &[u8]) -> Result<Option<rocksdb::DBPinnableSlice<'_>>> {
        self.db.get_pinned(key_of(kind, key)).map_err(self.failed())
    }

    fn failed(&self) -> impl Fn(rocksdb::Error) -> Error {
        |source| self.noted(Error::Index { path: self.path.clone(), source })
    }

    fn malformed(&self) -> Error {
        self.noted(Error::MalformedIndex { path: self.path.clone() })
    }

    fn noted(&self, err: Error) -> Error {
        self.is_damaged.fetch_or(err.is_of_damaged_index(), Ordering::Relaxed);
        err
    }
}

impl Drop for Index {
    /// One that was open for changes and is damaged goes: whoever needs it makes it anew.
    fn drop(&mut self) {
        if self.is_writable && self.is_damaged() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// How many write-ahead logs there are; each opening for changes begins one.
fn count_logs(path: &Path) -> usize {
    let Ok(files) = std::fs::read_dir(path) else { return 0 };
    files.flatten().filter(|file| file.file_name().as_encoded_bytes().ends_with(b".log")).count()
}

fn put(changes: &mut WriteBatch, object: ObjectId, location: &Location) {
    let Some(key) = key_of_object(object) else { return };
    match object {
        ObjectId::Blob(_, digest) => {
            changes.put(key, [&digest.as_bytes()[..], &location.to_bytes()].concat());
        }
        _ => changes.put(key, location.to_bytes()),
    }
}

/// `None` for the record of a state, which is found through the log, or by
/// reading the packs.
fn key_of_object(object: ObjectId) -> Option<Vec<u8>> {
    match object {
        ObjectId::Blob(key, _) => Some(key_of(BLOB, key.as_bytes())),
        ObjectId::Tree(id) => Some(key_of(TREE, id.as_bytes())),
        ObjectId::Page(id) => Some(key_of(PAGE, id.as_bytes())),
        ObjectId::State(_) => None,
    }
}

fn key_of(kind: u8, key: &[u8]) -> Vec<u8> {
    [&[kind], key].concat()
}

/// Bytes of blocks of the index that are kept in memory.
const BLOCKS_KEPT: usize = 2 << 20;

fn options() -> Result<Options, rocksdb::Error> {
    // The write-ahead log is replayed by the next opening; writing it out as a
    // table at each opening and closing would cost every transaction a sync.
    // Nor is room taken before it is needed: on a disk that has little, each opening would
    // take all of it, and leave none for what the index is opened for.
    // The wrapper has no setters for these three.
    let text = "avoid_flush_during_recovery=true;avoid_flush_during_shutdown=true;\
                allow_fallocate=false";
    let mut options = Options::default().get_options_from_string(text)?;
    // Keys are hashes: nothing is found by order, and nothing compresses.
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    // Hashes have no neighbours that are asked for next: a cache of a part of them is hardly
    // ever of use, and the kernel has the file.
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(BLOCKS_KEPT));
    options.set_block_based_table_factory(&table);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    // The log that an opening replays is at most this long.
    options.set_write_buffer_size(2 << 20);
    options.set_keep_log_file_num(1);
    options.set_log_level(rocksdb::LogLevel::Error);
    // Sixteen threads would be made to open the few tables, and two for statistics
    // that nobody reads.
    options.set_max_file_opening_threads(1);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_changes_leave_few_logs_to_replay() {
        let home = tempfile::tempdir().unwrap();
        let page = |number: u8| PageId::from_bytes([number; 32]);
        let pack = |number: u8| PackId::from_bytes([number; 16]);
        let location = |number| Location { pack: pack(number), frame: 0, offset: 0, len: 1 };
        for number in 0..40 {
            let index = Index::open_writer(home.path()).unwrap();
            let mut batch = Batch::default();
            batch.add(pack(number), 1, vec![(ObjectId::Page(page(number)), location(number))]);
            index.write(&batch).unwrap();
        }
        let logs = count_logs(home.path());
        assert!((1..=10).contains(&logs), "{logs} logs");
        let view = Index::open_view(home.path()).unwrap();
        for number in 0..40 {
            assert_eq!(view.page(page(number)).unwrap(), Some(location(number)));
        }
    }
}
