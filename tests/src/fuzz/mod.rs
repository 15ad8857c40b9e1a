//! What is asked of each parser of stored or untrusted bytes, whatever they are: an answer
//! or an error, never a panic, and no more memory than the bytes are worth.
//!
//! A [`Target`] gets bytes from the corpus in `tests/corpus`, and [`changed`] ones. Where checksums would keep every changed byte from the parser behind
//! them, the target makes them right first: who damages a file can do so, too.

mod change;
mod package;
mod store;

use std::path::PathBuf;

pub use change::changed;

use crate::sys::CountedHeap;

/// A parser, with what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// For `FUZZ_PARSERS`.
    pub name: &'static str,
    corpus: &'static str,
    /// The most bytes of the heap for an empty input, and for each byte of it.
    memory: (usize, usize),
    parse: fn(&[u8]),
}

const MIB: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 9] = [
    // Several pages of the smallest entries, decoded and encoded.
    Target { name: "tree", corpus: "tree", memory: (MIB, 64), parse: store::tree },
    // A frame has up to 4 MiB, and zstd makes those of few bytes.
    Target { name: "pack", corpus: "pack", memory: (64 * MIB, 1 << 15), parse: store::pack },
    Target { name: "index", corpus: "pack", memory: (64 * MIB, 1 << 15), parse: store::index },
    Target { name: "log", corpus: "log", memory: (MIB, 64), parse: store::log },
    Target { name: "tar", corpus: "tar", memory: (64 * MIB, 64), parse: store::tar },
    Target { name: "oci", corpus: "oci", memory: (64 * MIB, 64), parse: store::oci },
    // docs/stone.md: tables of 4 MiB and 64 times the length of the file.
    Target { name: "stone", corpus: "stone", memory: (64 * MIB, 256), parse: package::stone },
    Target {
        name: "metadata",
        corpus: "metadata",
        memory: (64 * MIB, 256),
        parse: package::metadata,
    },
    Target { name: "deb", corpus: "deb", memory: (64 * MIB, 64), parse: package::deb },
];

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// Where its corpus lies.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.corpus)
    }

    /// Gives these bytes to the parser.
    ///
    /// # Panics
    /// If something is wrong with the parser, whatever is wrong with the bytes; also if it
    /// takes too much memory, where [`CountedHeap`] is the allocator.
    pub fn check(&self, bytes: &[u8]) {
        let before = CountedHeap::begin();
        (self.parse)(bytes);
        let most = CountedHeap::most().saturating_sub(before);
        let (base, each) = self.memory;
        let allowed = base + each * bytes.len();
        assert!(most <= allowed, "{}: {most} bytes of heap for {}", self.name, bytes.len());
    }
}

/// A number at this place, the lowest byte first; `None` where the bytes end before.
fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// A temporary directory in memory where there is one: nothing here has to be durable.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
