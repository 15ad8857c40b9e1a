//! From the packages that the solver chose to what people are told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::explain::Explainer;
use super::lookup::{Choice, Lookup, order};
use super::needed::{needed, offers_of, redundant};
use super::sat::Clash;
use super::solution::{
    Direction, Held, Install, Need, Package, Reason, Removal, Replacement, Solution,
};
use super::universe::Id;
use crate::catalog;
use crate::dependency::{Dependency, Kind};
use crate::metadata::Metadata;

/// What was found out about a request.
pub(super) struct Outcome<'l, 'u> {
    pub(super) lookup: &'l Lookup<'u>,
    /// For each thing to install the candidates for it, best first.
    pub(super) asked: Vec<Choice>,
    /// What the request removes.
    pub(super) removed: BTreeSet<Id>,
    /// What cannot stay without them, and what it would lack.
    pub(super) lost: HashMap<Id, &'u Dependency>,
    /// What the packages to be downgraded become.
    pub(super) older: BTreeMap<Id, Id>,
    /// The packages that are there afterwards, and perhaps some that nobody
    /// needs.
    pub(super) chosen: BTreeSet<Id>,
    /// Whether everything that is installed stays, and needs nothing new.
    pub(super) all_stay: bool,
    /// For each installed package that cannot be upgraded, the new build and
    /// what is in its way.
    pub(super) held: BTreeMap<Id, (Id, Rc<Clash>)>,
}

impl<'l, 'u> Outcome<'l, 'u> {
    pub(super) fn new(
        lookup: &'l Lookup<'u>,
        asked: Vec<Choice>,
        removed: BTreeSet<Id>,
        lost: HashMap<Id, &'u Dependency>,
        older: BTreeMap<Id, Id>,
    ) -> Self {
        let (chosen, all_stay, held) = Default::default();
        Self { lookup, asked, removed, lost, older, chosen, all_stay, held }
    }

    /// The chosen package of each thing to install.
    fn picked(&self) -> BTreeSet<Id> {
        let is_chosen = |id: &&Id| self.chosen.contains(id);
        self.asked.iter().filter_map(|job| job.iter().find(is_chosen).copied()).collect()
    }

    /// What is there afterwards, and what changes.
    pub(super) fn solution(&self) -> Result<Solution, catalog::Error> {
        let universe = self.lookup.universe;
        let picked = self.picked();
        let left = self.left(&picked)?;
        let mut by_name: Vec<Id> = left.iter().copied().collect();
        by_name.sort_unstable_by_key(|&id| universe.name(id));

        let mut needs = self.needs(&by_name, &picked)?;
        let mut solution = Solution::default();
        for &id in &by_name {
            let new = universe.candidate(id)?.clone();
            let old = universe.installed_named(universe.name(id));
            let explicit = picked.contains(&id) || old.is_some_and(|old| universe.is_explicit(old));
            solution.packages.push(Package { candidate: new.clone(), explicit });
            match old {
                None => {
                    solution.installs.push(Install { new, needed_by: needs.remove(&id) });
                }
                Some(old) if old != id => {
                    let old = universe.candidate(old)?.clone();
                    let direction = match new.metadata.age().cmp(&old.metadata.age()) {
                        std::cmp::Ordering::Greater => Direction::Upgrade,
                        std::cmp::Ordering::Less => Direction::Downgrade,
                        std::cmp::Ordering::Equal => Direction::Sideways,
                    };
                    solution.replacements.push(Replacement { old, new, direction });
                }
                Some(_) if explicit && !universe.is_explicit(id) => solution.marked.push(new),
                Some(_) => {}
            }
        }
        let kept: BTreeSet<&str> = by_name.iter().map(|&id| universe.name(id)).collect();
        for id in universe.installed().filter(|&id| !kept.contains(universe.name(id))) {
            let old = universe.candidate(id)?.clone();
            solution.removals.push(Removal { old, reason: self.reason(id, &by_name)? });
        }
        let asked = &picked;
        for (&id, (available, clash)) in self.held.iter().filter(|(id, _)| left.contains(id)) {
            let explainer = Explainer { lookup: self.lookup, clash, asked };
            solution.held.push(Held {
                installed: universe.candidate(id)?.clone(),
                available: universe.candidate(*available)?.clone(),
                cause: explainer.obstacles(&[*available])?,
            });
        }
        Ok(solution)
    }

    /// What of the chosen packages is asked for or needed.
    ///
    /// An installed package that was unneeded before is left where it is: only
    /// what becomes unneeded goes.
    fn left(&self, picked: &BTreeSet<Id>) -> Result<BTreeSet<Id>, catalog::Error> {
        let (lookup, universe) = (self.lookup, self.lookup.universe);
        let mut left = self.chosen.clone();
        let mut roots: BTreeSet<Id> = picked.iter().chain(self.older.values()).copied().collect();
        let base: BTreeSet<Id> = universe.installed().filter(|_| self.all_stay).collect();
        left.retain(|id| !base.contains(id));
        roots.retain(|id| !base.contains(id));
        if !self.all_stay {
            let explicit = universe.installed().filter(|&id| universe.is_explicit(id));
            let needed_before = needed(lookup, explicit, &universe.installed().collect())?;
            roots.extend(left.iter().filter(|&&id| {
                let old = universe.installed_named(universe.name(id));
                old.is_some_and(|old| universe.is_explicit(old) || !needed_before.contains(&old))
            }));
        }

        let mut spare = Vec::new();
        for &id in &left {
            if !picked.contains(&id) && universe.installed_named(universe.name(id)).is_none() {
                spare.push((order(universe.candidate(id)?, ""), id));
            }
        }
        spare.sort_unstable();
        let spare: Vec<Id> = spare.into_iter().map(|(_, id)| id).collect();
        loop {
            let count = left.len();
            for id in redundant(lookup, &left, &spare, self.all_stay)? {
                left.remove(&id);
            }
            left = needed(lookup, roots.iter().copied(), &left)?;
            if left.len() == count {
                left.extend(base);
                return Ok(left);
            }
        }
    }

    /// For each new package that nobody asked for the first of `packages` that
    /// needs it.
    fn needs(
        &self,
        packages: &[Id],
        picked: &BTreeSet<Id>,
    ) -> Result<HashMap<Id, Need>, catalog::Error> {
        let universe = self.lookup.universe;
        let mut offers: HashMap<(Kind, &str), Vec<Id>> = HashMap::new();
        for &id in packages.iter().filter(|id| !picked.contains(id)) {
            if universe.installed_named(universe.name(id)).is_none() {
                for offer in offers_of(universe.metadata(id)?) {
                    offers.entry(offer).or_default().push(id);
                }
            }
        }
        let mut needs = HashMap::new();
        // When everything stays as it is, what is installed needs nothing new.
        let needing = |id: &&Id| !(self.all_stay && universe.is_installed(**id));
        for &id in packages.iter().filter(needing) {
            for wanted in &universe.metadata(id)?.depends {
                let offering = offers.get(&(wanted.kind, wanted.text.as_str()));
                for &new in offering.into_iter().flatten().filter(|&&new| new != id) {
                    needs.entry(new).or_insert_with(|| Need {
                        package: universe.name(id).into(),
                        dependency: wanted.clone(),
                    });
                }
            }
        }
        Ok(needs)
    }

    /// Why the installed package `id` is not among `packages`.
    fn reason(&self, id: Id, packages: &[Id]) -> Result<Reason, catalog::Error> {
        if self.removed.contains(&id) {
            return Ok(Reason::Asked);
        }
        let universe = self.lookup.universe;
        if universe.named(universe.name(id)).iter().any(|it| self.chosen.contains(it)) {
            return Ok(Reason::Unneeded);
        }
        if let Some(&lacking) = self.lost.get(&id) {
            return Ok(Reason::Needs(lacking.clone()));
        }
        let old = universe.metadata(id)?;
        for &other in packages {
            let new = universe.metadata(other)?;
            let is_against = |one: &Metadata, other: &Metadata| {
                one.conflicts.iter().any(|conflict| other.offers(conflict))
            };
            if is_against(old, new) || is_against(new, old) {
                return Ok(Reason::Conflicts(new.name.clone()));
            }
        }
        for wanted in &old.depends {
            let offering = self.lookup.offering(wanted)?;
            if !offering.iter().any(|provider| packages.contains(provider)) {
                return Ok(Reason::Needs(wanted.clone()));
            }
        }
        Ok(Reason::Unneeded)
    }
}
