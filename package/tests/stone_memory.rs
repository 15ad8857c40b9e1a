//! Files that ask for much memory, and how little they get.
//!
//! One test alone in its process, since it looks at the process's peak.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::io::Cursor;
use std::io::Write;
use std::num::NonZeroUsize;

use cairn_package::stone::{ContentOptions, Package, describe};
use cairn_store::BlobKey;
use zstd::stream::raw::CParameter;

use common::{
    CONTENT, INDEX, LAYOUT, META, RawPayload, index_record, layout_record, meta, meta_records,
    stone,
};

const MIB: u64 = 1 << 20;

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux has it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Zeros in one frame, with a window of 2^`window_log` bytes.
fn zeros(size: u64, window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.set_parameter(CParameter::WindowLog(window_log)).expect("in range");
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), size), &mut encoder)
        .expect("in memory");
    encoder.flush().expect("in memory");
    encoder.finish().expect("in memory")
}

/// A package of one file with `size` bytes by its index.
fn package(size: u64, content: RawPayload) -> Vec<u8> {
    let key = BlobKey::of(b"never compared");
    let layout = layout_record(1, 0o100_644, key.as_bytes(), b"file");
    stone(
        1,
        &[
            meta(&meta_records("bomb")),
            RawPayload::plain(LAYOUT, 1, layout),
            RawPayload::plain(INDEX, 1, index_record(0, size, key.as_bytes())),
            content,
        ],
    )
}

#[test]
fn no_file_gets_more_memory_than_it_is_worth() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let content_is = |size, frames| package(size, RawPayload::frames(CONTENT, 0, size, frames));
    let with = |payload| stone(1, &[meta(&meta_records("bomb")), payload]);
    let equal_entries = |count: u32| {
        let plain = layout_record(3, 0o040_700, b"", b"box").repeat(count as usize);
        let frame = zstd::bulk::compress(&plain, 3).expect("compresses");
        with(RawPayload::frames(LAYOUT, count, plain.len() as u64, frame))
    };
    // A header that announces a window of 2 GiB, and an empty last block.
    let huge_window = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0];
    let cases = [
        (
            "a content of 1 GiB that announces 1 KiB",
            content_is(1024, zeros(1 << 30, 20)),
            "PlainSize",
        ),
        ("a content that announces 1 PiB", content_is(1 << 50, zeros(MIB, 20)), "PlainSize"),
        ("a content with a window of 2 GiB", content_is(1024, huge_window.to_vec()), "Decompress"),
        (
            "metadata of 1 GiB",
            stone(1, &[RawPayload::frames(META, 1, 8, zeros(1 << 30, 20))]),
            "TooLarge",
        ),
        (
            "a table of 1 GiB",
            with(RawPayload::frames(LAYOUT, 1, 1 << 30, zeros(1 << 30, 20))),
            "TooLarge",
        ),
        (
            "a table of 100 MiB that announces 1 KiB",
            { with(RawPayload::frames(LAYOUT, 1, 1024, zeros(100 * MIB, 20))) },
            "PlainSize",
        ),
        ("a million equal entries", equal_entries(1_000_000), "TooLarge"),
        ("as many equal entries as are decoded", equal_entries(110_000), "RepeatedPath"),
        (
            "four billion records",
            with(RawPayload::plain(LAYOUT, u32::MAX, Vec::new())),
            "InvalidRecord",
        ),
        (
            "four billion hashes",
            with(RawPayload::plain(INDEX, u32::MAX, vec![0; 31])),
            "InvalidRecord",
        ),
    ];
    // The frames were made by the compressor, which has its own peak.
    fs::write("/proc/self/clear_refs", "5").expect("Linux lets a process forget its peak");
    let before = peak();
    for (name, stone, expected) in &cases {
        let options = ContentOptions {
            memory: 64 * MIB,
            directory: directory.path(),
            threads: NonZeroUsize::MIN,
        };
        let err = Package::read(Cursor::new(&stone[..]))
            .and_then(|mut package| package.content(&options))
            .map(|_| ())
            .expect_err(name);
        assert!(format!("{err:?}").starts_with(expected), "{name}: {err:?}");
        describe(Cursor::new(&stone[..])).expect(name);
        let grown = peak().saturating_sub(before) / MIB;
        assert!(grown < 64, "{name}: {grown} MiB for {} bytes: {err:?}", stone.len());
    }
}
