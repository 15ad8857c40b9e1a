//! What the kernel knows, noted where it outlives the process that told it.
//!
//! A file in memory that another process keeps open. What a request tells the
//! kernel is appended before the answer goes out, so that a successor knows all
//! that the kernel may ask for; what the kernel forgets is appended some time
//! later, so that a successor may believe too much and has to ask the kernel.
//!
//! A process may be killed within any write. Records are only ever appended, so
//! that at most the last one is cut short, and it has not been told then. When
//! most of the file is outdated, what holds is written anew behind it, and one
//! write of eight bytes makes that the beginning. Format: docs/mount.md, "Ledger".

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use cairn_store::{BlobKey, BlobRef, Digest, Name, TreeId};

use crate::serve::node::NodeId;
use crate::serve::places::Location;
use crate::serve::table::Reading;
use crate::sys;

/// Something that holds from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// What the mount is, in the words of whoever writes it.
    About(&'a [u8]),
    /// The kernel knows the directory `name` in `parent`.
    Directory { id: NodeId, parent: NodeId, name: &'a [u8] },
    /// The kernel knows a file, and its entry lies there.
    File { id: NodeId, location: Location },
    /// The kernel was told of a node so often and has not forgotten it since; once
    /// where nothing is said.
    Lookups { id: NodeId, count: u32 },
    /// The kernel has forgotten a node.
    Forgotten(NodeId),
    /// Files of `directory` in `tree` are no longer shown, and `root` is kept
    /// for them; or they are shown again.
    Held { directory: NodeId, tree: TreeId, root: Option<TreeId> },
    /// How far from its computed number a node may be.
    Reach(u32),
    /// This is shown from now on, and the kernel is being told.
    Showing(&'a [u8]),
    /// The kernel has been told.
    Told,
    /// The kernel has the file of a machine with these bytes open under a backing id.
    Backed { id: u32, blob: BlobRef },
    /// The kernel lets go of a backing id.
    Unbacked(u32),
    /// The kernel has a large file open at most so often, and reads it from there.
    Opens { id: NodeId, reading: Reading, count: u32 },
}

/// Why a file is no ledger that this version can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger of the mount is of another version or damaged at byte {0}")]
pub struct InvalidLedger(pub u64);

const MAGIC: [u8; 8] = *b"CrnLdgr2";
/// The magic, and where the records begin.
const HEADER_LEN: u64 = 16;

/// Records that wait are written when there are so many bytes of them, also if
/// nobody asks for it.
const MAX_PENDING: usize = 4096;

/// A ledger is written anew when so much of it may be outdated; in tests that
/// happens often.
const MAX_OUTDATED: u64 = if cfg!(test) { 1 << 14 } else { 1 << 20 };

const ABOUT: u8 = 1;
const DIRECTORY: u8 = 2;
const PLACE: u8 = 3;
const FILE: u8 = 4;
const FORGOTTEN: u8 = 5;
const HELD: u8 = 6;
const SHOWN: u8 = 7;
const REACH: u8 = 8;
const SHOWING: u8 = 9;
const TOLD: u8 = 10;
const LOOKUPS: u8 = 11;
const BACKED: u8 = 12;
const UNBACKED: u8 = 13;
const OPENS: u8 = 14;

/// No backing id of the kernel: its first is 1.
const NO_BACKING: u32 = 0;

/// A ledger to append to.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    start: u64,
    end: u64,
    /// How long it was when it was last written anew.
    fresh_len: u64,
    pending: Vec<u8>,
    /// Where the files lie that are noted next.
    place: Option<(NodeId, TreeId)>,
    said: Said,
}

/// What a ledger says beside nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// What the mount is.
    pub(crate) about: Vec<u8>,
    /// What was shown when the kernel had last been told all.
    pub(crate) told: Vec<u8>,
    /// What is shown and the kernel is being told.
    pub(crate) telling: Option<Vec<u8>>,
}

impl Said {
    fn hear(&mut self, record: &Record<'_>) {
        match *record {
            Record::About(about) => self.about = about.into(),
            Record::Showing(what) => self.telling = Some(what.into()),
            Record::Told => {
                if let Some(telling) = self.telling.take() {
                    self.told = telling;
                }
            }
            _ => {}
        }
    }

    fn say(&self, note: &mut dyn FnMut(Record<'_>)) {
        note(Record::About(&self.about));
        note(Record::Showing(&self.told));
        note(Record::Told);
        if let Some(telling) = &self.telling {
            note(Record::Showing(telling));
        }
    }
}

impl Ledger {
    /// Begins a ledger in an empty file; what is `said` is noted with the first
    /// [`Ledger::rewrite`].
    pub(crate) fn create(file: File, said: Said) -> io::Result<Self> {
        let mut header = [0; 16];
        header[..8].copy_from_slice(&MAGIC);
        header[8..].copy_from_slice(&HEADER_LEN.to_le_bytes());
        file.write_all_at(&header, 0)?;
        Ok(Self::new(file, HEADER_LEN, HEADER_LEN, said))
    }

    fn new(file: File, start: u64, end: u64, said: Said) -> Self {
        Self { file, start, end, fresh_len: 0, pending: Vec::new(), place: None, said }
    }

    /// Reads a ledger, gives `visit` its records, and goes on behind them.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] with an [`InvalidLedger`], also when
    /// `visit` says that a record cannot be.
    pub(crate) fn open(
        file: File,
        mut visit: impl FnMut(Record<'_>) -> Option<()>,
    ) -> io::Result<Self> {
        let invalid = |at| io::Error::new(io::ErrorKind::InvalidData, InvalidLedger(at));
        let mut header = [0; 16];
        file.read_exact_at(&mut header, 0).map_err(|_| invalid(0))?;
        let start = match header.split_first_chunk::<8>() {
            Some((&MAGIC, start)) => u64::from_le_bytes(start.try_into().expect("8 of 16 bytes")),
            _ => return Err(invalid(0)),
        };
        let len = file.metadata()?.len().checked_sub(start).ok_or(invalid(start))?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| invalid(start))?];
        file.read_exact_at(&mut bytes, start)?;
        let mut reader = Reader { rest: &bytes, place: None };
        let mut said = Said::default();
        loop {
            let at = start + len - reader.rest.len() as u64;
            match reader.next() {
                Next::Record(record) => {
                    said.hear(&record);
                    visit(record).ok_or_else(|| invalid(at))?;
                }
                Next::Invalid => return Err(invalid(at)),
                // What was cut short has not been told.
                Next::End => {
                    file.set_len(at)?;
                    return Ok(Self::new(file, start, at, said));
                }
            }
        }
    }

    /// Makes sure that a ledger is of the version that this program knows; it may be in use.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] with an [`InvalidLedger`] if it is not.
    pub(crate) fn check(file: &File) -> io::Result<()> {
        let mut magic = [0; 8];
        match file.read_exact_at(&mut magic, 0) {
            Ok(()) if magic == MAGIC => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, InvalidLedger(0))),
        }
    }

    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    /// Appends a record, at the latest with the next [`Ledger::flush`].
    pub(crate) fn note(&mut self, record: &Record<'_>) {
        self.said.hear(record);
        encode(record, &mut self.place, &mut self.pending);
    }

    /// Writes what waits if that is much.
    pub(crate) fn flush_some(&mut self) -> io::Result<()> {
        if self.pending.len() >= MAX_PENDING { self.flush() } else { Ok(()) }
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all_at(&self.pending, self.end)?;
            self.end += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    /// Whether most of it may be outdated.
    pub(crate) fn is_long(&self) -> bool {
        self.end - self.start > MAX_OUTDATED + 3 * self.fresh_len
    }

    /// Writes it anew: what was said last, and of nodes what `describe` notes.
    pub(crate) fn rewrite(
        &mut self,
        describe: impl FnOnce(&mut dyn FnMut(Record<'_>)),
    ) -> io::Result<()> {
        self.flush()?;
        let (mut bytes, mut place) = (Vec::new(), None);
        let mut note = |record: Record<'_>| encode(&record, &mut place, &mut bytes);
        self.said.say(&mut note);
        describe(&mut note);
        self.file.write_all_at(&bytes, self.end)?;
        self.file.write_all_at(&self.end.to_le_bytes(), 8)?;
        // Where memory cannot be given back the file only takes more of it.
        let _ = sys::punch_hole(&self.file, HEADER_LEN, self.end - HEADER_LEN);
        (self.start, self.fresh_len, self.place) = (self.end, bytes.len() as u64, place);
        self.end += self.fresh_len;
        Ok(())
    }

    /// Makes sure that nobody takes it for complete any more.
    pub(crate) fn invalidate(self) {
        // If not even this works, there is nobody who could read it either.
        let _ = self.file.set_len(0);
    }
}

fn encode(record: &Record<'_>, place: &mut Option<(NodeId, TreeId)>, to: &mut Vec<u8>) {
    let mut at = |directory: NodeId, tree: TreeId, to: &mut Vec<u8>| {
        if place.replace((directory, tree)) != Some((directory, tree)) {
            to.push(PLACE);
            to.extend_from_slice(&directory.get().to_le_bytes());
            to.extend_from_slice(tree.as_bytes());
        }
    };
    let text = |kind, text: &[u8], to: &mut Vec<u8>| {
        to.push(kind);
        to.extend_from_slice(&(text.len() as u64).to_le_bytes());
        to.extend_from_slice(text);
    };
    match *record {
        Record::About(about) => text(ABOUT, about, to),
        Record::Directory { id, parent, name } => {
            to.push(DIRECTORY);
            to.extend_from_slice(&id.get().to_le_bytes());
            to.extend_from_slice(&parent.get().to_le_bytes());
            to.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
            to.extend_from_slice(name);
        }
        Record::File { id, location: Location { directory, tree, entry } } => {
            at(directory, tree, to);
            to.push(FILE);
            to.extend_from_slice(&id.get().to_le_bytes());
            to.extend_from_slice(&entry.to_le_bytes());
        }
        Record::Lookups { id, count } => {
            to.push(LOOKUPS);
            to.extend_from_slice(&id.get().to_le_bytes());
            to.extend_from_slice(&count.to_le_bytes());
        }
        Record::Forgotten(id) => {
            to.push(FORGOTTEN);
            to.extend_from_slice(&id.get().to_le_bytes());
        }
        Record::Held { directory, tree, root } => {
            at(directory, tree, to);
            match root {
                Some(root) => {
                    to.push(HELD);
                    to.extend_from_slice(root.as_bytes());
                }
                None => to.push(SHOWN),
            }
        }
        Record::Reach(reach) => {
            to.push(REACH);
            to.extend_from_slice(&reach.to_le_bytes());
        }
        Record::Showing(what) => text(SHOWING, what, to),
        Record::Told => to.push(TOLD),
        Record::Backed { id, blob } => {
            to.push(BACKED);
            to.extend_from_slice(&id.to_le_bytes());
            to.extend_from_slice(blob.key.as_bytes());
            to.extend_from_slice(blob.digest.as_bytes());
            to.extend_from_slice(&blob.size.to_le_bytes());
        }
        Record::Unbacked(id) => {
            to.push(UNBACKED);
            to.extend_from_slice(&id.to_le_bytes());
        }
        Record::Opens { id, reading, count } => {
            let backing = match reading {
                Reading::Asked => NO_BACKING,
                Reading::Passed(backing) => backing,
            };
            to.push(OPENS);
            to.extend_from_slice(&id.get().to_le_bytes());
            to.extend_from_slice(&backing.to_le_bytes());
            to.extend_from_slice(&count.to_le_bytes());
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    place: Option<(NodeId, TreeId)>,
}

enum Next<'a> {
    Record(Record<'a>),
    End,
    Invalid,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Next<'a> {
        loop {
            let before = self.rest;
            let record = self.record();
            match record {
                Some(Next::Record(record)) => return Next::Record(record),
                Some(Next::Invalid) => return Next::Invalid,
                // Only said where the records that follow lie.
                Some(Next::End) => {}
                None => {
                    self.rest = before;
                    return Next::End;
                }
            }
        }
    }

    /// One record, or nothing where it is cut short.
    fn record(&mut self) -> Option<Next<'a>> {
        let [kind] = self.take()?;
        let record = match kind {
            ABOUT => Record::About(self.text()?),
            DIRECTORY => {
                let (id, parent) = (self.id()?, self.id()?);
                let [len] = self.take()?;
                let name = self.bytes(usize::from(len))?;
                if Name::new(name).is_err() {
                    return Some(Next::Invalid);
                }
                Record::Directory { id, parent, name }
            }
            PLACE => {
                self.place = Some((self.id()?, TreeId::from_bytes(self.take()?)));
                return Some(Next::End);
            }
            FILE | HELD | SHOWN => {
                let Some((directory, tree)) = self.place else { return Some(Next::Invalid) };
                if kind == FILE {
                    let (id, entry) = (self.id()?, self.number()?);
                    Record::File { id, location: Location { directory, tree, entry } }
                } else {
                    let root = (kind == HELD).then(|| self.take().map(TreeId::from_bytes));
                    let root = match root {
                        Some(root) => Some(root?),
                        None => None,
                    };
                    Record::Held { directory, tree, root }
                }
            }
            FORGOTTEN => Record::Forgotten(self.id()?),
            LOOKUPS => Record::Lookups { id: self.id()?, count: self.number()? },
            REACH => Record::Reach(self.number()?),
            SHOWING => Record::Showing(self.text()?),
            TOLD => Record::Told,
            BACKED => Record::Backed {
                id: self.number()?,
                blob: BlobRef {
                    key: BlobKey::from_bytes(self.take()?),
                    digest: Digest::from_bytes(self.take()?),
                    size: u64::from_le_bytes(self.take()?),
                },
            },
            UNBACKED => Record::Unbacked(self.number()?),
            OPENS => Record::Opens {
                id: self.id()?,
                reading: match self.number()? {
                    NO_BACKING => Reading::Asked,
                    backing => Reading::Passed(backing),
                },
                count: self.number()?,
            },
            _ => return Some(Next::Invalid),
        };
        Some(Next::Record(record))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn id(&mut self) -> Option<NodeId> {
        Some(NodeId::from_kernel(u64::from_le_bytes(self.take()?)))
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take()?))
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = u64::from_le_bytes(self.take()?);
        self.bytes(usize::try_from(len).ok()?)
    }
}

#[cfg(test)]
mod tests;
