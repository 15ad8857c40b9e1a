//! The blocks of a tar archive: headers, and the bytes that follow each of them.

use std::io::{self, Read};

use tar::Header;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// Reads an archive header by header; as a reader it gives the bytes after the latest.
pub(super) struct Blocks<R> {
    tar: R,
    /// Bytes of the entry that were not read, and those that fill its last block.
    left: u64,
    padding: u64,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(tar: R) -> Self {
        Self { tar, left: 0, padding: 0 }
    }

    /// The next header, whatever is left of the entry before it; `None` at the end of the
    /// archive.
    pub(super) fn next_header(&mut self) -> io::Result<Option<Header>> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut (&mut self.tar).take(rest), &mut io::sink())? != rest {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within an entry"));
        }
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        let bytes = block[..148].iter().chain(&block[156..]);
        // The field itself counts as blanks.
        let sum = bytes.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum()? != sum {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the checksum of a header is wrong",
            ));
        }
        Ok(Some(header))
    }

    /// One more block of a header; `None` where the archive has ended.
    pub(super) fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut len = 0;
        while len < BLOCK {
            match self.tar.read(&mut block[len..]) {
                Ok(0) if len == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => len += more,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(Some(block))
    }

    /// Says how many bytes of an entry follow.
    pub(super) fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// How many of them were not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// What lies behind.
    pub(super) fn into_inner(self) -> R {
        self.tar
    }
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).map_or(buf.len(), |left| buf.len().min(left));
        let len = if limit == 0 { 0 } else { self.tar.read(&mut buf[..limit])? };
        self.left -= len as u64;
        Ok(len)
    }
}
