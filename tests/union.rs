//! An overlay on a mount is one filesystem: any two changes in a row, of everything that a tree
//! can hold, give what they give on ext4, and leave the same.
//!
//! That is tried with plain directories on ext4 as the model, in overlays of three kinds:
//!
//! | overlay | directories are renamed | hard links of the state stay one file |
//! |---|---|---|
//! | with nothing turned on | no: EXDEV, as mv(1) expects it | no |
//! | a workspace: `redirect_dir`, `metacopy`, `xino` | yes | no (docs/workspaces.md, "Limits") |
//! | `redirect_dir`, `index`, `nfs_export`, `xino` | yes | yes |
//!
//! `ENDURE_PAIRS` is how many pairs are tried in each; without it, some.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_tests::{Cairn, Call, Listing, Mount, Mounted, Need, Random, amount, run};

/// What each pair of changes finds; `@` is a directory of its own.
const TREE: [&str; 18] = [
    "mkdir(@, 755)",
    "write(@/file, text, 644)",
    "write(@/other, other, 640)",
    "setxattr(@/other, user.kept, value)",
    "mkdir(@/vacant, 755)",
    "mkdir(@/full, 755)",
    "write(@/full/inside, inside, 644)",
    "mkdir(@/full/below, 711)",
    "write(@/full/below/deep, deep, 600)",
    "symlink(file, @/link)",
    "symlink(full, @/way)",
    "mknod(@/pipe, fifo, 644)",
    "write(@/one, linked, 644)",
    "link(@/one, @/two)",
    "utimens(@/file, 1000000000, 123456789)",
    "utimens(@/other, 1000000001, 0)",
    "utimens(@/one, 1000000002, 5)",
    "utimens(@/full/inside, 1000000003, 7)",
];

/// Changes of files and of what directories hold.
const CHANGES: [&[&str]; 35] = [
    &["write(@/file, new, 644)"],
    &["append(@/file, more)"],
    &["append(@/link, through a link)"],
    &["truncate(@/file, 2)"],
    &["open(@/file, O_RDONLY|O_TRUNC)"],
    &["open(@/file, O_RDWR|O_CREAT|O_EXCL, 600)"],
    &["chmod(@/file, 4750)"],
    &["chown(@/file, 7, 8)"],
    &["utimens(@/file, 1000000009, 9)"],
    &["setxattr(@/file, user.a, b)"],
    &["unlink(@/file)"],
    &["link(@/file, @/hard)"],
    &["mkdir(@/file, 755)"],
    &["symlink(other, @/file)"],
    &["rename(@/file, @/moved)"],
    &["rename(@/file, @/other)"],
    &["rename(@/file, @/vacant)"],
    &["rename(@/file, @/full/inside)"],
    &["rename(@/file, @/other, RENAME_EXCHANGE)"],
    &["rename(@/full/inside, @/file, RENAME_NOREPLACE)"],
    &["rename(@/other, @/way/other)"],
    &["removexattr(@/other, user.kept)"],
    &["unlink(@/link)"],
    &["rename(@/link, @/file)"],
    &["unlink(@/pipe)", "write(@/pipe, a file, 644)"],
    &["rename(@/pipe, @/full/below/pipe)"],
    &["write(@/way/new, new, 644)"],
    &["unlink(@/full/inside)"],
    &["unlink(@/full/below/deep)", "rmdir(@/full/below)"],
    &["chmod(@/full, 2711)"],
    &["setxattr(@/full, user.a, b)"],
    &["rmdir(@/full)"],
    &["rmdir(@/vacant)"],
    &["mkdir(@/vacant, 700)"],
    // What is made anew shows nothing of what was there.
    &[
        "unlink(@/full/inside)",
        "unlink(@/full/below/deep)",
        "rmdir(@/full/below)",
        "rmdir(@/full)",
        "mkdir(@/full, 755)",
    ],
];

/// Directories that get another name.
const RENAMES: [&[&str]; 7] = [
    &["rename(@/full, @/moved)"],
    &["rename(@/full, @/vacant)"],
    &["rename(@/vacant, @/full)"],
    &["rename(@/full, @/full/below/deeper)"],
    &["rename(@/full/below, @/up)"],
    &["rename(@/full, @/file, RENAME_EXCHANGE)"],
    &["rename(@/full/below, @/vacant/below)", "write(@/vacant/below/deep, new, 644)"],
];

/// Files with two names.
const LINKS: [&[&str]; 6] = [
    &["append(@/one, more)"],
    &["chmod(@/two, 600)"],
    &["unlink(@/one)"],
    &["link(@/one, @/full/three)"],
    &["rename(@/one, @/two)"],
    &["rename(@/one, @/file)"],
];

/// A directory in which pairs of changes are made, each in a directory with its number.
struct Place<'a>(&'a Path);

impl Place<'_> {
    /// Makes calls in directory `number`; returns what each gave.
    fn make(&self, number: usize, calls: &[&str]) -> Vec<String> {
        let here = format!("{}/{number}", self.0.display());
        let calls = calls.iter().map(|call| Call::parse(&call.replace('@', &here)).unwrap());
        calls.map(|call| call.perform().unwrap()).collect()
    }

    /// What there is, but for times that are those of changes.
    fn listing(&self, links: Links) -> Listing {
        let mut listing = Listing::of_directory(self.0);
        for entry in listing.0.values_mut() {
            entry.mtime = entry.mtime.filter(|(seconds, _)| *seconds < 1_100_000_000);
            entry.links = match links {
                Links::Compared => entry.links.take(),
                Links::Ignored => None,
            };
        }
        listing
    }
}

/// Whether it is compared which names are hard links of one file.
#[derive(Clone, Copy)]
enum Links {
    Compared,
    /// A file that was copied up has number and count of the one in the state, if it can be found
    /// by its handle: if the kernel still knows it, as it is with every lower layer of FUSE that
    /// finds no file by a number alone. What is written to one name is seen in the others anyway.
    Ignored,
}

type Pair = [&'static [&'static str]; 2];

/// Any two of all changes, or as many of these as are wanted.
fn pairs(changes: &[&[&'static [&'static str]]]) -> Vec<Pair> {
    let changes = changes.concat();
    let mut pairs = Vec::new();
    for first in &changes {
        pairs.extend(changes.iter().map(|second| [*first, *second]));
    }
    let mut random = Random(3);
    while pairs.len() > amount("ENDURE_PAIRS", 60) {
        pairs.swap_remove(random.below(pairs.len()));
    }
    println!("{} pairs of {} changes", pairs.len(), changes.len());
    pairs
}

/// A store in memory, where copying up need not wait for a disk.
fn store() -> (Cairn, Mounted) {
    let cairn = Cairn::new();
    let memory = Mounted::new(&cairn.store(), &["-t", "tmpfs", "-o", "mode=700", "none"]);
    (cairn, memory)
}

/// Puts the tree for `count` pairs into the store, as state 1.
fn import(cairn: &Cairn, count: usize) {
    let root = cairn.directory().join("root");
    fs::create_dir(&root).unwrap();
    for number in 0..count {
        let made = Place(&root).make(number, &TREE);
        assert!(made.iter().all(|given| given == "ok"), "{made:?}");
    }
    cairn.data(["import", "root"]);
}

/// Makes the changes in a copy of the plain files and in what `mount` mounts, and compares: what
/// each gives, what is there, and what is there when it is mounted again. Returns that.
fn check<M>(
    cairn: &Cairn,
    pairs: &[Pair],
    links: Links,
    mount: impl Fn() -> M,
    path: fn(&M) -> &Path,
    umount: fn(M),
) -> Listing {
    let plain = cairn.directory().join("plain");
    run(Command::new("cp").arg("-a").args([&cairn.directory().join("root"), &plain]));
    let overlay = mount();
    for (number, pair) in pairs.iter().enumerate() {
        for change in pair {
            let expected = Place(&plain).make(number, change);
            let given = Place(path(&overlay)).make(number, change);
            assert_eq!(given, expected, "{number}: {change:?} of {pair:?}");
        }
    }
    let model = Place(&plain).listing(links);
    Place(path(&overlay)).listing(links).assert_same(&model, "the overlay");
    umount(overlay);
    let overlay = mount();
    Place(path(&overlay)).listing(links).assert_same(&model, "mounted again");
    umount(overlay);
    model
}

const NEEDS: [Need; 2] = [Need::Fuse, Need::Root];

/// An overlay on state 1, which is not changed by what is done there.
fn check_overlay(pairs: &[Pair], options: &str) {
    let (cairn, memory) = store();
    import(&cairn, pairs.len());
    let state = Mount::new(&cairn, &["--state", "1"], "state");
    let before = Listing::of_directory(state.path());
    let merged = cairn.directory().join("merged");
    let [upper, work] = ["upper", "work"].map(|it| memory.path().join(it));
    for directory in [&upper, &work] {
        fs::create_dir(directory).unwrap();
    }
    let layers = [("lowerdir", state.path()), ("upperdir", &upper), ("workdir", &work)];
    let layers = layers.map(|(name, path)| format!("{name}={},", path.display())).concat();
    let options = layers + options;
    let mount = || Mounted::new(&merged, &["-t", "overlay", "overlay", "-o", &options]);
    // The kernel turns off what it cannot do.
    let mounted = mount();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let shown = mounts.lines().find(|line| line.contains(merged.to_str().unwrap())).unwrap();
    let mut on = options.split(',').filter(|option| option.ends_with("=on"));
    assert!(on.all(|option| shown.contains(option)), "{shown}");
    mounted.umount();
    check(&cairn, pairs, Links::Ignored, mount, Mounted::path, Mounted::umount);
    Listing::of_directory(state.path()).assert_same(&before, "the state below");
}

#[test]
fn an_overlay_with_nothing_turned_on_is_one_filesystem_but_for_names_of_directories() {
    if Need::all(&NEEDS) {
        let options = "redirect_dir=nofollow,metacopy=off,index=off,xino=off";
        check_overlay(&pairs(&[&CHANGES]), options);
    }
}

#[test]
fn an_overlay_with_an_index_is_one_filesystem() {
    if Need::all(&NEEDS) {
        let options = "redirect_dir=on,metacopy=off,index=on,nfs_export=on,xino=on";
        check_overlay(&pairs(&[&CHANGES, &RENAMES, &LINKS]), options);
    }
}

#[test]
fn a_workspace_is_one_filesystem_and_so_is_its_snapshot() {
    if !Need::all(&NEEDS) {
        return;
    }
    let pairs = pairs(&[&CHANGES, &RENAMES]);
    let (cairn, _memory) = store();
    import(&cairn, pairs.len());
    let mount = || Mount::new(&cairn, &["--rw", "work", "--state", "1"], "merged");
    let model = check(&cairn, &pairs, Links::Compared, mount, Mount::path, Mount::umount);
    cairn.data(["snapshot", "work"]);
    let state = Mount::new(&cairn, &["--state", "2"], "state");
    Place(state.path()).listing(Links::Compared).assert_same(&model, "the snapshot");
}
