//! Upstreams of git, over each way in which they come, from the address in a recipe to the
//! files of a package.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;

use cairn_tests::builder::Builder;
use cairn_tests::git::{git, repository, serve};
use cairn_tests::{Need, Server};

/// Builds a recipe of a repository; returns the text that the package has, and the bytes
/// of its stone.
fn built(world: &Builder, upstream: &str) -> (String, Vec<u8>) {
    let text = format!(
        "name: demo\nversion: 1\nrelease: 1\nhomepage: https://example.org\nlicense: MIT\n\
         toolchain: gnu\nupstreams:\n    - {upstream}\ninstall: |\n    \
         install -D -m644 text %(installroot)%(datadir)/demo/text\n"
    );
    fs::create_dir_all(world.path("recipe")).unwrap();
    fs::write(world.path("recipe/stone.yaml"), text).unwrap();
    let built = world.build(&["recipe", "-o", "out"]);
    let package = built.package("demo");
    let stone = fs::read(world.path(package["stone"].as_str().unwrap())).unwrap();
    let files = world.extracted(package);
    let text = fs::read_to_string(files.join("usr/share/demo/text")).unwrap();
    fs::remove_dir_all(files).unwrap();
    (text, stone)
}

#[test]
fn a_commit_of_git_comes_from_a_directory_from_files_of_a_server_and_from_a_server_of_git() {
    if !Need::all(&[Need::Program("git", "git")]) {
        return;
    }
    let Some(world) = Builder::new() else { return };
    let plain = world.path("www/demo");
    repository(&plain, &["one", "two"]);
    // What a server without any program for it needs.
    git(&plain, &["update-server-info"]);
    let files = Server::new(&world.path("www"));
    let addresses = [
        format!("file://{}", plain.display()),
        files.url("/demo/.git"),
        format!("{}/demo/.git", serve(&world.path("www"))),
    ];

    let mut stones = BTreeSet::new();
    for address in &addresses {
        let upstream =
            |reference: &str| format!("git|{address}: {{ref: {reference}, clonedir: it}}");
        let (text, stone) = built(&world, &upstream("v1"));
        assert_eq!(text, "one", "{address}");
        stones.insert(stone);
        assert_eq!(built(&world, &upstream("main")).0, "two", "{address}");
    }
    assert_eq!(stones.len(), 1, "how it came is not in the packages");

    // A branch goes on, a commit stays, and what is nowhere is told.
    let old = git(&plain, &["rev-parse", "HEAD"]);
    fs::write(plain.join("text"), "three").unwrap();
    git(&plain, &["commit", "--quiet", "-am", "three"]);
    git(&plain, &["update-server-info"]);
    for address in &addresses {
        let upstream =
            |reference: &str| format!("git|{address}: {{ref: {reference}, clonedir: it}}");
        assert_eq!(built(&world, &upstream("main")).0, "three", "{address}");
        assert_eq!(built(&world, &upstream(&old)).0, "two", "{address}");
    }
    let recipe = fs::read_to_string(world.path("recipe/stone.yaml")).unwrap();
    fs::write(world.path("recipe/stone.yaml"), recipe.replace(&old, "v9")).unwrap();
    let complaint = world.cairn.fails(1, world.words(&["build", "recipe", "-o", "out"]));
    assert!(complaint.contains("git") && complaint.contains(&addresses[2]), "{complaint}");
}
