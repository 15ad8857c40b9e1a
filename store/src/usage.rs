//! How much room states take, alone and together.

use std::collections::HashMap;

use crate::error::Result;
use crate::gc::Amount;
use crate::hash::TreeId;
use crate::pack::{ObjectId, Pack};
use crate::state::StateId;
use crate::store::Store;
use crate::tree::Entry;

/// What a state needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateUsage {
    /// Its contents and directories, each once; bytes are those of contents.
    pub all: Amount,
    /// Those of them that no other state needs.
    pub exclusive: Amount,
}

/// What states need, and what the store has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each state by itself.
    pub states: Vec<(StateId, StateUsage)>,
    /// Everything that any state needs, each once; bytes are those of contents.
    pub unique: Amount,
    /// Plain bytes of everything in packs, directories and garbage included.
    pub packed: u64,
    /// Bytes of the packs.
    pub stored: u64,
}

/// Who needs an object: the state of this number, or several.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    One(usize),
    Several,
}

impl Store {
    /// Tells what the states need.
    ///
    /// Costs each directory of all states, however many share it, at most three
    /// times, and the object tables of all packs.
    pub fn usage(&self) -> Result<Usage> {
        let refs = self.refs();
        let mut usage = Usage::default();
        let mut owners: HashMap<ObjectId, (Owner, u64)> = HashMap::new();
        for (number, state) in refs.states.values().enumerate() {
            for root in [state.tree, state.packages] {
                self.own(root, number, &mut owners)?;
            }
        }
        for (number, state) in refs.states.values().enumerate() {
            let mut of_state = StateUsage::default();
            let mut seen = HashMap::new();
            for root in [state.tree, state.packages] {
                self.own(root, 0, &mut seen)?;
            }
            for (object, (_, size)) in seen {
                of_state.all.add(size);
                if owners.get(&object).is_some_and(|(owner, _)| *owner == Owner::One(number)) {
                    of_state.exclusive.add(size);
                }
            }
            usage.states.push((state.id, of_state));
        }
        owners.values().for_each(|(_, size)| usage.unique.add(*size));
        let inner = self.inner();
        for id in inner.list_packs()? {
            // What is damaged is told by others.
            let Ok(pack) = Pack::open(&inner.pack_path(id), id) else { continue };
            usage.stored += pack.len();
            for (_, at) in pack.objects().unwrap_or_default() {
                usage.packed += at.len;
            }
        }
        Ok(usage)
    }

    /// Notes that a state needs everything below a root. What is known to be needed by
    /// it, or by several, is not looked into again.
    fn own(
        &self,
        root: TreeId,
        number: usize,
        owners: &mut HashMap<ObjectId, (Owner, u64)>,
    ) -> Result<()> {
        let mut note = |object, size| {
            let mut is_new = true;
            owners
                .entry(object)
                .and_modify(|(owner, _)| {
                    is_new = *owner != Owner::Several && *owner != Owner::One(number);
                    if is_new {
                        *owner = Owner::Several;
                    }
                })
                .or_insert((Owner::One(number), size));
            is_new
        };
        let mut stack = Vec::new();
        if note(ObjectId::Tree(root), 0) {
            stack.push(root);
        }
        while let Some(id) = stack.pop() {
            for (_, entry) in self.tree(id)?.entries() {
                match entry {
                    Entry::Directory(subtree) => {
                        if note(ObjectId::Tree(subtree.id), 0) {
                            stack.push(subtree.id);
                        }
                    }
                    Entry::Leaf(leaf) => {
                        if let Some(blob) = leaf.blob() {
                            note(ObjectId::Blob(blob.key, blob.digest), blob.size);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
