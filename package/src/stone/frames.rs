//! Zstandard frames: one for a table, many with a seek table for a content.
//!
//! The seek table is that of Zstandard's "seekable format" 0.1.0, in a
//! skippable frame at the end, so that readers which do not know it see
//! ordinary frames.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use zstd::stream::raw::CParameter;
use zstd::stream::{read, write};

/// How many plain bytes a frame of a content has that Cairn writes in many;
/// only the last has fewer.
pub(super) const FRAME_LEN: usize = 2 << 20;

/// Larger frames are not decompressed beside others, since each of them is in
/// memory as a whole then.
const LARGEST_PARALLEL_FRAME: u32 = 32 << 20;

/// A block of at most 128 KiB needs at least four bytes.
const LARGEST_RATIO: u64 = (128 << 10) / 4;

/// Whether `stored` bytes of frames can hold `plain` bytes at all.
pub(super) fn can_hold(stored: u64, plain: u64) -> bool {
    plain <= stored.saturating_mul(LARGEST_RATIO)
}

/// Why frames have not been decompressed.
#[derive(Debug)]
pub(super) enum Failure {
    /// They hold more than the limit.
    Longer,
    /// They are not whole, valid frames.
    Damaged(io::Error),
}

/// Decompresses one body after the other.
///
/// Making what zstd works with costs more than a small body.
#[derive(Default)]
pub(super) struct Decompressor(Option<zstd::bulk::Decompressor<'static>>);

impl Decompressor {
    /// Decompresses frames that together hold at most `limit` bytes, and about
    /// as many as are `announced`.
    ///
    /// Memory grows with what comes out, and stops growing at the limit.
    pub(super) fn decompress(
        &mut self,
        stored: &[u8],
        announced: u64,
        limit: u64,
    ) -> Result<Vec<u8>, Failure> {
        if let Some(plain) = self.decompress_announced(stored, announced.min(limit)) {
            return Ok(plain);
        }
        let mut plain = Vec::new();
        let decoder = decoder(stored, limit).map_err(Failure::Damaged)?;
        decoder.take(limit.saturating_add(1)).read_to_end(&mut plain).map_err(Failure::Damaged)?;
        if plain.len() as u64 > limit { Err(Failure::Longer) } else { Ok(plain) }
    }

    /// The usual case: no window beside the output. `None` does not tell why.
    fn decompress_announced(&mut self, stored: &[u8], most: u64) -> Option<Vec<u8>> {
        let most = usize::try_from(most).ok().filter(|_| can_hold(stored.len() as u64, most))?;
        if self.0.is_none() {
            self.0 = zstd::bulk::Decompressor::new().ok();
        }
        self.0.as_mut()?.decompress(stored, most).ok()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

/// Decompresses frames that should hold `size` bytes as they are read.
pub(super) fn decoder<'a, R: BufRead>(stored: R, size: u64) -> io::Result<read::Decoder<'a, R>> {
    // A frame that announces its size needs a window as large as that. Nobody
    // may ask for more than that, beyond zstd's own default of 128 MiB, which
    // is only reserved, not touched.
    let needed = u64::BITS - size.saturating_sub(1).leading_zeros();
    let mut decoder = read::Decoder::with_buffer(stored)?;
    decoder.window_log_max(needed.clamp(27, 31))?;
    Ok(decoder)
}

/// Compresses to one frame, as the tools of AerynOS do.
pub(super) fn canonical_encoder<'a, W: Write>(
    to: W,
    size: u64,
) -> io::Result<write::Encoder<'a, W>> {
    let mut encoder = write::Encoder::new(to, 18)?;
    encoder.set_parameter(CParameter::WindowLog(31))?;
    encoder.set_pledged_src_size(Some(size))?;
    Ok(encoder)
}

/// Compresses to one frame, as the tools of AerynOS do.
pub(super) fn compress_canonical(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = canonical_encoder(Vec::new(), plain.len() as u64)?;
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Where the frames of a content begin and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeekTable {
    pub(super) frames: Vec<FrameSize>,
}

/// How long a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameSize {
    /// In the file.
    pub(super) stored: u32,
    /// Decompressed.
    pub(super) plain: u32,
}

const SKIPPABLE_MAGIC: u32 = 0x184d_2a5e;
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;
const HEADER_LEN: usize = 8;
const ENTRY_LEN: usize = 8;

/// Length of what ends a seek table.
pub(super) const FOOTER_LEN: usize = 9;

impl SeekTable {
    /// The skippable frame; `None` if there are more frames than it can have.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let count = u32::try_from(self.frames.len()).ok()?;
        let len = u32::try_from(self.frames.len() * ENTRY_LEN + FOOTER_LEN).ok()?;
        let mut out = Vec::new();
        out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        for frame in &self.frames {
            out.extend_from_slice(&frame.stored.to_le_bytes());
            out.extend_from_slice(&frame.plain.to_le_bytes());
        }
        out.extend_from_slice(&count.to_le_bytes());
        // The descriptor: no checksums of single frames, since the payload has
        // one and each file its hash.
        out.push(0);
        out.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
        Some(out)
    }

    /// How long the whole skippable frame is of which these are the last
    /// bytes; `None` if they are not the end of one without checksums.
    pub(super) fn len_from_footer(footer: [u8; FOOTER_LEN]) -> Option<u64> {
        let [c0, c1, c2, c3, descriptor, m0, m1, m2, m3] = footer;
        if descriptor != 0 || u32::from_le_bytes([m0, m1, m2, m3]) != SEEKABLE_MAGIC {
            return None;
        }
        let count = u64::from(u32::from_le_bytes([c0, c1, c2, c3]));
        Some(count * ENTRY_LEN as u64 + (HEADER_LEN + FOOTER_LEN) as u64)
    }

    /// Reads the whole skippable frame. `None` unless it fits a body of
    /// `stored` bytes, itself included, that holds `plain` bytes in frames
    /// small enough to be decompressed side by side.
    pub(super) fn decode(bytes: &[u8], stored: u64, plain: u64) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [m0, m1, m2, m3, l0, l1, l2, l3] = *header;
        let (entries, footer) = rest.split_last_chunk::<FOOTER_LEN>()?;
        let is_table = u32::from_le_bytes([m0, m1, m2, m3]) == SKIPPABLE_MAGIC
            && u64::from(u32::from_le_bytes([l0, l1, l2, l3])) == rest.len() as u64
            && Self::len_from_footer(*footer)? == bytes.len() as u64;
        if !is_table {
            return None;
        }
        let (entries, []) = entries.as_chunks::<ENTRY_LEN>() else { return None };
        let frames: Vec<FrameSize> = entries
            .iter()
            .map(|[s0, s1, s2, s3, p0, p1, p2, p3]| FrameSize {
                stored: u32::from_le_bytes([*s0, *s1, *s2, *s3]),
                plain: u32::from_le_bytes([*p0, *p1, *p2, *p3]),
            })
            .collect();
        let sum = |size: fn(&FrameSize) -> u32| frames.iter().map(|f| u64::from(size(f))).sum();
        let (all_stored, all_plain): (u64, u64) = (sum(|f| f.stored), sum(|f| f.plain));
        let fits = all_stored + bytes.len() as u64 == stored && all_plain == plain;
        let small = |f: &FrameSize| f.stored.max(f.plain) <= LARGEST_PARALLEL_FRAME;
        (fits && frames.iter().all(small)).then_some(Self { frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_content_is_the_frame_that_the_format_names() {
        let frame = compress_canonical(b"").expect("compresses");
        assert_eq!(frame, [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0]);
        assert_eq!(cairn_store::Checksum::of(&frame).0, 0xe6fb_29dd_a2e7_a873);
    }

    #[test]
    fn frames_before_between_and_after_skippable_ones_are_read() {
        let skippable = SeekTable::default().encode().expect("small");
        let (one, two) =
            (compress_canonical(b"one").expect("fits"), compress_canonical(b"two").expect("fits"));
        let body = [&skippable[..], &one, &skippable, &two, &skippable].concat();
        for announced in [0, 6, 99] {
            let plain = Decompressor::default().decompress(&body, announced, 6).expect("frames");
            assert_eq!(plain, b"onetwo", "{announced} bytes announced");
            assert!(matches!(
                Decompressor::default().decompress(&body, announced, 5),
                Err(Failure::Longer)
            ));
        }
    }

    #[test]
    fn what_is_not_whole_frames_is_refused() {
        let frame = compress_canonical(&b"plain ".repeat(100)).expect("compresses");
        for len in 1..frame.len() {
            assert!(
                Decompressor::default().decompress(&frame[..len], 600, 1000).is_err(),
                "a prefix of {len} bytes"
            );
        }
        for garbage in [&b"x"[..], b"\0\0\0", b"garbage", &[0x27, 0xb5, 0x2f, 0xfd, 0, 0]] {
            let body = [&frame[..], garbage].concat();
            assert!(
                Decompressor::default().decompress(&body, 600, 1000).is_err(),
                "{}",
                garbage.escape_ascii()
            );
        }
    }

    #[test]
    fn a_seek_table_reads_back_only_where_it_fits() {
        let frames = vec![FrameSize { stored: 10, plain: 99 }, FrameSize { stored: 5, plain: 1 }];
        let table = SeekTable { frames };
        let bytes = table.encode().expect("small");
        let len = bytes.len() as u64;
        let footer = *bytes.last_chunk().expect("long enough");
        assert_eq!(SeekTable::len_from_footer(footer), Some(len));
        assert_eq!(SeekTable::decode(&bytes, 15 + len, 100), Some(table));
        assert_eq!(SeekTable::decode(&bytes, 16 + len, 100), None);
        assert_eq!(SeekTable::decode(&bytes, 15 + len, 101), None);
        assert_eq!(SeekTable::decode(&bytes[1..], 14 + len, 100), None);
    }

    #[test]
    fn the_densest_frames_are_believed_and_denser_ones_are_not() {
        let plain = vec![0; 64 << 20];
        let stored = zstd::bulk::compress(&plain, 19).expect("compresses").len() as u64;
        assert!(can_hold(stored, plain.len() as u64), "{stored} bytes");
        assert!(!can_hold(stored / 2, plain.len() as u64), "{stored} bytes");
        assert!(can_hold(0, 0) && !can_hold(0, 1) && can_hold(u64::MAX, u64::MAX));
    }
}
