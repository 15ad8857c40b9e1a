//! Which candidates a request may use for something, best first.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::universe::{Candidate, Id, Origin, Universe};
use crate::catalog;
use crate::dependency::{Dependency, Kind};
use crate::metadata::Metadata;

/// Which candidates one request may use for something, best first.
///
/// Left out are the packages that the request removes, and what is the same
/// package as an installed one.
pub(super) struct Lookup<'u> {
    pub(super) universe: &'u Universe,
    barred: BTreeSet<&'u str>,
    offering: Answers<'u>,
    installed: Answers<'u>,
    named: RefCell<HashMap<&'u str, Choice>>,
}

/// The candidates for one thing, best first.
pub(super) type Choice = Rc<[Id]>;

type Answers<'u> = RefCell<HashMap<&'u Dependency, Choice>>;

impl<'u> Lookup<'u> {
    /// A lookup that leaves out all packages of the names in `barred`.
    pub(super) fn new(universe: &'u Universe, barred: BTreeSet<&'u str>) -> Self {
        let (offering, installed, named) = Default::default();
        Self { universe, barred, offering, installed, named }
    }

    /// What offers `wanted`, best first; see [`order`].
    pub(super) fn offering(&self, wanted: &'u Dependency) -> Result<Choice, catalog::Error> {
        if let Some(known) = self.offering.borrow().get(wanted) {
            return Ok(Rc::clone(known));
        }
        let found = self.sorted(self.universe.offering(wanted)?, &wanted.text)?;
        self.offering.borrow_mut().insert(wanted, Rc::clone(&found));
        Ok(found)
    }

    /// The installed packages that offer `wanted`, also those that the
    /// request removes.
    pub(super) fn installed(&self, wanted: &'u Dependency) -> Result<Choice, catalog::Error> {
        if let Some(known) = self.installed.borrow().get(wanted) {
            return Ok(Rc::clone(known));
        }
        let found: Choice = self.universe.installed_offering(wanted)?.into();
        self.installed.borrow_mut().insert(wanted, Rc::clone(&found));
        Ok(found)
    }

    /// The candidates of this name, best first.
    pub(super) fn named(&self, name: &'u str) -> Result<Choice, catalog::Error> {
        if let Some(known) = self.named.borrow().get(name) {
            return Ok(Rc::clone(known));
        }
        let found = self.sorted(self.universe.named(name), name)?;
        self.named.borrow_mut().insert(name, Rc::clone(&found));
        Ok(found)
    }

    /// The candidates that a request to install `wanted` means, best first.
    ///
    /// Files that were named on their own come before everything else; a name
    /// means the package of that name, if there is one.
    pub(super) fn meant(&self, wanted: &'u Dependency) -> Result<Choice, catalog::Error> {
        let all = self.universe.offering(wanted)?;
        let files = all.iter().copied().filter(|&id| self.universe.is_file(id));
        let files = files.map(|id| self.or_installed(id)).collect::<Result<Vec<_>, _>>()?;
        if !files.is_empty() {
            return self.sorted(files, &wanted.text);
        }
        if wanted.kind == Kind::Name {
            let named = self.named(&wanted.text)?;
            if !named.is_empty() {
                return Ok(named);
            }
        }
        self.offering(wanted)
    }

    /// What an upgrade of the installed package `id` would bring, if it is
    /// another build.
    pub(super) fn upgrade(&self, id: Id) -> Result<Option<Id>, catalog::Error> {
        let universe = self.universe;
        let mut best = None;
        for other in universe.named(universe.name(id)) {
            if !universe.is_installed(other) {
                let key = order(universe.candidate(other)?, "");
                best = best.into_iter().chain([(key, other)]).min();
            }
        }
        match best {
            Some((_, best)) if self.or_installed(best)? == best => Ok(Some(best)),
            _ => Ok(None),
        }
    }

    /// The newest build of a repository, of this version if one is given, that is older
    /// than the installed package `id`.
    pub(super) fn older(
        &self,
        id: Id,
        version: Option<&str>,
    ) -> Result<Option<Id>, catalog::Error> {
        let universe = self.universe;
        let age = universe.metadata(id)?.age();
        let mut best = None;
        for other in universe.named(universe.name(id)) {
            let of = universe.candidate(other)?;
            let is_meant = version
                .is_none_or(|it| it == of.metadata.version || it == of.metadata.full_version());
            let is_offered = matches!(of.origin, Origin::Repository { .. });
            if is_offered && is_meant && of.metadata.age() < age {
                let key = (Reverse(of.metadata.age()), order(of, ""));
                best = best.into_iter().chain([(key, other)]).min();
            }
        }
        Ok(best.map(|(_, best)| best))
    }

    /// The candidate, or the installed package if that is the same one.
    fn or_installed(&self, id: Id) -> Result<Id, catalog::Error> {
        let Some(installed) = self.universe.installed_named(self.universe.name(id)) else {
            return Ok(id);
        };
        let (one, other) = (self.universe.metadata(installed)?, self.universe.metadata(id)?);
        Ok(if is_same(one, other) { installed } else { id })
    }

    /// What of `found` may be used, best first.
    fn sorted(&self, found: Vec<Id>, text: &str) -> Result<Choice, catalog::Error> {
        let mut keyed = Vec::with_capacity(found.len());
        for id in found {
            let name = self.universe.name(id);
            if !self.barred.contains(name) && self.or_installed(id)? == id {
                keyed.push((order(self.universe.candidate(id)?, text), id));
            }
        }
        keyed.sort_unstable();
        Ok(keyed.into_iter().map(|(_, id)| id).collect())
    }
}

/// What decides between candidates that offer `text`; the least is the best.
///
/// Installed packages come first, then files that were named on their own,
/// then the package whose name is what is asked for, the larger priority, the
/// shorter name, the name, the newer package, and at last the hash.
pub(super) fn order<'c>(candidate: &'c Candidate, text: &str) -> impl Ord + use<'c> {
    let Candidate { metadata, origin } = candidate;
    let (place, priority) = match origin {
        Origin::Installed { .. } => (0, u64::MAX),
        Origin::File => (1, u64::MAX),
        Origin::Repository { priority, .. } => (2, *priority),
    };
    let name = metadata.name.as_str();
    let newness = Reverse(metadata.age());
    (place, name != text, Reverse(priority), name.len(), name, newness, metadata.hash())
}

/// Whether both are the same build of the same package: their hashes are
/// equal, or where one has none, everything that tells builds apart.
pub(super) fn is_same(one: &Metadata, other: &Metadata) -> bool {
    match (one.hash(), other.hash()) {
        (Some(one), Some(other)) => one == other,
        _ => {
            let build = |it: &Metadata| (it.age(), it.version.clone(), it.architecture.clone());
            one.name == other.name && build(one) == build(other)
        }
    }
}
