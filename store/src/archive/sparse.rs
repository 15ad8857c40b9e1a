//! Sparse files in archives: a map says where in the file the stored bytes belong, and what lies
//! between are zeros.
//!
//! Formats: "Storing Sparse Files" in the manual of GNU tar. The old one has the map in
//! the header and in blocks after it; of the three with pax records, 0.0 and 0.1 have it in
//! those, and 1.0 before the stored bytes.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::blocks::{BLOCK, Blocks};
use super::error::EntryProblem;

/// The most bytes that a map may take in the archive, which bounds what it takes in memory.
const MAX_MAP_LEN: usize = 1 << 20;

/// Where the stored bytes of a sparse file belong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// Bytes of the file.
    size: u64,
    /// Offset and length of each piece, one behind the other.
    pieces: Vec<(u64, u64)>,
    stored: u64,
}

/// What pax records say of a sparse file.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    version: [Option<u64>; 2],
    count: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
    has_list: bool,
}

/// A map is damaged, or the archive around it.
pub(super) enum Fault {
    Unpack(io::Error),
    Entry(EntryProblem),
}

fn wrong(what: &'static str) -> EntryProblem {
    EntryProblem::Sparse(what)
}

impl Map {
    fn new(size: u64, pieces: Vec<(u64, u64)>, stored: u64) -> Result<Self, EntryProblem> {
        let (mut end, mut sum) = (0, 0_u64);
        let mut is_last = false;
        for &(offset, len) in pieces.iter().filter(|(_, len)| *len > 0) {
            if is_last {
                // Some readers would begin the next one at a block.
                return Err(wrong("a piece ends within a block, and is not the last"));
            }
            if offset < end {
                return Err(wrong("its pieces overlap or are not sorted"));
            }
            end = offset.checked_add(len).ok_or(wrong("a piece is too long"))?;
            sum = sum.checked_add(len).ok_or(wrong("a piece is too long"))?;
            is_last = len % BLOCK as u64 != 0;
        }
        if end > size {
            return Err(wrong("a piece lies behind the end of the file"));
        }
        if sum != stored {
            return Err(wrong("its pieces have another length than what is stored"));
        }
        Ok(Self { size, pieces, stored })
    }

    /// That of the old format, of which the header has the beginning; reads the rest.
    pub(super) fn of_header<R: Read>(
        header: &Header,
        blocks: &mut Blocks<R>,
        stored: u64,
    ) -> Result<Self, Fault> {
        let broken = |_| Fault::Entry(wrong("it has something else than numbers"));
        let gnu = header.as_gnu().ok_or(Fault::Entry(EntryProblem::Type(b'S')))?;
        let size = gnu.real_size().map_err(broken)?;
        let mut pieces = Vec::new();
        let mut add = |piece: &GnuSparseHeader| {
            if !piece.is_empty() {
                pieces.push((piece.offset().map_err(broken)?, piece.length().map_err(broken)?));
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut has_more = gnu.is_extended();
        let mut len = 0;
        while has_more {
            len += BLOCK;
            if len > MAX_MAP_LEN {
                return Err(Fault::Entry(wrong("it is too long")));
            }
            let block = blocks.block().map_err(Fault::Unpack)?;
            let mut more = GnuExtSparseHeader::new();
            more.as_mut_bytes()
                .copy_from_slice(&block.ok_or(Fault::Entry(EntryProblem::Truncated))?);
            more.sparse().iter().try_for_each(&mut add)?;
            has_more = more.is_extended();
        }
        Self::new(size, pieces, stored).map_err(Fault::Entry)
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of it that are not stored.
    pub(super) fn holes(&self) -> u64 {
        self.size - self.stored
    }

    /// The file, of which `stored` has what is stored.
    pub(super) fn reader<R: Read>(&self, stored: R) -> Filled<'_, R> {
        Filled { map: self, stored, next: 0, at: 0 }
    }
}

impl SparseRecords {
    /// Takes over the record `GNU.sparse.<key>`.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
        let number = || number(value).ok_or(wrong("it has something else than numbers"));
        let is_offset = self.numbers.len().is_multiple_of(2);
        let slot = match key {
            b"name" => return set(&mut self.name, value.to_vec()),
            b"size" | b"realsize" => &mut self.size,
            b"major" => &mut self.version[0],
            b"minor" => &mut self.version[1],
            b"numblocks" => &mut self.count,
            b"offset" | b"numbytes" => {
                if self.has_list || is_offset != (key == b"offset") {
                    return Err(wrong("its numbers are not pairs"));
                }
                self.numbers.push(number()?);
                return Ok(());
            }
            b"map" => {
                if !self.numbers.is_empty() || self.has_list {
                    return Err(wrong("it is there twice"));
                }
                self.has_list = true;
                let numbers = value.split(|byte| *byte == b',').map(self::number);
                let numbers: Option<_> = numbers.collect();
                self.numbers = numbers.ok_or(wrong("it has something else than numbers"))?;
                return Ok(());
            }
            _ => return Err(wrong("it has a form that is not known")),
        };
        set(slot, number()?)
    }

    /// The map; reads that of version 1.0, which lies before the bytes of the file.
    pub(super) fn map<R: Read>(self, blocks: &mut Blocks<R>) -> Result<Map, Fault> {
        let Self { size, version, count, mut numbers, has_list, .. } = self;
        let entry = |what| Fault::Entry(wrong(what));
        let size = size.ok_or(entry("the length of the file is missing"))?;
        match version {
            [Some(1), Some(0)] => {
                if !numbers.is_empty() || has_list || count.is_some() {
                    return Err(entry("it is there twice"));
                }
                numbers = read_numbers(blocks)?;
            }
            [None, None] | [Some(0), Some(0 | 1)] => {
                if count.is_some_and(|count| count.checked_mul(2) != Some(numbers.len() as u64)) {
                    return Err(entry("it has more or fewer pieces than it says"));
                }
            }
            _ => return Err(entry("it has a form that is not known")),
        }
        let (pairs, rest) = numbers.as_chunks();
        if !rest.is_empty() {
            return Err(entry("its numbers are not pairs"));
        }
        let pieces = pairs.iter().map(|[offset, len]| (*offset, *len)).collect();
        Map::new(size, pieces, blocks.left()).map_err(Fault::Entry)
    }
}

/// The numbers before the stored bytes, each in a line: how many pairs there are, and those;
/// filled with zeros to the end of a block.
fn read_numbers<R: Read>(blocks: &mut Blocks<R>) -> Result<Vec<u64>, Fault> {
    let mut text = Vec::new();
    let mut numbers = Vec::new();
    let mut expected = None;
    let mut done = 0;
    loop {
        if done + BLOCK > MAX_MAP_LEN {
            return Err(Fault::Entry(wrong("it is too long")));
        }
        done += BLOCK;
        let mut block = [0; BLOCK];
        blocks.read_exact(&mut block).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Entry(EntryProblem::Truncated),
            _ => Fault::Unpack(err),
        })?;
        for byte in block {
            if expected == Some(numbers.len() as u64) {
                break;
            }
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            let broken = Fault::Entry(wrong("it has something else than numbers"));
            let number = number(&text).ok_or(broken)?;
            text.clear();
            match expected {
                None => {
                    let count = number.checked_mul(2);
                    expected = Some(count.ok_or(Fault::Entry(wrong("it is too long")))?);
                }
                Some(_) => numbers.push(number),
            }
        }
        if expected == Some(numbers.len() as u64) {
            return Ok(numbers);
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), EntryProblem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong("it is there twice")),
    }
}

/// A sparse file as its content.
pub(super) struct Filled<'m, R> {
    map: &'m Map,
    stored: R,
    /// The piece that is read, or is next.
    next: usize,
    at: u64,
}

impl<R: Read> Read for Filled<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let fit = |len: u64| usize::try_from(len).map_or(buf.len(), |len| buf.len().min(len));
        loop {
            let len = match self.map.pieces.get(self.next) {
                Some(&(offset, len)) if len == 0 || offset + len <= self.at => {
                    self.next += 1;
                    continue;
                }
                Some(&(offset, len)) if offset <= self.at => {
                    let len = fit(offset + len - self.at);
                    self.stored.read(&mut buf[..len])?
                }
                piece => {
                    let end = piece.map_or(self.map.size, |(offset, _)| *offset);
                    let len = fit(end - self.at);
                    buf[..len].fill(0);
                    len
                }
            };
            self.at += len as u64;
            return Ok(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_lies_is_refused() {
        let check = |size, pieces: &[(u64, u64)], stored, expected: &str| {
            let problem = Map::new(size, pieces.to_vec(), stored).expect_err(expected);
            assert!(problem.to_string().ends_with(expected), "{problem}, not {expected}");
        };
        check(1024, &[(512, 512), (0, 512)], 1024, "overlap or are not sorted");
        check(1024, &[(0, 512), (0, 512)], 1024, "overlap or are not sorted");
        check(9999, &[(0, 5), (512, 512)], 517, "a piece ends within a block, and is not the last");
        check(511, &[(0, 512)], 512, "a piece lies behind the end of the file");
        check(9, &[(u64::MAX, 2)], 2, "a piece is too long");
        check(u64::MAX, &[(0, 512)], 511, "its pieces have another length than what is stored");
        check(u64::MAX, &[], 1, "its pieces have another length than what is stored");
    }

    #[test]
    fn what_lies_between_the_pieces_are_zeros() {
        let check = |size, pieces: &[(u64, u64)], stored: &[u8]| {
            let map = Map::new(size, pieces.to_vec(), stored.len() as u64).expect("a map");
            let mut expected = vec![0; usize::try_from(size).expect("it is small")];
            let mut rest = stored;
            for &(offset, len) in pieces {
                let [offset, len] = [offset, len].map(|it| usize::try_from(it).expect("small"));
                expected[offset..offset + len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
            let mut found = Vec::new();
            map.reader(stored).read_to_end(&mut found).expect("is read");
            assert_eq!(found, expected, "{size}, {pieces:?}");
            assert_eq!(map.holes(), size - stored.len() as u64);
        };
        check(0, &[], b"");
        check(5, &[(5, 0)], b"");
        check(5, &[(1, 3)], b"abc");
        check(2000, &[(0, 512), (512, 512), (1030, 0), (1400, 3), (2000, 0)], &[7; 1027]);
        let map = Map::new(9, vec![(2, 4)], 4).expect("a map");
        let mut found = Vec::new();
        map.reader(&b"ab"[..]).read_to_end(&mut found).expect("is read");
        assert_eq!(found, b"\0\0ab", "what is not there is not made up");
    }

    #[test]
    fn the_records_of_each_version_are_read() {
        let map = |records: &[(&str, &str)], stored: &[u8]| {
            let mut sparse = SparseRecords::default();
            for (key, value) in records {
                sparse.add(key.as_bytes(), value.as_bytes())?;
            }
            let mut blocks = Blocks::new(stored);
            blocks.begin(stored.len() as u64);
            sparse.map(&mut blocks).map_err(|fault| match fault {
                Fault::Entry(problem) => problem,
                Fault::Unpack(err) => panic!("{err}"),
            })
        };
        let expected = Map { size: 2000, pieces: vec![(512, 3), (2000, 0)], stored: 3 };
        let pairs = [("offset", "512"), ("numbytes", "3"), ("offset", "2000"), ("numbytes", "0")];
        let first = [&[("size", "2000"), ("numblocks", "2")], &pairs[..]].concat();
        assert_eq!(map(&first, b"abc").expect("0.0"), expected);
        let second = [("size", "2000"), ("numblocks", "2"), ("map", "512,3,2000,0")];
        assert_eq!(map(&second, b"abc").expect("0.1"), expected);
        let third = [("major", "1"), ("minor", "0"), ("name", "a"), ("realsize", "2000")];
        let mut text = b"2\n512\n3\n2000\n0\n".to_vec();
        text.resize(BLOCK, 0);
        text.extend_from_slice(b"abc");
        assert_eq!(map(&third, &text).expect("1.0"), expected);

        let check = |records: &[(&str, &str)], stored: &[u8], expected: &str| {
            let problem = map(records, stored).expect_err(expected).to_string();
            assert!(problem.contains(expected), "{problem}, not {expected}");
        };
        check(&first[1..], b"abc", "the length of the file is missing");
        check(&first[..5], b"abc", "more or fewer pieces");
        check(&[("offset", "1"), ("offset", "1")], b"", "its numbers are not pairs");
        check(&[("size", "9"), ("offset", "1")], b"", "its numbers are not pairs");
        check(&[("map", "1,1"), ("map", "1,1")], b"", "there twice");
        check(&[("map", "1,x")], b"", "something else than numbers");
        check(&[("size", "-1")], b"", "something else than numbers");
        check(&[("major", "2"), ("minor", "0"), ("size", "1")], b"", "form that is not known");
        check(&[("secret", "2")], b"", "form that is not known");
        check(&third, b"1\n0\n3\n", "the archive ends within it");
        check(&third, &[b'1'; 2 * BLOCK], "the archive ends within it");
        check(&third, &[b'1'; MAX_MAP_LEN + BLOCK], "it is too long");
        let many = [&b"18446744073709551615\n"[..], &[0; BLOCK]].concat();
        check(&third, &many, "it is too long");
    }
}
