//! A tree shared out over several archives that give it when they are unpacked one over the
//! other, as the layers of an image are.
//!
//! The trees that it was composed of come in groups, and each group has a layer: what the tree
//! has exactly as one of the group has it. So a layer changes only when its group does. The last
//! layer has everything else: files that no group has like that, and directories that would have
//! other attributes. No layer takes anything away.

use std::io::Write;
use std::sync::Arc;

use super::tar::Archive;
use crate::edit::TreeReader;
use crate::error::Result;
use crate::hash::TreeId;
use crate::name::{Name, TreePath};
use crate::store::Store;
use crate::tree::{Attributes, Entry, Tree};

/// A directory of a group.
struct Part {
    group: usize,
    id: TreeId,
    tree: Arc<Tree>,
}

/// Directories of groups that lie at one path, by their groups.
type Over = Vec<Part>;

/// Trees by groups, with the one that is composed of them.
pub(super) struct Layers<'a> {
    pub(super) store: &'a Store,
    pub(super) root: TreeId,
    pub(super) groups: &'a [Vec<TreeId>],
}

impl Layers<'_> {
    /// Writes the layer of a group.
    pub(super) fn group<W: Write>(
        &self,
        number: usize,
        archive: &mut Archive<'_, W>,
    ) -> Result<()> {
        let over = self.read(self.groups[number].iter().map(|id| (number, *id)))?;
        self.common(self.root, &over, &mut TreePath::root(), archive)
    }

    /// Writes the last layer.
    pub(super) fn rest<W: Write>(&self, archive: &mut Archive<'_, W>) -> Result<()> {
        let trees = self.groups.iter().enumerate();
        let trees = trees.flat_map(|(number, ids)| ids.iter().map(move |id| (number, *id)));
        let over = self.read(trees)?;
        let root = self.store.read_tree(self.root)?;
        archive.directory_entry(&TreePath::root(), &root.attributes)?;
        let mut rest = Rest { layers: self, archive, path: TreePath::root(), waiting: Vec::new() };
        rest.below(&root, &over)
    }

    fn read(&self, trees: impl Iterator<Item = (usize, TreeId)>) -> Result<Over> {
        trees.map(|(group, id)| Ok(Part { group, id, tree: self.store.read_tree(id)? })).collect()
    }

    /// The directories that lie at the path of an entry.
    fn over(&self, over: &Over, name: &Name) -> Result<Over> {
        self.read(over.iter().filter_map(|part| {
            Some((part.group, part.tree.get(name.as_bytes())?.as_directory()?.id))
        }))
    }

    /// Writes what lies below a directory and is the same in one of the trees over it.
    fn common<W: Write>(
        &self,
        id: TreeId,
        over: &Over,
        path: &mut TreePath,
        archive: &mut Archive<'_, W>,
    ) -> Result<()> {
        let tree = self.store.read_tree(id)?;
        for (name, entry) in tree.entries() {
            path.push(name.clone());
            match entry {
                Entry::Directory(subtree) => {
                    let over = self.over(over, name)?;
                    if let Some(attributes) = attributes(&over) {
                        archive.directory_entry(path, &attributes)?;
                        self.common(subtree.id, &over, path, archive)?;
                    }
                }
                Entry::Leaf(leaf) if has(over, name, entry) => archive.leaf(leaf, path)?,
                Entry::Leaf(_) => {}
            }
            path.pop();
        }
        Ok(())
    }
}

/// Whether one of the directories has the very same entry.
fn has(over: &Over, name: &Name, entry: &Entry) -> bool {
    over.iter().any(|part| part.tree.get(name.as_bytes()) == Some(entry))
}

/// What the layers of groups make of the attributes of a directory: the last one has its way,
/// and in it the first tree that says anything of them.
fn attributes(over: &Over) -> Option<Attributes> {
    let last = over.last()?.group;
    let implied = Attributes::implied_directory();
    let mut of_last = over.iter().filter(|part| part.group == last);
    let said = of_last.find(|part| part.tree.attributes != implied);
    Some(said.map_or(implied, |part| part.tree.attributes.clone()))
}

/// Writes what no group has.
struct Rest<'a, 'b, W> {
    layers: &'a Layers<'a>,
    archive: &'a mut Archive<'b, W>,
    path: TreePath,
    /// Directories above that were not written yet.
    waiting: Vec<(TreePath, Attributes)>,
}

impl<W: Write> Rest<'_, '_, W> {
    fn below(&mut self, tree: &Tree, over: &Over) -> Result<()> {
        for (name, entry) in tree.entries() {
            self.path.push(name.clone());
            match entry {
                Entry::Directory(subtree) => {
                    let over = self.layers.over(over, name)?;
                    // Unless one tree has all of it.
                    if !matches!(&over[..], [only] if only.id == subtree.id) {
                        self.directory(subtree.id, &over)?;
                    }
                }
                Entry::Leaf(_) if has(over, name, entry) => {}
                Entry::Leaf(leaf) => {
                    self.write_waiting()?;
                    self.archive.leaf(leaf, &self.path)?;
                }
            }
            self.path.pop();
        }
        Ok(())
    }

    fn directory(&mut self, id: TreeId, over: &Over) -> Result<()> {
        let tree = self.layers.store.read_tree(id)?;
        self.waiting.push((self.path.clone(), tree.attributes.clone()));
        if attributes(over).as_ref() != Some(&tree.attributes) {
            self.write_waiting()?;
        }
        self.below(&tree, over)?;
        self.waiting.pop_if(|(path, _)| *path == self.path);
        Ok(())
    }

    /// Writes the directories above what comes next.
    fn write_waiting(&mut self) -> Result<()> {
        for (path, attributes) in std::mem::take(&mut self.waiting) {
            self.archive.directory_entry(&path, &attributes)?;
        }
        Ok(())
    }
}
