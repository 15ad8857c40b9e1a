//! `cairn inspect` and `cairn extract` with a real package.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn package() -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    data.join("bash-completion-2.11-1-1-x86_64.stone")
}

fn cairn(args: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_package_is_shown_to_people_and_to_programs() {
    let output = cairn(&["inspect".as_ref(), "--files".as_ref(), &package()]);
    let shown = text(output.stdout);
    for line in [
        "  Name          bash-completion\n",
        "  Provides      cmake(bash-completion)\n",
        "  Files         745 (852 KiB of content, 474 unique)\n",
        "/usr/share/bash-completion/completions/7za -> 7z\n",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    let output = cairn(&["--json".as_ref(), "inspect".as_ref(), "--check".as_ref(), &package()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json[0]["packages"][0]["version"], "2.11");
    assert_eq!(json[0]["layout"].as_array().unwrap().len(), 745);
    assert!(output.stderr.is_empty(), "{}", text(output.stderr));
}

#[test]
fn damage_of_a_package_is_told_and_is_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let damaged = directory.path().join("damaged.stone");
    let mut bytes = std::fs::read(package()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    let output = cairn(&["inspect".as_ref(), &damaged]);
    assert_eq!(output.status.code(), Some(3));
    let shown = text(output.stdout);
    assert!(shown.contains("  damaged: payload 3 (Content): "), "{shown}");

    let output = cairn(&["extract".as_ref(), &damaged, &directory.path().join("out")]);
    assert_eq!(output.status.code(), Some(3));
    let complaint = text(output.stderr);
    assert!(
        complaint.contains(&format!("cairn: cannot use {}: ", damaged.display())),
        "{complaint}"
    );
}

#[test]
fn a_package_is_extracted_into_a_new_directory_only() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    let output = cairn(&["extract".as_ref(), &package(), &target]);
    assert_eq!(text(output.stdout), format!("{}: 745 entries (852 KiB)\n", target.display()));
    assert!(target.join("usr/share/bash-completion/bash_completion").is_file());

    let output = cairn(&["extract".as_ref(), &package(), &target]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = text(output.stderr);
    assert!(complaint.ends_with("help: name an empty or a new directory\n"), "{complaint}");
}
