//! Programs that run in workspaces, and workspaces that are mounted, of ordinary users as well.

use super::*;

/// A file of a state: its mode, owner and content.
fn stored(lab: &Lab, state: u64, path: &str) -> Option<(u16, u32, String)> {
    lab.store.refresh().unwrap();
    let tree = lab.store.state(StateId(state)).unwrap().tree;
    let entry = resolve(&lab.store, tree, &TreePath::new(path.as_bytes()).unwrap()).unwrap()?;
    let leaf = entry.as_leaf()?.clone();
    let text = String::from_utf8(lab.store.read(leaf.blob()?).unwrap()).unwrap();
    Some((leaf.attributes.mode, leaf.attributes.uid, text))
}

pub fn run_in_workspace() {
    let lab = system();
    let run = |text: &str| answer(script_in(&lab, "web", text));
    let told = || answer(in_workspace(&lab, "diff", "web"));
    assert_eq!(run("cat /var/lib/data /etc/both /etc/from-defaults"), "dataof the statedefault");
    assert_eq!(told(), "", "a program that changes nothing leaves nothing");
    run("echo new > /usr/new; echo more >> /var/lib/data; rm /etc/both; echo x > /tmp/gone; \
         mv /usr/share/defaults /usr/share/other; mkdir /made; echo y > /run/gone");
    let seen = "cat /usr/new /var/lib/data; ls /etc/both 2>/dev/null; ls /tmp /run /made";
    assert_eq!(run(seen), "new\ndatamore\n/made:\n\n/run:\n\n/tmp:");
    let changed = "/\n/etc\n/etc/both\n/made\n/usr\n/usr/new\n/usr/share\n\
                   /usr/share/defaults\n/usr/share/other\n/var/lib/data";
    assert_eq!(told(), changed);
    assert_eq!(answer(in_workspace(&lab, "snapshot", "web")), "2");
    assert_eq!(stored(&lab, 2, "usr/new"), Some((0o644, 0, "new\n".into())));
    assert_eq!(stored(&lab, 2, "var/lib/data").unwrap().2, "datamore\n");
    assert_eq!(stored(&lab, 2, "etc/both"), None);
    assert_eq!(stored(&lab, 2, "usr/share/other/etc/both").unwrap().2, "default");
    assert_eq!(stored(&lab, 1, "etc/both").unwrap().2, "of the state");
    assert_eq!(told(), "");
    assert_eq!(run("cat /usr/new; exit 0"), "new");
    // The stage may be a directory in which the store lies, such as /tmp.
    let mut hidden = in_workspace(&lab, "run", "web");
    hidden.arg(lab.temporary.path()).args(["sh", "-c", "cat /usr/new"]);
    assert_eq!(answer(hidden), "new");
    assert_eq!(script_in(&lab, "web", "exit 7").status().unwrap().code(), Some(7));
    assert_eq!(registered(&lab), 0);
    // While a program runs in it, it is left to that.
    let mut child =
        script_in(&lab, "web", "echo ready; sleep 9876.5").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let name = WorkspaceName::new("web").unwrap();
    let held = lab.store.lock_workspace(&name);
    assert!(matches!(held, Err(cairn_store::Error::WorkspaceInUse { .. })), "{held:?}");
    let registered = cairn_fs::list(&lab.run_directory()).unwrap();
    assert_eq!(registered[0].workspace.as_deref(), Some("web"));
    let kept: Vec<_> = lab.store.workspace(&name).unwrap().trees().collect();
    assert_eq!(registered[0].trees, kept, "trees of the store, which gc can read");
    child.kill().unwrap();
    child.wait().unwrap();
    cairn_fs::workspace::hold(&lab.store, &name).unwrap();
}

pub fn run_and_throw_away() {
    let lab = system();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let text = "echo new > /usr/new; rm -r /usr/share; echo x >> /etc/both; cat /usr/new /etc/both; \
                ls /usr; chmod 700 /etc/from-defaults; cat /etc/from-defaults";
    let seen = answer(script_in(&lab, "-", text));
    assert_eq!(seen, "new\nof the statex\nbin\nlib\nlib64\nnew\ndefault");
    assert_eq!(
        answer(script_in(&lab, "-", "ls /usr; cat /etc/both")),
        "bin\nlib\nlib64\nshare\nof the state"
    );
    assert!(lab.store.workspaces().unwrap().is_empty());
    assert_eq!(registered(&lab), 0);
    nothing_stays_mounted(&before);
}

pub fn completed() {
    let lab = system();
    let run = |text: &str| answer(script_in(&lab, "web", text));
    // A new mode alone: the content is only below, where a mount does not show it.
    run("chmod 600 /etc/from-defaults; mv /etc/hosts /etc/moved");
    mount_and(&lab, "web", |root| {
        assert_eq!(fs::read_to_string(root.join("etc/from-defaults")).unwrap(), "default");
        assert!(fs::read_to_string(root.join("etc/moved")).unwrap().contains("localhost"));
    });
    assert_eq!(answer(in_workspace(&lab, "diff", "web")), "/etc\n/etc/from-defaults\n/etc/moved");
    // All of /etc, with what shone through, in another place.
    run("mv /etc /usr/etc; mkdir /etc");
    assert_eq!(answer(in_workspace(&lab, "snapshot", "web")), "2");
    assert_eq!(stored(&lab, 2, "usr/etc/from-defaults"), Some((0o600, 0, "default".into())));
    assert_eq!(stored(&lab, 2, "usr/etc/both").unwrap().2, "of the state");
    assert!(stored(&lab, 2, "usr/etc/passwd").unwrap().2.starts_with("root:x:0:0:"));
    assert_eq!(stored(&lab, 2, "etc/both"), None);
    assert!(lab.store.verify(&()).unwrap().damage.is_empty());
    // Nothing shows through in a workspace in which only files were looked at.
    drop(lab);
    let lab = system();
    answer(script_in(&lab, "web", "cat /etc/hosts > /dev/null; touch /usr/new"));
    mount_and(&lab, "web", |root| assert!(!root.join("etc/hosts").exists()));
}

/// Mounts a workspace in a process of its own for as long as `f` takes.
fn mount_and(lab: &Lab, workspace: &str, f: impl FnOnce(&Path)) {
    let mut command = in_workspace(lab, "mount", workspace);
    let mut child = command.arg(lab.target()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    f(&lab.target());
    cairn_fs::unmount(&lab.target(), Unmount::Now).unwrap();
    assert!(child.wait().unwrap().success());
}

pub fn workspace_of_user() {
    let lab = system();
    with_fuse_for_all(&lab, || {
        let run = |text: &str| answer(as_nobody(&lab, &script_in(&lab, "web", text)));
        let told = || answer(as_nobody(&lab, &in_workspace(&lab, "diff", "web")));
        assert_eq!(run("id -u; cat /etc/from-defaults"), "0\ndefault");
        assert_eq!(told(), "");
        run("echo new > /usr/new; chmod 000 /usr/new; echo more >> /var/lib/data; rm /etc/both; \
             mkdir /made; echo y > /made/file; chmod 000 /made; chmod 700 /etc/from-defaults; \
             rm -r /root; mkdir /root; echo z > /root/z; ln /root/z /root/zz; mv /usr/share /usr/moved");
        let changed = told();
        for path in [
            "/usr/new",
            "/var/lib/data",
            "/etc/both",
            "/made",
            "/root/zz",
            "/usr/share",
            "/usr/moved",
        ] {
            assert!(changed.lines().any(|line| line == path), "{path}: {changed}");
        }
        assert_eq!(answer(as_nobody(&lab, &in_workspace(&lab, "snapshot", "web"))), "2");
        assert_eq!(run("cat /usr/new /made/file /root/zz"), "new\ny\nz");
        run("rm -r /made; echo again > /usr/again");
        assert_eq!(answer(as_nobody(&lab, &in_workspace(&lab, "snapshot", "web"))), "3");
        run("mkdir /made; chmod 000 /made");
        answer(as_nobody(&lab, &in_workspace(&lab, "discard", "web")));
        assert!(!lab.store.workspace_path(&WorkspaceName::new("web").unwrap()).exists());
        let thrown = answer(as_nobody(&lab, &script_in(&lab, "-", "echo x > /usr/x; cat /usr/x")));
        assert_eq!(thrown, "x");
    });
    // What the user made as root of its namespace belongs to root in the state.
    assert_eq!(stored(&lab, 2, "usr/new"), Some((0, 0, "new\n".into())));
    assert_eq!(stored(&lab, 2, "made/file"), Some((0o644, 0, "y\n".into())));
    assert_eq!(stored(&lab, 2, "etc/from-defaults"), Some((0o700, 0, "default".into())));
    assert_eq!(stored(&lab, 2, "usr/moved/defaults/etc/both").unwrap().2, "default");
    assert_eq!(stored(&lab, 2, "etc/both"), None);
    assert_eq!(stored(&lab, 3, "made/file"), None);
    assert_eq!(stored(&lab, 3, "usr/again").unwrap().2, "again\n");
}

/// Mounts the workspace `web` as an ordinary user, and calls `f` with its directory as
/// that user.
fn mount_as_nobody(lab: &Lab, f: impl FnOnce(&Path) + Send) {
    let mut command = as_nobody(lab, in_workspace(lab, "mount", "web").arg(lab.target()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    sys::as_user(65534, || f(&lab.target()));
    answer(as_nobody(lab, &self::command(lab, "unmount", "follow")));
    assert!(child.wait().unwrap().success(), "it ends with the mount");
    assert_eq!(registered(lab), 0);
}

pub fn workspace_mounted_by_user() {
    let mut root = system_root();
    for path in ["srv/a", "srv/b", "srv/sub/c", "srv/sub/deep/d", "srv/other/e"] {
        put(&mut root, path, file(path.repeat(1000)));
    }
    for path in ["linked/one", "linked/two", "linked/sub/three"] {
        let attributes = Attributes::of_root(0o644);
        let item = Item::Link("/linked/one".into(), 3, attributes, b"linked".to_vec());
        put(&mut root, path, item);
    }
    let lab = Lab::default();
    lab.commit(&root);
    let plain = lab.temporary.path().join("plain");
    fs::create_dir(&plain).unwrap();
    chown(&plain, Some(65534), Some(65534)).unwrap();
    with_fuse_for_all(&lab, || {
        mount_as_nobody(&lab, |mount| {
            // A name of a hard link of the state goes its own way when it is written.
            fs::write(mount.join("linked/two"), "alone").unwrap();
            let read = |name: &str| fs::read_to_string(mount.join("linked").join(name)).unwrap();
            assert_eq!(["one", "two", "sub/three"].map(read), ["linked", "alone", "linked"]);
            // What belongs to root in there belongs to the user.
            let data = fs::metadata(mount.join("srv/a")).unwrap();
            assert_eq!((data.uid(), data.gid()), (65534, 65534));
            let from = mount.join("srv/.");
            let copied = Command::new("cp").arg("-a").arg(from).arg(&plain).status().unwrap();
            assert!(copied.success());
        });
        for seed in 1..=4 {
            mount_as_nobody(&lab, |mount| {
                twins::assert_alike(&mount.join("srv"), &plain, "mounted again");
                twins::do_alike(&mount.join("srv"), &plain, seed, 250);
            });
        }
        let run = |text: &str| answer(as_nobody(&lab, &script_in(&lab, "web", text)));
        assert_eq!(run("cat /linked/two; echo inside > /linked/new"), "alone");
        mount_as_nobody(&lab, |mount| {
            assert_eq!(fs::read(mount.join("linked/new")).unwrap(), b"inside\n");
        });
        assert_eq!(answer(as_nobody(&lab, &in_workspace(&lab, "snapshot", "web"))), "2");
    });
    lab.store.refresh().unwrap();
    let mounted = lab.mount(Shape::Pinned(StateId(2)));
    twins::assert_alike(&lab.target().join("srv"), &plain, "published");
    let data = fs::metadata(lab.target().join("linked/two")).unwrap();
    assert_eq!((data.uid(), data.gid(), data.size()), (0, 0, 5));
    drop(mounted);
}

pub fn workspace_killed() {
    let lab = system();
    let mut command = in_workspace(&lab, "mount", "web");
    let mut child = command.arg(lab.target()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    fs::write(lab.target().join("usr/new"), "new").unwrap();
    fs::remove_file(lab.target().join("etc/both")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // What was changed is in the layer; nobody gets it before the dead mount is gone.
    let said = answer(script_in(&lab, "web", "true"));
    assert!(said.starts_with("error: the workspace web is still mounted on "), "{said}");
    assert_eq!(answer(in_workspace(&lab, "diff", "web")), "/etc\n/etc/both\n/usr\n/usr/new");
    cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
    assert_eq!(answer(script_in(&lab, "web", "cat /usr/new; ls /etc/both 2>/dev/null")), "new");
    assert_eq!(answer(in_workspace(&lab, "snapshot", "web")), "2");
    assert_eq!(stored(&lab, 2, "usr/new").unwrap().2, "new");
}
