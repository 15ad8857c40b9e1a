//! Roots of packages that are no state of the system, such as those in which
//! packages are built.
//!
//! They are chosen from the same repositories as the system's packages, without
//! regard to what is installed. A root is a state of the store that never becomes
//! current by itself, and has a tag that says which packages it has: the same
//! packages are the same root, and cost nothing the second time. What one root has
//! the next one does not unpack again.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_store::{Digest, Draft, State, StateId, Store, Tag, Transaction, TreeId};

use crate::plan::{Phase, Progress, System};
use crate::repository::{Repositories, Repository};
use crate::solve::{self, Candidate, Problem, Request, Source, Universe};
use crate::system::{self, Installed, InstalledPackage};
use crate::{Dependency, Error, Metadata, Result};

/// What the tags of such roots begin with.
const TAG: &str = "apart-";
/// As many roots are kept.
const KEPT: usize = 8;

/// What a root can be made of.
#[derive(Debug)]
pub struct Apart {
    store: Store,
    system: System,
    universe: Universe,
}

/// A root that exists.
#[derive(Clone, Debug)]
pub struct ApartRoot {
    /// The state that is it.
    pub state: State,
    /// Its packages, sorted by name.
    pub packages: Vec<Arc<Metadata>>,
    /// How many of them had to be unpacked.
    pub unpacked: usize,
    /// Whether it was there already.
    pub was_there: bool,
}

impl Apart {
    /// Reads what repositories of a store offer.
    pub fn read(store: &Store, repositories: Repositories) -> Result<Self> {
        let system = System::with_repositories(store, repositories, &[])?;
        let source = |repository: &Repository| Source {
            name: repository.config.name.to_string(),
            priority: repository.config.priority,
            catalog: Arc::clone(&repository.catalog),
        };
        let offered = system.offered().iter().map(source).collect();
        let universe = Universe::new(vec![], offered, vec![]);
        Ok(Self { store: store.clone(), system, universe })
    }

    /// The first of `alternatives` that some package offers; the first of all if
    /// none does.
    ///
    /// # Panics
    /// If there are none.
    pub fn first_known<'d>(&self, alternatives: &'d [Dependency]) -> Result<&'d Dependency> {
        for wanted in alternatives {
            if self.universe.has(wanted).map_err(Problem::from)? {
                return Ok(wanted);
            }
        }
        Ok(alternatives.first().expect("somebody wants something"))
    }

    /// Chooses packages that offer all of `wanted`, with everything that they
    /// need; sorted by name.
    ///
    /// # Errors
    /// [`Error::Problem`] with the reason why there are none.
    pub fn select(&self, wanted: Vec<Dependency>) -> Result<Vec<Candidate>> {
        let request = Request { install: wanted, ..Request::default() };
        let solution = solve::solve(&self.universe, &request)?;
        Ok(solution.packages.into_iter().map(|package| package.candidate).collect())
    }

    /// Makes a root of `packages`, and of what `adjust` makes of their tree;
    /// `mark` says what that is, so that a root of another kind is not taken for
    /// it, and `purpose` what people are told.
    ///
    /// Costs nothing if there is such a root already, else the unpacking of the
    /// packages that no other root and not the system has.
    ///
    /// # Errors
    /// [`Error::FileConflicts`], [`Error::Repository`], [`Error::Stone`]; then
    /// nothing has changed.
    pub fn compose(
        &self,
        packages: &[Candidate],
        mark: &str,
        purpose: &str,
        adjust: impl FnOnce(&mut Transaction, TreeId) -> Result<TreeId>,
        progress: &dyn Progress,
    ) -> Result<ApartRoot> {
        let tag = tag(packages, mark);
        let list: Vec<Arc<Metadata>> = packages.iter().map(|it| it.metadata.clone()).collect();
        if let Some(state) = self.find(&tag)? {
            return Ok(ApartRoot { state, packages: list, unpacked: 0, was_there: true });
        }
        // Downloads and verification need no lock.
        let known = self.known()?;
        let missing: Vec<&Candidate> =
            packages.iter().filter(|it| !known.contains_key(key(&it.metadata))).collect();
        let stones = self.system.fetch(&missing, progress)?;

        let mut transaction = self.store.begin()?;
        if let Some(state) = self.find(&tag)? {
            return Ok(ApartRoot { state, packages: list, unpacked: 0, was_there: true });
        }
        // What was there may have gone before the lock was taken.
        let known = self.known()?;
        let still_there = |it: &&Candidate| known.contains_key(key(&it.metadata));
        if packages.iter().filter(|it| !still_there(it)).count() != missing.len() {
            return Err(Error::Outdated);
        }
        if !stones.is_empty() {
            let bytes = missing.iter().filter_map(|it| it.metadata.location.as_ref());
            progress.begin(Phase::Unpack, bytes.map(|it| it.size).sum());
        }
        let unpacked = system::unpack(&mut transaction, &stones, &())?;
        progress.begin(Phase::Commit, 0);
        let mut files: HashMap<&str, TreeId> = HashMap::new();
        for (candidate, unpacked) in missing.iter().zip(&unpacked) {
            if unpacked.metadata.name != candidate.metadata.name {
                return Err(Error::Unavailable { package: candidate.metadata.name.clone() });
            }
            files.insert(key(&candidate.metadata), unpacked.files);
        }
        let addition = |candidate: &Candidate| {
            let key = key(&candidate.metadata);
            let files = files.get(key).or_else(|| known.get(key)).copied();
            let metadata = candidate.metadata.clone();
            let files = files.expect("it is known or was unpacked");
            InstalledPackage { metadata, explicit: false, files }
        };
        let coming: Vec<InstalledPackage> = packages.iter().map(addition).collect();
        let made = system::change(&mut transaction, None, &Installed::new(), &[], &coming)?;
        let tree = adjust(&mut transaction, made.tree)?;
        let draft = Draft { parent: None, request: purpose.into(), tree, packages: made.packages };
        let state = transaction.commit_apart(draft)?;
        self.store.tag(tag, state.id)?;
        self.forget_oldest()?;
        Ok(ApartRoot { state, packages: list, unpacked: missing.len(), was_there: false })
    }

    fn find(&self, tag: &Tag) -> Result<Option<State>> {
        self.store.refresh()?;
        let refs = self.store.refs();
        let id = refs.tags.get(tag);
        Ok(id.and_then(|id| refs.states.get(id)).cloned())
    }

    /// Packages that the system or another root has, by the hash of their stones.
    /// What a state has gc does not take away.
    fn known(&self) -> Result<HashMap<String, TreeId>> {
        let refs = self.store.refs();
        let states = roots(&self.store).into_iter().map(|(_, id)| id).chain(refs.current);
        let mut known = HashMap::new();
        for id in states {
            let Some(state) = refs.states.get(&id) else { continue };
            for package in InstalledPackage::load_all(&self.store, state.packages)?.values() {
                if let Some(hash) = package.metadata.hash() {
                    known.insert(hash.to_owned(), package.files);
                }
            }
        }
        Ok(known)
    }

    /// Keeps the newest roots and forgets the others; what only they have gc
    /// collects.
    fn forget_oldest(&self) -> Result<()> {
        let mut all = roots(&self.store);
        all.sort_by_key(|(_, id)| std::cmp::Reverse(*id));
        for (tag, id) in all.split_off(all.len().min(KEPT)) {
            self.store.untag(&tag)?;
            match self.store.remove_states(&[id]) {
                // Somebody has given it another name, or entered it for good.
                Err(
                    cairn_store::Error::StateIsTagged { .. }
                    | cairn_store::Error::StateIsCurrent(_),
                ) => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

/// The roots of a store, with the tags that keep them.
fn roots(store: &Store) -> Vec<(Tag, StateId)> {
    let tags = store.refs().tags;
    tags.into_iter().filter(|(tag, _)| tag.as_str().starts_with(TAG)).collect()
}

fn key(metadata: &Metadata) -> &str {
    metadata.hash().unwrap_or(&metadata.name)
}

/// Says which packages a root has, and what was made of them.
fn tag(packages: &[Candidate], mark: &str) -> Tag {
    let mut keys: Vec<&str> = packages.iter().map(|it| key(&it.metadata)).collect();
    keys.sort_unstable();
    let text = [mark, "\0", &keys.join("\0")].concat();
    let digest = Digest::of(text.as_bytes()).to_string();
    Tag::new(&format!("{TAG}{}", &digest[..16])).expect("letters and digits")
}
