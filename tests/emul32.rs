//! A library for the 32-bit emulation beside that for the machine: from one recipe to
//! packages whose loader finds what they need.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;

use cairn_tests::builder::{Builder, objdump, texts};
use cairn_tests::real;

/// What a packager writes of it, behind `toolchain: gnu`.
const EMUL32: &str = "emul32: true
profiles:
    - emul32:
        install: |
            %make_install
            install -D -m644 README %(installroot)%(libdir)/README
";

#[test]
#[ignore = "many minutes: make recipes"]
fn zlib_for_the_machine_and_for_its_32_bit_emulation() {
    let Some(archive) = real::source("zlib") else { return };
    let Some(world) = Builder::with(real::software_repository) else { return };
    world.draft(&[&archive], "recipe");
    world.edit("recipe", "release: 1\n", &format!("release: 1\ntoolchain: gnu\n{EMUL32}"));
    world.cairn.data(["recipe", "check", "recipe"]);
    let built = world.build(&["recipe", "--to", "local"]);
    world.assert_same_again("recipe", "local", &built);
    assert_eq!(
        built.names(),
        [
            "zlib",
            "zlib-32bit",
            "zlib-32bit-dbginfo",
            "zlib-32bit-devel",
            "zlib-dbginfo",
            "zlib-devel"
        ]
    );
    let version = built.version();
    let has = |name: &str, path: &str| {
        let files = world.path(&format!("{name}-files"));
        if !files.exists() {
            let stone = built.package(name)["stone"].as_str().unwrap();
            world.cairn.data(["extract", stone, "--to", files.to_str().unwrap()]);
        }
        let file = files.join(path);
        assert!(file.symlink_metadata().is_ok(), "{path} is not in {name}");
        file
    };
    has("zlib-32bit", "usr/lib32/libz.so.1");
    has("zlib-32bit", "usr/lib32/README");
    has("zlib-32bit-devel", "usr/lib32/libz.so");
    has("zlib-32bit-devel", "usr/lib32/libz.a");
    has("zlib-32bit-devel", "usr/lib32/pkgconfig/zlib.pc");
    has("zlib-32bit-dbginfo", "usr/lib32/debug/.build-id");
    has("zlib-dbginfo", "usr/lib/debug/.build-id");
    has("zlib-devel", "usr/include/zlib.h");
    let own = has("zlib", &format!("usr/lib/libz.so.{version}"));
    let emulated = has("zlib-32bit", &format!("usr/lib32/libz.so.{version}"));
    assert!(objdump("-f", &own).contains("elf64-x86-64"));
    assert!(objdump("-f", &emulated).contains("elf32-i386"));

    let list = |name: &str, key: &str| -> BTreeSet<String> {
        texts(&built.package(name)[key]).into_iter().map(ToOwned::to_owned).collect()
    };
    let of = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(list("zlib-32bit", "provides"), of(&["soname(libz.so.1(386))"]));
    assert_eq!(list("zlib-32bit", "depends"), of(&["soname(libc.so.6(386))", "zlib"]));
    assert_eq!(list("zlib-32bit-devel", "provides"), of(&["pkgconfig32(zlib)"]));
    assert_eq!(list("zlib-32bit-devel", "depends"), of(&["zlib-32bit", "zlib-devel"]));

    // Its loader finds what it needs.
    world.cairn.data(["-y", "install", "zlib-32bit"]);
    let loader = ["run", "--", "/lib/ld-linux.so.2", "--library-path", "/usr/lib32", "--list"];
    let said = world.cairn.data([&loader[..], &["/usr/lib32/libz.so.1"]].concat());
    assert!(said.contains("libc.so.6 => /usr/lib32/libc.so.6"), "{said}");
}
