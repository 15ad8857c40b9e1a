//! docs/semantics.md, done: each call of the page gives what the page says, on a
//! mounted state, on a live root, in a workspace, and on filesystems of the kernel.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_tests::page::{self, Row, Table};
use cairn_tests::{Cairn, Mount, Mounted, Need, run};

const PAGE: &str = "semantics.md";

/// The columns of a table of calls.
const COLUMNS: [&str; 4] = ["call", "mount", "workspace", "elsewhere"];

/// In a column: the call is not for that kind of mount.
const NOT_MADE: &str = "–";

/// A directory on which calls are made.
struct Place {
    /// What the last column calls it.
    name: &'static str,
    /// The column that says what it gives, unless the last one does.
    column: usize,
    path: PathBuf,
}

impl Place {
    /// What `row` says that its call gives here, if it is made here.
    fn expected<'r>(&self, row: &'r Row) -> Option<&'r str> {
        let elsewhere = row.cells[3].split("; ").filter_map(|part| part.split_once(": "));
        let special = elsewhere.filter(|(name, _)| *name == self.name).map(|(_, given)| given);
        let usual = &row.cells[self.column];
        (usual != NOT_MADE).then(|| special.last().unwrap_or(usual))
    }

    /// Makes calls and returns what each gave.
    fn perform<'c>(&self, calls: impl Iterator<Item = &'c str>) -> Vec<String> {
        let calls: Vec<&str> = calls.collect();
        let mut perform = Command::new("timeout");
        perform.args(["60", env!("CARGO_BIN_EXE_perform")]).current_dir(&self.path);
        let mut child = perform.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let sent = input.write_all(calls.join("\n").as_bytes());
        drop(input);
        let output = child.wait_with_output().unwrap();
        let given = String::from_utf8(output.stdout).unwrap();
        let given: Vec<String> = given.lines().map(String::from).collect();
        let next = calls.get(given.len());
        assert!(output.status.success(), "on {}, docs/{PAGE}: {next:?}", self.name);
        sent.unwrap();
        given
    }

    /// Notes each row that says something else than what its call gives here.
    fn check(&self, rows: &[Row], wrong: &mut Vec<String>) -> usize {
        let made = |row: &&Row| self.expected(row).is_some();
        let given = self.perform(rows.iter().filter(made).map(|row| row.cells[0].as_str()));
        for (row, given) in rows.iter().filter(made).zip(&given) {
            let expected = self.expected(row).unwrap_or_default();
            if expected != given {
                let call = &row.cells[0];
                wrong.push(format!(
                    "docs/{PAGE}:{}: {call} on {}: {expected} expected, {given} given",
                    row.line, self.name
                ));
            }
        }
        given.len()
    }
}

/// Makes a mount read-only, and setuid programs and devices without effect.
fn close(mounted: &Mounted) {
    let options = "remount,ro,nosuid,nodev";
    run(Command::new("mount").args(["-o", options]).arg(mounted.path()));
}

/// An empty ext4 of its own.
fn ext4(directory: &Path, name: &str) -> Mounted {
    let image = directory.join(format!("{name}.image"));
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-b", "4096"]).arg(&image));
    let image = image.to_str().unwrap();
    Mounted::new(&directory.join(name), &["-o", "loop,nosuid,nodev", image])
}

/// Makes the tree of the page in a new directory.
fn make_tree(tree: &Table, path: &Path) -> Place {
    fs::create_dir(path).unwrap();
    let place = Place { name: "a plain directory", column: 0, path: path.into() };
    let calls = tree.rows.iter().map(|row| row.cells[0].as_str());
    for (given, row) in place.perform(calls).iter().zip(&tree.rows) {
        assert_eq!(given, "ok", "docs/{PAGE}:{}: {} in {}", row.line, row.cells[0], path.display());
    }
    place
}

#[test]
fn each_call_gives_what_the_page_says() {
    let mkfs = Need::Program("mkfs.ext4", "e2fsprogs");
    if !Need::all(&[Need::Fuse, Need::Root, mkfs]) {
        return;
    }
    let tables = page::tables(PAGE);
    let (mut calls, mut tree) = (Vec::new(), None);
    for table in &tables {
        match table.columns.first().map(String::as_str) {
            Some("made with") => tree = Some(table),
            Some("call") => {
                assert_eq!(table.columns, COLUMNS, "docs/{PAGE}, {}", table.heading);
                calls.push(table);
            }
            _ => {}
        }
    }
    let tree = tree.expect("the page says which tree the calls are made on");
    assert!(calls.len() >= 10, "the page has lost its tables");

    let cairn = Cairn::new();
    let directory = cairn.directory();
    let plain = make_tree(tree, &directory.join("plain"));
    cairn.data([Path::new("import"), &plain.path]);
    let state = Mount::new(&cairn, &["--state", "1"], "state");
    let live = Mount::new(&cairn, &["--follow"], "live");
    let passing = Need::all(&[Need::Passthrough]);
    let passing =
        passing.then(|| Mount::new(&cairn, &["--state", "1", "--passthrough"], "passing"));
    let (closed, open) = (ext4(directory, "closed"), ext4(directory, "open"));
    let memory = Mounted::new(&directory.join("memory"), &["-t", "tmpfs", "none"]);
    for mounted in [&closed, &memory] {
        make_tree(tree, &mounted.path().join("tree"));
        close(mounted);
    }
    let place = |name, path: &Path| Place { name, column: 1, path: path.into() };
    let mut read_only = vec![
        place("state", state.path()),
        place("live root", live.path()),
        place("ext4", &closed.path().join("tree")),
        place("tmpfs", &memory.path().join("tree")),
    ];
    read_only.extend(passing.iter().map(|mount| place("passthrough", mount.path())));

    let (mut wrong, mut count) = (Vec::new(), 0);
    for (number, table) in calls.iter().enumerate() {
        for place in &read_only {
            count += place.check(&table.rows, &mut wrong);
        }
        // What one table changes is not there for the next.
        let name = format!("table-{number}");
        let mount = Mount::new(&cairn, &["--rw", &name, "--state", "1"], &name);
        let workspace = Place { name: "workspace", column: 2, path: mount.path().into() };
        count += workspace.check(&table.rows, &mut wrong);
        mount.umount();
        let path = make_tree(tree, &open.path().join(&name)).path;
        let writable = Place { name: "writable ext4", column: 2, path };
        count += writable.check(&table.rows, &mut wrong);
    }
    let known = read_only.iter().map(|place| place.name).chain(["writable ext4"]);
    let known: Vec<&str> = known.collect();
    for row in calls.iter().flat_map(|table| &table.rows) {
        for part in row.cells[3].split("; ").filter(|part| !part.is_empty()) {
            let name = part.split_once(": ").map(|(name, _)| name);
            let is_known = name.is_some_and(|name| known.contains(&name));
            assert!(is_known, "docs/{PAGE}:{}: `{part}` names no place", row.line);
        }
    }
    assert!(wrong.is_empty(), "{} of {count} calls:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("{count} calls gave what docs/{PAGE} says");
}
