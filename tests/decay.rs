//! A store with real packages, in which a thousand bytes are flipped, some at a time, and packs
//! are cut off: what is damaged is found and told, never read, and mended.
//!
//! Bytes of packs and of the index are flipped; refs/log is damaged in `store/src/log`.
//! `DECAY_FLIPS` is how many (1,000). In each eighth round files are read through a mount and the
//! store is repaired; where there are more than 1,000 flips, in each round.
//!
//! Of the index not each flip is told: much of what lies there nobody reads (its journal, its
//! options, room at the ends of blocks), and an index that is found to be damaged is made anew.
//! What has to hold is that it then says of everything where it lies.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_store::{Entry, Error, Store, TreeId};
use cairn_tests::{Cairn, Kind, Listing, Mount, Need, Random, amount, real};

/// How many there are where nobody asks for more.
const FLIPS: usize = 1000;
/// How many there are at once, and how many of these lie in the index.
const AT_ONCE: usize = 40;
const IN_INDEX: usize = 4;
/// In one of so many rounds files are read through a mount, and the store is repaired.
const MOUNTED: usize = 8;
/// In one of so many rounds a pack is cut off.
const CUT: usize = 3;

/// Equal directories, many small files, hard links, and directories with pages.
const PACKAGES: [&str; 3] = ["base-files", "nano", "tzdata"];

/// A byte of a pack that was flipped.
#[derive(Debug)]
struct Flip {
    file: PathBuf,
    /// The frame in which it lies, unless that is none.
    frame: Option<u32>,
}

/// The frame of a pack that a byte lies in, as docs/store.md tells; most lie in one.
fn frame_of(pack: &[u8], at: usize) -> Option<u32> {
    let number = |at: usize| u32::from_le_bytes(pack[at..at + 4].try_into().unwrap());
    let footer = pack.len() - 48;
    let (frames, objects) = (number(footer) as usize, number(footer + 4) as usize);
    let table = footer - 65 * objects - 16 * frames;
    let lengths = (0..frames).map(|frame| number(table + 16 * frame) & 0x7fff_ffff);
    let mut ends = lengths.scan(8, |end, len| {
        *end += len as usize;
        Some(*end)
    });
    let frame = ends.position(|end| at < end).filter(|_| at >= 8)?;
    Some(u32::try_from(frame).unwrap())
}

/// The files below `directory` that have a byte.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files =
        entries.filter(|entry| entry.metadata().is_ok_and(|it| it.is_file() && it.len() > 0));
    let mut files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Flips bits of so many bytes of files, each of another place; returns these files and places,
/// and what the files were before.
fn flip(files: &[PathBuf], count: usize, random: &mut Random) -> Vec<(PathBuf, Vec<u8>, usize)> {
    let whole: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let total = whole.iter().map(Vec::len).sum();
    let mut places = BTreeSet::new();
    while places.len() < count {
        places.insert(random.below(total));
    }
    let flips = places.into_iter().map(|mut at| {
        let mut which = 0;
        while at >= whole[which].len() {
            at -= whole[which].len();
            which += 1;
        }
        let flipped = whole[which][at] ^ u8::try_from(1 + random.below(255)).unwrap();
        let file = File::options().write(true).open(&files[which]).unwrap();
        file.write_all_at(&[flipped], at as u64).unwrap();
        (files[which].clone(), whole[which].clone(), at)
    });
    flips.collect()
}

/// Cuts a pack off at a random place.
fn cut_off(packs: &[PathBuf], random: &mut Random) -> Flip {
    let file = random.choose(packs).clone();
    let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
    File::options().write(true).open(&file).unwrap().set_len(random.below(len) as u64).unwrap();
    Flip { file, frame: None }
}

/// Flips of tables of the index; what else lies there may be read by nobody.
struct OfIndex(Vec<(PathBuf, Vec<u8>)>);

impl OfIndex {
    /// Flips bytes of all files of the index.
    fn flip(store: &Path, random: &mut Random) -> Self {
        let flips = flip(&files(&store.join("index")), IN_INDEX, random);
        let tables = flips.into_iter().map(|(file, ..)| file);
        let tables = tables.filter(|file| file.extension() == Some("sst".as_ref()));
        Self(tables.map(|file| (file.clone(), fs::read(file).unwrap())).collect())
    }

    /// Whether there are any, and none of the tables is left as it is.
    fn is_gone(&self) -> bool {
        let is_left =
            |(file, bytes): &(PathBuf, Vec<u8>)| fs::read(file).is_ok_and(|it| it == *bytes);
        !self.0.is_empty() && !self.0.iter().any(is_left)
    }
}

/// Checks that verification has found each of the flips of packs; returns the paths that
/// it tells, and whether it tells of the index.
fn check_found(store: &Store, flips: &[Flip], at: &str) -> (BTreeSet<String>, bool) {
    let damage = store.verify(&()).unwrap().damage;
    let (mut packs, mut frames) = (BTreeSet::new(), BTreeSet::new());
    for damage in &damage {
        assert!(damage.error.is_damage(), "{at}: {}", damage.error);
        assert_eq!(damage.more, 0, "{at}: {damage:?}");
        match &damage.error {
            Error::DamagedPack { path, .. } => drop(packs.insert(path.clone())),
            Error::DamagedFrame { pack, frame, .. } => {
                let path = store.path().join(format!("packs/{pack}.pack"));
                frames.insert((path, *frame));
            }
            _ => {}
        }
    }
    for flip in flips {
        let is_told = packs.contains(&flip.file)
            || flip.frame.is_some_and(|frame| frames.contains(&(flip.file.clone(), frame)));
        assert!(is_told, "{at}: {flip:?} was not found: {damage:?}");
    }
    let is_of_index = damage.iter().any(|it| matches!(it.error, Error::WrongIndex { .. }));
    let paths = damage.into_iter().flat_map(|damage| damage.paths).map(|(_, path)| path);
    (paths.collect(), is_of_index)
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// Reads everything out of the store: it is what it was, or damage that is met; returns the
/// paths of the latter.
fn check_tree(
    (store, truth, at): (&Store, &Listing, &str),
    id: TreeId,
    path: &[u8],
) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    let fails = |path: &[u8], err: &Error| {
        assert!(err.is_damage(), "{at}: {}: {err:?}", shown(path));
        shown(path)
    };
    let tree = match store.tree(id) {
        Ok(tree) => tree,
        Err(err) => return BTreeSet::from([fails(path, &err)]),
    };
    for (name, entry) in tree.entries() {
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let below = [path, slash, name.as_bytes()].concat();
        match entry {
            Entry::Directory(subtree) => {
                failed.extend(check_tree((store, truth, at), subtree.id, &below));
            }
            Entry::Leaf(leaf) => {
                let Some(blob) = leaf.blob() else { continue };
                let mut hasher = blake3::Hasher::new();
                let read = store.write_to(blob, |piece| {
                    hasher.update(piece);
                    Ok(())
                });
                match (read, &truth.0[&below].kind) {
                    (Ok(()), Kind::File { digest, .. }) => {
                        assert!(hasher.finalize() == *digest, "{at}: wrong {}", shown(&below));
                    }
                    (Ok(()), kind) => panic!("{at}: {} is {kind:?}", shown(&below)),
                    (Err(err), _) => drop(failed.insert(fails(&below, &err))),
                }
            }
        }
    }
    failed
}

/// Reads everything through a mount: it is what it was, or an error; returns the paths
/// with an error.
fn check_mount(mount: Mount<'_>, truth: &Listing, at: &str) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    for (path, entry) in truth.0.iter().filter(|(path, _)| !path.is_empty()) {
        let file = mount.path().join(std::ffi::OsStr::from_bytes(path));
        let is_right = match &entry.kind {
            Kind::Directory => fs::read_dir(&file)
                .and_then(|mut it| it.try_for_each(|entry| entry.map(drop)).map(|()| true)),
            Kind::File { digest, .. } => {
                fs::read(&file).map(|bytes| blake3::hash(&bytes) == *digest)
            }
            Kind::Symlink(text) => {
                fs::read_link(&file).map(|it| it.as_os_str().as_bytes() == *text)
            }
            _ => fs::symlink_metadata(&file).map(|_| true),
        };
        match is_right {
            Ok(is_right) => assert!(is_right, "{at}: wrong {}", shown(path)),
            Err(err) => {
                assert_eq!(err.raw_os_error(), Some(libc::EIO), "{at}: {}: {err}", shown(path));
                failed.insert(shown(path));
            }
        }
    }
    mount.umount();
    failed
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_thousand_flipped_bytes_of_real_packages_are_found_never_read_and_mended() {
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let Some(stones) = real::repository() else { return };
    let cairn = Cairn::new();
    cairn.data(["repo", "add", "real", &format!("file://{}", stones.display())]);
    cairn.data([&["--yes", "install"][..], &PACKAGES].concat());
    for _ in 0..10 {
        // Each leaves a log of the index, until there are so many that a table is made of them.
        drop(Store::open(&cairn.store()).unwrap().begin().unwrap());
    }
    cairn.data(["--yes", "install", "sudo"]);
    assert!(
        files(&cairn.store().join("index")).iter().any(|it| it.extension() == Some("sst".as_ref()))
    );
    let sound = cairn.directory().join("sound");
    copy(&cairn.store(), &sound);
    let source = Store::open(&sound).unwrap();
    let tree: TreeId = source.current().unwrap().tree;
    let truth = Listing::of_tree(&source, tree);
    assert!(truth.0.len() > 2000, "{} entries", truth.0.len());

    let mut random = Random(20_261_129);
    let mut failed = 0;
    let count = amount("DECAY_FLIPS", FLIPS);
    let (mut cuts, mut of_index, mut found_in_index) = (0, 0, 0);
    for round in 0..count / AT_ONCE {
        let at = format!("round {round}");
        let is_mounted = count > FLIPS || round % MOUNTED == 0;
        // What was repaired has to be as good as what was whole.
        if round % MOUNTED != 1 {
            copy(&sound, &cairn.store());
        }
        let mount = is_mounted.then(|| Mount::new(&cairn, &["--follow"], "root"));
        let packs = files(&cairn.store().join("packs"));
        let flipped = flip(&packs, AT_ONCE - IN_INDEX, &mut random);
        let tables = OfIndex::flip(&cairn.store(), &mut random);
        let mut flips: Vec<Flip> = flipped
            .into_iter()
            .map(|(file, bytes, at)| Flip { frame: frame_of(&bytes, at), file })
            .collect();
        if round % CUT == CUT - 1 {
            let cut = cut_off(&packs, &mut random);
            // What lay behind is gone with what was flipped there.
            flips.retain(|flip| flip.file != cut.file);
            flips.push(cut);
            cuts += 1;
        }
        let through_mount = mount.map(|mount| check_mount(mount, &truth, &at));
        let store = Store::open(&cairn.store()).unwrap();
        let read = || check_tree((&store, &truth, &at), tree, b"");
        // Of an index that is made anew while it is read, and of one that is not.
        let ((told, is_told_of_index), mut unreadable) = if round % 2 == 0 {
            let unreadable = read();
            (check_found(&store, &flips, &at), unreadable)
        } else {
            (check_found(&store, &flips, &at), read())
        };
        of_index += usize::from(!tables.0.is_empty());
        found_in_index +=
            usize::from(!tables.0.is_empty() && (is_told_of_index || tables.is_gone()));
        unreadable.extend(through_mount.into_iter().flatten());
        // Of what lies below a directory that cannot be read only the directory is told.
        let is_told = |path: &str| {
            let ends = path.match_indices('/').map(|(at, _)| at.max(1));
            ends.chain([path.len()]).any(|end| told.contains(&path[..end]))
        };
        let untold: Vec<_> = unreadable.iter().filter(|path| !is_told(path)).collect();
        assert!(untold.is_empty(), "{at}: not told: {untold:?} of {told:?}");
        failed += unreadable.len();
        if is_mounted {
            if round % (2 * MOUNTED) == 0 {
                drop(store);
                let from = sound.to_str().unwrap();
                cairn.data(["verify", "--repair", "--from", from]);
            } else {
                let mut source = Store::open(&sound).unwrap();
                let repaired = store.repair(&mut [&mut source], &()).unwrap();
                assert!(repaired.missing.is_empty(), "{at}: {repaired:?}");
            }
            let store = Store::open(&cairn.store()).unwrap();
            let damage = store.verify(&()).unwrap().damage;
            assert!(damage.is_empty(), "{at}: {damage:?}");
            truth.assert_same(&Listing::of_tree(&store, tree), &at);
        }
    }
    println!(
        "{count} flips, {cuts} packs cut off: {failed} reads failed; in {found_in_index} of \
         {of_index} rounds with flips in tables of the index these were told, or made anew"
    );
    assert!(failed > count, "{failed} reads failed");
    assert!(found_in_index * 4 >= of_index * 3, "{found_in_index} of {of_index}");
}
