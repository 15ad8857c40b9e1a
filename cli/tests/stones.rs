//! `cairn inspect` and `cairn extract` with a real package.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use support::{World, real_stone, text};

#[test]
fn a_package_is_shown_to_people_and_to_programs() {
    let world = World::new();
    let stone = real_stone();
    let stone = stone.to_str().unwrap();
    let shown = world.data(&["inspect", "--files", stone]);
    for line in [
        "  Name          bash-completion\n",
        "  Provides      cmake(bash-completion)\n",
        "  Files         745 (852 KiB of content, 474 unique)\n",
        "/usr/share/bash-completion/completions/7za -> 7z\n",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    let json = world.json(&["inspect", "--check", stone]);
    assert_eq!(json[0]["packages"][0]["version"], "2.11");
    assert_eq!(json[0]["layout"].as_array().unwrap().len(), 745);
}

#[test]
fn damage_of_a_package_is_told_and_is_exit_code_3() {
    let world = World::new();
    let mut bytes = std::fs::read(real_stone()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(world.path().join("damaged.stone"), &bytes).unwrap();
    let output = world.cairn(&["inspect", "damaged.stone"]);
    assert_eq!(output.status.code(), Some(3));
    let shown = text(&output.stdout);
    assert!(shown.contains("  damaged: payload 3 (Content): "), "{shown}");

    let complaint = world.failure(3, &["extract", "damaged.stone", "--to", "out"]);
    assert!(complaint.contains("cairn: cannot use damaged.stone: "), "{complaint}");
}

#[test]
fn a_package_is_extracted_into_a_new_directory_only() {
    let world = World::new();
    let stone = real_stone();
    let extract = ["extract", stone.to_str().unwrap(), "--to", "out"];
    assert_eq!(world.data(&extract), "out: 745 entries (852 KiB)\n");
    assert!(world.path().join("out/usr/share/bash-completion/bash_completion").is_file());
    let complaint = world.failure(1, &extract);
    assert!(complaint.ends_with("help: name an empty or a new directory\n"), "{complaint}");
}

#[test]
fn packages_are_extracted_into_directories_of_their_own() {
    let world = World::new();
    let first = real_stone();
    let first = first.to_str().unwrap();
    let bytes = std::fs::read(first).unwrap();
    let name = "bash-completion-2.11-1.x86_64";
    assert_eq!(world.data(&["extract", first]), format!("./{name}: 745 entries (852 KiB)\n"));
    let shown = world.json(&["extract", "-o", "deep/out", first]);
    assert_eq!(shown[0]["directory"], format!("deep/out/{name}"));
    assert!(world.path().join("deep/out").join(name).join("usr/share/bash-completion").is_dir());
    std::fs::write(world.path().join("same.stone"), bytes).unwrap();
    // What is there already is left alone, and so is what two would share.
    assert!(world.failure(1, &["extract", "same.stone"]).contains("is not empty"));
    let complaint = world.failure(1, &["extract", first, "same.stone", "--to", "both"]);
    assert!(complaint.contains("one package at a time"), "{complaint}");
    assert!(!world.path().join("both").exists());
}

#[test]
fn a_level_says_what_is_told_beside_data() {
    let world = World::new();
    let told = |words: &[&str]| text(&world.cairn(words).stderr);
    let install = ["install", "--yes", real_stone().to_str().unwrap()].map(str::to_owned);
    let install: Vec<&str> = install.iter().map(String::as_str).collect();
    assert_eq!(told(&[&["--log", "warn"], &install[..]].concat()), "");
    assert!(told(&["--log=info", "--quiet", "man", "."]).contains("Manual pages"));
    let wrong = ["--log", "error", "cat", "/nothing"];
    assert!(told(&wrong).starts_with("cairn: "));
    assert_eq!(told(&["--log", "off", "cat", "/nothing"]), "");
    assert_eq!(world.cairn(&["--log", "off", "cat", "/nothing"]).status.code(), Some(1));
    assert_eq!(world.cairn(&["--log", "info:json", "list"]).status.code(), Some(2));
}
