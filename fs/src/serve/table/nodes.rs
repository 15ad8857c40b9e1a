//! Nodes by their numbers, close together: there may be millions.
//!
//! A map of the standard library has slots for up to twice as many keys and values as there
//! are. Here these lie one behind the other, and only their indices are in a hash table that is
//! partly empty, at 5 bytes a slot.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::serve::node::NodeId;

/// Values of nodes. Each operation costs what one of a hash table costs; the order is any.
#[derive(Debug)]
pub(super) struct Nodes<V> {
    /// Of each one in `nodes`.
    indices: HashTable<u32>,
    nodes: Vec<(NodeId, V)>,
}

impl<V> Default for Nodes<V> {
    fn default() -> Self {
        Self { indices: HashTable::new(), nodes: Vec::new() }
    }
}

impl<V> Nodes<V> {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.find(id).is_some()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&V> {
        Some(&self.nodes[self.find(id)?].1)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut V> {
        let index = self.find(id)?;
        Some(&mut self.nodes[index].1)
    }

    pub(super) fn get_or_insert_with(&mut self, id: NodeId, new: impl FnOnce() -> V) -> &mut V {
        let (nodes, indices) = (&mut self.nodes, &mut self.indices);
        let is_it = |index: &u32| nodes[*index as usize].0 == id;
        let hash = |index: &u32| nodes[*index as usize].0.spread();
        let index = match indices.entry(id.spread(), is_it, hash) {
            Entry::Occupied(index) => *index.get() as usize,
            Entry::Vacant(index) => {
                let end = nodes.len();
                let end_index = u32::try_from(end).expect("2^32 nodes do not fit into memory");
                // First what may panic, so that both always agree.
                nodes.push((id, new()));
                index.insert(end_index);
                end
            }
        };
        &mut nodes[index].1
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Option<V> {
        let is_it = |index: &u32| self.nodes[*index as usize].0 == id;
        let (index, _) = self.indices.find_entry(id.spread(), is_it).ok()?.remove();
        let (_, value) = self.nodes.swap_remove(index as usize);
        if let Some((moved, _)) = self.nodes.get(index as usize) {
            // The last one, which lies where this one lay.
            let from = self.nodes.len();
            let at = self.indices.find_mut(moved.spread(), |index| *index as usize == from);
            *at.expect("each node has an index") = index;
        }
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &V)> {
        self.nodes.iter().map(|(id, value)| (*id, value))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut V)> {
        self.nodes.iter_mut().map(|(id, value)| (*id, value))
    }

    /// For how many there is memory.
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// Gives memory back when most of it is no longer needed.
    pub(super) fn shrink(&mut self) {
        let len = self.len();
        if self.capacity() > 4096 && len < self.capacity() / 8 {
            self.nodes.shrink_to(2 * len);
            let nodes = &self.nodes;
            self.indices.shrink_to(2 * len, |index| nodes[*index as usize].0.spread());
        }
    }

    fn find(&self, id: NodeId) -> Option<usize> {
        let is_it = |index: &u32| self.nodes[*index as usize].0 == id;
        self.indices.find(id.spread(), is_it).map(|index| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_left_is_found_after_memory_was_given_back() {
        let mut nodes = Nodes::default();
        let id = |number: u64| NodeId::from_kernel(2 + number * 0x12_3456_789a);
        for number in 0..10_000_u64 {
            nodes.get_or_insert_with(id(number), || number);
        }
        for number in (0..10_000).filter(|number| number % 100 != 7) {
            assert_eq!(nodes.remove(id(number)), Some(number));
        }
        nodes.shrink();
        assert!(nodes.capacity() < 1_000, "{}", nodes.capacity());
        for number in 0..10_000_u64 {
            let expected = (number % 100 == 7).then_some(&number);
            assert_eq!(nodes.get(id(number)), expected);
        }
    }

    proptest! {
        #[test]
        fn they_are_a_map(steps in prop::collection::vec((2..40_u64, 0..4_u8), 0..400)) {
            let (mut nodes, mut model) = (Nodes::default(), HashMap::new());
            for (count, (number, what)) in steps.into_iter().enumerate() {
                let id = NodeId::from_kernel(number);
                match what {
                    0 => prop_assert_eq!(nodes.remove(id), model.remove(&id)),
                    1 => prop_assert_eq!(nodes.get_mut(id), model.get_mut(&id)),
                    _ => {
                        let new = nodes.get_or_insert_with(id, || count);
                        prop_assert_eq!(new, model.entry(id).or_insert(count));
                    }
                }
                prop_assert_eq!(nodes.get(id), model.get(&id));
                prop_assert_eq!(nodes.contains(id), model.contains_key(&id));
                prop_assert_eq!(nodes.len(), model.len());
                nodes.shrink();
            }
            let all: HashMap<_, _> = nodes.iter().map(|(id, value)| (id, *value)).collect();
            prop_assert_eq!(all, model);
        }
    }
}
