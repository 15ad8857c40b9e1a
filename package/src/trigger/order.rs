//! The order in which triggers are done.

use std::collections::{BTreeMap, BTreeSet};

use super::file::Trigger;

/// Sorts the names of triggers so that those with `before` and `after` come
/// where they want to, and all others by name.
///
/// Names of triggers that are not among them are ignored, and so is whatever
/// would close a circle with what was said by triggers whose names come earlier.
pub(super) fn order<'t>(triggers: impl IntoIterator<Item = &'t Trigger>) -> Vec<&'t str> {
    // The last one of a name counts.
    let by_name: BTreeMap<&str, &Trigger> =
        triggers.into_iter().map(|trigger| (trigger.name.as_str(), trigger)).collect();
    // For each trigger those that come later.
    let mut later: BTreeMap<&str, BTreeSet<&str>> =
        by_name.keys().map(|name| (*name, BTreeSet::new())).collect();
    for (name, trigger) in &by_name {
        let after = trigger.after.as_deref().map(|earlier| (earlier, *name));
        let before = trigger.before.as_deref().map(|late| (*name, late));
        for (earlier, late) in after.into_iter().chain(before) {
            let known = by_name.contains_key(earlier) && by_name.contains_key(late);
            if known && !reaches(&later, late, earlier) {
                later.entry(earlier).or_default().insert(late);
            }
        }
    }
    let mut waiting: BTreeMap<&str, usize> = by_name.keys().map(|name| (*name, 0)).collect();
    for late in later.values().flatten() {
        *waiting.entry(late).or_default() += 1;
    }
    let mut sorted = Vec::with_capacity(by_name.len());
    while let Some(next) = waiting.iter().find(|(_, count)| **count == 0).map(|(name, _)| *name) {
        waiting.remove(next);
        for late in &later[next] {
            if let Some(count) = waiting.get_mut(late) {
                *count -= 1;
            }
        }
        sorted.push(next);
    }
    sorted
}

/// Whether `to` is `from`, or comes later because of what was said so far.
fn reaches<'t>(later: &BTreeMap<&'t str, BTreeSet<&'t str>>, from: &'t str, to: &'t str) -> bool {
    let (mut rest, mut seen) = (vec![from], BTreeSet::new());
    while let Some(name) = rest.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            rest.extend(later.get(name).into_iter().flatten());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use cairn_store::TreePath;

    use super::*;

    /// The order of triggers that are written `name`, `name<later` or
    /// `name>earlier`.
    fn ordered(words: &[&str]) -> Vec<String> {
        let triggers: Vec<Trigger> = words
            .iter()
            .map(|word| {
                let end = word.find(['<', '>']).unwrap_or(word.len());
                let (name, rest) = word.split_at(end);
                Trigger {
                    name: name.into(),
                    description: String::new(),
                    before: rest.strip_prefix('<').map(Into::into),
                    after: rest.strip_prefix('>').map(Into::into),
                    inhibitors: Default::default(),
                    handlers: BTreeMap::new(),
                    paths: Vec::new(),
                    file: TreePath::root(),
                }
            })
            .collect();
        order(&triggers).into_iter().map(Into::into).collect()
    }

    #[test]
    fn before_and_after_are_heeded_and_names_decide_the_rest() {
        let check = |words: &[&str], expected: &str| {
            assert_eq!(ordered(words).join(" "), expected, "{words:?}");
            let reversed: Vec<&str> = words.iter().rev().copied().collect();
            assert_eq!(ordered(&reversed).join(" "), expected, "{reversed:?}");
        };
        check(&["c", "a", "b"], "a b c");
        check(&["a>c", "b", "c"], "b c a");
        check(&["c<a", "b", "a"], "b c a");
        check(&["a>b", "b>c", "c>d", "d"], "d c b a");
        check(&["a>nobody", "b<nobody"], "a b");
        // Each wants to be after the other: the first one is heard.
        check(&["a>b", "b>a"], "b a");
        check(&["a>a"], "a");
        check(&["a>b", "b>c", "c>a"], "c b a");
    }
}
