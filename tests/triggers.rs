//! Triggers of real packages, of broken ones and of hostile ones, as a user meets
//! them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use cairn_store::Store;
use cairn_tests::{Cairn, Deb, Mount, Need, real};
use serde_json::Value;

/// Packages with the tools whose triggers a conversion adds, and with files for
/// them.
const TOOLS: &[&str] = &[
    "bash",
    "coreutils",
    "dash",
    "desktop-file-utils",
    "gsettings-desktop-schemas",
    "gtk-update-icon-cache",
    "hicolor-icon-theme",
    "kmod",
    "libc-bin",
    "libglib2.0-bin",
    "shared-mime-info",
    "sqlite3",
];

/// An image of one pixel, as PNG.
const PIXEL: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\
    \0\0\0\nIDAT\x78\x9c\x63\0\0\0\x02\0\x01\x48\xaf\xa4\x71\0\0\0\0IEND\xaeB\x60\x82";

/// Offers the packages of `roots` and `more`, with triggers.
fn offer(cairn: &Cairn, roots: &[&str], more: Vec<PathBuf>) -> bool {
    if !Need::all(&[Need::Root, Need::Fuse]) {
        return false;
    }
    let list = format!("list-{}", roots.join("-").len());
    let Some(debs) = real::debs_for(roots, &list) else { return false };
    let stones = cairn.directory().join("real");
    let words = ["--quiet", "convert", "-o"].map(OsStr::new).into_iter();
    let debs = debs.iter().chain(&more).map(|deb| deb.as_os_str());
    cairn.data(words.chain([stones.as_os_str()]).chain(debs));
    cairn.data([OsStr::new("repo"), OsStr::new("index"), stones.as_os_str()]);
    cairn.data(["repo", "add", "real", &format!("file://{}", stones.display())]);
    true
}

/// The names of the triggers that a transaction has run.
fn ran(done: &Value) -> BTreeSet<&str> {
    done["triggers"].as_array().unwrap().iter().map(|it| it["trigger"].as_str().unwrap()).collect()
}

fn tree(cairn: &Cairn) -> String {
    cairn.json(["state", "show"])["tree"].as_str().unwrap().into()
}

fn exists(cairn: &Cairn, path: &str) -> bool {
    cairn.run(["ls", path]).status.success()
}

#[test]
fn the_tools_of_real_packages_do_their_work_in_each_new_state() {
    let cairn = Cairn::new();
    let module = fs::read("/usr/lib/x86_64-linux-gnu/crt1.o").unwrap_or_default();
    let kernel = Deb::new("kernel", "1")
        .file("lib/modules/1.0-test/kernel/drivers/x.ko", 0o644, &module)
        .file("lib/modules/1.0-test/modules.order", 0o644, "kernel/drivers/x.ko\n")
        .file("lib/modules/1.0-test/modules.builtin", 0o644, "");
    // The theme itself brings directories alone, of which no cache is made.
    let icon = Deb::new("icon", "1").file("usr/share/icons/hicolor/16x16/apps/x.png", 0o644, PIXEL);
    let small = Deb::new("small", "1").file("usr/share/small/x", 0o644, "x");
    let more = cairn.directory().join("more");
    let debs = [kernel, icon, small].map(|deb| deb.write(&more));
    if !offer(&cairn, TOOLS, debs.into()) {
        return;
    }
    let words = ["--yes", "install"].into_iter().chain(TOOLS.iter().copied());
    let words = words.chain(["kernel", "icon"]);
    let done = cairn.json(words);
    let all = [
        "depmod",
        "gdk-pixbuf-query-loaders",
        "glib-compile-schemas",
        "gtk-update-icon-cache",
        "ldconfig",
        "update-mime-database",
    ];
    let did = ran(&done);
    assert!(all.iter().all(|name| did.contains(name)), "{did:?}");

    // What they made works for those that it is made for.
    let listed = cairn.data(["run", "--", "ldconfig", "-p"]);
    for library in ["libz.so.1", "libsqlite3.so.0", "libglib-2.0.so.0", "libc.so.6"] {
        assert!(listed.contains(library), "{library} in {listed}");
    }
    let schemas = cairn.data(["run", "--", "gsettings", "list-schemas"]);
    assert!(schemas.contains("org.gnome.desktop.interface"), "{schemas}");
    let dependencies = cairn.data(["cat", "/usr/lib/modules/1.0-test/modules.dep"]);
    assert_eq!(dependencies, "kernel/drivers/x.ko:\n");
    for path in ["/usr/share/mime/mime.cache", "/usr/share/icons/hicolor/icon-theme.cache"] {
        assert!(exists(&cairn, path), "{path}");
    }
    assert!(!exists(&cairn, "/var/cache/ldconfig/aux-cache"));
    let owner = cairn.json(["owner", "/etc/ld.so.cache", "/usr/lib/ld.so.cache"]);
    assert_eq!(owner[0]["packages"][0], "libc-bin");
    assert_eq!(owner[1]["triggers"][0], "ldconfig");
    assert!(cairn.data(["check"]).contains("every file is as it was brought"));
    let first = tree(&cairn);

    // Something else costs none of them.
    assert_eq!(ran(&cairn.json(["--yes", "install", "small"])), BTreeSet::new());
    assert_eq!(ran(&cairn.json(["--yes", "remove", "small"])), BTreeSet::new());
    assert_eq!(tree(&cairn), first);

    // A library less: the cache of the new state has it no more.
    let removed = cairn.json(["--yes", "remove", "sqlite3"]);
    assert_eq!(ran(&removed), ["ldconfig", "ldconfig-aux-cache"].into());
    assert!(!cairn.data(["run", "--", "ldconfig", "-p"]).contains("libsqlite3"));
    let old = cairn.data(["run", "--state", "1", "--", "ldconfig", "-p"]);
    assert!(old.contains("libsqlite3"));
    // What triggers have written goes with what asked for it.
    cairn.data(["--yes", "remove", "shared-mime-info", "kernel"]);
    for path in ["/usr/share/mime", "/usr/lib/modules/1.0-test"] {
        assert!(!exists(&cairn, path), "{path}");
    }
    assert!(cairn.data(["check"]).contains("every file is as it was brought"));
    let again = ["--yes", "install"].into_iter().chain(TOOLS.iter().copied());
    cairn.data(again.chain(["kernel"]));
    assert_eq!(tree(&cairn), first, "the same packages make the same root");
    let store = Store::open(&cairn.store()).unwrap();
    assert_eq!(store.refs().states.len(), 6);
}

/// A package with a transaction trigger that runs a script when the package comes.
fn with_script(name: &str, script: &str) -> Deb {
    let trigger = format!(
        "name: {name}\ndescription: A test\nhandlers:\n  run:\n    run: /usr/bin/dash\n    \
         args: [/usr/share/{name}/script]\npaths:\n  \"/usr/share/{name}/*\": {{handlers: [run]}}\n"
    );
    Deb::new(name, "1")
        .file(&format!("usr/share/moss/triggers/tx.d/{name}.yaml"), 0o644, trigger)
        .file(&format!("usr/share/{name}/script"), 0o755, script)
}

#[test]
fn a_trigger_that_fails_leaves_the_old_state_and_says_what_it_said() {
    let cairn = Cairn::new();
    let more = cairn.directory().join("more");
    let debs = [
        with_script(
            "bad",
            "echo first; echo what is wrong >&2; echo x >/usr/share/bad/x; exit 3\n",
        ),
        with_script("good", "echo x >/usr/share/good/made; rm /usr/share/other/taken\n"),
        Deb::new("other", "1").file("usr/share/other/taken", 0o644, "x"),
        Deb::new("broken", "1").file("usr/share/moss/triggers/tx.d/b.yaml", 0o644, "name: x\n"),
    ];
    let debs = debs.into_iter().map(|deb| deb.write(&more)).collect();
    if !offer(&cairn, &["dash", "coreutils"], debs) {
        return;
    }
    cairn.data(["--yes", "install", "dash", "coreutils", "other"]);
    let before = tree(&cairn);
    let said = cairn.fails(1, ["--yes", "install", "bad"]);
    let expected =
        "the trigger bad failed: /usr/bin/dash /usr/share/bad/script ended with exit code 3";
    assert!(
        said.contains(expected) && said.contains("first") && said.contains("what is wrong"),
        "{said}"
    );
    assert!(said.contains("--skip-triggers"), "{said}");
    let broken = cairn.fails(1, ["--yes", "install", "broken"]);
    assert!(broken.contains("/usr/share/moss/triggers/tx.d/b.yaml"), "{broken}");
    assert_eq!(
        (tree(&cairn), cairn.json(["state", "list"]).as_array().unwrap().len()),
        (before.clone(), 1)
    );

    // Left out, it is done with the next transaction.
    let skipped = cairn.json(["--yes", "install", "--skip-triggers", "good"]);
    assert_eq!(skipped["skipped_triggers"][0]["trigger"], "good");
    assert!(!exists(&cairn, "/usr/share/good/made"));
    assert_eq!(ran(&cairn.json(["--yes", "install", "libacl1"])), ["good"].into());
    assert!(exists(&cairn, "/usr/share/good/made"));
    assert!(!exists(&cairn, "/usr/share/other/taken"));
    assert!(cairn.data(["check"]).contains("rewritten 1 file"));
    cairn.data(["--yes", "remove", "good"]);
    assert!(exists(&cairn, "/usr/share/other/taken"), "what it took away is back");
    assert_eq!(tree(&cairn), before);
}

#[test]
fn hostile_triggers_reach_nothing_of_the_machine() {
    let cairn = Cairn::new();
    let secret = cairn.directory().join("secret");
    fs::write(&secret, "of the machine").unwrap();
    let secret = secret.display();
    // Each ends with code 0 if it reaches what it wants.
    let attacks = [
        format!("cat {secret}"),
        format!("cat /proc/1/root{secret}"),
        "echo x >/etc/passwd".into(),
        "echo x >/proc/sys/kernel/core_pattern".into(),
        "echo b >/proc/sysrq-trigger".into(),
        "mknod /usr/share/disk b 8 0".into(),
        "kill -9 1; kill -0 1 && exit 1".into(),
        "test \"$(ls /sys/class/net 2>/dev/null | wc -l)\" -gt 50".into(),
        "chroot /proc/1/root /usr/bin/true".into(),
        format!("ln -s {secret} /usr/share/link && cat /usr/share/link"),
    ];
    let more = cairn.directory().join("more");
    let name = |at: usize| format!("attack{at}");
    let attacks = attacks.iter().enumerate();
    let debs = attacks.clone().map(|(at, script)| with_script(&name(at), script).write(&more));
    if !offer(&cairn, &["dash", "coreutils"], debs.collect()) {
        return;
    }
    cairn.data(["--yes", "install", "dash", "coreutils"]);
    for (at, attack) in attacks {
        let said = cairn.fails(1, ["--yes", "install", &name(at)]);
        assert!(said.contains("failed"), "{attack}: {said}");
    }
    assert_eq!(cairn.json(["state", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn system_triggers_are_done_in_live_roots_when_they_show_a_new_state() {
    let cairn = Cairn::new();
    let trigger = "name: live\ndescription: A test\nhandlers:\n  run:\n    run: /usr/bin/dash\n    \
                   args: [-c, \"cat /usr/share/live/version >>/etc/seen\"]\npaths:\n  \
                   \"/usr/share/live/*\": {handlers: [run]}\n";
    let live = |version: &str| {
        Deb::new("live", version)
            .file("usr/share/moss/triggers/sys.d/live.yaml", 0o644, trigger)
            .file("usr/share/live/version", 0o644, format!("{version}\n"))
    };
    let more = cairn.directory().join("more");
    if !offer(&cairn, &["dash", "coreutils"], vec![live("1").write(&more)]) {
        return;
    }
    cairn.data(["--yes", "install", "dash", "coreutils"]);
    let root = Mount::new(&cairn, &["--follow"], "root");
    let etc = cairn.directory().join("etc");
    fs::create_dir(&etc).unwrap();
    let bound = root.join("etc");
    let bind = |words: &[&OsStr]| {
        assert!(std::process::Command::new("mount").args(words).status().unwrap().success());
    };
    bind(&["--bind".as_ref(), etc.as_os_str(), bound.as_os_str()]);
    let done = cairn.json(["--yes", "install", "live"]);
    let seen = fs::read_to_string(etc.join("seen"));
    let back = cairn.json(["rollback"]);
    let forth = cairn.json(["switch", "2"]);
    let twice = fs::read_to_string(etc.join("seen"));
    assert!(std::process::Command::new("umount").arg(&bound).status().unwrap().success());
    assert_eq!(done["live"][0]["ran"].as_array().unwrap().len(), 1, "{done}");
    assert_eq!(seen.unwrap(), "1\n");
    assert_eq!(back["live"], Value::Array(vec![]), "nothing asks for it there");
    assert_eq!(forth["live"][0]["failures"], Value::Array(vec![]), "{forth}");
    assert_eq!(twice.unwrap(), "1\n1\n");
}
