//! Workspaces of an ordinary user, over a system of real Debian packages that the user has
//! installed into a store of its own.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::process::Command;

use cairn_store::{StateId, Store};
use cairn_tests::ordinary::{as_user, give_to_user};
use cairn_tests::{Cairn, Listing, Need, real};
use serde_json::Value;

/// What is installed, with all that these need.
const PACKAGES: &[&str] =
    &["base-files", "bash", "coreutils", "dash", "findutils", "git", "passwd", "sed", "tar"];

/// A directory of the user's, with a repository in `stones` and an empty directory `place`.
fn store_to_be() -> Option<Cairn> {
    let debs = real::debs_for(PACKAGES, "list-user")?;
    let repository = real::repository_of(&debs, "stones-user");
    let cairn = Cairn::new();
    let stones = cairn.directory().join("stones");
    // The checkout may lie where the user must not look.
    let copied = Command::new("cp").arg("-r").arg(&repository).arg(&stones).status().unwrap();
    assert!(copied.success());
    fs::create_dir(cairn.directory().join("place")).unwrap();
    for path in [cairn.directory(), &cairn.directory().join("place")] {
        give_to_user(path);
    }
    Some(cairn)
}

#[test]
fn an_ordinary_user_changes_a_real_system_and_publishes_it() {
    let fusermount = Need::Program("fusermount3", "fuse3");
    if !Need::all(&[Need::Fuse, Need::Root, fusermount, Need::Program("git", "git")]) {
        return;
    }
    let Some(cairn) = store_to_be() else { return };
    let told = as_user(
        &cairn,
        &r#"
        c repo add real "file://$PWD/stones" >said
        c --yes install PACKAGES >said

        # Inside the user is root.
        c run --rw web -- bash -ec '
            id -u
            mkdir -p /srv/site/deep
            echo hello >/srv/site/index
            ln /srv/site/index /srv/site/again
            mv /usr/share/doc /usr/share/papers
            rm /usr/bin/tac
            chown 0:0 /usr/bin/tee
            chmod 4711 /usr/bin/tee
            echo more >>/usr/share/base-files/motd
        '
        # Outside its own programs work in the same files.
        c mount --rw web place >said
        c mount | grep -c "place.*workspace web"
        user 65534 sh -euc '
            cd place
            cat srv/site/again
            stat -c "%u %g %h" srv/site/again
            ls usr/bin/tac 2>/dev/null || echo gone
            echo outside >srv/site/outside
            mv srv/site srv/page
            rm srv/page/index
            rm -r usr/share/papers
            mkdir srv/git
            git -c init.defaultBranch=main init -q srv/git
            cd srv/git
            echo text >file
            git add file
            git -c user.name=n -c user.email=n@x commit -qm one
            git fsck --strict 2>/dev/null && git status --short
            tar -C ../../usr/bin -cf - . | tar -xf - --one-top-level=copied
            diff -r copied ../../usr/bin && echo the same
            rm -r copied
            umask 077; touch ../page/closed; mkdir ../page/shut
        '
        user 4243 cat place/srv/page/again 2>/dev/null || echo not for others
        cat place/srv/page/again 2>/dev/null || echo not for root
        c run --rw web -- true 2>said || grep -c "in use" said
        c workspace list | grep -c place
        c umount place >said
        c mount
        c --json workspace diff web >diff
        c workspace show web >said
        c --json snapshot web -m "by its user" >published
        c run -- bash -ec 'cd /srv/git && git log --format=%s && cat /srv/page/outside'
        c run --rw -- bash -ec 'rm -r /usr/share; echo thrown away'
        c run --rw web -- bash -ec 'rm -r /srv'
        c --yes workspace reset web >said
        c --json workspace diff web
        c --yes workspace discard web >said
        c workspace list
        "#
        .replace("PACKAGES", &PACKAGES.join(" ")),
    );
    let expected = "\
        0\n1\nhello\n65534 65534 2\ngone\nthe same\nnot for others\nnot for root\n1\n1\n\
        Nothing is mounted.\none\noutside\nthrown away\n";
    let told_and = told.strip_prefix(expected);
    assert!(told_and.is_some(), "{told}");
    assert!(told.ends_with("There are no workspaces.\n"), "{told}");

    // The changes are told before they are published, and nothing else is.
    let diff = fs::read_to_string(cairn.directory().join("diff")).unwrap();
    let diff: Value = serde_json::from_str(&diff).unwrap();
    let changed = diff["changes"].as_array().unwrap().iter();
    let changed: Vec<&str> = changed.map(|it| it["path"].as_str().unwrap()).collect();
    let expected = [
        "/srv",
        "/srv/git",
        "/srv/page",
        "/usr/bin",
        "/usr/bin/tac",
        "/usr/bin/tee",
        "/usr/share",
        "/usr/share/base-files/motd",
        "/usr/share/doc",
    ];
    assert_eq!(changed, expected);

    // What the user made belongs to root, as it did inside.
    let store = Store::open(&cairn.store()).unwrap();
    let before = Listing::of_tree(&store, store.state(StateId(1)).unwrap().tree);
    let after = Listing::of_tree(&store, store.state(StateId(2)).unwrap().tree);
    let modes = [
        ("srv/page/again", 0o644),
        ("srv/page/outside", 0o644),
        ("srv/page/closed", 0o600),
        ("srv/page/shut", 0o700),
        ("srv/git/file", 0o644),
        ("usr/bin/tee", 0o4711),
    ];
    for (path, mode) in modes {
        let entry = &after.0[path.as_bytes()];
        assert_eq!((entry.mode, entry.uid, entry.gid), (mode, 0, 0), "{path}");
    }
    assert!(
        before.0.contains_key(&b"usr/bin/tac"[..]) && !after.0.contains_key(&b"usr/bin/tac"[..])
    );
    // Files of other owners have theirs, since nobody has changed them.
    let owned = |listing: &Listing| listing.0.values().filter(|it| it.gid != 0).count();
    assert!(owned(&before) > 0);
    assert_eq!(owned(&before), owned(&after));
}

#[test]
fn files_of_the_users_that_the_machine_gives_to_a_user_stay_theirs() {
    let programs = [("fusermount3", "fuse3"), ("newuidmap", "uidmap"), ("newgidmap", "uidmap")];
    let needs = programs.map(|(program, package)| Need::Program(program, package));
    if !Need::all(&[&[Need::Fuse, Need::Root][..], &needs].concat()) {
        return;
    }
    let Some(cairn) = store_to_be() else { return };
    let told = as_user(
        &cairn,
        &r#"
        echo nobody:200000:65536 >given
        for file in subuid subgid; do
            mount --bind given /etc/$file
        done
        c repo add real "file://$PWD/stones" >said
        c --yes install PACKAGES >said
        c run -- bash -c 'id -u; chroot --userspec=33:44 / id -u; stat -c %g /usr/bin/expiry'
        c run --rw web -- bash -ec '
            mkdir -m 700 /srv/closed
            echo secret >/srv/closed/file
            chown -R 33:44 /srv/closed
            chroot --userspec=33:44 / bash -c "echo more >>/srv/closed/file"
            chmod 755 /usr/bin/expiry
        '
        c workspace diff web -p | sed -n '/^+ .srv.closed.file/,/more/p'
        c --json store info | grep partial
        c mount --rw web place >said
        user 65534 stat -c "%u %g %a" place/srv/closed
        user 65534 cat place/srv/closed/file 2>/dev/null || echo not for the user
        c umount place >said
        c --json snapshot web -m "of two users" >published
        c run -- bash -ec 'chroot --userspec=33:44 / cat /srv/closed/file'
        # What the user alone could not remove.
        c run --rw web -- bash -ec 'mkdir /srv/more; touch /srv/more/x; chown -R 7 /srv/more'
        c --yes workspace reset web >said
        ls store/workspaces/web | grep layer || echo no layer
        c run --rw web -- bash -ec 'mkdir /srv/more; touch /srv/more/x; chown -R 7 /srv/more'
        c --yes workspace discard web >said
        ls store/workspaces
        "#
        .replace("PACKAGES", &PACKAGES.join(" ")),
    );
    let expected = "\
        0\n33\n42\n\
        + /srv/closed/file\n--- /dev/null\n+++ b/srv/closed/file\n@@ -0,0 +1,2 @@\n+secret\n+more\n  \"partial\": false\n\
        200032 200043 700\nnot for the user\nsecret\nmore\nno layer\n";
    assert_eq!(told, expected);
    let store = Store::open(&cairn.store()).unwrap();
    let after = Listing::of_tree(&store, store.state(StateId(2)).unwrap().tree);
    let owners = [
        ("srv/closed", 0o700, 33, 44),
        ("srv/closed/file", 0o644, 33, 44),
        ("usr/bin/expiry", 0o755, 0, 42),
    ];
    for (path, mode, uid, gid) in owners {
        let entry = &after.0[path.as_bytes()];
        assert_eq!((entry.mode, entry.uid, entry.gid), (mode, uid, gid), "{path}");
    }
}
