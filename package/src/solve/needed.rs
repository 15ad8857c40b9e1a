//! Who needs whom in a given set of packages.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::lookup::Lookup;
use super::universe::Id;
use crate::catalog;
use crate::dependency::{Dependency, Kind};
use crate::metadata::Metadata;

/// What is needed by `roots`, directly or not, and they themselves.
///
/// Everything among `members` that offers what is needed counts as needed.
pub(super) fn needed(
    lookup: &Lookup<'_>,
    roots: impl IntoIterator<Item = Id>,
    members: &BTreeSet<Id>,
) -> Result<BTreeSet<Id>, catalog::Error> {
    // Then nobody has to look at what repositories offer.
    let installed_only = members.iter().all(|&id| lookup.universe.is_installed(id));
    let mut reached: BTreeSet<Id> = roots.into_iter().collect();
    let mut rest: Vec<Id> = reached.iter().copied().collect();
    let mut seen: HashSet<&Dependency> = HashSet::new();
    while let Some(id) = rest.pop() {
        for wanted in &lookup.universe.metadata(id)?.depends {
            if !seen.insert(wanted) {
                continue;
            }
            let offering =
                if installed_only { lookup.installed(wanted)? } else { lookup.offering(wanted)? };
            for &provider in offering.iter() {
                if members.contains(&provider) && reached.insert(provider) {
                    rest.push(provider);
                }
            }
        }
    }
    Ok(reached)
}

/// The installed packages that are needed now, and that nobody needs once
/// those in `gone` are gone and the others have become what `targets` says.
pub(super) fn spare(
    lookup: &Lookup<'_>,
    targets: &BTreeMap<Id, Id>,
    gone: &BTreeSet<Id>,
) -> Result<BTreeSet<Id>, catalog::Error> {
    let universe = lookup.universe;
    if targets.is_empty() && gone.is_empty() {
        return Ok(BTreeSet::new());
    }
    let explicit = universe.installed().filter(|&id| universe.is_explicit(id));
    let needed_now = needed(lookup, explicit, &universe.installed().collect())?;
    let becomes = |id| targets.get(&id).copied().unwrap_or(id);
    let stays = |id: &Id| !gone.contains(id);
    let after = universe.installed().filter(stays).map(becomes).collect();
    let is_root = |id: &Id| stays(id) && (universe.is_explicit(*id) || !needed_now.contains(id));
    let roots = universe.installed().filter(is_root).map(becomes);
    let needed_then = needed(lookup, roots, &after)?;
    let is_spare = |id: &Id| stays(id) && !is_root(id) && !needed_then.contains(&becomes(*id));
    Ok(universe.installed().filter(is_spare).collect())
}

/// The installed packages that cannot stay when those in `gone` go, each with
/// what it would lack.
pub(super) fn dependants<'u>(
    lookup: &Lookup<'u>,
    gone: &BTreeSet<Id>,
) -> Result<HashMap<Id, &'u Dependency>, catalog::Error> {
    if gone.is_empty() {
        return Ok(HashMap::new());
    }
    let mut wanting: HashMap<&Dependency, Vec<Id>> = HashMap::new();
    for id in lookup.universe.installed() {
        for wanted in &lookup.universe.metadata(id)?.depends {
            wanting.entry(wanted).or_default().push(id);
        }
    }
    let mut found: HashMap<Id, &Dependency> = HashMap::new();
    let mut rest: Vec<Id> = gone.iter().copied().collect();
    while let Some(id) = rest.pop() {
        let metadata = lookup.universe.metadata(id)?;
        let own_name = Dependency::on_package(metadata.name.as_str());
        for offer in metadata.provides.iter().chain([&own_name]) {
            let Some((&offer, dependants)) = wanting.get_key_value(offer) else { continue };
            let is_gone = |id: &Id| gone.contains(id) || found.contains_key(id);
            if !lookup.installed(offer)?.iter().all(is_gone) {
                continue;
            }
            for &dependant in dependants {
                if !gone.contains(&dependant) && !found.contains_key(&dependant) {
                    found.insert(dependant, offer);
                    rest.push(dependant);
                }
            }
        }
    }
    Ok(found)
}

/// Those of `spare` that `members` can do without, because each thing that
/// they offer and that is needed is offered by another member as well; the
/// last of `spare` is tried first.
///
/// With `beside_installed` the installed packages are there too, and need
/// nothing of the members.
pub(super) fn redundant(
    lookup: &Lookup<'_>,
    members: &BTreeSet<Id>,
    spare: &[Id],
    beside_installed: bool,
) -> Result<BTreeSet<Id>, catalog::Error> {
    let universe = lookup.universe;
    if spare.is_empty() {
        return Ok(BTreeSet::new());
    }
    // How many members offer something that a spare one offers, and who needs
    // it.
    let mut offers: HashMap<(Kind, &str), (usize, BTreeSet<Id>)> = HashMap::new();
    for &id in spare {
        for offer in offers_of(universe.metadata(id)?) {
            offers.entry(offer).or_default();
        }
    }
    for &id in members {
        let metadata = universe.metadata(id)?;
        for offer in offers_of(metadata) {
            if let Some((count, _)) = offers.get_mut(&offer) {
                *count += 1;
            }
        }
        for wanted in &metadata.depends {
            if !metadata.offers(wanted)
                && let Some((_, needing)) = offers.get_mut(&(wanted.kind, wanted.text.as_str()))
                && (!beside_installed || lookup.installed(wanted)?.is_empty())
            {
                needing.insert(id);
            }
        }
    }

    let mut out = BTreeSet::new();
    loop {
        let before = out.len();
        for &id in spare.iter().rev().filter(|id| members.contains(id)) {
            let metadata = universe.metadata(id)?;
            let is_spare = |offer| {
                offers.get(&offer).is_none_or(|(count, needing)| *count > 1 || needing.is_empty())
            };
            if out.contains(&id) || !offers_of(metadata).all(is_spare) {
                continue;
            }
            out.insert(id);
            for offer in offers_of(metadata) {
                if let Some((count, _)) = offers.get_mut(&offer) {
                    *count -= 1;
                }
            }
            for wanted in &metadata.depends {
                if let Some((_, needing)) = offers.get_mut(&(wanted.kind, wanted.text.as_str())) {
                    needing.remove(&id);
                }
            }
        }
        if out.len() == before {
            return Ok(out);
        }
    }
}

/// Everything that a package offers, its name first.
pub(super) fn offers_of(metadata: &Metadata) -> impl Iterator<Item = (Kind, &str)> {
    let provides = metadata.provides.iter().map(|offer| (offer.kind, offer.text.as_str()));
    let own_name = (Kind::Name, metadata.name.as_str());
    std::iter::once(own_name).chain(provides.filter(move |offer| *offer != own_name))
}
