//! What reading has cost so far, counted while it goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a [`crate::Store`] and its clones have read since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// Frames that were asked for and found in memory.
    pub frames_cached: u64,
    /// Frames that were read from packs, verified and decompressed.
    pub frames_decoded: u64,
    /// Bytes that came out of those.
    pub bytes_decoded: u64,
    /// Frames that were decoded before they were asked for.
    #[serde(default)]
    pub frames_read_ahead: u64,
    /// Those of them that were asked for later.
    #[serde(default)]
    pub frames_read_ahead_used: u64,
    /// Nanoseconds that reading and decompressing them took, in all threads.
    pub decoding_nanoseconds: u64,
    /// Nanoseconds that the slowest of them took.
    pub slowest_nanoseconds: u64,
    /// Directories that were asked for and found decoded in memory.
    pub trees_cached: u64,
    /// Directories that were decoded.
    pub trees_decoded: u64,
}

impl Reads {
    /// What was read since `before`, in a store of which both are.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            frames_cached: self.frames_cached - before.frames_cached,
            frames_decoded: self.frames_decoded - before.frames_decoded,
            bytes_decoded: self.bytes_decoded - before.bytes_decoded,
            frames_read_ahead: self.frames_read_ahead - before.frames_read_ahead,
            frames_read_ahead_used: self.frames_read_ahead_used - before.frames_read_ahead_used,
            decoding_nanoseconds: self.decoding_nanoseconds - before.decoding_nanoseconds,
            slowest_nanoseconds: self.slowest_nanoseconds,
            trees_cached: self.trees_cached - before.trees_cached,
            trees_decoded: self.trees_decoded - before.trees_decoded,
        }
    }
}

/// The same, as threads count it. Each count is right; together they are of no
/// one moment.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    frames_cached: AtomicU64,
    frames_decoded: AtomicU64,
    bytes_decoded: AtomicU64,
    frames_read_ahead: AtomicU64,
    frames_read_ahead_used: AtomicU64,
    decoding_nanoseconds: AtomicU64,
    slowest_nanoseconds: AtomicU64,
    trees_cached: AtomicU64,
    trees_decoded: AtomicU64,
}

impl Counts {
    pub(crate) fn frame_was_cached(&self) {
        self.frames_cached.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame of `len` plain bytes was decoded since `begun`.
    pub(crate) fn frame_was_decoded(&self, len: usize, begun: Instant) {
        let time = nanoseconds(begun.elapsed());
        self.frames_decoded.fetch_add(1, Ordering::Relaxed);
        self.bytes_decoded.fetch_add(len as u64, Ordering::Relaxed);
        self.decoding_nanoseconds.fetch_add(time, Ordering::Relaxed);
        self.slowest_nanoseconds.fetch_max(time, Ordering::Relaxed);
    }

    pub(crate) fn frame_was_read_ahead(&self) {
        self.frames_read_ahead.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn frame_read_ahead_was_used(&self) {
        self.frames_read_ahead_used.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn tree_was_cached(&self) {
        self.trees_cached.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn tree_was_decoded(&self) {
        self.trees_decoded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reads(&self) -> Reads {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Reads {
            frames_cached: read(&self.frames_cached),
            frames_decoded: read(&self.frames_decoded),
            bytes_decoded: read(&self.bytes_decoded),
            frames_read_ahead: read(&self.frames_read_ahead),
            frames_read_ahead_used: read(&self.frames_read_ahead_used),
            decoding_nanoseconds: read(&self.decoding_nanoseconds),
            slowest_nanoseconds: read(&self.slowest_nanoseconds),
            trees_cached: read(&self.trees_cached),
            trees_decoded: read(&self.trees_decoded),
        }
    }
}

/// A duration as it is counted; full after 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
