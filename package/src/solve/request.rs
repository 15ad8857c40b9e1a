//! What somebody wants, and how it becomes a solution.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::explain::Explainer;
use super::lookup::{Choice, Lookup, order};
use super::needed::{dependants, spare};
use super::optimum::{Class, Optimum, Wish, optimum};
use super::outcome::Outcome;
use super::problem::{Explanation, Problem, Subject, Unknown};
use super::sat::{Answer, Base, Clash, ask};
use super::solution::Solution;
use super::suggest::unknown;
use super::universe::{Candidate, Id, Origin, Universe};
use crate::catalog;
use crate::dependency::{Dependency, Kind};

/// What somebody wants to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What must be there afterwards, and counts as asked for.
    pub install: Vec<Dependency>,
    /// What must go: the package of a name, or every package that offers
    /// something of another kind.
    pub remove: Vec<Dependency>,
    /// What is to follow the repositories.
    pub upgrade: Upgrade,
    /// The installed packages that must become older.
    pub downgrade: Vec<Downgrade>,
}

impl Request {
    /// Whether nothing is wanted of repositories.
    #[must_use]
    pub fn only_removes(&self) -> bool {
        *self == Self { remove: self.remove.clone(), ..Self::default() }
    }
}

/// An installed package that must become an older build of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// The package.
    pub name: String,
    /// The version that it must become, with its release or without; else it becomes the
    /// newest that is older.
    pub version: Option<String>,
}

impl From<&str> for Downgrade {
    /// Reads `NAME` or `NAME=VERSION`.
    fn from(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, version)) => Self { name: name.into(), version: Some(version.into()) },
            None => Self { name: text.into(), version: None },
        }
    }
}

/// Which installed packages follow the repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// None, as far as nothing else of the request needs it.
    #[default]
    None,
    /// All.
    All,
    /// The packages of these names.
    Only(Vec<String>),
}

/// Finds the packages that are there when `request` is fulfilled.
///
/// The result depends on nothing but the packages in the universe and the
/// request; the order in which they were listed makes no difference.
///
/// A request that only installs, and for which nothing that is installed has
/// to change, costs as much as the packages that it touches. Everything else
/// costs a look at all installed packages.
///
/// # Errors
/// - [`Problem::Unknown`], [`Problem::NotInstalled`], [`Problem::Contradiction`]:
///   the request makes no sense in this universe.
/// - [`Problem::Impossible`]: there is no such set of packages.
/// - [`Problem::Catalog`]: a package of a repository could not be read.
pub fn solve(universe: &Universe, request: &Request) -> Result<Solution, Problem> {
    let removed = removed(universe, request)?;
    let barred = removed.iter().map(|&id| universe.name(id)).collect();
    let lookup = Lookup::new(universe, barred);
    Ok(choose(&lookup, request, removed)?.solution()?)
}

/// The best candidate of a repository for each of `wanted`, whatever is
/// installed.
///
/// # Errors
/// [`Problem::Unknown`], [`Problem::Catalog`].
pub fn offers(universe: &Universe, wanted: &[Dependency]) -> Result<Vec<Candidate>, Problem> {
    let mut found = Vec::with_capacity(wanted.len());
    let mut missing = Vec::new();
    for wanted in wanted {
        let mut best = None;
        for id in universe.offering(wanted)? {
            let candidate = universe.candidate(id)?;
            if matches!(candidate.origin, Origin::Repository { .. }) {
                best = best.into_iter().chain([(order(candidate, &wanted.text), id)]).min();
            }
        }
        match best {
            Some((_, id)) => found.push(universe.candidate(id)?.clone()),
            None => missing.push(unknown(universe, wanted, |_| true)?),
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(Problem::Unknown(missing)) }
}

/// Chooses the packages that are there afterwards.
pub(super) fn choose<'l, 'u>(
    lookup: &'l Lookup<'u>,
    request: &'u Request,
    removed: BTreeSet<Id>,
) -> Result<Outcome<'l, 'u>, Problem> {
    let universe = lookup.universe;
    let upgraded = upgraded(universe, request, &removed)?;
    let asked = asked(lookup, request)?;
    let targets = targets(lookup, upgraded)?;
    let older = older(lookup, request, &removed)?;
    let lost = dependants(lookup, &removed)?;
    let mut outcome = Outcome::new(lookup, asked, removed, lost, older);

    if outcome.asked.is_empty() && targets.is_empty() && outcome.older.is_empty() {
        let stays = |id: &Id| !outcome.removed.contains(id) && !outcome.lost.contains_key(id);
        outcome.chosen = universe.installed().filter(stays).collect();
        return Ok(outcome);
    }
    if outcome.removed.is_empty()
        && targets.is_empty()
        && outcome.older.is_empty()
        && let Some(added) = additions(lookup, &outcome.asked)?
    {
        outcome.chosen = universe.installed().chain(added).collect();
        outcome.all_stay = true;
        return Ok(outcome);
    }
    let (musts, wishes) = conditions(&outcome, &targets)?;
    match optimum(lookup, &musts, &wishes)? {
        Ok(Optimum { chosen, given_up }) => {
            outcome.chosen = chosen;
            for (wish, clash) in given_up {
                let Wish { id, candidates, .. } = &wishes[wish];
                // Neither a wish to keep a package nor one to leave it as it is
                // has its upgrade alone.
                if let [target] = **candidates
                    && targets.get(id) == Some(&target)
                {
                    outcome.held.insert(*id, (target, clash));
                }
            }
            Ok(outcome)
        }
        Err(clash) => Err(Problem::Impossible(explain(&outcome, request, &musts, &clash)?)),
    }
}

/// The installed packages that the request names to be removed.
pub(super) fn removed(universe: &Universe, request: &Request) -> Result<BTreeSet<Id>, Problem> {
    let mut removed = BTreeSet::new();
    let mut missing = Vec::new();
    for wanted in &request.remove {
        let found = match wanted.kind {
            Kind::Name => universe.installed_named(&wanted.text).into_iter().collect(),
            _ => universe.installed_offering(wanted)?,
        };
        if found.is_empty() {
            missing.push(not_installed(universe, wanted)?);
        }
        removed.extend(found);
    }
    if missing.is_empty() { Ok(removed) } else { Err(Problem::NotInstalled(missing)) }
}

/// The installed packages that are to follow the repositories.
fn upgraded(
    universe: &Universe,
    request: &Request,
    removed: &BTreeSet<Id>,
) -> Result<BTreeSet<Id>, Problem> {
    let names = match &request.upgrade {
        Upgrade::None => return Ok(BTreeSet::new()),
        Upgrade::All => {
            return Ok(universe.installed().filter(|id| !removed.contains(id)).collect());
        }
        Upgrade::Only(names) => names,
    };
    let mut upgraded = BTreeSet::new();
    let mut missing = Vec::new();
    for name in names {
        let wanted = Dependency::on_package(name);
        match universe.installed_named(name) {
            Some(id) if removed.contains(&id) => return Err(Problem::Contradiction(wanted)),
            Some(id) => drop(upgraded.insert(id)),
            None => missing.push(not_installed(universe, &wanted)?),
        }
    }
    if missing.is_empty() { Ok(upgraded) } else { Err(Problem::NotInstalled(missing)) }
}

/// What the packages to be downgraded must become.
fn older(
    lookup: &Lookup<'_>,
    request: &Request,
    removed: &BTreeSet<Id>,
) -> Result<BTreeMap<Id, Id>, Problem> {
    let universe = lookup.universe;
    let mut older = BTreeMap::new();
    let (mut missing, mut newest) = (Vec::new(), Vec::new());
    for Downgrade { name, version } in &request.downgrade {
        let wanted = Dependency::on_package(name);
        match universe.installed_named(name) {
            Some(id) if removed.contains(&id) => return Err(Problem::Contradiction(wanted)),
            Some(id) => match lookup.older(id, version.as_deref())? {
                Some(target) => drop(older.insert(id, target)),
                None => newest.push((universe.metadata(id)?.label(), version.clone())),
            },
            None => missing.push(not_installed(universe, &wanted)?),
        }
    }
    if !missing.is_empty() {
        return Err(Problem::NotInstalled(missing));
    }
    if newest.is_empty() { Ok(older) } else { Err(Problem::NothingOlder(newest)) }
}

fn not_installed(universe: &Universe, wanted: &Dependency) -> Result<Unknown, catalog::Error> {
    unknown(universe, wanted, |name| universe.installed_named(name).is_some())
}

/// For each thing to install the candidates for it, best first.
fn asked<'u>(lookup: &Lookup<'u>, request: &'u Request) -> Result<Vec<Choice>, Problem> {
    let mut asked = Vec::with_capacity(request.install.len());
    let mut missing = Vec::new();
    for wanted in &request.install {
        let candidates = lookup.meant(wanted)?;
        if !candidates.is_empty() {
            asked.push(candidates);
        } else if lookup.universe.offering(wanted)?.is_empty() {
            missing.push(unknown(lookup.universe, wanted, |_| true)?);
        } else {
            return Err(Problem::Contradiction(wanted.clone()));
        }
    }
    if missing.is_empty() { Ok(asked) } else { Err(Problem::Unknown(missing)) }
}

/// What the packages to be upgraded would become, where that is a change.
fn targets(
    lookup: &Lookup<'_>,
    upgraded: BTreeSet<Id>,
) -> Result<BTreeMap<Id, Id>, catalog::Error> {
    let mut targets = BTreeMap::new();
    for id in upgraded {
        targets.extend(lookup.upgrade(id)?.map(|target| (id, target)));
    }
    Ok(targets)
}

/// What has to be added when everything that is installed stays as it is, if
/// that is possible.
fn additions(
    lookup: &Lookup<'_>,
    asked: &[Choice],
) -> Result<Option<BTreeSet<Id>>, catalog::Error> {
    let universe = lookup.universe;
    let mut conflicts: HashMap<&Dependency, Vec<Id>> = HashMap::new();
    let mut seen: HashSet<&Dependency> = HashSet::new();
    for id in universe.installed() {
        let metadata = universe.metadata(id)?;
        for wanted in &metadata.depends {
            if seen.insert(wanted) && lookup.installed(wanted)?.is_empty() {
                return Ok(None);
            }
        }
        for conflict in &metadata.conflicts {
            if lookup.installed(conflict)?.iter().any(|&other| other != id) {
                return Ok(None);
            }
            conflicts.entry(conflict).or_default().push(id);
        }
    }
    // An installed candidate is always the first one.
    let is_new = |job: &&Choice| !universe.is_installed(job[0]);
    let jobs: Vec<Choice> = asked.iter().filter(is_new).cloned().collect();
    Ok(match ask(lookup, Base::Fixed(&conflicts), &jobs)? {
        Answer::Possible(added) => Some(added),
        Answer::Clash(_) => None,
    })
}

/// What must hold, beginning with what is asked for, and what should.
fn conditions(
    outcome: &Outcome<'_, '_>,
    targets: &BTreeMap<Id, Id>,
) -> Result<(Vec<Choice>, Vec<Wish>), catalog::Error> {
    let (lookup, universe) = (outcome.lookup, outcome.lookup.universe);
    let spare = spare(lookup, targets, &outcome.removed)?;
    let mut musts = outcome.asked.clone();
    let mut wishes = Vec::new();
    for id in universe.installed().filter(|id| !outcome.removed.contains(id)) {
        if let Some(&target) = outcome.older.get(&id) {
            musts.push([target].into());
            continue;
        }
        let builds = lookup.named(universe.name(id))?;
        let mut wish = |candidates, class| wishes.push(Wish { id, candidates, class });
        let is_spare = spare.contains(&id);
        if is_spare {
            wish(builds, Class::KeepSpare);
        } else if !universe.is_explicit(id) {
            wish(builds, Class::KeepNeeded);
        } else if outcome.lost.contains_key(&id) {
            wish(builds, Class::KeepExplicit);
        } else {
            musts.push(builds);
        }
        let target = targets.get(&id).copied();
        if let Some(target) = target {
            wish([target].into(), if is_spare { Class::Unchanged } else { Class::Upgrade });
        }
        wish([id].into_iter().chain(target).collect(), Class::Unchanged);
    }
    Ok((musts, wishes))
}

/// Explains each part of the request that is impossible on its own, or else
/// why the parts are impossible together.
fn explain(
    outcome: &Outcome<'_, '_>,
    request: &Request,
    musts: &[Choice],
    clash: &Clash,
) -> Result<Vec<Explanation>, catalog::Error> {
    let lookup = outcome.lookup;
    let all_asked: BTreeSet<Id> = outcome.asked.iter().map(|job| job[0]).collect();
    let (asked, keeps) = musts.split_at(request.install.len());
    let mut found = Vec::new();
    for (wanted, job) in request.install.iter().zip(asked) {
        let alone = [&[Rc::clone(job)], keeps].concat();
        if let Answer::Clash(clash) = ask(lookup, Base::Free, &alone)?
            && clash.jobs.contains(&0)
        {
            let cause = Explainer { lookup, clash: &clash, asked: &all_asked }.obstacles(job)?;
            found.push(Explanation { subject: Subject::Asked(wanted.clone()), cause });
        }
    }
    if found.is_empty() {
        let first = clash.jobs.first().copied().unwrap_or_default();
        let cause = Explainer { lookup, clash, asked: &all_asked }.obstacles(&musts[first])?;
        let subject = match request.install.get(first) {
            Some(wanted) => Subject::Asked(wanted.clone()),
            None => Subject::Installed(lookup.universe.name(musts[first][0]).into()),
        };
        found.push(Explanation { subject, cause });
    }
    Ok(found)
}
