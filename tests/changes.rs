//! Real packages come and go in random order, through the program: what is there is
//! always what was asked for and what that needs, and the tree of a state is always
//! that of composing the same packages from scratch.
//!
//! `MODEL_SEEDS` is how many sequences there are (1), `MODEL_FROM` the number of the first (0), and
//! `MODEL_STEPS` how many steps each has (40).

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cairn_package::Dependency;
use cairn_package::stone::ProvedStone;
use cairn_package::system::{self, Installed, InstalledPackage};
use cairn_store::{Draft, State, StateId, Store, TreeId};
use cairn_tests::{Cairn, Random, amount, real};

/// A store with the trees of all packages, and nothing else of the store that is
/// tested.
struct Scratch {
    store: Store,
    files: BTreeMap<String, TreeId>,
}

impl Scratch {
    fn new(directory: &Path, repository: &Path) -> Self {
        let store = Store::create(&directory.join("scratch")).unwrap();
        let stones = std::fs::read_dir(repository).unwrap().map(|entry| entry.unwrap().path());
        let stones: Vec<_> =
            stones.filter(|path| path.extension().is_some_and(|it| it == "stone")).collect();
        let stones: Vec<_> = stones.into_iter().map(ProvedStone::own).collect();
        let mut transaction = store.begin().unwrap();
        let unpacked = system::unpack(&mut transaction, &stones, &()).unwrap();
        let all: Vec<InstalledPackage> = unpacked
            .into_iter()
            .map(|it| InstalledPackage {
                metadata: it.metadata.into(),
                explicit: false,
                files: it.files,
            })
            .collect();
        // Only what a state has is kept.
        let made = system::change(&mut transaction, None, &Installed::new(), &[], &all).unwrap();
        let (tree, packages) = (made.tree, made.packages);
        let draft = Draft { parent: None, request: "all".into(), tree, packages };
        transaction.commit(draft).unwrap();
        let files = all.into_iter().map(|it| (it.metadata.name.clone(), it.files));
        Self { store, files: files.collect() }
    }

    /// The two trees of a system of these packages, put together in an order that
    /// `random` chooses.
    fn compose(&self, installed: &Installed, random: &mut Random) -> (TreeId, TreeId) {
        let own = |it: &InstalledPackage| {
            let files = self.files[&it.metadata.name];
            InstalledPackage { files, ..it.clone() }
        };
        let mut coming: Vec<InstalledPackage> = installed.values().map(own).collect();
        for at in (1..coming.len()).rev() {
            coming.swap(at, random.below(at + 1));
        }
        let mut transaction = self.store.begin().unwrap();
        let none = Installed::new();
        let made = system::change(&mut transaction, None, &none, &[], &coming).unwrap();
        (made.tree, made.packages)
    }
}

/// Checks that nothing is missing and nothing is there without need.
fn assert_consistent(installed: &Installed, after: &str) {
    let mut providers: BTreeMap<Dependency, Vec<&str>> = BTreeMap::new();
    for (name, package) in installed {
        let own = Dependency::on_package(name.clone());
        for provided in package.metadata.provides.iter().chain([&own]) {
            providers.entry(provided.clone()).or_default().push(name);
        }
    }
    let mut needed = BTreeSet::new();
    let mut stack: Vec<&str> =
        installed.iter().filter(|(_, it)| it.explicit).map(|(name, _)| &**name).collect();
    while let Some(name) = stack.pop() {
        if needed.insert(name) {
            for dependency in &installed[name].metadata.depends {
                let found = providers.get(dependency);
                let found = found.unwrap_or_else(|| panic!("{after}: {name} lacks {dependency}"));
                stack.extend(found);
            }
        }
    }
    let names: BTreeSet<&str> = installed.keys().map(String::as_str).collect();
    let unneeded: Vec<_> = names.difference(&needed).collect();
    assert!(unneeded.is_empty(), "{after}: nobody needs {unneeded:?}");
}

/// What the present state has, read past the program.
fn current(cairn: &Cairn) -> (State, Installed) {
    let store = Store::open(&cairn.store()).unwrap();
    let state = store.current().unwrap();
    let installed = InstalledPackage::load_all(&store, state.packages).unwrap();
    (state, installed)
}

fn explicit(installed: &Installed) -> BTreeSet<String> {
    installed.iter().filter(|(_, it)| it.explicit).map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_state_is_the_composition_of_its_packages_whatever_came_before() {
    let (seeds, steps) = (amount("MODEL_SEEDS", 1), amount("MODEL_STEPS", 40));
    let first = amount("MODEL_FROM", 0);
    let Some(debs) = real::debs() else { return };
    let names: Vec<String> = real::names(&debs).into_iter().collect();
    for seed in (first as u64..).take(seeds) {
        check_sequence(&names, 0x5eed_0000_0000_0007 ^ seed << 20, steps);
    }
}

fn check_sequence(names: &[String], seed: u64, steps: usize) {
    let repository = real::repository().expect("its packages are here");
    let cairn = Cairn::new();
    let scratch = Scratch::new(cairn.directory(), &repository);
    cairn.data(["repo", "add", "real", &format!("file://{}", repository.display())]);

    let mut random = Random(seed);
    let mut history: BTreeMap<StateId, State> = BTreeMap::new();
    let mut asked: BTreeMap<StateId, BTreeSet<String>> = BTreeMap::new();
    let (mut wanted, mut installed) = (BTreeSet::new(), Installed::new());
    for step in 0..steps {
        let there: Vec<String> = installed.keys().cloned().collect();
        let some = |random: &mut Random, of: &[String]| -> BTreeSet<String> {
            (0..=random.below(3)).map(|_| random.choose(of).clone()).collect()
        };
        // It grows until half of all packages are there.
        let grows = random.below(names.len()) >= there.len() || there.is_empty();
        let (verb, chosen) = match random.below(8) {
            0 if history.len() > 1 => {
                let states: Vec<StateId> = history.keys().copied().collect();
                ("switch", BTreeSet::from([random.choose(&states).to_string()]))
            }
            _ if grows => ("install", some(&mut random, names)),
            _ => ("remove", some(&mut random, &there)),
        };
        let what = format!("seed {seed:#x}, step {step}: {verb} {chosen:?}");
        cairn.data(["--yes", verb].into_iter().chain(chosen.iter().map(String::as_str)));
        let (state, now) = current(&cairn);
        match verb {
            "switch" => {
                assert_eq!(Some(&state), history.get(&state.id), "{what}");
                wanted.clone_from(&asked[&state.id]);
            }
            "install" => wanted.extend(chosen),
            _ => {
                let left = chosen.iter().find(|name| now.contains_key(*name));
                assert_eq!(left, None, "{what}");
                // What cannot be without them went as well, and nothing came.
                wanted.retain(|name| now.contains_key(name));
                assert!(now.keys().all(|name| installed.contains_key(name)), "{what}");
            }
        }
        assert_eq!(explicit(&now), wanted, "{what}");
        assert_consistent(&now, &what);
        assert_eq!((state.tree, state.packages), scratch.compose(&now, &mut random), "{what}");
        asked.insert(state.id, wanted.clone());
        history.insert(state.id, state);
        installed = now;
    }
    let told = cairn.json(["state", "list"]);
    let told = told.as_array().unwrap().iter();
    let trees: BTreeMap<u64, &str> =
        told.map(|it| (it["state"].as_u64().unwrap(), it["tree"].as_str().unwrap())).collect();
    assert!(trees.len() > steps / 2, "{} states", trees.len());
    for state in history.values() {
        assert_eq!(trees[&state.id.0], state.tree.to_string(), "state {} changed", state.id);
    }
    cairn.data(["verify"]);
}
