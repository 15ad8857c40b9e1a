//! What only old states need, in an order that brings similar things together.
//!
//! Old states are all but the current one, those with tags, and what mounts and workspaces
//! show; a mount of all states shows none of them more than another. Of what they reach and those do not, directories come first, and then files, each by
//! path, the oldest state first: versions of a file lie side by side, and compress as one.

use super::mark::{Mark, Marks};
use super::{GcProgress, mark};
use crate::error::Result;
use crate::hash::TreeId;
use crate::hold::Holder;
use crate::log::Refs;
use crate::pack::ObjectId;
use crate::store::{Inner, Store};
use crate::tree::{Entry, Listed};

/// What only old states need.
pub(super) struct Cold {
    /// Each once, in the order in which they are to lie.
    pub(super) objects: Vec<ObjectId>,
    /// The same, to be found.
    pub(super) marks: Marks,
    /// How many states are old.
    pub(super) states: u64,
}

/// An object with what decides where it lies.
struct Found {
    is_blob: bool,
    /// Where it is first met.
    path: Box<[u8]>,
    /// In which state, the oldest being the first; and which page of a directory it is.
    at: (u32, u32),
    object: ObjectId,
}

impl Cold {
    /// Finds them.
    ///
    /// Costs the directories of all states, each once, and some 150 bytes of memory for each
    /// object that is found.
    ///
    /// # Errors
    /// The first directory that cannot be read.
    pub(super) fn find(store: &Store, refs: &Refs, progress: &dyn GcProgress) -> Result<Self> {
        let inner = store.inner();
        let hot = Marks::default();
        let is_hot = |id| refs.current == Some(id) || refs.tags.values().any(|tag| *tag == id);
        let states = refs.states.values();
        let (kept, old): (Vec<_>, Vec<_>) = states.partition(|state| is_hot(state.id));
        let mut roots: Vec<TreeId> =
            kept.into_iter().flat_map(|state| [state.tree, state.packages]).collect();
        for (_, record) in store.workspaces()? {
            roots.extend(record.trees());
        }
        let run = store.path().join("run");
        for holder in Holder::list(&run)? {
            roots.extend(holder.chosen_trees(&run)?);
        }
        mark::mark(inner, &hot, roots, progress)?;
        let mut walk =
            Walk { inner, hot: &hot, marks: Marks::default(), found: Vec::new(), progress };
        let states = old.len() as u64;
        for (number, state) in (0..).zip(old) {
            for (root, path) in [(state.packages, &b"packages:"[..]), (state.tree, b"")] {
                walk.directory(root, &mut path.to_vec(), number)?;
            }
        }
        let Walk { marks, mut found, .. } = walk;
        found.sort_unstable_by(|left, right| {
            (left.is_blob, &left.path, left.at).cmp(&(right.is_blob, &right.path, right.at))
        });
        let objects = found.into_iter().map(|found| found.object).collect();
        Ok(Self { objects, marks, states })
    }
}

struct Walk<'a> {
    inner: &'a Inner,
    hot: &'a Marks,
    marks: Marks,
    found: Vec<Found>,
    progress: &'a dyn GcProgress,
}

impl Walk<'_> {
    /// Notes an object; whether it is new.
    fn note(&mut self, object: ObjectId, path: &[u8], at: (u32, u32)) -> bool {
        if self.hot.contains(Mark::of(object)) || !self.marks.insert(object) {
            return false;
        }
        let is_blob = matches!(object, ObjectId::Blob(..));
        self.found.push(Found { is_blob, path: path.into(), at, object });
        true
    }

    fn directory(&mut self, id: TreeId, path: &mut Vec<u8>, state: u32) -> Result<()> {
        // What a newer state reaches of a directory, it reaches all of.
        if !self.note(ObjectId::Tree(id), path, (state, 0)) {
            return Ok(());
        }
        self.progress.advance(1);
        match self.inner.listed(id)? {
            Listed::Entries(entries) => self.entries(entries, path, state)?,
            Listed::Pages(pages) => {
                for (number, (page, _)) in (1..).zip(pages) {
                    // What lies in a page that is hot is hot.
                    if self.note(ObjectId::Page(page), path, (state, number)) {
                        self.entries(self.inner.page_entries(page)?, path, state)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn entries(
        &mut self,
        entries: Vec<(crate::Name, Entry)>,
        path: &mut Vec<u8>,
        state: u32,
    ) -> Result<()> {
        let len = path.len();
        for (name, entry) in entries {
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
            match entry {
                Entry::Directory(subtree) => self.directory(subtree.id, path, state)?,
                Entry::Leaf(leaf) => {
                    if let Some(blob) = leaf.blob() {
                        self.note(ObjectId::Blob(blob.key, blob.digest), path, (state, 0));
                    }
                }
            }
            path.truncate(len);
        }
        Ok(())
    }
}
