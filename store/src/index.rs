//! Where each object lies: RocksDB, always rebuildable from the packs.
//!
//! The index never decides what exists. It is written after the packs are
//! durable and before the commit point, without a sync of its own: a power cut
//! may lose its latest entries, never the packs. How far it has come is told
//! by its generation, the number of the log's last publishing record that it
//! has seen.

use std::path::{Path, PathBuf};

use rocksdb::{DB, Options, WriteBatch};

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
}

/// Changes of the index that happen together.
#[derive(Default)]
pub(crate) struct Batch(Vec<NewPack>);

struct NewPack {
    id: PackId,
    len: u64,
    objects: Vec<(ObjectId, Location)>,
}

impl Batch {
    /// Notes a pack of `len` bytes with its objects.
    pub(crate) fn add(&mut self, id: PackId, len: u64, objects: Vec<(ObjectId, Location)>) {
        self.0.push(NewPack { id, len, objects });
    }
}

impl Index {
    /// Opens the index as it is now; it does not follow later changes.
    pub(crate) fn open_view(path: &Path) -> Result<Self> {
        let failed = |source| Error::Index { path: path.into(), source };
        let options = options().map_err(failed)?;
        DB::open_for_read_only(&options, path, false)
            .map(|db| Self { db, path: path.into(), is_writable: false })
            .map_err(failed)
    }

    /// Opens the index for changes; the caller holds the store's lock.
    pub(crate) fn open_writer(path: &Path) -> Result<Self> {
        let failed = |source| Error::Index { path: path.into(), source };
        let mut options = options().map_err(failed)?;
        options.create_if_missing(true);
        DB::open(&options, path)
            .map(|db| Self { db, path: path.into(), is_writable: true })
            .map_err(failed)
    }

    /// Whether it was opened for changes.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
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

    /// Adds packs with their objects.
    ///
    /// Large changes are also moved out of the write-ahead log, which every
    /// view would have to replay.
    pub(crate) fn write(&self, batch: Batch) -> Result<()> {
        let mut count = 0;
        for NewPack { id, len, objects } in batch.0 {
            let mut changes = WriteBatch::default();
            count += objects.len();
            for (object, location) in objects {
                match object {
                    ObjectId::Blob(key, digest) => {
                        let value = [&digest.as_bytes()[..], &location.to_bytes()].concat();
                        changes.put(key_of(BLOB, key.as_bytes()), value);
                    }
                    ObjectId::Tree(id) => {
                        changes.put(key_of(TREE, id.as_bytes()), location.to_bytes());
                    }
                    ObjectId::Page(id) => {
                        changes.put(key_of(PAGE, id.as_bytes()), location.to_bytes());
                    }
                    // Found through the log, or by reading the packs.
                    ObjectId::State(_) => {}
                }
            }
            changes.put(key_of(PACK, id.as_bytes()), len.to_le_bytes());
            self.db.write(changes).map_err(self.failed())?;
        }
        if count > 10_000 {
            self.db.flush().map_err(self.failed())?;
        }
        Ok(())
    }

    fn get(&self, kind: u8, key: &[u8]) -> Result<Option<rocksdb::DBPinnableSlice<'_>>> {
        self.db.get_pinned(key_of(kind, key)).map_err(self.failed())
    }

    fn failed(&self) -> impl Fn(rocksdb::Error) -> Error {
        |source| Error::Index { path: self.path.clone(), source }
    }

    fn malformed(&self) -> Error {
        Error::MalformedIndex { path: self.path.clone() }
    }
}

fn key_of(kind: u8, key: &[u8]) -> Vec<u8> {
    [&[kind], key].concat()
}

fn options() -> Result<Options, rocksdb::Error> {
    // The write-ahead log is replayed by the next opening; writing it out as a
    // table at each opening and closing would cost every transaction a sync.
    // The wrapper has no setters for these two.
    let text = "avoid_flush_during_recovery=true;avoid_flush_during_shutdown=true";
    let mut options = Options::default().get_options_from_string(text)?;
    // Keys are hashes: nothing is found by order, and nothing compresses.
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
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
