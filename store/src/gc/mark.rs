//! What is reached: every object below the roots, each met once.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{GcPhase, GcProgress};
use crate::error::{Error, Result};
use crate::hash::TreeId;
use crate::pack::ObjectId;
use crate::store::Inner;
use crate::tree::{Content, Entry, Listed};

/// What stands for an object among the marks: half of the BLAKE3 hash that names it, with
/// its kind, and for a blob its key. A pack that lies about one of these must not be taken
/// for the place of the real object.
///
/// 2^64 objects would have to be stored before two are likely to share one, and then
/// one object too many is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark(u128);

impl Mark {
    pub(crate) fn of(object: ObjectId) -> Self {
        let (hash, other) = match &object {
            ObjectId::Blob(key, digest) => {
                (digest.as_bytes(), u128::from_le_bytes(*key.as_bytes()))
            }
            ObjectId::Tree(id) => (id.as_bytes(), 1),
            ObjectId::Page(id) => (id.as_bytes(), 2),
            ObjectId::State(digest) => (digest.as_bytes(), 3),
        };
        let (half, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
        Self(u128::from_le_bytes(*half) ^ other)
    }
}

/// Takes a mark as its own hash: it is one.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a mark is hashed as one number")
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = u64::try_from(number & u128::from(u64::MAX)).expect("it is cut to 64 bits");
    }
}

/// A map from marks.
pub(crate) type ByMark<T> = HashMap<Mark, T, BuildHasherDefault<AsItIs>>;

/// A set that several threads fill.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    shards: [Mutex<HashSet<Mark, BuildHasherDefault<AsItIs>>>; 16],
}

impl Marks {
    /// Adds an object; whether it is new.
    pub(crate) fn insert(&self, object: ObjectId) -> bool {
        let mark = Mark::of(object);
        self.shard(mark).insert(mark)
    }

    /// Whether it was added.
    pub(crate) fn contains(&self, mark: Mark) -> bool {
        self.shard(mark).contains(&mark)
    }

    fn shard(&self, mark: Mark) -> MutexGuard<'_, HashSet<Mark, BuildHasherDefault<AsItIs>>> {
        // The table inside of a shard uses the low bits.
        let shard = usize::try_from(mark.0 >> 124).expect("it has four bits");
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Directories that wait to be read, and what became of the others.
struct Queue {
    waiting: Vec<TreeId>,
    /// Threads that read one.
    busy: usize,
    failed: Option<Error>,
}

struct Walk<'a> {
    inner: &'a Inner,
    marks: &'a Marks,
    progress: &'a dyn GcProgress,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Marks everything that `roots` reach, in parallel; what is marked already is taken
/// as read.
///
/// Costs each directory and each page of a large one once, however many states share
/// them.
///
/// # Errors
/// The first directory that cannot be read: what it holds is not known, so nothing
/// may be taken for garbage.
pub(super) fn mark(
    inner: &Inner,
    marks: &Marks,
    roots: Vec<TreeId>,
    progress: &dyn GcProgress,
) -> Result<()> {
    progress.begin(GcPhase::Mark, None);
    let roots = roots.into_iter().filter(|root| marks.insert(ObjectId::Tree(*root)));
    let queue = Queue { waiting: roots.collect(), busy: 0, failed: None };
    let walk = Walk { inner, marks, progress, queue: Mutex::new(queue), changed: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| walk.work());
        }
    });
    let queue = walk.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.failed.map_or(Ok(()), Err)
}

impl Walk<'_> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(id) = self.next() {
            let read = self.directory(id);
            let mut queue = self.queue();
            queue.busy -= 1;
            match read {
                Ok(below) => queue.waiting.extend(below),
                Err(err) => {
                    queue.failed.get_or_insert(err);
                }
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    /// The next directory; `None` when all are read, or one cannot be.
    fn next(&self) -> Option<TreeId> {
        let mut queue = self.queue();
        loop {
            if queue.failed.is_some() {
                return None;
            }
            if let Some(id) = queue.waiting.pop() {
                queue.busy += 1;
                return Some(id);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks what a directory holds; returns the directories below that are new.
    fn directory(&self, id: TreeId) -> Result<Vec<TreeId>> {
        let mut below = Vec::new();
        match self.inner.listed(id)? {
            Listed::Entries(entries) => self.entries(entries, &mut below),
            Listed::Pages(pages) => {
                for (page, _) in pages {
                    if self.marks.insert(ObjectId::Page(page)) {
                        self.entries(self.inner.page_entries(page)?, &mut below);
                    }
                }
            }
        }
        self.progress.advance(1);
        // The one that lies next to this one in its pack comes off the stack first.
        below.reverse();
        Ok(below)
    }

    fn entries(&self, entries: Vec<(crate::Name, Entry)>, below: &mut Vec<TreeId>) {
        for (_, entry) in entries {
            match entry {
                Entry::Directory(subtree) => {
                    if self.marks.insert(ObjectId::Tree(subtree.id)) {
                        below.push(subtree.id);
                    }
                }
                Entry::Leaf(leaf) => {
                    if let Content::File(blob) = leaf.content {
                        self.marks.insert(ObjectId::Blob(blob.key, blob.digest));
                    }
                }
            }
        }
    }
}
