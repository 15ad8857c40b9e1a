//! What somebody has changed in a system stays through upgrades.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use cairn_store::{BytesSource, Content, Draft, Edit, Entry, Leaf, Store, TreePath, edit, resolve};
use cairn_tests::{Cairn, Deb};

const CONFIG: &str = "usr/share/editor/config";
const DEFAULT: &str = "usr/share/defaults/etc/editorrc";
const LOCAL: &str = "etc/editorrc";

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// The editor in version `version`, with `config` both as a file of its own and as a default.
fn editor(version: &str, config: &str) -> Deb {
    Deb::new("editor", version)
        .file(CONFIG, 0o644, config)
        .file("etc/editorrc", 0o644, config)
        .file("usr/share/editor/data", 0o644, format!("data of {version}\n"))
}

/// A snapshot of the current state in which `path` has `content`, or is not there.
fn snapshot(cairn: &Cairn, changes: &[(&str, Option<&str>)]) {
    let store = Store::open(&cairn.store()).unwrap();
    let base = store.current().unwrap();
    let mut transaction = store.begin().unwrap();
    let mut edits = BTreeMap::new();
    for (name, content) in changes {
        let there = resolve(&transaction, base.tree, &path(name)).unwrap();
        let change = match content {
            None => Edit::Remove,
            Some(text) => {
                let source = BytesSource { name, bytes: text.as_bytes() };
                let content = Content::File(transaction.ingest(&[source], &()).unwrap()[0]);
                let attributes = match there {
                    Some(Entry::Leaf(leaf)) => leaf.attributes,
                    _ => cairn_store::Attributes::of_root(0o640),
                };
                Edit::Leaf(Leaf { attributes, content, link: None })
            }
        };
        edits.insert(path(name), change);
    }
    let tree = edit(&mut transaction, base.tree, &edits).unwrap();
    let parent = Some(base.id);
    let draft = Draft { parent, request: "snapshot".into(), tree, packages: base.packages };
    transaction.commit(draft).unwrap();
}

/// A system with the editor in version 1 and these changes.
fn system(config: &str, changes: &[(&str, Option<&str>)]) -> Cairn {
    let cairn = Cairn::new();
    cairn.offer([editor("1", config)]);
    cairn.data(["--yes", "install", "editor"]);
    snapshot(&cairn, changes);
    cairn
}

/// Upgrades to version 2 of the editor; returns what was told of changed files.
fn upgrade(cairn: &Cairn, version: &str, config: &str) -> [Vec<String>; 3] {
    cairn.offer([editor(version, config)]);
    let done = cairn.json(["--yes", "upgrade", "--update"]);
    assert_eq!(cairn.data(["cat", "/usr/share/editor/data"]), format!("data of {version}\n"));
    ["kept", "merged", "conflicts"].map(|what| {
        let paths = done[what].as_array().unwrap().iter();
        paths.map(|path| path.as_str().unwrap().to_owned()).collect()
    })
}

fn cat(cairn: &Cairn, path: &str) -> String {
    cairn.data(["cat", &format!("/{path}")])
}

const BASE: &str = "one\ntwo\nthree\nfour\nfive\n";
const OURS: &str = "ONE\ntwo\nthree\nfour\nfive\n";
const THEIRS: &str = "one\ntwo\nthree\nfour\nFIVE\n";

#[test]
fn what_the_new_version_has_as_before_stays_as_it_was_changed() {
    let cairn = system(BASE, &[(CONFIG, Some(OURS)), (LOCAL, Some(OURS))]);
    cairn.offer([editor("2", BASE)]);
    let plan = cairn.json(["upgrade", "--dry-run"]);
    assert_eq!(plan["changed"], serde_json::json!([format!("/{CONFIG}")]));
    let [kept, merged, conflicts] = upgrade(&cairn, "2", BASE);
    assert_eq!((kept, merged.len(), conflicts.len()), (vec![format!("/{CONFIG}")], 0, 0));
    assert_eq!((cat(&cairn, CONFIG), cat(&cairn, LOCAL)), (OURS.into(), OURS.into()));
    // Being asked for by name changes no file.
    cairn.data(["--yes", "install", "editor"]);
    assert_eq!(cat(&cairn, CONFIG), OURS);
}

#[test]
fn both_changes_are_there_where_they_go_together() {
    let cairn = system(BASE, &[(CONFIG, Some(OURS)), (LOCAL, Some(OURS))]);
    let [kept, merged, conflicts] = upgrade(&cairn, "2", THEIRS);
    assert_eq!(merged, [format!("/{CONFIG}"), format!("/{LOCAL}")]);
    assert_eq!((kept.len(), conflicts.len()), (0, 0));
    let both = "ONE\ntwo\nthree\nfour\nFIVE\n";
    assert_eq!((cat(&cairn, CONFIG), cat(&cairn, LOCAL)), (both.into(), both.into()));
    assert_eq!(cat(&cairn, DEFAULT), THEIRS);
    assert!(
        cairn.data(["ls", "--long", "/etc/editorrc"]).starts_with("-rw-r-----"),
        "its mode stays"
    );
    // It can be taken back.
    cairn.data(["rollback"]);
    assert_eq!((cat(&cairn, CONFIG), cat(&cairn, LOCAL)), (OURS.into(), OURS.into()));
}

#[test]
fn a_conflict_changes_nothing_and_lasts_until_somebody_resolves_it() {
    let cairn = system(BASE, &[(CONFIG, Some(OURS)), (LOCAL, Some(OURS))]);
    let theirs = "eins\ntwo\nthree\nfour\nfive\n";
    let [_, merged, conflicts] = upgrade(&cairn, "2", theirs);
    assert_eq!((conflicts.len(), merged.len()), (2, 0));
    for name in [CONFIG, LOCAL] {
        assert_eq!(cat(&cairn, name), OURS);
        assert_eq!(cat(&cairn, &format!("{name}.cairn-new")), theirs);
    }
    // What comes next could be merged by itself, without what has not been looked at yet.
    let next = "eins\ntwo\nthree\nfour\nfive\nsix\n";
    let [_, merged, conflicts] = upgrade(&cairn, "3", next);
    assert_eq!((conflicts.len(), merged.len()), (2, 0));
    assert_eq!(cat(&cairn, &format!("{LOCAL}.cairn-new")), next);
    assert_eq!(cat(&cairn, LOCAL), OURS);
    // Somebody has decided.
    let mine = "ONE and eins\ntwo\nthree\nfour\nfive\nsix\n";
    let news = [CONFIG, LOCAL].map(|name| format!("{name}.cairn-new"));
    let resolved = [
        (CONFIG, Some(mine)),
        (LOCAL, Some(mine)),
        (news[0].as_str(), None),
        (news[1].as_str(), None),
    ];
    snapshot(&cairn, &resolved);
    let last = "eins\ntwo\nthree\nfour\nfive\nsix\nseven\n";
    let [_, merged, conflicts] = upgrade(&cairn, "4", last);
    assert_eq!((conflicts.len(), merged.len()), (0, 2));
    assert_eq!(cat(&cairn, LOCAL), format!("{mine}seven\n"));
}

#[test]
fn what_was_removed_stays_away_and_what_nobody_changed_follows() {
    let cairn = system(BASE, &[(CONFIG, None), (LOCAL, Some(BASE))]);
    let [kept, merged, conflicts] = upgrade(&cairn, "2", THEIRS);
    assert_eq!((kept, conflicts.len()), (vec![format!("/{CONFIG}")], 0));
    assert_eq!(merged, [format!("/{LOCAL}")], "its mode is another than that of the default");
    cairn.fails(1, ["cat", &format!("/{CONFIG}")]);
    assert_eq!(cat(&cairn, LOCAL), THEIRS);
    // Without the editor, what nobody owns stays.
    cairn.data(["--yes", "remove", "editor"]);
    assert_eq!(cat(&cairn, LOCAL), THEIRS);
    assert_eq!(cairn.data(["ls", "/usr/share"]), "");
}

#[test]
fn no_change_gets_lost_that_is_no_text() {
    let cairn = system("a\0b", &[(CONFIG, Some("a\0c"))]);
    let [_, _, conflicts] = upgrade(&cairn, "2", "a\0d");
    assert_eq!(conflicts, [format!("/{CONFIG}")]);
    assert_eq!(cat(&cairn, CONFIG), "a\0c");
    assert_eq!(cat(&cairn, &format!("{CONFIG}.cairn-new")), "a\0d");
    // The same on both sides is none.
    let [kept, merged, conflicts] = upgrade(&cairn, "3", "a\0c");
    assert_eq!((kept.len(), merged.len(), conflicts.len()), (0, 0, 0));
    cairn.fails(1, ["cat", &format!("/{CONFIG}.cairn-new")]);
}

#[test]
fn what_an_upgrade_would_make_of_changes_can_be_looked_at_first() {
    let cairn = system(BASE, &[(CONFIG, Some(OURS)), (LOCAL, Some(OURS))]);
    cairn.offer([editor("2", THEIRS)]);
    let before = cairn.current();
    let done = cairn.json(["--yes", "upgrade", "--update", "--no-switch"]);
    let made = done["made"].to_string();
    assert_eq!(done["merged"], serde_json::json!([format!("/{CONFIG}"), format!("/{LOCAL}")]));
    assert_eq!((cairn.current(), done["state"].as_u64()), (before, Some(before)));
    assert_eq!((cat(&cairn, CONFIG), cat(&cairn, LOCAL)), (OURS.into(), OURS.into()));
    let patch = cairn.data(["diff", "--patch", "current", &made, "etc"]);
    assert!(patch.contains("-five\n") && patch.contains("+FIVE\n"), "{patch}");
    assert!(!patch.contains("ONE\n-") && !patch.contains("-ONE"), "{patch}");
    // It can be had, and taken back.
    cairn.data(["switch", &made]);
    assert_eq!(cat(&cairn, LOCAL), "ONE\ntwo\nthree\nfour\nFIVE\n");
    cairn.data(["rollback"]);
    assert_eq!((cat(&cairn, LOCAL), cairn.current()), (OURS.into(), before));
    cairn.fails(2, ["--yes", "upgrade", "--no-switch", "--to", "elsewhere"]);
}

#[test]
fn a_directory_that_was_removed_stays_away() {
    let manual = |version: &str| {
        let text = format!("page of {version}\n");
        editor(version, BASE).file("usr/share/editor/manual/one", 0o644, &text).file(
            "usr/share/editor/manual/two",
            0o644,
            &text,
        )
    };
    let cairn = Cairn::new();
    cairn.offer([manual("1")]);
    cairn.data(["--yes", "install", "editor"]);
    snapshot(&cairn, &[("usr/share/editor/manual", None)]);
    cairn.offer([manual("2")]);
    let done = cairn.json(["--yes", "upgrade"]);
    assert_eq!(done["kept"], serde_json::json!(["/usr/share/editor/manual"]));
    assert_eq!(cairn.data(["ls", "/usr/share/editor"]), "config\ndata\n");
}

/// Gives the directory `name` of the current state a mode, in a snapshot.
fn chmod(cairn: &Cairn, name: &str, mode: u16) {
    let store = Store::open(&cairn.store()).unwrap();
    let base = store.current().unwrap();
    let mut transaction = store.begin().unwrap();
    let there = resolve(&transaction, base.tree, &path(name)).unwrap().unwrap();
    let there = store.tree(there.as_directory().unwrap().id).unwrap();
    let attributes = cairn_store::Attributes { mode, ..there.attributes.clone() };
    let edits = BTreeMap::from([(path(name), Edit::Directory(attributes))]);
    let tree = edit(&mut transaction, base.tree, &edits).unwrap();
    let parent = Some(base.id);
    let draft = Draft { parent, request: "snapshot".into(), tree, packages: base.packages };
    transaction.commit(draft).unwrap();
}

#[test]
fn the_mode_that_somebody_gave_to_a_directory_stays() {
    const PLACE: &str = "usr/share/editor/private";
    for (old, ours, new, expected, kept) in [
        (0o750, 0o700, 0o750, 0o700, true),
        (0o750, 0o755, 0o750, 0o755, true),
        (0o750, 0o750, 0o700, 0o700, false),
        (0o750, 0o700, 0o700, 0o700, false),
        (0o750, 0o700, 0o711, 0o700, true),
        (0o755, 0o700, 0o755, 0o700, false),
    ] {
        let version = |version: &str, mode| {
            let file = format!("{PLACE}/data");
            editor(version, BASE).empty_directory(PLACE, mode).file(&file, 0o644, version)
        };
        let cairn = Cairn::new();
        cairn.offer([version("1", old)]);
        cairn.data(["--yes", "install", "editor"]);
        if ours != old {
            chmod(&cairn, PLACE, u16::try_from(ours).unwrap());
        }
        cairn.offer([version("2", new)]);
        let done = cairn.json(["--yes", "upgrade"]);
        let store = Store::open(&cairn.store()).unwrap();
        let root = store.current().unwrap().tree;
        let there = resolve(&store, root, &path(PLACE)).unwrap().unwrap();
        let mode = store.tree(there.as_directory().unwrap().id).unwrap().attributes.mode;
        assert_eq!(u32::from(mode), expected, "{old:o} {ours:o} {new:o}: {mode:o}");
        let told =
            if kept { serde_json::json!([format!("/{PLACE}")]) } else { serde_json::json!([]) };
        assert_eq!(done["kept"], told, "{old:o} {ours:o} {new:o}");
        assert_eq!(cat(&cairn, &format!("{PLACE}/data")), "2");
    }
}

#[test]
fn the_new_version_lies_beside_a_changed_file_however_long_its_name_is() {
    let theirs = "eins\ntwo\nthree\nfour\nfive\n";
    // Names of up to 100 bytes fit into the archive; what is made of 255 is tried there.
    let long = TreePath::new(["usr/x/".as_bytes(), &[b'n'; 255]].concat().as_slice()).unwrap();
    let other = TreePath::new(["usr/x/".as_bytes(), &[b'n'; 254], b"m"].concat().as_slice());
    let [one, two] = [&long, &other.unwrap()].map(cairn_package::changes::beside);
    assert_ne!(one, two);
    for path in [one, two] {
        let name = path.names().last().unwrap().as_bytes().to_vec();
        assert!(name.len() == 255 && name.ends_with(b".cairn-new"), "{path}");
    }
    let cairn = system(BASE, &[(CONFIG, Some(OURS))]);
    cairn.offer([editor("2", theirs)]);
    let told = cairn.data(["--yes", "upgrade", "--update"]);
    assert!(told.contains(&format!("/{CONFIG}.cairn-new is the new one")), "{told}");
}

#[test]
fn what_became_something_else_refuses_the_upgrade() {
    let cairn = system(BASE, &[(CONFIG, Some(OURS))]);
    let other = Deb::new("editor", "2").file(&format!("{CONFIG}/main"), 0o644, BASE);
    cairn.offer([other]);
    let before = cairn.current();
    let complaint = cairn.fails(1, ["--yes", "upgrade"]);
    assert!(complaint.contains(CONFIG), "{complaint}");
    assert_eq!((cairn.current(), cat(&cairn, CONFIG)), (before, OURS.into()));
}

#[test]
fn configuration_of_a_package_or_of_a_model_does_not_follow_defaults() {
    const PATH: &str = "/etc/tool.conf";
    let cairn = Cairn::new();
    let stones = cairn_tests::Stones::new(&cairn.directory().join("stones"));
    let add = |release, default: &str, own: Option<&str>| {
        let own = own.map(|text| (PATH, text.as_bytes()));
        let default = ("/usr/share/defaults/etc/tool.conf", default.as_bytes());
        let files: Vec<_> = [Some(default), own].into_iter().flatten().collect();
        stones.add_files("tool", release, &files);
        stones.index(None);
    };
    add(1, BASE, Some("its own\n"));
    let url = format!("file://{}", stones.path().display());
    cairn.data(["repo", "add", "stones", &url]);
    cairn.data(["--yes", "install", "tool"]);
    add(2, THEIRS, Some("its own\n"));
    let done = cairn.json(["--yes", "upgrade", "--update"]);
    assert_eq!(done["conflicts"], serde_json::json!([]), "nobody has changed anything");
    assert_eq!(cat(&cairn, &PATH[1..]), "its own\n");

    add(3, BASE, None);
    cairn.data(["--yes", "upgrade", "--update"]);
    let model = cairn.directory().join("system.yaml");
    let text = format!("packages: [tool]\nfiles:\n  {PATH}:\n    content: \"of the model\\n\"\n");
    std::fs::write(&model, text).unwrap();
    cairn.data(["--yes", "apply", model.to_str().unwrap()]);
    add(4, THEIRS, None);
    let done = cairn.json(["--yes", "upgrade", "--update"]);
    assert_eq!(
        (&done["conflicts"], &done["merged"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    assert_eq!(cat(&cairn, &PATH[1..]), "of the model\n");
}
