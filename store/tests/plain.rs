//! A plain file holds the bytes of its blob, or is not given.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_store::{BlobRef, Checksum, Error, GcOptions, Plain, State, Store, Unneeded};
use support::model::{Dice, Files, publish};
use support::{FaultyDisk, Loss, Omitted, copy, fast_directory};

/// What a state has in a file each.
fn contents() -> [Vec<u8>; 2] {
    [Dice::new(1).noise(300_000), b"many equal lines\n".repeat(100_000)]
}

fn state_of(store: &Store, contents: &[Vec<u8>]) -> State {
    let file = |(at, bytes): (usize, &Vec<u8>)| (("d".into(), at.to_string()), bytes.clone());
    publish(store, &contents.iter().enumerate().map(file).collect::<Files>()).unwrap()
}

fn store_with(path: &Path, contents: &[Vec<u8>]) -> Store {
    let store = Store::create(path).unwrap();
    state_of(&store, contents);
    store
}

/// The bytes that a plain file gives from its beginning on.
fn bytes_of(plain: &Plain, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut file = plain.open(&BlobRef::of(bytes))?;
    let mut given = Vec::new();
    file.read_to_end(&mut given).unwrap();
    Ok(given)
}

fn path_of(store: &Path, bytes: &[u8]) -> PathBuf {
    let BlobRef { key, digest, .. } = BlobRef::of(bytes);
    store.join(format!("plain/{key}{digest}"))
}

fn files(store: &Path) -> usize {
    fs::read_dir(store.join("plain")).map_or(0, Iterator::count)
}

#[test]
fn a_blob_is_expanded_once_and_nobody_else_may_read_it() {
    let directory = fast_directory();
    let path = directory.path().join("store");
    let store = store_with(&path, &contents());
    let plain = store.plain();
    for bytes in &contents() {
        assert!(!plain.has(&BlobRef::of(bytes)));
        assert!(bytes_of(&plain, bytes).unwrap() == *bytes);
        assert!(plain.has(&BlobRef::of(bytes)));
        let expanded = fs::metadata(path_of(&path, bytes)).unwrap();
        assert_eq!(expanded.permissions().mode() & 0o777, 0o400);
        assert!(bytes_of(&plain, bytes).unwrap() == *bytes);
        assert_eq!(fs::metadata(path_of(&path, bytes)).unwrap().ino(), expanded.ino());
    }
    assert_eq!(files(&path), 2);
    let unknown = bytes_of(&plain, b"not in the store").unwrap_err();
    assert!(matches!(unknown, Error::MissingBlob { .. }), "{unknown}");
    assert_eq!(files(&path), 2);
}

#[test]
fn whatever_else_lies_under_the_name_of_a_blob_is_not_given() {
    let directory = fast_directory();
    let path = directory.path().join("store");
    let [bytes, other] = contents();
    let store = store_with(&path, &[bytes.clone(), other.clone()]);
    let plain = store.plain();
    bytes_of(&plain, &bytes).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    let zeros = vec![0; bytes.len()];
    let longer = [&bytes[..], b"x"].concat();
    for wrong in [&[][..], &bytes[..100_000], &changed, &zeros, &longer, &other] {
        let expanded = path_of(&path, &bytes);
        fs::remove_file(&expanded).unwrap();
        fs::write(&expanded, wrong).unwrap();
        assert!(bytes_of(&plain, &bytes).unwrap() == bytes, "{} bytes", wrong.len());
        assert!(fs::read(&expanded).unwrap() == bytes, "{} bytes", wrong.len());
    }
}

/// Changes a byte of the first frame of a pack, and corrects all checksums over it.
fn forge(pack: &Path) {
    let mut bytes = fs::read(pack).unwrap();
    let number =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let checksum = |bytes: &[u8]| Checksum::of(bytes).0.to_le_bytes();
    let footer = bytes.len() - 48;
    let [frames, objects] = [footer, footer + 4].map(|at| number(&bytes, at) as usize);
    let table = footer - 65 * objects - 16 * frames;
    let stored = (number(&bytes, table) & 0x7fff_ffff) as usize;
    bytes[100] ^= 1;
    let of_frame = checksum(&bytes[8..8 + stored]);
    bytes[table + 8..table + 16].copy_from_slice(&of_frame);
    let of_table = checksum(&bytes[table..table + 16 * frames]);
    bytes[footer + 8..footer + 16].copy_from_slice(&of_table);
    fs::write(pack, bytes).unwrap();
}

#[test]
fn what_is_not_the_blob_is_not_expanded() {
    let directory = fast_directory();
    let path = directory.path().join("store");
    let bytes = Dice::new(3).noise(2 << 20);
    drop(store_with(&path, std::slice::from_ref(&bytes)));
    let packs = fs::read_dir(path.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let is_large = |pack: &PathBuf| fs::metadata(pack).unwrap().len() > 1 << 20;
    forge(&packs.filter(is_large).last().unwrap());
    let refused = Store::open(&path).unwrap().plain().open(&BlobRef::of(&bytes)).unwrap_err();
    assert!(matches!(refused, Error::DamagedBlob { .. }), "{refused}");
    assert_eq!(files(&path), 0);
}

#[test]
fn the_power_goes_at_every_step_and_no_torn_file_is_given() {
    let directory = fast_directory();
    let base = directory.path().join("base");
    let contents = contents();
    drop(store_with(&base, &contents));
    let expand = |disk: &FaultyDisk, path: &Path| -> Result<(), Error> {
        let plain = Store::open_on(Arc::new(disk.clone()), path)?.plain();
        contents.iter().try_for_each(|bytes| plain.open(&BlobRef::of(bytes)).map(drop))
    };
    let steps = {
        let path = directory.path().join("whole");
        copy(&base, &path);
        let disk = FaultyDisk::over(&path, usize::MAX, Omitted::Nothing);
        expand(&disk, &path).unwrap();
        disk.steps_done()
    };
    assert!(steps > 10, "{steps}");
    let mut torn = 0;
    for step in 0..=steps {
        for seed in (0..8).map(|at| step as u64 * 8 + at) {
            let at = format!("step {step}, seed {seed}");
            let [cut, after] =
                ["cut", "after"].map(|name| directory.path().join(format!("{name}-{step}-{seed}")));
            copy(&base, &cut);
            let disk = FaultyDisk::over(&cut, step, Omitted::Nothing);
            // The last step removes what a collection would.
            assert!(expand(&disk, &cut).is_err() || step + 1 >= steps, "{at}");
            disk.restart(&after, Loss::Some(seed));
            let store = Store::open(&after).unwrap();
            for bytes in &contents {
                let found = fs::read(path_of(&after, bytes));
                torn += usize::from(found.is_ok_and(|found| found != *bytes));
                assert!(bytes_of(&store.plain(), bytes).unwrap() == *bytes, "{at}");
            }
            for path in [cut, after] {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
    assert!(torn > 0, "no cut left a file that is torn");
}

/// Shows a tree as a mount does, with or without plain files.
fn hold(store: &Path, state: &State, passthrough: bool) -> File {
    let directory = store.join("run/mounts");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("1-{}-{passthrough}.json", state.id));
    let text = format!(r#"{{"trees": ["{}"], "passthrough": {passthrough}}}"#, state.tree);
    fs::write(&path, text).unwrap();
    let file = File::open(path).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn a_collection_keeps_the_plain_files_that_a_mount_reads_and_no_others() {
    let directory = fast_directory();
    let path = directory.path().join("store");
    let [first, second] = contents();
    let store = Store::create(&path).unwrap();
    let old = state_of(&store, std::slice::from_ref(&first));
    let new = state_of(&store, std::slice::from_ref(&second));
    let expand = || [&first, &second].map(|bytes| drop(store.plain().open(&BlobRef::of(bytes))));
    let exist = || [&first, &second].map(|bytes| path_of(&path, bytes).exists());
    let _other = hold(&path, &new, false);
    for (shown, kept) in [
        (vec![&old], [true, false]),
        (vec![&new], [false, true]),
        (vec![&old, &new], [true, true]),
        (vec![], [false, false]),
    ] {
        expand();
        let _held: Vec<File> = shown.iter().map(|state| hold(&path, state, true)).collect();
        let removed = |kept: [bool; 2]| {
            let removed = kept.iter().zip([&first, &second]).filter(|(kept, _)| !**kept);
            removed.fold(Unneeded::default(), |sum, (_, bytes)| Unneeded {
                files: sum.files + 1,
                bytes: sum.bytes + bytes.len() as u64,
            })
        };
        let preview = store.preview_gc(GcOptions::default(), &[], &()).unwrap();
        assert_eq!((preview.plain, exist()), (removed(kept), [true, true]));
        let collected = store.gc(GcOptions::default(), &()).unwrap();
        assert_eq!((collected.plain, exist()), (removed(kept), kept));
    }
}

#[test]
fn a_collection_removes_what_was_left_unfinished_and_nothing_that_is_being_written() {
    let directory = fast_directory();
    let path = directory.path().join("store");
    let [bytes, _] = contents();
    let store = store_with(&path, std::slice::from_ref(&bytes));
    bytes_of(&store.plain(), &bytes).unwrap();
    let named = |what: &str| PathBuf::from(format!("{}-{what}", path_of(&path, &bytes).display()));
    let [left, growing, foreign] = ["7-0.new", "8-0.new", "notes"].map(named);
    for file in [&left, &growing, &foreign] {
        fs::write(file, b"half").unwrap();
    }
    let long_ago = SystemTime::now() - Duration::from_secs(600);
    for file in [&left, &foreign] {
        File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    store.gc(GcOptions::default(), &()).unwrap();
    assert!(!left.exists() && growing.exists() && foreign.exists());
}
