//! Packages that are found by name and by what they offer, without a look at
//! the others.

mod file;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::dependency::{Dependency, Kind};
use crate::metadata::Metadata;

use file::Stored;
pub(crate) use file::{Stamp, encode};

/// Packages that are found by name and by what they offer.
///
/// They are numbered from 0 in the order of their names; packages of one name
/// are neighbours.
#[derive(Debug)]
pub struct Catalog {
    names: Names,
    /// The hash of something on offer and the number of who offers it, sorted.
    offers: Vec<(u64, u32)>,
    packages: Packages,
}

#[derive(Debug)]
enum Packages {
    InMemory(Vec<Arc<Metadata>>),
    Stored(Stored),
}

/// Why a catalog, or a package in it, could not be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// The file could not be read or written.
    #[error("cannot access {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The file is not a catalog, or bytes of it have changed.
    #[error("the catalog {} is damaged", .0.display())]
    Damaged(PathBuf),
}

impl Catalog {
    /// A catalog of packages that are in memory.
    ///
    /// Costs a sort of everything that they offer; nothing is copied but
    /// names.
    #[must_use]
    pub fn new(packages: impl IntoIterator<Item = Arc<Metadata>>) -> Self {
        let mut packages: Vec<Arc<Metadata>> = packages.into_iter().collect();
        let (names, offers) = tables(&mut packages);
        Self { names, offers, packages: Packages::InMemory(packages) }
    }

    /// How many packages there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of package `entry`, which must be below [`Catalog::len`].
    #[must_use]
    pub fn name(&self, entry: u32) -> &str {
        self.names.get(entry)
    }

    /// Package `entry`, which must be below [`Catalog::len`].
    pub fn get(&self, entry: u32) -> Result<Arc<Metadata>, Error> {
        match &self.packages {
            Packages::InMemory(packages) => Ok(Arc::clone(&packages[entry as usize])),
            Packages::Stored(stored) => stored.get(entry),
        }
    }

    /// The numbers of the packages of this name.
    ///
    /// Costs a binary search.
    pub fn named(&self, name: &str) -> impl Iterator<Item = u32> {
        self.likely(Kind::Name, name).filter(move |&entry| self.name(entry) == name)
    }

    /// The numbers of the packages that offer this, in ascending order, and
    /// by chance of some that do not: the metadata have the last word.
    ///
    /// Costs a binary search.
    pub fn likely(&self, kind: Kind, text: &str) -> impl Iterator<Item = u32> {
        let wanted = hash(kind, text);
        let start = self.offers.partition_point(|&(hash, _)| hash < wanted);
        let rows = self.offers[start..].iter();
        rows.take_while(move |row| row.0 == wanted).map(|row| row.1)
    }

    /// The packages that offer `wanted`, by name.
    pub fn offering(&self, wanted: &Dependency) -> Result<Vec<Arc<Metadata>>, Error> {
        let mut offering = Vec::new();
        for entry in self.likely(wanted.kind, &wanted.text) {
            let package = self.get(entry)?;
            if package.offers(wanted) {
                offering.push(package);
            }
        }
        Ok(offering)
    }

    /// The numbers of the packages that have `text` somewhere in their metadata,
    /// whatever the case of ASCII letters, in ascending order; and by chance of
    /// some that do not.
    ///
    /// Costs a look at the bytes of all metadata, of which none is decoded.
    pub fn containing(&self, text: &str) -> Result<Vec<u32>, Error> {
        let pattern = regex::bytes::RegexBuilder::new(&regex::escape(text))
            .case_insensitive(true)
            .unicode(false)
            .build();
        // Case is not known of other letters: then all are looked at.
        let Ok(pattern) = pattern else { return Ok((0..self.len()).collect()) };
        match &self.packages {
            Packages::Stored(stored) if text.is_ascii() => stored.containing(&pattern),
            Packages::Stored(_) => Ok((0..self.len()).collect()),
            Packages::InMemory(packages) => {
                let has = |package: &Metadata| {
                    let texts = [&package.name, &package.summary].into_iter();
                    let dependencies = package.depends.iter().chain(&package.provides);
                    let mut all = texts.chain(dependencies.map(|it| &it.text));
                    all.any(|text| pattern.is_match(text.as_bytes())) || !text.is_ascii()
                };
                Ok((0..).zip(packages).filter(|(_, it)| has(it)).map(|(entry, _)| entry).collect())
            }
        }
    }

    /// All packages, by name.
    pub fn iter(&self) -> impl Iterator<Item = Result<Arc<Metadata>, Error>> {
        (0..self.len()).map(|entry| self.get(entry))
    }
}

/// Sorts the packages, and makes the tables that they are found by.
fn tables(packages: &mut [Arc<Metadata>]) -> (Names, Vec<(u64, u32)>) {
    // Beyond the names, so that the order in which they came in does not show.
    packages.sort_by(|left, right| {
        let by_age = || right.age().cmp(&left.age());
        let by_hash = || left.hash().cmp(&right.hash());
        left.name.cmp(&right.name).then_with(by_age).then_with(by_hash)
    });
    let names = packages.iter().map(|package| package.name.as_str()).collect();
    let mut offers = Vec::new();
    for (entry, package) in (0..).zip(packages) {
        offers.push((hash(Kind::Name, &package.name), entry));
        offers.extend(package.provides.iter().map(|it| (hash(it.kind, &it.text), entry)));
    }
    offers.sort_unstable();
    offers.dedup();
    (names, offers)
}

/// What stands for a dependency in the table of offers.
fn hash(kind: Kind, text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), kind.number().into())
}

/// Names one after the other in a single text.
#[derive(Debug, Default)]
struct Names {
    text: String,
    /// Where each name ends.
    ends: Vec<u32>,
}

impl Names {
    /// Names of which it is sure that each is a part of `text`.
    fn checked(text: String, ends: Vec<u32>) -> Option<Self> {
        let is_end = |&end: &u32| text.is_char_boundary(end as usize);
        let fits = ends.is_sorted() && ends.iter().all(is_end);
        let all = ends.last().copied().unwrap_or(0) as usize == text.len();
        (fits && all).then_some(Self { text, ends })
    }

    fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).expect("checked when the names came in")
    }

    fn get(&self, entry: u32) -> &str {
        let entry = entry as usize;
        let start = entry.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[entry] as usize]
    }
}

impl<'a> FromIterator<&'a str> for Names {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut all = Self::default();
        for name in names {
            all.text.push_str(name);
            all.ends.push(u32::try_from(all.text.len()).expect("names have no 4 GiB"));
        }
        all
    }
}
