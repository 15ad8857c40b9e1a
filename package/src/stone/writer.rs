//! Makes a package.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::{Seek, Write};

use cairn_store::{BlobHasher, BlobKey, BlobRef};

use super::encode::{Encoding, Table, write_content};
use super::error::{Error, Result};
use super::header::{FileType, PayloadKind, Prelude};
use super::layout::{self, Extra, Layout, LayoutContent};
use super::meta;
use super::package::{Attribute, IndexRecord};
use super::source::Source;
use crate::metadata::Metadata;

/// Makes a package.
///
/// The output depends only on what is given and its order, and on the version
/// of the zstd library.
#[derive(Debug)]
pub struct Builder {
    /// What the package says of itself.
    pub metadata: Metadata,
    /// Its entries, which are written in this order.
    pub layout: Vec<Layout>,
    /// Pairs of key and value, reserved by the format.
    pub attributes: Vec<Attribute>,
    /// Whether Cairn's payload with the BLAKE3 of each file is written, as it
    /// is unless somebody sets this to `false`.
    pub digests: bool,
    sources: HashMap<BlobKey, (BlobRef, Source)>,
}

impl Builder {
    /// Begins a package without entries.
    #[must_use]
    pub fn new(metadata: Metadata) -> Self {
        let (layout, attributes, sources) = (Vec::new(), Vec::new(), HashMap::new());
        Self { metadata, layout, attributes, digests: true, sources }
    }

    /// Reads and hashes the bytes of a file, and keeps `source` until
    /// [`Self::write`] unless it has the same bytes already.
    ///
    /// The key of what is returned goes into [`LayoutContent::Regular`].
    ///
    /// # Errors
    /// - [`Error::File`], [`Error::Read`]: the source cannot be read.
    /// - [`Error::Collision`]: another file has the same key and other bytes.
    pub fn add_source(&mut self, source: Source) -> Result<BlobRef> {
        let mut hasher = BlobHasher::default();
        source.for_each_piece(|piece| hasher.update(piece))?;
        let blob = hasher.finish();
        self.add_hashed(blob, source)?;
        Ok(blob)
    }

    /// Like [`Self::add_source`] for bytes that the caller has hashed.
    ///
    /// # Errors
    /// [`Error::Collision`]: another file has the same key and other bytes.
    pub fn add_hashed(&mut self, blob: BlobRef, source: Source) -> Result<()> {
        let (first, _) = self.sources.entry(blob.key).or_insert((blob, source));
        if *first == blob { Ok(()) } else { Err(Error::Collision(blob.key)) }
    }

    /// Writes the package from the position of `to` on, and leaves the
    /// position at its end.
    ///
    /// Contents come in the order of their size, the largest first, and among
    /// equal sizes in that of the entries. Contents that no entry has are left
    /// out. A payload that would have no records is left out as well.
    ///
    /// # Errors
    /// - What a package cannot hold, by the names of the entries.
    /// - [`Error::MissingContent`]: no source was added for an entry.
    /// - [`Error::ChangedSource`]: a file changed since it was added. What was
    ///   written so far is worthless then.
    /// - [`Error::File`], [`Error::Read`], [`Error::Write`].
    pub fn write<W: Write + Seek>(&self, encoding: Encoding, mut to: W) -> Result<()> {
        layout::check(&self.layout)?;
        let contents = self.contents()?;
        let tables = self.tables(&contents)?;
        let payloads = tables.len() + usize::from(!contents.is_empty());
        let payloads = u16::try_from(payloads).expect("there are six tables and a content");
        let prelude = Prelude { payloads, file_type: FileType::Package };
        to.write_all(&prelude.encode()).map_err(Error::Write)?;
        for table in tables {
            to.write_all(&table.encode(encoding)?).map_err(Error::Write)?;
        }
        if contents.is_empty() { Ok(()) } else { write_content(&contents, encoding, to) }
    }

    /// The unique contents that are used, in the order in which they are
    /// written.
    fn contents(&self) -> Result<Vec<(BlobRef, &Source)>> {
        let mut seen = HashSet::new();
        let mut contents = Vec::new();
        for entry in &self.layout {
            let LayoutContent::Regular(key) = entry.content else { continue };
            let Some((blob, source)) = self.sources.get(&key) else {
                return Err(Error::MissingContent { path: entry.path.clone(), key });
            };
            if seen.insert(key) {
                contents.push((*blob, source));
            }
        }
        contents.sort_by_key(|(blob, _)| Reverse(blob.size));
        Ok(contents)
    }

    fn tables(&self, contents: &[(BlobRef, &Source)]) -> Result<Vec<Table>> {
        let (records, plain) = meta::encode(&self.metadata)?;
        let mut tables = vec![Table { kind: PayloadKind::Meta, records, plain }];
        if !self.attributes.is_empty() {
            let mut table = Table::new(PayloadKind::Attributes, self.attributes.len())?;
            self.attributes.iter().for_each(|attribute| attribute.encode(&mut table.plain));
            tables.push(table);
        }
        if !self.layout.is_empty() {
            let mut table = Table::new(PayloadKind::Layout, self.layout.len())?;
            for entry in &self.layout {
                entry.encode(&mut table.plain).map_err(|problem| entry.invalid(problem))?;
            }
            tables.push(table);
        }
        if self.layout.iter().any(|entry| entry.extra != Extra::default()) {
            let mut table = Table::new(PayloadKind::Extras, self.layout.len())?;
            for entry in &self.layout {
                entry.extra.encode(&mut table.plain).map_err(|problem| entry.invalid(problem))?;
            }
            tables.push(table);
        }
        if !contents.is_empty() {
            let mut index = Table::new(PayloadKind::Index, contents.len())?;
            let mut digests = Table::new(PayloadKind::Digests, contents.len())?;
            let mut start = 0u64;
            for (BlobRef { key, digest, size }, _) in contents {
                let end = start
                    .checked_add(*size)
                    .ok_or(Error::TooMany { what: "bytes of files", count: usize::MAX })?;
                IndexRecord { start, end, key: *key, digest: None }.encode(&mut index.plain);
                digests.plain.extend_from_slice(digest.as_bytes());
                start = end;
            }
            tables.push(index);
            if self.digests {
                tables.push(digests);
            }
        }
        Ok(tables)
    }
}
