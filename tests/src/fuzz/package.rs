//! Parsers of the crate `cairn-package`.

use std::fs;
use std::io::Cursor;
use std::num::NonZeroUsize;

use cairn_package::convert::Converter;
use cairn_package::stone::{
    Content, ContentOptions, Package, describe, read_index, read_manifest, write_index,
};
use cairn_store::{BlobRef, Checksum};

/// Makes the checksums of all payloads of a stone right.
fn seal(stone: &mut [u8]) {
    let mut at = 32_usize;
    while let Some(header) = stone.get(at..at.saturating_add(32)) {
        let len = u64::from_be_bytes(header[..8].try_into().expect("8 bytes"));
        let begin = at + 32;
        let Some(end) = usize::try_from(len).ok().and_then(|len| begin.checked_add(len)) else {
            return;
        };
        let Some(body) = stone.get(begin..end) else { return };
        let checksum = Checksum::of(body).0.to_be_bytes();
        stone[at + 16..at + 24].copy_from_slice(&checksum);
        at = end;
    }
}

/// A package, with the bytes of its files.
pub(super) fn stone(bytes: &[u8]) {
    let mut stone = bytes.to_vec();
    seal(&mut stone);
    let _ = describe(Cursor::new(bytes));
    let described = describe(Cursor::new(&stone));
    let Ok(mut package) = Package::read(Cursor::new(&stone)) else { return };
    assert!(described.is_ok(), "it is read, and cannot be described: {:?}", described.err());
    for pair in package.index.windows(2) {
        assert!(pair[0].key != pair[1].key && pair[0].start <= pair[0].end);
    }
    let directory = super::temporary();
    let options =
        |memory| ContentOptions { memory, directory: directory.path(), threads: NonZeroUsize::MIN };
    let held =
        |content: &Content| -> Vec<BlobRef> { content.blobs().map(|blob| blob.id()).collect() };
    // A megabyte is all that an input gets: a file of zeros could have gigabytes.
    if package.content_size() > 1 << 20 {
        return;
    }
    let Ok(content) = package.content(&options(1 << 20)) else { return };
    for (blob, record) in content.blobs().zip(&package.index) {
        let bytes = blob.as_slice().expect("it is in memory");
        assert_eq!(BlobRef::of(bytes), blob.id());
        assert_eq!(blob.id().key, record.key);
    }
    let again = package.content(&options(0)).expect("as before, through a file");
    assert_eq!(held(&again), held(&content));
}

/// An index or a manifest.
pub(super) fn metadata(bytes: &[u8]) {
    let mut stone = bytes.to_vec();
    seal(&mut stone);
    let _ = read_manifest(Cursor::new(&stone));
    let Ok(mut packages) = read_index(Cursor::new(&stone)) else { return };
    let mut written = Cursor::new(Vec::new());
    // What cannot be written was told when it was read, or it is written as it is.
    write_index(&packages, &mut written).expect("what was read can be written");
    let again = read_index(Cursor::new(written.get_ref())).expect("what was written can be read");
    packages.sort_by(|left, right| left.name.cmp(&right.name));
    assert_eq!(again, packages);
}

/// A Debian package that becomes a stone, which is a good one.
pub(super) fn deb(bytes: &[u8]) {
    let directory = super::temporary();
    let path = directory.path().join("a.deb");
    fs::write(&path, bytes).unwrap();
    let converter = Converter::new("x86_64");
    let Ok(outcome) = converter.convert(&path, directory.path()) else { return };
    let mut package = Package::open(&outcome.path).expect("a stone");
    assert_eq!(package.metadata, outcome.metadata);
    assert!(package.warnings.is_empty(), "{:?}", package.warnings);
    let options =
        ContentOptions { memory: 0, directory: directory.path(), threads: NonZeroUsize::MIN };
    let content = package.content(&options).expect("its content");
    assert_eq!(content.blobs().map(|blob| blob.id().size).sum::<u64>(), outcome.plain_size);
    let again = converter.convert(&path, directory.path()).expect("as before");
    assert!(again.was_there, "one package, two stones");
}
