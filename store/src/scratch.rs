//! Trees that are only in memory, above those of a store.

use std::collections::HashMap;
use std::sync::Arc;

use crate::edit::{TreeReader, TreeWriter};
use crate::error::Result;
use crate::hash::TreeId;
use crate::tree::Tree;

/// What could become a state, without the right to change anything: new trees are
/// kept here, and the others are read from below.
#[derive(Debug)]
pub struct Scratch<R> {
    below: R,
    trees: HashMap<TreeId, Arc<Tree>>,
}

impl<R> Scratch<R> {
    /// Keeps nothing yet.
    pub fn new(below: R) -> Self {
        Self { below, trees: HashMap::new() }
    }

    /// The trees that are kept here.
    #[must_use]
    pub fn into_trees(self) -> HashMap<TreeId, Arc<Tree>> {
        self.trees
    }
}

impl<R: TreeReader> TreeReader for Scratch<R> {
    fn read_tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        match self.trees.get(&id) {
            Some(tree) => Ok(tree.clone()),
            None => self.below.read_tree(id),
        }
    }
}

impl<R: TreeReader> TreeWriter for Scratch<R> {
    fn write_tree(&mut self, tree: Tree) -> Result<TreeId> {
        let id = tree.encode().id;
        self.trees.entry(id).or_insert_with(|| Arc::new(tree));
        Ok(id)
    }
}
