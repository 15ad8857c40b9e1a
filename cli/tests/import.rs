//! `cairn import` as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs;

use support::{World, text};

#[test]
fn a_directory_becomes_a_state_that_is_current_when_it_is_the_first() {
    let world = World::new();
    let root = world.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/motd"), "hello\n").unwrap();
    fs::write(root.join("etc/motd~"), "old\n").unwrap();

    let words = ["import", "root", "--exclude", "*~", "-m", "the first", "--tag", "base"];
    let first = world.json(&words);
    assert_eq!(first["state"], 1);
    assert_eq!(first["current"], true);
    assert_eq!(first["entries"], 2);
    assert_eq!(first["bytes"], 6);
    assert_eq!(first["files_read"], 1);
    assert_eq!(world.data(&["cat", "base:/etc/motd"]), "hello\n");
    assert_eq!(world.json(&["state", "list"])[0]["request"], "the first");

    let shown = world.data(&["import", "root"]);
    assert!(shown.starts_with("State 2: 3 entries (10 B); 2 files read"), "{shown}");
    let third = world.json(&["import", "root", "--switch", "--no-cache"]);
    assert_eq!((&third["state"], &third["current"]), (&3.into(), &true.into()));
    world.data(&["rollback"]);
    assert_eq!(world.json(&["state", "show"])["state"], 1);
}

#[test]
fn what_cannot_be_imported_is_told_and_leaves_nothing() {
    let world = World::new();
    let check = |words: &[&str], code: i32, expected: &str| {
        let output = world.cairn(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{words:?}: {said}");
    };
    check(&["import", "absent"], 1, "cairn: cannot read absent: No such file");
    check(&["import", ".", "--exclude", "[a"], 2, "cairn: cannot understand a pattern: ");
    check(&["import", ".", "--exclude-from", "absent"], 1, "cannot read absent");
    assert_eq!(world.json(&["state", "list"]), serde_json::json!([]));
}

/// Fills a directory with most of what one can hold.
fn fill(root: &std::path::Path) {
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/a"), "bytes of a").unwrap();
    fs::write(root.join("usr/large"), "0123456789abcdef".repeat(3_000_000)).unwrap();
    fs::hard_link(root.join("usr/bin/a"), root.join("twin")).unwrap();
    std::os::unix::fs::symlink("bin/a", root.join("usr/link")).unwrap();
    fs::write(root.join("x".repeat(255)), "").unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    let deep = root.join("a-long-name/".repeat(12));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
}

#[test]
fn archives_and_directories_go_out_and_come_back_the_same() {
    let world = World::new();
    fill(&world.path().join("root"));
    let first = world.json(&["import", "root"]);
    world.data(&["export", "1", "out.tar"]);
    world.data(&["export", "1", "out.tar.gz"]);
    world.data(&["export", "1", "out.tar.zst"]);
    world.data(&["export", "1", "directory", "--sparse"]);
    let piped = world.cairn(&["export", "1", "-"]);
    assert!(piped.status.success());
    assert_eq!(piped.stdout, fs::read(world.path().join("out.tar")).unwrap());
    for source in ["out.tar", "out.tar.gz", "out.tar.zst", "directory"] {
        let again = world.json(&["import", source]);
        assert_eq!(again["tree"], first["tree"], "{source}");
        assert_eq!(again["bytes_stored"], 0, "{source}");
    }
    let mut command = world.command(&["--json", "import", "-"]);
    let archive = fs::File::open(world.path().join("out.tar.gz")).unwrap();
    let output = command.stdin(archive).output().unwrap();
    let again: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(again["tree"], first["tree"]);
    let said = world.failure(1, &["export", "1", "directory"]);
    assert!(said.contains("directory is not empty"), "{said}");
}

#[test]
fn an_option_that_would_do_nothing_is_refused() {
    let world = World::new();
    fs::create_dir(world.path().join("root")).unwrap();
    world.data(&["import", "root"]);
    let check = |target: &str, options: &[&str], format: &str| {
        let words = [&["export", "1", target], options].concat();
        let said = world.failure(2, &words);
        let expected = format!("{} does nothing for {format}", options[0]);
        assert!(said.contains(&expected), "{words:?}: {said}");
        assert!(!world.path().join(target.trim_start_matches("oci:")).exists(), "{words:?}");
    };
    check("out", &["--compress", "zstd"], "a directory");
    check("out", &["--layers", "1"], "a directory");
    check("out.tar", &["--sparse"], "a tar archive");
    check("out.tar.gz", &["--user", ""], "a tar archive");
    check("-", &["--env", "A=B"], "a tar archive");
    check("oci:out", &["--sparse"], "an image in an OCI layout");
    check("out.squashfs", &["--compress", "zstd"], "a squashfs image");
    check("out.erofs", &["--label", "a=b"], "an EROFS image");
    check("other", &["--cmd", "x", "--format", "tar"], "a tar archive");
    world.data(&["export", "1", "out.tar", "--compress", "gzip"]);
    world.data(&["export", "1", "oci:out", "--compress", "none", "--layers", "2"]);
}

#[test]
fn an_archive_that_is_not_whole_leaves_nothing() {
    let world = World::new();
    fill(&world.path().join("root"));
    world.data(&["import", "root"]);
    world.data(&["export", "1", "out.tar"]);
    let whole = fs::read(world.path().join("out.tar")).unwrap();
    fs::write(world.path().join("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    fs::write(world.path().join("no.tar"), "this is no archive".repeat(100)).unwrap();
    for archive in ["cut.tar", "no.tar"] {
        let said = world.failure(1, &["import", archive]);
        assert!(said.contains("cannot take in the archive"), "{said}");
    }
    assert_eq!(world.json(&["state", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn an_interrupted_import_leaves_the_old_state() {
    use std::io::Write;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let world = World::new();
    let mut command = world.command(&["import", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&[0; 100]).unwrap();
    // SIGTERM, since shells have SIGINT ignored by what runs in their background;
    // it is signal 15, and the mask is in hexadecimal.
    let begun = Instant::now();
    let catches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << 14 != 0
    };
    while !catches() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never catches SIGTERM");
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = std::process::Command::new("bash")
        .args(["-c", &format!("kill -TERM {}", child.id())])
        .status();
    assert!(killed.unwrap().success());
    // The signal may come just before it waits for more.
    let _ = pipe.write_all(&[0; 4096]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("it was interrupted; nothing was changed"));
    assert_eq!(world.json(&["state", "list"]), serde_json::json!([]));
    drop(pipe);
}
