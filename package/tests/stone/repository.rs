//! Indices and manifests.

use std::io::Cursor;

use cairn_package::stone::{Error, read_index, read_manifest, write_index, write_manifest};
use cairn_package::{Dependency, Kind, Location, Metadata};

use crate::common::{RawPayload, meta, meta_record, meta_records, stone};
use crate::metadata;

fn located(name: &str) -> Metadata {
    let location = Location {
        uri: format!("{name}.stone"),
        hash: "0a".repeat(32),
        size: 1234,
        ..Location::default()
    };
    Metadata { location: Some(location), ..metadata(name) }
}

fn index_of(packages: &[Metadata]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    write_index(packages, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn an_index_is_sorted_by_the_bytes_of_names_and_reads_back() {
    let sorted = ["Zoo", "a", "a-b", "aa", "\u{e9}"].map(located);
    let shuffled = [3, 0, 4, 2, 1].map(|at: usize| sorted[at].clone());
    let bytes = index_of(&shuffled).expect("an index");
    assert_eq!(read_index(Cursor::new(&bytes)).expect("as written"), sorted);
    assert_eq!(index_of(&sorted).expect("an index"), bytes);
}

#[test]
fn an_index_has_one_entry_for_a_name_and_a_location_for_each() {
    let err = index_of(&[located("a"), located("b"), located("a")]);
    assert!(matches!(&err, Err(Error::RepeatedPackage(name)) if name == "a"), "{err:?}");
    let err = index_of(&[located("a"), metadata("b")]);
    assert!(matches!(&err, Err(Error::MissingField { package, .. }) if package == "b"), "{err:?}");

    let location = |hash: &[u8]| {
        let size = meta_record(16, 8, &[0; 8]);
        vec![meta_record(14, 9, b"uri\0"), meta_record(15, 9, hash), size]
    };
    let payload = |name, location: Vec<Vec<u8>>| meta(&[meta_records(name), location].concat());
    let read = |payloads: &[RawPayload]| read_index(Cursor::new(stone(3, payloads)));
    let good = || location(&[b'0'; 64]);
    assert_eq!(read(&[payload("a", good()), payload("b", good())]).expect("an index").len(), 2);

    let err = read(&[payload("a", good()), payload("a", good())]);
    assert!(matches!(err, Err(Error::RepeatedPackage(_))), "{err:?}");
    let err = read(&[payload("a", Vec::new())]);
    assert!(matches!(err, Err(Error::MissingField { field: "location", .. })), "{err:?}");
    let err = read(&[payload("a", good()[..1].to_vec())]);
    assert!(matches!(err, Err(Error::MissingField { field: "hash", .. })), "{err:?}");
    for hash in [&b""[..], &[b'0'; 63], &[b'0'; 65], &[b'A'; 64], &[b'/'; 64]] {
        let err = read(&[payload("a", location(hash))]);
        assert!(matches!(err, Err(Error::InvalidField { field: "hash", .. })), "{err:?}");
    }
    let err = read_index(Cursor::new(stone(1, &[payload("a", good())])));
    assert!(matches!(err, Err(Error::WrongType { .. })), "{err:?}");
}

#[test]
fn an_index_holds_what_its_count_can_tell() {
    let mut packages: Vec<Metadata> =
        (0..=65_535).map(|number| located(&format!("package-{number}"))).collect();
    let err = index_of(&packages);
    assert!(matches!(err, Err(Error::TooMany { count: 65_536, .. })), "{err:?}");
    packages.truncate(2000);
    let bytes = index_of(&packages).expect("an index");
    assert_eq!(read_index(Cursor::new(bytes)).expect("as written").len(), 2000);
}

#[test]
fn a_manifest_leaves_out_debug_information_and_builds() {
    let with_build = Metadata {
        build_release: 5,
        build_depends: ["cmake", "a"].map(Dependency::on_package).into(),
        depends: [Dependency::new(Kind::Binary, "sh")].into(),
        ..located("tool")
    };
    let mut bytes = Vec::new();
    write_manifest(&[with_build.clone(), metadata("tool-dbginfo")], &mut bytes).expect("fits");
    let read = read_manifest(Cursor::new(bytes)).expect("as written");
    assert_eq!(read, [Metadata { build_release: 0, location: None, ..with_build }]);
}
