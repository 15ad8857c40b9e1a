//! Stones through the public API: golden files, a real package, arbitrary
//! packages, damage, extraction.

#[path = "../common/mod.rs"]
mod common;
mod content;
mod damage;
mod extraction;
mod golden;
mod repository;
mod round_trip;

use std::collections::BTreeSet;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_package::stone::{
    Builder, ContentOptions, Encoding, Error, Layout, LayoutContent, Package, Source,
};
use cairn_package::{Dependency, Kind, Metadata};
use cairn_store::{BlobKey, TreePath};

/// A file that was read from memory.
type InMemory = Package<Cursor<Vec<u8>>>;

fn in_tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

fn real_package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/bash-completion-2.11-1-1-x86_64.stone")
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("some threads")
}

/// Contents stay in memory.
fn in_memory() -> ContentOptions<'static> {
    ContentOptions { memory: 1 << 30, directory: Path::new("/nonexistent"), threads: threads(1) }
}

const FAST: Encoding = Encoding::Fast { level: 3, threads: NonZeroUsize::MIN };

fn read(bytes: &[u8]) -> Result<InMemory, Error> {
    Package::read(Cursor::new(bytes.to_vec()))
}

fn write(builder: &Builder, encoding: Encoding) -> Vec<u8> {
    let mut to = Cursor::new(Vec::new());
    builder.write(encoding, &mut to).expect("a package that can be written");
    to.into_inner()
}

fn path(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).expect("a path of a tree")
}

fn bytes(bytes: &[u8]) -> Source {
    Source::Bytes(Arc::from(bytes))
}

fn metadata(name: &str) -> Metadata {
    Metadata {
        name: name.into(),
        version: "1.0".into(),
        release: 7,
        build_release: 1,
        architecture: "x86_64".into(),
        summary: "s".into(),
        description: "d".into(),
        source_id: name.into(),
        homepage: "https://example.com".into(),
        ..Metadata::default()
    }
}

/// The package of the specification's golden file.
fn tiny() -> Builder {
    let mut builder = Builder::new(Metadata {
        licenses: BTreeSet::from(["MIT".into()]),
        depends: BTreeSet::from([Dependency::new(Kind::Binary, "bash")]),
        provides: ["t", "tiny"].map(|name| Dependency::new(Kind::Binary, name)).into(),
        ..metadata("tiny")
    });
    builder.digests = false;
    let script = builder.add_source(bytes(b"#!/bin/sh\necho hi\n")).expect("in memory").key;
    let empty = builder.add_source(bytes(b"")).expect("in memory").key;
    assert_eq!(empty, BlobKey::of(b""));
    builder.layout = vec![
        Layout::new(path("/usr/bin/tiny"), 0o755, LayoutContent::Regular(script)),
        Layout::new(path("/usr/share/tiny/copy"), 0o644, LayoutContent::Regular(script)),
        Layout::new(path("/usr/share/tiny/empty"), 0o644, LayoutContent::Regular(empty)),
        Layout::new(path("/usr/bin/t"), 0o777, LayoutContent::Symlink((*b"tiny").into())),
        Layout::new(path("/usr/share/tiny/box"), 0o700, LayoutContent::Directory),
    ];
    builder
}

/// What a package holds, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct Held {
    metadata: Metadata,
    layout: Vec<Layout>,
    attributes: Vec<cairn_package::stone::Attribute>,
    contents: Vec<(BlobKey, Vec<u8>)>,
}

fn held(mut package: InMemory, options: &ContentOptions<'_>) -> Result<Held, Error> {
    let content = package.content(options)?;
    let bytes_of = |blob: cairn_package::stone::Blob<'_>| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut blob.reader(), &mut bytes).expect("in memory or a file");
        (blob.id().key, bytes)
    };
    let contents = content.blobs().map(bytes_of).collect();
    let Package { metadata, layout, attributes, .. } = package;
    Ok(Held { metadata, layout, attributes, contents })
}
