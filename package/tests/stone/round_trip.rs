//! What is written reads back equal, for any package.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use cairn_package::stone::{
    Attribute, Builder, Encoding, Extra, Layout, LayoutContent, read_index, read_manifest,
    write_index, write_manifest,
};
use cairn_package::{Dependency, Kind, Location, Metadata};
use cairn_store::tree::Device;
use cairn_store::{Timestamp, TreePath, Xattr};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::{FAST, bytes, held, in_memory, read, write};

fn text() -> impl Strategy<Value = String> {
    "[^\u{0}]{0,12}"
}

fn part_of_a_file_name() -> impl Strategy<Value = String> {
    "[^\u{0}/]{0,8}"
}

fn dependency() -> impl Strategy<Value = Dependency> {
    let kinds: Vec<Kind> = (0..9).filter_map(Kind::from_number).collect();
    (select(kinds), "[a-c().+]{0,4}").prop_map(|(kind, text)| Dependency::new(kind, text))
}

fn dependencies() -> impl Strategy<Value = BTreeSet<Dependency>> {
    prop::collection::btree_set(dependency(), 0..5)
}

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let names = (part_of_a_file_name(), part_of_a_file_name(), part_of_a_file_name());
    let texts = (text(), text(), text(), text(), prop::collection::btree_set(text(), 0..3));
    let sets = (dependencies(), dependencies(), dependencies(), dependencies());
    let own = (prop::option::of(any::<[u8; 32]>()), prop::option::of(any::<u64>()));
    let location = prop::option::of((text(), "[0-9a-f]{64}", any::<u64>(), own));
    (names, texts, sets, any::<(u64, u64)>(), location).prop_map(
        |(names, texts, sets, (release, build_release), location)| {
            let (name, version, architecture) = names;
            let (summary, description, source_id, homepage, licenses) = texts;
            let (depends, mut provides, conflicts, build_depends) = sets;
            // Its own name is implied.
            provides.remove(&Dependency::on_package(name.as_str()));
            let location = location.map(|(uri, hash, size, (digest, installed_size))| {
                let digest = digest.map(cairn_store::Digest::from_bytes);
                Location { uri, hash, size, digest, installed_size }
            });
            Metadata {
                name,
                version,
                release,
                build_release,
                architecture,
                summary,
                description,
                source_id,
                homepage,
                licenses,
                depends,
                provides,
                conflicts,
                build_depends,
                location,
            }
        },
    )
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let value = prop::collection::vec(any::<u8>(), 0..5);
    prop::collection::btree_map("user\\.[a-c]{1,3}", value, 0..3).prop_map(|map| {
        let xattr = |(name, value): (String, Vec<u8>)| Xattr {
            name: name.into_bytes().into(),
            value: value.into(),
        };
        map.into_iter().map(xattr).collect()
    })
}

/// An entry whose content is one of `contents`, and which may be a link of the
/// entry before it.
fn entry() -> impl Strategy<Value = (TreePath, Layout, u8, bool)> {
    let path = prop::collection::vec("[ab\u{e9}]{1,2}", 1..4).prop_map(|names| names.join("/"));
    let path = (select(vec!["/", "/usr/", "/usr/bin/"]), path)
        .prop_map(|(below, rest)| TreePath::new(format!("{below}{rest}").as_bytes()));
    let mtime = prop::option::of((any::<i64>(), 0..1_000_000_000u32));
    let owner = (any::<u32>(), any::<u32>(), 0..=0o7777u16, any::<u32>());
    let device = prop::option::of(any::<(u32, u32)>());
    let content = (0..7u8, "[^\u{0}]{1,9}");
    (path, owner, content, 0..6u8, mtime, xattrs(), device, any::<bool>()).prop_map(
        |(path, (uid, gid, mode, tag), (kind, text), blob, mtime, xattrs, device, link)| {
            let path = path.expect("made of good names");
            let content = match kind {
                0 => LayoutContent::Symlink(text.into_bytes().into()),
                1 => LayoutContent::CharDevice,
                2 => LayoutContent::BlockDevice,
                3 => LayoutContent::Fifo,
                4 => LayoutContent::Socket,
                // Regular files get their content later.
                _ => LayoutContent::Directory,
            };
            let has_number =
                matches!(content, LayoutContent::CharDevice | LayoutContent::BlockDevice);
            let extra = Extra {
                mtime: mtime.and_then(|(seconds, rest)| Timestamp::new(seconds, rest)),
                xattrs,
                link: None,
                device: device.filter(|_| has_number).map(|(major, minor)| Device { major, minor }),
            };
            let blob = if kind == 6 { blob + 1 } else { 0 };
            let layout = Layout { path: path.clone(), uid, gid, mode, tag, content, extra };
            (path, layout, blob, link)
        },
    )
}

fn package() -> impl Strategy<Value = Builder> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..300_000usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let contents = prop::collection::vec(content, 6);
    let blob = || prop::collection::vec(any::<u8>(), 0..4);
    let attributes = prop::collection::vec((blob(), blob()), 0..3);
    let entries = prop::collection::vec(entry(), 0..20);
    (any_metadata(), contents, entries, attributes, any::<bool>()).prop_map(
        |(metadata, contents, entries, attributes, digests)| {
            let mut builder = Builder::new(metadata);
            builder.digests = digests;
            let attribute = |(key, value): (Vec<u8>, Vec<u8>)| Attribute {
                key: key.into(),
                value: value.into(),
            };
            builder.attributes = attributes.into_iter().map(attribute).collect();
            let mut paths: BTreeMap<TreePath, bool> = BTreeMap::new();
            for (path, mut entry, blob, link) in entries {
                if let Some(at) = blob.checked_sub(1) {
                    let source = bytes(&contents[usize::from(at)]);
                    let key = builder.add_source(source).expect("in memory").key;
                    entry.content = LayoutContent::Regular(key);
                }
                let is_directory = entry.content == LayoutContent::Directory;
                if !fits(&paths, &path, is_directory) {
                    continue;
                }
                paths.insert(path.clone(), is_directory);
                let group = u32::try_from(builder.layout.len()).expect("few");
                match builder.layout.last_mut() {
                    Some(last) if link && last.content != LayoutContent::Directory => {
                        if is_directory {
                            continue;
                        }
                        last.extra.link.get_or_insert(group);
                        entry = Layout { path, ..last.clone() };
                    }
                    _ => {}
                }
                builder.layout.push(entry);
            }
            builder
        },
    )
}

/// Whether a package may have `path` beside `paths`.
fn fits(paths: &BTreeMap<TreePath, bool>, path: &TreePath, is_directory: bool) -> bool {
    paths.iter().all(|(other, other_is_directory)| {
        let (path, other) = (path.names(), other.names());
        path != other
            && (*other_is_directory || !path.starts_with(other))
            && (is_directory || !other.starts_with(path))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_package_reads_back_as_it_was_written(
        builder in package(),
        encoding in select(vec![Encoding::Plain, Encoding::Canonical, FAST]),
    ) {
        let stone = write(&builder, encoding);
        prop_assert!(stone == write(&builder, encoding), "not deterministic");
        let package = read(&stone).expect("what was written");
        prop_assert_eq!(&package.warnings, &[]);
        let has_digests = package.index.iter().all(|it| it.digest.is_some() == builder.digests);
        prop_assert!(has_digests);
        let held = held(package, &in_memory()).expect("undamaged");
        prop_assert_eq!(&held.metadata, &builder.metadata);
        prop_assert_eq!(&held.layout, &builder.layout);
        prop_assert_eq!(&held.attributes, &builder.attributes);
        let used: BTreeSet<_> = builder.layout.iter().filter_map(|it| match it.content {
            LayoutContent::Regular(key) => Some(key),
            _ => None,
        }).collect();
        let found: BTreeSet<_> = held.contents.iter().map(|(key, _)| *key).collect();
        prop_assert_eq!(used, found);
    }

    #[test]
    fn any_metadata_read_back_from_an_index_and_a_manifest(
        packages in prop::collection::vec(any_metadata(), 6),
        some in subsequence(vec![0usize, 1, 2, 3, 4, 5], 0..=6),
    ) {
        let mut by_name = BTreeMap::new();
        for at in some {
            let mut metadata = packages[at].clone();
            let location = Location {
                uri: "x".into(),
                hash: "0".repeat(64),
                size: 1,
                ..Location::default()
            };
            metadata.location.get_or_insert(location);
            by_name.insert(metadata.name.clone(), metadata);
        }
        let mut packages: Vec<Metadata> = by_name.into_values().collect();
        let expected = packages.clone();
        packages.reverse();

        let mut index = Vec::new();
        write_index(&packages, &mut index).expect("an index");
        prop_assert_eq!(&read_index(Cursor::new(index)).expect("as written"), &expected);

        let mut manifest = Vec::new();
        write_manifest(&packages, &mut manifest).expect("a manifest");
        let found = read_manifest(Cursor::new(manifest)).expect("as written");
        let of_manifest = |it: Metadata| Metadata { build_release: 0, location: None, ..it };
        let expected: Vec<Metadata> = expected.into_iter().map(of_manifest).collect();
        prop_assert_eq!(found, expected);
    }
}
