//! Real files for the corpus, each small: changes go on from there.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_package::Location;
use cairn_package::stone::{Package, Reader, write_index};
use cairn_store::TreeId;
use cairn_tests::fuzz::Target;
use cairn_tests::{Deb, make_fifo, set_xattr};

#[path = "../store/tests/support/document.rs"]
#[allow(dead_code, reason = "not every test uses everything")]
mod document;
#[path = "../package/tests/common/mod.rs"]
#[allow(dead_code, reason = "not every test uses everything")]
mod raw;

use document::{Objects, TREE};
use raw::{RawPayload, stone};

/// Writes all of them.
pub fn write() {
    packs_and_trees();
    log();
    stones();
    archives();
}

/// A change of a longer file hits little that matters.
const MAX_LEN: usize = 25 << 10;

fn keep(target: &str, name: &str, bytes: &[u8]) {
    let directory = Target::named(target).expect("a target").corpus();
    assert!(bytes.len() <= MAX_LEN, "{target}/{name} has {} bytes", bytes.len());
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), bytes).unwrap();
}

/// Files of another crate's tests.
fn golden(krate: &str, directory: &str) -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate).join("tests/golden");
    crate::files(&tests.join(directory))
}

fn packs_and_trees() {
    let mut objects = Objects::new();
    for (at, path) in golden("store", "store-1/packs").iter().enumerate() {
        let pack = fs::read(path).unwrap();
        document::read_pack(&pack, &mut objects);
        keep("pack", &format!("golden-{at}"), &pack);
    }
    for (at, path) in golden("store", "dense-2/packs").iter().enumerate() {
        let pack = fs::read(path).unwrap();
        if pack.starts_with(b"CRNPACK2") {
            keep("pack", &format!("dense-{at}"), &pack);
        }
    }
    let trees = objects.keys().filter(|(kind, _)| *kind == TREE);
    for (at, (_, id)) in trees.enumerate() {
        let encoded = document::read_tree(&objects, id).encode();
        assert_eq!(encoded.id, TreeId::from_bytes(*id));
        let mut bytes = Vec::new();
        for piece in [&encoded.bytes].into_iter().chain(encoded.pages.iter().map(|it| &it.1)) {
            bytes.extend(u16::try_from(piece.len()).expect("a small one").to_le_bytes());
            bytes.extend(piece);
        }
        keep("tree", &format!("golden-{at}"), &bytes);
    }
}

fn log() {
    for (name, directory) in [("golden", "store-1/refs"), ("checkpoint", "checkpoint-1")] {
        let text = fs::read_to_string(&golden("store", directory)[0]).unwrap();
        let key = "\"previous\":\"";
        let lines = text.lines().map(|line| {
            let at = line.find(key).expect("each record has it") + key.len();
            format!("{}@{}\n", &line[..at], &line[at + 16..])
        });
        keep("log", name, lines.collect::<String>().as_bytes());
    }
}

/// The same payloads without compression, so that each byte says something.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(Cursor::new(bytes)).unwrap();
    let payloads = reader.payloads().to_vec();
    let plain = payloads.iter().map(|payload| {
        let kind = payload.header.kind.number();
        let begin = usize::try_from(payload.offset).unwrap();
        let stored = &bytes[begin..][..usize::try_from(payload.header.stored_size).unwrap()];
        let body = if payload.header.compression.number() == 1 {
            stored.to_vec()
        } else if kind == raw::CONTENT {
            zstd::decode_all(stored).unwrap()
        } else {
            reader.table(payload).unwrap()
        };
        RawPayload::plain(kind, payload.header.records, body)
    });
    let plain: Vec<RawPayload> = plain.collect();
    stone(reader.file_type().number(), &plain)
}

fn stones() {
    let mut packages = Vec::new();
    for path in golden("package", "") {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        keep("stone", &name, &bytes);
        let unpacked = plain(&bytes);
        // One golden file is of zeros, which are megabytes.
        if unpacked != bytes && unpacked.len() <= MAX_LEN {
            keep("stone", &format!("{name}-unpacked"), &unpacked);
        }
        let mut metadata = Package::read(Cursor::new(&bytes)).unwrap().metadata;
        metadata.name = format!("{}-{}", metadata.name, packages.len());
        metadata.location = Some(Location {
            uri: format!("{name}.stone"),
            hash: "0".repeat(64),
            size: bytes.len() as u64,
            digest: None,
            installed_size: None,
        });
        packages.push(metadata);
    }
    let mut index = Cursor::new(Vec::new());
    write_index(&packages, &mut index).unwrap();
    keep("metadata", "index", index.get_ref());
    keep("metadata", "index-unpacked", &plain(index.get_ref()));
}

/// `tar` with these words, in a directory with a bit of everything.
fn archive(directory: &Path, words: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--blocking-factor=1", "--sort=name", "--owner=0", "--group=0", "--mtime=@1.5"]);
    let output = tar.args(words).arg("-C").arg(directory).args(["-c", "."]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    gzip.args(["-n", "-c"]).stdin(std::process::Stdio::piped());
    let mut gzip = gzip.stdout(std::process::Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(bytes).unwrap();
    gzip.wait_with_output().unwrap().stdout
}

fn archives() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("files");
    let usr = directory.join("usr/bin");
    fs::create_dir_all(&usr).unwrap();
    fs::write(usr.join("hello"), "#!/bin/sh\necho hello\n").unwrap();
    fs::hard_link(usr.join("hello"), usr.join("again")).unwrap();
    symlink("hello", usr.join("link")).unwrap();
    make_fifo(&directory.join("fifo")).unwrap();
    fs::write(directory.join("n".repeat(120)), "long").unwrap();
    set_xattr(&usr.join("hello"), "user.note", b"a\nb").unwrap();
    let posix = [
        "--format=posix",
        "--xattrs",
        "--xattrs-include=*",
        "--pax-option=delete=atime,delete=ctime",
    ];
    let tar = archive(&directory, &posix);
    keep("tar", "posix", &tar);
    keep("tar", "gnu", &archive(&directory, &["--format=gnu"]));
    fs::remove_file(directory.join("n".repeat(120))).unwrap();
    keep("tar", "ustar", &archive(&directory, &["--format=ustar"]));
    keep("tar", "v7", &archive(&directory, &["--format=v7", "--exclude=./fifo"]));

    let small = |name| Deb::new(name, "1:2.0-1").field("Depends", "other (>= 1) | third, x:any");
    let debs = home.path().join("debs");
    let deb = small("tiny").file("usr/bin/tiny", 0o4755, "tiny").symlink("bin/link", "../tiny");
    keep("deb", "tiny", &fs::read(deb.write(&debs)).unwrap());
    let deb = small("everything").directory(&directory);
    keep("deb", "everything", &fs::read(deb.write(&debs)).unwrap());

    let upper = home.path().join("upper");
    fs::create_dir_all(upper.join("usr/bin")).unwrap();
    fs::write(upper.join("usr/bin/.wh.again"), "").unwrap();
    fs::create_dir(upper.join("opaque")).unwrap();
    fs::write(upper.join("opaque/.wh..wh..opq"), "").unwrap();
    let upper = archive(&upper, &["--format=ustar"]);
    let lower = archive(&directory, &["--format=ustar"]);
    for (name, layers) in
        [("plain", [lower.clone(), upper.clone()]), ("gzip", [gzip(&lower), gzip(&upper)])]
    {
        let layer = |at: usize| {
            format!(r#"{{"mediaType":"x","digest":"sha256:@{at}@","size":{}}}"#, layers[at].len())
        };
        let manifest = format!(r#"{{"schemaVersion":2,"layers":[{},{}]}}"#, layer(0), layer(1));
        let platform = r#"{"architecture":"amd64","os":"linux"}"#;
        let index = |digest: usize, kind| {
            format!(
                r#"{{"manifests":[{{"mediaType":"{kind}","digest":"sha256:@{digest}@","size":1,"platform":{platform}}}]}}"#
            )
        };
        let (index_of_image, index_of_index) = (index(2, "manifest"), index(3, "index"));
        let parts: [&[u8]; 6] = [
            &br#"{"imageLayoutVersion":"1.0.0"}"#[..],
            &layers[0],
            &layers[1],
            manifest.as_bytes(),
            index_of_image.as_bytes(),
            index_of_index.as_bytes(),
        ];
        keep("oci", name, &parts.join(&b"\n----\n"[..]));
    }
}
