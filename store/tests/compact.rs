//! What only old states need gets smaller, and stays what it is.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use cairn_store::transfer::PullExtent;
use cairn_store::{Compacted, GcOptions, Standing, State, StateId, Store, Tag, TreePath, resolve};
use support::fast_directory;
use support::model::{Dice, Files, publish, read_back};

const THOROUGH: GcOptions = GcOptions { rewrite_below: 100 };

/// Packs with the version that they begin with.
fn packs(store: &Path) -> Vec<(u8, Vec<u8>)> {
    let entries = fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let packs = entries.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap());
    packs.map(|bytes| (bytes[7], bytes)).collect()
}

fn stored(store: &Path) -> u64 {
    packs(store).iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

fn dense(store: &Path) -> usize {
    packs(store).iter().filter(|(version, _)| *version == b'2').count()
}

/// A store with versions of the same files, each a little different from the one before.
struct World {
    _home: tempfile::TempDir,
    store: Store,
    states: Vec<(State, Files)>,
}

impl World {
    fn new(versions: u64) -> Self {
        let home = fast_directory();
        let store = Store::create(&home.path().join("store")).unwrap();
        let mut world = Self { _home: home, store, states: Vec::new() };
        let mut files = Files::new();
        for at in 0..300 {
            files.insert((format!("d{}", at % 5), format!("f{at}")), words(at, 6_000));
        }
        let large = [("middle", 200_000), ("large", 1_500_000), ("longer than a frame", 5_000_000)];
        for (at, (name, len)) in (0..).zip(large) {
            files.insert(("large".into(), name.into()), words(1000 + at, len));
        }
        files.insert(("large".into(), "empty".into()), Vec::new());
        for version in 0..versions {
            for (number, bytes) in files.values_mut().enumerate() {
                if !bytes.is_empty() && number as u64 % 4 != version % 4 {
                    let at = (number * 7919) % bytes.len();
                    bytes.splice(at..at, format!("[{version}]").into_bytes());
                }
            }
            world.publish(&files);
        }
        world
    }

    fn publish(&mut self, files: &Files) {
        let state = publish(&self.store, files).unwrap();
        self.states.push((state, files.clone()));
    }

    fn path(&self) -> &Path {
        self.store.path()
    }

    fn compact(&self) -> Compacted {
        let before = stored(self.path());
        let compacted = self.store.compact(&()).unwrap();
        assert_eq!(stored(self.path()), compacted.stored);
        assert_eq!(before - compacted.stored, compacted.before - compacted.after);
        compacted
    }

    /// All states are whole, with all ways to look at them.
    fn check(&self, what: &str) {
        for store in [&self.store, &Store::open(self.path()).unwrap()] {
            let refs = store.refs();
            for (state, files) in &self.states {
                if refs.states.contains_key(&state.id) {
                    assert!(
                        read_back(store, state.tree).unwrap() == *files,
                        "{what}: {}",
                        state.id
                    );
                }
            }
            let report = store.verify(&()).unwrap();
            assert!(report.damage.is_empty(), "{what}: {:?}", report.damage);
        }
    }
}

/// Text that compresses, and no two of which are alike.
fn words(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        bytes.extend(format!("word {} ", dice.roll(50_000)).into_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn old_states_get_smaller_and_are_read_as_before() {
    let world = World::new(6);
    let preview = world.store.preview_compact(&()).unwrap();
    assert_eq!(dense(world.path()), 0, "a preview changes nothing");
    let compacted = world.compact();
    assert_eq!((compacted.states, dense(world.path())), (5, 1));
    assert_eq!(compacted.moved, preview.moved);
    assert_eq!(
        (compacted.before, compacted.packs_replaced),
        (preview.before, preview.packs_replaced)
    );
    let (after, expected) = (compacted.after, preview.after);
    assert!(after * 5 < compacted.before * 4, "{compacted:?}");
    assert!(expected < after * 3 / 2 && after < expected * 3 / 2, "{after}, not {expected}");
    world.check("compacted");

    let again = world.compact();
    assert_eq!(again.packs_replaced, 0, "{again:?}");
    world.store.rebuild_index().unwrap();
    world.check("with an index made anew");
    // What comes next takes from old states what it finds there.
    let mut world = world;
    let files = world.states[1].1.clone();
    world.publish(&files);
    world.check("a state like an old one");
    world.store.gc(THOROUGH, &()).unwrap();
    world.check("collected");
}

#[test]
fn what_is_current_tagged_or_shown_stays_as_it_is() {
    let world = World::new(4);
    world.store.tag(Tag::new("kept").unwrap(), StateId(1)).unwrap();
    let directory = world.path().join("run/mounts");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("1-1.json");
    let tree = world.states[1].0.tree;
    fs::write(&path, format!(r#"{{"pid": 1, "trees": ["{tree}"]}}"#)).unwrap();
    let mount = File::open(&path).unwrap();
    mount.lock().unwrap();
    world.store.switch(StateId(3)).unwrap();
    let compacted = world.compact();
    // Old are those of the mount, too, but what it shows is not.
    assert_eq!(compacted.states, 2);
    assert!(compacted.moved.objects > 0 && dense(world.path()) == 1);
    let places = |tree| {
        let dense: Vec<_> = packs(world.path()).into_iter().filter(|it| it.0 == b'2').collect();
        let id = world.store.tree(tree).unwrap().encode().id;
        dense.iter().any(|(_, bytes)| bytes.windows(32).any(|it| it == id.as_bytes()))
    };
    let is_dense: Vec<bool> = world.states.iter().map(|(state, _)| places(state.tree)).collect();
    assert_eq!(is_dense, [false, false, false, true]);
    world.check("compacted");
}

#[test]
fn dense_packs_are_collected_mended_and_sent_as_others_are() {
    let world = World::new(6);
    world.compact();
    let home = fast_directory();
    let other = Store::create(&home.path().join("other")).unwrap();
    let pull = |number: usize| {
        let state = world.states[number].0.clone();
        let extent = PullExtent::Publish(Standing::Aside);
        let pulled = other.pull(&world.store, &[state], extent, &()).unwrap().remove(0);
        let (state, files) = &world.states[number];
        assert!(read_back(&other, state.tree).unwrap() == *files, "{number}");
        pulled.transferred
    };
    // A part of the dense pack, and then the rest of it.
    pull(5);
    pull(0);
    for number in 1..5 {
        pull(number);
    }
    assert!(dense(other.path()) > 0);
    assert!(other.verify(&()).unwrap().damage.is_empty());

    // A byte in the middle of the dense pack.
    let entries = fs::read_dir(world.path().join("packs")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let path = paths.find(|path| fs::read(path).unwrap()[7] == b'2').unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = Store::open(world.path()).unwrap();
    assert!(!store.verify(&()).unwrap().damage.is_empty());
    let repaired = store.repair(&mut [&mut other.clone()], &()).unwrap();
    assert!(repaired.missing.is_empty() && repaired.salvaged > 0, "{repaired:?}");
    assert!(dense(world.path()) > 0, "what is sound stays dense");
    let world = World { store, ..world };
    world.check("repaired");

    // Most of what was dense goes, and a part stays in a smaller pack.
    let before = stored(world.path());
    world.store.remove_states(&[2, 3, 4, 5].map(StateId)).unwrap();
    let collected = world.store.gc(THOROUGH, &()).unwrap();
    assert!(collected.packs_rewritten > 0 && stored(world.path()) < before, "{collected:?}");
    assert!(dense(world.path()) > 0);
    world.check("collected");
}

#[test]
fn a_damaged_pack_is_left_alone_and_what_is_sound_is_compacted() {
    let world = World::new(4);
    // That of a large file of the first state.
    let entries = fs::read_dir(world.path().join("packs")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let path = paths.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = Store::open(world.path()).unwrap();
    let compacted = store.compact(&()).unwrap();
    assert!(compacted.packs_replaced > 0 && compacted.unreadable.len() == 1, "{compacted:?}");
    fs::write(&path, whole).unwrap();
    let world = World { store, ..world };
    world.check("mended");
}

#[test]
fn readers_and_writers_do_not_notice() {
    let mut world = World::new(5);
    let files = world.states[0].1.clone();
    // Their views of the index are as old as they can be.
    let reader = Store::open(world.path()).unwrap();
    read_back(&reader, world.states[4].0.tree).unwrap();
    let writer = Store::open(world.path()).unwrap();
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| world.store.compact(&()).unwrap());
        let mut rounds = 0;
        while !compacting.is_finished() || rounds == 0 {
            for (state, files) in &world.states {
                assert!(read_back(&reader, state.tree).unwrap() == *files);
            }
            // It relies on what is moved just now.
            publish(&writer, &files).unwrap();
            rounds += 1;
        }
        assert!(compacting.join().unwrap().packs_replaced > 0);
    });
    world.store.refresh().unwrap();
    let newest = world.store.current().unwrap();
    world.states.push((newest, files));
    world.check("afterwards");
}

#[test]
fn a_frame_that_several_ask_for_at_once_is_decoded_once() {
    let world = World::new(3);
    world.compact();
    let (old, files) = &world.states[0];
    let at = ("large".to_owned(), "longer than a frame".to_owned());
    let path = TreePath::new(format!("{}/{}", at.0, at.1).as_bytes()).unwrap();
    for _ in 0..10 {
        let store = Store::open(world.path()).unwrap();
        let entry = resolve(&store, old.tree, &path).unwrap().unwrap();
        let blob = entry.as_leaf().unwrap().blob().unwrap();
        let before = store.reads();
        let together = Barrier::new(8);
        thread::scope(|scope| {
            for reader in 0..8 {
                let (store, together, at) = (&store, &together, &at);
                scope.spawn(move || {
                    let (offset, mut buf) = (reader * 600_000, vec![0; 600_000]);
                    together.wait();
                    let len = store.read_at(blob, offset as u64, &mut buf).unwrap();
                    assert!(buf[..len] == files[at][offset..offset + len], "{offset}");
                });
            }
        });
        // One of 4 MiB, and the rest.
        assert_eq!(store.reads().since(&before).frames_decoded, 2);
    }
}
