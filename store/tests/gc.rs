//! What is reached stays, whatever happens meanwhile, and what is not goes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_store::{Error, GcOptions, GcPhase, GcProgress, State, StateId, Store, Tag};
use support::fast_directory;
use support::model::{Dice, Files, publish, read_back};

const THOROUGH: GcOptions = GcOptions { rewrite_below: 100 };

fn stored(store: &Path) -> u64 {
    let packs = fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap());
    packs
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}

/// Changes some files; contents come from a small set, so that what was garbage is
/// wanted again.
fn change(files: &mut Files, dice: &mut Dice) {
    for _ in 0..1 + dice.roll(12) {
        let directory = format!("d{}", dice.roll(6));
        // One directory is large enough for pages.
        let names = if directory == "d0" { 600 } else { 8 };
        let at = (directory, format!("f{}", dice.roll(names)));
        match dice.roll(10) {
            0..3 => drop(files.remove(&at)),
            3 => {
                let mut noise = Dice::new(dice.roll(4) as u64);
                files.insert(at, noise.noise([150_000, 1_100_000][dice.roll(8) / 7]));
            }
            kind => {
                let mut noise = Dice::new(100 + dice.roll(60) as u64);
                let len = if kind < 6 { 20_000 } else { 200 };
                files.insert(at, noise.noise(len));
            }
        }
    }
}

fn first(dice: &mut Dice) -> Files {
    let mut files = Files::new();
    for number in 0..400 {
        files.insert(("d0".into(), format!("f{number}")), number.to_string().into_bytes());
    }
    change(&mut files, dice);
    files
}

/// Keeps trees as a mount does.
fn hold(store: &Path, number: u64, state: &State) -> File {
    let directory = store.join("run/mounts");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("1-{number}.json"));
    fs::write(&path, format!(r#"{{"pid": 1, "trees": ["{}"]}}"#, state.tree)).unwrap();
    let file = File::open(path).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn whatever_is_done_all_that_is_reached_is_there_and_nothing_else() {
    // More of them in `make endure`.
    let amount = |name, usual| {
        std::env::var(name).map_or(usual, |number: String| number.parse::<u64>().unwrap())
    };
    let (seeds, steps) = (amount("MODEL_SEEDS", 6), amount("MODEL_STEPS", 40));
    for seed in 0..seeds {
        let mut dice = Dice::new(seed);
        let home = fast_directory();
        let path = home.path().join("store");
        let mut store = Store::create(&path).unwrap();
        let mut files = first(&mut dice);
        let mut states: BTreeMap<StateId, (State, Files)> = BTreeMap::new();
        let mut held: Vec<(File, State, Files)> = Vec::new();
        // Its view of the index is as old as it can be.
        let mut reader = Store::open(&path).unwrap();
        for step in 0..steps {
            match dice.roll(12) {
                0..5 => {
                    change(&mut files, &mut dice);
                    let state = publish(&store, &files).unwrap();
                    states.insert(state.id, (state, files.clone()));
                }
                5..8 => {
                    let ids: Vec<StateId> = states.keys().copied().collect();
                    let removed = ids
                        .iter()
                        .copied()
                        .filter(|id| dice.roll(2) == 0 && store.refs().current != Some(*id));
                    let removed: Vec<StateId> = removed.collect();
                    for id in &removed {
                        let (state, files) = states.remove(id).unwrap();
                        if dice.roll(4) == 0 {
                            held.push((hold(&path, id.0, &state), state, files));
                        }
                    }
                    store.remove_states(&removed).unwrap();
                }
                8 if !held.is_empty() => drop(held.swap_remove(dice.roll(held.len()))),
                9 => drop(store.rebuild_index().unwrap()),
                10 => store = Store::open(&path).unwrap(),
                11 => reader = Store::open(&path).unwrap(),
                _ => {
                    let options = GcOptions { rewrite_below: [0, 50, 100][dice.roll(3)] };
                    let before = stored(&path);
                    let expected = store.preview_gc(options, &[], &()).unwrap();
                    let collected = store.gc(options, &()).unwrap();
                    let at = format!("seed {seed}, step {step}, {options:?}");
                    assert_eq!(stored(&path), collected.stored, "{at}");
                    assert_eq!(before - stored(&path), collected.freed, "{at}");
                    assert_eq!(expected.kept, collected.kept, "{at}");
                    assert_eq!(expected.removed, collected.removed, "{at}");
                    assert_eq!(expected.left, collected.left, "{at}");
                    if options.rewrite_below == 100 {
                        assert_eq!(collected.left.objects, 0, "{at}");
                    }
                    if options.rewrite_below == 0 {
                        assert_eq!(expected.freed, collected.freed, "{at}");
                    }
                    let again = store.gc(options, &()).unwrap();
                    assert_eq!((again.freed, again.removed.objects), (0, 0), "{at}");
                    assert!(again.unreadable.is_empty(), "{at}");
                }
            }
            let of_states = states.values().map(|(state, files)| (state, files));
            let of_held = held.iter().map(|(_, state, files)| (state, files));
            for (state, files) in of_states.chain(of_held) {
                for store in [&store, &reader] {
                    let found = read_back(store, state.tree);
                    let found = found.unwrap_or_else(|err| {
                        panic!("seed {seed}, step {step}, state {}: {err}", state.id)
                    });
                    assert!(found == *files, "seed {seed}, step {step}, state {}", state.id);
                }
            }
        }
        drop(held);
        store.gc(THOROUGH, &()).unwrap();
        let report = store.verify(&()).unwrap();
        assert!(report.damage.is_empty(), "seed {seed}: {:?}", report.damage);
        // Nothing but the states is left: one state alone needs about as much.
        let last = states.values().last().cloned();
        if let Some((state, files)) = last {
            store.switch(state.id).unwrap();
            let others: Vec<_> = states.keys().copied().filter(|id| *id != state.id).collect();
            store.remove_states(&others).unwrap();
            store.gc(THOROUGH, &()).unwrap();
            let alone = home.path().join("alone");
            publish(&Store::create(&alone).unwrap(), &files).unwrap();
            let (left, needed) = (stored(&path), stored(&alone));
            assert!(left < needed + needed / 10 + 4096, "seed {seed}: {left}, not {needed}");
        }
    }
}

/// Says that it is over when it goes, also when a test fails: others wait for that.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn transactions_and_readers_beside_a_collection_lose_nothing() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut dice = Dice::new(7);
    let mut files = first(&mut dice);
    let state = publish(&store, &files).unwrap();
    let pinned = (hold(&path, 0, &state), state, files.clone());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut runs = 0;
            while !done.load(Ordering::Relaxed) {
                // Opened anew, as other processes do.
                let store = Store::open(&path).unwrap();
                store.gc(THOROUGH, &()).unwrap();
                runs += 1;
            }
            runs
        });
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let store = Store::open(&path).unwrap();
                while !done.load(Ordering::Relaxed) {
                    assert!(read_back(&store, pinned.1.tree).unwrap() == pinned.2);
                }
            })
        });
        let end = End(&done);
        let mut kept = Vec::new();
        for step in 0..60 {
            change(&mut files, &mut dice);
            let store = Store::open(&path).unwrap();
            let state = publish(&store, &files).unwrap();
            kept.push((state, files.clone()));
            if step % 3 == 2 {
                let at = dice.roll(kept.len() - 1);
                let (state, old) = kept.swap_remove(at);
                store.remove_states(&[state.id]).unwrap();
                // What was garbage for a moment is wanted again.
                files = old;
            }
            for (state, files) in &kept[kept.len().saturating_sub(3)..] {
                assert!(read_back(&store, state.tree).unwrap() == *files, "step {step}");
            }
        }
        drop(end);
        assert!(collector.join().unwrap() > 3);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        let store = Store::open(&path).unwrap();
        for (state, files) in &kept {
            assert!(read_back(&store, state.tree).unwrap() == *files);
        }
    });
    let report = Store::open(&path).unwrap().verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn readers_beside_an_index_that_is_made_anew_miss_nothing() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut dice = Dice::new(11);
    let mut files = first(&mut dice);
    let mut states = Vec::new();
    for _ in 0..40 {
        change(&mut files, &mut dice);
        states.push((publish(&store, &files).unwrap(), files.clone()));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|number| {
            let (path, states, done) = (&path, &states, &done);
            scope.spawn(move || {
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) {
                    // Opened anew, as other processes do.
                    let store = Store::open(path).unwrap();
                    let (state, files) = &states[(number + rounds * 7) % states.len()];
                    // As mounts do, from several threads at once.
                    std::thread::scope(|scope| {
                        for _ in 0..3 {
                            scope.spawn(|| {
                                assert!(read_back(&store, state.tree).unwrap() == *files);
                            });
                        }
                    });
                    rounds += 1;
                }
                rounds
            })
        });
        let end = End(&done);
        for _ in 0..60 {
            assert!(store.rebuild_index().unwrap().is_empty());
        }
        drop(end);
        readers.into_iter().for_each(|reader| assert!(reader.join().unwrap() > 3));
    });
}

/// A directory may have survived a collection in a pack that was mostly needed, while
/// what lay below it is gone: to make it again must make that again, too.
#[test]
fn what_a_rebuilt_index_finds_of_old_garbage_is_not_taken_for_whole() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut dice = Dice::new(3);
    let mut kept = Files::new();
    for number in 0..20 {
        kept.insert(("kept".into(), format!("f{number}")), dice.noise(9000));
    }
    let below = ("below".to_owned(), "f".to_owned());
    let mut both = kept.clone();
    both.insert(below.clone(), b"small".to_vec());
    // Its subtree lies in the pack of a state of its own, its root with what is kept.
    let alone = Files::from([(below, b"small".to_vec())]);
    let first = publish(&store, &alone).unwrap();
    let second = publish(&store, &both).unwrap();
    publish(&store, &kept).unwrap();
    store.remove_states(&[first.id, second.id]).unwrap();
    let collected = store.gc(GcOptions { rewrite_below: 30 }, &()).unwrap();
    // What the first pack shares with the others is one directory.
    assert_eq!((collected.packs_removed, collected.packs_rewritten), (0, 1), "{collected:?}");
    assert!(collected.left.objects > 0, "{collected:?}");
    assert!(store.tree(second.tree).is_err(), "the index has forgotten it");
    store.rebuild_index().unwrap();
    let store = Store::open(&path).unwrap();
    assert!(store.tree(second.tree).is_ok(), "its bytes are still in the pack");
    let again = publish(&store, &both).unwrap();
    assert_eq!(again.tree, second.tree);
    assert_eq!(read_back(&store, again.tree).unwrap(), both);
    assert!(store.verify(&()).unwrap().damage.is_empty());
}

/// Has another process make the index anew between sweep and copy.
struct Anew<'a>(&'a Path);

impl GcProgress for Anew<'_> {
    fn begin(&self, phase: GcPhase, _: Option<u64>) {
        if phase == GcPhase::Rewrite {
            Store::open(self.0).unwrap().rebuild_index().unwrap();
        }
    }

    fn advance(&self, _: u64) {}
}

/// Then garbage is known again, and what is copied of a pack is all of it: the copy is that
/// pack itself.
#[test]
fn an_index_that_is_made_anew_during_a_collection_costs_no_pack() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut dice = Dice::new(11);
    let mut files = Files::new();
    for number in 0..20 {
        files.insert(("d".into(), format!("f{number}")), dice.noise(500));
    }
    publish(&store, &files).unwrap();
    // What the first collection has written, the second one writes alike.
    for progress in [&() as &dyn GcProgress, &Anew(&path)] {
        let before = store.refs().current.unwrap();
        files.pop_last();
        let state = publish(&store, &files).unwrap();
        store.remove_states(&[before]).unwrap();
        let collected = store.gc(THOROUGH, progress).unwrap();
        assert_eq!(stored(&path), collected.stored, "{collected:?}");
        assert!(read_back(&store, state.tree).unwrap() == files);
    }
    let report = Store::open(&path).unwrap().verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert!(store.gc(THOROUGH, &()).unwrap().packs_rewritten > 0, "garbage goes the next time");
}

#[test]
fn a_directory_that_cannot_be_read_keeps_everything() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut dice = Dice::new(5);
    let files = first(&mut dice);
    publish(&store, &files).unwrap();
    let second = publish(&store, &Files::from([(("a".into(), "b".into()), vec![1])])).unwrap();
    store.remove_states(&[StateId(1)]).unwrap();
    // A pack whose trees the second state needs.
    let packs = fs::read_dir(path.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let newest =
        packs.filter(|path| path.is_file()).min_by_key(|path| path.metadata().unwrap().len());
    let newest = newest.unwrap();
    let whole = fs::read(&newest).unwrap();
    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let before = stored(&path);
    let store = Store::open(&path).unwrap();
    let err = store.gc(THOROUGH, &()).unwrap_err();
    assert!(err.is_damage(), "{err}");
    assert_eq!(stored(&path), before);
    fs::write(&newest, whole).unwrap();
    let store = Store::open(&path).unwrap();
    assert!(store.gc(THOROUGH, &()).unwrap().freed > 0);
    assert!(read_back(&store, second.tree).is_ok());
}

#[test]
fn a_pack_that_cannot_be_read_is_left_alone() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    publish(&store, &Files::from([(("a".into(), "b".into()), vec![1])])).unwrap();
    let stray = path.join("packs/00000000000000000000000000000000.pack");
    fs::write(&stray, b"no pack").unwrap();
    let collected = store.gc(THOROUGH, &()).unwrap();
    assert_eq!(collected.unreadable.len(), 1);
    assert!(stray.exists());
}

#[test]
fn a_replaced_pack_that_comes_back_is_gone_after_a_collection() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut dice = Dice::new(17);
    let packs = || fs::read_dir(path.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    for round in 0..6 {
        // Records of states lie in packs beside what is replaced.
        let mut files = first(&mut dice);
        let parents: Vec<StateId> = store.refs().states.keys().copied().collect();
        for number in 0..3 {
            let version = [&[number; 8][..], &Dice::new(48).noise(90_000)].concat();
            files.insert(("d1".into(), "version".into()), version);
            publish(&store, &files).unwrap();
        }
        if round % 2 == 0 {
            store.remove_states(&parents).unwrap();
        }
        let old: Vec<_> = packs()
            .filter(|path| path.is_file())
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        let compacted = store.compact(&()).unwrap();
        assert!(compacted.packs_replaced > 0, "round {round}: {compacted:?}");
        old.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
        store.gc(THOROUGH, &()).unwrap();
        let again = store.preview_gc(THOROUGH, &[], &()).unwrap();
        assert_eq!((again.left.objects, again.freed), (0, 0), "round {round}: {again:?}");
        assert!(read_back(&store, store.refs().states.values().last().unwrap().tree).is_ok());
    }
    let report = store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn two_collections_at_once_are_one_too_many_and_a_dead_holder_holds_nothing() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let state = publish(&store, &Files::from([(("a".into(), "b".into()), vec![1])])).unwrap();
    publish(&store, &Files::new()).unwrap();
    let lock = File::create(path.join("run/gc.lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(store.gc(THOROUGH, &()), Err(Error::Locked { .. })));
    drop(lock);

    store.tag(Tag::new("kept").unwrap(), state.id).unwrap();
    assert!(store.remove_states(&[state.id]).is_err());
    store.untag(&Tag::new("kept").unwrap()).unwrap();
    let held = hold(&path, 1, &state);
    store.remove_states(&[state.id]).unwrap();
    // Its directories stay; the record of the state itself goes.
    assert_eq!(store.gc(THOROUGH, &()).unwrap().removed.objects, 1);
    assert_eq!(read_back(&store, state.tree).unwrap().len(), 1);
    drop(held);
    assert!(store.gc(THOROUGH, &()).unwrap().removed.objects >= 3);
    assert!(fs::read_dir(path.join("run/mounts")).unwrap().next().is_none());
    fs::write(path.join("run/mounts/1-2.json"), "no JSON").unwrap();
    let unreadable = File::open(path.join("run/mounts/1-2.json")).unwrap();
    unreadable.lock().unwrap();
    assert!(store.gc(THOROUGH, &()).is_err(), "it may name what must be kept");
}

#[test]
fn a_removed_pack_gives_its_room_back_when_a_reader_has_looked_again() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let state = publish(&store, &first(&mut Dice::new(9))).unwrap();
    let reader = Store::open(&path).unwrap();
    read_back(&reader, state.tree).unwrap();
    publish(&store, &Files::new()).unwrap();
    store.remove_states(&[state.id]).unwrap();
    store.gc(THOROUGH, &()).unwrap();
    let open_and_gone = || {
        let files = fs::read_dir("/proc/self/fd").unwrap();
        let links = files.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links
            .filter(|link| link.starts_with(&path))
            .filter(|link| link.to_string_lossy().ends_with(".pack (deleted)"))
            .count()
    };
    assert!(open_and_gone() > 0, "the reader has them open");
    reader.refresh().unwrap();
    assert_eq!(open_and_gone(), 0);
}
