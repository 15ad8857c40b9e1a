//! Mounts that are left in the background, end, die, and are measured.

use super::*;

pub fn ready() {
    let lab = small();
    let pid: u32 = output(&lab, "background", "follow").parse().unwrap();
    assert_eq!(fs::read(lab.target().join("f")).unwrap(), b"one");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let own: Vec<&str> = own.rsplit(") ").next().unwrap().split(' ').collect();
    assert_ne!(fields[3], own[3], "it has a session of its own");
    assert_ne!(fields[3], pid.to_string(), "it does not lead its session");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for standard in 0..3 {
        let open = fs::read_link(format!("/proc/{pid}/fd/{standard}")).unwrap();
        assert_eq!(open, Path::new("/dev/null"));
    }
    lab.commit(&items_of([("f", file("two"))]));
    assert_eq!(lab.refresh().state, Some(StateId(2)));
    assert_eq!(fs::read(lab.target().join("f")).unwrap(), b"two");
    cairn_fs::unmount(&lab.target(), Unmount::Now).unwrap();
    eventually("the process ends", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    assert_eq!(registered(&lab), 0);
}

pub fn failing() {
    let lab = Lab::default();
    assert_eq!(output(&lab, "background", "follow"), "error: the store has no state yet");
    assert_eq!(output(&lab, "background", "9"), "error: there is no state 9");
    fs::remove_dir(lab.target()).unwrap();
    let said = output(&lab, "background", "folder");
    assert!(
        said.starts_with("error: cannot mount on ") && said.ends_with("(os error 2)"),
        "{said}"
    );
    assert_eq!(registered(&lab), 0);
}

pub fn threads() {
    let lab = small();
    let said = output(&lab, "threads", "follow");
    assert_eq!(said, "cannot leave a process in the background once threads run");
    assert!(!is_mounted(&lab));
}

pub fn signals() {
    let lab = small();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut mount = Foreground::start(&lab, "folder");
        sys::kill(mount.child.id(), signal);
        assert!(mount.child.wait().unwrap().success());
        assert!(!is_mounted(&lab) && registered(&lab) == 0);
    }
    // Whoever uses the mount may go on.
    let mut mount = Foreground::start(&lab, "follow");
    let open = fs::File::open(lab.target().join("f")).unwrap();
    sys::kill(mount.child.id(), libc::SIGTERM);
    eventually("it is out of sight", || (!is_mounted(&lab)).then_some(()));
    assert!(mount.child.try_wait().unwrap().is_none());
    assert_eq!(io::read_to_string(open).unwrap(), "one");
    assert!(mount.child.wait().unwrap().success());
}

pub fn killed() {
    let lab = small();
    let mount = Foreground::start(&lab, "follow");
    assert_eq!(registered(&lab), 1);
    let open = fs::File::open(lab.target().join("f")).unwrap();
    mount.kill();
    assert!(is_mounted(&lab));
    let error = fs::metadata(lab.target().join("other")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    assert_eq!(registered(&lab), 0);
    assert_eq!(fs::read_dir(lab.run_directory().join("mounts")).unwrap().count(), 0);
    assert!(control::refresh_all(&lab.run_directory(), PATIENCE).unwrap().is_empty());
    let busy = cairn_fs::unmount(&lab.target(), Unmount::Now);
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
    assert!(!is_mounted(&lab));
    drop(open);
    // Or a new mount takes its place, as often as that is needed.
    for _ in 0..3 {
        let mount = Foreground::start(&lab, "follow");
        let open = fs::File::open(lab.target().join("f")).unwrap();
        mount.kill();
        let mount = Foreground::start(&lab, "follow");
        assert_eq!(fs::read(lab.target().join("f")).unwrap(), b"one");
        mount.kill();
        drop(open);
    }
    let mut mount = Foreground::start(&lab, "follow");
    let again = output(&lab, "background", "follow");
    assert!(again.contains("a mount of Cairn is there already"), "{again}");
    cairn_fs::unmount(&lab.target(), Unmount::Now).unwrap();
    assert!(mount.child.wait().unwrap().success());
    assert!(!is_mounted(&lab));
    // At any moment: killed while it begins, it leaves nothing that stays.
    for delay in 0..30 {
        let mut child =
            command(&lab, "foreground", "folder").stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(delay * 400));
        child.kill().unwrap();
        child.wait().unwrap();
        if is_mounted(&lab) {
            cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
        }
        assert_eq!(registered(&lab), 0);
    }
    let left = fs::read_dir(lab.run_directory().join("mounts")).unwrap();
    assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>().len(), 0);
}

pub fn supervised() {
    let lab = small();
    let path = lab.temporary.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = command(&lab, "foreground", "folder")
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut message = [0; 100];
    let len = socket.recv(&mut message).unwrap();
    let message = std::str::from_utf8(&message[..len]).unwrap();
    assert_eq!(message, format!("READY=1\nMAINPID={}\n", child.id()));
    assert_eq!(fs::read(lab.target().join("current/f")).unwrap(), b"one");
    sys::kill(child.id(), libc::SIGTERM);
    assert!(child.wait().unwrap().success());
}

pub fn for_oneself() {
    let lab = small();
    with_fuse_for_all(&lab, || {
        let pid = answer(as_nobody(&lab, &command(&lab, "background", "follow")));
        let pid: u32 = pid.parse().unwrap_or_else(|_| panic!("{pid}"));
        let path = lab.target().join("f");
        assert_eq!(sys::as_user(65534, || fs::read(&path)).unwrap(), b"one");
        // Not even root, which such a mount could lead by the nose.
        assert_eq!(fs::read(&path).unwrap_err().raw_os_error(), Some(libc::EACCES));
        let target = format!(" {} fuse.cairn ", lab.target().display());
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(&target)).unwrap();
        for option in ["ro", "nosuid", "nodev", "default_permissions", "user_id=65534"] {
            assert!(line.contains(option), "{line}");
        }
        let again = answer(as_nobody(&lab, &command(&lab, "background", "follow")));
        assert!(again.contains("a mount of Cairn is there already"), "{again}");
        answer(as_nobody(&lab, &command(&lab, "unmount", "follow")));
        assert!(!fs::read_to_string("/proc/thread-self/mounts").unwrap().contains(&target));
        eventually("it ends", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    });
}

/// Prints what a mount of a whole system costs; the bound is the design's.
pub fn memory() {
    let lab = Lab::default();
    support::commit_system(&lab);
    let own = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name| {
            let line: &str = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
        };
        (field("VmRSS"), field("RssAnon"))
    };
    let begun = Instant::now();
    let mut mount = Foreground::start(&lab, "follow");
    let (started, before) = (begun.elapsed(), own(mount.child.id()));
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(support::count(&lab.target()), support::ENTRIES);
        times.push(begun.elapsed());
    }
    let after = own(mount.child.id());
    let registered = cairn_fs::list(&lab.run_directory()).unwrap().remove(0);
    let nodes = control::status(&lab.run_directory(), &registered, PATIENCE).unwrap().nodes;
    assert_eq!(nodes, support::ENTRIES + 1);
    println!(
        "{nodes} nodes; process started and mounted in {started:?}; walks {times:?}; \
         resident {} MB ({} anonymous), before the walk {} MB ({} anonymous)",
        after.0, after.1, before.0, before.1
    );
    let mut switches = Vec::new();
    for state in [2, 1, 2, 1, 2] {
        lab.store.switch(StateId(state)).unwrap();
        let begun = Instant::now();
        assert_eq!(lab.refresh().names, 1);
        switches.push(begun.elapsed());
    }
    println!("switch of one file: {switches:?}");
    sys::drop_names(&lab.target());
    eventually("all is forgotten", || {
        let status = control::status(&lab.run_directory(), &registered, PATIENCE);
        (status.unwrap().nodes == 1).then_some(())
    });
    println!(
        "after forgetting: {} MB ({} anonymous)",
        own(mount.child.id()).0,
        own(mount.child.id()).1
    );
    sys::kill(mount.child.id(), libc::SIGTERM);
    assert!(mount.child.wait().unwrap().success());
    assert!(after.0 < 100, "{} MB", after.0);
}
