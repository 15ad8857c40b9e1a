//! The cheapest way to give up one wish of each group.

use std::collections::BTreeSet;

/// How much a choice gives up, by class; the first class weighs more than any
/// number of the next.
pub(super) type Cost = [u32; CLASSES];

/// How many classes of wishes there are.
pub(super) const CLASSES: usize = 5;

/// How many choices are looked at before the best one so far is taken.
///
/// Groups that share no wish, which is what systems of packages bring forth,
/// are settled in about as many steps as there are groups.
const STEPS: u32 = 100_000;

/// The cheapest set that has a member of every group; among several, the
/// first in order. No group is empty.
///
/// `class` tells the class of each wish. With more than a few dozen groups
/// that overlap in complicated ways it is a cheap set, not surely the cheapest.
pub(super) fn cheapest(
    groups: &[BTreeSet<usize>],
    class: impl Fn(usize) -> usize,
) -> BTreeSet<usize> {
    let mut search = Search { groups, class, best: None, steps: 0 };
    search.descend(&mut BTreeSet::new(), [0; CLASSES]);
    search.best.map(|(_, set)| set).unwrap_or_default()
}

struct Search<'g, F> {
    groups: &'g [BTreeSet<usize>],
    class: F,
    best: Option<(Cost, BTreeSet<usize>)>,
    steps: u32,
}

impl<F: Fn(usize) -> usize> Search<'_, F> {
    fn descend(&mut self, taken: &mut BTreeSet<usize>, cost: Cost) {
        self.steps += 1;
        let open = self.groups.iter().filter(|group| group.is_disjoint(taken));
        let Some(group) = open.clone().min_by_key(|group| group.len()) else {
            if self.best.as_ref().is_none_or(|(best, _)| cost < *best) {
                self.best = Some((cost, taken.clone()));
            }
            return;
        };
        let bound = self.bound(open, cost);
        if self.best.as_ref().is_some_and(|(best, _)| self.steps > STEPS || bound >= *best) {
            return;
        }
        let mut members: Vec<usize> = group.iter().copied().collect();
        members.sort_by_key(|&member| std::cmp::Reverse((self.class)(member)));
        for member in members {
            let mut cost = cost;
            cost[(self.class)(member)] += 1;
            taken.insert(member);
            self.descend(taken, cost);
            taken.remove(&member);
        }
    }

    /// What at least has to be paid: groups that share nothing are paid for
    /// one by one.
    fn bound<'g>(&self, open: impl Iterator<Item = &'g BTreeSet<usize>>, mut cost: Cost) -> Cost {
        let mut seen = BTreeSet::new();
        for group in open {
            if group.is_disjoint(&seen) {
                let cheapest = group.iter().map(|&member| (self.class)(member)).max();
                cost[cheapest.expect("no group is empty")] += 1;
                seen.extend(group);
            }
        }
        cost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(set: &BTreeSet<usize>) -> Cost {
        let mut cost = [0; CLASSES];
        set.iter().for_each(|member| cost[member % CLASSES] += 1);
        cost
    }

    proptest! {
        #[test]
        fn no_set_that_has_a_member_of_every_group_is_cheaper(
            groups in prop::collection::vec(prop::collection::btree_set(0..9_usize, 1..4), 0..7)
        ) {
            let hits = |set: &BTreeSet<usize>| groups.iter().all(|group| !group.is_disjoint(set));
            let found = cheapest(&groups, |member| member % CLASSES);
            prop_assert!(hits(&found));
            for bits in 0..1_u32 << 9 {
                let set = (0..9).filter(|at| bits >> at & 1 == 1).collect();
                prop_assert!(!hits(&set) || cost(&set) >= cost(&found), "{set:?}");
            }
        }
    }
}
