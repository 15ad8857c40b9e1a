//! Damaged and hostile files: a clear error, or what an undamaged file gives.

use std::io::Cursor;

use cairn_package::stone::{Encoding, Error, Package, Reader, Warning, describe};
use cairn_store::BlobKey;

use crate::common::{
    CONTENT, INDEX, LAYOUT, RawPayload, index_record, layout_record, meta, meta_record,
    meta_records, stone,
};
use crate::{FAST, held, in_memory, read, tiny, write};

/// Small packages of every form.
fn packages() -> Vec<Vec<u8>> {
    let mut with_digests = tiny();
    with_digests.digests = true;
    let extras = std::fs::read(crate::in_tests("golden/extras-plain.stone")).expect("a file");
    vec![
        write(&tiny(), Encoding::Plain),
        write(&tiny(), Encoding::Canonical),
        write(&with_digests, FAST),
        extras,
    ]
}

#[test]
fn a_flipped_bit_is_found_or_does_no_harm() {
    for good in packages() {
        let expected = held(read(&good).expect("undamaged"), &in_memory()).expect("undamaged");
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _ = describe(Cursor::new(&bad[..]));
                let Ok(package) = read(&bad) else { continue };
                // A kind that became unknown is skipped, as the format wants.
                if !package.warnings.is_empty() {
                    continue;
                }
                let Ok(found) = held(package, &in_memory()) else { continue };
                assert!(found == expected, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn every_prefix_of_a_file_is_an_error() {
    for good in packages() {
        for len in 0..good.len() {
            let err = read(&good[..len]).and_then(|package| held(package, &in_memory()));
            assert!(err.is_err(), "{len} of {} bytes", good.len());
            let _ = describe(Cursor::new(&good[..len]));
        }
    }
}

#[test]
fn a_real_package_with_a_damaged_byte_is_found_out() {
    let good = std::fs::read(crate::real_package()).expect("the test data");
    // Within each of the four bodies.
    let offsets: Vec<usize> = Reader::new(Cursor::new(&good[..]))
        .expect("a stone")
        .payloads()
        .iter()
        .map(|it| usize::try_from(it.offset + it.header.stored_size / 2).expect("small"))
        .collect();
    assert_eq!(offsets.len(), 4);
    for at in offsets {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let err = read(&bad).and_then(|package| held(package, &in_memory()));
        assert!(matches!(err, Err(Error::DamagedPayload { .. })), "byte {at}: {err:?}");
    }
}

/// A package of these payloads beside a Meta payload.
fn package(payloads: &[RawPayload]) -> Vec<u8> {
    let all = [&[meta(&meta_records("crafted"))], payloads].concat();
    stone(1, &all)
}

fn layout(records: &[Vec<u8>]) -> RawPayload {
    RawPayload::plain(LAYOUT, u32::try_from(records.len()).expect("few"), records.concat())
}

fn index(records: &[Vec<u8>]) -> RawPayload {
    RawPayload::plain(INDEX, u32::try_from(records.len()).expect("few"), records.concat())
}

fn file(key: [u8; 16], target: &[u8]) -> Vec<u8> {
    layout_record(1, 0o100_644, &key, target)
}

fn key_of(bytes: &[u8]) -> [u8; 16] {
    *BlobKey::of(bytes).as_bytes()
}

#[track_caller]
fn refused(stone: &[u8], expected: &str) {
    let result = read(stone).and_then(|package| held(package, &in_memory()));
    let err = format!("{:?}", result.err());
    assert!(err.contains(expected), "{err} instead of {expected}");
    // Inspection goes as far as it can, but never further.
    let _ = describe(Cursor::new(stone));
}

#[test]
fn hostile_paths_are_refused() {
    for target in [
        &b""[..],
        b"..",
        b"../../etc/shadow",
        b"/../etc/shadow",
        b"bin/../../../etc/shadow",
        b"bin//sh",
        b"bin/",
        b"./bin",
        b"a\0b",
    ] {
        let stone = package(&[layout(&[layout_record(3, 0o040_700, b"", target)])]);
        refused(&stone, "HostilePath");
    }
    let root = package(&[layout(&[layout_record(3, 0o040_700, b"", b"/")])]);
    refused(&root, "a package cannot contain the root");
    let link = layout_record(2, 0o120_777, b"/etc", b"share");
    let below = layout_record(3, 0o040_700, b"", b"share/passwd");
    refused(&package(&[layout(&[below, link.clone()])]), "BelowNonDirectory");
    refused(&package(&[layout(&[link.clone(), link])]), "RepeatedPath");
    let empty_link = layout_record(2, 0o120_777, b"", b"share");
    refused(&package(&[layout(&[empty_link])]), "InvalidEntry");
}

#[test]
fn files_and_their_content_must_belong_together() {
    let (key, content) = (key_of(b"12345"), || RawPayload::plain(CONTENT, 0, b"12345".into()));
    let entry = || layout(&[file(key, b"a")]);
    let good = package(&[entry(), index(&[index_record(0, 5, &key)]), content()]);
    held(read(&good).expect("a package"), &in_memory()).expect("undamaged");

    refused(&package(&[entry()]), "MissingContent");
    refused(&package(&[entry(), index(&[]), content()]), "MissingContent");
    refused(&package(&[entry(), index(&[index_record(0, 5, &key)])]), "MissingPayload(Content)");
    refused(&package(&[index(&[index_record(0, 5, &key)]), content()]), "MissingPayload(Layout)");
    let cut = |start, end| package(&[entry(), index(&[index_record(start, end, &key)]), content()]);
    refused(&cut(5, 0), "InvalidRange");
    refused(&cut(0, 4), "PlainSize");
    refused(&cut(0, 6), "PlainSize");
    refused(&cut(1, 5), "DamagedContent");
    refused(&cut(u64::MAX - 1, u64::MAX), "PlainSize");
    let header = RawPayload { plain_size: 6, ..content() };
    let whole = || index(&[index_record(0, 5, &key)]);
    refused(&package(&[entry(), whole(), header]), "PlainSize");
    let frame = zstd::bulk::compress(b"1234", 3).expect("compresses");
    let short = RawPayload::frames(CONTENT, 0, 5, frame);
    refused(&package(&[entry(), whole(), short]), "PlainSize");
    let twice = index(&[index_record(0, 5, &key), index_record(0, 5, &key)]);
    refused(&package(&[entry(), twice, content()]), "RepeatedContent");
    let overlapping = index(&[index_record(0, 5, &key), index_record(1, 5, &key_of(b"2345"))]);
    refused(&package(&[entry(), overlapping, content()]), "OverlappingContent");
    let overflow = (0..3u8).map(|at| index_record(0, u64::MAX, &[at; 16])).collect::<Vec<_>>();
    let huge = RawPayload { plain_size: u64::MAX, ..content() };
    refused(&package(&[layout(&[file([0; 16], b"a")]), index(&overflow), huge]), "Overlapping");
    let short_key = layout_record(1, 0o100_644, &key[..15], b"a");
    refused(&package(&[layout(&[short_key])]), "has not 16 bytes");

    let unused = index(&[index_record(0, 5, &key), index_record(5, 5, &key_of(b""))]);
    let package = read(&package(&[entry(), unused, content()])).expect("it does no harm");
    assert_eq!(package.warnings, [Warning::UnusedContent(BlobKey::of(b""))]);
}

#[test]
fn counts_and_sizes_are_measured_against_the_bytes_that_are_there() {
    let directory = layout_record(3, 0o040_700, b"", b"box");
    for records in [2, 3, u32::MAX] {
        let layout = RawPayload { records, ..layout(std::slice::from_ref(&directory)) };
        refused(&package(&[layout]), "it ends too early");
    }
    let none = RawPayload { records: 0, ..layout(std::slice::from_ref(&directory)) };
    refused(&package(&[none]), "BytesAfterRecords");
    for plain_size in [0, 34, 36, u64::MAX] {
        let layout = RawPayload { plain_size, ..layout(std::slice::from_ref(&directory)) };
        let expected = if plain_size > 1 << 30 { "TooLarge" } else { "PlainSize" };
        refused(&package(&[layout]), expected);
    }
    let mut lengths = directory.clone();
    lengths[16..20].fill(0xff);
    refused(&package(&[layout(&[lengths])]), "it ends too early");

    let mut text = meta_records("x");
    text[0][..4].fill(0xff);
    refused(&stone(1, &[meta(&text)]), "it ends too early");
    let attribute = [&u64::MAX.to_be_bytes()[..], &[0; 8]].concat();
    refused(&package(&[RawPayload::plain(5, 1, attribute)]), "it ends too early");

    let mut many = package(&[]);
    many[4..6].fill(0xff);
    refused(&many, "MissingPayloads { announced: 65535, found: 1 }");
    let mut long = package(&[]);
    long[32..40].fill(0xff);
    refused(&long, "TruncatedPayload");
}

#[test]
fn readers_that_could_disagree_are_not_given_a_choice() {
    let two = |payload: RawPayload| package(&[payload.clone(), payload]);
    refused(&two(layout(&[])), "RepeatedPayload(Layout)");
    refused(&two(index(&[])), "RepeatedPayload(Index)");
    refused(&two(RawPayload::plain(CONTENT, 0, Vec::new())), "RepeatedPayload(Content)");
    refused(&package(&[meta(&meta_records("other"))]), "RepeatedPayload(Meta)");
    refused(&stone(1, &[]), "MissingPayload(Meta)");
    refused(&stone(3, &[meta(&meta_records("x"))]), "WrongType");
    refused(&stone(0, &[meta(&meta_records("x"))]), "WrongType");
    let odd = RawPayload { compression: 3, ..layout(&[]) };
    refused(&package(&[odd]), "UnknownCompression");
    let unknown_kind = layout_record(8, 0o100_644, b"", b"a");
    refused(&package(&[layout(&[unknown_kind])]), "UnknownEntry");
}

#[test]
fn metadata_that_lack_something_or_lie_are_refused() {
    let with = |record: Vec<u8>| {
        let mut records = meta_records("x");
        records.push(record);
        stone(1, &[meta(&records)])
    };
    for missing in 0..9 {
        let mut records = meta_records("x");
        records.remove(missing);
        refused(&stone(1, &[meta(&records)]), "MissingField");
    }
    for name in ["a/b", "../x", "/"] {
        refused(&stone(1, &[meta(&meta_records(name))]), "InvalidField");
    }
    refused(&stone(1, &[meta(&meta_records("a\0b"))]), "a NUL inside");
    refused(&with(meta_record(12, 9, b"\xff")), "not UTF-8");
    refused(&with(meta_record(11, 8, &[0; 7])), "length of an integer");
    refused(&with(meta_record(8, 10, b"")), "without a kind");
    refused(&with(meta_record(14, 9, b"uri\0")), "MissingField");

    let warned = |record: Vec<u8>| read(&with(record)).expect("it does no harm").warnings;
    assert_eq!(warned(meta_record(1, 9, b"second\0")), [Warning::RepeatedField("name")]);
    let unknown = Warning::UnknownDependency { kind: 9, text: "x".into() };
    assert_eq!(warned(meta_record(8, 10, b"\x09x\0")), [unknown]);
    assert_eq!(warned(meta_record(999, 9, b"a tag to come\0")), []);
    assert_eq!(warned(meta_record(8, 77, b"a kind of value to come")), []);
    let own_name = read(&with(meta_record(9, 11, b"\x00x\0"))).expect("a package");
    assert!(own_name.metadata.provides.is_empty(), "it is implied");
    // A dependency that is tagged as a provider is neither.
    let mixed = read(&with(meta_record(9, 10, b"\x00x\0"))).expect("a package");
    assert!(mixed.metadata.depends.is_empty() && mixed.metadata.provides.is_empty());
}

#[test]
fn what_other_writers_do_is_read() {
    let key = key_of(b"12345");
    let frame = zstd::bulk::compress(b"12345", 3).expect("compresses");
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let frames = [&skippable[..], &frame, &skippable].concat();
    // Content first, an unknown payload, NUL-terminated texts, a counted Meta.
    let meta = RawPayload { plain_size: 1 << 20, ..meta(&meta_records("odd")) };
    let mut bytes = stone(
        1,
        &[
            RawPayload::frames(CONTENT, 1, 5, frames),
            RawPayload { compression: 9, ..RawPayload::plain(200, 7, b"whatever".into()) },
            index(&[index_record(0, 5, &key)]),
            layout(&[
                file(key, b"bin/a\0"),
                layout_record(2, 0o120_777, b"a\0", b"bin/b\0"),
                layout_record(6, 0o010_600, b"fifo\0", b"pipe\0"),
            ]),
            meta,
        ],
    );
    bytes.extend(b"trailing");
    let package = read(&bytes).expect("a package");
    let expected = [Warning::UnknownPayload { number: 1, kind: 200 }, Warning::TrailingBytes(8)];
    assert_eq!(package.warnings, expected);
    let paths: Vec<String> = package.layout.iter().map(|it| it.path.to_string()).collect();
    assert_eq!(paths, ["/usr/bin/a", "/usr/bin/b", "/usr/pipe"]);
    let held = held(package, &in_memory()).expect("undamaged");
    assert_eq!(held.contents[0].1, b"12345");
}

#[test]
fn an_error_names_the_payload_and_the_record() {
    let mut records = meta_records("x");
    records[8] = meta_record(13, 8, &[0; 3]);
    let err = Package::read(Cursor::new(stone(1, &[meta(&records)]))).expect_err("a short integer");
    assert_eq!(
        err.to_string(),
        "record 8 of the Meta payload is invalid: the length of an integer does not fit its kind"
    );
}
