//! Getting into a state: which one `cairn run` enters.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;

use cairn_tests::{Cairn, Need, put_programs};

#[test]
fn a_program_runs_in_the_state_that_is_named_before_it() {
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let cairn = Cairn::new();
    let tree = cairn.directory().join("tree");
    put_programs(&tree, &["/usr/bin/cat"]);
    for number in ["1", "2"] {
        fs::write(tree.join("which"), number).unwrap();
        cairn.data([Path::new("import"), &tree]);
    }
    cairn.data(["state", "tag", "old", "1"]);
    cairn.data(["switch", "2"]);
    for (words, state) in [
        (&["1", "--", "cat", "/which"][..], "1"),
        (&["old", "--", "cat", "/which"], "1"),
        (&["current", "--", "cat", "/which"], "2"),
        (&["--rw", "--state", "1", "--", "cat", "/which"], "1"),
        (&["--state", "old", "cat", "/which"], "1"),
        (&["cat", "/which"], "2"),
        (&["--", "cat", "/which"], "2"),
        // The program behind a first -- is one, whatever follows it.
        (&["--", "cat", "--", "/which"], "2"),
        (&["1", "--", "cat", "--", "/which"], "1"),
    ] {
        assert_eq!(cairn.data([&["run"], words].concat()), state, "{words:?}");
    }
    for (code, words, told) in [
        (2, &["a/b", "--", "cat", "/which"][..], "\"a/b\" does not name a state"),
        (2, &["--state", "1", "2", "--", "cat", "/which"], "\"2\" stands where a state can"),
        (2, &["1", "--"], "\"1\" stands where a state can"),
        (1, &["7", "--", "cat", "/which"], "7"),
        (1, &["none", "--", "cat", "/which"], "none"),
    ] {
        let complaint = cairn.fails(code, [&["run"], words].concat());
        assert!(complaint.contains(told), "{words:?}: {complaint}");
    }
}
