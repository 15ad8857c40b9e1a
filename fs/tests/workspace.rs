//! Workspaces on real overlays: what one shows is what its snapshot has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_fs::workspace::{self, Becomes, Snapshot};
use cairn_fs::{Error, RootBind, Running, Shape, Unmount};
use cairn_store::tree::{Content, Device};
use cairn_store::{Attributes, StateId, WorkspaceName, Xattr, diff};
use support::{Directory, Item, Lab, at, file, items_of, put, symlink as link};

fn name(text: &str) -> WorkspaceName {
    WorkspaceName::new(text).unwrap()
}

/// A workspace that is mounted until this is dropped.
struct Mounted {
    _running: Running,
    root: PathBuf,
}

fn mount(lab: &Lab, workspace: &str) -> Mounted {
    let held = lab.store.lock_workspace(&name(workspace)).unwrap();
    workspace::open(&held, None, &lab.store).unwrap();
    let journal = Arc::new(|event: &cairn_fs::Event| eprintln!("unexpected event: {event}"));
    let root = lab.temporary.path().join("workspace");
    fs::create_dir_all(&root).unwrap();
    let running = workspace::start(lab.store.clone(), held, &root, None, journal).unwrap();
    Mounted { _running: running, root }
}

fn snapshot(lab: &Lab, workspace: &str) -> Snapshot {
    let done =
        workspace::snapshot(&lab.store, &name(workspace), "changed", Becomes::CurrentIfBaseIs, &());
    let done = done.unwrap();
    assert!(done.unsettled.is_empty() && done.problem.is_none(), "{done:?}");
    done
}

/// All that a program can find out about what is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    bytes: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first of its paths, if it has several.
    linked: Option<PathBuf>,
}

type Seeing = BTreeMap<PathBuf, Seen>;

fn see(root: &Path) -> Seeing {
    see_with_links(root, |_, data| (data.dev(), data.ino()))
}

/// The same of a workspace. Which of its names are one file is asked of its layer:
/// after a while an overlay may show two numbers for one file that was copied up
/// (see docs/workspaces.md, "Limits").
fn see_workspace(lab: &Lab, mounted: &Mounted) -> Seeing {
    let workspace = lab.store.workspace_path(&name("web"));
    let layer = lab.store.workspace(&name("web")).unwrap().layer;
    let upper = cairn_store::workspace::layer_path(&workspace, layer).join("upper");
    see_with_links(&mounted.root, |path, data| {
        let below = path.strip_prefix(&mounted.root).unwrap();
        match fs::symlink_metadata(upper.join(below)) {
            Ok(above) => (above.dev(), above.ino()),
            Err(_) => (0, data.ino()),
        }
    })
}

fn see_with_links(root: &Path, identity: impl Fn(&Path, &fs::Metadata) -> (u64, u64)) -> Seeing {
    let mut seen = Seeing::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    let mut stack = vec![PathBuf::new()];
    while let Some(relative) = stack.pop() {
        let path = root.join(&relative);
        let data = fs::symlink_metadata(&path).unwrap();
        let bytes = if data.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if data.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, data.size(), "{}", path.display());
            bytes
        } else {
            Vec::new()
        };
        if data.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
            stack.extend(entries.map(|name| relative.join(name)));
        } else if data.nlink() > 1 {
            inodes.entry(identity(&path, &data)).or_default().push(relative.clone());
        }
        let xattrs = support::sys::xattrs(&path).into_iter();
        let xattrs = xattrs.map(|name| {
            let value = support::sys::xattr(&path, &name).unwrap();
            (name, value)
        });
        seen.insert(
            relative,
            Seen {
                mode: data.mode(),
                owner: (data.uid(), data.gid()),
                mtime: (data.mtime(), data.mtime_nsec()),
                device: data.rdev(),
                bytes,
                xattrs: xattrs.collect(),
                linked: None,
            },
        );
    }
    for mut paths in inodes.into_values().filter(|paths| paths.len() > 1) {
        paths.sort();
        for path in &paths {
            seen.get_mut(path).unwrap().linked = Some(paths[0].clone());
        }
    }
    seen
}

fn differing(left: &Seeing, right: &Seeing) -> BTreeSet<PathBuf> {
    let paths: BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    paths.into_iter().filter(|path| left.get(*path) != right.get(*path)).cloned().collect()
}

fn assert_same(left: &Seeing, right: &Seeing, what: &str) {
    let paths = differing(left, right);
    let first = paths.iter().next();
    let shown = first.map(|path| (path, left.get(path), right.get(path)));
    assert!(paths.is_empty(), "{what}: {paths:?}, first {shown:?}");
}

/// What a state is, seen through a mount of its own.
fn see_state(lab: &Lab, state: StateId) -> Seeing {
    let mounted = lab.mount(Shape::Pinned(state));
    let seen = see(&lab.target());
    drop(mounted);
    seen
}

fn with_xattrs(mut attributes: Attributes, xattrs: &[(&str, &[u8])]) -> Attributes {
    let xattrs = xattrs
        .iter()
        .map(|(name, value)| Xattr { name: name.as_bytes().into(), value: (*value).into() });
    attributes.xattrs = xattrs.collect();
    attributes.xattrs.sort();
    attributes
}

/// A root with one of everything.
fn root() -> Directory {
    let mut attributes = Attributes::of_root(0o4755);
    attributes.mtime = at(1_234_567_890, 123_456_789);
    let owned = Attributes { uid: 1234, gid: 4321, ..Attributes::of_root(0o640) };
    let twin = || Attributes::of_root(0o600);
    let marked = with_xattrs(
        Attributes::of_root(0o644),
        &[("user.color", b"red"), ("trusted.secret", b"s"), ("trusted.overlay.opaque", b"y")],
    );
    let mut root = items_of([
        ("suid", Item::File(attributes, b"#!/bin/sh\n".to_vec())),
        ("owned", Item::File(owned, b"owned".to_vec())),
        ("marked", Item::File(marked, b"marked".to_vec())),
        ("link", link("dir/a")),
        ("null", Item::Other(twin(), Content::CharDevice(Device { major: 1, minor: 3 }))),
        ("pipe", Item::Other(twin(), Content::Fifo)),
        ("twin-1", Item::Link("/twin-1".into(), 3, twin(), b"twin".to_vec())),
        ("twin-2", Item::Link("/twin-1".into(), 3, twin(), b"twin".to_vec())),
    ]);
    put(&mut root, "dir/twin-3", Item::Link("/twin-1".into(), 3, twin(), b"twin".to_vec()));
    for path in ["dir/a", "dir/b", "dir/sub/c", "dir/sub/deep/d", "other/e", "other/sub/f"] {
        put(&mut root, path, file(path));
    }
    put(&mut root, "empty/sub/nothing", Item::Directory(twin(), Directory::new()));
    root
}

#[test]
fn a_snapshot_has_what_the_workspace_shows() {
    let lab = Lab::default();
    lab.commit_with(&Attributes { gid: 7, ..Attributes::of_root(0o1755) }, &root());
    let mounted = mount(&lab, "web");
    let at = |path: &str| mounted.root.join(path);
    let before = see_state(&lab, StateId(1));
    assert_same(&see_workspace(&lab, &mounted), &before, "at first a workspace is its state");

    fs::write(at("dir/new"), "new").unwrap();
    File::options().append(true).open(at("dir/a")).unwrap().write_all(b" and more").unwrap();
    fs::set_permissions(at("dir/b"), Permissions::from_mode(0o4711)).unwrap();
    chown(at("owned"), Some(5), Some(6)).unwrap();
    fs::rename(at("dir"), at("moved")).unwrap();
    fs::rename(at("moved/sub/deep"), at("moved/sub/deeper")).unwrap();
    fs::rename(at("moved/sub"), at("other/sub2")).unwrap();
    fs::write(at("other/sub2/deeper/late"), "late").unwrap();
    fs::remove_dir_all(at("other/sub")).unwrap();
    fs::create_dir(at("other/sub")).unwrap();
    fs::write(at("other/sub/only"), "only").unwrap();
    fs::remove_file(at("link")).unwrap();
    fs::create_dir(at("link")).unwrap();
    fs::remove_dir_all(at("empty")).unwrap();
    fs::write(at("empty"), "a file now").unwrap();
    fs::hard_link(at("other/e"), at("other/e2")).unwrap();
    fs::write(at("twin-1"), "alone").unwrap();
    fs::hard_link(at("twin-1"), at("twin-4")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    support::sys::mknod(&at("zero"), libc::S_IFCHR | 0o620, (1, 5));
    support::sys::mknod(&at("moved/fifo"), libc::S_IFIFO | 0o600, (0, 0));
    support::sys::set_xattr(&at("suid"), "user.note", b"x").unwrap();
    support::sys::set_xattr(&at("other"), "trusted.overlay.mine", b"y").unwrap();
    support::sys::set_xattr(&at("marked"), "trusted.overlay.redirect", b"/dir").unwrap();

    let shown = see_workspace(&lab, &mounted);
    let changes = workspace::changes(&lab.store, &name("web")).unwrap();
    let mut told = BTreeSet::new();
    diff(&changes, changes.reference.tree, changes.tree, &mut |path, _| {
        told.insert(path.to_string().trim_start_matches('/').into());
        ControlFlow::Continue(())
    })
    .unwrap();
    let is_below_told = |path: &&PathBuf| {
        !path
            .ancestors()
            .skip(1)
            .any(|it| told.contains(it) && before.contains_key(it) != shown.contains_key(it))
    };
    let mut expected: BTreeSet<PathBuf> =
        differing(&before, &shown).iter().filter(is_below_told).cloned().collect();
    // What lay in a directory that became a file.
    expected.retain(|path| path.parent() != Some(Path::new("empty")));
    expected.remove(Path::new("empty/sub/nothing"));
    assert_eq!(told, expected);

    let done = snapshot(&lab, "web");
    assert_eq!(done.state.as_ref().unwrap().id, StateId(2));
    assert_eq!((done.is_current, done.continues, done.parent.id), (true, false, StateId(1)));
    assert_same(&see_state(&lab, StateId(2)), &shown, "the state is what was shown");
    assert_same(&see_workspace(&lab, &mounted), &shown, "the workspace goes on as it was");
    assert_same(&see_state(&lab, StateId(1)), &before, "the state below is as it was");
    let packages = |id| lab.store.state(StateId(id)).unwrap().packages;
    assert_eq!(packages(2), packages(1));
}

#[test]
fn a_workspace_goes_on_after_a_snapshot_whether_it_is_in_use_or_not() {
    let lab = Lab::default();
    lab.commit(&root());
    let mounted = mount(&lab, "web");
    let path = mounted.root.join("dir/a");
    fs::write(&path, "first").unwrap();
    let mut open = File::options().read(true).write(true).open(&path).unwrap();
    let first = snapshot(&lab, "web");
    assert!(!first.continues, "it is in use");
    let record = lab.store.workspace(&name("web")).unwrap();
    assert_eq!((record.base.id, record.reference().id), (StateId(1), StateId(2)));
    // Nothing has changed since; then something does, through a descriptor of before.
    assert!(snapshot(&lab, "web").state.is_none());
    open.write_all_at(b"FIRST", 0).unwrap();
    open.flush().unwrap();
    fs::write(mounted.root.join("dir/b"), "second").unwrap();
    let second = snapshot(&lab, "web");
    assert_eq!((second.parent.id, second.is_current), (StateId(2), true));
    let shown = see_workspace(&lab, &mounted);
    assert_same(&see_state(&lab, StateId(3)), &shown, "the second snapshot");
    drop(open);
    drop(mounted);

    // Nobody uses it now: it goes on with an empty layer, on the last state.
    let layers = || {
        let entries = fs::read_dir(lab.store.workspace_path(&name("web"))).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("layer-")).collect::<Vec<_>>()
    };
    assert_eq!(layers(), ["layer-1"]);
    let third = snapshot(&lab, "web");
    assert!(third.state.is_none() && third.continues);
    assert!(layers().is_empty(), "the layer is in the store now");
    let record = lab.store.workspace(&name("web")).unwrap();
    assert_eq!((record.base.id, record.layer, record.published), (StateId(3), 2, None));
    let mounted = mount(&lab, "web");
    assert_same(&see_workspace(&lab, &mounted), &shown, "it shows the same");
    fs::remove_file(mounted.root.join("dir/b")).unwrap();
    drop(mounted);
    let fourth = snapshot(&lab, "web");
    assert_eq!((fourth.parent.id, fourth.continues), (StateId(3), true));
    let mounted = mount(&lab, "web");
    assert_same(
        &see_state(&lab, StateId(4)),
        &see_workspace(&lab, &mounted),
        "the state without dir/b",
    );
    assert!(!mounted.root.join("dir/b").exists());
}

#[test]
fn a_snapshot_does_not_take_back_what_was_done_since_its_base() {
    let lab = Lab::default();
    lab.commit(&root());
    let mounted = mount(&lab, "web");
    fs::write(mounted.root.join("new"), "new").unwrap();
    let live = lab.mount(Shape::Follow);
    let mut other = root();
    other.insert(b"later".to_vec(), file("later"));
    lab.commit(&other);
    lab.refresh_following();
    assert!(lab.target().join("later").exists());
    let done = snapshot(&lab, "web");
    assert_eq!((done.parent.id, done.is_current), (StateId(1), false));
    assert_eq!(lab.store.refs().current, Some(StateId(2)));
    assert_eq!(lab.store.state(StateId(3)).unwrap().parent, Some(StateId(1)));
    // Unless somebody asks for just that.
    fs::write(mounted.root.join("new"), "newer").unwrap();
    let done = workspace::snapshot(&lab.store, &name("web"), "x", Becomes::Current, &()).unwrap();
    assert_eq!((done.parent.id, done.is_current), (StateId(3), true));
    lab.refresh_following();
    assert_eq!(fs::read(lab.target().join("new")).unwrap(), b"newer");
    assert!(!lab.target().join("later").exists());
    fs::write(mounted.root.join("new"), "newest").unwrap();
    let done = workspace::snapshot(&lab.store, &name("web"), "x", Becomes::Nothing, &()).unwrap();
    assert!(done.state.is_some() && !done.is_current);
    drop(live);
}

#[test]
fn whatever_is_done_in_a_workspace_its_snapshots_have_it() {
    // More of them in `make endure`.
    let seeds = std::env::var("MODEL_SEEDS").map_or(6, |number| number.parse().unwrap());
    for seed in 1..=seeds {
        let lab = Lab::default();
        lab.commit(&root());
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed << 20));
        let mut newest = StateId(1);
        for round in 0..4 {
            let mounted = mount(&lab, "web");
            for snapshots in 0..2 {
                let before = see_state(&lab, newest);
                for _ in 0..random.below(30) {
                    change_something(&mounted.root, &mut random);
                }
                let shown = see_workspace(&lab, &mounted);
                let what = format!("seed {seed}, round {round}, snapshot {snapshots}");
                // Not every change leaves a difference.
                let changes = workspace::changes(&lab.store, &name("web")).unwrap();
                let is_same = changes.reference.tree == changes.tree;
                let is_seen_same = differing(&before, &shown).is_empty();
                assert_eq!(is_same, is_seen_same, "{what}");
                let done = snapshot(&lab, "web");
                assert_eq!(done.state.is_none(), is_same, "{what}");
                if let Some(state) = done.state {
                    newest = state.id;
                }
                assert_same(&see_state(&lab, newest), &shown, &what);
            }
            drop(mounted);
            if random.below(2) == 0 {
                assert!(snapshot(&lab, "web").state.is_none());
            }
        }
        assert!(lab.store.verify(&()).unwrap().damage.is_empty());
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn choose<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Does something to something; what the kernel refuses is no change.
fn change_something(root: &Path, random: &mut Random) {
    let mut paths = vec![PathBuf::new()];
    let mut at = 0;
    while let Some(path) = paths.get(at).cloned() {
        at += 1;
        let full = root.join(&path);
        if fs::symlink_metadata(&full).unwrap().is_dir() {
            let names = fs::read_dir(full).unwrap().map(|entry| entry.unwrap().file_name());
            paths.extend(names.map(|name| path.join(name)));
        }
    }
    let path = root.join(random.choose(&paths));
    let data = fs::symlink_metadata(&path).unwrap();
    let directories: Vec<PathBuf> = paths
        .iter()
        .filter(|path| root.join(path).is_dir() && !root.join(path).is_symlink())
        .cloned()
        .collect();
    let place =
        root.join(random.choose(&directories)).join(random.choose(&["a", "b", "c", "n", "m"]));
    let number = random.below(1000);
    let ignored: io::Result<()> = match random.below(15) {
        0 => fs::write(&place, format!("content {number}")),
        1 if data.is_file() => {
            File::options().append(true).open(&path).and_then(|mut file| file.write_all(b"+"))
        }
        2 if !data.is_symlink() => fs::set_permissions(
            &path,
            Permissions::from_mode(random.choose(&[0o600, 0o755, 0o4711, 0o2750])),
        ),
        3 => std::os::unix::fs::lchown(&path, Some(random.below(3) as u32), Some(number as u32)),
        4 | 5 if path != root => fs::rename(&path, &place),
        6 if !data.is_dir() => fs::hard_link(&path, &place),
        7 => symlink(format!("target {number}"), &place),
        8 if !data.is_dir() => fs::remove_file(&path),
        9 if data.is_dir() && path != root && random.below(3) == 0 => fs::remove_dir_all(&path),
        10 | 11 => fs::create_dir(&place),
        12 if data.is_file() || data.is_dir() => support::sys::set_xattr(
            &path,
            random.choose(&["user.a", "trusted.b", "trusted.overlay.x"]),
            b"value",
        ),
        13 if data.is_file() => {
            let time = std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::new(number as u64, number as u32);
            File::options().write(true).open(&path).and_then(|file| file.set_modified(time))
        }
        14 if data.is_file() => {
            // The same size and time, and another content.
            let modified = data.modified().unwrap();
            File::options().write(true).open(&path).and_then(|file| {
                if data.size() > 0 {
                    file.write_all_at(b"X", random.below(data.size() as usize) as u64)?;
                }
                file.set_modified(modified)
            })
        }
        _ => Ok(()),
    };
    drop(ignored);
}

#[test]
fn what_a_workspace_reads_is_read_ahead_and_counted_as_on_a_mount() {
    let lab = Lab::default();
    let mut random = Random(5);
    let mut of_letters = || (0..200 << 10).map(|_| b'a' + random.below(16) as u8).collect();
    let files: Vec<(String, Vec<u8>)> =
        (100..164).map(|it| (it.to_string(), of_letters())).collect();
    lab.commit(&files.iter().map(|(name, bytes)| (name.clone().into(), file(bytes))).collect());
    let mounted = mount(&lab, "web");
    for (name, bytes) in &files {
        assert!(fs::read(mounted.root.join(name)).unwrap() == *bytes, "{name}");
    }
    let (stats, all) = (lab.stats(), 64 * (200 << 10));
    assert!(stats.bytes_read >= all, "{stats:?}");
    let read = stats.store;
    assert!(read.bytes_decoded >= all && read.frames_decoded > 64, "{read:?}");
    assert!(read.frames_read_ahead_used > 0, "{read:?}");
}

#[test]
fn a_workspace_that_is_used_by_a_process_is_left_to_it() {
    let lab = Lab::default();
    lab.commit(&root());
    let mounted = mount(&lab, "web");
    let again = lab.store.lock_workspace(&name("web"));
    assert!(matches!(again, Err(cairn_store::Error::WorkspaceInUse { .. })), "{again:?}");
    let again = workspace::hold(&lab.store, &name("web"));
    let is_in_use = |err: &Error| err.to_string().contains("is in use by");
    assert!(again.as_ref().is_err_and(is_in_use), "{again:?}");
    let registered = cairn_fs::list(&lab.run_directory()).unwrap();
    assert_eq!(registered[0].workspace.as_deref(), Some("web"));
    assert_eq!(registered[0].trees[0], lab.store.current().unwrap().tree);
    // The state below is mounted nowhere that could be seen.
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let lower = lab.store.workspace_path(&name("web")).join("lower");
    assert!(!mounts.contains(lower.to_str().unwrap()), "{mounts}");
    fs::write(mounted.root.join("new"), "new").unwrap();
    cairn_fs::unmount(&mounted.root, Unmount::Now).unwrap();
    let held = workspace::hold(&lab.store, &name("web")).unwrap();
    assert!(cairn_fs::list(&lab.run_directory()).unwrap().is_empty());
    let record = workspace::reset(&held, None).unwrap();
    assert_eq!((record.base.id, record.layer), (StateId(1), 2));
    drop(held);
    let changes = workspace::changes(&lab.store, &name("web")).unwrap();
    assert_eq!(changes.tree, changes.reference.tree);
    let held = lab.store.lock_workspace(&name("web")).unwrap();
    let other = workspace::open(&held, Some(StateId(7)), &lab.store);
    assert!(matches!(other, Err(Error::OtherBase { .. })), "{other:?}");
    workspace::discard(&held).unwrap();
    assert!(!lab.store.workspace_path(&name("web")).exists());
    assert!(lab.store.workspaces().unwrap().is_empty());
}

#[test]
fn a_state_that_is_removed_stays_below_its_workspace() {
    let lab = Lab::default();
    lab.commit(&root());
    let before = see_state(&lab, StateId(1));
    drop(mount(&lab, "web"));
    lab.commit(&items_of([("other", file("other"))]));
    lab.store.remove_states(&[StateId(1)]).unwrap();
    let mounted = mount(&lab, "web");
    assert_same(&see_workspace(&lab, &mounted), &before, "it shows the state that is gone");
    fs::write(mounted.root.join("new"), "new").unwrap();
    let done = snapshot(&lab, "web");
    assert_eq!((done.parent.id, done.is_current), (StateId(1), false));
    assert_same(
        &see_state(&lab, StateId(3)),
        &see_workspace(&lab, &mounted),
        "the state is what was shown",
    );
}

#[test]
fn an_overlay_on_a_workspace_works_as_containers_need_it() {
    let lab = Lab::default();
    lab.commit(&root());
    let mounted = mount(&lab, "web");
    let below = mounted.root.join("containers");
    for name in ["lower", "merged"] {
        fs::create_dir_all(below.join(name)).unwrap();
    }
    fs::write(below.join("lower/f"), "f").unwrap();
    let upper = lab.temporary.path().join("upper");
    let work = lab.temporary.path().join("work");
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        mounted.root.display(),
        upper.display(),
        work.display()
    );
    let target = lab.temporary.path().join("nested");
    fs::create_dir(&target).unwrap();
    support::sys::mount_overlay(&target, &options);
    assert_eq!(fs::read(target.join("containers/lower/f")).unwrap(), b"f");
    assert_eq!(fs::read(target.join("dir/a")).unwrap(), b"dir/a");
    fs::write(target.join("dir/a"), "changed").unwrap();
    assert_eq!(fs::read(mounted.root.join("dir/a")).unwrap(), b"dir/a");
    support::sys::unmount(&target);
}

/// The directory of the layer of the workspace `web`, which is not mounted.
fn layer(lab: &Lab) -> PathBuf {
    drop(mount(lab, "web"));
    lab.store.workspace_path(&name("web")).join("layer-1/upper")
}

fn told(lab: &Lab) -> Vec<String> {
    let changes = workspace::changes(&lab.store, &name("web")).unwrap();
    let mut told = Vec::new();
    diff(&changes, changes.reference.tree, changes.tree, &mut |path, _| {
        told.push(path.to_string());
        ControlFlow::Continue(())
    })
    .unwrap();
    told
}

#[test]
fn the_marks_of_every_kernel_are_understood() {
    let lab = Lab::default();
    lab.commit(&root());
    let upper = layer(&lab);
    let (make, mark) =
        (|path: &str| fs::create_dir(upper.join(path)).unwrap(), support::sys::set_xattr);
    // Whiteouts as attributes, in a directory that says that it has some.
    make("dir");
    mark(&upper.join("dir"), "trusted.overlay.opaque", b"x").unwrap();
    for (path, is_whiteout) in [("dir/a", true), ("dir/b", false)] {
        File::create(upper.join(path)).unwrap();
        if is_whiteout {
            mark(&upper.join(path), "trusted.overlay.whiteout", b"y").unwrap();
        }
    }
    // The same attribute means nothing elsewhere.
    make("other");
    File::create(upper.join("other/e")).unwrap();
    mark(&upper.join("other/e"), "trusted.overlay.whiteout", b"y").unwrap();
    // A whiteout of nothing, and an origin that is not there.
    support::sys::mknod(&upper.join("nothing"), libc::S_IFCHR, (0, 0));
    make("came");
    mark(&upper.join("came"), "trusted.overlay.redirect", b"/no/where").unwrap();
    // A directory from elsewhere in which another one lies that came by a new name.
    make("moved");
    mark(&upper.join("moved"), "trusted.overlay.redirect", b"/other").unwrap();
    make("moved/renamed");
    mark(&upper.join("moved/renamed"), "trusted.overlay.redirect", b"sub").unwrap();
    File::create(upper.join("moved/renamed/new")).unwrap();
    // With a digest of its content, as kernels with fs-verity write it.
    let metacopy = File::create(upper.join("owned")).unwrap();
    metacopy.set_len(5).unwrap();
    mark(&upper.join("owned"), "trusted.overlay.metacopy", &[0, 36, 0, 1]).unwrap();

    snapshot(&lab, "web");
    let seen = see_state(&lab, StateId(2));
    let has = |path: &str| seen.get(Path::new(path));
    assert!(has("dir/a").is_none() && has("dir/sub/deep/d").is_some());
    assert_eq!(has("dir/b").unwrap().bytes, b"");
    assert_eq!(has("other/e").unwrap().bytes, b"");
    assert!(has("nothing").is_none() && has("came").is_some());
    assert_eq!(has("moved/e").unwrap().bytes, b"other/e");
    assert!(has("moved/renamed/f").is_some() && has("moved/renamed/new").is_some());
    assert_eq!(
        (&has("owned").unwrap().bytes[..], has("owned").unwrap().owner),
        (&b"owned"[..], (0, 0))
    );
}

#[test]
fn a_layer_that_does_not_fit_is_told_and_nothing_is_published() {
    let lab = Lab::default();
    lab.commit(&root());
    let upper = layer(&lab);
    let path = upper.join("owned");
    File::create(&path).unwrap().set_len(5).unwrap();
    support::sys::set_xattr(&path, "trusted.overlay.metacopy", b"").unwrap();
    for redirect in ["/no/such/file", "/dir", "a/b", "/../x", "/twin-1/x"] {
        support::sys::set_xattr(&path, "trusted.overlay.redirect", redirect.as_bytes()).unwrap();
        let told = workspace::changes(&lab.store, &name("web"));
        assert!(matches!(told, Err(Error::DamagedLayer { .. })), "{redirect}: {told:?}");
        let done = workspace::snapshot(&lab.store, &name("web"), "x", Becomes::Current, &());
        assert!(matches!(done, Err(Error::DamagedLayer { .. })), "{redirect}: {done:?}");
    }
    assert_eq!(lab.store.refs().newest, StateId(1));
    fs::remove_file(&path).unwrap();
    fs::write(upper.join("new"), "new").unwrap();
    assert_eq!(told(&lab), ["/", "/new"]);
    assert!(snapshot(&lab, "web").state.is_some());
}

#[test]
fn hard_links_of_the_state_and_of_the_workspace_stay_apart() {
    let lab = Lab::default();
    lab.commit(&root());
    for round in 0..3 {
        let mounted = mount(&lab, "web");
        let at = |path: &str| mounted.root.join(path);
        // The name after which the group of the state is called goes its own way,
        // and becomes a group again; the others stay what they were.
        fs::write(at("twin-1"), format!("round {round}")).unwrap();
        let _ = fs::remove_file(at("mine"));
        fs::hard_link(at("twin-1"), at("mine")).unwrap();
        drop(mounted);
        let state = snapshot(&lab, "web").state.unwrap();
        let seen = see_state(&lab, state.id);
        let linked = |path: &str| seen[Path::new(path)].linked.clone();
        assert_eq!(linked("twin-1"), Some("mine".into()));
        assert_eq!(linked("twin-2"), Some("dir/twin-3".into()));
        assert_eq!(seen[Path::new("twin-2")].bytes, b"twin");
    }
}

#[test]
fn a_snapshot_costs_the_changes_and_not_the_state() {
    let lab = Lab::default();
    support::commit_system(&lab);
    let mounted = mount(&lab, "web");
    fs::write(mounted.root.join("top-7/directory-3/new"), "new").unwrap();
    fs::rename(mounted.root.join("top-8"), mounted.root.join("moved")).unwrap();
    let packs = || {
        fs::read_dir(lab.store.path().join("packs"))
            .unwrap()
            .map(|it| it.unwrap().metadata().unwrap().len())
            .sum::<u64>()
    };
    let before = packs();
    let done = snapshot(&lab, "web");
    assert_eq!((done.read.files, done.read.bytes), (1, 3));
    // The directories from the root to the new file, and the record.
    let grown = packs() - before;
    assert!(grown < 64 << 10, "{grown} bytes");
    let root = lab.store.tree(done.state.unwrap().tree).unwrap();
    assert_eq!(root.summary().entries, support::ENTRIES as u64 + 1);
}

#[test]
fn a_directory_is_filled_as_a_whole_whatever_interrupts_it() {
    let lab = Lab::default();
    let mut root = items_of([]);
    put(&mut root, "etc/own", file("of the state"));
    put(&mut root, "etc/both", file("of the state"));
    put(&mut root, "etc/sub/own", file("of the state"));
    put(&mut root, "etc/was", link("own"));
    for path in ["both", "default", "sub/own", "sub/default", "was/x", "deep/er/x"] {
        put(&mut root, &format!("usr/share/defaults/etc/{path}"), file("default"));
    }
    put(
        &mut root,
        "var/lib/x",
        Item::File(Attributes { uid: 7, ..Attributes::of_root(0o600) }, b"x".to_vec()),
    );
    let state = lab.commit(&root);
    let target = lab.temporary.path().join("etc");
    let path = |text: &str| cairn_store::TreePath::new(text.as_bytes()).unwrap();
    let bind = |on: &str, source: &Path| RootBind {
        path: path(on),
        source: source.into(),
        seed: true,
        filled: false,
    };
    let etc = bind("etc", &target);
    let filled = || cairn_fs::seed(&lab.store, state.tree, &etc).unwrap();
    let text = |path: &str| fs::read_to_string(target.join(path)).unwrap();
    let check = || {
        for (path, expected) in [
            ("own", "of the state"),
            ("both", "of the state"),
            ("sub/own", "of the state"),
            ("sub/default", "default"),
            ("default", "default"),
            ("deep/er/x", "default"),
        ] {
            assert_eq!(text(path), expected, "{path}");
        }
        assert!(target.join("was").is_symlink());
        let names = fs::read_dir(&target).unwrap().map(|it| it.unwrap().file_name());
        assert_eq!(names.filter(|name| name.to_str().unwrap().starts_with('.')).count(), 0);
    };
    assert!(filled());
    check();
    assert!(!filled(), "it is not empty any more");
    // Interrupted before all was there: it begins anew.
    fs::remove_dir_all(&target).unwrap();
    fs::create_dir_all(target.join(".cairn-seed.new/own/half")).unwrap();
    fs::create_dir(target.join("lost+found")).unwrap();
    assert!(filled());
    check();
    assert!(!target.join("half").exists() && target.join("lost+found").exists());
    // Interrupted while it was moved to its place: it goes on.
    let away = target.join(".cairn-seed");
    fs::create_dir(&away).unwrap();
    for name in ["both", "sub", "was"] {
        fs::rename(target.join(name), away.join(name)).unwrap();
    }
    assert!(filled());
    check();
    let var = lab.temporary.path().join("var");
    assert!(cairn_fs::seed(&lab.store, state.tree, &bind("var", &var)).unwrap());
    assert_eq!(fs::metadata(var.join("lib/x")).unwrap().uid(), 7);
    let missing = cairn_fs::seed(&lab.store, state.tree, &bind("etc/own", &var.join("y")));
    assert!(matches!(missing, Err(Error::NoBindPoint { .. })), "{missing:?}");
}
