//! What the program is made of: nothing that is not from the registry of crates, by its
//! hash, and a reader of archives that nobody is led astray with.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

#[test]
fn each_crate_is_from_the_registry_and_known_by_its_hash() {
    let lock = include_str!("../Cargo.lock");
    let packages = lock.split("[[package]]").skip(1);
    let mut foreign = 0;
    for package in packages {
        let field = |name: &str| {
            let mut values = package.lines().filter_map(|line| line.strip_prefix(name));
            values.next().map(|value| value.trim_matches([' ', '=', '"']).to_owned())
        };
        let name = field("name").unwrap();
        let Some(source) = field("source") else {
            assert!(name.starts_with("cairn"), "{name} is from no registry");
            continue;
        };
        assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{name}");
        assert_eq!(field("checksum").map(|it| it.len()), Some(64), "{name} has no hash");
        foreign += 1;
    }
    assert!(foreign > 100, "{foreign} crates: the file was not understood");
}

/// A version of the crate tar after the faults that were found in 2026 (CVE-2026-33055,
/// CVE-2026-33056); none older comes back unseen.
const TAR: [u32; 3] = [0, 4, 46];

#[test]
fn the_reader_of_archives_has_its_faults_mended_and_unpacks_nothing_itself() {
    let lock = include_str!("../Cargo.lock");
    let (_, tar) = lock.split_once("name = \"tar\"\nversion = \"").unwrap();
    let version: Vec<u32> =
        tar.split('"').next().unwrap().split('.').map(|it| it.parse().unwrap()).collect();
    assert!(version.as_slice() >= TAR.as_slice(), "{version:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut read = 0;
    let mut rest: Vec<_> =
        ["store", "fs", "package", "build", "cli"].map(|it| root.join(it).join("src")).into();
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            rest.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(".unpack_in("), "{} lets tar write", path.display());
            read += 1;
        }
    }
    assert!(read > 100, "{read} files");
}
