//! Contents in memory and in files, in one frame and in many, on one thread
//! and on many.

use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;

use cairn_package::stone::{
    Builder, ContentOptions, Encoding, Error, Layout, LayoutContent, Source,
};
use cairn_store::{BlobKey, BlobRef, Checksum, Digest};

use zstd::stream::raw::CParameter;

use crate::common::{
    CONTENT, INDEX, LAYOUT, RawPayload, index_record, layout_record, meta, meta_records, stone,
};
use crate::{FAST, Held, bytes, held, in_memory, metadata, path, read, threads, write};

/// Some files that make two frames; neither zeros nor noise.
fn builder() -> Builder {
    let mut builder = Builder::new(metadata("content"));
    let mut state = 1u32;
    for (at, len) in [0, 1, 2_500_001, 700_000, 700_000, 3].into_iter().enumerate() {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"etaoin shrdlu qw"[(state >> 28) as usize]
        };
        let content: Vec<u8> = (0..len).map(|_| next()).collect();
        let key = builder.add_source(bytes(&content)).expect("in memory").key;
        let path = path(&format!("/usr/share/file-{at}"));
        builder.layout.push(Layout::new(path, 0o644, LayoutContent::Regular(key)));
    }
    builder
}

#[test]
fn every_way_of_storing_and_reading_gives_the_same_bytes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let builder = builder();
    let mut first: Option<Held> = None;
    for encoding in [Encoding::Plain, Encoding::Canonical, FAST] {
        let stone = write(&builder, encoding);
        for memory in [0, 1 << 20, 1 << 30] {
            for count in [1, 3] {
                let directory = directory.path();
                let options = ContentOptions { memory, directory, threads: threads(count) };
                let held = held(read(&stone).expect("a package"), &options).expect("undamaged");
                let same = first.as_ref().is_none_or(|first| *first == held);
                assert!(same, "{encoding:?}, {memory} bytes in memory, {count} threads");
                first.get_or_insert(held);
            }
        }
    }
    let sizes: Vec<usize> =
        first.iter().flat_map(|held| &held.contents).map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(sizes, [2_500_001, 700_000, 700_000, 3, 1, 0], "the largest first");
    let left = std::fs::read_dir(directory.path()).expect("it exists").count();
    assert_eq!(left, 0, "temporary files have no name");
}

#[test]
fn a_blob_can_be_read_at_any_offset() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (builder, directory) = (builder(), directory.path());
    let stone = write(&builder, FAST);
    for memory in [0, 1 << 30] {
        let options = ContentOptions { memory, directory, threads: threads(2) };
        let content = read(&stone).expect("a package").content(&options).expect("undamaged");
        let blob = content.blobs().nth(1).expect("six files");
        let mut all = Vec::new();
        blob.reader().read_to_end(&mut all).expect("readable");
        assert_eq!(BlobRef::of(&all), blob.id());
        assert_eq!(blob.as_slice(), (memory > 0).then_some(&all[..]));

        let check = |offset: u64, len: usize, expected: usize| {
            let mut buf = vec![0xaa; len];
            assert_eq!(blob.read_at(offset, &mut buf).expect("readable"), expected);
            let start = usize::try_from(offset).expect("small").min(all.len());
            assert_eq!(buf[..expected], all[start..start + expected], "from {offset}");
        };
        check(0, 10, 10);
        check(699_990, 20, 10);
        check(700_000, 20, 0);
        check(u64::from(u32::MAX), 20, 0);
        assert!(content.get(&BlobKey::of(b"not in it")).is_none());
    }
}

#[test]
fn the_output_does_not_depend_on_the_number_of_threads() {
    let builder = builder();
    let one = write(&builder, FAST);
    for count in [2, 5] {
        assert!(write(&builder, Encoding::Fast { level: 3, threads: threads(count) }) == one);
    }
}

/// Where payload `number` has its header, and where its body lies.
fn payload(stone: &[u8], number: usize) -> (usize, std::ops::Range<usize>) {
    let reader = cairn_package::stone::Reader::new(Cursor::new(stone)).expect("a stone");
    let payload = reader.payloads()[number];
    let start = usize::try_from(payload.offset).expect("small");
    (start - 32, start..start + usize::try_from(payload.header.stored_size).expect("small"))
}

/// Makes the checksum of a body right again.
fn seal(stone: &mut [u8], number: usize) {
    let (header, body) = payload(stone, number);
    let checksum = Checksum::of(&stone[body]).0.to_be_bytes();
    stone[header + 16..header + 24].copy_from_slice(&checksum);
}

#[test]
fn damage_is_told_apart_from_forgery() {
    // Meta, Layout, Index, Digests, Content.
    let good = write(&builder(), Encoding::Plain);
    let largest = read(&good).expect("a package").index[0].key;
    let check = |number: usize, at: usize, expected: &str| {
        let mut stone = good.clone();
        let (_, body) = payload(&stone, number);
        stone[body.start + at] ^= 0x40;
        seal(&mut stone, number);
        let err = read(&stone).and_then(|mut package| package.content(&in_memory()));
        assert_eq!(format!("{:?}", err.expect_err(expected)), expected);
    };
    check(3, 0, &format!("ForgedContent({largest:?})"));
    check(4, 2_500_000, &format!("DamagedContent({largest:?})"));
    let mut stone = good;
    let (_, body) = payload(&stone, 4);
    stone[body.start] ^= 1;
    let err = read(&stone).expect("the tables are fine").content(&in_memory());
    assert!(matches!(err, Err(Error::DamagedPayload { number: 4, .. })), "{err:?}");
}

#[test]
fn a_content_in_one_frame_of_over_128_mib_is_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let zeros = vec![0; (128 << 20) + 1];
    let size = zeros.len() as u64;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    // As large as the content, which makes the content the window.
    encoder.set_parameter(CParameter::WindowLog(28)).expect("in range");
    encoder.set_pledged_src_size(Some(size)).expect("before the first byte");
    encoder.write_all(&zeros).expect("in memory");
    let key = BlobKey::of(&zeros);
    let entry = layout_record(1, 0o100_644, key.as_bytes(), b"file");
    let stone = stone(
        1,
        &[
            meta(&meta_records("large")),
            RawPayload::plain(LAYOUT, 1, entry),
            RawPayload::plain(INDEX, 1, index_record(0, size, key.as_bytes())),
            RawPayload::frames(CONTENT, 0, size, encoder.finish().expect("in memory")),
        ],
    );
    let options = ContentOptions { memory: 0, directory: directory.path(), threads: threads(1) };
    let content = read(&stone).expect("a package").content(&options).expect("undamaged");
    assert_eq!(content.get(&key).map(|blob| blob.id().size), Some(size));
}

#[test]
fn a_seek_table_that_lies_is_no_way_around_the_checks() {
    let good = write(&builder(), FAST);
    let (_, body) = payload(&good, 4);
    let table = body.len() - 9 - 2 * 8;
    // Two frames with each other's size: the sums are right.
    let mut stone = good;
    for at in 0..4 {
        let (first, last) = (body.start + table + 4 + at, body.start + table + 12 + at);
        stone.swap(first, last);
    }
    seal(&mut stone, 4);
    let err = read(&stone).expect("the tables are fine").content(&in_memory());
    let expected = matches!(err, Err(Error::Decompress { .. } | Error::PlainSize { .. }));
    assert!(expected, "{err:?}");
}

#[test]
fn a_source_of_any_kind_gives_the_same_package() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (at, content) = (directory.path().join("file"), b"some bytes".repeat(40_000));
    std::fs::write(&at, [b"before", &content[..], b"after"].concat()).expect("writes");
    let whole = directory.path().join("whole");
    std::fs::write(&whole, &content).expect("writes");
    let piece = Source::Piece {
        file: Arc::new(std::fs::File::open(&at).expect("opens")),
        start: 6,
        size: content.len() as u64,
    };
    let stone_of = |source: Source| {
        let mut builder = Builder::new(metadata("source"));
        let blob = builder.add_source(source).expect("readable");
        assert_eq!(blob, BlobRef::of(&content));
        let content = LayoutContent::Regular(blob.key);
        builder.layout = vec![Layout::new(path("/usr/file"), 0o644, content)];
        write(&builder, FAST)
    };
    let expected = stone_of(bytes(&content));
    assert!(stone_of(Source::Path(whole)) == expected);
    assert!(stone_of(piece) == expected);
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_an_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path().join("file");
    for changed in [&b"first"[..], b"", b"other bytes", b"first bytes and more"] {
        std::fs::write(&at, b"first bytes").expect("writes");
        let mut builder = Builder::new(metadata("changes"));
        let key = builder.add_source(Source::Path(at.clone())).expect("readable").key;
        builder.layout = vec![Layout::new(path("/usr/file"), 0o644, LayoutContent::Regular(key))];
        std::fs::write(&at, changed).expect("writes");
        for encoding in [Encoding::Plain, Encoding::Canonical, FAST] {
            let err = builder.write(encoding, Cursor::new(Vec::new()));
            let expected = matches!(err, Err(Error::ChangedSource(of)) if of == key);
            assert!(expected, "{}, {encoding:?}: {err:?}", changed.escape_ascii());
        }
    }
}

#[test]
fn a_package_without_a_source_or_with_two_for_one_key_is_not_written() {
    let key = BlobKey::of(b"absent");
    let mut builder = Builder::new(metadata("absent"));
    builder.layout = vec![Layout::new(path("/usr/file"), 0o644, LayoutContent::Regular(key))];
    let err = builder.write(Encoding::Plain, io::Cursor::new(Vec::new()));
    assert!(matches!(err, Err(Error::MissingContent { .. })), "{err:?}");

    let blob = builder.add_source(bytes(b"absent")).expect("in memory");
    let other = BlobRef { digest: Digest::of(b"other"), ..blob };
    let err = builder.add_hashed(other, bytes(b"other"));
    assert!(matches!(err, Err(Error::Collision(of)) if of == key), "{err:?}");
}
