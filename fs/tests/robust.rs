//! What goes wrong inside a mount stays small, and what it holds is bounded.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cairn_fs::{Error, Shape, Trust, Unmount, control};
use cairn_store::{Attributes, BlobRef, StateId, Tag, Xattr};
use support::{
    Directory, FIRST, Fault, Item, Lab, PATIENCE, directory, eventually, file, items_of, put, sys,
};

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|err| err.raw_os_error())
}

#[test]
fn a_defect_in_a_handler_is_an_error_and_the_mount_lives() {
    let lab = Lab::default();
    let root = items_of([
        ("dir", directory([("file", file("in dir")), ("other", file("other"))])),
        ("bad", file("bad content")),
        ("good", file("good content")),
    ]);
    let state = lab.commit(&root);
    let (_mounted, source, events) = lab.mount_faulty(Shape::Follow);
    let at = |path: &str| lab.target().join(path);
    let tree = lab.store.tree(state.tree).unwrap();
    let dir = tree.get(b"dir").unwrap().as_directory().unwrap().id;
    source.break_tree(dir, Fault::Panic);
    source.break_blob(b"bad content", Fault::Panic);
    for _ in 0..5 {
        assert_eq!(errno(fs::read(at("dir/file"))), Some(libc::EIO));
        assert_eq!(errno(fs::read(at("bad"))), Some(libc::EIO));
        assert_eq!(fs::read(at("good")).unwrap(), b"good content");
    }
    let events = events.take();
    assert!(events.iter().any(|event| event.contains("lookup")), "{events:?}");
    assert!(events.iter().any(|event| event.contains("read fail")), "{events:?}");
    source.heal();
    assert_eq!(fs::read(at("dir/file")).unwrap(), b"in dir");
    assert_eq!(fs::read(at("bad")).unwrap(), b"bad content");
}

#[test]
fn a_defect_in_any_handler_is_eio_and_no_more() {
    let lab = Lab::default();
    let below =
        [("file", file("in dir")), ("link", support::symlink("goal")), ("new", file("new"))];
    let mut attributes = Attributes::of_root(0o755);
    attributes.xattrs.push(Xattr { name: b"user.a"[..].into(), value: b"b"[..].into() });
    let state = lab.commit(&items_of([("dir", Item::Directory(attributes, items_of(below)))]));
    let (_mounted, source, events) = lab.mount_faulty(Shape::Follow);
    let at = |path: &str| lab.target().join(path);
    let tree = lab.store.tree(state.tree).unwrap();
    let dir = tree.get(b"dir").unwrap().as_directory().unwrap().id;
    let opened = fs::File::open(at("dir")).unwrap();
    type Call<'a> = &'a dyn Fn() -> io::Result<String>;
    let calls: [(&str, Call<'_>, &str); 8] = [
        ("lookup", &|| fs::read_to_string(at("dir/new")), "new"),
        ("read", &|| fs::read_to_string(at("dir/file")), "in dir"),
        ("getattr", &|| Ok(format!("{:o}", sys::mode_now(&at("dir"))?)), "40755"),
        ("readlink", &|| Ok(fs::read_link(at("dir/link"))?.display().to_string()), "goal"),
        ("getxattr", &|| Ok(sys::xattr(&at("dir"), "user.a")?.escape_ascii().to_string()), "b"),
        ("listxattr", &|| Ok(sys::listxattr(&at("dir"))?.to_string()), "7"),
        ("readdirplus", &|| Ok(sys::getdents(opened.as_fd(), 4096)?.len().to_string()), "5"),
        ("statfs", &|| Ok(sys::statvfs(&lab.target())?.f_namemax.to_string()), "255"),
    ];
    // What a look-up has told before is not looked up again.
    for path in ["dir/file", "dir/link"] {
        fs::symlink_metadata(at(path)).unwrap();
    }
    for round in 0..20 {
        source.break_tree(dir, Fault::Panic);
        source.break_tree(state.tree, Fault::Panic);
        for (handler, call, _) in &calls {
            assert_eq!(errno(call()), Some(libc::EIO), "round {round}: {handler}");
            // The answer goes out first.
            eventually("the journal is told", || {
                let made = format!("made {handler}");
                events.take().iter().any(|event| event.contains(&made)).then_some(())
            });
        }
        source.heal();
    }
    for (handler, call, expected) in &calls {
        assert_eq!(call().unwrap(), *expected, "{handler}");
    }
}

#[test]
fn a_defect_in_any_handler_at_all_leaves_the_mount_alive() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let mut below = Directory::new();
    for number in 0..300 {
        put(&mut below, &format!("a file with a long name, number {number}"), file("small"));
    }
    put(&mut below, "link", support::symlink("goal"));
    let mut attributes = Attributes::of_root(0o755);
    attributes.xattrs.push(Xattr { name: b"user.a"[..].into(), value: b"b"[..].into() });
    let large = vec![7; 300 << 10];
    lab.commit(&items_of([
        ("dir", Item::Directory(attributes, below)),
        ("large", file(&large)),
        ("small", file("small")),
    ]));
    let options = cairn_fs::Options { passthrough: true, ..lab.options(Shape::Follow) };
    let (_mounted, source, events) = lab.mount_faulty_with(&options);
    let at = |path: &str| lab.target().join(path);
    let dir = fs::File::open(at("dir")).unwrap();
    let small = fs::File::open(at("small")).unwrap();
    let open = || fs::File::open(at("large"));
    let mut opened = Some(open().unwrap());
    fs::symlink_metadata(at("dir/link")).unwrap();
    let expect = |handler: &str, call: &mut dyn FnMut() -> Option<i32>| {
        // Each begins with a directory that nobody has read from.
        sys::lseek(dir.as_fd(), 0, libc::SEEK_SET).unwrap();
        events.take();
        source.break_all();
        let errno = call();
        // The answer goes out first.
        eventually(&format!("the journal is told of {handler}"), || {
            let made = format!("made {handler} fail");
            events.take().iter().any(|event| event.contains(&made)).then_some(())
        });
        source.heal();
        errno
    };
    let eio = Some(libc::EIO);
    for _ in 0..3 {
        assert_eq!(expect("lookup", &mut || errno(fs::metadata(at("none")))), eio);
        assert_eq!(expect("open", &mut || errno(open())), eio);
        assert_eq!(expect("getattr", &mut || errno(sys::mode_now(&at("dir")))), eio);
        assert_eq!(expect("getxattr", &mut || errno(sys::xattr(&at("dir"), "user.a"))), eio);
        assert_eq!(expect("listxattr", &mut || errno(sys::listxattr(&at("dir")))), eio);
        assert_eq!(expect("statfs", &mut || errno(sys::statvfs(&lab.target()))), eio);
        assert_eq!(expect("readlink", &mut || errno(fs::read_link(at("dir/link")))), eio);
        let mut list = || errno(sys::getdents(dir.as_fd(), 4096));
        assert_eq!(expect("readdirplus", &mut list), eio);
        let mut byte = [0];
        assert_eq!(expect("read", &mut || errno(small.read_at(&mut byte, 0))), eio);
        // Nobody waits for these two.
        expect("release", &mut || {
            drop(opened.take());
            None
        });
        opened = Some(open().unwrap());
        fs::metadata(at("dir/a file with a long name, number 7")).unwrap();
        expect("forget", &mut || {
            sys::drop_names(&lab.target());
            None
        });
        fs::symlink_metadata(at("dir/link")).unwrap();
    }
    assert_eq!(support::count(&lab.target()), 304);
    assert_eq!(fs::read(at("large")).unwrap(), large);
    assert_eq!(fs::read(at("small")).unwrap(), b"small");
}

#[test]
fn a_defect_in_a_control_request_is_told_and_the_mount_switches_later() {
    let lab = Lab::default();
    lab.commit(&items_of([("number", file("1"))]));
    let (_mounted, source, events) = lab.mount_faulty(Shape::Follow);
    let path = lab.target().join("number");
    assert_eq!(fs::read(&path).unwrap(), b"1");
    for number in ["2", "3"] {
        let before = fs::read(&path).unwrap();
        let state = lab.commit(&items_of([("number", file(number))]));
        source.break_tree(state.tree, Fault::Panic);
        let mut answers = control::refresh_all(&lab.run_directory(), PATIENCE).unwrap();
        let refused = answers.remove(0).1.unwrap_err();
        assert!(matches!(&refused, Error::Refused { message, .. } if message.contains("defect")));
        assert!(events.take().iter().any(|event| event.contains("a control request fail")));
        assert_eq!(fs::read(&path).unwrap(), before);
        source.heal();
        assert_eq!(lab.refresh().state, Some(state.id));
        assert_eq!(fs::read(&path).unwrap(), number.as_bytes());
    }
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_object() {
    let lab = Lab::default();
    lab.commit(&items_of([("one", file("1")), ("two", file("22")), ("three", file("333"))]));
    let (_mounted, source, events) = lab.mount_faulty(Shape::Follow);
    for (name, bytes, fault) in [
        ("one", "1", Fault::Missing),
        ("two", "22", Fault::Damaged),
        ("three", "333", Fault::Short),
    ] {
        source.break_blob(bytes.as_bytes(), fault);
        let path = lab.target().join(name);
        assert_eq!(errno(fs::read(&path)), Some(libc::EIO), "{name}");
        let events = events.take();
        let key = BlobRef::of(bytes.as_bytes()).key.to_string();
        let is_named = |event: &String| {
            event.contains(name) && (fault == Fault::Short || event.contains(&key))
        };
        assert!(events.iter().any(is_named), "{events:?}");
        source.heal();
        assert_eq!(fs::read(&path).unwrap(), bytes.as_bytes());
    }
}

#[test]
fn what_the_kernel_forgets_the_mount_forgets() {
    let lab = Lab::default();
    let mut root = Directory::new();
    for i in 0..3000 {
        put(&mut root, &format!("d{}/e{}/f{i}", i % 7, i % 41), file(format!("{}", i % 100)));
    }
    lab.commit(&root);
    let _mounted = lab.mount(Shape::Follow);
    let registered = cairn_fs::list(&lab.run_directory()).unwrap().remove(0);
    let known = || control::status(&lab.run_directory(), &registered, PATIENCE).unwrap().nodes;
    assert_eq!(known(), 1);
    for _ in 0..3 {
        assert_eq!(support::count(&lab.target()), 3000 + 7 + 7 * 41);
        assert!(known() > 3000);
        let open = fs::File::open(lab.target().join("d0/e0/f0")).unwrap();
        sys::drop_names(&lab.target());
        // What is open, and the directories above it, stay.
        eventually("nearly all is forgotten", || (known() == 4).then_some(()));
        drop(open);
    }
    sys::drop_names(&lab.target());
    eventually("all is forgotten", || (known() == 1).then_some(()));
}

#[test]
fn an_ordinary_user_sees_what_the_modes_allow_and_gains_nothing() {
    let lab = Lab::default();
    let mut root = Directory::new();
    support::with_programs(&mut root, &["cat", "id"]);
    let owned = |mode, uid, gid| Attributes { uid, gid, ..Attributes::of_root(mode) };
    put(&mut root, "private", Item::File(owned(0o600, 0, 0), b"private".into()));
    put(&mut root, "own", Item::File(owned(0o400, 65534, 0), b"own".into()));
    put(&mut root, "group", Item::File(owned(0o040, 0, 65534), b"group".into()));
    put(&mut root, "all", Item::File(owned(0o004, 0, 0), b"all".into()));
    put(&mut root, "hidden", Item::Directory(owned(0o700, 0, 0), items_of([("f", file("f"))])));
    put(&mut root, "listed", Item::Directory(owned(0o744, 0, 0), items_of([("f", file("f"))])));
    let Some(Item::Directory(_, usr)) = root.get_mut(&b"usr"[..]) else { unreachable!() };
    let Some(Item::Directory(_, bin)) = usr.get_mut(&b"bin"[..]) else { unreachable!() };
    let Some(Item::File(attributes, _)) = bin.get_mut(&b"id"[..]) else { unreachable!() };
    attributes.mode = 0o4755;
    lab.commit(&root);
    fs::set_permissions(lab.temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |program: &str, argument: &Path| {
        let mut command = Command::new("chroot");
        command.args(["--userspec=65534:65534", "--groups=65534"]).arg(lab.target());
        command.arg(program).arg(argument).output().unwrap()
    };
    for trust in [Trust::Inspect, Trust::System] {
        let mut options = lab.options(Shape::Pinned(FIRST));
        options.trust = trust;
        let journal: cairn_fs::Journal = Arc::new(|_| {});
        let _mounted = cairn_fs::start(lab.store.clone(), &options, journal).unwrap();
        for (path, may) in [
            ("private", false),
            ("own", true),
            ("group", true),
            ("all", true),
            ("hidden/f", false),
            ("listed/f", false),
        ] {
            let output = as_nobody("/usr/bin/cat", &Path::new("/").join(path));
            assert_eq!(output.status.success(), may, "{path}");
        }
        // A setuid program gives rights away only where that is wanted.
        let user = as_nobody("/usr/bin/id", Path::new("-u"));
        let expected = if trust == Trust::System { "0\n" } else { "65534\n" };
        assert_eq!(String::from_utf8_lossy(&user.stdout), expected, "{trust:?}");
    }
}

#[test]
fn hidden_xattrs_are_listed_to_root_alone() {
    let lab = Lab::default();
    let mut attributes = Attributes::of_root(0o644);
    for name in ["trusted.a", "user.b"] {
        let xattr = Xattr { name: name.as_bytes().into(), value: (*b"v").into() };
        attributes.xattrs.push(xattr);
    }
    lab.commit(&items_of([("f", Item::File(attributes, b"f".into()))]));
    fs::set_permissions(lab.temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _mounted = lab.mount(Shape::Follow);
    let path = lab.target().join("f");
    assert_eq!(sys::xattrs(&path), ["trusted.a", "user.b"]);
    assert_eq!(sys::as_user(65534, || sys::xattrs(&path)), ["user.b"]);
}

#[test]
fn a_place_that_cannot_be_mounted_on_is_refused_with_the_reason() {
    let lab = Lab::default();
    let start = |shape, target: &Path| {
        let options = cairn_fs::Options { target: target.into(), ..lab.options(shape) };
        cairn_fs::start(lab.store.clone(), &options, Arc::new(|_| {})).map(drop)
    };
    let target = lab.target();
    let store_error = |result| match result {
        Err(Error::Store(err)) => err.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(store_error(start(Shape::Follow, &target)), "the store has no state yet");
    assert_eq!(store_error(start(Shape::Pinned(StateId(7)), &target)), "there is no state 7");
    assert!(start(Shape::Folder, &target).is_ok(), "a store without states has a folder");
    lab.commit(&Directory::new());
    let plain = lab.temporary.path().join("plain");
    fs::write(&plain, "").unwrap();
    for path in [plain.as_path(), Path::new("/nonexistent/place")] {
        assert!(matches!(start(Shape::Follow, path), Err(Error::Target { .. })), "{path:?}");
    }
    let mounted = lab.mount(Shape::Follow);
    assert!(matches!(start(Shape::Follow, &target), Err(Error::Occupied { .. })));
    let link = lab.temporary.path().join("link");
    symlink(&target, &link).unwrap();
    assert!(matches!(start(Shape::Follow, &link), Err(Error::Occupied { .. })));
    assert_eq!(cairn_fs::list(&lab.run_directory()).unwrap().len(), 1);
    // Unmounted through the link, by anyone who finds it.
    cairn_fs::unmount(&link, Unmount::Now).unwrap();
    mounted.wait().unwrap();
    assert!(matches!(cairn_fs::unmount(&target, Unmount::Now), Err(Error::NotMounted { .. })));
    assert!(matches!(
        cairn_fs::unmount(Path::new("/"), Unmount::Now),
        Err(Error::NotMounted { .. })
    ));
    assert_eq!(cairn_fs::list(&lab.run_directory()).unwrap(), []);
    assert_eq!(fs::read_dir(lab.run_directory().join("mounts")).unwrap().count(), 0);
}

#[test]
fn a_mount_in_use_is_busy_and_ends_when_it_is_left() {
    let lab = Lab::default();
    lab.commit(&items_of([("f", file("f"))]));
    let mounted = lab.mount(Shape::Follow);
    let registered = cairn_fs::list(&lab.run_directory()).unwrap().remove(0);
    let mut open = fs::File::open(lab.target().join("f")).unwrap();
    let busy = cairn_fs::unmount(&lab.target(), Unmount::Now);
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    let run = lab.run_directory();
    let busy = control::unmount(&run, &registered, Unmount::Now, PATIENCE);
    assert!(matches!(&busy, Err(Error::Refused { message, .. }) if message.contains("in use")));
    control::unmount(&run, &registered, Unmount::WhenUnused, PATIENCE).unwrap();
    assert!(!lab.target().join("f").exists());
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "f");
    drop(open);
    mounted.wait().unwrap();
    assert_eq!(cairn_fs::list(&run).unwrap(), []);
}

#[test]
fn nonsense_on_the_control_socket_harms_nothing() {
    let lab = Lab::default();
    lab.commit(&Directory::new());
    let _mounted = lab.mount(Shape::Folder);
    let mounts = lab.run_directory().join("mounts");
    let socket = fs::read_dir(&mounts).unwrap().map(|entry| entry.unwrap().path());
    let socket = socket.into_iter().find(|path| path.extension() == Some("sock".as_ref())).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o7777, 0o600);
    let mut seed = 7_u64;
    for round in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut stream = UnixStream::connect(&socket).unwrap();
        let nonsense: Vec<u8> = match round % 5 {
            0 => seed.to_le_bytes().to_vec(),
            1 => b"\n".to_vec(),
            2 => vec![b'x'; 200_000],
            3 => b"refresh".to_vec(),
            _ => b"Refresh \0\xff\n".to_vec(),
        };
        // It may be closed at the other end before all of it is written.
        let _ = stream.write_all(&nonsense);
        if round % 2 == 0 {
            let mut answer = String::new();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read_to_string(&mut answer);
            assert!(answer.is_empty() || answer.starts_with("{\"failed\""), "{answer}");
        }
    }
    assert_eq!(lab.refresh().state, Some(FIRST));
}

#[test]
fn another_user_cannot_control_a_mount() {
    let lab = Lab::default();
    lab.commit(&Directory::new());
    let _mounted = lab.mount(Shape::Folder);
    let run = lab.run_directory();
    let registered = cairn_fs::list(&run).unwrap().remove(0);
    fs::set_permissions(lab.temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Even if the file would let anyone connect.
    for entry in fs::read_dir(run.join("mounts")).unwrap() {
        let all = fs::Permissions::from_mode(0o666);
        fs::set_permissions(entry.unwrap().path(), all).unwrap();
    }
    let ask = || control::status(&run, &registered, PATIENCE);
    assert!(sys::as_user(65534, ask).is_err());
    assert!(ask().is_ok());
}

#[test]
fn a_store_whose_path_is_too_long_for_a_socket_is_served_as_well() {
    let lab = Lab::default();
    let run = lab.temporary.path().join("x".repeat(200)).join("run");
    lab.commit(&Directory::new());
    let mut options = lab.options(Shape::Folder);
    options.run = Some(run.clone());
    let _mounted = cairn_fs::start(lab.store.clone(), &options, Arc::new(|_| {})).unwrap();
    let answers = control::refresh_all(&run, PATIENCE).unwrap();
    assert!(answers.len() == 1 && answers[0].1.is_ok());
}

#[test]
fn a_tag_with_any_text_is_a_directory() {
    let lab = Lab::default();
    lab.commit(&items_of([("f", file("f"))]));
    for text in ["before upgrade", "ä,b\\c", "-n"] {
        lab.store.tag(Tag::new(text).unwrap(), FIRST).unwrap();
    }
    let _mounted = lab.mount(Shape::Folder);
    for text in ["before upgrade", "ä,b\\c", "-n"] {
        assert_eq!(fs::read(lab.target().join("tags").join(text).join("f")).unwrap(), b"f");
    }
}

#[test]
fn a_store_that_goes_away_gives_errors_and_is_read_again_when_it_is_back() {
    let lab = Lab::default();
    let large = vec![7; 3 << 20];
    lab.commit(&items_of([
        ("dir", directory([("below", file("below"))])),
        ("large", file(&large)),
        ("small", file("small")),
    ]));
    let store = lab.store.path().to_owned();
    // As when nothing is mounted there any more: all of it, or a part.
    for part in ["", "packs", "index", "refs"] {
        let events = support::Events::default();
        // Nothing of it is open or in memory.
        let source = cairn_store::Store::open(&store).unwrap();
        let options = lab.options(Shape::Follow);
        let mounted = cairn_fs::start(source, &options, events.journal()).unwrap();
        let away = lab.temporary.path().join("away");
        let here = if part.is_empty() { store.clone() } else { store.join(part) };
        fs::rename(&here, &away).unwrap();
        let read = |name: &str| fs::read(lab.target().join(name));
        // What is in memory is right, all else is an error.
        for _ in 0..2 {
            for (name, content) in
                [("small", &b"small"[..]), ("large", &large), ("dir/below", b"below")]
            {
                match read(name) {
                    Ok(bytes) => assert!(bytes == content, "{part}: {name}"),
                    Err(err) => assert_eq!(err.raw_os_error(), Some(libc::EIO), "{part}: {name}"),
                }
            }
        }
        if part.is_empty() || part == "packs" {
            assert!(!events.take().is_empty(), "{part}: nothing is said of it");
        }
        fs::remove_dir_all(&here).ok();
        fs::rename(&away, &here).unwrap();
        assert_eq!(read("small").unwrap(), b"small", "{part}");
        assert!(read("large").unwrap() == large, "{part}");
        assert_eq!(read("dir/below").unwrap(), b"below", "{part}");
        drop(mounted);
        // Nothing in the store has suffered.
        let again = cairn_store::Store::open(&store).unwrap();
        assert_eq!(again.refs(), lab.store.refs(), "{part}");
        let tree = again.tree(again.current().unwrap().tree).unwrap();
        let blob = *tree.get(b"large").unwrap().as_leaf().unwrap().blob().unwrap();
        assert!(again.read(&blob).unwrap() == large, "{part}");
    }
}
