//! `cairn repo` with a repository of one real package.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use support::{World, real_stone, text};

#[test]
fn a_repository_is_made_added_updated_and_removed() {
    let world = World::new();
    let stones = world.path().join("stones");
    std::fs::create_dir(&stones).unwrap();
    std::fs::copy(real_stone(), stones.join("bash-completion.stone")).unwrap();
    let check = |args: &[&str], expected: &str| assert_eq!(world.data(args), expected, "{args:?}");

    let complaint = world.failure(1, &["repo", "add", "main", "stones"]);
    assert!(complaint.contains("\nhelp: cairn repo index DIR makes"), "{complaint}");
    check(&["repo", "index", "stones"], "stones/stone.index: 1 package\n");
    check(&["repo", "add", "main", "stones"], "Repository main is added: 1 package.\n");
    let list = world.data(&["repo", "list"]);
    assert!(list.starts_with("Name  Priority  Packages  State       Updated "), "{list}");
    assert!(list.contains("\nmain         0         1  not signed  20"), "{list}");
    assert!(list.ends_with(&format!("  {}\n", stones.display())), "{list}");
    check(&["repo", "update"], "main: 1 package, unchanged\n");

    std::fs::write(stones.join("stone.index"), "damaged").unwrap();
    let output = world.cairn(&["repo", "update"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).starts_with("failed: main: cannot use the index"));

    check(&["repo", "remove", "main"], "Repository main is removed.\n");
    assert_eq!(
        world.failure(1, &["repo", "remove", "main"]),
        "cairn: there is no repository main\nhelp: cairn repo list shows the repositories\n"
    );
    check(&["repo", "list"], "There is no repository yet.\n");
}
