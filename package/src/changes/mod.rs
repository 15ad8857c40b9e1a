//! What somebody has changed in a system, through a transaction.
//!
//! A package that is replaced brings its files anew; what was changed of them since stays
//! (docs/changes.md). The same holds for configuration: a file below etc goes over the
//! default of the same name below [`DEFAULTS`], and follows what changes in that.

mod decide;
mod merge3;

use std::collections::BTreeMap;

use cairn_store::{
    Attributes, BlobReader, BytesSource, Content, Difference, Edit, Entry, Leaf, Name, Transaction,
    TreeId, TreePath, TreeReader, diff, edit, resolve,
};

pub use decide::Decision;
pub use merge3::merge3;

use crate::Result;
use crate::query::{Deviation, deviations};
use crate::system::InstalledPackage;
use decide::decide;

/// Where packages ship configuration that nobody has changed.
pub const DEFAULTS: &str = "usr/share/defaults/etc";
/// Where changed configuration lies.
const CONFIGURATION: &str = "etc";
/// What the name of a new version ends with that lies beside a changed one.
pub const SUFFIX: &[u8] = b".cairn-new";

/// What became of changed files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// They stay as they were changed.
    pub kept: Vec<TreePath>,
    /// They have both changes.
    pub merged: Vec<TreePath>,
    /// They stay, and the new version lies beside them: [`beside`].
    pub conflicts: Vec<TreePath>,
}

/// Changed files of packages that are being replaced.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<TreePath, Changed>);

#[derive(Debug)]
enum Changed {
    /// Something else than a package brought, or nothing any more.
    Entry { base: Entry, ours: Option<Leaf> },
    /// A directory with another mode or owner than a package gave it.
    Directory { base: Attributes, ours: Attributes },
}

impl Changes {
    /// Puts what `replaced` brought in the place of what was changed of it, so that it can
    /// be taken out of `root` as if nothing had happened; returns the root without the
    /// changes. `replaced` has each old tree with the one that takes its place.
    ///
    /// Costs the directories in which something was changed.
    pub(crate) fn take_out(
        transaction: &mut Transaction,
        root: TreeId,
        replaced: &[(TreeId, TreeId)],
    ) -> Result<(TreeId, Self)> {
        let mut changes = BTreeMap::new();
        let mut edits = BTreeMap::new();
        for &(old, new) in replaced {
            for (path, deviation) in deviations(transaction, old, root, &Default::default())? {
                // What the new package does not have stays by itself, and what is
                // a directory in one of them and something else in another is for people.
                let base = resolve(transaction, old, &path)?;
                let theirs = resolve(transaction, new, &path)?;
                let ours = resolve(transaction, root, &path)?;
                if let (
                    Deviation::Attributes,
                    Some(Entry::Directory(base)),
                    Some(Entry::Directory(ours)),
                    Some(Entry::Directory(_)),
                ) = (deviation, &base, &ours, &theirs)
                {
                    let [base, ours] = [base, ours].map(|directory| {
                        transaction.read_tree(directory.id).map(|tree| tree.attributes.clone())
                    });
                    let (base, ours) = (base?, ours?);
                    edits.insert(path.clone(), Edit::Directory(base.clone()));
                    changes.insert(path, Changed::Directory { base, ours });
                    continue;
                }
                let (base, ours) = match (deviation, base, ours) {
                    (Deviation::Changed, Some(base), Some(Entry::Leaf(ours))) => (base, Some(ours)),
                    (Deviation::Missing, Some(base), None) => (base, None),
                    _ => continue,
                };
                let put_back = match (&base, theirs) {
                    (Entry::Leaf(base), Some(Entry::Leaf(_))) => Edit::Leaf(base.clone()),
                    (Entry::Directory(base), Some(Entry::Directory(_))) if ours.is_none() => {
                        Edit::Tree(base.id)
                    }
                    _ => continue,
                };
                edits.insert(path.clone(), put_back);
                changes.insert(path, Changed::Entry { base, ours });
            }
        }
        Ok((edit(transaction, root, &edits)?, Self(changes)))
    }

    /// Brings the changes into `root`, which has the packages in their new versions.
    pub(crate) fn put_in(
        self,
        transaction: &mut Transaction,
        root: TreeId,
        outcome: &mut Outcome,
    ) -> Result<TreeId> {
        let mut edits = BTreeMap::new();
        for (path, changed) in self.0 {
            let theirs = resolve(transaction, root, &path)?;
            let (base, ours) = match (changed, &theirs) {
                (Changed::Entry { base, ours }, _) => (base, ours),
                (Changed::Directory { base, ours }, Some(Entry::Directory(theirs))) => {
                    let theirs = transaction.read_tree(theirs.id)?.attributes.clone();
                    // Where both want something else, what somebody has set stays.
                    let both = decide::attributes(&base, &ours, &theirs).unwrap_or(ours);
                    if !both.is_like(&theirs) {
                        edits.insert(path.clone(), Edit::Directory(both));
                        outcome.kept.push(path);
                    }
                    continue;
                }
                (Changed::Directory { .. }, _) => continue,
            };
            match (base, ours, theirs) {
                (Entry::Leaf(base), Some(ours), Some(Entry::Leaf(theirs))) => {
                    let sides = Sides { path, base: &base, ours: &ours, theirs: &theirs };
                    sides.reconcile(transaction, root, &mut edits, outcome)?;
                }
                // What was removed stays so, whatever is new of it.
                (_, None, Some(_)) => {
                    edits.insert(path.clone(), Edit::Remove);
                    outcome.kept.push(path);
                }
                (_, Some(ours), _) => {
                    edits.insert(path.clone(), Edit::Leaf(ours));
                    outcome.kept.push(path);
                }
                (_, None, None) => {}
            }
        }
        Ok(edit(transaction, root, &edits)?)
    }
}

/// Has configuration follow the defaults that it goes over, where these are others in
/// `root` than they were in `old`. What one of `packages` brings below etc is its own.
///
/// Costs the defaults that differ.
pub(crate) fn follow_defaults<'p>(
    transaction: &mut Transaction,
    old: TreeId,
    root: TreeId,
    packages: impl Iterator<Item = &'p InstalledPackage> + Clone,
    outcome: &mut Outcome,
) -> Result<TreeId> {
    let mut edits = BTreeMap::new();
    for (name, base, theirs) in changed_defaults(transaction, old, root)? {
        let path: TreePath =
            directory_of(CONFIGURATION).names().iter().chain(name.names()).cloned().collect();
        let Some(Entry::Leaf(ours)) = resolve(transaction, root, &path)? else { continue };
        let mut is_of_package = false;
        for package in packages.clone() {
            is_of_package |= resolve(transaction, package.files, &path)?.is_some();
        }
        if !is_of_package {
            let sides = Sides { path, base: &base, ours: &ours, theirs: &theirs };
            sides.reconcile(transaction, root, &mut edits, outcome)?;
        }
    }
    Ok(edit(transaction, root, &edits)?)
}

/// The defaults that both roots have, and have otherwise, by their path below etc.
fn changed_defaults(
    from: &impl TreeReader,
    old: TreeId,
    new: TreeId,
) -> Result<Vec<(TreePath, Leaf, Leaf)>> {
    let mut changed = Vec::new();
    let subtree = |root| -> Result<Option<TreeId>> {
        let entry = resolve(from, root, &directory_of(DEFAULTS))?;
        Ok(entry.as_ref().and_then(Entry::as_directory).map(|subtree| subtree.id))
    };
    if let (Some(old), Some(new)) = (subtree(old)?, subtree(new)?) {
        diff(from, old, new, &mut |path, difference| {
            if let Difference::Changed(Entry::Leaf(old), Entry::Leaf(new)) = difference {
                changed.push((path.clone(), old.clone(), new.clone()));
            }
            std::ops::ControlFlow::Continue(())
        })?;
    }
    Ok(changed)
}

fn directory_of(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("it is a path")
}

/// Where the new version of `path` lies beside a changed one: under its name with
/// [`SUFFIX`], where that is not too long, and else under a part of it with a hash of the
/// whole.
#[must_use]
pub fn beside(path: &TreePath) -> TreePath {
    const HASH: usize = 16;
    let Some((parent, name)) = path.split_last() else { return path.clone() };
    let long = [name.as_bytes(), SUFFIX].concat();
    let name = Name::new(&long).unwrap_or_else(|_| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let kept = Name::MAX - SUFFIX.len() - HASH - 1;
        let short = [&name.as_bytes()[..kept], b"~", hash[..HASH].as_bytes(), SUFFIX].concat();
        Name::new(&short).expect("it is as long as a name can be")
    });
    parent.join(&name)
}

/// Three versions of a file.
struct Sides<'a> {
    path: TreePath,
    base: &'a Leaf,
    ours: &'a Leaf,
    theirs: &'a Leaf,
}

impl Sides<'_> {
    /// Decides what `path` is to be in `root`, and what lies beside it.
    fn reconcile(
        self,
        transaction: &mut Transaction,
        root: TreeId,
        edits: &mut BTreeMap<TreePath, Edit>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let Self { path, base, ours, theirs } = self;
        let beside = beside(&path);
        let pending = matches!(resolve(transaction, root, &beside)?, Some(Entry::Leaf(_)));
        let staged = transaction.staged()?;
        let read = |leaf: &Leaf| match &leaf.content {
            Content::File(blob) => staged.read_blob(blob).map(Some),
            _ => Ok(None),
        };
        let mut decision = decide(base, ours, theirs, read)?;
        drop(staged);
        // Of a conflict that nobody has resolved, the older half is not in what is there.
        if pending && ours.content != theirs.content && base.content != theirs.content {
            decision = Decision::Conflict;
        }
        // Whoever has taken the new version over needs no other copy of it.
        if pending && ours.content == theirs.content {
            edits.insert(beside.clone(), Edit::Remove);
        }
        let alone = |leaf: &Leaf| Leaf { link: None, ..leaf.clone() };
        match decision {
            Decision::Theirs => {
                edits.insert(path, Edit::Leaf(theirs.clone()));
            }
            Decision::Ours => {
                edits.insert(path.clone(), Edit::Leaf(alone(ours)));
                outcome.kept.push(path);
            }
            Decision::Merged { bytes, attributes } => {
                let content = match bytes {
                    Some(bytes) => {
                        let name = path.to_string();
                        let source = BytesSource { name: &name, bytes: &bytes };
                        Content::File(transaction.ingest(&[source], &())?[0])
                    }
                    None => ours.content.clone(),
                };
                edits.insert(path.clone(), Edit::Leaf(Leaf { attributes, content, link: None }));
                outcome.merged.push(path);
            }
            Decision::Conflict => {
                edits.insert(path.clone(), Edit::Leaf(alone(ours)));
                edits.insert(beside, Edit::Leaf(alone(theirs)));
                outcome.conflicts.push(path);
            }
        }
        Ok(())
    }
}
