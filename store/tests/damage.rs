//! Damaged files of a store: a clear error, never wrong bytes, nothing lost.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_store::tree::{Content, Entry, Leaf};
use cairn_store::{
    Attributes, BlobRef, BytesSource, Draft, Error, FileSource, Name, State, Store, Tree,
};
use support::{FaultyDisk, Loss, Omitted, copy, fast_directory};

/// Damages the index in this directory.
type Harm = Box<dyn Fn(&Path)>;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut word = seed | 1;
    let words = (0..len / 8 + 1).flat_map(|_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    });
    words.take(len).collect()
}

/// Contents of all sizes that are treated differently.
fn contents() -> Vec<Vec<u8>> {
    let mut contents = vec![vec![], b"tiny".to_vec(), b"text ".repeat(9_000)];
    for (at, len) in [100, 5_000, 131_072, 131_073, 400_000, 1 << 20, 3_000_001].iter().enumerate()
    {
        contents.push(noise(at as u64 + 7, *len));
    }
    contents
}

fn publish(store: &Store, contents: &[Vec<u8>]) -> (State, Vec<BlobRef>) {
    let mut transaction = store.begin().unwrap();
    let sources: Vec<BytesSource<'_>> =
        contents.iter().map(|bytes| BytesSource { name: "a test", bytes }).collect();
    let blobs = transaction.ingest(&sources, &()).unwrap();
    let entries = blobs.iter().enumerate().map(|(at, blob)| {
        let content = Content::File(*blob);
        let leaf = Leaf { attributes: Attributes::of_root(0o644), content, link: None };
        (Name::new(format!("file {at}").as_bytes()).unwrap(), Entry::Leaf(leaf))
    });
    let tree = Tree::new(Attributes::of_root(0o755), entries.collect()).unwrap();
    let tree = transaction.put_tree(tree).unwrap();
    let draft = Draft { parent: None, request: "test".into(), tree, packages: tree };
    (transaction.commit(draft).unwrap(), blobs)
}

fn packs(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

#[test]
fn everything_that_was_taken_in_is_read_back_and_kept_once() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    let contents = contents();
    let (first, blobs) = publish(&store, &contents);
    let bytes = |path: &Path| -> u64 {
        packs(path).iter().map(|pack| pack.metadata().unwrap().len()).sum()
    };
    let before = bytes(&path);
    let (second, again) = publish(&store, &contents);
    assert_eq!((&blobs, first.tree), (&again, second.tree));
    assert!(bytes(&path) - before < 1_000, "{} more bytes", bytes(&path) - before);

    let store = Store::open(&path).unwrap();
    for (blob, expected) in blobs.iter().zip(&contents) {
        assert_eq!(&store.read(blob).unwrap(), expected);
        assert_eq!(*blob, BlobRef::of(expected));
        for (offset, len) in [(0, 10), (131_000, 200), (400_000, 1), (5, 2_000_000)] {
            let mut buf = vec![0; len];
            let read = store.read_at(blob, offset, &mut buf).unwrap();
            let from = expected.len().min(offset as usize);
            let to = expected.len().min(from + len);
            assert_eq!(&buf[..read], &expected[from..to], "{len} at {offset}");
        }
    }
    let report = store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn a_reader_from_before_later_states_reads_its_own() {
    let home = fast_directory();
    let path = home.path().join("store");
    let writer = Store::create(&path).unwrap();
    let (first, blobs) = publish(&writer, &[b"first".to_vec()]);
    // It has not looked at the index yet when that moves on.
    let reader = Store::open(&path).unwrap();
    publish(&writer, &[b"second".to_vec()]);
    publish(&writer, &[b"third".to_vec()]);
    assert_eq!(reader.read(&blobs[0]).unwrap(), b"first");
    assert!(reader.tree(first.tree).is_ok());
    assert_eq!(reader.current().unwrap(), first, "what it shows is as of its opening");
}

#[test]
fn files_are_taken_in_as_they_are_and_a_wrong_size_is_noticed() {
    let home = fast_directory();
    let store = Store::create(&home.path().join("store")).unwrap();
    let path = home.path().join("file");
    for len in [10u64, 2 << 20] {
        fs::write(&path, noise(3, len as usize)).unwrap();
        for (size, fits) in [(len, true), (len - 1, false), (len + 1, false)] {
            let mut transaction = store.begin().unwrap();
            let sources = [FileSource { path: path.clone(), size }];
            match transaction.ingest(&sources, &()) {
                Ok(blobs) => assert!(fits && blobs[0] == BlobRef::of(&fs::read(&path).unwrap())),
                Err(Error::SourceChanged { name }) => {
                    assert!(!fits && name.ends_with("file"), "{name}");
                }
                Err(err) => panic!("{err}"),
            }
        }
    }
    let missing = [FileSource { path: home.path().join("none"), size: 1 }];
    let err = store.begin().unwrap().ingest(&missing, &()).unwrap_err();
    assert!(matches!(err, Error::Source { .. }), "{err}");
}

#[test]
fn a_flipped_byte_of_a_pack_is_found_and_never_read() {
    let home = fast_directory();
    let base = home.path().join("base");
    let store = Store::create(&base).unwrap();
    let contents = contents();
    let (state, blobs) = publish(&store, &contents);
    drop(store);
    for pack in packs(&base) {
        let whole = fs::read(&pack).unwrap();
        let step = whole.len() / 150 + 1;
        let edges = (0..60).chain(whole.len() - 60..whole.len());
        for at in (0..whole.len()).step_by(step).chain(edges) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&pack, &bytes).unwrap();
            let store = Store::open(&base).unwrap();
            let report = store.verify(&()).unwrap();
            assert!(!report.damage.is_empty(), "byte {at} of {}", pack.display());
            assert!(report.damage.iter().all(|damage| damage.error.is_damage()));
            for (blob, expected) in blobs.iter().zip(&contents) {
                match store.read(blob) {
                    Ok(bytes) => assert!(bytes == *expected, "wrong bytes, flipped at {at}"),
                    Err(err) => assert!(err.is_damage(), "{err}"),
                }
            }
            let _ = store.tree(state.tree);
        }
        // Cut short, too.
        for len in [0, 7, 60, whole.len() / 2, whole.len() - 1] {
            fs::write(&pack, &whole[..len]).unwrap();
            let report = Store::open(&base).unwrap().verify(&()).unwrap();
            assert!(!report.damage.is_empty(), "cut to {len}");
        }
        fs::remove_file(&pack).unwrap();
        let report = Store::open(&base).unwrap().verify(&()).unwrap();
        let paths: usize = report.damage.iter().map(|damage| damage.paths.len()).sum();
        assert!(paths > 0, "a missing pack is told with the paths that it held");
        fs::write(&pack, &whole).unwrap();
    }
    assert!(Store::open(&base).unwrap().verify(&()).unwrap().damage.is_empty());
}

#[test]
fn a_lost_or_damaged_index_is_made_anew() {
    let home = fast_directory();
    let base = home.path().join("base");
    let store = Store::create(&base).unwrap();
    let contents = contents();
    let (_, blobs) = publish(&store, &contents);
    publish(&store, &[b"another".to_vec()]);
    drop(store);
    let names: Vec<PathBuf> = fs::read_dir(base.join("index"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into())
        .collect();
    assert!(names.len() > 3, "{names:?}");
    let mut harms: Vec<(String, Harm)> =
        vec![("all gone".into(), Box::new(|index| fs::remove_dir_all(index).unwrap()))];
    for name in names {
        let (one, two, three) = (name.clone(), name.clone(), name.clone());
        harms.push((
            format!("{name:?} gone"),
            Box::new(move |index| fs::remove_file(index.join(&one)).unwrap()),
        ));
        harms.push((
            format!("{name:?} empty"),
            Box::new(move |index| fs::write(index.join(&two), b"").unwrap()),
        ));
        harms.push((
            format!("{name:?} zeroed at its end"),
            Box::new(move |index| {
                let path = index.join(&three);
                let mut bytes = fs::read(&path).unwrap();
                let half = bytes.len() / 2;
                bytes[half..].fill(0);
                fs::write(&path, bytes).unwrap();
            }),
        ));
    }
    for (harm, do_it) in harms {
        for writes in [false, true] {
            let path = home.path().join("harmed");
            copy(&base, &path);
            do_it(&path.join("index"));
            let store = Store::open(&path).unwrap();
            if writes {
                publish(&store, &[b"more".to_vec()]);
            }
            for (blob, expected) in blobs.iter().zip(&contents) {
                let read = store.read(blob);
                assert!(read.is_ok_and(|bytes| bytes == *expected), "{harm}, writes: {writes}");
            }
            assert!(store.verify(&()).unwrap().damage.is_empty(), "{harm}");
            drop(store);
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

#[test]
fn a_log_that_lost_its_last_record_is_noticed() {
    let home = fast_directory();
    let base = home.path().join("base");
    let store = Store::create(&base).unwrap();
    publish(&store, &[b"one".to_vec()]);
    publish(&store, &[b"two".to_vec()]);
    drop(store);
    let log = base.join("refs/log");
    let whole = fs::read(&log).unwrap();
    let mut bytes = whole.clone();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    fs::write(&log, bytes).unwrap();
    let store = Store::open(&base).unwrap();
    let err = store.begin().unwrap_err();
    assert!(matches!(err, Error::LostRecords { expected: 2, found: 1, .. }), "{err}");
    fs::write(&log, whole).unwrap();
    store.refresh().unwrap();
    assert!(store.begin().is_ok());
}

#[test]
fn two_contents_with_one_key_are_a_collision_and_change_nothing() {
    let home = fast_directory();
    let path = home.path().join("store");
    let store = Store::create(&path).unwrap();
    struct Forged(BlobRef);
    impl cairn_store::Source for Forged {
        fn name(&self) -> std::borrow::Cow<'_, str> {
            "forged".into()
        }
        fn size(&self) -> u64 {
            self.0.size
        }
        fn open(&self) -> std::io::Result<Box<dyn std::io::Read + '_>> {
            Ok(Box::new(&b"evil"[..]))
        }
        fn identity(&self) -> Option<BlobRef> {
            Some(self.0)
        }
    }
    let (state, blobs) = publish(&store, &[b"good".to_vec()]);
    let forged = BlobRef { digest: cairn_store::Digest::of(b"evil"), ..blobs[0] };
    let err = store.begin().unwrap().ingest(&[Forged(forged)], &()).unwrap_err();
    assert!(matches!(err, Error::Collision { .. }), "{err}");
    assert!(matches!(store.read(&forged), Err(Error::DamagedBlob { .. })));
    assert_eq!(store.read(&blobs[0]).unwrap(), b"good");
    assert_eq!(store.current().unwrap(), state);
}

#[test]
fn what_is_no_store_is_left_alone() {
    let home = fast_directory();
    let err = Store::open(home.path()).unwrap_err();
    assert!(matches!(err, Error::NotAStore { .. }), "{err}");
    fs::write(home.path().join("mine"), "x").unwrap();
    let err = Store::create(home.path()).unwrap_err();
    assert!(matches!(err, Error::NotEmpty { .. }), "{err}");
    let path = home.path().join("store");
    Store::create(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else may read what is private in packages");
    fs::write(path.join("format"), "cairn store 2\n").unwrap();
    let err = Store::open(&path).unwrap_err();
    assert!(matches!(err, Error::UnknownFormat { .. }), "{err}");
}

#[test]
fn making_a_store_goes_on_where_it_was_interrupted() {
    for step in 0.. {
        let home = fast_directory();
        let path = home.path().join("store");
        let disk = FaultyDisk::over(home.path(), step, Omitted::Nothing);
        if Store::create_on(Arc::new(disk), &path).is_ok() {
            assert!(step > 10, "{step} steps");
            return;
        }
        match Store::open(&path) {
            // Only the last sync is missing.
            Ok(_) => {}
            Err(Error::NotAStore { .. }) => {
                Store::create(&path).unwrap_or_else(|err| panic!("after step {step}: {err}"));
            }
            Err(err) => panic!("after step {step}: {err}"),
        }
    }
}

#[test]
fn a_new_store_is_as_durable_as_the_directories_above_it() {
    let home = fast_directory();
    let disk = FaultyDisk::over(home.path(), usize::MAX, Omitted::Nothing);
    Store::create_on(Arc::new(disk.clone()), &home.path().join("a/b/store")).unwrap();
    let after = fast_directory();
    disk.restart(after.path(), Loss::All);
    Store::open(&after.path().join("a/b/store")).unwrap();
}

#[test]
fn what_is_left_of_a_store_is_not_taken_for_an_unfinished_one() {
    for lost in ["format", "format refs/log"] {
        let home = fast_directory();
        let path = home.path().join("store");
        let store = Store::create(&path).unwrap();
        publish(&store, &[b"kept".to_vec()]);
        for file in lost.split(' ') {
            fs::remove_file(path.join(file)).unwrap();
        }
        let err = Store::create(&path).unwrap_err();
        assert!(matches!(err, Error::NotEmpty { .. }), "{err}");
    }
}
