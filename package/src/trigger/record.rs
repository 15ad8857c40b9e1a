//! What the jobs of triggers have done to a root, kept beside its packages, so
//! that it can be taken back.
//!
//! ```text
//! triggers/<id>/job       what was done, as JSON
//! triggers/<id>/files/    what it left, from the root of the system
//! triggers/<id>/covered/  what was there before in the place of that, and of
//!                         what it took away
//! ```
//!
//! Format: docs/triggers.md, "Records".

use std::collections::{BTreeMap, BTreeSet};

use cairn_store::tree::{Content, Entry, Leaf};
use cairn_store::{
    Attributes, BlobReader, BytesSource, Digest, Edit, Name, Transaction, Tree, TreeId, TreePath,
    TreeReader, edit, resolve,
};
use serde::{Deserialize, Serialize};

use super::due::Job;
use crate::system::claimed_directory;
use crate::{Error, Result};

/// What a job has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The job.
    pub job: Job,
    /// Whether it was to be done, and was left out.
    pub is_pending: bool,
    /// A tree of what it left, from the root of the system; directories that are
    /// empty, or not as implied ones, are listed.
    pub files: TreeId,
    /// What was there before, likewise.
    pub covered: TreeId,
}

/// What is at a path, as a record knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// Anything but a directory.
    Leaf(Leaf),
    /// A directory that is listed.
    Directory(Attributes),
}

/// What records know of paths.
pub(crate) type Things = BTreeMap<TreePath, Thing>;

#[derive(Serialize, Deserialize)]
struct OnDisk {
    #[serde(flatten)]
    job: Job,
    #[serde(default)]
    pending: bool,
}

const DIRECTORY: &[u8] = b"triggers";
const JOB: &[u8] = b"job";
const FILES: &[u8] = b"files";
const COVERED: &[u8] = b"covered";

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("it is a name")
}

impl Record {
    /// Reads the records of a tree of packages.
    ///
    /// # Errors
    /// Besides those of reading: [`cairn_store::Error::NotADirectory`] with the
    /// path of what does not have the documented form.
    pub fn load_all(from: &impl BlobReader, packages: TreeId) -> Result<Vec<Self>> {
        let root = TreePath::new(DIRECTORY).expect("it is a path");
        let Some(Entry::Directory(all)) = resolve(from, packages, &root)? else {
            return Ok(Vec::new());
        };
        let tree = from.read_tree(all.id)?;
        let records = tree.entries().iter().map(|(id, entry)| {
            let malformed = || cairn_store::Error::NotADirectory(root.join(id));
            let record = from.read_tree(entry.as_directory().ok_or_else(malformed)?.id)?;
            let job = record.get(&name(JOB)).and_then(Entry::as_leaf).and_then(Leaf::blob);
            let json = from.read_blob(job.ok_or_else(malformed)?)?;
            let OnDisk { job, pending } = serde_json::from_slice(&json).map_err(|_| malformed())?;
            let tree = |part| {
                let entry = record.get(&name(part)).and_then(Entry::as_directory);
                entry.map(|subtree| subtree.id).ok_or_else(malformed)
            };
            let (files, covered) = (tree(FILES)?, tree(COVERED)?);
            Ok(Self { job, is_pending: pending, files, covered })
        });
        records.collect()
    }

    /// What the job left, and what was there before.
    pub(super) fn things(&self, from: &impl TreeReader) -> Result<(Things, Things)> {
        Ok((things(from, self.files)?, things(from, self.covered)?))
    }
}

/// Puts records in the place of those in a tree of packages.
pub(super) fn put_all(
    transaction: &mut Transaction,
    packages: TreeId,
    records: &[Record],
) -> Result<TreeId> {
    let mut entries = BTreeMap::new();
    for record in records {
        let on_disk = OnDisk { job: record.job.clone(), pending: record.is_pending };
        let json = serde_json::to_vec(&on_disk).expect("it has no odd keys");
        let source = BytesSource { name: "the record of a trigger", bytes: &json };
        let blobs = transaction.ingest(&[source], &())?;
        let leaf = Leaf {
            attributes: Attributes::of_root(0o644),
            content: Content::File(blobs[0]),
            link: None,
        };
        let mut parts = vec![(name(JOB), Entry::Leaf(leaf))];
        for (part, id) in [(FILES, record.files), (COVERED, record.covered)] {
            let tree = transaction.read_tree(id)?;
            parts.push((name(part), transaction.put_subtree(Tree::clone(&tree))?));
        }
        let tree = Tree::new(Attributes::implied_directory(), parts);
        let entry = transaction.put_subtree(tree.expect("the names differ"))?;
        let key = serde_json::to_vec(&record.job).expect("it has no odd keys");
        let id = Digest::of(&key).to_string();
        entries.insert(name(&id.as_bytes()[..32]), entry);
    }
    let root = TreePath::new(DIRECTORY).expect("it is a path");
    let before = resolve(transaction, packages, &root)?;
    let change = if entries.is_empty() {
        if before.is_none() {
            return Ok(packages);
        }
        Edit::Remove
    } else {
        let tree = Tree::new(Attributes::implied_directory(), entries.into_iter().collect());
        Edit::Tree(transaction.put_tree(tree.expect("a map has no key twice"))?)
    };
    Ok(edit(transaction, packages, &BTreeMap::from([(root, change)]))?)
}

/// Everything that a tree lists.
pub(crate) fn things(from: &impl TreeReader, root: TreeId) -> Result<Things> {
    fn walk(
        from: &impl TreeReader,
        id: TreeId,
        path: &mut TreePath,
        found: &mut Things,
    ) -> cairn_store::Result<()> {
        let tree = from.read_tree(id)?;
        let is_listed =
            tree.entries().is_empty() || tree.attributes != Attributes::implied_directory();
        if is_listed && !path.names().is_empty() {
            found.insert(path.clone(), Thing::Directory(tree.attributes.clone()));
        }
        for (name, entry) in tree.entries() {
            path.push(name.clone());
            match entry {
                Entry::Leaf(leaf) => drop(found.insert(path.clone(), Thing::Leaf(leaf.clone()))),
                Entry::Directory(subtree) => walk(from, subtree.id, path, found)?,
            }
            path.pop();
        }
        Ok(())
    }
    let mut found = Things::new();
    walk(from, root, &mut TreePath::root(), &mut found)?;
    Ok(found)
}

/// The tree that lists these things and nothing else.
pub(crate) fn put_things(transaction: &mut Transaction, things: &Things) -> Result<TreeId> {
    let empty = transaction.put_tree(Tree::empty(Attributes::implied_directory()))?;
    let edits = things.iter().map(|(path, thing)| {
        let edit = match thing {
            // Counts of links are those of a whole root.
            Thing::Leaf(leaf) => Edit::Leaf(Leaf { link: None, ..leaf.clone() }),
            Thing::Directory(attributes) => Edit::Directory(attributes.clone()),
        };
        (path.clone(), edit)
    });
    Ok(edit(transaction, empty, &edits.collect())?)
}

/// Whether a record and the tree of a package have something to do with the same
/// path.
pub(super) fn touches(from: &impl TreeReader, record: &Record, files: TreeId) -> Result<bool> {
    Ok(meets(from, record.files, files)? || meets(from, record.covered, files)?)
}

fn meets(from: &impl TreeReader, one: TreeId, other: TreeId) -> Result<bool> {
    let (one, other) = (from.read_tree(one)?, from.read_tree(other)?);
    let implied = Attributes::implied_directory();
    if one.attributes != implied && other.attributes != implied {
        return Ok(true);
    }
    for (name, entry) in one.entries() {
        let meets = match (entry, other.get(name)) {
            (_, None) => false,
            (Entry::Directory(one), Some(Entry::Directory(other))) => {
                meets(from, one.id, other.id)?
            }
            _ => true,
        };
        if meets {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The jobs of `begin`, and all that have written to a path to which one of those
/// has: they can only be done together.
pub(super) fn together(
    from: &impl TreeReader,
    records: &[Record],
    begin: BTreeSet<Job>,
) -> Result<BTreeSet<Job>> {
    if begin.is_empty() || begin.len() == records.len() {
        return Ok(begin);
    }
    let mut owners: BTreeMap<TreePath, Vec<usize>> = BTreeMap::new();
    for (number, record) in records.iter().enumerate() {
        let (files, covered) = record.things(from)?;
        for path in files.into_keys().chain(covered.into_keys()) {
            owners.entry(path).or_default().push(number);
        }
    }
    let mut all = begin;
    loop {
        let is_in = |number: &usize| all.contains(&records[*number].job);
        let more: BTreeSet<Job> = owners
            .values()
            .filter(|owners| owners.iter().any(is_in) && !owners.iter().all(is_in))
            .flatten()
            .map(|number| records[*number].job.clone())
            .collect();
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

/// A root from which something was taken back.
#[derive(Clone, Debug)]
pub(super) struct Undone {
    pub(super) tree: TreeId,
    /// What somebody has changed since, and stays.
    pub(super) kept: Vec<TreePath>,
}

/// Takes back what jobs have done to a root: what they left goes, and what was
/// there before comes back. What somebody has changed since stays.
///
/// `packages` is the tree of packages that goes with the root; a directory that
/// becomes empty stays if one of them wants it.
pub(super) fn undo(
    transaction: &mut Transaction,
    root: TreeId,
    packages: TreeId,
    records: &[Record],
) -> Result<Undone> {
    let (mut files, mut covered) = (Things::new(), Things::new());
    for record in records {
        let (left, before) = record.things(transaction)?;
        files.extend(left);
        covered.extend(before);
    }
    let (tree, kept) = undo_things(transaction, root, packages, &files, &covered)?;
    Ok(Undone { tree, kept })
}

/// The same for what was left, `files`, and what was there before, `covered`;
/// returns the root and what stays.
pub(crate) fn undo_things(
    transaction: &mut Transaction,
    root: TreeId,
    packages: TreeId,
    files: &Things,
    covered: &Things,
) -> Result<(TreeId, Vec<TreePath>)> {
    let mut edits: BTreeMap<TreePath, Edit> = BTreeMap::new();
    let mut kept = Vec::new();
    let paths: BTreeSet<&TreePath> = files.keys().chain(covered.keys()).collect();
    for path in paths {
        let present = resolve(transaction, root, path)?;
        let is_as_left = match (files.get(path), &present) {
            (None, None) => true,
            // Something below it was put into a directory that was there.
            (None, Some(Entry::Directory(_))) => {
                matches!(covered.get(path), Some(Thing::Directory(_)))
            }
            (None, Some(Entry::Leaf(_))) | (Some(_), None) => false,
            (Some(Thing::Leaf(left)), Some(Entry::Leaf(leaf))) => {
                Leaf { link: None, ..left.clone() } == Leaf { link: None, ..leaf.clone() }
            }
            (Some(Thing::Directory(left)), Some(Entry::Directory(subtree))) => {
                *left == transaction.read_tree(subtree.id)?.attributes
            }
            (Some(_), Some(_)) => false,
        };
        if !is_as_left {
            kept.push(path.clone());
            continue;
        }
        match covered.get(path) {
            Some(Thing::Leaf(leaf)) => drop(edits.insert(path.clone(), Edit::Leaf(leaf.clone()))),
            Some(Thing::Directory(attributes)) => {
                let edit = match present {
                    Some(Entry::Leaf(_)) => {
                        Edit::Tree(transaction.put_tree(Tree::empty(attributes.clone()))?)
                    }
                    _ => Edit::Directory(attributes.clone()),
                };
                edits.insert(path.clone(), edit);
            }
            None => match files.get(path) {
                Some(Thing::Leaf(_)) => drop(edits.insert(path.clone(), Edit::Remove)),
                Some(Thing::Directory(_)) => {
                    let claimed = claimed_directory(transaction, packages, path)?;
                    let attributes = claimed.unwrap_or(Attributes::implied_directory());
                    edits.insert(path.clone(), Edit::Directory(attributes));
                }
                None => {}
            },
        }
    }
    let tree = edit(transaction, root, &edits)?;
    let tree = remove_empty(transaction, tree, packages, files.keys())?;
    Ok((tree, kept))
}

/// Removes the directories above `paths`, and at them, in which nothing is left
/// and that nobody wants.
fn remove_empty<'p>(
    transaction: &mut Transaction,
    root: TreeId,
    packages: TreeId,
    paths: impl Iterator<Item = &'p TreePath>,
) -> Result<TreeId> {
    let mut directories = BTreeSet::new();
    for path in paths {
        let mut names = path.names();
        while let [above @ .., _] = names {
            if !directories.insert(names.to_vec()) {
                break;
            }
            names = above;
        }
    }
    let mut tree = root;
    // What lies deeper comes first.
    let mut directories: Vec<Vec<Name>> = directories.into_iter().collect();
    directories.sort_by_key(|names| std::cmp::Reverse(names.len()));
    for names in directories {
        let path: TreePath = names.into_iter().collect();
        let Some(Entry::Directory(subtree)) = resolve(transaction, tree, &path)? else { continue };
        let directory = transaction.read_tree(subtree.id)?;
        let is_implied = directory.attributes == Attributes::implied_directory();
        if directory.entries().is_empty()
            && is_implied
            && claimed_directory(transaction, packages, &path)?.is_none()
        {
            tree = edit(transaction, tree, &BTreeMap::from([(path, Edit::Remove)]))?;
        }
    }
    Ok(tree)
}

/// Compares two roots: what the new one has at each path that differs, and what
/// the old one had.
pub(super) fn differences(
    from: &impl TreeReader,
    old: TreeId,
    new: TreeId,
) -> Result<(Things, Things)> {
    let (mut files, mut covered) = (Things::new(), Things::new());
    compare(from, Some(old), Some(new), &mut TreePath::root(), &mut (&mut files, &mut covered))
        .map_err(Error::from)?;
    Ok((files, covered))
}

fn compare(
    from: &impl TreeReader,
    old: Option<TreeId>,
    new: Option<TreeId>,
    path: &mut TreePath,
    found: &mut (&mut Things, &mut Things),
) -> cairn_store::Result<()> {
    if old == new {
        return Ok(());
    }
    let read = |id: Option<TreeId>| id.map(|id| from.read_tree(id)).transpose();
    let (old, new) = (read(old)?, read(new)?);
    let listed = |tree: &Tree| {
        let is_listed =
            tree.entries().is_empty() || tree.attributes != Attributes::implied_directory();
        is_listed.then(|| Thing::Directory(tree.attributes.clone()))
    };
    let is_both = old.is_some() && new.is_some();
    let differ = old.as_ref().map(|tree| &tree.attributes) != new.as_ref().map(|it| &it.attributes);
    if !path.names().is_empty() && (differ || !is_both) {
        // Of a directory that stays, that it was as implied has to be told as well.
        let thing = |tree: &Tree| match is_both {
            true => Some(Thing::Directory(tree.attributes.clone())),
            false => listed(tree),
        };
        found.0.extend(new.as_deref().and_then(thing).map(|thing| (path.clone(), thing)));
        found.1.extend(old.as_deref().and_then(thing).map(|thing| (path.clone(), thing)));
    }
    let mut both: BTreeMap<Name, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
    for (name, entry) in old.iter().flat_map(|tree| tree.entries()) {
        both.entry(name.clone()).or_default().0 = Some(entry.clone());
    }
    for (name, entry) in new.iter().flat_map(|tree| tree.entries()) {
        both.entry(name.clone()).or_default().1 = Some(entry.clone());
    }
    for (name, (old, new)) in both {
        if old == new {
            continue;
        }
        path.push(name);
        let leaf = |entry: &Option<Entry>| match entry {
            Some(Entry::Leaf(leaf)) => Some(Thing::Leaf(leaf.clone())),
            _ => None,
        };
        found.0.extend(leaf(&new).map(|thing| (path.clone(), thing)));
        found.1.extend(leaf(&old).map(|thing| (path.clone(), thing)));
        let below = |entry: &Option<Entry>| Some(entry.as_ref()?.as_directory()?.id);
        compare(from, below(&old), below(&new), path, found)?;
        path.pop();
    }
    Ok(())
}
