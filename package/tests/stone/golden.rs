//! Files whose bytes are known.

use std::fs;
use std::io::BufReader;

use cairn_package::stone::{
    Builder, Encoding, Extra, FileType, Layout, LayoutContent, Package, PayloadKind, describe,
};
use cairn_store::tree::Device;
use cairn_store::{BlobKey, Timestamp, Xattr};
use sha2::{Digest as _, Sha256};

use crate::{
    bytes, held, in_memory, in_tests, metadata, path, read, real_package, threads, tiny, write,
};

fn golden(name: &str) -> Vec<u8> {
    fs::read(in_tests("golden").join(name)).expect(name)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_golden_package_is_written_byte_for_byte() {
    let check = |encoding, name, len, hash| {
        let written = write(&tiny(), encoding);
        assert_eq!(written.len(), len, "{name}");
        assert_eq!(sha256(&written), hash, "{name}");
        assert_eq!(written, golden(name), "{name}");
    };
    check(
        Encoding::Plain,
        "tiny-plain.stone",
        696,
        "fc52656f6df967890f903653e51bc812d65e2e9231d25f816f9866fb126e26ab",
    );
    check(
        Encoding::Canonical,
        "tiny-canonical.stone",
        499,
        "24b534a14273535ab39d624c8c6d08469a168d4f585e4c37e0d6aeedc5db3b73",
    );
}

#[test]
fn the_golden_package_reads_as_it_is_documented() {
    for name in ["tiny-plain.stone", "tiny-canonical.stone"] {
        let package = read(&golden(name)).expect(name);
        assert_eq!(package.metadata, tiny().metadata, "{name}");
        assert_eq!(package.layout, tiny().layout, "{name}");
        let ranges: Vec<(u64, u64)> = package.index.iter().map(|it| (it.start, it.end)).collect();
        assert_eq!(ranges, [(0, 18), (18, 18)], "{name}");
        assert!(package.warnings.is_empty(), "{name}: {:?}", package.warnings);
        let contents = held(package, &in_memory()).expect(name).contents;
        assert_eq!(contents[0].1, b"#!/bin/sh\necho hi\n", "{name}");
        assert_eq!(contents[1].1, b"", "{name}");
    }
}

/// Every part of Cairn's own payloads.
fn with_extras() -> Builder {
    let mut builder = Builder::new(metadata("extras"));
    let key = builder.add_source(bytes(b"two names, one file")).expect("in memory").key;
    let linked = Extra {
        mtime: Timestamp::new(1_600_000_000, 123_456_789),
        xattrs: vec![
            Xattr { name: (*b"security.capability").into(), value: (*b"\x01\0\0\x02").into() },
            Xattr { name: (*b"user.note").into(), value: (*b"").into() },
        ],
        link: Some(0),
        device: None,
    };
    let file = |at| Layout {
        extra: linked.clone(),
        ..Layout::new(path(at), 0o4755, LayoutContent::Regular(key))
    };
    let old = Extra { mtime: Timestamp::new(-1, 999_999_999), ..Extra::default() };
    let null = Extra { device: Some(Device { major: 1, minor: 3 }), ..Extra::default() };
    builder.layout = vec![
        file("/usr/bin/one"),
        file("/usr/bin/two"),
        Layout {
            extra: old,
            ..Layout::new(path("/usr/bin/link"), 0o777, LayoutContent::Symlink((*b"one").into()))
        },
        Layout { extra: null, ..Layout::new(path("/dev/null"), 0o666, LayoutContent::CharDevice) },
        Layout::new(path("/usr/lib/pipe"), 0o600, LayoutContent::Fifo),
    ];
    builder
}

#[test]
fn the_payloads_of_cairn_are_written_byte_for_byte_and_read_back() {
    let expected = golden("extras-plain.stone");
    assert_eq!(write(&with_extras(), Encoding::Plain), expected);
    let package = read(&expected).expect("as it was written");
    assert_eq!(package.layout, with_extras().layout);
    assert!(package.index.iter().all(|record| record.digest.is_some()));
}

/// Five MiB, so that there are three frames.
fn with_frames() -> Builder {
    let mut builder = Builder::new(metadata("frames"));
    let large = builder.add_source(bytes(&vec![b'x'; 5 << 20])).expect("in memory").key;
    builder.layout =
        vec![Layout::new(path("/usr/lib/large"), 0o644, LayoutContent::Regular(large))];
    builder
}

#[test]
fn a_content_in_frames_of_another_version_of_zstd_is_read() {
    let stone = golden("frames-fast.stone");
    for count in [1, 3] {
        let options =
            cairn_package::stone::ContentOptions { threads: threads(count), ..in_memory() };
        let held = held(read(&stone).expect("a package"), &options).expect("its content");
        assert_eq!(held.layout, with_frames().layout);
        assert_eq!(held.contents[0].1, vec![b'x'; 5 << 20]);
    }
}

#[test]
fn a_real_package_of_the_older_tools_reads_with_every_hash_verified() {
    let mut package = Package::open(&real_package()).expect("a package");
    assert_eq!(package.warnings, []);
    assert_eq!(package.metadata.file_name(), "bash-completion-2.11-1-1-x86_64.stone");
    assert_eq!(package.layout.len(), 745);
    assert_eq!(package.index.len(), 474);

    let content = package.content(&in_memory()).expect("undamaged");
    assert_eq!(content.blobs().len(), 474);
    let total: u64 = content.blobs().map(|blob| blob.id().size).sum();
    assert_eq!(total, package.content_size());
    for blob in content.blobs() {
        let slice = blob.as_slice().expect("in memory");
        assert_eq!(BlobKey::of(slice), blob.id().key);
    }
    let of_kind = |wanted: fn(&LayoutContent) -> bool| {
        package.layout.iter().filter(|entry| wanted(&entry.content)).count()
    };
    assert_eq!(of_kind(|it| matches!(it, LayoutContent::Regular(_))), 474);
    assert_eq!(of_kind(|it| matches!(it, LayoutContent::Symlink(_))), 271);
    let nmap = path("/usr/share/bash-completion/completions/nmap");
    assert!(package.layout.iter().any(|entry| entry.path == nmap && entry.mode == 0o644));
}

#[test]
fn a_real_package_that_is_written_anew_holds_the_same() {
    let original = fs::read(real_package()).expect("the test data");
    let before = read(&original).expect("a package");
    let mut builder = Builder::new(before.metadata.clone());
    builder.layout = before.layout.clone();
    let mut before = held(before, &in_memory()).expect("its content");
    for (_, content) in &before.contents {
        builder.add_source(bytes(content)).expect("in memory");
    }
    before.contents.sort();
    for encoding in [Encoding::Canonical, Encoding::Plain, crate::FAST] {
        let stone = write(&builder, encoding);
        let mut after = held(read(&stone).expect("a package"), &in_memory()).expect("its content");
        after.contents.sort();
        assert!(after == before, "{encoding:?}");
    }
}

#[test]
fn a_description_has_every_payload_and_entry() {
    let file = fs::File::open(real_package()).expect("the test data");
    let description = describe(BufReader::new(file)).expect("a stone");
    assert_eq!(description.file_type, FileType::Package);
    let kinds: Vec<PayloadKind> = description.payloads.iter().map(|it| it.kind).collect();
    let expected =
        [PayloadKind::Meta, PayloadKind::Layout, PayloadKind::Index, PayloadKind::Content];
    assert_eq!(kinds, expected);
    assert!(description.payloads.iter().all(|payload| payload.problem.is_none()));
    assert_eq!(description.packages[0].name, "bash-completion");
    assert_eq!((description.layout.len(), description.index.len()), (745, 474));
    let end = description.payloads.last().map(|last| last.offset + last.stored_size);
    assert_eq!(end, Some(description.size));
    serde_json::to_string(&description).expect("data");
}

#[test]
fn a_description_tells_what_a_package_must_not_have() {
    let mut stone = golden("tiny-plain.stone");
    // The kind of the first entry, and the checksum of its payload with it.
    let (layout, kind) = (280..550, 300);
    stone[kind] = 9;
    let checksum = cairn_store::Checksum::of(&stone[layout]).0.to_be_bytes();
    stone[264..272].copy_from_slice(&checksum);
    // One byte of the content.
    stone[680] ^= 1;
    assert!(read(&stone).is_err());
    let description = describe(std::io::Cursor::new(stone)).expect("a stone");
    assert_eq!(description.layout[0].kind, "unknown (9)");
    assert_eq!(description.layout[0].path, "/usr/bin/tiny");
    let problems: Vec<bool> = description.payloads.iter().map(|it| it.problem.is_some()).collect();
    assert_eq!(problems, [false, false, false, true]);
}
