//! A state made from a tar archive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::builder::{FileId, TreeBuilder};
use super::error::{ArchiveError, EntryProblem};
use super::read::{ArchiveEntry, ArchiveKind, ReadOptions, read_archive};
use crate::error::{Error, Result};
use crate::hash::BlobRef;
use crate::host::Unread;
use crate::import::Imported;
use crate::ingest::{IngestProgress, Source};
use crate::name::Name;
use crate::state::StateId;
use crate::store::Store;
use crate::transaction::{Draft, Standing, Transaction};
use crate::tree::{Attributes, Content, Tree};

/// Files are taken in together up to this many bytes; a larger one goes through
/// piece by piece.
const BATCH_LEN: u64 = 32 << 20;
const PIECE_LEN: usize = 1 << 20;

/// What an import of an archive makes of it.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveOptions<'a> {
    /// What was asked for, as people said it.
    pub request: &'a str,
    /// The state that the new one is made from.
    pub parent: Option<StateId>,
    /// Whether the new state becomes the current one.
    pub standing: Standing,
    /// The most bytes of holes in sparse files, all of them together.
    pub holes: u64,
}

/// Keys of extended headers that are told, of those that mean nothing here.
const MAX_IGNORED: usize = 100;

/// Makes a state of archives, the plain bytes of which `open` gives one after
/// the other: layers, each above those before, with the whiteouts of OCI images
/// if there may be any.
///
/// All in one transaction, or nothing. Contents are hashed and compressed in
/// parallel while the next ones are read, each byte once.
///
/// # Errors
/// [`Error::Archive`] names the entry that is wrong, and then nothing has
/// happened.
pub fn import_archives<'a>(
    store: &Store,
    layers: impl IntoIterator<Item = Result<Box<dyn Read + 'a>>>,
    whiteouts: Whiteouts,
    options: &ArchiveOptions<'_>,
    progress: &dyn IngestProgress,
) -> Result<Imported> {
    let mut transaction = store.begin()?;
    let ArchiveOptions { request, parent, standing, holes } = *options;
    let mut found = Found { read: Unread::default(), ignored: BTreeMap::new(), holes };
    let mut builder = TreeBuilder::new();
    for layer in layers {
        take_in(&mut transaction, layer?, &mut builder, whiteouts, &mut found, progress)?;
        builder.begin_layer();
    }
    let stored = transaction.packed_len();
    let tree = builder.put(&mut transaction)?;
    let packages = transaction.put_tree(Tree::empty(Attributes::implied_directory()))?;
    let draft = Draft { parent, request: request.to_owned(), tree, packages };
    let state = transaction.publish(draft, standing)?;
    drop(transaction);
    let summary = store.tree(tree)?.summary();
    let Found { read, ignored, .. } = found;
    Ok(Imported { state, summary, read, stored, unsettled: Vec::new(), ignored })
}

/// What was met in archives.
struct Found {
    read: Unread,
    /// Keys of extended headers that mean nothing here, and how many entries have each.
    ignored: BTreeMap<Vec<u8>, u64>,
    /// Bytes of holes that may still come.
    holes: u64,
}

impl Found {
    fn count(&mut self, entry: &ArchiveEntry) {
        if let ArchiveKind::File(size) = entry.kind {
            self.read.files += 1;
            self.read.bytes += size;
        }
        for key in &entry.ignored {
            if let Some(count) = self.ignored.get_mut(key) {
                *count += 1;
            } else if self.ignored.len() < MAX_IGNORED {
                self.ignored.insert(key.clone(), 1);
            }
        }
    }
}

/// Whether names with `.wh.` stand for what is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They are names like others.
    None,
    /// As in the layers of OCI images.
    Oci,
}

/// Takes one archive in.
fn take_in(
    transaction: &mut Transaction,
    tar: impl Read,
    builder: &mut TreeBuilder,
    whiteouts: Whiteouts,
    found: &mut Found,
    progress: &dyn IngestProgress,
) -> Result<()> {
    let (sender, receiver) = bounded(1);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || store_batches(transaction, &receiver, progress));
        let mut reader = Reader { builder, whiteouts, sender, batch: Vec::new(), batch_len: 0 };
        let options = ReadOptions { owners: None, holes: Some(found.holes) };
        let result = read_archive(tar, &options, Error::Archive, |entry, bytes| {
            found.count(entry);
            reader.entry(entry, bytes)
        })
        .and_then(|()| reader.flush());
        let Reader { builder, sender, .. } = reader;
        drop(sender);
        let stored = worker.join().unwrap_or(Err(Error::Cancelled));
        // Each of the two fails when the other one does, but only one knows why.
        match result {
            Err(err) if !matches!(err, Error::Cancelled) => Err(err),
            result => {
                for (file, blob) in stored? {
                    builder.set_content(file, Content::File(blob));
                }
                result
            }
        }
    })
}

/// Files on their way into the store.
enum Batch {
    Small(Vec<InMemory>),
    /// A file of so many bytes, in pieces.
    Large(FileId, u64, Receiver<Vec<u8>>),
}

struct InMemory {
    file: FileId,
    bytes: Vec<u8>,
}

impl Source for InMemory {
    fn name(&self) -> Cow<'_, str> {
        "the archive".into()
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.bytes[..]))
    }
}

/// A file that comes in pieces and can be read once.
struct Pieces {
    size: u64,
    pieces: Mutex<Option<Receiver<Vec<u8>>>>,
}

impl Source for Pieces {
    fn name(&self) -> Cow<'_, str> {
        "the archive".into()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pieces = pieces.ok_or(io::ErrorKind::Unsupported)?;
        Ok(Box::new(PiecesReader { pieces, piece: Vec::new(), done: 0 }))
    }
}

struct PiecesReader {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    done: usize,
}

impl Read for PiecesReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.done == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.done) = (piece, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.piece[self.done..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.done += len;
        Ok(len)
    }
}

fn store_batches(
    transaction: &mut Transaction,
    batches: &Receiver<Batch>,
    progress: &dyn IngestProgress,
) -> Result<BTreeMap<FileId, BlobRef>> {
    let mut blobs = BTreeMap::new();
    for batch in batches {
        match batch {
            Batch::Small(files) => {
                let found = transaction.ingest(&files, progress)?;
                blobs.extend(files.iter().map(|file| file.file).zip(found));
            }
            Batch::Large(file, size, pieces) => {
                let source = Pieces { size, pieces: Mutex::new(Some(pieces)) };
                let found = transaction.ingest(std::slice::from_ref(&source), progress)?;
                blobs.extend(std::iter::once(file).zip(found));
            }
        }
    }
    Ok(blobs)
}

/// Reads entries, and passes on the bytes of files.
struct Reader<'b> {
    builder: &'b mut TreeBuilder,
    whiteouts: Whiteouts,
    sender: Sender<Batch>,
    batch: Vec<InMemory>,
    batch_len: u64,
}

impl Reader<'_> {
    fn entry(&mut self, entry: &ArchiveEntry, bytes: &mut dyn Read) -> Result<()> {
        let ArchiveEntry { path, attributes, kind, .. } = entry;
        let fail = |source| Error::Archive(ArchiveError::Entry { entry: path.to_bytes(), source });
        if self.whiteouts == Whiteouts::Oci
            && let Some((parent, name)) = path.split_last()
            && let Some(hidden) = name.strip_prefix(b".wh.")
        {
            if &name[..] == b".wh..wh..opq" {
                self.builder.make_opaque(&parent);
                return Ok(());
            }
            // Other names of that kind were those of aufs itself.
            if hidden.starts_with(b".wh.") {
                return Ok(());
            }
            let hidden = Name::new(hidden).map_err(|_| fail(EntryProblem::Nameless))?;
            self.builder.white_out(&parent.join(&hidden));
            return Ok(());
        }
        let attributes = attributes.clone();
        let content = match kind {
            ArchiveKind::Directory => {
                return self.builder.directory(path, attributes).map_err(fail);
            }
            ArchiveKind::HardLink(target) => {
                return self.builder.hard_link(path, target).map_err(fail);
            }
            ArchiveKind::File(size) => {
                let file = self.builder.file(path, attributes, None).map_err(fail)?;
                return self.content(file, *size, bytes);
            }
            ArchiveKind::Symlink(text) => Content::Symlink(text.clone()),
            ArchiveKind::CharDevice(device) => Content::CharDevice(*device),
            ArchiveKind::BlockDevice(device) => Content::BlockDevice(*device),
            ArchiveKind::Fifo => Content::Fifo,
        };
        self.builder.file(path, attributes, Some(content)).map(drop).map_err(fail)
    }

    fn content(&mut self, file: FileId, size: u64, bytes: &mut dyn Read) -> Result<()> {
        let unpack = |source| Error::Archive(ArchiveError::Unpack(source));
        if size <= BATCH_LEN {
            if self.batch_len + size > BATCH_LEN {
                self.flush()?;
            }
            let mut content = Vec::new();
            bytes.read_to_end(&mut content).map_err(unpack)?;
            self.batch_len += content.len() as u64;
            self.batch.push(InMemory { file, bytes: content });
            return Ok(());
        }
        self.flush()?;
        let (sender, receiver) = bounded(4);
        self.send(Batch::Large(file, size, receiver))?;
        loop {
            let mut piece = Vec::with_capacity(PIECE_LEN);
            bytes.take(PIECE_LEN as u64).read_to_end(&mut piece).map_err(unpack)?;
            if piece.is_empty() {
                return Ok(());
            }
            sender.send(piece).map_err(|_| Error::Cancelled)?;
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.batch_len = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Ok(()) } else { self.send(Batch::Small(batch)) }
    }

    /// Passes a batch on; when nobody takes it, the worker says why.
    fn send(&self, batch: Batch) -> Result<()> {
        self.sender.send(batch).map_err(|_| Error::Cancelled)
    }
}
