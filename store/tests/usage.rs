//! What states take, beside counting everything of each.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;

use cairn_store::{Entry, GcOptions, Store, TreeId};
use support::fast_directory;
use support::model::{Dice, Files, publish};

/// Everything below a directory by a name for it, with its bytes.
fn gather(store: &Store, id: TreeId, all: &mut BTreeMap<String, u64>) {
    all.insert(format!("tree {id}"), 0);
    for (_, entry) in store.tree(id).unwrap().entries() {
        match entry {
            Entry::Directory(subtree) => gather(store, subtree.id, all),
            Entry::Leaf(leaf) => {
                let blob = leaf.blob().unwrap();
                all.insert(format!("blob {}", blob.digest), blob.size);
            }
        }
    }
}

fn sum(sizes: impl Iterator<Item = u64>) -> (u64, u64) {
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
}

#[test]
fn what_is_needed_alone_and_together_is_what_counting_says() {
    for seed in 1..40 {
        let directory = fast_directory();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let mut dice = Dice::new(seed);
        let mut files = Files::new();
        // One directory is large enough for pages.
        for number in 0..700 {
            files.insert(("d0".into(), format!("f{number}")), number.to_string().into_bytes());
        }
        let mut versions: Vec<Files> = Vec::new();
        for _ in 0..2 + dice.roll(7) {
            for _ in 0..dice.roll(6) {
                let at = (format!("d{}", dice.roll(4)), format!("f{}", dice.roll(9)));
                // Few contents, so that they move, come back, and are there twice.
                match dice.roll(3) {
                    0 => drop(files.remove(&at)),
                    _ => drop(files.insert(at, vec![b'x'; 1 + dice.roll(9)])),
                }
            }
            // Some states are as one before.
            if dice.roll(4) == 0 && !versions.is_empty() {
                files = versions[dice.roll(versions.len())].clone();
            }
            publish(&store, &files).unwrap();
            versions.push(files.clone());
        }
        store.refresh().unwrap();
        let all: Vec<BTreeMap<String, u64>> = store
            .refs()
            .states
            .values()
            .map(|state| {
                let mut all = BTreeMap::new();
                gather(&store, state.tree, &mut all);
                gather(&store, state.packages, &mut all);
                all
            })
            .collect();
        let usage = store.usage().unwrap();
        let together: BTreeMap<_, _> = all.iter().flatten().collect();
        let unique = (usage.unique.objects, usage.unique.bytes);
        assert_eq!(unique, sum(together.into_values().copied()), "seed {seed}");
        assert_eq!(usage.states.len(), all.len());
        for (at, (_, usage)) in usage.states.iter().enumerate() {
            let own = &all[at];
            assert_eq!(
                (usage.all.objects, usage.all.bytes),
                sum(own.values().copied()),
                "seed {seed}, {at}"
            );
            let others = |name: &String| {
                all.iter().enumerate().any(|(other, it)| other != at && it.contains_key(name))
            };
            let alone = own.iter().filter(|(name, _)| !others(name)).map(|(_, size)| *size);
            let exclusive = (usage.exclusive.objects, usage.exclusive.bytes);
            assert_eq!(exclusive, sum(alone), "seed {seed}, state {at}");
        }
        let kept = store.preview_gc(GcOptions::default(), &[], &()).unwrap().kept;
        assert!(usage.packed >= kept.bytes, "seed {seed}: {usage:?}");
    }
}
