//! Lost files and directories of packages, made again from the stones that they came
//! from.

use std::collections::HashSet;

use cairn_store::{Missing, RepairSource, Transaction, TreeId};

use crate::repository::{Repositories, Repository};
use crate::stone::ProvedStone;
use crate::system::{Installed, InstalledPackage, change, unpack};
use crate::{Metadata, Result};

/// The stones of repositories as a source of repairs.
///
/// For each state that lacks something, the stones of all its packages are unpacked
/// again, and composed: files, the trees of packages and those of the state have the same
/// hashes again, if nothing but packages made the state.
pub struct StoneSource {
    repositories: Repositories,
    offered: Vec<Repository>,
    done: HashSet<TreeId>,
}

impl StoneSource {
    /// What the repositories of a store have.
    pub fn new(repositories: Repositories) -> Result<Self> {
        let offered = repositories.load(&())?;
        Ok(Self { repositories, offered, done: HashSet::new() })
    }

    /// The stone of a package that is installed, verified; `None` when it was not
    /// downloaded, and no repository has that very one.
    fn stone(&self, package: &Metadata) -> Result<Option<ProvedStone>> {
        if let Some(path) = self.repositories.downloaded(package) {
            return Ok(Some(ProvedStone::own(path)));
        }
        for repository in &self.offered {
            for entry in repository.catalog.named(&package.name) {
                // What cannot be read of an index offers nothing.
                let Ok(offered) = repository.catalog.get(entry) else { continue };
                if *offered == *package {
                    let stone = self.repositories.fetch(repository, &offered, &());
                    if let Ok(stone) = stone {
                        return Ok(Some(stone));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Unpacks what can be had of the packages of a state, and composes it if that is
    /// all.
    fn make_again(&self, transaction: &mut Transaction, packages: TreeId) -> Result<()> {
        let store = transaction.store().clone();
        let installed = InstalledPackage::load_all(&store, packages)?;
        let mut coming = Vec::new();
        for package in installed.values() {
            let Some(stone) = self.stone(&package.metadata)? else { continue };
            let unpacked = unpack(transaction, &[stone], &())?.remove(0);
            coming.push(InstalledPackage { files: unpacked.files, ..package.clone() });
        }
        if coming.len() == installed.len() {
            change(transaction, None, &Installed::new(), &[], &coming)?;
        }
        Ok(())
    }
}

impl RepairSource for StoneSource {
    fn name(&self) -> String {
        "repositories".into()
    }

    fn restore(
        &mut self,
        transaction: &mut Transaction,
        missing: &Missing,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut failure = None;
        for state in &missing.states {
            if self.done.insert(state.packages)
                && let Err(err) = self.make_again(transaction, state.packages)
            {
                failure.get_or_insert(err);
            }
        }
        failure.map_or(Ok(()), |err| Err(err.into()))
    }
}
