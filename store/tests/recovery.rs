//! refs/log is damaged or gone: what it still says and what packs say are put together again.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cairn_store::disk::{Disk, RealDisk};
use cairn_store::{Error, GcOptions, Recovered, Refs, State, StateId, Store, Tag};
use support::model::{Dice, Files, publish, read_back};
use support::{FaultyDisk, Loss, Omitted, copy, fast_directory};

fn recover(path: &Path) -> Result<Recovered, Error> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Store::recover_states(&disk, path, false)
}

/// Five states that share some files, two tags, the fourth current, the second removed and not
/// collected yet; with what each has.
fn history(path: &Path) -> (Refs, BTreeMap<StateId, (State, Files)>) {
    let store = Store::create(path).unwrap();
    let mut dice = Dice::new(23);
    let mut all = BTreeMap::new();
    let mut files = Files::new();
    for number in 0..5 {
        for name in 0..300 {
            // One directory is large enough for pages.
            files.insert(("many".into(), format!("{name}")), format!("{name}").into_bytes());
        }
        files.insert(("own".into(), format!("{number}")), dice.noise(5000));
        // It fills a pack of its own.
        files.insert(("own".into(), "changed".into()), dice.noise(1_100_000));
        let state = publish(&store, &files).unwrap();
        all.insert(state.id, (state, files.clone()));
    }
    store.tag(Tag::new("first").unwrap(), StateId(1)).unwrap();
    store.tag(Tag::new("third").unwrap(), StateId(3)).unwrap();
    store.remove_states(&[StateId(2)]).unwrap();
    store.switch(StateId(4)).unwrap();
    (store.refs(), all)
}

/// Checks that a recovered store has `expected` of `all`, and goes on.
fn check(path: &Path, expected: &Refs, all: &BTreeMap<StateId, (State, Files)>, what: &str) {
    let store = Store::open(path).unwrap();
    assert_eq!(store.refs(), *expected, "{what}");
    for id in expected.states.keys() {
        assert!(read_back(&store, all[id].0.tree).unwrap() == all[id].1, "{what}: state {id}");
    }
    let damage = store.verify(&()).unwrap().damage;
    assert!(damage.is_empty(), "{what}: {damage:?}");
    let next = publish(&store, &all[&StateId(1)].1).unwrap();
    assert_eq!(next.id, StateId(6), "{what}: no number is given twice");
}

/// Recovers a store from a log of which one line is lost, for each line and in several ways.
/// `expected` is told which line, and whether all in it is still there; `is_whole` says of which
/// lines it is not noticed that they are gone.
fn lose_each_line(
    base: &Path,
    all: &BTreeMap<StateId, (State, Files)>,
    expected: impl Fn(usize, bool) -> Refs,
    is_whole: impl Fn(usize) -> bool,
) {
    let whole = fs::read(base.join("refs/log")).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for (lost, line) in lines.iter().enumerate() {
        for (how, bytes) in [
            ("removed", Vec::new()),
            ("flipped", [&line[..30], b"!", &line[31..]].concat()),
            ("zeroed", vec![0; line.len()]),
            ("joined", [&line[..line.len() - 1], b"!"].concat()),
        ] {
            let path = base.with_file_name(format!("{lost} {how}"));
            copy(base, &path);
            let log = path.join("refs/log");
            let damaged = [&lines[..lost].concat()[..], &bytes, &lines[lost + 1..].concat()];
            fs::write(&log, damaged.concat()).unwrap();
            let what = format!("line {lost} {how}");
            let recovered = recover(&path).unwrap();
            assert!(recovered.incomplete.is_empty() && recovered.unreadable.is_empty(), "{what}");
            // The line is there, and the next one as well.
            let is_joined = how == "joined";
            let is_whole = is_whole(lost) && !is_joined;
            assert_eq!(recovered.is_new, !is_whole, "{what}: {recovered:?}");
            let kept = recovered.kept.map(|kept| fs::read(kept).unwrap());
            assert_eq!(kept, (!is_whole).then(|| damaged.concat()), "{what}");
            check(&path, &expected(lost, is_joined), all, &what);
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

/// Without the lines of `refs` that tell of a tag.
fn without_tag(refs: &mut Refs, tag: &str) {
    refs.tags.remove(&Tag::new(tag).unwrap()).unwrap();
}

#[test]
fn each_line_of_the_log_that_is_lost_costs_no_state() {
    let home = fast_directory();
    let base = home.path().join("base");
    let (refs, all) = history(&base);
    let expected = |lost, is_there| {
        let mut refs = refs.clone();
        match lost {
            _ if is_there => {}
            5 => without_tag(&mut refs, "first"),
            6 => without_tag(&mut refs, "third"),
            7 => drop(refs.states.insert(StateId(2), all[&StateId(2)].0.clone())),
            // What is told of the current state last is by the fifth.
            8 => refs.current = Some(StateId(5)),
            _ => {}
        }
        refs
    };
    // Five states, two tags, a removal, a switch: without the last one it is a log as it was.
    lose_each_line(&base, &all, expected, |lost| lost == 8);
}

#[test]
fn each_line_of_a_log_that_was_replaced_is_lost_without_costing_a_state() {
    let home = fast_directory();
    let base = home.path().join("base");
    let (refs, all) = history(&base);
    let store = Store::open(&base).unwrap();
    let log = base.join("refs/log");
    while !fs::read_to_string(&log).unwrap().contains("checkpoint") {
        store.switch(StateId(4)).unwrap();
    }
    assert_eq!(store.refs(), refs);
    drop(store);
    let mut recovered = recover(&base).unwrap();
    assert!(!recovered.is_new && std::mem::take(&mut recovered.refs) == refs, "{recovered:?}");
    let expected = |lost, is_there| {
        let mut refs = refs.clone();
        match lost {
            _ if is_there => {}
            // That the second one was removed.
            0 => drop(refs.states.insert(StateId(2), all[&StateId(2)].0.clone())),
            5 => {
                refs.current = Some(StateId(5));
                refs.tags.clear();
            }
            _ => {}
        }
        refs
    };
    // The checkpoint, four states, the tags with the current state.
    lose_each_line(&base, &all, expected, |_| false);
}

#[test]
fn without_a_log_the_packs_tell_all_that_is_whole() {
    let home = fast_directory();
    let base = home.path().join("base");
    let (_, all) = history(&base);
    let states: BTreeMap<StateId, State> =
        all.iter().map(|(id, (state, _))| (*id, state.clone())).collect();
    let expected = |states: BTreeMap<StateId, State>| Refs {
        current: Some(StateId(5)),
        newest: StateId(5),
        states,
        tags: BTreeMap::new(),
    };
    for (number, collects) in [true, false].into_iter().enumerate() {
        let path = home.path().join(format!("{number}"));
        copy(&base, &path);
        if collects {
            // Of a state that is gone its record may stay in a pack that is needed.
            let store = Store::open(&path).unwrap();
            store.gc(GcOptions { rewrite_below: 0 }, &()).unwrap();
        }
        fs::remove_file(path.join("refs/log")).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let previewed = Store::recover_states(&disk, &path, true).unwrap();
        assert!(!path.join("refs/log").exists(), "a preview writes nothing");
        assert!(matches!(Store::open(&path), Err(Error::MissingLog { .. })));
        let recovered = recover(&path).unwrap();
        assert_eq!(previewed.refs, recovered.refs);
        assert!(!previewed.is_new && recovered.is_new && recovered.kept.is_none());
        let mut states = states.clone();
        let incomplete: Vec<StateId> = recovered.incomplete.iter().map(|it| it.id).collect();
        if collects {
            states.remove(&StateId(2));
            assert_eq!(incomplete, [StateId(2)]);
        } else {
            assert_eq!(incomplete, []);
        }
        assert_eq!(recovered.found, states.keys().copied().collect::<Vec<_>>());
        check(&path, &expected(states), &all, "without a log");
    }
    let path = home.path().join("empty");
    drop(Store::create(&path).unwrap());
    fs::remove_file(path.join("refs/log")).unwrap();
    assert!(matches!(recover(&path), Err(Error::NoState)));
    assert!(!path.join("refs/log").exists() && !path.join("run/recovery").exists());
    assert!(matches!(recover(home.path()), Err(Error::NotAStore { .. })));
}

#[test]
fn a_log_that_ends_too_early_gets_its_states_back() {
    let home = fast_directory();
    let path = home.path().join("store");
    let (_, all) = history(&path);
    let log = path.join("refs/log");
    let whole = fs::read(&log).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    fs::write(&log, lines[..3].concat()).unwrap();
    let store = Store::open(&path).unwrap();
    assert!(matches!(store.begin(), Err(Error::LostRecords { .. })));
    drop(store);
    let recovered = recover(&path).unwrap();
    assert_eq!(recovered.found, [StateId(4), StateId(5)]);
    let states = all.iter().map(|(id, (state, _))| (*id, state.clone())).collect();
    let current = Some(StateId(3));
    let expected = Refs { current, newest: StateId(5), states, tags: BTreeMap::new() };
    check(&path, &expected, &all, "cut off");
}

#[test]
fn a_power_cut_leaves_a_log_that_is_recovered_or_can_be() {
    let home = fast_directory();
    let base = home.path().join("base");
    let (_, all) = history(&base);
    let log = base.join("refs/log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[40] ^= 1;
    fs::write(&log, &bytes).unwrap();
    for steps in 0.. {
        let live = home.path().join(format!("live {steps}"));
        copy(&base, &live);
        let disk = FaultyDisk::over(&live, steps, Omitted::Nothing);
        let on: Arc<dyn Disk> = Arc::new(disk.clone());
        let result = Store::recover_states(&on, &live, false);
        for loss in [Loss::All, Loss::None, Loss::Some(steps as u64)] {
            for keeps_index in [true, false] {
                let found = home.path().join("found");
                disk.restart(&found, loss);
                let index = if keeps_index { &base } else { &live };
                if index.join("index").exists() {
                    copy(&index.join("index"), &found.join("index"));
                }
                let what = format!("{steps} steps, {loss:?}, index {keeps_index}");
                let opens = Store::open(&found).is_ok();
                assert!(opens || result.is_err(), "{what}: what was reported is lost");
                // An index of before may know of more records than there are.
                recover(&found).unwrap_or_else(|err| panic!("{what}: {err}"));
                let store = Store::open(&found).unwrap();
                assert_eq!(store.refs().states.len(), 4, "{what}");
                assert_eq!(store.refs().current, Some(StateId(4)), "{what}");
                assert!(store.verify(&()).unwrap().damage.is_empty(), "{what}");
                publish(&store, &all[&StateId(1)].1).unwrap();
                drop(store);
                fs::remove_dir_all(&found).unwrap();
            }
        }
        fs::remove_dir_all(&live).unwrap();
        if result.is_ok() {
            assert!(steps > 5, "{steps} of the steps were last ones");
            return;
        }
    }
}
