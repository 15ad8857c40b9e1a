//! Turns a clash into a chain that leads from what is wanted to what is in
//! the way.

use std::collections::BTreeSet;

use super::lookup::Lookup;
use super::problem::{Cause, Obstacle, Standing, Trouble};
use super::sat::Clash;
use super::universe::Id;
use crate::catalog;
use crate::dependency::Dependency;

/// Explains with the facts of one clash.
pub(super) struct Explainer<'c, 'u> {
    pub(super) lookup: &'c Lookup<'u>,
    pub(super) clash: &'c Clash,
    /// What the request asks for.
    pub(super) asked: &'c BTreeSet<Id>,
}

impl Explainer<'_, '_> {
    /// Why none of `candidates` can be there.
    pub(super) fn obstacles(&self, candidates: &[Id]) -> Result<Cause, catalog::Error> {
        self.all(candidates, &mut BTreeSet::new())
    }

    fn all(&self, candidates: &[Id], seen: &mut BTreeSet<Id>) -> Result<Cause, catalog::Error> {
        let mut obstacles = Vec::with_capacity(candidates.len());
        for &id in candidates {
            obstacles.push(self.obstacle(id, seen)?);
        }
        Ok(Cause::Obstacles(obstacles))
    }

    fn obstacle(&self, id: Id, seen: &mut BTreeSet<Id>) -> Result<Obstacle, catalog::Error> {
        let trouble = if seen.insert(id) { self.trouble(id, seen)? } else { Trouble::Elsewhere };
        Ok(Obstacle { package: self.called(id)?, trouble })
    }

    /// What is in the way of `id`. What nothing provides is the clearest
    /// answer, then a package that is there, then a longer chain.
    fn trouble(&self, id: Id, seen: &mut BTreeSet<Id>) -> Result<Trouble, catalog::Error> {
        let none = BTreeSet::new();
        let mut needs = Vec::new();
        let of_clash = self.clash.needs.get(&id).unwrap_or(&none);
        for dependency in &self.lookup.universe.metadata(id)?.depends {
            if !of_clash.contains(dependency) {
                continue;
            }
            let offering = self.lookup.offering(dependency)?;
            if offering.is_empty() {
                let cause = Box::new(self.lack(dependency)?);
                return Ok(Trouble::Needs { dependency: dependency.clone(), cause });
            }
            needs.push((dependency, offering));
        }

        let mut rivals: Vec<Id> =
            self.clash.rivals.get(&id).into_iter().flatten().copied().collect();
        rivals.sort_by_key(|&rival| self.weight(rival));
        let is_plain =
            |rival: &&Id| self.lookup.universe.is_installed(**rival) || self.asked.contains(rival);
        if let Some(&rival) = rivals.first().filter(is_plain) {
            return self.rivalry(id, rival);
        }
        for (dependency, offering) in needs {
            if offering.iter().any(|provider| !seen.contains(provider)) {
                let cause = Box::new(self.all(&offering, seen)?);
                return Ok(Trouble::Needs { dependency: dependency.clone(), cause });
            }
        }
        rivals.first().map_or(Ok(Trouble::Elsewhere), |&rival| self.rivalry(id, rival))
    }

    /// Why nothing provides `wanted`.
    fn lack(&self, wanted: &Dependency) -> Result<Cause, catalog::Error> {
        let universe = self.lookup.universe;
        let mut removed: Vec<String> =
            universe.offering(wanted)?.into_iter().map(|id| universe.name(id).into()).collect();
        removed.dedup();
        Ok(if removed.is_empty() { Cause::Nothing } else { Cause::OnlyRemoved(removed) })
    }

    /// What people see as fixed comes first.
    fn weight(&self, id: Id) -> impl Ord + use<> {
        let universe = self.lookup.universe;
        (!universe.is_explicit(id), !universe.is_installed(id), !self.asked.contains(&id), id)
    }

    fn rivalry(&self, id: Id, rival: Id) -> Result<Trouble, catalog::Error> {
        let universe = self.lookup.universe;
        let needed_by = self.needed_by(rival)?;
        if universe.name(id) == universe.name(rival) {
            let standing = needed_by.map_or(Standing::Installed, Standing::NeededBy);
            return Ok(Trouble::Replaces { other: universe.metadata(rival)?.label(), standing });
        }
        let standing = match needed_by {
            _ if universe.is_installed(rival) => Standing::Installed,
            Some(package) if !self.asked.contains(&rival) => Standing::NeededBy(package),
            _ if self.asked.contains(&rival) => Standing::Asked,
            _ => Standing::Upgrade,
        };
        Ok(Trouble::Conflicts { with: self.called(rival)?, standing })
    }

    /// The first package of the clash, by name, that needs what `id` offers.
    fn needed_by(&self, id: Id) -> Result<Option<String>, catalog::Error> {
        let universe = self.lookup.universe;
        let metadata = universe.metadata(id)?;
        let needing = self.clash.needs.iter().filter(|(by, needs)| {
            universe.name(**by) != metadata.name && needs.iter().any(|need| metadata.offers(need))
        });
        Ok(needing.map(|(&by, _)| universe.name(by)).min().map(Into::into))
    }

    /// The name, with the version if there are several of that name.
    fn called(&self, id: Id) -> Result<String, catalog::Error> {
        let metadata = self.lookup.universe.metadata(id)?;
        let is_alone = self.lookup.universe.named(&metadata.name).len() == 1;
        Ok(if is_alone { metadata.name.clone() } else { metadata.label() })
    }
}
