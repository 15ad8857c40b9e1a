//! What could have been meant by a name that does not exist.

use std::collections::BTreeSet;

use super::problem::Unknown;
use super::universe::Universe;
use crate::catalog;
use crate::dependency::{Dependency, Kind};

/// How many similar names are told.
const SIMILAR: usize = 3;

/// How many packages that offer something of the same text are told.
const OFFERED_BY: usize = 5;

/// What could have been meant by `wanted`, among packages for which `counts`
/// is true.
///
/// Costs a look at every name.
pub(super) fn unknown(
    universe: &Universe,
    wanted: &Dependency,
    counts: impl Fn(&str) -> bool,
) -> Result<Unknown, catalog::Error> {
    let mut offered_by = BTreeSet::new();
    for kind in Kind::all() {
        for id in universe.offering(&Dependency::new(kind, wanted.text.as_str()))? {
            offered_by.insert(universe.name(id));
        }
    }
    let offered_by = offered_by.into_iter().filter(|name| counts(name)).take(OFFERED_BY);

    let limit = (wanted.text.chars().count() / 3).max(1);
    let mut similar: Vec<(usize, &str)> = universe
        .names()
        .into_iter()
        .filter(|name| counts(name) && *name != wanted.text)
        .filter_map(|name| Some((distance(&wanted.text, name, limit)?, name)))
        .collect();
    similar.sort_unstable();
    Ok(Unknown {
        wanted: wanted.clone(),
        similar: similar.into_iter().take(SIMILAR).map(|(_, name)| name.into()).collect(),
        offered_by: offered_by.map(Into::into).collect(),
    })
}

/// How many letters have to be put in, taken out, replaced or swapped with
/// their neighbour to turn one text into the other, if that is `limit` at
/// most. The case of ASCII letters makes no difference.
fn distance(one: &str, other: &str, limit: usize) -> Option<usize> {
    let one: Vec<char> = one.chars().map(|letter| letter.to_ascii_lowercase()).collect();
    let other: Vec<char> = other.chars().map(|letter| letter.to_ascii_lowercase()).collect();
    if one.len().abs_diff(other.len()) > limit {
        return None;
    }
    // Rows of the usual table: `row[k]` is the distance between the letters
    // of `one` so far and the first `k` of `other`.
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (k, wanted) in other.iter().enumerate() {
            let replaced = row[k] + usize::from(letter != wanted);
            let mut least = replaced.min(row[k + 1] + 1).min(next[k] + 1);
            if i > 0 && k > 0 && *letter == other[k - 1] && one[i - 1] == *wanted {
                least = least.min(before[k - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().filter(|&distance| distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_what_a_hand_gets_wrong() {
        let check = |one, other, expected| {
            assert_eq!(distance(one, other, 3), expected, "{one} {other}");
            assert_eq!(distance(other, one, 3), expected, "{other} {one}");
        };
        check("nano", "nano", Some(0));
        check("nano", "NANO", Some(0));
        check("nano", "nan", Some(1));
        check("nano", "naon", Some(1));
        check("nano", "nand", Some(1));
        check("nano", "anno", Some(1));
        check("", "abc", Some(3));
        check("abcd", "wxyz", None);
        check("a", "abcdefgh", None);
    }
}
