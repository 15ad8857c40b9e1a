//! The possible set of packages that gives up least.
//!
//! A request has parts that must hold and wishes. First all wishes are held
//! to. While the solver says that this is impossible, it names a group of
//! wishes that cannot all hold; the cheapest choice that gives up one wish of
//! each group so far is what is tried next. The first possible choice is
//! therefore the cheapest.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::hitting::cheapest;
use super::lookup::{Choice, Lookup};
use super::sat::{Answer, Base, Clash, ask};
use super::universe::Id;
use crate::catalog;

/// Something about an installed package that should hold, if it can.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// The package.
    pub(super) id: Id,
    /// One of these should be there.
    pub(super) candidates: Choice,
    /// How much it weighs.
    pub(super) class: Class,
}

/// How much a wish weighs: more than any number of wishes of the next class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// A package that somebody asked for stays, although it depends on
    /// something that goes.
    KeepExplicit,
    /// A package stays that is there because others need it.
    KeepNeeded,
    /// A package is upgraded.
    Upgrade,
    /// A package stays that nobody needs once all removals and upgrades are
    /// made.
    KeepSpare,
    /// A package stays as it is, or is upgraded although nobody needs it once
    /// all removals and upgrades are made.
    Unchanged,
}

/// The best set of packages, and what it gives up.
#[derive(Debug)]
pub(super) struct Optimum {
    pub(super) chosen: BTreeSet<Id>,
    /// Why wishes were given up: for each, the first clash that it is part of
    /// and the number of its job in there.
    pub(super) given_up: HashMap<usize, Rc<Clash>>,
}

/// The possible set that has a candidate of each job in `musts` and gives up
/// least of `wishes`, or why there is none.
pub(super) fn optimum(
    lookup: &Lookup<'_>,
    musts: &[Choice],
    wishes: &[Wish],
) -> Result<Result<Optimum, Clash>, catalog::Error> {
    let mut groups: Vec<BTreeSet<usize>> = Vec::new();
    let mut given_up: HashMap<usize, Rc<Clash>> = HashMap::new();
    loop {
        let out = cheapest(&groups, |wish| wishes[wish].class as usize);
        let held: Vec<usize> = (0..wishes.len()).filter(|wish| !out.contains(wish)).collect();
        let mut jobs = musts.to_vec();
        jobs.extend(held.iter().map(|&wish| Rc::clone(&wishes[wish].candidates)));
        match ask(lookup, Base::Free, &jobs)? {
            Answer::Possible(chosen) => {
                given_up.retain(|wish, _| out.contains(wish));
                return Ok(Ok(Optimum { chosen, given_up }));
            }
            Answer::Clash(clash) => {
                let group: BTreeSet<usize> = clash
                    .jobs
                    .iter()
                    .filter_map(|job| Some(held[job.checked_sub(musts.len())?]))
                    .collect();
                if group.is_empty() {
                    return Ok(Err(clash));
                }
                let clash = Rc::new(clash);
                for &wish in &group {
                    given_up.entry(wish).or_insert_with(|| Rc::clone(&clash));
                }
                groups.push(group);
            }
        }
    }
}
