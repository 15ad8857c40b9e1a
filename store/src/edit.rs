//! New trees from old ones, at the cost of what differs.
//!
//! A directory that only one side has is taken over by its id, unread; where
//! several sides have it, the rules of this file decide, entry by entry.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hash::{BlobRef, TreeId};
use crate::name::{Name, TreePath};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::tree::{Attributes, Entry, HardLink, Leaf, LinkGroup, Subtree, Tree};

/// Where trees are read from.
pub trait TreeReader {
    /// The directory `id`.
    fn read_tree(&self, id: TreeId) -> Result<Arc<Tree>>;

    /// The directories `old` and `new`, of which entries that both have may be missing; see
    /// [`Store::differing`].
    fn read_differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        Ok((self.read_tree(old)?, self.read_tree(new)?))
    }
}

/// Where new trees are put as well.
pub trait TreeWriter: TreeReader {
    /// Adds a directory, whose subdirectories were added before.
    fn write_tree(&mut self, tree: Tree) -> Result<TreeId>;
}

impl<R: TreeReader + ?Sized> TreeReader for &R {
    fn read_tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        (**self).read_tree(id)
    }

    fn read_differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        (**self).read_differing(old, new)
    }
}

impl TreeReader for Store {
    fn read_tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        self.tree(id)
    }

    fn read_differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        self.differing(old, new)
    }
}

/// Where trees and the contents of their files are read from.
pub trait BlobReader: TreeReader {
    /// All bytes of a blob, verified.
    fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>>;
}

impl BlobReader for Store {
    fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>> {
        self.read(blob)
    }
}

/// Finds what lies at `path`; symbolic links are not followed.
///
/// Costs one tree a component.
pub fn resolve(from: &impl TreeReader, root: TreeId, path: &TreePath) -> Result<Option<Entry>> {
    let summary = from.read_tree(root)?.summary();
    let mut entry = Entry::Directory(Subtree { id: root, summary });
    for name in path.names() {
        let Entry::Directory(Subtree { id, .. }) = entry else { return Ok(None) };
        match from.read_tree(id)?.get(name) {
            Some(next) => entry = next.clone(),
            None => return Ok(None),
        }
    }
    Ok(Some(entry))
}

/// A change of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Puts this there, in place of anything but a directory.
    Leaf(Leaf),
    /// Makes a directory with these attributes, or gives them to the one there.
    Directory(Attributes),
    /// Puts a whole directory there, in place of whatever it is.
    Tree(TreeId),
    /// Takes away what is there, a directory with all below it; changes of paths
    /// below it then make a new directory.
    Remove,
}

/// Applies changes to a tree, in the order of their paths, so that a directory
/// comes before what lies in it.
///
/// Directories above a path are made as implied ones where they are missing.
/// When a member of a group of hard links comes or goes, the counts of the
/// others are set right, which costs the directories that hold hard links.
///
/// # Errors
/// [`Error::NotADirectory`] when a path leads through something else, or a leaf
/// is put on a directory; [`Error::NoSuchPath`] when there is nothing to remove.
pub fn edit(
    transaction: &mut Transaction,
    root: TreeId,
    edits: &BTreeMap<TreePath, Edit>,
) -> Result<TreeId> {
    let mut moves_links = false;
    let edits: Vec<(&[Name], &Edit)> =
        edits.iter().map(|(path, edit)| (path.names(), edit)).collect();
    let edited =
        edit_directory(transaction, Some(root), &mut TreePath::root(), &edits, &mut moves_links)?;
    if moves_links { recount_links(transaction, edited) } else { Ok(edited) }
}

fn edit_directory(
    transaction: &mut Transaction,
    id: Option<TreeId>,
    path: &mut TreePath,
    edits: &[(&[Name], &Edit)],
    moves_links: &mut bool,
) -> Result<TreeId> {
    let mut id = id;
    let mut own = None;
    // An edit with an empty path means this directory itself, and comes first.
    let (here, below) = match edits.split_first() {
        Some((([], edit), below)) => (Some(*edit), below),
        _ => (None, edits),
    };
    match here {
        None => {}
        Some(Edit::Directory(attributes)) => own = Some(attributes.clone()),
        Some(Edit::Tree(tree)) => id = Some(*tree),
        Some(Edit::Leaf(_) | Edit::Remove) => return Err(Error::NotADirectory(path.clone())),
    }
    let mut tree = match id {
        Some(id) => Tree::clone(&*transaction.read_tree(id)?),
        None => Tree::empty(Attributes::implied_directory()),
    };
    if let Some(attributes) = own {
        tree.attributes = attributes;
    }
    for group in below.chunk_by(|left, right| left.0[0] == right.0[0]) {
        let name = &group[0].0[0];
        path.push(name.clone());
        let below: Vec<(&[Name], &Edit)> =
            group.iter().map(|(names, edit)| (&names[1..], *edit)).collect();
        let before = tree.get(name);
        *moves_links |= before.is_some_and(has_links);
        let after = match below.as_slice() {
            [([], Edit::Remove)] => {
                if before.is_none() {
                    return Err(Error::NoSuchPath(path.clone()));
                }
                None
            }
            [([], Edit::Leaf(leaf))] => {
                if before.is_some_and(|entry| entry.as_directory().is_some()) {
                    return Err(Error::NotADirectory(path.clone()));
                }
                Some(Entry::Leaf(leaf.clone()))
            }
            [([], Edit::Leaf(_)), ..] => return Err(Error::NotADirectory(path.clone())),
            [([], Edit::Remove), below @ ..] => {
                if before.is_none() {
                    return Err(Error::NoSuchPath(path.clone()));
                }
                let id = edit_directory(transaction, None, path, below, moves_links)?;
                let summary = transaction.read_tree(id)?.summary();
                Some(Entry::Directory(Subtree { id, summary }))
            }
            _ => {
                let id = match before {
                    None => None,
                    Some(Entry::Directory(subtree)) => Some(subtree.id),
                    Some(Entry::Leaf(_)) if matches!(below[0], ([], Edit::Tree(_))) => None,
                    Some(Entry::Leaf(_)) => return Err(Error::NotADirectory(path.clone())),
                };
                let id = edit_directory(transaction, id, path, &below, moves_links)?;
                let summary = transaction.read_tree(id)?.summary();
                Some(Entry::Directory(Subtree { id, summary }))
            }
        };
        *moves_links |= after.as_ref().is_some_and(has_links);
        match after {
            Some(entry) => drop(tree.insert(name.clone(), entry)),
            None => drop(tree.remove(name)),
        }
        path.pop();
    }
    transaction.put_tree(tree)
}

fn has_links(entry: &Entry) -> bool {
    entry.summary().linked > 0
}

/// Sets the count of every hard link right; a group of one is none.
///
/// Costs the directories that hold hard links.
pub fn recount_links(trees: &mut impl TreeWriter, root: TreeId) -> Result<TreeId> {
    let mut counts = HashMap::new();
    count_links(trees, root, &mut counts)?;
    Ok(set_counts(trees, root, &counts)?.unwrap_or(root))
}

fn count_links(
    from: &impl TreeReader,
    id: TreeId,
    counts: &mut HashMap<LinkGroup, u32>,
) -> Result<()> {
    for (_, entry) in from.read_tree(id)?.entries() {
        match entry {
            Entry::Directory(subtree) if subtree.summary.linked > 0 => {
                count_links(from, subtree.id, counts)?;
            }
            Entry::Leaf(Leaf { link: Some(link), .. }) => {
                *counts.entry(link.group).or_default() += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the new directory, or `None` when all counts were right.
fn set_counts(
    trees: &mut impl TreeWriter,
    id: TreeId,
    counts: &HashMap<LinkGroup, u32>,
) -> Result<Option<TreeId>> {
    let before = trees.read_tree(id)?;
    let mut changed: Vec<(Name, Entry)> = Vec::new();
    for (name, entry) in before.entries() {
        match entry {
            Entry::Directory(subtree) if subtree.summary.linked > 0 => {
                if let Some(id) = set_counts(trees, subtree.id, counts)? {
                    let summary = trees.read_tree(id)?.summary();
                    changed.push((name.clone(), Entry::Directory(Subtree { id, summary })));
                }
            }
            Entry::Leaf(leaf) => {
                let Some(link) = leaf.link else { continue };
                let count = counts[&link.group];
                if count != link.count {
                    let link = (count > 1).then_some(HardLink { count, ..link });
                    changed.push((name.clone(), Entry::Leaf(Leaf { link, ..leaf.clone() })));
                }
            }
            Entry::Directory(_) => {}
        }
    }
    if changed.is_empty() {
        return Ok(None);
    }
    let mut tree = Tree::clone(&before);
    for (name, entry) in changed {
        tree.insert(name, entry);
    }
    trees.write_tree(tree).map(Some)
}

/// Two sides that cannot both have their way at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Where.
    pub path: TreePath,
    /// The part that was there first; `None` for the base.
    pub first: Option<usize>,
    /// The part that wants something else there.
    pub second: usize,
}

/// A path at which parts agree to the letter on something that is not a
/// directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    /// Where.
    pub path: TreePath,
    /// The part that has it like one before it, or like the base.
    pub part: usize,
}

/// What [`merge`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The root directory.
    pub tree: TreeId,
    /// Paths that more than one side has.
    pub shared: Vec<Shared>,
}

/// Merges parts into a base, all at once.
///
/// Directories are united. The attributes of a directory come from the side
/// that gives it others than the implied ones
/// ([`Attributes::implied_directory`]); times alone make no difference, and the
/// latest stays. Anything else may be there once, or
/// several times exactly alike; the rest are conflicts, sorted by path, and
/// then nothing is merged. The result does not depend on the order of parts.
///
/// Costs the directories that two sides share.
pub fn merge(
    transaction: &mut Transaction,
    base: TreeId,
    parts: &[TreeId],
) -> Result<std::result::Result<Merged, Vec<Conflict>>> {
    let mut merge = Merge { path: TreePath::root(), conflicts: Vec::new(), shared: Vec::new() };
    let parts: Vec<(usize, TreeId)> = parts.iter().copied().enumerate().collect();
    let tree = merge.directory(transaction, Some(base), &parts)?;
    merge.conflicts.sort();
    if merge.conflicts.is_empty() {
        Ok(Ok(Merged { tree, shared: merge.shared }))
    } else {
        Ok(Err(merge.conflicts))
    }
}

struct Merge {
    path: TreePath,
    conflicts: Vec<Conflict>,
    shared: Vec<Shared>,
}

impl Merge {
    fn directory(
        &mut self,
        transaction: &mut Transaction,
        base: Option<TreeId>,
        parts: &[(usize, TreeId)],
    ) -> Result<TreeId> {
        match (base, parts) {
            (Some(only), []) => return Ok(only),
            (None, [(_, only)]) => return Ok(*only),
            _ => {}
        }
        let base = base.map(|id| transaction.read_tree(id)).transpose()?;
        let mut trees = Vec::with_capacity(parts.len());
        for (part, id) in parts {
            trees.push((*part, transaction.read_tree(*id)?));
        }
        let attributes = self.attributes(base.as_deref(), &trees);

        let mut coming: Vec<(&Name, usize, &Entry)> = Vec::new();
        for (part, tree) in &trees {
            coming.extend(tree.entries().iter().map(|(name, entry)| (name, *part, entry)));
        }
        coming.sort_by_key(|(name, part, _)| (*name, *part));

        let mut entries = Vec::with_capacity(coming.len());
        let mut present = base.as_deref().map_or(&[][..], Tree::entries).iter().peekable();
        for group in coming.chunk_by(|left, right| left.0 == right.0) {
            let name = group[0].0;
            while let Some(before) = present.next_if(|(other, _)| other < name) {
                entries.push(before.clone());
            }
            let there = present.next_if(|(other, _)| other == name).map(|(_, entry)| entry);
            self.path.push(name.clone());
            entries.push((name.clone(), self.entry(transaction, there, group)?));
            self.path.pop();
        }
        entries.extend(present.cloned());
        let tree = Tree::new(attributes, entries).expect("each name was taken once");
        transaction.put_tree(tree)
    }

    fn entry(
        &mut self,
        transaction: &mut Transaction,
        base: Option<&Entry>,
        parts: &[(&Name, usize, &Entry)],
    ) -> Result<Entry> {
        let subtrees: Vec<(usize, TreeId)> = parts
            .iter()
            .filter_map(|(_, part, entry)| Some((*part, entry.as_directory()?.id)))
            .collect();
        let base_subtree = base.and_then(Entry::as_directory);
        if subtrees.len() == parts.len() && base_subtree.is_some() == base.is_some() {
            let id =
                self.directory(transaction, base_subtree.map(|subtree| subtree.id), &subtrees)?;
            let summary = transaction.read_tree(id)?.summary();
            return Ok(Entry::Directory(Subtree { id, summary }));
        }
        let (first, entry, others) = match (base, parts) {
            (Some(entry), others) => (None, entry, others),
            (None, [(_, part, entry), others @ ..]) => (Some(*part), *entry, others),
            (None, []) => unreachable!("a group has a member"),
        };
        for (_, second, other) in others {
            let path = self.path.clone();
            if *other == entry {
                self.shared.push(Shared { path, part: *second });
            } else {
                self.conflicts.push(Conflict { path, first, second: *second });
            }
        }
        Ok(entry.clone())
    }

    fn attributes(&mut self, base: Option<&Tree>, parts: &[(usize, Arc<Tree>)]) -> Attributes {
        let implied = Attributes::implied_directory();
        let base = base.map(|tree| (None, &tree.attributes));
        let parts = parts.iter().map(|(part, tree)| (Some(*part), &tree.attributes));
        // Directories of packages have no times; that of a directory in which a
        // workspace has changed something is no reason for a conflict.
        let mtime = base.into_iter().chain(parts.clone()).map(|(_, it)| it.mtime).max();
        let mut sides =
            base.into_iter().chain(parts).filter(|(_, attributes)| !attributes.is_like(&implied));
        let (first, chosen) = sides.next().unwrap_or((None, &implied));
        for (second, attributes) in sides {
            if let Some(second) = second.filter(|_| !attributes.is_like(chosen)) {
                self.conflicts.push(Conflict { path: self.path.clone(), first, second });
            }
        }
        Attributes { mtime: mtime.unwrap_or_default(), ..chosen.clone() }
    }
}

/// What else keeps a path when a part is taken out of a tree.
pub trait Claims {
    /// The attributes that others want for the directory at `path`; `None` when
    /// no other part lists it.
    fn directory(&self, path: &TreePath) -> Result<Option<Attributes>>;
    /// Whether another part has the very same thing at `path`.
    fn leaf(&self, path: &TreePath) -> Result<bool>;
    /// Whether there may be claims at or below `path`; where there are none, a
    /// directory that only the part has goes unread.
    fn any_below(&self, path: &TreePath) -> bool;
}

/// What [`subtract`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtracted {
    /// The root directory.
    pub tree: TreeId,
    /// Paths that the part has otherwise than the tree, which kept its own.
    pub changed: Vec<TreePath>,
}

/// Takes parts out of a tree: what [`merge`] put in.
///
/// Goes with a part: each thing that lies in the tree as in the part, unless
/// `claims` keeps it, and each directory that thereby becomes empty, unless it
/// is claimed or has attributes of its own. What was changed since stays and is
/// named in the result.
pub fn subtract(
    transaction: &mut Transaction,
    base: TreeId,
    parts: &[TreeId],
    claims: &impl Claims,
) -> Result<Subtracted> {
    let mut walk = Subtract { path: TreePath::root(), changed: Vec::new(), claims };
    let tree = walk.directory(transaction, base, parts)?;
    let tree = match tree {
        Some(tree) => tree,
        None => transaction.put_tree(Tree::empty(Attributes::implied_directory()))?,
    };
    Ok(Subtracted { tree, changed: walk.changed })
}

struct Subtract<'a, C> {
    path: TreePath,
    changed: Vec<TreePath>,
    claims: &'a C,
}

impl<C: Claims> Subtract<'_, C> {
    /// Returns what is left of the directory; `None` when it goes as well.
    fn directory(
        &mut self,
        transaction: &mut Transaction,
        id: TreeId,
        parts: &[TreeId],
    ) -> Result<Option<TreeId>> {
        if parts == [id] && !self.claims.any_below(&self.path) {
            return Ok(None);
        }
        let implied = Attributes::implied_directory();
        let before = transaction.read_tree(id)?;
        let mut tree = Tree::clone(&before);
        let mut listed = None;
        let mut below: BTreeMap<Name, Vec<Entry>> = BTreeMap::new();
        for part in parts {
            let part = transaction.read_tree(*part)?;
            if !part.attributes.is_like(&implied) {
                listed = Some(part.attributes.clone());
            }
            for (name, entry) in part.entries() {
                below.entry(name.clone()).or_default().push(entry.clone());
            }
        }
        for (name, parts) in below {
            self.path.push(name.clone());
            let after = self.entry(transaction, before.get(&name), &parts)?;
            match after {
                Some(entry) => drop(tree.insert(name, entry)),
                None => drop(tree.remove(&name)),
            }
            self.path.pop();
        }
        if listed.is_some_and(|attributes| attributes.is_like(&tree.attributes)) {
            let mtime = tree.attributes.mtime;
            let claimed = self.claims.directory(&self.path)?.unwrap_or(implied.clone());
            tree.attributes = Attributes { mtime, ..claimed };
        }
        let goes = tree.entries().is_empty()
            && tree.attributes == implied
            && self.claims.directory(&self.path)?.is_none();
        if goes { Ok(None) } else { transaction.put_tree(tree).map(Some) }
    }

    fn entry(
        &mut self,
        transaction: &mut Transaction,
        present: Option<&Entry>,
        parts: &[Entry],
    ) -> Result<Option<Entry>> {
        let Some(present) = present else {
            self.changed.push(self.path.clone());
            return Ok(None);
        };
        let subtrees: Vec<TreeId> =
            parts.iter().filter_map(|part| Some(part.as_directory()?.id)).collect();
        if let (Entry::Directory(subtree), true) = (present, subtrees.len() == parts.len()) {
            let Some(id) = self.directory(transaction, subtree.id, &subtrees)? else {
                return Ok(None);
            };
            let summary = transaction.read_tree(id)?.summary();
            return Ok(Some(Entry::Directory(Subtree { id, summary })));
        }
        if !parts.contains(present) {
            self.changed.push(self.path.clone());
            return Ok(Some(present.clone()));
        }
        let stays = self.claims.leaf(&self.path)?;
        Ok(stays.then(|| present.clone()))
    }
}
