//! Questions about packages: which there are, who needs whom, who owns a path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use cairn_store::{Entry, Store, TreeId, TreePath, TreeReader, resolve};

use crate::catalog::{self, Catalog};
use crate::repository::Repository;
use crate::system::{Installed, InstalledPackage};
use crate::trigger::Record;
use crate::{Dependency, Metadata, Result};

/// A package of one name: as it is installed, and as it is on offer.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// As it is installed.
    pub installed: Option<InstalledPackage>,
    /// As repositories have it, the best first, each with the repository's name.
    pub offered: Vec<(String, Arc<Metadata>)>,
}

impl Known {
    /// What tells of it: the best on offer, else what is installed.
    #[must_use]
    pub fn metadata(&self) -> Option<&Arc<Metadata>> {
        let installed = self.installed.as_ref().map(|package| &package.metadata);
        self.offered.first().map(|(_, metadata)| metadata).or(installed)
    }
}

/// What is known of the package `name`.
pub fn known(installed: &Installed, offered: &[Repository], name: &str) -> Result<Known> {
    let mut known = Known { installed: installed.get(name).cloned(), offered: Vec::new() };
    for repository in offered {
        for entry in repository.catalog.named(name) {
            let metadata = repository.catalog.get(entry)?;
            known.offered.push((repository.config.name.to_string(), metadata));
        }
    }
    Ok(known)
}

/// Every package that somebody may mean by `wanted`: those of its name, or those
/// that offer it.
pub fn offering(
    installed: &Installed,
    offered: &[Repository],
    wanted: &Dependency,
) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let there = installed.values().filter(|package| package.metadata.offers(wanted));
    names.extend(there.map(|package| package.metadata.name.clone()));
    for repository in offered {
        let found = repository.catalog.offering(wanted)?;
        names.extend(found.into_iter().map(|metadata| metadata.name.clone()));
    }
    Ok(names)
}

/// Finds packages in whose name or summary all of `words` are, whatever their case;
/// by name, those whose name has them first.
///
/// Costs a look at the bytes of all metadata, and the decoding of what has the
/// words somewhere.
pub fn search(
    installed: &Installed,
    offered: &[Repository],
    words: &[String],
) -> Result<Vec<Known>> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let has_all = |text: &str| {
        let text = text.to_lowercase();
        words.iter().all(|word| text.contains(word.as_str()))
    };
    let fits = |metadata: &Metadata| has_all(&format!("{}\n{}", metadata.name, metadata.summary));
    let mut found: BTreeMap<String, Known> = BTreeMap::new();
    for package in installed.values().filter(|package| fits(&package.metadata)) {
        found.entry(package.metadata.name.clone()).or_default();
    }
    let longest = words.iter().max_by_key(|word| word.len()).cloned().unwrap_or_default();
    for repository in offered {
        for entry in repository.catalog.containing(&longest)? {
            let metadata = repository.catalog.get(entry)?;
            if fits(&metadata) {
                let known = found.entry(metadata.name.clone()).or_default();
                known.offered.push((repository.config.name.to_string(), metadata));
            }
        }
    }
    for (name, known) in &mut found {
        known.installed = installed.get(name).cloned();
    }
    let (mut by_name, by_summary): (Vec<Known>, Vec<Known>) =
        found.into_values().partition(|known| known.metadata().is_some_and(|it| has_all(&it.name)));
    by_name.extend(by_summary);
    Ok(by_name)
}

/// Who has brought what is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The package of this name.
    Package(String),
    /// The trigger of this name.
    Trigger(String),
}

/// The packages and triggers that have something at `path`, in a state with the tree
/// of packages `packages`; of a directory, all that have something in it.
///
/// Costs a look into each package.
pub fn owners(
    store: &Store,
    installed: &Installed,
    packages: TreeId,
    path: &TreePath,
) -> Result<Vec<Owner>> {
    let mut owners = Vec::new();
    for (name, package) in installed {
        if resolve(store, package.files, path)?.is_some() {
            owners.push(Owner::Package(name.clone()));
        }
    }
    for record in Record::load_all(store, packages)? {
        let owner = Owner::Trigger(record.job.trigger.clone());
        if resolve(store, record.files, path)?.is_some() && !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    Ok(owners)
}

/// Calls `visit` for each entry of a tree but its implied directories.
pub fn each_path(
    from: &impl TreeReader,
    root: TreeId,
    visit: &mut dyn FnMut(&TreePath, &Entry),
) -> Result<()> {
    fn walk(
        from: &impl TreeReader,
        id: TreeId,
        path: &mut TreePath,
        visit: &mut dyn FnMut(&TreePath, &Entry),
    ) -> cairn_store::Result<()> {
        for (name, entry) in from.read_tree(id)?.entries() {
            path.push(name.clone());
            match entry {
                Entry::Leaf(_) => visit(path, entry),
                Entry::Directory(subtree) => {
                    let tree = from.read_tree(subtree.id)?;
                    let implied = cairn_store::Attributes::implied_directory();
                    if tree.entries().is_empty() || tree.attributes != implied {
                        visit(path, entry);
                    }
                    walk(from, subtree.id, path, visit)?;
                }
            }
            path.pop();
        }
        Ok(())
    }
    Ok(walk(from, root, &mut TreePath::root(), visit)?)
}

/// Packages, and who of them needs whom.
#[derive(Debug)]
pub struct Needs {
    catalogs: Vec<Arc<Catalog>>,
}

/// That a package needs something, and who has that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What is needed.
    pub dependency: Dependency,
    /// The package at the other end: who has it, or who needs it.
    pub package: Arc<Metadata>,
}

impl Needs {
    /// Of the installed packages alone.
    #[must_use]
    pub fn of_installed(installed: &Installed) -> Self {
        let packages = installed.values().map(|package| package.metadata.clone());
        Self { catalogs: vec![Arc::new(Catalog::new(packages))] }
    }

    /// Of what repositories have.
    #[must_use]
    pub fn of_offered(offered: &[Repository]) -> Self {
        Self { catalogs: offered.iter().map(|it| Arc::clone(&it.catalog)).collect() }
    }

    /// The package of this name.
    pub fn package(&self, name: &str) -> Result<Option<Arc<Metadata>>, catalog::Error> {
        for catalog in &self.catalogs {
            if let Some(entry) = catalog.named(name).next() {
                return catalog.get(entry).map(Some);
            }
        }
        Ok(None)
    }

    /// What a package needs: of several that have the same, the first by
    /// repository and name, but one of that very name before others.
    pub fn of(&self, package: &Metadata) -> Result<Vec<Link>, catalog::Error> {
        let mut links = Vec::new();
        for dependency in &package.depends {
            let mut best: Option<Arc<Metadata>> = None;
            for catalog in &self.catalogs {
                let mut found = catalog.offering(dependency)?;
                found.sort_by_key(|it| it.name != dependency.text);
                best = best.or(found.into_iter().next());
            }
            let dependency = dependency.clone();
            links.extend(best.map(|package| Link { dependency, package }));
        }
        Ok(links)
    }

    /// Who needs something that a package has.
    ///
    /// Costs a look at the bytes of all metadata for each thing that it offers.
    pub fn on(&self, package: &Metadata) -> Result<Vec<Link>, catalog::Error> {
        let name = Dependency::on_package(package.name.as_str());
        let mut links: Vec<Link> = Vec::new();
        let mut met = BTreeSet::new();
        for offer in std::iter::once(&name).chain(&package.provides) {
            for catalog in &self.catalogs {
                for entry in catalog.containing(&offer.text)? {
                    if catalog.name(entry) == package.name {
                        continue;
                    }
                    let other = catalog.get(entry)?;
                    if other.depends.contains(offer) && met.insert(other.name.clone()) {
                        links.push(Link { dependency: offer.clone(), package: other });
                    }
                }
            }
        }
        links.sort_by(|left, right| left.package.name.cmp(&right.package.name));
        Ok(links)
    }
}

/// The shortest chains of needs from packages that were asked for to `name`, each
/// beginning with such a package and ending with `name`.
pub fn why(installed: &Installed, name: &str) -> Result<Vec<Vec<Link>>> {
    let needs = Needs::of_installed(installed);
    let Some(target) = needs.package(name)? else { return Ok(Vec::new()) };
    // Backwards, a level at a time; the first way to a package is a shortest one.
    let mut towards: BTreeMap<String, Option<Link>> = BTreeMap::from([(name.into(), None)]);
    let mut queue = VecDeque::from([target]);
    let mut asked = Vec::new();
    while let Some(package) = queue.pop_front() {
        let is_explicit = installed.get(&package.name).is_some_and(|it| it.explicit);
        if is_explicit && package.name != name {
            asked.push(package);
            continue;
        }
        for Link { dependency, package: other } in needs.on(&package)? {
            if !towards.contains_key(&other.name) {
                let link = Link { dependency, package: package.clone() };
                towards.insert(other.name.clone(), Some(link));
                queue.push_back(other);
            }
        }
    }
    let chains = asked.into_iter().map(|first| {
        let itself = Dependency::on_package(first.name.as_str());
        let mut chain = vec![Link { dependency: itself, package: first.clone() }];
        let mut at = first.name.clone();
        while let Some(Some(link)) = towards.get(&at) {
            at = link.package.name.clone();
            chain.push(link.clone());
        }
        chain
    });
    Ok(chains.collect())
}

/// Packages that nobody asked for and that nothing which was asked for needs.
pub fn orphans(installed: &Installed) -> Result<Vec<String>> {
    let needs = Needs::of_installed(installed);
    let explicit = installed.values().filter(|package| package.explicit);
    let mut rest: Vec<Arc<Metadata>> = explicit.map(|it| it.metadata.clone()).collect();
    let mut needed: BTreeSet<String> = rest.iter().map(|it| it.name.clone()).collect();
    while let Some(package) = rest.pop() {
        for dependency in &package.depends {
            // Whatever offers it counts as needed, as when packages are removed.
            for catalog in &needs.catalogs {
                for provider in catalog.offering(dependency)? {
                    if needed.insert(provider.name.clone()) {
                        rest.push(provider);
                    }
                }
            }
        }
    }
    Ok(installed.keys().filter(|name| !needed.contains(*name)).cloned().collect())
}

/// What differs between a package and the system that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// It is not there.
    Missing,
    /// Something else is there.
    Changed,
    /// The attributes of a directory are others.
    Attributes,
    /// A trigger has written it.
    Triggered,
}

/// What of a package is otherwise in the root `root`; `generated` tells of paths
/// that triggers have written.
///
/// Costs the directories in which both differ: where a package has a directory
/// alone, that is one comparison.
pub fn deviations(
    from: &impl TreeReader,
    package: TreeId,
    root: TreeId,
    generated: &BTreeSet<TreePath>,
) -> Result<Vec<(TreePath, Deviation)>> {
    fn walk(
        from: &impl TreeReader,
        (package, root): (TreeId, Option<TreeId>),
        path: &mut TreePath,
        found: &mut Vec<(TreePath, Deviation)>,
    ) -> cairn_store::Result<()> {
        if Some(package) == root {
            return Ok(());
        }
        let package = from.read_tree(package)?;
        let root = root.map(|id| from.read_tree(id)).transpose()?;
        let implied = cairn_store::Attributes::implied_directory();
        if let Some(root) = &root
            && !package.attributes.is_like(&implied)
            && !package.attributes.is_like(&root.attributes)
        {
            found.push((path.clone(), Deviation::Attributes));
        }
        for (name, entry) in package.entries() {
            path.push(name.clone());
            let there = root.as_ref().and_then(|root| root.get(name));
            match (entry, there) {
                (Entry::Directory(one), Some(Entry::Directory(other))) => {
                    walk(from, (one.id, Some(other.id)), path, found)?;
                }
                (_, None) => found.push((path.clone(), Deviation::Missing)),
                (entry, Some(there)) if entry == there => {}
                (Entry::Leaf(one), Some(Entry::Leaf(other))) => {
                    // That another name of the file has come or gone is no change.
                    let alone =
                        |leaf: &cairn_store::Leaf| cairn_store::Leaf { link: None, ..leaf.clone() };
                    if alone(one) != alone(other) {
                        found.push((path.clone(), Deviation::Changed));
                    }
                }
                _ => found.push((path.clone(), Deviation::Changed)),
            }
            path.pop();
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(from, (package, Some(root)), &mut TreePath::root(), &mut found)?;
    for (path, deviation) in &mut found {
        if generated.contains(path) {
            *deviation = Deviation::Triggered;
        }
    }
    Ok(found)
}

/// The paths that triggers have written or taken away in a state.
pub fn generated(store: &Store, packages: TreeId) -> Result<BTreeSet<TreePath>> {
    let mut paths = BTreeSet::new();
    for record in Record::load_all(store, packages)? {
        for part in [record.files, record.covered] {
            each_path(store, part, &mut |path, _| {
                paths.insert(path.clone());
            })?;
        }
    }
    Ok(paths)
}
