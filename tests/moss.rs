//! The table for users of moss is true: what stands in it can be typed.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use cairn_tests::Cairn;

/// The rows below a heading, each with what its cells have in code.
fn rows(document: &str, heading: &str) -> Vec<Vec<Vec<String>>> {
    let section = document.split("\n## ").find(|part| part.starts_with(heading)).unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ") && !line.contains("| moss"));
    let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    lines.map(|line| line.trim_matches('|').split(" |").map(code).collect()).collect()
}

/// The help of a command line, whatever else it asks for.
fn help(cairn: &Cairn, line: &str) -> String {
    cairn.data(line.split(' ').chain(["--help"]))
}

#[test]
fn each_command_of_moss_can_be_typed_and_is_what_the_table_says() {
    let cairn = Cairn::new();
    let document = include_str!("../docs/moss.md");
    let rows = rows(document, "Commands");
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in &rows {
        let [moss, ours, _] = row.as_slice() else { panic!("{row:?} has not three cells") };
        let Some(first) = ours.first() else { continue };
        // One command is often the option of another one in the other program.
        let expected = help(&cairn, first);
        assert!(expected.contains("Usage: cairn ") || first == "--version", "{first}: {expected}");
        for line in moss {
            let same = ours.iter().any(|ours| help(&cairn, ours) == help(&cairn, line));
            assert!(same, "{line:?} is another command than {ours:?}");
        }
        ours.iter().for_each(|line| drop(help(&cairn, line)));
    }
}

#[test]
fn each_option_of_the_table_is_one() {
    let cairn = Cairn::new();
    for row in rows(include_str!("../docs/moss.md"), "Global options") {
        for line in row.get(1).into_iter().flatten() {
            help(&cairn, line);
        }
    }
    for short in ["-D ROOT", "--directory ROOT", "--cache DIR", "-v", "-y", "-q"] {
        help(&cairn, short);
    }
}

#[test]
fn another_root_has_its_own_store_and_another_cache_its_own_indices() {
    let cairn = Cairn::new();
    let directory = cairn.directory().to_owned();
    let stones = cairn_tests::Stones::new(&directory.join("stones"));
    stones.add("small", 1, 100);
    stones.index(None);
    let root = directory.join("root");
    std::fs::create_dir(&root).unwrap();
    let url = format!("file://{}", stones.path().display());
    // A relative path, since that is what people type.
    let line = |rest: &[&str]| {
        let mut words = vec!["-D", "root", "--cache", "beside", "--yes"];
        words.extend(rest);
        cairn.data(words)
    };
    line(&["repo", "add", "main", &url]);
    line(&["install", "small"]);
    assert!(root.join("var/lib/cairn/packs").is_dir());
    assert!(directory.join("beside/indices/main").is_dir());
    assert!(!root.join("var/lib/cairn/cache/indices").exists());
    assert!(!cairn.store().exists(), "the other store was not asked for");
    cairn.fails(2, ["-D", "root", "--store", "x", "list"]);
}
