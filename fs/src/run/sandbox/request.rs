//! What the two ends of a sandbox say to each other: lines of JSON.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the helper is told first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    /// The process that has started the helper.
    pub(super) parent: u32,
    pub(super) base: Base,
    pub(super) stage: PathBuf,
    pub(super) name: String,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) time: Duration,
    pub(super) space: u64,
    pub(super) processes: u32,
}

/// What the root is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Base {
    /// A mount that the process outside answers, with a layer above it.
    Tree,
    /// This directory.
    Directory(PathBuf),
}

/// What init is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// To run a program.
    Run(Vec<String>),
    /// To delete a path.
    Delete(String),
}

/// What it answers; the output follows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) outcome: Outcome,
    /// How many bytes of output follow.
    pub(super) len: usize,
}

/// How a program ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What it wrote to standard output and standard error; of much, the beginning
    /// and the end.
    pub output: Vec<u8>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It was ended, because it took longer than it may.
    TimedOut,
    /// It could not be started, for this errno.
    NotStarted(i32),
}

impl Outcome {
    /// Whether it did what it was to do.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

/// The longest line of a request.
const LINE_LEN: usize = 4 << 20;

/// Most of the output of a program that is kept.
pub(super) const OUTPUT_LEN: usize = HEAD_LEN + TAIL_LEN + GAP.len();
const HEAD_LEN: usize = 16 << 10;
const TAIL_LEN: usize = 48 << 10;
const GAP: &[u8] = b"\n[...]\n";

/// Sends a line.
pub(super) fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Receives a line and nothing beyond it.
pub(super) fn read_line<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        from.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(serde_json::from_slice(&line)?);
        }
        if line.len() == LINE_LEN {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(byte[0]);
    }
}

/// The beginning and the end of what a program writes.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    head: Vec<u8>,
    /// Never more than twice [`TAIL_LEN`].
    tail: Vec<u8>,
    has_gap: bool,
}

impl Excerpt {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = (HEAD_LEN - self.head.len()).min(bytes.len());
        let (head, tail) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        self.tail.extend_from_slice(tail);
        if self.tail.len() > 2 * TAIL_LEN {
            self.tail.drain(..self.tail.len() - TAIL_LEN);
            self.has_gap = true;
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.tail.len() > TAIL_LEN {
            self.tail.drain(..self.tail.len() - TAIL_LEN);
            self.has_gap = true;
        }
        if self.has_gap {
            self.head.extend_from_slice(GAP);
        }
        self.head.extend_from_slice(&self.tail);
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_much_output_the_beginning_and_the_end_are_kept() {
        let all: Vec<u8> = (0..400_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
        for len in [0, 10, HEAD_LEN, HEAD_LEN + TAIL_LEN, HEAD_LEN + TAIL_LEN + 1, all.len()] {
            let mut excerpt = Excerpt::default();
            all[..len].chunks(7_001).for_each(|piece| excerpt.push(piece));
            let kept = excerpt.finish();
            assert!(kept.len() <= OUTPUT_LEN);
            if len <= HEAD_LEN + TAIL_LEN {
                assert!(kept == all[..len], "{len}");
            } else {
                assert!(kept.starts_with(&all[..HEAD_LEN]), "{len}");
                assert!(kept.ends_with(&all[len - TAIL_LEN..len]), "{len}");
                assert_eq!(kept[HEAD_LEN..HEAD_LEN + GAP.len()], *GAP);
            }
        }
    }
}
