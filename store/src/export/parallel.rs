//! A stream that is compressed by all processors, to the same bytes however many
//! there are.
//!
//! The stream is cut into pieces of a fixed length, each compressed on its own.
//! For zstd each is a frame. For gzip each is a run of deflate blocks that ends
//! at a byte boundary, all in one member, as pigz(1) makes it without its
//! dictionary.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::{Compress, Compression as Level, Crc, FlushCompress};

/// How an exported stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// gzip(1), level 6.
    Gzip,
    /// zstd(1), level 3.
    Zstd,
}

/// Compresses what is written to it, in parallel.
///
/// [`ParallelWriter::finish`] has to be called, else the end is missing.
pub struct ParallelWriter<W: Write> {
    to: W,
    packing: Packing,
    piece: Vec<u8>,
    /// Pieces that are being compressed, in order.
    pending: VecDeque<Receiver<io::Result<Piece>>>,
    most: usize,
    crc: Crc,
    has_begun: bool,
}

struct Piece {
    packed: Vec<u8>,
    crc: Crc,
}

impl<W: Write> ParallelWriter<W> {
    /// Writes to `to`.
    pub fn new(to: W, packing: Packing) -> Self {
        let most = std::thread::available_parallelism().map_or(1, Into::into);
        let (piece, pending) = (Vec::new(), VecDeque::new());
        Self { to, packing, piece, pending, most, crc: Crc::new(), has_begun: false }
    }

    /// Writes what is left, and the end; gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.piece.is_empty() || (!self.has_begun && self.packing == Packing::Zstd) {
            self.start_piece()?;
        }
        self.begin()?;
        while let Some(next) = self.pending.pop_front() {
            self.write_piece(&next)?;
        }
        if self.packing == Packing::Gzip {
            // An empty last block, the checksum, and the length modulo 2^32.
            self.to.write_all(&[3, 0])?;
            self.to.write_all(&self.crc.sum().to_le_bytes())?;
            self.to.write_all(&self.crc.amount().to_le_bytes())?;
        }
        self.to.flush()?;
        Ok(self.to)
    }

    fn begin(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_begun, true) && self.packing == Packing::Gzip {
            // Deflate, no flags, no time, no level, Unix.
            self.to.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])?;
        }
        Ok(())
    }

    fn start_piece(&mut self) -> io::Result<()> {
        self.begin()?;
        if self.pending.len() == self.most {
            let next = self.pending.pop_front().expect("there are some");
            self.write_piece(&next)?;
        }
        let plain = std::mem::take(&mut self.piece);
        let (sender, receiver) = sync_channel(1);
        let packing = self.packing;
        std::thread::Builder::new().spawn(move || send(&sender, pack(packing, &plain)))?;
        self.pending.push_back(receiver);
        Ok(())
    }

    fn write_piece(&mut self, next: &Receiver<io::Result<Piece>>) -> io::Result<()> {
        let lost = |_| io::Error::other("a thread that compresses has ended");
        let Piece { packed, crc } = next.recv().map_err(lost)??;
        self.crc.combine(&crc);
        self.to.write_all(&packed)
    }
}

fn send(to: &SyncSender<io::Result<Piece>>, piece: io::Result<Piece>) {
    // Nobody listens any more when writing has failed.
    let _ = to.send(piece);
}

impl<W: Write> Write for ParallelWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece_len = match self.packing {
            Packing::None => return self.to.write(bytes),
            Packing::Gzip => 1 << 20,
            Packing::Zstd => 4 << 20,
        };
        let len = bytes.len().min(piece_len - self.piece.len());
        self.piece.extend_from_slice(&bytes[..len]);
        if self.piece.len() == piece_len {
            self.start_piece()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn pack(packing: Packing, plain: &[u8]) -> io::Result<Piece> {
    let mut crc = Crc::new();
    let packed = match packing {
        Packing::None => plain.to_vec(),
        Packing::Zstd => {
            let mut compressor = zstd::bulk::Compressor::new(3)?;
            compressor.include_checksum(true)?;
            compressor.compress(plain)?
        }
        Packing::Gzip => {
            crc.update(plain);
            let mut deflate = Compress::new(Level::new(6), false);
            let mut packed = Vec::with_capacity(plain.len() / 2 + 1024);
            loop {
                let done = usize::try_from(deflate.total_in()).expect("a piece is in memory");
                let before = packed.len();
                deflate.compress_vec(&plain[done..], &mut packed, FlushCompress::Full)?;
                let is_all_in = deflate.total_in() == plain.len() as u64;
                if is_all_in && packed.len() < packed.capacity() {
                    break;
                }
                if packed.len() == packed.capacity() || packed.len() == before {
                    packed.reserve(64 << 10);
                }
            }
            packed
        }
    };
    Ok(Piece { packed, crc })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::archive::Compression;

    #[test]
    fn what_is_written_is_read_by_others() {
        let noise: Vec<u8> = (0..9_000_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
            .collect();
        for plain in [&b""[..], b"x", &b"cairn ".repeat(2_000_000), &noise, &noise[..1 << 20]] {
            for (packing, compression) in [
                (Packing::None, Compression::None),
                (Packing::Gzip, Compression::Gzip),
                (Packing::Zstd, Compression::Zstd),
            ] {
                let mut writer = ParallelWriter::new(Vec::new(), packing);
                writer.write_all(plain).expect("memory takes it");
                let packed = writer.finish().expect("memory takes it");
                let mut read = Vec::new();
                let mut reader = compression.reader(&packed[..], 1 << 30).expect("a reader");
                reader.read_to_end(&mut read).expect("it is whole");
                assert!(read == plain, "{packing:?}, {} bytes", plain.len());
            }
        }
    }
}
