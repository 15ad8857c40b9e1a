//! Which packages want a path that more than one may want.
//!
//! A package claims each directory that it lists (one that is empty or not a
//! root-owned 0755 directory: all others are implied by what lies in them), and
//! each file that it shares to the letter with another package. A claim is an
//! entry of the tree of packages at `claims/<aa>/<hash>/<name>`, where the hash
//! is that of the path; of a directory, it is an empty directory with the
//! wanted attributes; of anything else, a copy of the entry.

use std::collections::{BTreeMap, HashSet};

use cairn_store::{
    Attributes, Claims, Digest, Entry, Name, Result, Store, Transaction, Tree, TreeId, TreePath,
    TreeReader, resolve,
};

use super::installed::{InstalledPackage, name_of};
use crate::Metadata;

/// Where the claims on `path` lie in the tree of packages.
fn place(path: &TreePath) -> TreePath {
    let hash = Digest::of(&path.to_bytes()).to_string();
    let text = format!("claims/{}/{}", &hash[..2], &hash[2..32]);
    TreePath::new(text.as_bytes()).expect("hexadecimal digits are names")
}

/// Adds the tree that holds the claims of the package `name` to the tree of
/// packages, once it is merged.
pub(super) fn put_claims(
    transaction: &mut Transaction,
    name: &Name,
    claims: &[(TreePath, Entry)],
) -> Result<Option<Entry>> {
    let mut shards: BTreeMap<Name, Vec<(Name, Entry)>> = BTreeMap::new();
    for (path, entry) in claims {
        let claim = match entry {
            Entry::Leaf(_) => entry.clone(),
            Entry::Directory(subtree) => {
                let attributes = transaction.read_tree(subtree.id)?.attributes.clone();
                transaction.put_subtree(Tree::empty(attributes))?
            }
        };
        let at = place(path);
        let [_, shard, hash] = at.names() else { unreachable!("a place has three names") };
        let one = Tree::new(Attributes::implied_directory(), vec![(name.clone(), claim)]);
        let one = transaction.put_subtree(one.expect("one entry has no name twice"))?;
        shards.entry(shard.clone()).or_default().push((hash.clone(), one));
    }
    if shards.is_empty() {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for (shard, mut hashes) in shards {
        // A path is claimed once by a package.
        hashes.dedup_by(|left, right| left.0 == right.0);
        let tree = Tree::new(Attributes::implied_directory(), hashes);
        let tree = tree.expect("paths of a package have different hashes");
        entries.push((shard, transaction.put_subtree(tree)?));
    }
    let tree = Tree::new(Attributes::implied_directory(), entries);
    transaction.put_subtree(tree.expect("a map has no key twice")).map(Some)
}

/// Adds to `found` each directory that a package's tree lists.
pub(super) fn listed_directories(
    from: &impl TreeReader,
    id: TreeId,
    path: &mut TreePath,
    found: &mut Vec<(TreePath, Entry)>,
) -> Result<()> {
    let tree = from.read_tree(id)?;
    for (name, entry) in tree.entries() {
        let Entry::Directory(subtree) = entry else { continue };
        path.push(name.clone());
        let below = from.read_tree(subtree.id)?;
        let is_implied = below.attributes == Attributes::implied_directory();
        if below.entries().is_empty() || !is_implied {
            found.push((path.clone(), entry.clone()));
        }
        listed_directories(from, subtree.id, path, found)?;
        path.pop();
    }
    Ok(())
}

/// Like [`put_claims`], as a tree of packages that holds nothing else.
pub(super) fn put_claims_alone(
    transaction: &mut Transaction,
    name: &Name,
    claims: &[(TreePath, Entry)],
) -> Result<Option<TreeId>> {
    let Some(claims) = put_claims(transaction, name, claims)? else { return Ok(None) };
    let top = Name::new(b"claims").expect("it is a name");
    let tree = Tree::new(Attributes::implied_directory(), vec![(top, claims)]);
    transaction.put_tree(tree.expect("one entry has no name twice")).map(Some)
}

/// The attributes that packages want for the directory at `path`; `None` when no
/// package lists it.
pub(crate) fn claimed_directory(
    from: &impl TreeReader,
    packages: TreeId,
    path: &TreePath,
) -> Result<Option<Attributes>> {
    let claims = resolve(from, packages, &place(path))?;
    let Some(Entry::Directory(subtree)) = claims else { return Ok(None) };
    let claims = from.read_tree(subtree.id)?;
    wanted_attributes(from, claims.entries().iter().map(|(_, claim)| claim))
}

/// What several claims on a directory come to.
fn wanted_attributes<'c>(
    from: &impl TreeReader,
    claims: impl Iterator<Item = &'c Entry>,
) -> Result<Option<Attributes>> {
    let mut wanted = None;
    for claim in claims {
        if let Entry::Directory(subtree) = claim {
            let attributes = from.read_tree(subtree.id)?.attributes.clone();
            // Who wants other attributes than the implied ones has its way.
            if wanted.is_none() || attributes != Attributes::implied_directory() {
                wanted = Some(attributes);
            }
        }
    }
    Ok(wanted)
}

/// The claims of a state, without those of the packages that are leaving.
pub(super) struct Remaining<'a> {
    store: &'a Store,
    packages: TreeId,
    leaving: HashSet<Name>,
}

impl<'a> Remaining<'a> {
    /// Looks into the tree of packages `packages`, which was committed if any
    /// are leaving.
    pub(super) fn new(
        store: &'a Store,
        packages: TreeId,
        leaving: &[InstalledPackage],
    ) -> Result<Self> {
        let names = leaving.iter().map(|package| name_of(&package.metadata));
        Ok(Self { store, packages, leaving: names.collect::<Result<_>>()? })
    }

    fn claims(&self, path: &TreePath) -> Result<Vec<(Name, Entry)>> {
        let claims = resolve(self.store, self.packages, &place(path))?;
        let Some(Entry::Directory(subtree)) = claims else { return Ok(Vec::new()) };
        Ok(self.store.tree(subtree.id)?.entries().to_vec())
    }

    fn staying(&self, path: &TreePath) -> Result<Vec<Entry>> {
        let mut claims = self.claims(path)?;
        claims.retain(|(name, _)| !self.leaving.contains(name));
        Ok(claims.into_iter().map(|(_, claim)| claim).collect())
    }

    /// The claims of a package on files that it shares.
    pub(super) fn of_package(
        &self,
        metadata: &Metadata,
        files: TreeId,
    ) -> Result<Vec<(TreePath, Entry)>> {
        let mut found = Vec::new();
        self.search(&name_of(metadata)?, files, &mut TreePath::root(), &mut found)?;
        Ok(found)
    }

    fn search(
        &self,
        name: &Name,
        id: TreeId,
        path: &mut TreePath,
        found: &mut Vec<(TreePath, Entry)>,
    ) -> Result<()> {
        for (component, entry) in self.store.tree(id)?.entries() {
            path.push(component.clone());
            match entry {
                Entry::Directory(subtree) => self.search(name, subtree.id, path, found)?,
                Entry::Leaf(_) => {
                    let claims = self.claims(path)?;
                    if claims.iter().any(|(owner, claim)| owner == name && claim == entry) {
                        found.push((path.clone(), entry.clone()));
                    }
                }
            }
            path.pop();
        }
        Ok(())
    }
}

impl Claims for Remaining<'_> {
    fn directory(&self, path: &TreePath) -> Result<Option<Attributes>> {
        wanted_attributes(self.store, self.staying(path)?.iter())
    }

    fn leaf(&self, path: &TreePath) -> Result<bool> {
        Ok(self.staying(path)?.iter().any(|claim| claim.as_leaf().is_some()))
    }

    fn any_below(&self, _: &TreePath) -> bool {
        true
    }
}

/// No claims: for trees whose paths belong to one package each.
pub(super) struct NoClaims;

impl Claims for NoClaims {
    fn directory(&self, _: &TreePath) -> Result<Option<Attributes>> {
        Ok(None)
    }

    fn leaf(&self, _: &TreePath) -> Result<bool> {
        Ok(false)
    }

    fn any_below(&self, _: &TreePath) -> bool {
        false
    }
}
