//! An immutable file of objects in zstd frames that describes itself.
//!
//! ```text
//! magic | frame 0 | frame 1 | … | frame table | object table | footer
//! ```
//!
//! Format: docs/store.md, "Packs".

mod dense;
mod frame;
mod packer;
mod reader;
mod writer;

pub(crate) use dense::DensePacker;
pub(crate) use frame::{Compressor, Frame};
pub(crate) use packer::Packer;
pub(crate) use reader::{Pack, read_range, tables_len};
pub(crate) use writer::{FinishedPack, PackWriter};

use crate::hash::{BlobKey, BlobRef, Digest, PackId, PageId, TreeId};
use crate::state::State;

/// Plain bytes of a full frame of an ordinary pack: many small objects, or a piece of a large
/// one. No pack cuts a smaller object.
pub const FRAME_LEN: usize = 128 << 10;

/// Whether a pack is made for being read, or for being small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Density {
    /// Version 1: frames of up to [`FRAME_LEN`] plain bytes, compressed in little time.
    #[default]
    Ordinary,
    /// Version 2: larger frames, for what is seldom read.
    Dense,
}

impl Density {
    pub(crate) const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Ordinary => b"CRNPACK1",
            Self::Dense => b"CRNPACK2",
        }
    }

    const fn end_magic(self) -> &'static [u8; 8] {
        match self {
            Self::Ordinary => b"1KCAPNRC",
            Self::Dense => b"2KCAPNRC",
        }
    }

    /// That of the pack which ends with this footer; `None` if none does.
    pub(crate) fn of_footer(footer: &[u8; FOOTER_LEN]) -> Option<Self> {
        [Self::Ordinary, Self::Dense].into_iter().find(|it| footer.ends_with(it.end_magic()))
    }

    /// What the tables of a pack hash to.
    fn id_of(self, tables: &[u8]) -> PackId {
        match self {
            Self::Ordinary => PackId::of(tables),
            Self::Dense => PackId::of_dense(tables),
        }
    }

    /// The most plain bytes of a frame.
    pub(crate) const fn frame_len(self) -> usize {
        match self {
            Self::Ordinary => FRAME_LEN,
            Self::Dense => 4 << 20,
        }
    }

    /// How zstd compresses: with its own default level, since higher ones cost twice the time
    /// for a thirtieth less; or with one that is worth its time once.
    const fn level(self) -> i32 {
        match self {
            Self::Ordinary => 3,
            Self::Dense => 12,
        }
    }
}

/// A blob of at least this many bytes has a pack of its own, so that dropping
/// it is an unlink.
pub(crate) const LARGE_BLOB: u64 = 1 << 20;

/// A pack is closed when it has this many bytes.
pub(crate) const PACK_LEN: u64 = 256 << 20;

/// Bytes at the beginning and at the end that tell the version.
pub(crate) const MAGIC_LEN: usize = 8;
const FRAME_RECORD_LEN: usize = 16;
const OBJECT_RECORD_LEN: usize = 65;
pub(crate) const FOOTER_LEN: usize = 48;

/// What an object is and what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectId {
    /// The content of a file.
    Blob(BlobKey, Digest),
    /// A directory.
    Tree(TreeId),
    /// A page of a large directory.
    Page(PageId),
    /// The record of a state; BLAKE3-256 of its text.
    State(Digest),
}

impl ObjectId {
    /// Whether these are the object's bytes.
    pub(crate) fn names(self, bytes: &[u8]) -> bool {
        match self {
            Self::Blob(key, digest) => {
                let blob = BlobRef::of(bytes);
                (blob.key, blob.digest) == (key, digest)
            }
            Self::Tree(id) => TreeId::of(bytes) == id,
            Self::Page(id) => PageId::of(bytes) == id,
            Self::State(digest) => State::digest(bytes) == digest,
        }
    }
}

/// Where the first byte of an object lies, and how many there are.
///
/// An object of up to [`FRAME_LEN`] bytes lies in one frame. A longer one may begin a frame and
/// fill it and the next ones, the last of which may be shorter; nothing else lies in them then.
/// [`Pack::piece_len`] says how many bytes lie in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    pub(crate) pack: PackId,
    pub(crate) frame: u32,
    pub(crate) offset: u32,
    pub(crate) len: u64,
}

impl Location {
    pub(crate) const LEN: usize = 32;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (pack, rest) = bytes.split_at_mut(PackId::LEN);
        pack.copy_from_slice(self.pack.as_bytes());
        rest[..4].copy_from_slice(&self.frame.to_le_bytes());
        rest[4..8].copy_from_slice(&self.offset.to_le_bytes());
        rest[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let [pack @ .., f0, f1, f2, f3, o0, o1, o2, o3, l0, l1, l2, l3, l4, l5, l6, l7] = *bytes;
        Self {
            pack: PackId::from_bytes(pack),
            frame: u32::from_le_bytes([f0, f1, f2, f3]),
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            len: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
        }
    }
}
