//! Taking packages out of a system and putting others in.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use cairn_store::{
    Attributes, Conflict, Entry, Name, Shared, State, Transaction, Tree, TreeId, TreePath, merge,
    resolve, subtract,
};

use super::claims::{self, NoClaims, Remaining};
use super::installed::{Installed, InstalledPackage, name_of, note_buckets};
use super::skeleton::{self, put_skeleton};
use crate::{Error, Result};

/// A package to put in.
pub type Addition = InstalledPackage;

/// The two trees of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composition {
    /// The root directory.
    pub tree: TreeId,
    /// The packages.
    pub packages: TreeId,
    /// Files of leaving packages that were changed since, and stay as they are.
    pub kept: Vec<TreePath>,
}

/// Who has something at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The package with this name.
    Package(String),
    /// No package: it is part of the skeleton, was imported, or changed since.
    System,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(name) => f.write_str(name),
            Self::System => f.write_str("the system itself"),
        }
    }
}

/// A path that two owners want to be different things.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct FileConflict {
    /// Where.
    pub path: TreePath,
    /// Who has it.
    #[serde(serialize_with = "as_text")]
    pub first: Owner,
    /// The package that wants it otherwise.
    pub second: String,
}

fn as_text<S: serde::Serializer>(owner: &Owner, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(owner)
}

impl FileConflict {
    /// One line a conflict.
    pub(crate) fn list(conflicts: &[Self]) -> String {
        let lines: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}

impl fmt::Display for FileConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {} both have {}, and it differs", self.first, self.second, self.path)
    }
}

/// Computes the system that results when `leaving` are taken out of the one in
/// `base` and `coming` are put in; without a base, out of an empty system.
///
/// The result is that of putting the same packages together in any order, so
/// that its tree id depends only on what is installed. Costs the directories of
/// the packages that come and go, whatever else is installed.
///
/// # Errors
/// [`Error::FileConflicts`] with all conflicts; the transaction can go on.
pub fn change(
    transaction: &mut Transaction,
    base: Option<&State>,
    installed: &Installed,
    leaving: &[InstalledPackage],
    coming: &[Addition],
) -> Result<Composition> {
    let (tree, packages) = match base {
        Some(state) => (state.tree, state.packages),
        None => empty_system(transaction)?,
    };
    let store = transaction.store().clone();
    let leaving_names: HashSet<&str> =
        leaving.iter().map(|package| package.metadata.name.as_str()).collect();

    let claims = Remaining::new(&store, packages, leaving)?;
    let files: Vec<TreeId> = leaving.iter().map(|package| package.files).collect();
    let subtracted = subtract(transaction, tree, &files, &claims)?;

    let files: Vec<TreeId> = coming.iter().map(|package| package.files).collect();
    let merged = match merge(transaction, subtracted.tree, &files)? {
        Ok(merged) => merged,
        Err(conflicts) => {
            let staying = installed.iter().filter(|(name, _)| !leaving_names.contains(&***name));
            let owner = |conflict: &Conflict| match conflict.first {
                Some(part) => Ok(Owner::Package(coming[part].metadata.name.clone())),
                None => owner_in(transaction, staying.clone().map(|(_, it)| it), &conflict.path),
            };
            let named = conflicts.into_iter().map(|conflict| {
                let first = owner(&conflict)?;
                let second = coming[conflict.second].metadata.name.clone();
                Ok(FileConflict { path: conflict.path, first, second })
            });
            return Err(Error::FileConflicts { conflicts: named.collect::<Result<_>>()? });
        }
    };

    let mut shared = Sharing::default();
    for Shared { path, part } in &merged.shared {
        let entry = resolve(transaction, merged.tree, path)?;
        let entry = entry.ok_or_else(|| cairn_store::Error::NoSuchPath(path.clone()))?;
        shared.add(Name::clone(&name_of(&coming[*part].metadata)?), path, &entry);
        // Who had it first claims it, too.
        for package in coming.iter().chain(installed.values()) {
            let is_there = !leaving_names.contains(package.metadata.name.as_str())
                || coming.iter().any(|other| std::ptr::eq(other, package));
            if is_there && resolve(transaction, package.files, path)?.is_some() {
                shared.add(name_of(&package.metadata)?, path, &entry);
            }
        }
    }
    let mut records = Vec::new();
    for package in leaving {
        let claimed = claims.of_package(&package.metadata, package.files)?;
        records.push(package.put_record(transaction, &claimed)?);
    }
    let before = packages;
    let packages = subtract(transaction, packages, &records, &NoClaims)?.tree;
    let mut records = Vec::new();
    for package in coming {
        let claimed = shared.take(&name_of(&package.metadata)?);
        records.push(package.put_record(transaction, &claimed)?);
    }
    for (name, claimed) in shared.0 {
        records.extend(claims::put_claims_alone(transaction, &name, &claimed)?);
    }
    let packages = match merge(transaction, packages, &records)? {
        Ok(merged) => merged.tree,
        Err(conflicts) => {
            // Two packages of one name, which the solver never selects together.
            return Err(cairn_store::Error::NotADirectory(conflicts[0].path.clone()).into());
        }
    };
    let staying = installed.values();
    let staying = staying.filter(|it| !leaving_names.contains(it.metadata.name.as_str()));
    note_buckets(transaction, before, packages, staying.chain(coming))?;
    Ok(Composition { tree: merged.tree, packages, kept: subtracted.changed })
}

/// Claims on shared files by package.
#[derive(Default)]
struct Sharing(BTreeMap<Name, Vec<(TreePath, Entry)>>);

impl Sharing {
    fn add(&mut self, package: Name, path: &TreePath, entry: &Entry) {
        let claims = self.0.entry(package).or_default();
        if claims.iter().all(|(other, _)| other != path) {
            claims.push((path.clone(), entry.clone()));
        }
    }

    fn take(&mut self, package: &Name) -> Vec<(TreePath, Entry)> {
        self.0.remove(package).unwrap_or_default()
    }
}

/// The package that has something at `path`.
fn owner_in<'a>(
    transaction: &Transaction,
    packages: impl Iterator<Item = &'a InstalledPackage>,
    path: &TreePath,
) -> Result<Owner> {
    for package in packages {
        if resolve(transaction, package.files, path)?.is_some() {
            return Ok(Owner::Package(package.metadata.name.clone()));
        }
    }
    Ok(Owner::System)
}

/// The skeleton, and the tree of packages that claims its directories.
fn empty_system(transaction: &mut Transaction) -> Result<(TreeId, TreeId)> {
    let tree = put_skeleton(transaction)?;
    let empty = transaction.put_tree(Tree::empty(Attributes::implied_directory()))?;
    let mut listed = Vec::new();
    claims::listed_directories(transaction, tree, &mut TreePath::root(), &mut listed)?;
    let name = Name::new(skeleton::OWNER.as_bytes()).expect("it is a name");
    let packages = claims::put_claims_alone(transaction, &name, &listed)?;
    Ok((tree, packages.unwrap_or(empty)))
}
