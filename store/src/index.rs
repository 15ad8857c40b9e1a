//! Where each object lies: RocksDB, always rebuildable from the packs.
//!
//! The index never decides what exists. It is written after the packs are
//! durable and before the commit point, without a sync of its own: a power cut
//! may lose its latest entries, never the packs. How far it has come is told
//! by its generation, the number of the log's last publishing record that it
//! has seen.

use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Options, WriteBatch};

use crate::error::{Error, Result};
use crate::hash::{BlobKey, Digest, PackId, TreeId};
use crate::pack::{Location, ObjectId};

const BLOBS: &str = "blobs";
const TREES: &str = "trees";
const PACKS: &str = "packs";
const NOTES: &str = "notes";
const GENERATION: &[u8] = b"generation";

/// An open index.
#[derive(Debug)]
pub(crate) struct Index {
    db: DB,
    path: PathBuf,
}

/// Changes of the index that happen together.
#[derive(Default)]
pub(crate) struct Batch(Vec<(PackId, u64, Vec<(ObjectId, Location)>)>);

impl Batch {
    /// Notes a pack of `len` bytes with its objects.
    pub(crate) fn add(&mut self, pack: PackId, len: u64, objects: Vec<(ObjectId, Location)>) {
        self.0.push((pack, len, objects));
    }
}

impl Index {
    /// Opens the index as it is now; it does not follow later changes.
    pub(crate) fn open_view(path: &Path) -> Result<Self> {
        let families = families();
        DB::open_cf_descriptors_read_only(&options(), path, families, false)
            .map(|db| Self { db, path: path.into() })
            .map_err(|source| Error::Index { path: path.into(), source })
    }

    /// Opens the index for changes; the caller holds the store's lock.
    pub(crate) fn open_writer(path: &Path) -> Result<Self> {
        let mut options = options();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        DB::open_cf_descriptors(&options, path, families())
            .map(|db| Self { db, path: path.into() })
            .map_err(|source| Error::Index { path: path.into(), source })
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
        let found = self.db.get_pinned_cf(self.family(BLOBS)?, key.as_bytes());
        let Some(bytes) = found.map_err(self.failed())? else { return Ok(None) };
        let (digest, location) = bytes
            .split_first_chunk()
            .and_then(|(digest, rest)| Some((*digest, *rest.as_array()?)))
            .ok_or_else(|| self.malformed())?;
        Ok(Some((Digest::from_bytes(digest), Location::from_bytes(&location))))
    }

    /// Where a tree lies.
    pub(crate) fn tree(&self, id: TreeId) -> Result<Option<Location>> {
        let found = self.db.get_pinned_cf(self.family(TREES)?, id.as_bytes());
        let Some(bytes) = found.map_err(self.failed())? else { return Ok(None) };
        let bytes = bytes.as_array().ok_or_else(|| self.malformed())?;
        Ok(Some(Location::from_bytes(bytes)))
    }

    /// Whether the pack's objects are indexed.
    pub(crate) fn has_pack(&self, id: PackId) -> Result<bool> {
        let found = self.db.get_pinned_cf(self.family(PACKS)?, id.as_bytes());
        Ok(found.map_err(self.failed())?.is_some())
    }

    /// What an upper floor has noted under `key`.
    pub(crate) fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get_cf(self.family(NOTES)?, key).map_err(self.failed())
    }

    /// Keeps a note of an upper floor.
    pub(crate) fn set_note(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.put_cf(self.family(NOTES)?, key, value).map_err(self.failed())
    }

    /// Adds packs with their objects.
    ///
    /// Large changes are also moved out of the write-ahead log, which every
    /// view would have to replay.
    pub(crate) fn write(&self, batch: Batch) -> Result<()> {
        let (blobs, trees, packs) = (self.family(BLOBS)?, self.family(TREES)?, self.family(PACKS)?);
        let mut count = 0;
        for (pack, len, objects) in batch.0 {
            let mut changes = WriteBatch::default();
            count += objects.len();
            for (object, location) in objects {
                match object {
                    ObjectId::Blob(key, digest) => {
                        let value = [&digest.as_bytes()[..], &location.to_bytes()].concat();
                        changes.put_cf(blobs, key.as_bytes(), value);
                    }
                    ObjectId::Tree(id) => {
                        changes.put_cf(trees, id.as_bytes(), location.to_bytes());
                    }
                    // Found through the log, or by reading the packs.
                    ObjectId::State(_) => {}
                }
            }
            changes.put_cf(packs, pack.as_bytes(), len.to_le_bytes());
            self.db.write(changes).map_err(self.failed())?;
        }
        if count > 10_000 {
            for family in [blobs, trees, packs] {
                self.db.flush_cf(family).map_err(self.failed())?;
            }
        }
        Ok(())
    }

    fn family(&self, name: &'static str) -> Result<&ColumnFamily> {
        self.db.cf_handle(name).ok_or_else(|| self.malformed())
    }

    fn failed(&self) -> impl Fn(rocksdb::Error) -> Error {
        |source| Error::Index { path: self.path.clone(), source }
    }

    fn malformed(&self) -> Error {
        Error::MalformedIndex { path: self.path.clone() }
    }
}

fn families() -> Vec<ColumnFamilyDescriptor> {
    [BLOBS, TREES, PACKS, NOTES].map(|name| ColumnFamilyDescriptor::new(name, options())).into()
}

fn options() -> Options {
    let mut options = Options::default();
    // Keys are hashes: nothing is found by order, and nothing compresses.
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(8 << 20);
    options.set_max_total_wal_size(8 << 20);
    options.set_keep_log_file_num(1);
    options.set_log_level(rocksdb::LogLevel::Error);
    // The write-ahead log is replayed by the next opening; writing it out as a
    // table at each opening and closing would cost every transaction a sync.
    options.set_avoid_unnecessary_blocking_io(true);
    options
}
