//! The Debian package of Cairn has what it takes, and its units run commands that
//! the program has.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_tests::{Cairn, Deb, Need};

#[test]
fn the_package_of_cairn_has_what_it_takes_and_its_units_work() {
    let strip = Need::Program("strip", "binutils");
    if !Need::all(&[Need::Program("dpkg-deb", "dpkg"), strip]) {
        return;
    }
    let cairn = Cairn::new();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/deb");
    let made = Command::new(tools).arg(cairn.directory()).output().unwrap();
    let stderr = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{stderr}");
    let deb = String::from_utf8(made.stdout).unwrap();
    let root = cairn.directory().join("root");
    let unpack = Command::new("dpkg-deb").args(["-x", deb.trim_end()]).arg(&root).status().unwrap();
    assert!(unpack.success());

    let version = Command::new(root.join("usr/bin/cairn")).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let file = Path::new(deb.trim_end()).file_name().unwrap().to_str().unwrap().to_owned();
    let expected = format!("cairn_{}-1_", version.trim().strip_prefix("cairn ").unwrap());
    assert!(file.starts_with(&expected), "{file}, {version}");
    for path in [
        "man/man1/cairn-install.1.gz",
        "bash-completion/completions/cairn",
        "zsh/site-functions/_cairn",
        "fish/vendor_completions.d/cairn.fish",
        "doc/cairn/copyright",
        "doc/cairn/changelog.gz",
    ] {
        let path = root.join("usr/share").join(path);
        assert!(path.metadata().is_ok_and(|it| it.len() > 0), "{}", path.display());
    }

    cairn.offer([Deb::new("small", "1").file("usr/share/small", 0o644, "small")]);
    cairn.data(["--yes", "install", "small"]);
    for unit in ["cairn-prune", "cairn-verify"] {
        let path = root.join("usr/lib/systemd/system").join(format!("{unit}.service"));
        let text = fs::read_to_string(path).unwrap();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let keep = value("Environment=\"CAIRN_KEEP=").unwrap_or_default().trim_end_matches('"');
        let command = value("ExecStart=/usr/bin/cairn ").unwrap().replace("$CAIRN_KEEP", keep);
        cairn.data(command.split(' '));
    }
}
