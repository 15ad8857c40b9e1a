//! Files of packages as their packages have them, whatever was changed since.

use std::collections::{BTreeMap, BTreeSet};

use cairn_store::{
    Draft, Edit, Entry, State, Transaction, TreeId, TreePath, TreeReader, edit, resolve,
};

use crate::model::Local;
use crate::plan::{Applied, Phase, Progress, System};
use crate::query::{Deviation, deviations, generated};
use crate::system::InstalledPackage;
use crate::trigger::{self, Triggers, make_way};
use crate::{Error, Result};

/// A file of a package that is otherwise in the current state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedFile {
    /// The package that has brought it.
    pub package: String,
    /// Where it is.
    pub path: TreePath,
    /// How it differs.
    pub deviation: Deviation,
}

impl System {
    /// What of the installed packages `names` is not as they have it; what triggers and
    /// models have put there does not count. Names that are not installed have nothing.
    pub fn changed_files(&self, names: &[String]) -> Result<Vec<ChangedFile>> {
        let Some(base) = self.base() else { return Ok(Vec::new()) };
        let store = self.store();
        let mut known = generated(store, base.packages)?;
        let local = Local::load(store, base.packages)?;
        known.extend(local.leaves().map(|(path, _)| path.clone()));
        let mut found = Vec::new();
        for package in self.named(names) {
            let name = &package.metadata.name;
            for (path, deviation) in deviations(store, package.files, base.tree, &known)? {
                if deviation != Deviation::Triggered {
                    found.push(ChangedFile { package: name.clone(), path, deviation });
                }
            }
        }
        Ok(found)
    }

    /// Makes a state in which all files of the packages `names` are as they have them,
    /// and does what their triggers ask for; `request` is how people said it.
    ///
    /// Costs no download: the store has what packages brought. Where nothing differs,
    /// no state is made.
    ///
    /// # Errors
    /// As [`System::apply`]; the old state stays.
    pub fn restore(
        &self,
        names: &[String],
        request: &str,
        triggers: &Triggers,
        progress: &dyn Progress,
    ) -> Result<Applied> {
        let mut transaction = self.store().begin()?;
        let base = self.base().ok_or(cairn_store::Error::NoState)?;
        if transaction.store().refs().current != Some(base.id) {
            return Err(Error::Outdated);
        }
        if self.changed_files(names)?.is_empty() {
            return Ok(Applied::nothing(base.clone()));
        }
        progress.begin(Phase::Compose, 0);
        let trees: Vec<TreeId> = self.named(names).map(|package| package.files).collect();
        let way = make_way(&mut transaction, base, &trees)?;
        let local = Local::load(self.store(), base.packages)?;
        let (mut tree, kept) = local.take_out(&mut transaction, way.tree, base.packages)?;
        for package in self.named(names) {
            tree = put_back(&mut transaction, tree, package.files)?;
        }
        let (tree, packages) = local.put_in(&mut transaction, tree, base.packages)?;
        let triggered =
            trigger::run(&mut transaction, Some(way), tree, packages, triggers, progress)?;
        progress.begin(Phase::Commit, 0);
        let state: State = transaction.commit(Draft {
            parent: Some(base.id),
            request: request.into(),
            tree: triggered.tree,
            packages: triggered.packages,
        })?;
        let kept = [kept, triggered.kept].concat();
        let (ran, skipped) = (triggered.ran, triggered.skipped);
        Ok(Applied { kept, ran, skipped, ..Applied::nothing(state) })
    }

    fn named<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a InstalledPackage> {
        names.iter().filter_map(|name| self.installed().get(name.as_str()))
    }
}

/// Puts what `package` has into `root`, over whatever is in its place.
fn put_back(transaction: &mut Transaction, root: TreeId, package: TreeId) -> Result<TreeId> {
    let mut away = BTreeMap::new();
    let mut edits = BTreeMap::new();
    for (path, _) in deviations(transaction, package, root, &BTreeSet::new())? {
        let there = resolve(transaction, root, &path)?;
        let wanted = match resolve(transaction, package, &path)? {
            Some(Entry::Leaf(leaf)) => {
                if matches!(there, Some(Entry::Directory(_))) {
                    away.insert(path.clone(), Edit::Remove);
                }
                Edit::Leaf(leaf)
            }
            // Only its own attributes are otherwise: the rest is in the list.
            Some(Entry::Directory(subtree)) if matches!(there, Some(Entry::Directory(_))) => {
                Edit::Directory(transaction.read_tree(subtree.id)?.attributes.clone())
            }
            Some(Entry::Directory(subtree)) => Edit::Tree(subtree.id),
            None => continue,
        };
        edits.insert(path, wanted);
    }
    let root = edit(transaction, root, &away)?;
    Ok(edit(transaction, root, &edits)?)
}
