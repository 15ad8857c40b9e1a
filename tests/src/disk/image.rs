//! What lies on a disk, and what a power cut leaves of it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::Random;

const BLOCK: usize = 4096;

/// The bytes of a disk. What was never written is zero, and takes no room; copies share
/// what neither has changed.
#[derive(Clone, Debug)]
pub struct Image {
    len: u64,
    blocks: HashMap<u64, Arc<[u8; BLOCK]>>,
}

impl Image {
    /// A disk that was never written.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self { len, blocks: HashMap::new() }
    }

    /// What is in a file.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn load(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut image = Self::new(file.metadata()?.len());
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let len = file.read_at(&mut buf, at)?;
            if len == 0 {
                return Ok(image);
            }
            for (number, block) in buf[..len].chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    image.write(at + (number * BLOCK) as u64, block);
                }
            }
            at += len as u64;
        }
    }

    /// Puts it into a file, for people to look at.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.len)?;
        for (number, block) in &self.blocks {
            file.write_all_at(&block[..], number * BLOCK as u64)?;
        }
        Ok(())
    }

    /// How many bytes the disk has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Up to `len` bytes from `offset` on, fewer at the end.
    #[must_use]
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        for piece in pieces(offset, bytes.len()) {
            if let Some(block) = self.blocks.get(&piece.block) {
                bytes[piece.at..piece.at + piece.len].copy_from_slice(&block[piece.range()]);
            }
        }
        bytes
    }

    /// Replaces bytes from `offset` on.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for piece in pieces(offset, bytes.len()) {
            let block = self.blocks.entry(piece.block).or_insert_with(|| Arc::new([0; BLOCK]));
            let from = &bytes[piece.at..piece.at + piece.len];
            Arc::make_mut(block)[piece.range()].copy_from_slice(from);
        }
    }

    /// Replaces bytes by zeros.
    pub fn clear(&mut self, offset: u64, len: u64) {
        for piece in pieces(offset, usize::try_from(len).expect("a disk is small")) {
            if piece.len == BLOCK {
                self.blocks.remove(&piece.block);
            } else if let Some(block) = self.blocks.get_mut(&piece.block) {
                Arc::make_mut(block)[piece.range()].fill(0);
            }
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { offset, bytes } => self.write(*offset, bytes),
            Event::Clear { offset, len } => self.clear(*offset, *len),
            Event::Flush | Event::Mark(_) => {}
        }
    }
}

/// The part of a range that lies in one block.
struct Piece {
    block: u64,
    /// Where it begins in the block, and in the range.
    from: usize,
    at: usize,
    len: usize,
}

impl Piece {
    fn range(&self) -> std::ops::Range<usize> {
        self.from..self.from + self.len
    }
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = offset + at as u64;
        let from = usize::try_from(begin % BLOCK as u64).expect("it is below a block");
        let piece =
            Piece { block: begin / BLOCK as u64, from, at, len: (BLOCK - from).min(len - at) };
        at += piece.len;
        (piece.len > 0).then_some(piece)
    })
}

/// What happened to a disk, in the order in which it did.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes were written; they may be lost until the next flush.
    Write {
        /// Where the first lies.
        offset: u64,
        /// What was written.
        bytes: Box<[u8]>,
    },
    /// Bytes were discarded, or made zero.
    Clear {
        /// Where the first lies.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// All that was written before is durable.
    Flush,
    /// Whoever uses the disk says how far it is.
    Mark(usize),
}

/// What a power cut takes of what was written since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// Some of the writes, whichever.
    Some,
    /// Some of the writes, and of some of these some sectors of so many bytes.
    Torn(usize),
}

/// A disk as it is after power cuts, at one moment after the other.
#[derive(Debug)]
pub struct Replay<'a> {
    events: &'a [Event],
    /// After the flush before `durable`.
    image: Image,
    durable: usize,
}

impl<'a> Replay<'a> {
    /// Of a disk that was `base` before the events.
    #[must_use]
    pub fn new(base: &Image, events: &'a [Event]) -> Self {
        Self { events, image: base.clone(), durable: 0 }
    }

    /// What is there when the power goes after `at` events; which never decreases.
    ///
    /// # Panics
    /// If an earlier moment was asked for before, or if there are not so many events.
    pub fn cut(&mut self, at: usize, loss: Loss, random: &mut Random) -> Image {
        let flush = self.events[..at].iter().rposition(|event| matches!(event, Event::Flush));
        let flush = flush.map_or(0, |flush| flush + 1);
        assert!(self.durable <= flush, "time goes on");
        self.events[self.durable..flush].iter().for_each(|event| self.image.apply(event));
        self.durable = flush;
        let mut image = self.image.clone();
        // Much of it, little, or none.
        let kept = *random.choose(&[0, 20, 50, 80]);
        for event in &self.events[flush..at] {
            let is_kept = loss == Loss::Nothing || random.below(100) < kept;
            match (event, loss) {
                _ if !is_kept => {}
                (Event::Write { offset, bytes }, Loss::Torn(len)) if random.below(2) == 0 => {
                    for (number, sector) in bytes.chunks(len).enumerate() {
                        if random.below(2) == 0 {
                            image.write(offset + (number * len) as u64, sector);
                        }
                    }
                }
                (event, _) => image.apply(event),
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 512;

    fn write(offset: u64, byte: u8) -> Event {
        Event::Write { offset, bytes: vec![byte; 2 * SECTOR].into() }
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_may_not() {
        let base = Image::new(1 << 20);
        let events = [write(4000, 1), Event::Flush, Event::Mark(0), write(4000, 2), write(9000, 3)];
        let mut random = Random(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let image = Replay::new(&base, &events).cut(5, Loss::Some, &mut random);
            let first = image.read(4000, 2 * SECTOR);
            assert!(first == [1; 2 * SECTOR] || first == [2; 2 * SECTOR]);
            seen.insert((first[0], image.read(9000, 1)[0]));
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
        let mut replay = Replay::new(&base, &events);
        assert_eq!(replay.cut(1, Loss::Nothing, &mut random).read(4000, 1), [1]);
        assert_eq!(replay.cut(5, Loss::Nothing, &mut random).read(9000, 1), [3]);
        let torn =
            |_| Replay::new(&base, &events).cut(5, Loss::Torn(SECTOR), &mut random).read(9000, 513);
        assert!((0..200).map(torn).any(|bytes| bytes[0] != bytes[512]), "none was torn");
    }

    #[test]
    fn what_is_cleared_is_zero_again() {
        let mut image = Image::new(10_000);
        image.write(0, &[7; 10_000]);
        let copy = image.clone();
        image.clear(100, 9000);
        let bytes = image.read(0, 20_000);
        assert_eq!(bytes.len(), 10_000);
        let is_right = |at: usize| bytes[at] == if (100..9100).contains(&at) { 0 } else { 7 };
        assert!((0..10_000).all(is_right));
        assert_eq!(copy.read(5000, 1), [7]);
    }
}
