//! The bytes of a package's files, verified.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use cairn_store::{BlobKey, BlobRef};

/// Where the plain bytes of a content may go, and how many threads make them.
#[derive(Clone, Copy, Debug)]
pub struct ContentOptions<'a> {
    /// Up to so many plain bytes stay in memory.
    pub memory: u64,
    /// Where a larger content has its temporary file, which has no name.
    pub directory: &'a Path,
    /// How many threads decompress and hash.
    pub threads: NonZeroUsize,
}

/// The bytes of all unique files of a package; each was hashed as it was
/// decompressed, so that what [`Blob::id`] says is true.
#[derive(Debug)]
pub struct Content {}

/// One unique file of a [`Content`].
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    content: &'a Content,
    id: BlobRef,
}

impl Content {
    /// All unique files in the order in which they lie in the package.
    pub fn blobs(&self) -> impl ExactSizeIterator<Item = Blob<'_>> {
        std::iter::empty()
    }

    /// The file with this key.
    #[must_use]
    pub fn get(&self, key: &BlobKey) -> Option<Blob<'_>> {
        let _ = key;
        unimplemented!()
    }
}

impl<'a> Blob<'a> {
    /// Key, digest and size, computed from the bytes.
    #[must_use]
    pub fn id(&self) -> BlobRef {
        self.id
    }

    /// The bytes, if the content is in memory.
    #[must_use]
    pub fn as_slice(&self) -> Option<&'a [u8]> {
        let _ = self.content;
        unimplemented!()
    }

    /// Reads bytes from `offset` on; fewer than `buf.len()` only at the end of
    /// the file, 0 at or past it. Any thread may do so at any time.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let _ = (offset, buf);
        unimplemented!()
    }

    /// Reads the file from its start.
    #[must_use]
    pub fn reader(self) -> impl io::Read + use<'a> {
        io::empty()
    }
}
