//! `cairn convert` with a directory of small Debian packages.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use support::{World, text, write_deb};

#[test]
fn a_directory_of_packages_becomes_a_directory_of_stones() {
    let world = World::new();
    let debs = world.path().join("debs");
    write_deb(&debs, "hello", "Depends: greeting, absent\n", &[("./bin/hello", "#!/bin/sh\n")]);
    write_deb(&debs, "greeting", "", &[("./usr/share/greeting", "hello\n")]);

    let shown = world.data(&["convert", "debs", "-o", "stones"]);
    assert!(shown.contains("unmet: hello needs absent\n"), "{shown}");
    assert!(shown.contains("2 of them have scripts, which are not run.\n"), "{shown}");

    let again = world.json(&["convert", "debs", "-o", "stones"]);
    let hello = &again["packages"][1];
    assert_eq!(hello["was_there"], true);
    assert_eq!(hello["scripts_not_run"], serde_json::json!(["postinst"]));
    let inspected = world.json(&["inspect", hello["stone"].as_str().unwrap()]);
    assert_eq!(inspected[0]["layout"][0]["path"], "/usr/bin/hello");
}

#[test]
fn a_package_that_fails_is_told_and_does_not_keep_the_others() {
    let world = World::new();
    let debs = world.path().join("debs");
    write_deb(&debs, "good", "", &[]);
    std::fs::write(debs.join("bad.deb"), "this is no archive").unwrap();
    let output = world.cairn(&["--json", "convert", "debs", "-o", "stones"]);
    assert_eq!(output.status.code(), Some(1));
    let data: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(data["packages"][0]["name"], "good");
    let failure = data["failures"][0].as_str().unwrap();
    assert!(failure.contains("bad.deb: "), "{failure}");
    assert!(text(&output.stderr).contains("1 of 2 packages could not be converted"));
    assert_eq!(world.path().join("stones").read_dir().unwrap().count(), 1);

    std::fs::create_dir(world.path().join("empty")).unwrap();
    let complaint = world.failure(1, &["convert", "empty", "-o", "stones"]);
    assert_eq!(complaint, "cairn: empty has no *.deb files\n");
}
