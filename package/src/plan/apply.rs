//! From a plan to a state: the stones come, the root is composed, triggers run, and all of it
//! is committed at once.

use std::collections::BTreeMap;

use cairn_store::{Draft, IngestProgress, State, TreeId, TreePath};

use super::{Plan, Standing, System};
use crate::changes::{self, Changes, follow_defaults};
use crate::model::{Local, LocalContent, LocalFile, put_local};
use crate::repository::Retry;
use crate::solve::{Candidate, Origin, Solution};
use crate::system::{self, InstalledPackage};
use crate::trigger::{self, Job, Ran, Triggers, make_way};
use crate::{Error, Result};

/// A part of [`System::apply`] that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Stones come from servers; counted in bytes.
    Download,
    /// Stones are hashed; counted in stones.
    Verify,
    /// Their files are taken into the store; counted in bytes.
    Unpack,
    /// The new root is computed; not counted.
    Compose,
    /// Programs run in it that its triggers ask for; counted in those.
    Triggers,
    /// It is made durable; not counted.
    Commit,
}

/// Is told how far a transaction has come; called from several threads.
pub trait Progress: Sync {
    /// A phase begins, in which `total` is to be counted.
    fn begin(&self, phase: Phase, total: u64);
    /// So much more of the present phase is done.
    fn advance(&self, count: u64);
    /// So much of the present phase has to be done again.
    fn lose(&self, _count: u64) {}
    /// A download has failed, and is tried again.
    fn retry(&self, _retry: &Retry<'_>) {}
}

impl Progress for () {
    fn begin(&self, _: Phase, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// What [`System::apply`] did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The new state, or the one that was there if nothing changed.
    pub state: State,
    /// Files that were changed since packages brought them, and stay as they are.
    pub kept: Vec<TreePath>,
    /// Files that were changed, and have what is new in them as well.
    pub merged: Vec<TreePath>,
    /// Files that were changed where something new is: they stay, and the new version
    /// lies beside them, under a name with [`changes::SUFFIX`].
    pub conflicts: Vec<TreePath>,
    /// Devices whose numbers stones do not tell, which are left out.
    pub left_out: Vec<TreePath>,
    /// What triggers have done.
    pub ran: Vec<Ran>,
    /// What triggers were to do, and what was left out.
    pub skipped: Vec<Job>,
}

impl Applied {
    /// Nothing was done: `state` is current as before.
    pub(crate) fn nothing(state: State) -> Self {
        let (merged, conflicts) = Default::default();
        Self {
            state,
            kept: vec![],
            merged,
            conflicts,
            left_out: vec![],
            ran: vec![],
            skipped: vec![],
        }
    }
}

impl System {
    /// Carries out a plan that was made of this very system.
    ///
    /// # Errors
    /// [`Error::Outdated`] when another state became current since the system
    /// was read; [`Error::Trigger`] when a trigger fails. Whatever the error, the
    /// old state stays.
    pub fn apply(
        &self,
        plan: &Plan,
        triggers: &Triggers,
        progress: &dyn Progress,
    ) -> Result<Applied> {
        self.apply_with(plan, None, triggers, progress)
    }

    /// The same; `files` are all local files of the new state. Without them, those
    /// of the current one stay.
    pub fn apply_with(
        &self,
        plan: &Plan,
        files: Option<&BTreeMap<TreePath, LocalFile>>,
        triggers: &Triggers,
        progress: &dyn Progress,
    ) -> Result<Applied> {
        let solution = &plan.solution;
        let remarked = self.remarked(solution);
        let same_files = match files {
            Some(files) => same_content(files, &self.local_files()?)?,
            None => true,
        };
        if let (true, Some(state)) =
            (solution.is_empty() && remarked.is_empty() && same_files, &self.base)
        {
            return Ok(Applied::nothing(state.clone()));
        }
        let new: Vec<&Candidate> = solution
            .installs
            .iter()
            .map(|install| &install.new)
            .chain(solution.replacements.iter().map(|replacement| &replacement.new))
            .collect();
        let stones = self.fetch(&new, progress)?;
        let mut coming_bytes = 0;
        for (candidate, stone) in new.iter().zip(&stones) {
            coming_bytes += self.installed_size(candidate, Some(stone.path()))?.unwrap_or(0);
        }

        let mut transaction = self.store.begin()?;
        let base_id = self.base.as_ref().map(|state| state.id);
        if self.standing != Standing::Apart && transaction.store().refs().current != base_id {
            return Err(Error::Outdated);
        }
        if !stones.is_empty() {
            progress.begin(Phase::Unpack, coming_bytes);
        }
        let unpacked = system::unpack(&mut transaction, &stones, &Unpacking(progress))?;
        progress.begin(Phase::Compose, 0);

        let explicit: BTreeMap<&str, bool> = solution
            .packages
            .iter()
            .map(|package| (package.candidate.metadata.name.as_str(), package.explicit))
            .collect();
        let is_explicit = |name: &str| explicit.get(name).copied().unwrap_or(false);
        let mut left_out = Vec::new();
        let mut coming = Vec::new();
        for (unpacked, candidate) in unpacked.into_iter().zip(&new) {
            let metadata = &candidate.metadata;
            if unpacked.metadata.name != metadata.name {
                return Err(Error::Unavailable { package: metadata.name.clone() });
            }
            left_out.extend(unpacked.left_out);
            let explicit = is_explicit(&metadata.name);
            let files = unpacked.files;
            coming.push(InstalledPackage { metadata: metadata.clone(), explicit, files });
        }
        let gone = solution
            .removals
            .iter()
            .map(|removal| &removal.old)
            .chain(solution.replacements.iter().map(|replacement| &replacement.old));
        let mut leaving: Vec<InstalledPackage> =
            gone.filter_map(|old| self.installed.get(&old.metadata.name).cloned()).collect();
        // What is only marked leaves and comes back with the mark.
        for package in remarked {
            leaving.push(package.clone());
            coming.push(InstalledPackage { explicit: !package.explicit, ..package.clone() });
        }
        let trees: Vec<TreeId> =
            leaving.iter().chain(&coming).map(|package| package.files).collect();
        let way = self.base.as_ref().map(|base| make_way(&mut transaction, base, &trees));
        let way = way.transpose()?;
        let mut base = match (&self.base, &way) {
            (Some(base), Some(way)) => Some(State { tree: way.tree, ..base.clone() }),
            _ => None,
        };
        let mut local = Local::default();
        let mut kept = Vec::new();
        let mut changes = Changes::default();
        let mut followed = changes::Outcome::default();
        if let Some(base) = &mut base {
            local = Local::load(&self.store, base.packages)?;
            (base.tree, kept) = local.take_out(&mut transaction, base.tree, base.packages)?;
        }
        let old = base.as_ref().map(|base| base.tree);
        if let Some(base) = &mut base {
            let replaced: Vec<(TreeId, TreeId)> = leaving
                .iter()
                .filter_map(|old| {
                    let new = coming.iter().find(|new| new.metadata.name == old.metadata.name)?;
                    Some((old.files, new.files))
                })
                .collect();
            (base.tree, changes) = Changes::take_out(&mut transaction, base.tree, &replaced)?;
        }
        if let Some(files) = files {
            local = put_local(&mut transaction, files)?;
        }
        let mut made =
            system::change(&mut transaction, base.as_ref(), &self.installed, &leaving, &coming)?;
        made.tree = changes.put_in(&mut transaction, made.tree, &mut followed)?;
        if let Some(old) = old {
            let staying = self.installed.values().filter(|it| {
                leaving.iter().all(|leaving| leaving.metadata.name != it.metadata.name)
            });
            let there = staying.chain(&coming);
            let tree = made.tree;
            made.tree = follow_defaults(&mut transaction, old, tree, there, &mut followed)?;
        }
        (made.tree, made.packages) = local.put_in(&mut transaction, made.tree, made.packages)?;
        let triggered =
            trigger::run(&mut transaction, way, made.tree, made.packages, triggers, progress)?;
        progress.begin(Phase::Commit, 0);
        let draft = Draft {
            parent: base_id,
            request: plan.request.clone(),
            tree: triggered.tree,
            packages: triggered.packages,
        };
        let state = match self.standing {
            Standing::Current => transaction.commit(draft)?,
            Standing::Aside => transaction.commit_aside(draft)?,
            Standing::Apart => transaction.commit_apart(draft)?,
        };
        let kept = [kept, made.kept, triggered.kept, followed.kept].concat();
        let changes::Outcome { merged, conflicts, .. } = followed;
        Ok(Applied {
            state,
            kept,
            merged,
            conflicts,
            left_out,
            ran: triggered.ran,
            skipped: triggered.skipped,
        })
    }

    /// Packages that stay, and count as asked for from now on, or no longer.
    fn remarked(&self, solution: &Solution) -> Vec<&InstalledPackage> {
        let remarked = solution.packages.iter().filter_map(|package| {
            let there = self.installed.get(&package.candidate.metadata.name)?;
            let stays = matches!(package.candidate.origin, Origin::Installed { .. });
            (stays && there.explicit != package.explicit).then_some(there)
        });
        remarked.collect()
    }
}

struct Unpacking<'a>(&'a dyn Progress);

impl IngestProgress for Unpacking<'_> {
    fn advance(&self, _: u64, bytes: u64) {
        self.0.advance(bytes);
    }
}

/// Whether local files are the same, by the bytes that they have now.
fn same_content(
    one: &BTreeMap<TreePath, LocalFile>,
    other: &BTreeMap<TreePath, LocalFile>,
) -> Result<bool> {
    let read = |file: &LocalFile| -> Result<LocalFile> {
        let content = match &file.content {
            LocalContent::Source(path) => {
                let failed = |source| Error::Read { path: path.clone(), source };
                LocalContent::Bytes(std::fs::read(path).map_err(failed)?)
            }
            content => content.clone(),
        };
        // A link has no mode of its own.
        let mode = if matches!(content, LocalContent::Link(_)) { 0o777 } else { file.mode };
        Ok(LocalFile { content, mode, ..file.clone() })
    };
    if !one.keys().eq(other.keys()) {
        return Ok(false);
    }
    for (one, other) in one.values().zip(other.values()) {
        if read(one)? != read(other)? {
            return Ok(false);
        }
    }
    Ok(true)
}
