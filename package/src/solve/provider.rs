//! Tells the SAT solver of candidates, dependencies and conflicts in its own
//! terms, as it asks for them.
//!
//! Its "names" are names of packages, of which it selects one candidate at
//! most. A dependency becomes a union of version sets with one candidate each,
//! which keeps the order of the candidates also across names. A conflict
//! becomes, for each name that has a candidate in question, the version set of
//! all others of that name.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Display;
use std::rc::Rc;

use resolvo::{
    Candidates, Condition, ConditionId, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Requirement, SolvableId, SolverCache, StringId, VersionSetId,
    VersionSetUnionId,
};

use super::lookup::Lookup;
use super::sat::Base;
use super::universe::Id;
use crate::catalog;
use crate::dependency::Dependency;

/// Tells the SAT solver of candidates, dependencies and conflicts.
pub(super) struct Provider<'l, 'u> {
    lookup: &'l Lookup<'u>,
    base: Base<'l, 'u>,
    known: RefCell<Known<'u>>,
    failure: Cell<Option<catalog::Error>>,
    failed: Cell<bool>,
}

/// The numbers that were given to things so far.
#[derive(Default)]
struct Known<'u> {
    names: Vec<&'u str>,
    name_ids: HashMap<&'u str, NameId>,
    sets: Vec<Set>,
    only: HashMap<Id, VersionSetId>,
    without: HashMap<(&'u Dependency, NameId), VersionSetId>,
    unions: Vec<Union<'u>>,
    offering: HashMap<&'u Dependency, VersionSetUnionId>,
    usable: HashMap<Id, bool>,
}

/// Candidates of one name.
struct Set {
    name: NameId,
    members: Members,
}

#[derive(Clone)]
enum Members {
    Only(Id),
    AllBut(Rc<[Id]>),
}

impl Members {
    fn has(&self, id: Id) -> bool {
        match self {
            Self::Only(only) => *only == id,
            Self::AllBut(others) => !others.contains(&id),
        }
    }
}

/// The candidates of a job or a dependency, best first.
struct Union<'u> {
    sets: Rc<[VersionSetId]>,
    dependency: Option<&'u Dependency>,
}

impl<'l, 'u> Provider<'l, 'u> {
    pub(super) fn new(lookup: &'l Lookup<'u>, base: Base<'l, 'u>) -> Self {
        let (known, failure, failed) = Default::default();
        Self { lookup, base, known, failure, failed }
    }

    /// The union for a job. The first job is union 0, and so on, when all
    /// jobs are told before the solver begins.
    pub(super) fn job(&self, candidates: &[Id]) -> Result<VersionSetUnionId, catalog::Error> {
        self.union(candidates, None)
    }

    /// The dependency that the union stands for, if it is not a job.
    pub(super) fn dependency(&self, union: VersionSetUnionId) -> Option<&'u Dependency> {
        self.known.borrow().unions[union.0 as usize].dependency
    }

    /// Why the solver was cancelled.
    pub(super) fn take_failure(&self) -> Option<catalog::Error> {
        self.failure.take()
    }

    fn union(
        &self,
        candidates: &[Id],
        dependency: Option<&'u Dependency>,
    ) -> Result<VersionSetUnionId, catalog::Error> {
        let mut sets = Vec::with_capacity(candidates.len());
        for &id in candidates {
            if self.is_usable(id)? {
                sets.push(self.known.borrow_mut().only(id, self.lookup.universe.name(id)));
            }
        }
        let mut known = self.known.borrow_mut();
        let union = VersionSetUnionId(number(known.unions.len()));
        known.unions.push(Union { sets: sets.into(), dependency });
        Ok(union)
    }

    /// The union of what offers `wanted`.
    fn offering(&self, wanted: &'u Dependency) -> Result<VersionSetUnionId, catalog::Error> {
        if let Some(&union) = self.known.borrow().offering.get(wanted) {
            return Ok(union);
        }
        let union = self.union(&self.lookup.offering(wanted)?, Some(wanted))?;
        self.known.borrow_mut().offering.insert(wanted, union);
        Ok(union)
    }

    /// Whether the candidate is not ruled out by what is installed.
    fn is_usable(&self, id: Id) -> Result<bool, catalog::Error> {
        let Base::Fixed(conflicts) = self.base else {
            return Ok(true);
        };
        if let Some(&usable) = self.known.borrow().usable.get(&id) {
            return Ok(usable);
        }
        let universe = self.lookup.universe;
        let metadata = universe.metadata(id)?;
        let mut usable = universe.installed_named(&metadata.name).is_none();
        if usable && !conflicts.is_empty() {
            let own_name = Dependency::on_package(metadata.name.as_str());
            let mut offers = metadata.provides.iter().chain([&own_name]);
            usable = !offers.any(|offer| conflicts.contains_key(offer));
        }
        for conflict in &metadata.conflicts {
            usable = usable && self.lookup.installed(conflict)?.is_empty();
        }
        self.known.borrow_mut().usable.insert(id, usable);
        Ok(usable)
    }

    fn dependencies(&self, id: Id) -> Result<KnownDependencies, catalog::Error> {
        let metadata = self.lookup.universe.metadata(id)?;
        let mut found = KnownDependencies::default();
        for wanted in &metadata.depends {
            let is_met = match self.base {
                Base::Fixed(_) => !self.lookup.installed(wanted)?.is_empty(),
                Base::Free => false,
            };
            if !is_met && !metadata.offers(wanted) {
                found.requirements.push(Requirement::Union(self.offering(wanted)?).into());
            }
        }
        for conflict in &metadata.conflicts {
            let offering = self.lookup.offering(conflict)?;
            for other in offering.iter() {
                let name = self.lookup.universe.name(*other);
                if name != metadata.name {
                    let set = self.without(conflict, name, &offering);
                    if !found.constrains.contains(&set) {
                        found.constrains.push(set);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The candidates of `name` that do not offer `conflict`, which those in
    /// `offering` do.
    fn without(&self, conflict: &'u Dependency, name: &'u str, offering: &[Id]) -> VersionSetId {
        let mut known = self.known.borrow_mut();
        let name_id = known.name(name);
        if let Some(&set) = known.without.get(&(conflict, name_id)) {
            return set;
        }
        let of_name = |id: &Id| self.lookup.universe.name(*id) == name;
        let out: Rc<[Id]> = offering.iter().copied().filter(of_name).collect();
        let set = known.add_set(Set { name: name_id, members: Members::AllBut(out) });
        known.without.insert((conflict, name_id), set);
        set
    }

    fn candidates(&self, name: NameId) -> Result<Vec<SolvableId>, catalog::Error> {
        let name = self.name_of(name);
        let mut candidates = Vec::new();
        for &id in self.lookup.named(name)?.iter() {
            if self.is_usable(id)? {
                candidates.push(solvable(id));
            }
        }
        Ok(candidates)
    }

    fn name_of(&self, name: NameId) -> &'u str {
        self.known.borrow().names[name.into_raw() as usize]
    }

    /// Hands the result over, or stops the solver at its next step.
    fn or_stop<T: Default>(&self, result: Result<T, catalog::Error>) -> T {
        result.unwrap_or_else(|error| {
            self.failure.set(Some(error));
            self.failed.set(true);
            T::default()
        })
    }
}

impl<'u> Known<'u> {
    fn name(&mut self, name: &'u str) -> NameId {
        *self.name_ids.entry(name).or_insert_with(|| {
            self.names.push(name);
            NameId::from_raw(number(self.names.len() - 1))
        })
    }

    fn only(&mut self, id: Id, name: &'u str) -> VersionSetId {
        if let Some(&set) = self.only.get(&id) {
            return set;
        }
        let name = self.name(name);
        let set = self.add_set(Set { name, members: Members::Only(id) });
        self.only.insert(id, set);
        set
    }

    fn add_set(&mut self, set: Set) -> VersionSetId {
        self.sets.push(set);
        VersionSetId(number(self.sets.len() - 1))
    }
}

fn number(len: usize) -> u32 {
    u32::try_from(len).expect("there are fewer than 2^32 candidates")
}

fn solvable(id: Id) -> SolvableId {
    SolvableId::from_raw(id.0)
}

/// What the solver prints, it prints for its own developers.
impl Interner for Provider<'_, '_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        self.lookup.universe.name(Id(solvable.into_raw()))
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.name_of(name)
    }

    fn display_version_set(&self, set: VersionSetId) -> impl Display + '_ {
        set.0
    }

    fn display_string(&self, string: StringId) -> impl Display + '_ {
        string.0
    }

    fn version_set_name(&self, set: VersionSetId) -> NameId {
        self.known.borrow().sets[set.0 as usize].name
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.known.borrow_mut().name(self.lookup.universe.name(Id(solvable.into_raw())))
    }

    fn version_sets_in_union(
        &self,
        union: VersionSetUnionId,
    ) -> impl Iterator<Item = VersionSetId> {
        let sets = Rc::clone(&self.known.borrow().unions[union.0 as usize].sets);
        (0..sets.len()).map(move |at| sets[at])
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        unreachable!("no dependency here has a condition")
    }
}

impl DependencyProvider for Provider<'_, '_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let members = self.known.borrow().sets[set.0 as usize].members.clone();
        let fits = |it: &SolvableId| members.has(Id(it.into_raw())) != inverse;
        candidates.iter().copied().filter(fits).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates<SolvableId>> {
        let candidates = self.or_stop(self.candidates(name));
        Some(Candidates { candidates, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, _: &mut [SolvableId]) {
        // A union has its sets in order, and each has one candidate.
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        Dependencies::Known(self.or_stop(self.dependencies(Id(solvable.into_raw()))))
    }

    fn should_cancel_with_value(&self) -> Option<Box<dyn Any>> {
        self.failed.get().then(|| Box::new(()) as Box<dyn Any>)
    }
}
