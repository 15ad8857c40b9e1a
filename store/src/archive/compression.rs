//! The plain bytes of a compressed stream, bounded.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip(1), RFC 1952.
    Gzip,
    /// xz(1).
    Xz,
    /// zstd(1), RFC 8878.
    Zstd,
}

/// The most memory that an xz stream may ask for, in bytes. The strongest of
/// its presets needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

impl Compression {
    /// Recognises the end of a file's name, such as `.xz`.
    #[must_use]
    pub fn of(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "" => Self::None,
            ".gz" => Self::Gzip,
            ".xz" => Self::Xz,
            ".zst" => Self::Zstd,
            _ => return None,
        })
    }

    /// Recognises the first bytes of a stream; what begins otherwise is taken for
    /// not compressed.
    #[must_use]
    pub fn of_magic(begin: &[u8]) -> Self {
        match begin {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Decompresses `stored`, and fails once that makes more than `limit` bytes.
    ///
    /// All checksums of the formats are verified when the end is reached.
    pub fn reader<'a>(self, stored: impl Read + 'a, limit: u64) -> io::Result<Box<dyn Read + 'a>> {
        let plain: Box<dyn Read + 'a> = match self {
            Self::None => Box::new(stored),
            Self::Gzip => Box::new(MultiGzDecoder::new(stored)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
                Box::new(XzDecoder::new_stream(stored, stream))
            }
            // The library refuses windows of more than 128 MiB by itself.
            Self::Zstd => Box::new(zstd::Decoder::new(stored)?),
        };
        Ok(Box::new(Limited { plain, limit, left: limit }))
    }
}

/// Reads at most a given number of bytes; one more is an error, not the end.
struct Limited<R> {
    plain: R,
    limit: u64,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.plain.read(buf)?;
        self.left = self.left.checked_sub(len as u64).ok_or_else(|| {
            let limit = self.limit;
            io::Error::new(io::ErrorKind::FileTooLarge, format!("it holds over {limit} bytes"))
        })?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compress(compression: Compression, plain: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => plain.to_vec(),
            Compression::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            Compression::Xz => {
                let mut to = liblzma::write::XzEncoder::new(Vec::new(), 0);
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            Compression::Zstd => {
                // With the checksum that dpkg-deb also writes.
                let mut to = zstd::Encoder::new(Vec::new(), 1).unwrap();
                to.include_checksum(true).unwrap();
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
        }
    }

    fn unpack(compression: Compression, stored: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        compression.reader(stored, limit)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    const ALL: [Compression; 4] =
        [Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd];

    #[test]
    fn each_compression_is_undone_up_to_the_limit() {
        let plain = b"cairn ".repeat(10_000);
        for compression in ALL {
            let stored = compress(compression, &plain);
            assert_eq!(unpack(compression, &stored, 60_000).expect("unpacks"), plain);
            let err = unpack(compression, &stored, 59_999).expect_err("a bomb");
            assert_eq!(err.kind(), io::ErrorKind::FileTooLarge, "{compression:?}");
        }
    }

    #[test]
    fn damage_and_a_missing_end_are_errors() {
        let plain = b"cairn ".repeat(1_000);
        for compression in &ALL[1..] {
            let stored = compress(*compression, &plain);
            let short = &stored[..stored.len() - 5];
            assert!(unpack(*compression, short, 1 << 20).is_err(), "{compression:?}: truncated");
            let mut damaged = stored.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x40;
            assert!(unpack(*compression, &damaged, 1 << 20).is_err(), "{compression:?}: damaged");
            let trailing = [&stored[..], b"garbage"].concat();
            assert!(unpack(*compression, &trailing, 1 << 20).is_err(), "{compression:?}: trailing");
        }
    }

    #[test]
    fn an_xz_stream_that_wants_gigabytes_is_refused() {
        // Only the header matters, which the dictionary's size is part of.
        let mut stored = compress(Compression::Xz, b"x");
        let header = &mut stored[12..24];
        // Block header: size, flags, filter id, length of properties, size of
        // the dictionary as an exponent (36 is 1 GiB), padding, CRC32.
        assert_eq!(header[2..4], [0x21, 1]);
        header[4] = 36;
        let mut sum = flate2::Crc::new();
        sum.update(&header[..8]);
        let sum = sum.sum().to_le_bytes();
        header[8..12].copy_from_slice(&sum);
        assert!(unpack(Compression::Xz, &stored, 1 << 20).is_err());
    }

    #[test]
    fn a_zstd_frame_that_wants_a_large_window_is_refused() {
        let with_window = |log| {
            let mut to = zstd::Encoder::new(Vec::new(), 1).unwrap();
            to.window_log(log).unwrap();
            to.write_all(b"x").unwrap();
            to.flush().unwrap();
            to.finish().unwrap()
        };
        assert!(unpack(Compression::Zstd, &with_window(27), 1).is_ok());
        assert!(unpack(Compression::Zstd, &with_window(28), 1).is_err());
    }
}
