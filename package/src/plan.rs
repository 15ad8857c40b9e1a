//! From a request to a plan, and from a plan to a state.
//!
//! Nothing is written before [`System::apply`]: a dry run stops at the plan.

mod apply;
mod fetch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_store::{State, Store, TreePath};
use serde::Serialize;

use crate::model::{LocalFile, Model, local_files};
use crate::repository::{Repositories, Repository};
use crate::solve::{self, Candidate, Direction, Origin, Request, Solution, Source, Universe};
use crate::stone::{self, Package, ProvedStone, Stamp};
use crate::system::{Installed, InstalledPackage};
use crate::{Dependency, Error, Metadata, Result};

pub use apply::{Applied, Phase, Progress};

/// The current system of a store, and what repositories offer for it.
#[derive(Debug)]
pub struct System {
    store: Store,
    repositories: Repositories,
    offered: Vec<Repository>,
    base: Option<State>,
    installed: Installed,
    files: Vec<(ProvedStone, Arc<Metadata>)>,
    universe: Universe,
    standing: Standing,
}

/// What becomes of the state that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is the current one.
    Current,
    /// It follows the current one, which stays current.
    Aside,
    /// It begins with nothing, and is no state of the system.
    Apart,
}

/// What a request comes to, before anything is written.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What was asked for, as people said it.
    pub request: String,
    /// The packages that are there afterwards, and why.
    #[serde(skip)]
    pub solution: Solution,
    /// What comes, goes and is replaced, sorted by name.
    pub steps: Vec<Step>,
    /// Bytes of stones that come from servers; those that were downloaded
    /// before do not count.
    pub download: u64,
    /// Bytes of all stones that are read.
    pub stone_size: u64,
    /// Bytes of files that come, less those that go; unknown as long as a stone
    /// is at a server whose index does not tell.
    pub size_change: Option<i64>,
}

/// One package of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What happens to it.
    pub action: Action,
    /// Its name.
    pub name: String,
    /// The version that goes.
    pub old: Option<String>,
    /// The version that comes.
    pub new: Option<String>,
    /// The repository that it comes from.
    pub repository: Option<String>,
    /// Bytes of the stone, if it comes from a server.
    pub download: u64,
    /// Bytes of the stone.
    pub stone_size: u64,
    /// Bytes of files that come, less those that go, as far as it is known.
    pub size_change: Option<i64>,
    /// Why it comes or goes, if it was not asked for by name.
    pub reason: Option<String>,
}

/// What happens to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It was not there.
    Install,
    /// A newer one comes.
    Upgrade,
    /// An older one comes.
    Downgrade,
    /// Another one of the same release comes.
    Replace,
    /// It goes.
    Remove,
    /// It stays, and counts as asked for.
    Mark,
}

impl System {
    /// Reads the current state of a store and the indices of its repositories,
    /// with the usual network.
    ///
    /// `files` are stones that are offered beside them.
    pub fn read(store: &Store, files: &[PathBuf]) -> Result<Self> {
        Self::with_repositories(store, Repositories::of(store.path()), files)
    }

    /// The same with these repositories of the store.
    pub fn with_repositories(
        store: &Store,
        repositories: Repositories,
        files: &[PathBuf],
    ) -> Result<Self> {
        let refs = store.refs();
        let base = refs.current.and_then(|id| refs.states.get(&id).cloned());
        Self::on(base, store, repositories, files)
    }

    /// An empty system beside the current one: what is applied to it becomes a state
    /// that is not current.
    pub fn apart(store: &Store, repositories: Repositories, files: &[PathBuf]) -> Result<Self> {
        Ok(Self { standing: Standing::Apart, ..Self::on(None, store, repositories, files)? })
    }

    /// The same system, of which the current state stays current if there is one: what is
    /// applied becomes a state that can be looked at first.
    #[must_use]
    pub fn aside(self) -> Self {
        Self { standing: Standing::Aside, ..self }
    }

    fn on(
        base: Option<State>,
        store: &Store,
        repositories: Repositories,
        files: &[PathBuf],
    ) -> Result<Self> {
        let installed = match &base {
            Some(state) => InstalledPackage::load_all(store, state.packages)?,
            None => Installed::new(),
        };
        let offered = repositories.load(&())?;
        let files = files
            .iter()
            .map(|path| {
                let failed = |source| Error::Stone { path: path.clone(), source };
                let not_read = |source| failed(stone::Error::Read(source));
                let file = File::open(path).map_err(not_read)?;
                let stamp = Stamp::of(&file).map_err(not_read)?;
                let package = Package::read(BufReader::new(file)).map_err(failed)?;
                Ok((ProvedStone::new(path.clone(), stamp), Arc::new(package.metadata)))
            })
            .collect::<Result<Vec<_>>>()?;
        let universe = Universe::new(
            installed
                .values()
                .map(|package| solve::Installed {
                    metadata: package.metadata.clone(),
                    explicit: package.explicit,
                })
                .collect(),
            sources(&offered),
            files.iter().map(|(_, metadata)| metadata.clone()).collect(),
        );
        let (store, standing) = (store.clone(), Standing::Current);
        Ok(Self { store, repositories, offered, base, installed, files, universe, standing })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn sources(&self) -> Vec<Source> {
        sources(&self.offered)
    }

    /// The packages of the current state.
    #[must_use]
    pub fn installed(&self) -> &Installed {
        &self.installed
    }

    /// The current state, if there is one.
    #[must_use]
    pub fn base(&self) -> Option<&State> {
        self.base.as_ref()
    }

    /// The repositories whose packages are offered.
    #[must_use]
    pub fn offered(&self) -> &[Repository] {
        &self.offered
    }

    /// Everything that a request can choose from.
    #[must_use]
    pub fn universe(&self) -> &Universe {
        &self.universe
    }

    /// The best package that a repository has for each of `wanted`, whatever is
    /// installed.
    pub fn offers(&self, wanted: &[Dependency]) -> Result<Vec<Candidate>> {
        Ok(solve::offers(&self.universe, wanted)?)
    }

    /// Solves a request; `text` is how people said it.
    pub fn plan(&self, request: &Request, text: &str) -> Result<Plan> {
        self.plan_of(solve::solve(&self.universe, request)?, text)
    }

    fn plan_of(&self, solution: Solution, text: &str) -> Result<Plan> {
        let mut steps = Vec::new();
        for install in &solution.installs {
            let reason = install
                .needed_by
                .as_ref()
                .map(|need| format!("{} needs {}", need.package, need.dependency));
            steps.push(self.step(Action::Install, None, Some(&install.new), reason)?);
        }
        for replacement in &solution.replacements {
            let action = match replacement.direction {
                Direction::Upgrade => Action::Upgrade,
                Direction::Downgrade => Action::Downgrade,
                Direction::Sideways => Action::Replace,
            };
            let (old, new) = (&replacement.old, &replacement.new);
            steps.push(self.step(action, Some(old), Some(new), None)?);
        }
        for removal in &solution.removals {
            let reason = match &removal.reason {
                solve::Reason::Asked => None,
                solve::Reason::Needs(dependency) => Some(format!("it needs {dependency}")),
                solve::Reason::Conflicts(with) => Some(format!("it conflicts with {with}")),
                solve::Reason::Unneeded => Some("nothing needs it any more".into()),
            };
            steps.push(self.step(Action::Remove, Some(&removal.old), None, reason)?);
        }
        for marked in &solution.marked {
            steps.push(self.step(Action::Mark, Some(marked), Some(marked), None)?);
        }
        steps.sort_by(|left, right| (left.action, &left.name).cmp(&(right.action, &right.name)));
        Ok(Plan {
            request: text.into(),
            download: steps.iter().map(|step| step.download).sum(),
            stone_size: steps.iter().map(|step| step.stone_size).sum(),
            size_change: steps
                .iter()
                .map(|step| step.size_change)
                .try_fold(0i64, |sum, size| size.map(|size| sum.saturating_add(size))),
            solution,
            steps,
        })
    }

    /// Plans to make the system just what `model` says, whatever it is now: the
    /// packages are chosen as for an empty system.
    ///
    /// Repositories of the model are not heeded: they have to be those of the
    /// store already.
    pub fn plan_model(&self, model: &Model, text: &str) -> Result<Plan> {
        let request =
            Request { install: model.packages.iter().cloned().collect(), ..Request::default() };
        let universe = Universe::new(Vec::new(), self.sources(), Vec::new());
        let mut wanted = solve::solve(&universe, &request)?;
        let mut solution = Solution { packages: wanted.packages, ..Solution::default() };
        let mut needs: BTreeMap<String, Option<solve::Need>> = wanted
            .installs
            .drain(..)
            .map(|install| (install.new.metadata.name.clone(), install.needed_by))
            .collect();
        for package in &mut solution.packages {
            let new = &package.candidate;
            let name = &new.metadata.name;
            let Some(there) = self.installed.get(name) else {
                let needed_by = needs.remove(name).flatten();
                solution.installs.push(solve::Install { new: new.clone(), needed_by });
                continue;
            };
            let origin = Origin::Installed { explicit: there.explicit };
            let old = Candidate { metadata: there.metadata.clone(), origin };
            if is_same(&there.metadata, &new.metadata) {
                if package.explicit && !there.explicit {
                    solution.marked.push(old.clone());
                }
                package.candidate = old;
                continue;
            }
            let direction = match new.metadata.age().cmp(&there.metadata.age()) {
                std::cmp::Ordering::Less => Direction::Downgrade,
                std::cmp::Ordering::Equal => Direction::Sideways,
                std::cmp::Ordering::Greater => Direction::Upgrade,
            };
            solution.replacements.push(solve::Replacement { old, new: new.clone(), direction });
        }
        for (name, there) in &self.installed {
            let stays = solution.packages.iter().any(|it| it.candidate.metadata.name == *name);
            if !stays {
                let origin = Origin::Installed { explicit: there.explicit };
                let old = Candidate { metadata: there.metadata.clone(), origin };
                let reason = match there.explicit {
                    true => solve::Reason::Asked,
                    false => solve::Reason::Unneeded,
                };
                solution.removals.push(solve::Removal { old, reason });
            }
        }
        self.plan_of(solution, text)
    }

    /// The local files of the current state, as a model says them.
    pub fn local_files(&self) -> Result<BTreeMap<TreePath, LocalFile>> {
        self.base
            .as_ref()
            .map_or_else(|| Ok(BTreeMap::new()), |base| local_files(&self.store, base))
    }

    fn step(
        &self,
        action: Action,
        old: Option<&Candidate>,
        new: Option<&Candidate>,
        reason: Option<String>,
    ) -> Result<Step> {
        let version = |it: &Candidate| it.metadata.full_version();
        let named = new.or(old).expect("a step has a package");
        let mut step = Step {
            action,
            name: named.metadata.name.clone(),
            old: old.map(version),
            new: new.map(version),
            repository: None,
            download: 0,
            stone_size: 0,
            size_change: Some(0),
            reason,
        };
        if action == Action::Mark {
            return Ok(step);
        }
        if let Some(new) = new {
            let at_hand = self.at_hand(new)?;
            let size = self.installed_size(new, at_hand.as_deref())?;
            step.size_change = size.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
            step.stone_size = new.metadata.location.as_ref().map_or(0, |it| it.size);
            if at_hand.is_none() {
                step.download = step.stone_size;
            }
            if let Origin::Repository { name, .. } = &new.origin {
                step.repository = Some(name.to_string());
            }
        }
        if let Some(package) = old.and_then(|old| self.installed.get(&old.metadata.name)) {
            let going = i64::try_from(package.size(&self.store)?).unwrap_or(i64::MAX);
            step.size_change = step.size_change.map(|coming| coming.saturating_sub(going));
        }
        Ok(step)
    }

    /// Bytes of the files of a candidate, as far as that is known.
    fn installed_size(&self, candidate: &Candidate, at_hand: Option<&Path>) -> Result<Option<u64>> {
        let told = candidate.metadata.location.as_ref().and_then(|it| it.installed_size);
        let (None, Some(path)) = (told, at_hand) else { return Ok(told) };
        let failed = |source| Error::Stone { path: path.into(), source };
        Ok(Some(Package::open(path).map_err(failed)?.installed_size()))
    }

    /// Where the stone of a candidate lies, if it is on this machine; not
    /// verified.
    fn at_hand(&self, candidate: &Candidate) -> Result<Option<PathBuf>> {
        match &candidate.origin {
            Origin::Repository { name, .. } => {
                let repository = self.repository(name)?;
                Ok(self.repositories.at_hand(repository, &candidate.metadata)?)
            }
            Origin::File => {
                let found = self.files.iter().find(|(_, it)| *it == candidate.metadata);
                let path = found.map(|(stone, _)| stone.path().to_owned());
                path.map(Some).ok_or_else(|| unavailable(candidate))
            }
            Origin::Installed { .. } => Err(unavailable(candidate)),
        }
    }

    fn repository(&self, name: &str) -> Result<&Repository> {
        let found = self.offered.iter().find(|it| it.config.name.as_str() == name);
        found.ok_or_else(|| Error::Unavailable { package: name.into() })
    }
}

/// The local files of a state, as a model says them.
pub fn local_files_of(store: &Store, state: &State) -> Result<BTreeMap<TreePath, LocalFile>> {
    local_files(store, state)
}

fn sources(offered: &[Repository]) -> Vec<Source> {
    let source = |repository: &Repository| Source {
        name: repository.config.name.to_string(),
        priority: repository.config.priority,
        catalog: Arc::clone(&repository.catalog),
    };
    offered.iter().map(source).collect()
}

/// Whether two packages are the same build.
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    match (one.hash(), other.hash()) {
        (Some(one), Some(other)) => one == other,
        _ => {
            let placeless = |it: &Metadata| Metadata { location: None, ..it.clone() };
            placeless(one) == placeless(other)
        }
    }
}

fn unavailable(candidate: &Candidate) -> Error {
    Error::Unavailable { package: candidate.metadata.name.clone() }
}
