//! The kernel reads large files by itself: the same bytes, without asking.
//!
//! Needs Linux 6.9 and root.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cairn_fs::{Passed, Shape, Stats};
use cairn_store::{Attributes, GcOptions};
use support::{
    Directory, FIRST, Item, Lab, eventually, file, items_of, program, put, sys, with_programs,
};

/// The size from which on a file is large.
const LARGE: usize = 256 << 10;

/// Bytes that differ in each place, and for each seed.
fn content(seed: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..)
        .flat_map(|i: u32| (i ^ seed).wrapping_mul(0x9e37_79b9).to_le_bytes())
        .take(len)
        .collect();
    bytes.truncate(len);
    bytes
}

fn requests(stats: &Stats, name: &str) -> u64 {
    let its = stats.requests.iter().find(|it| it.operation.name() == name);
    its.map_or(0, |it| it.count)
}

/// How often large files were opened for the kernel to read, and how often not.
fn opens(lab: &Lab) -> (u64, u64) {
    let Passed { opens, fallbacks, .. } = lab.stats().passthrough;
    (opens, fallbacks)
}

/// Waits until the kernel has said that all is closed.
fn all_closed(lab: &Lab) {
    eventually("all is closed", || (lab.stats().passthrough.open == 0).then_some(()));
}

#[test]
fn files_of_all_sizes_are_read_mapped_and_executed_as_they_are() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let sizes = [0, 1, 4096, LARGE - 1, LARGE, LARGE + 1, LARGE + 4095, (3 << 20) + 17];
    let mut root = Directory::new();
    for len in sizes {
        put(&mut root, &format!("files/{len}"), file(content(1, len)));
    }
    with_programs(&mut root, &["sh", "cat"]);
    // A large program, which ends as it should with whatever lies behind it.
    let mut large = fs::read("/usr/bin/true").unwrap();
    large.resize(5 << 20, 7);
    put(&mut root, "large", program(large));
    lab.commit(&root);
    let (mounted, events) = lab.mount_passing(Shape::Follow);
    let target = lab.target();
    for round in 0..2 {
        for len in sizes {
            let at = format!("{len} bytes, round {round}");
            let path = target.join(format!("files/{len}"));
            assert!(fs::read(&path).unwrap() == content(1, len), "{at}");
            let open = File::open(&path).unwrap();
            assert_eq!(open.metadata().unwrap().len(), len as u64);
            if len > 0 {
                let mut last = [0; 2];
                assert_eq!(open.read_at(&mut last, len as u64 - 1).unwrap(), 1, "{at}");
                assert!(sys::Mapped::new(&open, len).bytes() == content(1, len), "{at}");
            }
        }
        assert!(Command::new(target.join("large")).status().unwrap().success());
        let script = ["/usr/bin/sh", "-c", "cat /files/262145"];
        let output = Command::new("chroot").arg(&target).args(script).output().unwrap();
        assert!(output.stdout == content(1, LARGE + 1), "{output:?}");
    }
    let (passed, fallbacks) = opens(&lab);
    assert!(passed >= 2 * (2 * 4 + 2), "{passed}");
    assert_eq!(fallbacks, 0);
    assert!(!lab.plain(&content(1, LARGE - 1)).exists() && lab.plain(&content(1, LARGE)).exists());
    assert_eq!(events.take(), Vec::<String>::new());
    drop(mounted);
}

#[test]
fn no_byte_of_a_large_file_goes_through_the_mount() {
    let Some(lab) = Lab::for_passthrough() else { return };
    lab.commit(&items_of([("large", file(content(1, 2 << 20))), ("small", file("text"))]));
    let (_mounted, _) = lab.mount_passing(Shape::Follow);
    let large = lab.target().join("large");
    for round in 1..=3 {
        let open = File::open(&large).unwrap();
        sys::drop_pages(open.as_fd());
        assert!(fs::read(&large).unwrap() == content(1, 2 << 20));
        let stats = lab.stats();
        assert_eq!((stats.bytes_read, requests(&stats, "read")), (0, 0), "round {round}");
        assert_eq!(stats.passthrough.opens, 2 * round);
        assert_eq!((stats.passthrough.open, stats.passthrough.backing_ids), (1, 1));
        drop(open);
        all_closed(&lab);
    }
    // What is small is read once, and stays in the page cache when it is opened again.
    for _ in 0..3 {
        assert_eq!(fs::read(lab.target().join("small")).unwrap(), b"text");
        assert_eq!(lab.stats().bytes_read, 4);
    }
}

#[test]
fn states_share_the_pages_of_a_content_whatever_else_they_say_of_it() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let bytes = content(1, 1 << 20);
    let at = |seconds| {
        let attributes =
            Attributes { mtime: support::at(seconds, 0), ..Attributes::of_root(0o644) };
        items_of([("large", Item::File(attributes, bytes.clone()))])
    };
    lab.commit(&at(1));
    lab.commit(&at(2));
    let (_mounted, _) = lab.mount_passing(Shape::Folder);
    let [first, second] =
        [1, 2].map(|state| File::open(lab.target().join(format!("states/{state}/large"))).unwrap());
    assert_ne!(first.metadata().unwrap().ino(), second.metadata().unwrap().ino());
    assert_eq!(lab.stats().passthrough.backing_ids, 1);
    let plain = File::open(lab.plain(&bytes)).unwrap();
    plain.sync_all().unwrap();
    let mapped = sys::Mapped::new(&second, bytes.len());
    sys::drop_pages(plain.as_fd());
    assert_eq!(mapped.resident(), 0);
    let mut all = Vec::new();
    (&first).read_to_end(&mut all).unwrap();
    assert!(all == bytes);
    assert_eq!(mapped.resident(), bytes.len() / 4096);
}

#[test]
fn what_has_no_room_is_read_as_on_any_mount() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let (fits, does_not) = (content(1, 300 << 10), content(2, 3 << 20));
    lab.commit(&items_of([("fits", file(&fits)), ("not", file(&does_not))]));
    let plain = lab.store.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let little = sys::Mounted::new("tmpfs", &plain, "size=2m");
    let (mounted, events) = lab.mount_passing(Shape::Follow);
    let read = |name: &str| fs::read(lab.target().join(name)).unwrap();
    let open = File::open(lab.target().join("not")).unwrap();
    for _ in 0..3 {
        assert!(read("not") == does_not && read("fits") == fits);
    }
    assert_eq!(opens(&lab), (3, 4));
    let told = events.take();
    assert_eq!(told.len(), 1, "it was tried once: {told:?}");
    assert!(told[0].contains("cannot expand") && told[0].contains("no storage"), "{told:?}");
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 1);
    drop((open, mounted, little));
    // Where there is room it is expanded, by the next process.
    let (_mounted, events) = lab.mount_passing(Shape::Follow);
    assert!(read("not") == does_not);
    assert_eq!((opens(&lab), events.take()), ((1, 0), vec![]));
}

#[test]
fn what_lies_half_written_or_damaged_among_the_plain_files_is_not_shown() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let contents: Vec<Vec<u8>> = (0..4).map(|seed| content(seed, LARGE + 10)).collect();
    let mut root = Directory::new();
    for (at, bytes) in contents.iter().enumerate() {
        put(&mut root, &at.to_string(), file(bytes));
    }
    lab.commit(&root);
    fs::create_dir(lab.store.path().join("plain")).unwrap();
    let mut flipped = contents[2].clone();
    flipped[LARGE] ^= 1;
    let spoil = || {
        fs::write(lab.plain(&contents[0]), &contents[0][..LARGE]).unwrap();
        fs::write(lab.plain(&contents[1]), vec![0; LARGE + 10]).unwrap();
        fs::write(lab.plain(&contents[2]), &flipped).unwrap();
        fs::write(lab.plain(&contents[3]), &contents[0]).unwrap();
    };
    spoil();
    let (mounted, events) = lab.mount_passing(Shape::Follow);
    let check = || {
        for (at, bytes) in contents.iter().enumerate() {
            assert!(fs::read(lab.target().join(at.to_string())).unwrap() == *bytes, "file {at}");
        }
    };
    check();
    drop(mounted);
    // A next process does not take the word of the one before.
    contents.iter().for_each(|bytes| fs::remove_file(lab.plain(bytes)).unwrap());
    spoil();
    let (_mounted, _) = lab.mount_passing(Shape::Follow);
    check();
    assert_eq!(opens(&lab), (4, 0));
    assert_eq!(events.take(), Vec::<String>::new());
}

#[test]
fn a_damaged_content_fails_where_it_is_damaged_and_nowhere_else() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let bytes = content(1, 2 << 20);
    lab.commit(&items_of([("large", file(&bytes))]));
    let packs = fs::read_dir(lab.store.path().join("packs")).unwrap();
    let packs = packs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let pack = packs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let pack = File::options().read(true).write(true).open(pack).unwrap();
    let (at, mut byte) = (pack.metadata().unwrap().len() / 2, [0]);
    pack.read_exact_at(&mut byte, at).unwrap();
    pack.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let (_mounted, events) = lab.mount_passing(Shape::Follow);
    let open = File::open(lab.target().join("large")).unwrap();
    let mut begin = vec![0; 100_000];
    open.read_exact_at(&mut begin, 0).unwrap();
    assert!(begin == bytes[..100_000]);
    let mut all = Vec::new();
    let error = (&open).read_to_end(&mut all).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(bytes.starts_with(&all));
    assert_eq!(opens(&lab), (0, 1));
    let told = events.take();
    assert!(told[0].contains("cannot expand") && told[0].contains("damaged"), "{told:?}");
    assert_eq!(fs::read_dir(lab.store.path().join("plain")).unwrap().count(), 0);
}

#[test]
fn a_switch_shows_the_new_content_and_leaves_what_is_open_alone() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let states = [content(1, 1 << 20), content(2, 1 << 20)];
    for bytes in &states {
        lab.commit(&items_of([("large", file(bytes)), ("same", file(content(3, LARGE)))]));
    }
    lab.store.switch(FIRST).unwrap();
    let (_mounted, events) = lab.mount_passing(Shape::Follow);
    let large = lab.target().join("large");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mixed = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let bytes = fs::read(&large).unwrap();
                assert!(states.contains(&bytes), "a mixture");
            }
        });
        for state in (1..=20).map(|round| round % 2) {
            let open = File::open(&large).unwrap();
            let mapped = sys::Mapped::new(&open, 1 << 20);
            lab.store.switch(cairn_store::StateId(state + 1)).unwrap();
            lab.refresh();
            let [new, old] = [
                &states[usize::try_from(state).unwrap()],
                &states[1 - usize::try_from(state).unwrap()],
            ];
            assert!(fs::read(&large).unwrap() == *new);
            let mut still = Vec::new();
            (&open).read_to_end(&mut still).unwrap();
            assert!(still == *old && mapped.bytes() == *old);
            assert!(!mixed.is_finished());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(lab.stats().bytes_read, 0);
    assert_eq!(events.take(), Vec::<String>::new());
}

#[test]
fn a_collection_takes_what_is_no_longer_shown_and_its_room_comes_back() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let [old, new] = [1, 2].map(|seed| content(seed, LARGE));
    lab.commit(&items_of([("large", file(&old))]));
    let (mounted, _) = lab.mount_passing(Shape::Follow);
    let path = lab.target().join("large");
    let open = File::open(&path).unwrap();
    lab.commit(&items_of([("large", file(&new))]));
    lab.refresh();
    assert!(fs::read(&path).unwrap() == new);
    let gc = || lab.store.gc(GcOptions::default(), &()).unwrap().plain.files;
    // What is open is from a root that the mount holds.
    assert_eq!(gc(), 0);
    drop(open);
    all_closed(&lab);
    sys::drop_names(&lab.target());
    eventually("the old root is let go", || {
        let trees = cairn_fs::list(&lab.run_directory()).unwrap().remove(0).trees;
        (trees.len() == 1).then_some(())
    });
    assert_eq!(lab.stats().passthrough.backing_ids, 2);
    assert_eq!((gc(), lab.plain(&old).exists(), lab.plain(&new).exists()), (1, false, true));
    lab.refresh();
    eventually("the removed file is closed", || {
        (lab.stats().passthrough.backing_ids == 1).then_some(())
    });
    assert!(fs::read(&path).unwrap() == new);
    drop(mounted);
    assert_eq!((gc(), lab.plain(&new).exists()), (1, false));
}

/// Anybody may take the files away at any time.
#[test]
fn the_plain_files_may_go_at_any_time() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let bytes = content(1, 1 << 20);
    lab.commit(&items_of([("large", file(&bytes)), ("other", file(content(2, LARGE)))]));
    let (_mounted, events) = lab.mount_passing(Shape::Follow);
    let path = lab.target().join("large");
    let open = File::open(&path).unwrap();
    fs::remove_dir_all(lab.store.path().join("plain")).unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
    let mut all = Vec::new();
    (&open).read_to_end(&mut all).unwrap();
    assert!(all == bytes);
    assert!(fs::read(lab.target().join("other")).unwrap() == content(2, LARGE));
    drop(open);
    all_closed(&lab);
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!((lab.stats().bytes_read, events.take()), (0, vec![]));
}

/// Whoever opens a file while it is expanded waits for that, and others do not.
#[test]
fn many_open_the_same_file_at_once_and_it_is_expanded_once() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let bytes = content(1, 8 << 20);
    lab.commit(&items_of([("large", file(&bytes)), ("again", file(&bytes))]));
    let (_mounted, events) = lab.mount_passing(Shape::Follow);
    thread::scope(|scope| {
        for name in ["large", "again"].into_iter().cycle().take(16) {
            let (path, bytes) = (lab.target().join(name), &bytes);
            scope.spawn(move || assert!(fs::read(path).unwrap() == *bytes));
        }
    });
    let stats = lab.stats();
    assert_eq!((stats.passthrough.opens, stats.passthrough.fallbacks), (16, 0));
    assert_eq!((stats.passthrough.backing_ids, stats.bytes_read), (1, 0));
    assert_eq!(stats.store.bytes_decoded / bytes.len() as u64, 1, "{:?}", stats.store);
    assert_eq!(events.take(), Vec::<String>::new());
}

/// Where the store lies on an overlay, the kernel does not permit it.
#[test]
fn where_the_kernel_does_not_permit_it_the_mount_is_one_without() {
    let Some(lab) = Lab::for_passthrough() else { return };
    lab.commit(&items_of([("large", file(content(1, LARGE)))]));
    let place = tempfile::tempdir().unwrap();
    let below = |name: &str| place.path().join(name);
    for name in ["upper", "work", "over"] {
        fs::create_dir(below(name)).unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lab.store.path().display(),
        below("upper").display(),
        below("work").display()
    );
    let _over = sys::Mounted::new("overlay", &below("over"), &options);
    let mount = |path: &Path| {
        let store = cairn_store::Store::open(path).unwrap();
        let events = support::Events::default();
        let options = cairn_fs::Options {
            passthrough: true,
            ..cairn_fs::Options::new(Shape::Follow, &lab.target(), path)
        };
        (cairn_fs::start(store, &options, events.journal()).unwrap(), events)
    };
    let (mounted, events) = mount(&below("over"));
    let registered = cairn_fs::list(&below("over/run")).unwrap().remove(0);
    assert!(!registered.passthrough);
    let reason = registered.passthrough_refused.unwrap();
    assert!(reason.contains("symbolic links"), "ELOOP: {reason}");
    assert_eq!(events.take().len(), 1);
    assert!(fs::read(lab.target().join("large")).unwrap() == content(1, LARGE));
    let stats = cairn_fs::control::stats(
        &below("over/run"),
        &cairn_fs::list(&below("over/run")).unwrap()[0],
        support::PATIENCE,
    )
    .unwrap();
    assert_eq!((requests(&stats, "open"), stats.passthrough), (0, Passed::default()));
    assert!(!below("over/plain").exists());
    drop(mounted);
}
