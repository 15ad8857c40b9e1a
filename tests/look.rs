//! Looking into states without a mount: what differs, since when, where it is, and how
//! much room it takes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use cairn_tests::{Cairn, Deb, Random};

/// State 1 has version 1 of a package, and state 2 version 2: one text changed, one file
/// came, one went, and one stayed.
fn store() -> Cairn {
    let cairn = Cairn::new();
    let version = |version: &str, text: &str| {
        Deb::new("base", version).file("usr/share/base/text.conf", 0o644, text).file(
            "usr/share/base/same",
            0o644,
            Random(1).bytes(50_000),
        )
    };
    let first = version("1-1", "one\ntwo\nthree\n");
    cairn.offer([first.file("usr/bin/old", 0o755, Random(2).bytes(7000))]);
    cairn.data(["--yes", "install", "base"]);
    let second = version("2-1", "one\nzwei\nthree\n");
    let second = second.file("usr/bin/new", 0o755, Random(3).bytes(9000));
    cairn.offer([second.file("usr/share/more/doc/notes", 0o644, "first\nsecond\n")]);
    cairn.data(["--yes", "upgrade"]);
    cairn
}

#[test]
fn what_differs_is_told_as_files_sums_and_lines() {
    let cairn = store();
    let all = cairn.data(["diff", "1", "2"]);
    assert_eq!(all, cairn.data(["state", "diff"]), "the parent of the current state is usual");
    assert!(all.contains("~ base 1-1 -> 2-1") && all.contains("+ /usr/bin/new"), "{all}");
    let text = "/usr/share/base/text.conf";
    let patch = cairn.data(["diff", "1", "2", text, "--patch"]);
    assert!(patch.contains("\n-two\n+zwei\n"), "{patch}");
    assert!(patch.contains(&format!("--- a{text}\n+++ b{text}\n")), "{patch}");
    assert!(!patch.contains("/usr/bin"), "{patch}");
    let changes = cairn.json(["diff", "1", "2", "/usr/bin", "-p"]);
    let changes = changes["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2, "{changes:?}");
    let patches: Vec<_> = changes.iter().map(|change| change["patch"].as_str().unwrap()).collect();
    let binary = |old: &str, new: &str| format!("Binary files {old} and {new} differ\n");
    let expected = [binary("/dev/null", "b/usr/bin/new"), binary("a/usr/bin/old", "/dev/null")];
    assert_eq!(patches, expected, "noise is no text");
    // What lies in a new directory is new as well.
    let more = cairn.data(["diff", "1", "2", "/usr/share", "-p"]);
    let notes = "--- /dev/null\n+++ b/usr/share/more/doc/notes\n@@ -0,0 +1,2 @@\n+first\n+second\n";
    assert!(more.contains(notes), "{more}");
    let top = cairn.data(["diff", "1", "2", "/usr/share"]);
    assert!(top.contains("/usr/share/more/  (2 below") && !top.contains("notes"), "{top}");
    let summed =
        |text: &str| text.lines().last().map(|line| line.rsplit(", ").next().unwrap().to_owned());
    assert_eq!(summed(&more), summed(&top), "each byte is counted once");
    let sums = cairn.data(["diff", "--stat"]);
    let bin = sums.lines().find(|line| line.starts_with("/usr/bin ")).unwrap();
    assert_eq!(bin.split_whitespace().collect::<Vec<_>>()[1..4], ["1", "1", "0"], "{sums}");
    assert!(!sums.contains("text.conf"), "{sums}");
    cairn.fails(1, ["diff", "1", "2", "/nothing"]);
    let same = cairn.data(["diff", "1", "2", "/usr/share/base/same"]);
    assert!(same.contains("0 added, 0 changed, 0 removed"), "{same}");
}

#[test]
fn the_history_of_a_package_that_never_was_is_an_error_with_what_was_meant() {
    let cairn = store();
    let told = cairn.data(["history", "base"]);
    assert!(told.contains("base 1-1 -> 2-1") && told.contains("+ base 1-1"), "{told}");
    let complaint = cairn.fails(1, ["history", "base", "basse"]);
    assert!(
        complaint.contains("basse") && complaint.contains("similar names are base"),
        "{complaint}"
    );
    assert_eq!(cairn.json(["history", "base", "-n", "1"]).as_array().unwrap().len(), 1);
}

#[test]
fn the_history_of_a_path_is_its_changes() {
    let cairn = store();
    let kinds = |path: &str| {
        let history = cairn.json(["log", path]);
        let changes = history["changes"].as_array().unwrap().clone();
        let change = |it: &serde_json::Value| {
            (it["state"].as_u64().unwrap(), it["change"].as_str().unwrap().to_owned())
        };
        changes.iter().map(change).collect::<Vec<_>>()
    };
    let owned = |all: &[(u64, &str)]| {
        all.iter().map(|(state, kind)| (*state, (*kind).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(kinds("/usr/share/base/text.conf"), owned(&[(2, "changed"), (1, "added")]));
    assert_eq!(kinds("/usr/bin"), owned(&[(2, "changed"), (1, "added")]));
    assert_eq!(kinds("/usr/bin/old"), owned(&[(2, "removed"), (1, "added")]));
    assert_eq!(kinds("/usr/bin/new"), owned(&[(2, "added")]));
    assert_eq!(kinds("/usr/share/base/same"), owned(&[(1, "added")]));
    assert_eq!(kinds("/usr/share/more/doc/notes"), owned(&[(2, "added")]));
    assert_eq!(kinds("/"), owned(&[(2, "changed"), (1, "added")]));
    // A directory is a file once, and comes back as it was.
    let notes = "usr/share/more/doc/notes";
    cairn.offer([Deb::new("base", "3-1").file("usr/share/more/doc", 0o644, "no directory")]);
    cairn.data(["--yes", "upgrade"]);
    cairn.offer([Deb::new("base", "4-1").file(notes, 0o644, "first\nsecond\n")]);
    cairn.data(["--yes", "upgrade"]);
    let gone = owned(&[(4, "added"), (3, "removed"), (2, "added")]);
    assert_eq!(kinds(&format!("/{notes}")), gone);
    let replaced = owned(&[(4, "changed"), (3, "changed"), (2, "added")]);
    assert_eq!(kinds("/usr/share/more/doc"), replaced);
    assert_eq!(kinds("/usr/share/base/same"), owned(&[(3, "removed"), (1, "added")]));
    cairn.fails(1, ["log", "/nothing"]);
}

#[test]
fn files_are_found_by_name_and_by_path() {
    let cairn = store();
    assert_eq!(cairn.data(["find", "2", "*.conf"]), "/usr/share/base/text.conf\n");
    for pattern in ["/usr/bin/*", "usr/bin/*", "{usr,etc}/bin/*"] {
        assert_eq!(cairn.data(["find", "1", pattern]), "/usr/bin/old\n", "{pattern}");
    }
    assert_eq!(cairn.data(["find", "current", "/usr/**/SAME", "-i"]), "/usr/share/base/same\n");
    cairn.fails(1, ["find", "1", "/nothing/*"]);
    cairn.fails(2, ["find", "1", "[a"]);
    let found = cairn.json(["find", "2", "base"]);
    assert_eq!(found["matches"][0]["kind"], "directory", "{found}");
}

#[test]
fn room_is_told_for_each_state_alone_and_for_all_together() {
    let cairn = store();
    let usage = cairn.json(["du"]);
    let of = |state: usize, key: &str| usage["states"][state][key].as_u64().unwrap();
    let (old, new) = (of(0, "exclusive_bytes"), of(1, "exclusive_bytes"));
    // The program, the text, and what the package says of itself.
    assert!((7014..9000).contains(&old) && (9015..11_000).contains(&new), "{usage}");
    assert!(of(0, "shared_bytes") >= 50_000, "{usage}");
    let unique = usage["unique_bytes"].as_u64().unwrap();
    assert_eq!(unique, old + new + of(0, "shared_bytes"), "{usage}");
    let current = cairn.json(["du", "current", "--top", "2"]);
    assert_eq!(current["states"].as_array().unwrap().len(), 1);
    assert_eq!(current["states"][0]["largest"][0]["path"], "/usr", "{current}");
    assert_eq!(current["states"][0]["largest"].as_array().unwrap().len(), 2);
}
