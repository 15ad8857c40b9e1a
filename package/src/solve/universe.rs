//! Every package that a solution may consist of: what is installed, what
//! repositories have, and stones that were named as files.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::sync::Arc;

use crate::catalog::{self, Catalog};
use crate::dependency::{Dependency, Kind};
use crate::metadata::Metadata;

/// Where a package would come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is there already.
    Installed {
        /// Whether somebody asked for it, or it is there because others need
        /// it.
        explicit: bool,
    },
    /// A repository has it.
    Repository {
        /// The name of the repository.
        name: Arc<str>,
        /// Its priority; the larger one wins.
        priority: u64,
    },
    /// It is a file that was named on its own.
    File,
}

/// A package and where it would come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What the package says of itself.
    pub metadata: Arc<Metadata>,
    /// Where it would come from.
    pub origin: Origin,
}

/// A package that is there.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What the package says of itself.
    pub metadata: Arc<Metadata>,
    /// Whether somebody asked for it.
    pub explicit: bool,
}

/// The packages of a repository.
#[derive(Debug)]
pub struct Source {
    /// The name of the repository.
    pub name: String,
    /// Its priority; the larger one wins.
    pub priority: u64,
    /// Its packages.
    pub catalog: Arc<Catalog>,
}

/// Every package that a solution may consist of.
///
/// Only the packages that a request touches are ever read from the catalogs
/// of repositories.
#[derive(Debug, Default)]
pub struct Universe {
    shelves: Vec<Shelf>,
    /// Of each candidate, as far as it was read.
    read: Vec<OnceCell<Candidate>>,
    /// Of each installed package, in the order of its catalog.
    explicit: Vec<bool>,
}

#[derive(Debug)]
struct Shelf {
    /// The id of its first package.
    first: u32,
    place: Place,
    catalog: Arc<Catalog>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Installed,
    Files,
    Repository { name: Arc<str>, priority: u64 },
}

/// A candidate of one universe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) u32);

impl Universe {
    /// A universe of these packages; the order within each list makes no
    /// difference.
    ///
    /// Of several installed packages of one name the first is taken.
    #[must_use]
    pub fn new(
        mut installed: Vec<Installed>,
        mut repositories: Vec<Source>,
        files: Vec<Arc<Metadata>>,
    ) -> Self {
        installed.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
        installed.dedup_by(|later, first| later.metadata.name == first.metadata.name);
        let explicit = installed.iter().map(|package| package.explicit).collect();
        let installed = Catalog::new(installed.into_iter().map(|package| package.metadata));
        repositories.sort_by(|left, right| {
            (Reverse(left.priority), &left.name).cmp(&(Reverse(right.priority), &right.name))
        });

        let mut universe = Self { explicit, ..Self::default() };
        universe.add(Place::Installed, Arc::new(installed));
        universe.add(Place::Files, Arc::new(Catalog::new(files)));
        for Source { name, priority, catalog } in repositories {
            universe.add(Place::Repository { name: name.into(), priority }, catalog);
        }
        universe
    }

    fn add(&mut self, place: Place, catalog: Arc<Catalog>) {
        let first = u32::try_from(self.read.len()).expect("fewer than 2^32 packages");
        let count = self.read.len() + catalog.len() as usize;
        self.read.resize_with(count, OnceCell::new);
        self.shelves.push(Shelf { first, place, catalog });
    }

    /// All names of packages, each once, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut all = Vec::with_capacity(self.read.len());
        for Shelf { catalog, .. } in &self.shelves {
            all.extend((0..catalog.len()).map(|entry| catalog.name(entry)));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether some package offers this.
    ///
    /// # Errors
    /// A package of a repository could not be read.
    pub fn has(&self, wanted: &Dependency) -> Result<bool, catalog::Error> {
        Ok(!self.offering(wanted)?.is_empty())
    }

    /// The installed packages.
    pub(super) fn installed(&self) -> impl Iterator<Item = Id> + use<> {
        (0..u32::try_from(self.explicit.len()).expect("fewer than 2^32 packages")).map(Id)
    }

    /// The installed package of this name.
    pub(super) fn installed_named(&self, name: &str) -> Option<Id> {
        self.shelves.first()?.catalog.named(name).map(Id).next()
    }

    pub(super) fn is_installed(&self, id: Id) -> bool {
        (id.0 as usize) < self.explicit.len()
    }

    /// Whether the candidate is installed and somebody asked for it.
    pub(super) fn is_explicit(&self, id: Id) -> bool {
        self.explicit.get(id.0 as usize).copied().unwrap_or(false)
    }

    pub(super) fn is_file(&self, id: Id) -> bool {
        self.shelf(id).place == Place::Files
    }

    fn shelf(&self, id: Id) -> &Shelf {
        let after = self.shelves.partition_point(|shelf| shelf.first <= id.0);
        // Of shelves that begin at one id, all but the last are empty.
        &self.shelves[after.checked_sub(1).expect("the first shelf begins at 0")]
    }

    pub(super) fn name(&self, id: Id) -> &str {
        let shelf = self.shelf(id);
        shelf.catalog.name(id.0 - shelf.first)
    }

    /// The candidate with everything that it says of itself.
    pub(super) fn candidate(&self, id: Id) -> Result<&Candidate, catalog::Error> {
        let slot = &self.read[id.0 as usize];
        if let Some(candidate) = slot.get() {
            return Ok(candidate);
        }
        let shelf = self.shelf(id);
        let metadata = shelf.catalog.get(id.0 - shelf.first)?;
        let origin = match &shelf.place {
            Place::Installed => Origin::Installed { explicit: self.is_explicit(id) },
            Place::Files => Origin::File,
            Place::Repository { name, priority } => {
                Origin::Repository { name: Arc::clone(name), priority: *priority }
            }
        };
        Ok(slot.get_or_init(|| Candidate { metadata, origin }))
    }

    pub(super) fn metadata(&self, id: Id) -> Result<&Metadata, catalog::Error> {
        self.candidate(id).map(|candidate| &*candidate.metadata)
    }

    /// All candidates of this name, in the order of the shelves.
    pub(super) fn named(&self, name: &str) -> Vec<Id> {
        let on = |shelf: &Shelf| -> Vec<Id> {
            shelf.catalog.named(name).map(|entry| Id(shelf.first + entry)).collect()
        };
        self.shelves.iter().flat_map(on).collect()
    }

    /// All candidates that offer this, in the order of the shelves.
    pub(super) fn offering(&self, wanted: &Dependency) -> Result<Vec<Id>, catalog::Error> {
        self.offering_on(&self.shelves, wanted)
    }

    /// The installed packages that offer this.
    pub(super) fn installed_offering(
        &self,
        wanted: &Dependency,
    ) -> Result<Vec<Id>, catalog::Error> {
        self.offering_on(&self.shelves[..self.shelves.len().min(1)], wanted)
    }

    fn offering_on(
        &self,
        shelves: &[Shelf],
        wanted: &Dependency,
    ) -> Result<Vec<Id>, catalog::Error> {
        let mut offering = Vec::new();
        for shelf in shelves {
            for entry in shelf.catalog.likely(wanted.kind, &wanted.text) {
                let id = Id(shelf.first + entry);
                let by_name = wanted.kind == Kind::Name && wanted.text == self.name(id);
                if by_name || self.metadata(id)?.offers(wanted) {
                    offering.push(id);
                }
            }
        }
        Ok(offering)
    }
}
