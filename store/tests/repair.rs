//! Damage is found, never read, and mended from wherever the lost can be had.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use cairn_store::{
    Attributes, BytesSource, Content, Draft, Entry, Error, GcOptions, Holding, Leaf, Name,
    RepairSource, State, Store, Tree,
};
use support::model::{Dice, Files, publish, read_back};
use support::{copy, fast_directory};

const THOROUGH: GcOptions = GcOptions { rewrite_below: 100 };

/// A store with three states, of which the files of all are returned.
fn make(path: &Path) -> Vec<(State, Files)> {
    let store = Store::create(path).unwrap();
    let mut dice = Dice::new(11);
    let mut files = Files::new();
    for number in 0..300 {
        files.insert(("many".into(), format!("f{number}")), number.to_string().into_bytes());
    }
    let mut states = Vec::new();
    for generation in 0..3 {
        for number in 0..6 {
            let name = format!("{generation}-{number}");
            let len = 100 + dice.roll(9000);
            files.insert(("some".into(), name), dice.noise(len));
        }
        files.insert(("many".into(), format!("f{generation}")), dice.noise(150_000));
        states.push((publish(&store, &files).unwrap(), files.clone()));
    }
    states
}

fn packs(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let mut packs: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    packs.sort();
    packs
}

/// What is read is what was put in, or is told to be damaged.
fn check_never_wrong(store: &Store, states: &[(State, Files)], at: &str) -> usize {
    let mut whole = 0;
    for (state, files) in states {
        match read_back(store, state.tree) {
            Ok(found) => {
                assert!(found == *files, "wrong bytes, {at}");
                whole += 1;
            }
            Err(err) => assert!(err.is_damage(), "{at}: {err}"),
        }
    }
    whole
}

#[test]
fn a_byte_flipped_anywhere_is_found_never_read_and_mended() {
    let home = fast_directory();
    let (sound, path) = (home.path().join("sound"), home.path().join("store"));
    let states = make(&sound);
    let mut dice = Dice::new(1);
    let all = packs(&sound);
    let sizes: Vec<u64> = all.iter().map(|pack| pack.metadata().unwrap().len()).collect();
    let total: u64 = sizes.iter().sum();
    for flip in 0..1000 {
        // One of all bytes of all packs.
        let mut at = dice.roll(total as usize) as u64;
        let which = sizes.iter().position(|size| {
            let is_here = at < *size;
            at -= if is_here { 0 } else { *size };
            is_here
        });
        let pack = &all[which.unwrap()];
        let target = path.join("packs").join(pack.file_name().unwrap());
        if flip == 0 || flip % 20 == 1 {
            let _ = fs::remove_dir_all(&path);
            copy(&sound, &path);
        }
        let whole = fs::read(pack).unwrap();
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 1 << dice.roll(8);
        fs::write(&target, &bytes).unwrap();
        let told = format!("flip {flip}: byte {at} of {}", pack.display());
        let store = Store::open(&path).unwrap();
        assert!(!store.verify(&()).unwrap().damage.is_empty(), "{told}");
        check_never_wrong(&store, &states, &told);
        if flip % 20 != 0 {
            fs::write(&target, &whole).unwrap();
            continue;
        }
        let mut source = Store::open(&sound).unwrap();
        let repaired = store.repair(&mut [&mut source], &()).unwrap();
        assert_eq!(repaired.quarantined.len(), 1, "{told}: {repaired:?}");
        assert!(repaired.missing.is_empty(), "{told}: {repaired:?}");
        for store in [&store, &Store::open(&path).unwrap()] {
            assert_eq!(check_never_wrong(store, &states, &told), states.len(), "{told}");
            let damage = store.verify(&()).unwrap().damage;
            assert!(damage.is_empty(), "{told}: {damage:?}");
        }
        let kept = path.join("quarantine").join(pack.file_name().unwrap());
        assert!(fs::read(kept).unwrap() == bytes, "{told}: what was damaged is kept");
        store.gc(Default::default(), &()).unwrap();
        assert_eq!(check_never_wrong(&store, &states, &told), states.len(), "{told}");
        store.rebuild_index().unwrap();
        assert_eq!(check_never_wrong(&store, &states, &told), states.len(), "{told}");
    }
}

#[test]
fn what_no_source_has_is_told_and_the_rest_goes_on() {
    let home = fast_directory();
    let path = home.path().join("store");
    let states = make(&path);
    let store = Store::open(&path).unwrap();
    let lost = packs(&path).into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&lost).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&lost, bytes).unwrap();
    let before = store.verify(&()).unwrap();
    let affected: usize = before.damage.iter().map(|damage| damage.paths.len()).sum();
    assert!(affected > 0);
    struct Broken;
    impl RepairSource for Broken {
        fn name(&self) -> String {
            "broken".into()
        }
        fn restore(
            &mut self,
            _: &mut cairn_store::Transaction,
            missing: &cairn_store::Missing,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            assert!(!missing.objects.is_empty() && !missing.states.is_empty());
            Err(Error::NoState.into())
        }
    }
    let repaired = store.repair(&mut [&mut Broken], &()).unwrap();
    assert_eq!(repaired.failures.len(), 1);
    assert!(repaired.salvaged > 0 && !repaired.missing.is_empty(), "{repaired:?}");
    let after = store.verify(&()).unwrap();
    let still: usize = after.damage.iter().map(|damage| damage.paths.len()).sum();
    assert_eq!(still, affected, "the same paths, and no others");
    check_never_wrong(&store, &states, "after the repair");
    // What comes again is taken in again, and mends the old states, too.
    let (_, files) = &states[2];
    let again = publish(&store, files).unwrap();
    assert_eq!(again.tree, states[2].0.tree);
    assert_eq!(check_never_wrong(&store, &states, "when it came again"), states.len());
    assert!(store.verify(&()).unwrap().damage.is_empty());
}

#[test]
fn a_lost_pack_is_made_anew_from_another_store() {
    let home = fast_directory();
    let (sound, path) = (home.path().join("sound"), home.path().join("store"));
    let states = make(&sound);
    for pack in packs(&sound) {
        let _ = fs::remove_dir_all(&path);
        copy(&sound, &path);
        let harmed = path.join("packs").join(pack.file_name().unwrap());
        for gone in [true, false] {
            if gone {
                fs::remove_file(&harmed).unwrap();
            } else {
                fs::write(&harmed, b"nothing of it is left").unwrap();
            }
            let store = Store::open(&path).unwrap();
            let mut source = Store::open(&sound).unwrap();
            let repaired = store.repair(&mut [&mut source], &()).unwrap();
            assert!(repaired.missing.is_empty(), "{repaired:?}");
            assert_eq!(check_never_wrong(&store, &states, "lost"), states.len());
            assert!(store.verify(&()).unwrap().damage.is_empty());
        }
    }
    // Nothing to do is nothing done.
    let store = Store::open(&path).unwrap();
    let before = packs(&path);
    let repaired = store.repair(&mut [], &()).unwrap();
    assert!(repaired.quarantined.is_empty() && repaired.missing.is_empty());
    assert_eq!(packs(&path), before);
}

#[test]
fn contents_of_a_lost_pack_are_missed_where_their_directories_lie_elsewhere() {
    let home = fast_directory();
    let (sound, path) = (home.path().join("sound"), home.path().join("store"));
    let states = make(&sound);
    let store = Store::open(&sound).unwrap();
    let before = packs(&sound);
    // The same directory as one that is there, with a content that is not.
    let mut dice = Dice::new(13);
    let large = dice.noise(200_000);
    let mut transaction = store.begin().unwrap();
    let source = BytesSource { name: "large", bytes: &large };
    let blob = transaction.ingest(&[source], &()).unwrap()[0];
    let State { tree, packages, .. } = states[2].0;
    let draft = Draft { parent: None, request: "apart".into(), tree, packages };
    transaction.commit_apart(draft).unwrap();
    let own = packs(&sound).into_iter().find(|pack| !before.contains(pack)).unwrap();
    let content = Content::File(blob);
    let leaf = Leaf { attributes: Attributes::of_root(0o644), content, link: None };
    let mut transaction = store.begin().unwrap();
    let entries = vec![(Name::new(b"large").unwrap(), Entry::Leaf(leaf))];
    let root = Tree::new(Attributes::of_root(0o755), entries).unwrap();
    let tree = transaction.put_tree(root).unwrap();
    let draft = Draft { parent: None, request: "of it".into(), tree, packages };
    transaction.commit_apart(draft).unwrap();
    drop(store);
    copy(&sound, &path);
    fs::remove_file(path.join("packs").join(own.file_name().unwrap())).unwrap();
    let store = Store::open(&path).unwrap();
    assert!(!store.verify(&()).unwrap().damage.is_empty());
    let mut source = Store::open(&sound).unwrap();
    let repaired = store.repair(&mut [&mut source], &()).unwrap();
    assert!(repaired.missing.is_empty() && repaired.records == 1, "{repaired:?}");
    assert_eq!(repaired.restored.values().sum::<u64>(), 1, "{repaired:?}");
    assert!(store.verify(&()).unwrap().damage.is_empty());
    assert!(store.read(&blob).unwrap() == large);
}

#[test]
fn a_record_that_is_in_no_pack_is_told_and_made_anew() {
    let home = fast_directory();
    let path = home.path().join("store");
    let states = make(&path);
    let store = Store::open(&path).unwrap();
    let before = packs(&path);
    // Nothing but the record is new.
    let state = publish(&store, &states[2].1).unwrap();
    let own = packs(&path).into_iter().find(|pack| !before.contains(pack)).unwrap();
    fs::remove_file(own).unwrap();
    let damage = store.verify(&()).unwrap().damage;
    let told = damage.iter().map(|damage| damage.error.to_string());
    let expected = format!("the record of state {} is in no pack", state.id);
    assert_eq!(told.collect::<Vec<_>>(), [expected]);
    assert!(store.verify_states(&[state.id], &()).unwrap().damage.is_empty());
    let repaired = store.repair(&mut [], &()).unwrap();
    assert_eq!((repaired.records, repaired.missing.len()), (1, 0), "{repaired:?}");
    for store in [&store, &Store::open(&path).unwrap()] {
        assert!(store.verify(&()).unwrap().damage.is_empty());
        assert_eq!(store.state(state.id).unwrap(), state);
    }
    store.gc(THOROUGH, &()).unwrap();
    assert!(store.verify(&()).unwrap().damage.is_empty());
}

#[test]
fn a_state_is_verified_by_itself() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let mut dice = Dice::new(12);
    let mut files = Files::new();
    for number in 0..1500 {
        files.insert(("many".into(), format!("f{number}")), number.to_string().into_bytes());
    }
    // Each state with the packs that were there when it was published.
    let mut states = Vec::new();
    for generation in 0..3 {
        for (name, len) in [("small", 3000), ("large", 1_200_000)] {
            files.insert(("some".into(), format!("{name}{generation}")), dice.noise(len));
        }
        let state = publish(&store, &files).unwrap();
        states.push((state, files.clone(), packs(&path)));
    }
    let all = store.verify(&()).unwrap();
    let mut before = 0;
    for (state, _, known) in &states {
        let report = store.verify_states(&[state.id], &()).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!((report.states, report.packs), (1, known.len() as u64));
        assert!(report.objects > before && report.objects < all.objects, "{report:?}");
        before = report.objects;
    }
    let ids: Vec<_> = states.iter().map(|(state, ..)| state.id).collect();
    let report = store.verify_states(&ids, &()).unwrap();
    // What lies in packs beside what the states need are the records of the three.
    assert_eq!((report.states, report.objects + 3), (3, all.objects));
    let err = store.verify_states(&[cairn_store::StateId(9)], &()).unwrap_err();
    assert!(matches!(err, Error::UnknownState(_)), "{err}");

    for harmed in packs(&path) {
        let whole = fs::read(&harmed).unwrap();
        for round in 0..12 {
            if round == 0 {
                fs::remove_file(&harmed).unwrap();
            } else {
                let mut bytes = whole.clone();
                bytes[dice.roll(whole.len())] ^= 1 << dice.roll(8);
                fs::write(&harmed, bytes).unwrap();
            }
            let store = Store::open(&path).unwrap();
            for (state, files, known) in &states {
                let told = format!("state {}, round {round}, {}", state.id, harmed.display());
                let report = store.verify_states(&[state.id], &()).unwrap();
                let is_told = !report.damage.is_empty();
                assert!(!is_told || known.contains(&harmed), "{told}: {:?}", report.damage);
                let is_whole = read_back(&store, state.tree).is_ok_and(|found| found == *files);
                assert!(is_told || is_whole, "{told}");
                let paths: Vec<_> = report.damage.iter().flat_map(|it| &it.paths).collect();
                assert!(
                    paths.iter().all(|(of, _)| *of == Holding::State(state.id)),
                    "{told}: {paths:?}"
                );
                assert!(is_whole || !paths.is_empty(), "{told}: it is said what is lost");
            }
        }
        fs::write(&harmed, &whole).unwrap();
    }
}

/// RocksDB merges four tables that were written one after the other, in the background and by
/// itself; what it finds wrong then keeps it from writing.
#[test]
fn a_transaction_goes_on_when_its_index_cannot_be_written() {
    let home = fast_directory();
    let (sound, path) = (home.path().join("sound"), home.path().join("store"));
    let mut states = make(&sound);
    let tables = |store: &Path| {
        let entries = fs::read_dir(store.join("index")).unwrap().map(|it| it.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|it| it == "sst")).collect::<Vec<_>>()
    };
    let mut files = states[2].1.clone();
    for number in 0.. {
        if tables(&sound).len() == 3 {
            break;
        }
        files.insert(("more".into(), number.to_string()), vec![1; number]);
        states.push((publish(&Store::open(&sound).unwrap(), &files).unwrap(), files.clone()));
    }
    for table in tables(&sound) {
        let mut bytes = fs::read(&table).unwrap();
        // The entries come first.
        bytes[100] ^= 1;
        fs::write(&table, bytes).unwrap();
    }
    for round in 0..20 {
        let _ = fs::remove_dir_all(&path);
        copy(&sound, &path);
        let mut files = files.clone();
        let mut states = states.clone();
        for number in 0..12 {
            files.insert(("again".into(), number.to_string()), vec![2; round * 100 + number]);
            let store = Store::open(&path).unwrap();
            states.push((publish(&store, &files).unwrap(), files.clone()));
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(check_never_wrong(&store, &states, "at the end"), states.len());
        let damage = store.verify(&()).unwrap().damage;
        assert!(damage.is_empty(), "{damage:?}");
    }
}

#[test]
fn a_byte_flipped_anywhere_in_the_index_is_read_past_and_mended() {
    let home = fast_directory();
    let (sound, path) = (home.path().join("sound"), home.path().join("store"));
    let mut states = make(&sound);
    let mut last = states[2].1.clone();
    // So many that their entries are written out as a table.
    for number in 0..8 {
        last.insert(("more".into(), number.to_string()), vec![number; 10]);
        let state = publish(&Store::open(&sound).unwrap(), &last).unwrap();
        states.push((state, last.clone()));
    }
    // One that is gone, with which some of the last one came.
    let mut trash = last.clone();
    (0..6).for_each(|at| drop(trash.insert(("trash".into(), at.to_string()), vec![at; 9000])));
    last.insert(("more".into(), "kept".into()), b"with trash".to_vec());
    trash.extend(last.clone());
    let store = Store::open(&sound).unwrap();
    let gone = publish(&store, &trash).unwrap();
    states.push((publish(&store, &last).unwrap(), last.clone()));
    store.remove_states(&[gone.id]).unwrap();
    drop(store);
    let entries = fs::read_dir(sound.join("index")).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries.map(|entry| (entry.file_name(), entry.path())).collect();
    files.sort();
    assert!(files.iter().any(|(name, _)| name.to_string_lossy().ends_with(".sst")), "{files:?}");
    let mut dice = Dice::new(3);
    let mut told = 0;
    for (name, file) in files {
        let whole = fs::read(&file).unwrap();
        let kind = name.to_string_lossy();
        let rounds = match () {
            () if kind.ends_with(".sst") => 60,
            () if whole.is_empty() || kind.starts_with("LOG") || kind.starts_with("OPTIONS") => 0,
            () => 8,
        };
        for round in 0..rounds {
            let mut bytes = whole.clone();
            let place = dice.roll(whole.len());
            bytes[place] ^= 1 << dice.roll(8);
            let at = format!("byte {place} of {}", file.display());
            let _ = fs::remove_dir_all(&path);
            copy(&sound, &path);
            fs::write(path.join("index").join(&name), bytes).unwrap();
            let store = Store::open(&path).unwrap();
            match round % 6 {
                // Readers pass by it.
                0 => assert_eq!(check_never_wrong(&store, &states, &at), states.len(), "{at}"),
                // Verification tells it, or it does no harm.
                1 => {
                    let damage = store.verify(&()).unwrap().damage;
                    let is_wrong = |error: &_| matches!(error, Error::WrongIndex { .. });
                    assert!(
                        damage.iter().all(|damage| is_wrong(&damage.error)),
                        "{at}: {damage:?}"
                    );
                    told += damage.len();
                }
                // Repair mends it.
                2 => {
                    let repaired = store.repair(&mut [], &()).unwrap();
                    assert!(repaired.missing.is_empty(), "{at}: {repaired:?}");
                    told += usize::from(repaired.corrected > 0);
                }
                // Collections and compactions mend it, and their previews.
                3 => {
                    store.preview_gc(THOROUGH, &[], &()).unwrap();
                    store.preview_compact(&()).unwrap();
                }
                4 => {
                    store.gc(THOROUGH, &()).unwrap();
                    store.compact(&()).unwrap();
                }
                // Transactions go on with one that is made anew.
                _ => {
                    last.insert(("more".into(), "again".into()), at.clone().into_bytes());
                    publish(&store, &last).unwrap();
                    publish(&store, &last).unwrap();
                    store.gc(Default::default(), &()).unwrap();
                }
            }
            drop(store);
            let store = Store::open(&path).unwrap();
            assert_eq!(check_never_wrong(&store, &states, &at), states.len(), "{at}");
            let damage = store.verify(&()).unwrap().damage;
            assert!(damage.is_empty(), "{at}: {damage:?}");
        }
    }
    assert!(told > 10, "{told} flips were met");
}
