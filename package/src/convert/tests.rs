//! Whole packages, made for the test.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs;
use std::sync::Mutex;

use super::fixture::{Ar, Tar, control, deb, deb_of};
use super::*;
use crate::dependency::Dependency;
use crate::stone::{LayoutContent, Package};

/// A directory with packages in it, and one for stones.
struct Place {
    directory: tempfile::TempDir,
    to: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let to = directory.path().join("stones");
        fs::create_dir(&to).expect("a directory");
        Self { directory, to }
    }

    fn deb(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    /// Names of everything in the output directory.
    fn stones(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.to).expect("a directory");
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn small(name: &str) -> Vec<u8> {
    let path = format!("./usr/bin/{name}");
    deb(&control(name, "1.0-1"), Tar::new().file(&path, name.as_bytes()))
}

/// An error with all its sources.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(err) = source {
        text = format!("{text}: {err}");
        source = err.source();
    }
    text
}

#[test]
fn a_package_becomes_the_stone_that_the_outcome_tells_of() {
    let place = Place::new();
    let fields = format!(
        "{}Depends: libc6, gone | here\nProvides: editor\nConflicts: other (<< 2)\n\
         Essential: yes\n",
        control("nano", "1:7.2-1+deb12u1")
    );
    let archive = Tar::new()
        .directory("./")
        .file("./control", fields.as_bytes())
        .file("./postinst", b"#!/bin/sh\n")
        .file("./triggers", b"activate x\n")
        .file("./md5sums", b"")
        .file("./sub/config", b"");
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
                     License: GPL-3+\n";
    let data = Tar::new()
        .file("./bin/nano", b"program")
        .hard_link("./bin/pico", "./bin/nano")
        .file("./etc/nanorc", b"program")
        .file("./usr/share/doc/nano/copyright", copyright.as_bytes());
    let deb = place.deb("nano.deb", &deb_of(&archive.bytes(), &data.bytes()));

    let mut converter = Converter::new("x86_64");
    converter.known.extend(["here".to_string()]);
    let outcome = converter.convert(&deb, &place.to).expect("converts");
    assert_eq!(outcome.scripts, [Script::PostInst, Script::Triggers]);
    assert_eq!(outcome.unmet, ["libc6"]);
    assert_eq!(outcome.ignored_conflicts, ["other (<< 2)"]);
    assert!(outcome.is_essential && !outcome.was_there);
    let name = outcome.path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("nano-1_7.2-1+deb12u1-"), "{name}");
    assert!(name.ends_with("-x86_64.stone"), "{name}");
    assert_eq!(outcome.stone_size, outcome.path.metadata().unwrap().len());
    assert_eq!(outcome.deb_size, deb.metadata().unwrap().len());
    assert_eq!(outcome.plain_size, 7 + copyright.len() as u64);

    let mode = outcome.path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o444, fs::metadata(&deb).unwrap().permissions().mode() & 0o444);

    let package = Package::open(&outcome.path).expect("a stone");
    assert_eq!(package.metadata, outcome.metadata);
    assert_eq!(package.warnings, []);
    let texts =
        |set: &BTreeSet<Dependency>| set.iter().map(|it| it.to_string()).collect::<Vec<_>>();
    assert_eq!(texts(&package.metadata.depends), ["here", "libc6"]);
    assert_eq!(texts(&package.metadata.provides), ["binary(nano)", "binary(pico)", "editor"]);
    assert_eq!(Vec::from_iter(&package.metadata.licenses), ["GPL-3.0-or-later"]);
    let paths: Vec<_> = package.layout.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(
        paths,
        [
            "/usr/bin/nano",
            "/usr/bin/pico",
            "/usr/share/defaults/etc/nanorc",
            "/usr/share/doc/nano/copyright",
        ]
    );
    assert_eq!(place.stones().len(), 1, "nothing temporary is left");
}

#[test]
fn each_compression_gives_the_same_stone_but_for_its_stamp() {
    let data = Tar::new().file("./usr/bin/a", &b"a ".repeat(5000)).bytes();
    let archive = Tar::new().file("./control", control("a", "1-1").as_bytes()).bytes();
    let gzip = |plain: &[u8]| {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(plain).unwrap();
        to.finish().unwrap()
    };
    let xz = |plain: &[u8]| {
        let mut to = liblzma::write::XzEncoder::new(Vec::new(), 0);
        to.write_all(plain).unwrap();
        to.finish().unwrap()
    };
    let zst = |plain: &[u8]| zstd::encode_all(plain, 1).unwrap();
    let member = |name: &str, plain: &[u8]| match name.rsplit_once('.') {
        Some((_, "gz")) => gzip(plain),
        Some((_, "xz")) => xz(plain),
        Some((_, "zst")) => zst(plain),
        _ => plain.to_vec(),
    };
    let convert = |suffixes: (&str, &str)| {
        let place = Place::new();
        let names = (format!("control.tar{}", suffixes.0), format!("data.tar{}", suffixes.1));
        let deb = Ar::new()
            .member("debian-binary", b"2.0\n")
            .member(&names.0, &member(&names.0, &archive))
            .member(&names.1, &member(&names.1, &data));
        let deb = place.deb("a.deb", &deb.bytes());
        let outcome = Converter::new("x86_64").convert(&deb, &place.to).expect("converts");
        let package = Package::open(&outcome.path).expect("a stone");
        (package.metadata, package.layout, package.index)
    };
    let plain = convert(("", ""));
    for suffixes in [(".gz", ".gz"), (".xz", ".xz"), (".zst", ".zst"), (".gz", ".xz")] {
        assert_eq!(convert(suffixes), plain, "{suffixes:?}");
    }
}

#[test]
fn a_damaged_package_leaves_no_stone_and_replaces_none() {
    let place = Place::new();
    let good = small("a");
    let deb = place.deb("a.deb", &good);
    let converter = Converter::new("x86_64");
    let stone = converter.convert(&deb, &place.to).expect("converts").path;
    let before = fs::read(&stone).unwrap();

    let bad = super::fixture::deb(&control("a", "1.0-1"), Tar::new().file("../x", b""));
    fs::write(&deb, bad).unwrap();
    let error = converter.convert(&deb, &place.to).expect_err("hostile");
    assert_eq!(
        chain(&error),
        format!(
            "cannot convert {}: data.tar: \"../x\": its name cannot be a path below the root: \
             \"../x\" is not a path of a tree: \"..\" cannot be the name of a file",
            deb.display()
        )
    );
    assert_eq!(fs::read(&stone).unwrap(), before);
    assert_eq!(place.stones().len(), 1);
}

#[test]
fn every_prefix_and_every_flipped_byte_of_a_package_ends_without_a_panic() {
    let place = Place::new();
    let whole = small("a");
    let converter = Converter::new("x86_64");
    for len in 0..whole.len() {
        // Only the padding of the archive at its end may be missing.
        let deb = place.deb("a.deb", &whole[..len]);
        assert!(converter.convert(&deb, &place.to).is_err(), "{len} bytes");
    }
    // Inside a run of zeros, one byte is as good as any other.
    let is_padding = |at: &usize| whole[at.saturating_sub(1)..].starts_with(&[0; 3]);
    for at in (0..whole.len()).filter(|at| !is_padding(at)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x11;
        let deb = place.deb("a.deb", &damaged);
        if let Ok(outcome) = converter.convert(&deb, &place.to) {
            assert!(outcome.path.starts_with(&place.to), "byte {at} led out of the directory");
            assert_eq!(outcome.path.parent(), Some(&*place.to), "byte {at}");
        }
    }
}

#[test]
fn a_bomb_ends_at_its_limit() {
    let place = Place::new();
    let zeros = vec![0; 65 << 20];
    let archive = Tar::new().file("./control", b"").file("./md5sums", &zeros).bytes();
    let deb = Ar::new()
        .member("debian-binary", b"2.0\n")
        .member("control.tar.zst", &zstd::encode_all(&archive[..], 1).unwrap())
        .member("data.tar", b"")
        .bytes();
    assert!(deb.len() < 100_000, "a bomb is small");
    let deb = place.deb("bomb.deb", &deb);
    let error = Converter::new("x86_64").convert(&deb, &place.to).expect_err("a bomb");
    assert!(chain(&error).ends_with("cannot unpack control.tar.zst: it holds over 67108864 bytes"));
}

#[test]
fn a_second_conversion_keeps_what_it_would_make_again() {
    let place = Place::new();
    let deb = place.deb("a.deb", &small("a"));
    let converter = Converter::new("x86_64");
    let first = converter.convert(&deb, &place.to).expect("converts");
    assert!(!first.was_there);
    let stone = fs::read(&first.path).unwrap();
    let second = converter.convert(&deb, &place.to).expect("converts");
    assert_eq!(second, Outcome { was_there: true, ..first.clone() });

    let check = |reason: &str, converter: &Converter, change: &dyn Fn()| {
        change();
        let outcome = converter.convert(&deb, &place.to).expect(reason);
        assert!(!outcome.was_there, "{reason}");
        let again = converter.convert(&deb, &place.to).expect(reason);
        assert!(again.was_there, "{reason}: and then it is there");
        outcome.path
    };
    // Every byte matters that a reader would use: one in the content, which
    // nothing but a full read notices.
    check("damaged", &converter, &|| {
        let mut damaged = stone.clone();
        let at = damaged.len() - 30;
        damaged[at] ^= 1;
        fs::write(&first.path, damaged).unwrap();
    });
    check("truncated", &converter, &|| fs::write(&first.path, &stone[..300]).unwrap());
    let longer = [&stone[..], b"x"].concat();
    check("with something behind", &converter, &|| fs::write(&first.path, &longer).unwrap());
    check("gone", &converter, &|| fs::remove_file(&first.path).unwrap());
    assert_eq!(fs::read(&first.path).unwrap(), stone, "it was always made the same");

    let level = Converter { level: 9, ..converter.clone() };
    check("another level", &level, &|| {});
    let changed = super::fixture::deb(&control("a", "1.0-1"), Tar::new().file("b", b"b"));
    check("another package", &converter, &|| fs::write(&deb, &changed).unwrap());
}

#[test]
fn a_dependency_that_becomes_known_makes_the_stone_anew() {
    let place = Place::new();
    let fields = format!("{}Depends: x | y\n", control("a", "1-1"));
    let deb = place.deb("a.deb", &deb(&fields, Tar::new()));
    let mut converter = Converter::new("x86_64");
    let first = converter.convert(&deb, &place.to).expect("converts");
    converter.known.extend(["z".to_string()]);
    assert!(converter.convert(&deb, &place.to).expect("converts").was_there, "z is nothing to it");
    converter.known.extend(["y".to_string()]);
    let second = converter.convert(&deb, &place.to).expect("converts");
    assert!(!second.was_there);
    assert_eq!(first.path, second.path);
    assert_eq!(second.unmet, [""; 0]);
}

#[derive(Default)]
struct Log(Mutex<(usize, u64, u64, Vec<PathBuf>)>);

impl Progress for Log {
    fn begin(&self, packages: usize, bytes: u64) {
        let mut log = self.0.lock().unwrap();
        (log.0, log.1) = (packages, bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.lock().unwrap().2 += bytes;
    }

    fn finish(&self, deb: &Path, _: &Result<Outcome, Error>) {
        self.0.lock().unwrap().3.push(deb.into());
    }
}

#[test]
fn a_set_knows_itself_and_does_not_depend_on_threads() {
    let place = Place::new();
    let mut debs = Vec::new();
    for number in 0..20 {
        let name = format!("p{number}");
        let fields = format!("{}Depends: gone | p{}\n", control(&name, "1-1"), (number + 7) % 20);
        let bytes = vec![number; usize::from(number) * 10_000];
        let data = Tar::new().file(&format!("./usr/share/{name}"), &bytes);
        debs.push(place.deb(&format!("{name}.deb"), &deb(&fields, data)));
    }
    debs.insert(5, place.deb("bad.deb", b"nonsense"));
    debs.insert(9, place.directory.path().join("absent.deb"));
    let newer = deb(&control("p3", "2.0-1"), Tar::new().file("./usr/bin/p3", b"new"));
    debs.push(place.deb("newer.deb", &newer));
    let again = place.deb("twice.deb", &fs::read(&debs[0]).unwrap());
    debs.push(again);

    let convert = |threads: usize, to: &Path| {
        let threads = NonZeroUsize::new(threads).unwrap();
        let converter = Converter { threads, ..Converter::new("x86_64") };
        let log = Log::default();
        let results = converter.convert_all(&debs, to, &log);
        let (packages, bytes, read, mut finished) = log.0.into_inner().unwrap();
        assert_eq!((packages, finished.len()), (debs.len(), debs.len()));
        assert_eq!(read, bytes, "the progress ends at 100 %");
        finished.sort();
        let mut expected = debs.clone();
        expected.sort();
        assert_eq!(finished, expected);
        results
    };
    let one = convert(1, &place.to);
    let other = Place::new();
    let four = convert(4, &other.to);
    assert_eq!(one.len(), debs.len());
    for ((deb, one), four) in debs.iter().zip(&one).zip(&four) {
        match (one, four) {
            (Ok(one), Ok(four)) => {
                assert_eq!(one.metadata, four.metadata);
                assert_eq!(fs::read(&one.path).unwrap(), fs::read(&four.path).unwrap());
                assert_eq!(one.unmet, [""; 0]);
            }
            (Err(one), Err(four)) => assert_eq!(chain(one), chain(four)),
            _ => panic!("{}: {one:?} and {four:?}", deb.display()),
        }
    }
    let failed = |at: usize| chain(one[at].as_ref().expect_err("fails"));
    assert!(failed(5).contains("no ar archive"), "{}", failed(5));
    assert!(failed(9).contains("absent.deb: cannot read it"), "{}", failed(9));
    let twice = failed(debs.len() - 1);
    assert!(twice.ends_with("p0.deb would be the same stone"), "{twice}");
    assert_eq!(one.iter().filter(|result| result.is_ok()).count(), 21);
    assert_eq!(place.stones(), other.stones());

    let names = |outcome: &Outcome| {
        outcome.metadata.depends.iter().map(|it| it.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(one[0].as_ref().unwrap()), ["p7"]);
    let again = convert(2, &place.to);
    assert!(again.iter().flatten().all(|outcome| outcome.was_there));
}

#[test]
fn devices_and_attributes_are_in_the_stone() {
    let place = Place::new();
    let data = Tar::new()
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n\0")])
        .file("./bin/ping", b"ping")
        .entry_with(b'3', "./dev/null", "", b"", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        });
    let deb = place.deb("a.deb", &deb(&control("a", "1-1"), data));
    let outcome = Converter::new("x86_64").convert(&deb, &place.to).expect("converts");
    let package = Package::open(&outcome.path).expect("a stone");
    let [null, ping] = &package.layout[..] else { panic!("two entries") };
    assert_eq!(null.content, LayoutContent::CharDevice);
    assert_eq!(null.extra.device, Some(cairn_store::tree::Device { major: 1, minor: 3 }));
    assert_eq!(&*ping.extra.xattrs[0].name, b"security.capability");
    assert_eq!(&*ping.extra.xattrs[0].value, b"\x01\0\0\x02\n\0");
}
