//! Up to [`Density::frame_len`] plain bytes, compressed on their own.

use std::io;

use super::Density;
use crate::hash::Checksum;

/// A frame as it lies in a pack.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) stored: Vec<u8>,
    pub(crate) record: FrameRecord,
}

/// A line of a pack's frame table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRecord {
    /// Bytes in the pack.
    pub(crate) stored_len: u32,
    /// Bytes when decompressed.
    pub(crate) plain_len: u32,
    /// Of the stored bytes.
    pub(crate) checksum: Checksum,
    /// Whether the stored bytes are the plain ones.
    pub(crate) is_raw: bool,
}

const RAW: u32 = 1 << 31;

impl FrameRecord {
    pub(crate) fn to_bytes(self) -> [u8; super::FRAME_RECORD_LEN] {
        let stored = if self.is_raw { self.stored_len | RAW } else { self.stored_len };
        let mut bytes = [0; super::FRAME_RECORD_LEN];
        bytes[..4].copy_from_slice(&stored.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksum.0.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; super::FRAME_RECORD_LEN]) -> Self {
        let [s0, s1, s2, s3, p0, p1, p2, p3, checksum @ ..] = *bytes;
        let stored = u32::from_le_bytes([s0, s1, s2, s3]);
        Self {
            stored_len: stored & !RAW,
            plain_len: u32::from_le_bytes([p0, p1, p2, p3]),
            checksum: Checksum(u64::from_le_bytes(checksum)),
            is_raw: stored & RAW != 0,
        }
    }
}

/// Makes frames; keeps its buffers between them.
pub(crate) struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    pub(crate) fn new(density: Density) -> io::Result<Self> {
        zstd::bulk::Compressor::new(density.level()).map(Self)
    }

    /// Compresses `plain`, or keeps it raw when that saves less than a 32nd:
    /// what was compressed before is then read without any decompression.
    pub(crate) fn frame(&mut self, plain: &[u8]) -> io::Result<Frame> {
        let compressed = self.0.compress(plain)?;
        let is_raw = compressed.len() + plain.len() / 32 >= plain.len();
        let stored = if is_raw { plain.to_vec() } else { compressed };
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a frame is below 2 GiB");
        let record = FrameRecord {
            stored_len: len(&stored),
            plain_len: len(plain),
            checksum: Checksum::of(&stored),
            is_raw,
        };
        Ok(Frame { stored, record })
    }
}
