//! `cairn repo` with a repository of one real package.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn cairn(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.env("CAIRN_STORE", directory.join("store")).current_dir(directory).args(args);
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A directory `stones` with one stone in it.
fn stones(directory: &Path) -> PathBuf {
    let name = "bash-completion-2.11-1-1-x86_64.stone";
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name);
    let stones = directory.join("stones");
    std::fs::create_dir(&stones).unwrap();
    std::fs::copy(from, stones.join(name)).unwrap();
    stones
}

#[test]
fn a_repository_is_made_added_updated_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let stones = stones(&directory);
    let run = |args: &[&str], expected: &str| {
        let output = cairn(&directory, args);
        assert_eq!(text(output.stdout), expected, "{args:?}: {}", text(output.stderr));
    };
    let complaint = text(cairn(&directory, &["repo", "add", "main", "stones"]).stderr);
    assert!(complaint.contains("\nhelp: cairn repo index DIR makes"), "{complaint}");
    run(&["repo", "index", "stones"], "stones/stone.index: 1 package\n");
    run(&["repo", "add", "main", "stones"], "Repository main is added: 1 package.\n");
    let url = stones.display();
    run(&["repo", "list"], &format!("Name  Priority    URL\nmain         0    {url}\n"));
    run(&["repo", "update"], "main: 1 package\n");

    std::fs::write(stones.join("stone.index"), "damaged").unwrap();
    let output = cairn(&directory, &["repo", "update"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output.stdout).starts_with("failed: main: cannot use the index"));

    run(&["repo", "remove", "main"], "Repository main is removed.\n");
    let output = cairn(&directory, &["repo", "remove", "main"]);
    let complaint = text(output.stderr);
    assert_eq!(
        complaint,
        "cairn: there is no repository main\nhelp: cairn repo list shows the repositories\n"
    );
    run(&["repo", "list"], "There is no repository yet.\n");
}
