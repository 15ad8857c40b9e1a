//! Drafts of real upstream archives, beside the drafts that are kept in `drafts/`:
//! a change of what is found in them is seen as a difference.
//!
//! With `UPDATE_DRAFTS=1` the kept ones are written anew.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_build::Recipe;
use cairn_build::draft::{Downloaded, draft};
use cairn_build::fetch::hash_of;

/// Debian's names of source packages, whose archives are those that upstream has
/// released: one or more for each build system.
const SOURCES: [&str; 10] = [
    "fribidi",                     // meson
    "golang-github-joho-godotenv", // go, without other modules
    "gron",                        // go
    "hello",                       // autotools
    "json-c",                      // CMake
    "libclone-perl",               // Makefile.PL
    "rust-ripgrep",                // cargo
    "tree",                        // make, with names of its own
    "xxhash",                      // make
    "zlib",                        // a configure of its own
];

/// The archives, or nothing where there is no apt.
fn archive(source: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/fetch-sources");
    let test = std::env::current_exe().expect("it has a path");
    let target = test.ancestors().nth(3).expect("it lies in target/release/deps");
    let output = Command::new(script).arg(target.join("sources")).arg(source).output();
    let output = output.expect("bash is here");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(3) {
        assert!(std::env::var_os("CI").is_none_or(|it| it != "true"), "no drafts: {said}");
        let _ = writeln!(std::io::stderr(), "SKIPPED: drafts of real archives: {said}");
        return None;
    }
    assert!(output.status.success(), "{said}");
    let paths = String::from_utf8_lossy(&output.stdout);
    Some(paths.lines().next().expect("a package has an archive").into())
}

#[test]
fn drafts_of_real_archives_are_those_that_are_kept() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drafts");
    let mut differences = String::new();
    for source in SOURCES {
        let Some(path) = archive(source) else { return };
        let name = path.file_name().expect("a file").to_string_lossy();
        let url = format!("file:///{name}");
        let hash = hash_of(&path).expect("it can be read");
        let directory = tempfile::tempdir().expect("a directory");
        let made = draft(&[Downloaded { url, path, hash }], directory.path()).expect(source);
        let parsed = Recipe::parse(&made.text).map(|it| it.recipe.name);
        assert!(parsed.is_ok_and(|name| !name.is_empty()), "{}", made.text);
        let file = kept.join(format!("{source}.yaml"));
        if std::env::var_os("UPDATE_DRAFTS").is_some() {
            fs::write(&file, &made.text).expect("it can be written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if made.text != expected {
            differences += &format!("--- {source}, kept\n{expected}+++ {source}\n{}", made.text);
        }
    }
    assert!(differences.is_empty(), "UPDATE_DRAFTS=1 keeps these:\n{differences}");
}
