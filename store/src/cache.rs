//! A bounded cache in two generations.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Keeps what was used lately, up to a weight.
///
/// New values and values that are found again belong to the young generation.
/// When that reaches half of the limit it becomes the old one, and what was
/// not found again since the last change goes. A value that is heavier than that,
/// and would take the place of all others, is kept beside them until the next such one
/// comes. Each operation costs a look-up or two; nothing is ever scanned.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    half: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_weight: usize,
    heavy: Option<(K, V)>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// A cache of values that together weigh at most `limit`; one value that
    /// is heavier than half of it may come on top.
    pub(crate) fn new(limit: usize) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        let generations = Generations { young, old, young_weight: 0, heavy: None };
        Self { half: limit / 2, generations: Mutex::new(generations) }
    }

    /// The value kept for `key`.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.lock();
        if let Some((value, _)) = generations.young.get(key) {
            return Some(value.clone());
        }
        if let Some((_, value)) = generations.heavy.as_ref().filter(|(it, _)| it == key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = generations.old.remove_entry(key)?;
        generations.insert(key, value.clone(), weight, self.half);
        Some(value)
    }

    /// Whether there is a value for `key`; it is not used by that.
    pub(crate) fn has(&self, key: &K) -> bool {
        let generations = self.lock();
        let is_heavy = generations.heavy.as_ref().is_some_and(|(it, _)| it == key);
        is_heavy || generations.young.contains_key(key) || generations.old.contains_key(key)
    }

    /// Keeps `value`, which weighs `weight`, for `key`.
    pub(crate) fn insert(&self, key: K, value: V, weight: usize) {
        self.lock().insert(key, value, weight, self.half);
    }

    /// Keeps nothing any more.
    pub(crate) fn clear(&self) {
        let mut generations = self.lock();
        generations.young.clear();
        generations.old.clear();
        generations.young_weight = 0;
        generations.heavy = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<K, V>> {
        // A panic elsewhere cannot leave the maps half changed in a way that matters.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V, weight: usize, half: usize) {
        if weight > half {
            self.heavy = Some((key, value));
            return;
        }
        if self.young_weight + weight > half {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
        if let Some((_, before)) = self.young.insert(key, (value, weight)) {
            self.young_weight -= before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let cache = Cache::new(100);
        for key in 0..1000 {
            cache.insert(key, key, 10);
            assert!(cache.get(&0).is_some(), "0 is used all the time, lost at {key}");
            assert!(cache.has(&key), "{key} is new");
        }
        let kept = (0..1000).filter(|key| cache.get(key).is_some()).count();
        assert!((2..=10).contains(&kept), "{kept} values of 10 are kept in 100");
    }

    #[test]
    fn a_heavy_value_takes_the_place_of_none_but_the_heavy_one_before() {
        let cache = Cache::new(100);
        (0..5).for_each(|key| cache.insert(key, key, 10));
        for key in [100, 101] {
            cache.insert(key, key, 51);
            assert_eq!(
                (cache.get(&100), cache.get(&key)),
                ((key == 100).then_some(100), Some(key))
            );
        }
        assert!((0..5).all(|key| cache.get(&key).is_some()), "none of the others has gone");
        cache.clear();
        assert_eq!((cache.get(&101), cache.get(&0)), (None, None));
        assert!(!cache.has(&101) && !cache.has(&0));
    }
}
