//! A catalog as a file, of which opening reads the tables alone.
//!
//! Format: docs/repositories.md, "Catalogs".

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Catalog, Error, Names, Packages, tables};
use crate::metadata::Metadata;
use crate::stone::{self, meta};

const MAGIC: [u8; 8] = *b"CRNCTLG2";

/// Length of what comes before the tables.
const HEADER: usize = 48;

/// Bytes of a place and of an offer.
const PLACE: usize = 24;
const OFFER: usize = 12;

/// What tells whether a catalog was made of a file as it is now: the length
/// and the time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size: u64,
    mtime: i64,
}

impl Stamp {
    /// The stamp of the file at `path`.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let mtime = metadata.mtime().wrapping_mul(1_000_000_000);
        Ok(Self { size: metadata.len(), mtime: mtime.wrapping_add(metadata.mtime_nsec()) })
    }

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..].copy_from_slice(&self.mtime.to_le_bytes());
        bytes
    }
}

/// Packages that are read from a file one by one.
#[derive(Debug)]
pub(super) struct Stored {
    file: File,
    path: PathBuf,
    places: Vec<Place>,
}

/// Where the records of a package lie in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    len: u32,
    records: u32,
    checksum: u64,
}

impl Stored {
    pub(super) fn get(&self, entry: u32) -> Result<Arc<Metadata>, Error> {
        let Place { offset, len, records, checksum } = self.places[entry as usize];
        // It was compared with the length of the file when that was opened.
        let mut bytes = vec![0; len as usize];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|source| Error::Io { path: self.path.clone(), source })?;
        let damaged = || Error::Damaged(self.path.clone());
        if xxh3_64(&bytes) != checksum {
            return Err(damaged());
        }
        let metadata = meta::decode(records, &bytes, &mut Vec::new());
        metadata.map(Arc::new).map_err(|_| damaged())
    }
}

impl Stored {
    /// The numbers of the packages whose records match.
    ///
    /// A package whose bytes have changed may be left out or told of; it fails
    /// when it is read.
    pub(super) fn containing(&self, pattern: &regex::bytes::Regex) -> Result<Vec<u32>, Error> {
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        order.sort_by_key(|at| self.places[*at].offset);
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let begin = self.places[*first].offset;
            let fits = |at: &usize| self.end_of(*at) - begin <= PIECE_LEN;
            let count = rest.iter().take_while(|at| fits(at)).count().max(1);
            let (piece, others) = rest.split_at(count);
            let end = piece.iter().map(|at| self.end_of(*at)).max().unwrap_or(begin);
            // It was compared with the length of the file when that was opened.
            bytes.resize(usize::try_from(end - begin).unwrap_or(usize::MAX), 0);
            self.file.read_exact_at(&mut bytes, begin).map_err(failed)?;
            let mut at = 0;
            while let Some(hit) = pattern.find_at(&bytes, at) {
                // The package in whose records the match begins.
                let offset = begin + hit.start() as u64;
                let after = piece.partition_point(|at| self.places[*at].offset <= offset);
                let Some(owner) = after.checked_sub(1) else { break };
                found.push(u32::try_from(piece[owner]).expect("the count was read from a u32"));
                // No more of this one.
                at = usize::try_from(self.end_of(piece[owner]) - begin).unwrap_or(usize::MAX);
                if at <= hit.start() {
                    at = hit.start() + 1;
                }
                if at >= bytes.len() {
                    break;
                }
            }
            rest = others;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn end_of(&self, entry: usize) -> u64 {
        self.places[entry].offset + u64::from(self.places[entry].len)
    }
}

/// So many bytes of records are read at a time.
const PIECE_LEN: u64 = 4 << 20;

/// The bytes of a file that [`Catalog::open`] opens: a catalog of packages that
/// come from a file with this stamp.
///
/// # Errors
/// What stones cannot hold either, such as a text with a NUL inside.
pub(crate) fn encode(mut packages: Vec<Arc<Metadata>>, stamp: Stamp) -> stone::Result<Vec<u8>> {
    let (Names { text, ends }, offers) = tables(&mut packages);
    let tables = text.len() + ends.len() * (4 + PLACE) + offers.len() * OFFER;
    let mut places = Vec::with_capacity(packages.len() * PLACE);
    let mut entries = Vec::new();
    for package in &packages {
        let (records, plain) = meta::encode(package)?;
        let offset = (HEADER + tables + entries.len()) as u64;
        places.extend(offset.to_le_bytes());
        places.extend(count("bytes of metadata", plain.len())?.to_le_bytes());
        places.extend(records.to_le_bytes());
        places.extend(xxh3_64(&plain).to_le_bytes());
        entries.extend(plain);
    }

    let mut bytes = Vec::with_capacity(HEADER + tables + entries.len());
    bytes.extend(MAGIC);
    bytes.extend([0; 8]);
    bytes.extend(stamp.encode());
    bytes.extend(count("packages", packages.len())?.to_le_bytes());
    bytes.extend(count("providers", offers.len())?.to_le_bytes());
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
    ends.iter().for_each(|end| bytes.extend(end.to_le_bytes()));
    bytes.extend(places);
    for (hash, entry) in &offers {
        bytes.extend(hash.to_le_bytes());
        bytes.extend(entry.to_le_bytes());
    }
    let checksum = xxh3_64(&bytes[16..]);
    bytes[8..16].copy_from_slice(&checksum.to_le_bytes());
    bytes.extend(entries);
    Ok(bytes)
}

fn count(what: &'static str, count: usize) -> stone::Result<u32> {
    u32::try_from(count).map_err(|_| stone::Error::TooMany { what, count })
}

impl Catalog {
    /// Opens the catalog at `path`; `None` if it was not made of a file with
    /// this stamp, or by another version.
    ///
    /// Costs the tables: about 200 bytes for each package. Packages are read
    /// when they are asked for, each with a checksum of its own.
    pub(crate) fn open(path: &Path, stamp: Stamp) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Io { path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER];
        if size < HEADER as u64 {
            return Err(Error::Damaged(path.into()));
        }
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        if header[..8] != MAGIC || header[16..32] != stamp.encode() {
            return Ok(None);
        }
        let count = u64::from(u32_at(&header, 32));
        let offers = u64::from(u32_at(&header, 36));
        let names = u64_at(&header, 40);
        let tables = names.saturating_add(count * (4 + PLACE as u64) + offers * OFFER as u64);
        let read = |file: &File| -> Option<io::Result<Vec<u8>>> {
            if tables > size - HEADER as u64 {
                return None;
            }
            let mut bytes = vec![0; HEADER + usize::try_from(tables).ok()?];
            bytes[..HEADER].copy_from_slice(&header);
            Some(file.read_exact_at(&mut bytes[HEADER..], HEADER as u64).map(|()| bytes))
        };
        let damaged = || Error::Damaged(path.into());
        let bytes = read(&file).ok_or_else(damaged)?.map_err(failed)?;
        if xxh3_64(&bytes[16..]) != u64_at(&header, 8) {
            return Err(damaged());
        }
        let split = |at: u64| usize::try_from(at).map_err(|_| damaged());
        let (text, rest) = bytes[HEADER..].split_at(split(names)?);
        let (ends, rest) = rest.split_at(split(count * 4)?);
        let (places, offers) = rest.split_at(split(count * PLACE as u64)?);

        let text = String::from_utf8(text.to_vec()).map_err(|_| damaged())?;
        let ends: Vec<u32> = ends.chunks_exact(4).map(|row| u32_at(row, 0)).collect();
        let names = Names::checked(text, ends).ok_or_else(damaged)?;
        let places: Vec<Place> = places.chunks_exact(PLACE).map(Place::decode).collect();
        let row = |row: &[u8]| (u64_at(row, 0), u32_at(row, 8));
        let offers: Vec<(u64, u32)> = offers.chunks_exact(OFFER).map(row).collect();
        let fits = |place: &Place| {
            place.offset.checked_add(place.len.into()).is_some_and(|end| end <= size)
        };
        if !places.iter().all(fits) || offers.iter().any(|row| u64::from(row.1) >= count) {
            return Err(damaged());
        }
        let packages = Packages::Stored(Stored { file, path: path.into(), places });
        Ok(Some(Self { names, offers, packages }))
    }
}

impl Place {
    fn decode(row: &[u8]) -> Self {
        let (offset, len) = (u64_at(row, 0), u32_at(row, 8));
        Self { offset, len, records: u32_at(row, 12), checksum: u64_at(row, 16) }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("rows are long enough"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("rows are long enough"))
}
