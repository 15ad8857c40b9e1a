//! A live switch: right at once, never mixed, and nobody is disturbed.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_fs::{Operation, Shape, control};
use cairn_store::{Attributes, StateId};
use support::{Directory, Fault, Item, Lab, directory, file, items_of, program, put, symlink, sys};

/// Everything below a directory, as lines of text: what a program that looks
/// at all of it can know.
fn listing(path: &Path) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut stack = vec![path.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let (below, data) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
            let name = below.strip_prefix(path).unwrap().display().to_string();
            let content = if data.is_dir() {
                stack.push(below);
                String::new()
            } else if data.is_symlink() {
                fs::read_link(&below).unwrap().display().to_string()
            } else {
                String::from_utf8_lossy(&fs::read(&below).unwrap()).into_owned()
            };
            let links = if data.is_dir() { data.nlink() } else { 0 };
            lines.insert(format!("{name} {:o} {} {links} {content}", data.mode(), data.size()));
        }
    }
    lines
}

/// What [`listing`] has to say of a description.
fn expected(items: &Directory) -> BTreeSet<String> {
    fn add(items: &Directory, prefix: &str, lines: &mut BTreeSet<String>) {
        for (name, item) in items {
            let name = format!("{prefix}{}", String::from_utf8_lossy(name));
            let line = match item {
                Item::Directory(attributes, below) => {
                    add(below, &format!("{name}/"), lines);
                    let is_directory = |item: &&Item| matches!(item, Item::Directory(..));
                    let links = 2 + below.values().filter(is_directory).count();
                    format!("{name} {:o} 4096 {links} ", 0o40000 | attributes.mode)
                }
                Item::File(attributes, bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    format!("{name} {:o} {} 0 {text}", 0o100_000 | attributes.mode, bytes.len())
                }
                Item::Other(attributes, cairn_store::tree::Content::Symlink(target)) => {
                    let text = String::from_utf8_lossy(target);
                    format!("{name} {:o} {} 0 {text}", 0o120_000 | attributes.mode, target.len())
                }
                _ => unreachable!("not described here"),
            };
            lines.insert(line);
        }
    }
    let mut lines = BTreeSet::new();
    add(items, "", &mut lines);
    lines
}

/// Compares everything below a directory with a description.
#[track_caller]
fn assert_shows(path: &Path, items: &Directory, when: &str) {
    let (seen, expected) = (listing(path), expected(items));
    let cut = |line: &String| line.chars().take(100).collect::<String>();
    let only = |some: &BTreeSet<String>, others| {
        some.difference(others).take(5).map(cut).collect::<Vec<_>>()
    };
    let (stale, missing) = (only(&seen, &expected), only(&expected, &seen));
    assert!(seen == expected, "{when}: shown instead of {missing:?}: {stale:?}");
}

/// One of many states, in which much is as in the others.
fn state(number: u64) -> Directory {
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut chance = |of: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % of
    };
    let mut root = Directory::new();
    put(&mut root, "always/same", file("same"));
    put(&mut root, "always/number", file(number.to_string()));
    for i in 0..12 {
        for j in 0..12 {
            let path = format!("d{i}/f{j}");
            match chance(12) {
                0 => {}
                1 => put(&mut root, &path, symlink(&format!("to-{}", chance(3)))),
                2 => put(&mut root, &path, directory([("in", file(format!("{}", chance(3))))])),
                3 => put(
                    &mut root,
                    &path,
                    Item::Directory(
                        Attributes::of_root(0o700 + chance(4) as u16),
                        items_of([("a", file("a")), ("b", directory([("c", file("c"))]))]),
                    ),
                ),
                4 => put(
                    &mut root,
                    &path,
                    Item::File(Attributes::of_root(0o600 + chance(4) as u16), b"mode".to_vec()),
                ),
                _ => put(&mut root, &path, file(format!("{i} {j} {}", chance(40) / 39))),
            }
        }
    }
    root
}

#[test]
fn after_a_switch_every_look_shows_the_new_state() {
    let lab = Lab::default();
    let states: Vec<Directory> = (0..12).map(state).collect();
    let own = |number: u64| Attributes::of_root(0o755 - (number % 3) as u16);
    states.iter().zip(0..).for_each(|(items, number)| drop(lab.commit_with(&own(number), items)));
    let _mounted = lab.mount(Shape::Follow);
    let missing: Vec<_> = (0..12).map(|i| lab.target().join(format!("d{i}/f0"))).collect();
    for round in 0..60_u64 {
        let number = round * 7 % 12;
        lab.store.switch(StateId(number + 1)).unwrap();
        lab.refresh();
        assert_shows(&lab.target(), &states[number as usize], &format!("round {round}"));
        let mode = fs::metadata(lab.target()).unwrap().mode();
        assert_eq!(mode, 0o40755 - (number % 3) as u32);
        // Leaves names in the kernel's cache that do not exist.
        missing.iter().for_each(|path| drop(fs::metadata(path)));
    }
}

#[test]
fn states_and_tags_come_go_and_move_in_a_mount_of_all() {
    let lab = Lab::default();
    let states: Vec<Directory> = (0..4).map(state).collect();
    lab.commit(&states[0]);
    let _mounted = lab.mount(Shape::Folder);
    let at = |path: &str| lab.target().join(path);
    let tag = cairn_store::Tag::new("kept").unwrap();
    assert!(!at("states/2").exists() && !at("tags/kept").exists());
    lab.commit(&states[1]);
    lab.store.tag(tag.clone(), StateId(1)).unwrap();
    assert!(!at("states/2").exists(), "nobody has told the mount yet");
    lab.refresh();
    for (path, number) in [("current", 1), ("states/2", 1), ("states/1", 0), ("tags/kept", 0)] {
        assert_shows(&at(path), &states[number], path);
    }
    lab.commit(&states[2]);
    lab.store.tag(tag.clone(), StateId(2)).unwrap();
    lab.store.remove_states(&[StateId(1)]).unwrap();
    lab.refresh();
    assert_eq!(fs::metadata(at("states/1")).unwrap_err().kind(), ErrorKind::NotFound);
    for (path, number) in [("current", 2), ("states/3", 2), ("states/2", 1), ("tags/kept", 1)] {
        assert_shows(&at(path), &states[number], path);
    }
    lab.store.untag(&tag).unwrap();
    lab.refresh();
    assert_eq!(fs::read_dir(at("tags")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(at("states")).unwrap().count(), 2);
}

#[test]
fn a_pinned_mount_never_changes() {
    let lab = Lab::default();
    let states: Vec<Directory> = (0..2).map(state).collect();
    states.iter().for_each(|items| drop(lab.commit(items)));
    let _mounted = lab.mount(Shape::Pinned(StateId(1)));
    assert_shows(&lab.target(), &states[0], "first");
    lab.store.remove_states(&[StateId(1)]).unwrap();
    let asked = control::refresh_all(&lab.run_directory(), support::PATIENCE).unwrap();
    assert_eq!(asked.len(), 0);
    sys::drop_names(&lab.target());
    assert_shows(&lab.target(), &states[0], "after gc");
}

#[test]
fn what_is_unchanged_keeps_its_inode_and_what_is_open_its_content() {
    let lab = Lab::default();
    let own =
        |text: &str| items_of([("dir", directory([("same", file("same")), ("new", file(text))]))]);
    lab.commit(&own("one"));
    let _mounted = lab.mount(Shape::Follow);
    let path = lab.target().join("dir");
    let number = |name: &str| fs::metadata(path.join(name)).unwrap().ino();
    let before = (number(""), number("same"), number("new"));
    let mut open = fs::File::open(path.join("new")).unwrap();
    let mapped = sys::Mapped::new(&open, 3);
    lab.commit(&own("two!"));
    let told = lab.refresh();
    assert_eq!((told.state, told.directories, told.names), (Some(StateId(2)), 2, 1));
    assert_eq!((number(""), number("same")), (before.0, before.1));
    assert_ne!(number("new"), before.2);
    assert_eq!(fs::read(path.join("new")).unwrap(), b"two!");
    let mut old = String::new();
    open.read_to_string(&mut old).unwrap();
    assert_eq!((old.as_str(), open.metadata().unwrap().len()), ("one", 3));
    assert_eq!(mapped.bytes(), b"one");
}

#[test]
fn no_page_of_what_is_unchanged_is_read_again() {
    const LEN: usize = 200_000;
    let lab = Lab::default();
    let content = |name: &str| name.bytes().cycle().take(LEN).collect::<Vec<u8>>();
    let names: Vec<String> = (0..30).map(|i| format!("d{}/f{i}", i % 4)).collect();
    let root = |changed: &str| {
        let mut root = Directory::new();
        for name in &names {
            put(&mut root, name, file(content(name)));
        }
        put(&mut root, "d0/changed", file(content(changed)));
        root
    };
    let first = lab.commit(&root("before"));
    let read_all = |below: &str| {
        for name in &names {
            let bytes = fs::read(lab.target().join(below).join(name)).unwrap();
            assert!(bytes == content(name), "{name}");
        }
    };
    let assert_resident = |below: &str| {
        for name in &names {
            let opened = fs::File::open(lab.target().join(below).join(name)).unwrap();
            let resident = sys::Mapped::new(&opened, LEN).resident();
            assert_eq!(resident, LEN.div_ceil(4096), "{below}/{name}");
        }
    };
    let asked = || {
        let stats = lab.stats();
        let reads = stats.requests.iter().filter(|it| it.operation == Operation::Read);
        (stats.bytes_read, reads.map(|it| it.count).sum::<u64>())
    };
    let changed = |below: &str| fs::read(lab.target().join(below).join("d0/changed")).unwrap();
    {
        let _mounted = lab.mount(Shape::Follow);
        read_all("");
        assert_eq!(changed(""), content("before"));
        let before = asked();
        assert!(before.0 >= (names.len() * LEN) as u64);
        for round in ["once", "twice"] {
            lab.commit(&root(round));
            lab.refresh();
            assert_resident("");
            read_all("");
        }
        assert_eq!(asked(), before, "of what is unchanged nothing is asked for");
        assert_eq!(changed(""), content("twice"));
        assert_eq!(asked().0, before.0 + LEN as u64, "of what has changed all is");
    }
    let _mounted = lab.mount(Shape::Folder);
    let last = lab.store.refs().current.unwrap();
    read_all(&format!("states/{}", first.id));
    let before = asked();
    for below in [format!("states/{last}"), "current".into()] {
        read_all(&below);
        assert_resident(&below);
    }
    assert_eq!(asked(), before, "states share the pages of what they have at one path");
}

#[test]
fn a_program_of_the_old_state_goes_on() {
    let lab = Lab::default();
    let mut root = Directory::new();
    support::with_programs(&mut root, &["sh", "cat"]);
    put(&mut root, "etc/text", file("old"));
    lab.commit(&root);
    let _mounted = lab.mount(Shape::Follow);
    // It reads its input and runs programs after the switch.
    let mut child = Command::new("chroot")
        .arg(lab.target())
        .args([
            "/usr/bin/sh",
            "-c",
            "cat /etc/text; read x; cat /etc/text; cat < /etc/text; echo $x",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    // Another shell in the new state, so that the old one is gone from it.
    put(&mut root, "usr/bin/sh", program(b"not a program".to_vec()));
    put(&mut root, "etc/text", file("new"));
    lab.commit(&root);
    lab.refresh();
    sys::drop_names(&lab.target());
    drop(child.stdin.take().map(|mut input| std::io::Write::write_all(&mut input, b"end\n")));
    let output = child.wait_with_output().unwrap();
    assert_eq!((&first, String::from_utf8_lossy(&output.stdout).as_ref()), (b"old", "newnewend\n"));
}

#[test]
fn a_working_directory_stays_and_shows_the_new_state_and_mounts_below_stay() {
    let lab = Lab::default();
    let one = items_of([
        ("a", directory([("b", directory([("x", file("1"))]))])),
        ("mnt", directory([])),
    ]);
    let two = items_of([
        ("a", directory([("b", directory([("y", file("2"))]))])),
        ("mnt", directory([])),
    ]);
    lab.commit(&one);
    let _mounted = lab.mount(Shape::Follow);
    let other = lab.temporary.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("below"), "below").unwrap();
    sys::bind(&other, &lab.target().join("mnt"));
    let inside = fs::File::open(lab.target().join("a/b")).unwrap();
    let relative = |name: &str| {
        use std::os::fd::AsRawFd;
        fs::read_to_string(format!("/proc/self/fd/{}/{name}", inside.as_raw_fd()))
    };
    assert_eq!(relative("x").unwrap(), "1");
    for (root, there, text, gone) in [(&two, "y", "2", "x"), (&one, "x", "1", "y")] {
        lab.commit(root);
        lab.refresh();
        assert_eq!(relative(there).unwrap(), text);
        assert_eq!(relative(gone).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::read(lab.target().join("mnt/below")).unwrap(), b"below");
    }
    drop(inside);
    sys::unmount(&lab.target().join("mnt"));
}

#[test]
fn a_directory_that_goes_while_in_use_is_empty_and_comes_back_as_new() {
    let lab = Lab::default();
    let with = |name: &str| {
        items_of([("a", directory([("b", directory([(name, directory([("f", file(name))]))]))]))])
    };
    lab.commit(&with("one"));
    let _mounted = lab.mount(Shape::Follow);
    let (a, b) = (lab.target().join("a"), lab.target().join("a/b"));
    let open = fs::File::open(&b).unwrap();
    let open_below = fs::File::open(b.join("one")).unwrap();
    assert!(fs::metadata(b.join("two")).is_err());
    lab.commit(&items_of([("a", directory([]))]));
    lab.refresh();
    assert_eq!(fs::read_dir(&a).unwrap().count(), 0);
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    let relative = |name: &str| {
        use std::os::fd::AsRawFd;
        fs::read_to_string(format!("/proc/self/fd/{}/{name}", open.as_raw_fd()))
    };
    for name in ["one/f", "two/f"] {
        assert_eq!(relative(name).unwrap_err().kind(), ErrorKind::NotFound, "{name}");
    }
    lab.commit(&with("two"));
    lab.refresh();
    assert_shows(&lab.target(), &with("two"), "it is back");
    assert_eq!(relative("two/f").unwrap(), "two");
    assert_eq!(relative("one/f").unwrap_err().kind(), ErrorKind::NotFound);
    drop(open_below);
}

/// A watch keeps the inode of a directory, with its listing, while the names
/// that lead there are forgotten.
#[test]
fn a_watched_directory_shows_the_new_state_although_the_way_to_it_was_forgotten() {
    let lab = Lab::default();
    let with = |name: &str, mode| {
        let below = items_of([(name, file(name)), ("c", directory([(name, file(name))]))]);
        let watched = Item::Directory(Attributes::of_root(mode), below);
        items_of([("a", directory([("b", watched)]))])
    };
    let states = [with("one", 0o755), with("two", 0o700)];
    states.iter().for_each(|items| drop(lab.commit(items)));
    for shape in [Shape::Follow, Shape::Folder] {
        lab.store.switch(StateId(1)).unwrap();
        let _mounted = lab.mount(shape);
        let root = if shape == Shape::Folder { "current" } else { "" };
        let root = lab.target().join(root);
        for round in 0..6 {
            assert_shows(&root, &states[round % 2], &format!("{shape:?}, round {round}"));
            let watches = ["a/b", "a/b/c"].map(|path| sys::watch(&root.join(path)));
            sys::drop_names(&lab.target());
            lab.store.switch(StateId((round as u64 + 1) % 2 + 1)).unwrap();
            lab.refresh();
            assert_shows(&root, &states[(round + 1) % 2], &format!("{shape:?}: {round}"));
            drop(watches);
        }
    }
}

#[test]
fn a_listing_across_switches_misses_nothing_that_stays_and_repeats_nothing() {
    let lab = Lab::default();
    let with = |extra: &str| {
        let mut names: Directory =
            (0..1000).map(|i| (format!("{i:04}").into_bytes(), file("x"))).collect();
        names.extend((0..200).map(|i| (format!("{:04}-{extra}", i * 5).into_bytes(), file("y"))));
        items_of([("many", Item::Directory(Attributes::of_root(0o755), names))])
    };
    for extra in ["a", "b", "c"] {
        lab.commit(&with(extra));
    }
    let _mounted = lab.mount(Shape::Follow);
    for (round, len) in [(0, 1000), (1, 4000), (2, 333)] {
        let open = fs::File::open(lab.target().join("many")).unwrap();
        let (mut told, mut switches) = (Vec::new(), round);
        loop {
            let some = sys::getdents(open.as_fd(), len).unwrap();
            if some.is_empty() {
                break;
            }
            told.extend(some.into_iter().map(|(_, _, name)| String::from_utf8(name).unwrap()));
            switches += 1;
            lab.store.switch(StateId(switches % 3 + 1)).unwrap();
            lab.refresh();
        }
        let staying: Vec<_> = told.iter().filter(|name| name.len() == 4).collect();
        assert!(
            staying.iter().map(|name| name.as_str()).eq((0..1000)
                .map(|i| format!("{i:04}"))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)),
            "round {round}"
        );
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "round {round}");
    }
}

#[test]
fn files_in_use_hold_the_root_that_they_are_from_until_they_are_closed() {
    let lab = Lab::default();
    let own = |text: &str| items_of([("dir", directory([("f", file(text)), ("same", file("s"))]))]);
    let first = lab.commit(&own("one"));
    let _mounted = lab.mount(Shape::Follow);
    let registered = || cairn_fs::list(&lab.run_directory()).unwrap()[0].clone();
    assert_eq!(registered().trees, [first.tree]);
    let open = fs::File::open(lab.target().join("dir/f")).unwrap();
    let same = fs::File::open(lab.target().join("dir/same")).unwrap();
    let second = lab.commit(&own("two"));
    lab.refresh();
    assert_eq!(registered().state, Some(second.id));
    let held: BTreeSet<_> = registered().trees.into_iter().collect();
    assert_eq!(held, BTreeSet::from([first.tree, second.tree]));
    drop(open);
    // What both states have does not hold the old one.
    support::eventually("the old root is let go", || {
        (registered().trees == [second.tree]).then_some(())
    });
    drop(same);
}

#[test]
fn a_damaged_state_is_an_error_where_it_is_damaged_and_nowhere_else() {
    let lab = Lab::default();
    let own = |text: &str| {
        items_of([
            ("bad", directory([("f", file(text)), ("other", file(text))])),
            ("good", directory([("f", file(text))])),
        ])
    };
    lab.commit(&own("one"));
    let (_mounted, source, events) = lab.mount_faulty(Shape::Follow);
    let read = |path: &str| fs::read_to_string(lab.target().join(path));
    assert_eq!(read("bad/f").unwrap(), "one");
    assert_eq!(read("good/f").unwrap(), "one");
    let second = lab.commit(&own("two"));
    let root = lab.store.tree(second.tree).unwrap();
    let bad = root.get(b"bad").unwrap().as_directory().unwrap().id;
    source.break_tree(bad, Fault::Damaged);
    lab.refresh();
    assert_eq!(read("good/f").unwrap(), "two");
    assert_eq!(read("bad/f").unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(events.take().iter().any(|event| event.contains(&bad.to_string())));
    // Listing the directory above still works.
    sys::drop_names(&lab.target());
    let names = fs::read_dir(lab.target()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["bad", "good"]);
    assert_eq!(read("bad/f").unwrap_err().raw_os_error(), Some(libc::EIO));
    source.heal();
    lab.commit(&own("three"));
    lab.refresh();
    assert_eq!((read("good/f").unwrap(), read("bad/f").unwrap()), ("three".into(), "three".into()));
}

/// A loop that runs programs, reads and walks, while 200 switches happen.
#[test]
fn two_hundred_switches_under_load_disturb_nobody() {
    const STATES: u64 = 8;
    const SWITCHES: u64 = 200;
    let lab = Lab::default();
    let text = |number: u64| format!("{number}\n").repeat(40_000);
    let roots: Vec<Directory> = (0..STATES)
        .map(|number| {
            let mut root = state(number);
            support::with_programs(&mut root, &["cat", "sh"]);
            put(&mut root, "pair/first", file(text(number)));
            put(&mut root, "pair/second", file(text(number)));
            root
        })
        .collect();
    for root in &roots {
        lab.commit(root);
    }
    let _mounted = lab.mount(Shape::Follow);
    let (stop, counts) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 3]);
    let target = lab.target();
    let running = || !stop.load(Ordering::Relaxed);
    let whole = |bytes: &[u8]| {
        let (first, len) = (bytes[0] - b'0', bytes.len());
        assert!(bytes == text(first.into()).as_bytes(), "{len} bytes are a mixture");
    };
    // Ends the others also when this thread fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let mut times = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = Stop(&stop);
            while running() {
                let script = ["/usr/bin/sh", "-c", "exec cat /pair/first"];
                let output = Command::new("chroot").arg(&target).args(script).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                whole(&output.stdout);
                counts[0].fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let _stop = Stop(&stop);
            while running() {
                for name in ["first", "second"] {
                    whole(&fs::read(target.join("pair").join(name)).unwrap());
                }
                let mut open = fs::File::open(target.join("pair/first")).unwrap();
                let mut bytes = vec![0; 1000];
                open.read_exact(&mut bytes).unwrap();
                thread::yield_now();
                open.read_to_end(&mut bytes).unwrap();
                whole(&bytes);
                assert_eq!(fs::read(target.join("always/same")).unwrap(), b"same");
                counts[1].fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let _stop = Stop(&stop);
            while running() {
                walk(&target);
                counts[2].fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop);
        for round in 0..SWITCHES {
            let number = (round * 3 + 1) % STATES;
            lab.store.switch(StateId(number + 1)).unwrap();
            let begun = Instant::now();
            let answers =
                control::refresh_all(&lab.run_directory(), Duration::from_secs(20)).unwrap();
            times.push(begun.elapsed());
            assert_eq!(answers.len(), 1);
            // How many names are told depends on what the kernel happens to know.
            assert!(answers.iter().all(|(_, answer)| answer.is_ok()), "{answers:?}");
            let seen = fs::read_to_string(target.join("always/number")).unwrap();
            assert_eq!(seen, number.to_string(), "stale after switch {round}");
            if round % 10 == 0 {
                assert_shows(&target, &roots[number as usize], &format!("switch {round}"));
            }
        }
        // Each load has to have met many switches.
        support::eventually("every load has run", || {
            counts.iter().all(|count| count.load(Ordering::Relaxed) >= 20).then_some(())
        });
    });
    times.sort();
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    eprintln!(
        "switch under load: median {:?}, worst {:?}; runs, reads, walks: {counts:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

/// Walks like `find`: a name that was listed may be gone when it is looked at,
/// no other error may happen, and what every state has is always listed.
fn walk(path: &Path) {
    let mut stack = vec![path.to_owned()];
    let mut always = 0;
    while let Some(directory) = stack.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                continue;
            }
            Err(err) => panic!("{}: {err}", directory.display()),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(err) if err.kind() == ErrorKind::NotFound => break,
                Err(err) => panic!("{}: {err}", directory.display()),
            };
            always += usize::from(
                ["always", "same", "pair"].iter().any(|name| entry.file_name() == *name),
            );
            match fs::symlink_metadata(entry.path()) {
                Ok(data) if data.is_dir() => stack.push(entry.path()),
                Ok(_) => {}
                Err(err)
                    if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(err) => panic!("{}: {err}", entry.path().display()),
            }
        }
    }
    assert_eq!(always, 3, "a name that all states have was not listed once");
}
