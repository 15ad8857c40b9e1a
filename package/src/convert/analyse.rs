//! What the files of a package offer to other packages.
//!
//! The rules are those of boulder's analysers, applied to the paths of a
//! merged root; docs/convert.md, "Providers", has them as a table. Nothing is
//! added to the dependencies: Debian has computed those already, from the same
//! sonames, and names packages in them.

use std::collections::BTreeSet;
use std::io::Read;

use cairn_store::name::Name;

use super::elf::{self, Elf};
use super::files::{BytesReader, Content, Files, Placed};
use crate::dependency::{Dependency, Kind};

/// What the files offer, without the name of the package.
pub(super) fn providers(files: &Files) -> BTreeSet<Dependency> {
    let mut found = BTreeSet::new();
    for entry in &files.entries {
        let Some(path) = below_usr(entry) else { continue };
        of_name(&path, &mut found);
        if let Content::File(bytes) = &entry.content {
            of_bytes(&path, files.reader(bytes), &mut found);
        }
    }
    found
}

/// The names below `/usr`, if it is all UTF-8, as it is when it comes out of an
/// archive, and not a directory.
fn below_usr(entry: &Placed) -> Option<Vec<&str>> {
    let (top, names) = entry.path.names().split_first()?;
    let is_leaf = matches!(entry.content, Content::File(_) | Content::Symlink(_));
    let text = |name| str::from_utf8(Name::as_bytes(name)).ok();
    if top.as_bytes() == b"usr" && is_leaf { names.iter().map(text).collect() } else { None }
}

/// What the name of a file or link alone offers.
fn of_name(path: &[&str], found: &mut BTreeSet<Dependency>) {
    let Some((name, directories)) = path.split_last() else { return };
    match directories {
        ["bin", ..] => _ = found.insert(Dependency::new(Kind::Binary, *name)),
        ["sbin", ..] => _ = found.insert(Dependency::new(Kind::SysBinary, *name)),
        _ => {}
    }
    let is_pkgconfig = directories.contains(&"pkgconfig");
    if let Some(stem) = name.strip_suffix(".pc").filter(|_| is_pkgconfig) {
        let is_32 = directories.contains(&"lib32");
        let kind = if is_32 { Kind::PkgConfig32 } else { Kind::PkgConfig };
        found.insert(Dependency::new(kind, stem));
    }
    if let Some(stem) = cmake_package(name) {
        found.insert(Dependency::new(Kind::Cmake, stem));
    }
}

/// What the bytes of a regular file offer.
fn of_bytes(path: &[&str], bytes: BytesReader<'_>, found: &mut BTreeSet<Dependency>) {
    let Some((name, directories)) = path.split_last() else { return };
    let parent = directories.last().copied().unwrap_or_default();
    if name.contains(".so") && !name.ends_with(".debug") {
        if let Some(elf) = elf::read(bytes) {
            of_library(path, &elf, found);
        }
    } else if (*name == "METADATA" && parent.ends_with(".dist-info"))
        || (*name == "PKG-INFO" && parent.ends_with(".egg-info"))
    {
        found.extend(python_distribution(bytes).map(|text| Dependency::new(Kind::Python, text)));
    }
}

/// The package of `FooConfig.cmake` and `foo-config.cmake`.
fn cmake_package(name: &str) -> Option<&str> {
    let stem = name
        .strip_suffix("-config.cmake")
        .or_else(|| name.strip_suffix("Config.cmake").filter(|stem| !stem.ends_with('-')));
    stem.filter(|stem| !stem.is_empty())
}

/// The normalised name of a Python distribution, as in PEP 503.
fn python_distribution(metadata: impl Read) -> Option<String> {
    let mut head = Vec::new();
    // Its name is one of the first lines.
    metadata.take(64 << 10).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    let name = head.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case("Name").then(|| value.trim())
    })?;
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("-").to_lowercase();
    Some(name).filter(|name| !name.is_empty())
}

/// A shared library offers its soname, and the dynamic loader itself under all
/// the paths by which programs may know it.
fn of_library(path: &[&str], elf: &Elf, found: &mut BTreeSet<Dependency>) {
    let Some((name, _)) = path.split_last() else { return };
    if !elf.is_shared {
        return;
    }
    let soname = elf.soname.as_deref().unwrap_or(name);
    let directory = below_libraries(path);
    let text = [directory.as_slice(), &[soname]].concat().join("/");
    found.insert(Dependency::new(Kind::Soname, format!("{text}({})", elf.isa)));

    if path.first() == Some(&"lib") && soname.starts_with("ld-") {
        let own = format!("/usr/{}", path.join("/"));
        let well_known: [&str; 3] = if elf.is_64 {
            ["/usr/lib64", "/lib64", "/lib"]
        } else {
            ["/usr/lib", "/lib32", "/lib"]
        };
        let paths = well_known.iter().map(|directory| format!("{directory}/{soname}"));
        for path in paths.chain([own]) {
            let text = format!("{path}({})", elf.isa);
            found.insert(Dependency::new(Kind::Interpreter, text.as_str()));
            found.insert(Dependency::new(Kind::Soname, text));
        }
    }
}

/// The directories of a library below the one where loaders look: none for
/// `lib/libz.so.1` and for `lib/x86_64-linux-gnu/libz.so.1`.
fn below_libraries<'a>(path: &[&'a str]) -> Vec<&'a str> {
    let directories = &path[1.min(path.len())..path.len().saturating_sub(1)];
    match directories.split_first() {
        Some((first, rest)) if path[0] == "lib" && is_multiarch(first) => rest.to_vec(),
        _ => directories.to_vec(),
    }
}

/// Whether Debian has libraries of one architecture in a directory of this
/// name, such as `x86_64-linux-gnu` or `arm-linux-gnueabihf`.
fn is_multiarch(name: &str) -> bool {
    let rest = name.split_once("-linux-").map(|(_, system)| system);
    rest.is_some_and(|system| system.starts_with("gnu") || system.starts_with("musl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Vec<&str> {
        path.split('/').collect()
    }

    #[test]
    fn names_alone_offer_programs_and_packages() {
        let check = |path: &str, expected: Option<&str>| {
            let mut found = BTreeSet::new();
            of_name(&split(path), &mut found);
            let found = found.first().map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{path}");
        };
        check("bin/nano", Some("binary(nano)"));
        check("bin/perl/x", Some("binary(x)"));
        check("sbin/ldconfig", Some("sysbinary(ldconfig)"));
        check("bin", None);
        check("lib/bin/x", None);
        check("lib/x86_64-linux-gnu/pkgconfig/zlib.pc", Some("pkgconfig(zlib)"));
        check("share/pkgconfig/a.b.pc", Some("pkgconfig(a.b)"));
        check("lib32/pkgconfig/zlib.pc", Some("pkgconfig32(zlib)"));
        check("share/doc/zlib.pc", None);
        check("lib/cmake/fmt/fmt-config.cmake", Some("cmake(fmt)"));
    }

    #[test]
    fn libraries_are_named_by_soname_and_directory() {
        let elf = |soname: Option<&str>| Elf {
            isa: "x86_64",
            is_64: true,
            is_shared: true,
            soname: soname.map(Into::into),
        };
        let check = |path: &str, elf: &Elf, expected: &[&str]| {
            let mut found = BTreeSet::new();
            of_library(&split(path), elf, &mut found);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{path}");
        };
        let libz = elf(Some("libz.so.1"));
        check("lib/x86_64-linux-gnu/libz.so.1.2.13", &libz, &["soname(libz.so.1(x86_64))"]);
        check("lib/libz.so.1", &libz, &["soname(libz.so.1(x86_64))"]);
        check("lib64/libz.so.1", &libz, &["soname(libz.so.1(x86_64))"]);
        check("lib/foo/libz.so.1", &libz, &["soname(foo/libz.so.1(x86_64))"]);
        let plugin = elf(None);
        check("lib/x86_64-linux-gnu/a/b/p.so", &plugin, &["soname(a/b/p.so(x86_64))"]);
        check("lib/a.so", &Elf { is_shared: false, ..plugin }, &[]);
        let loader = elf(Some("ld-linux-x86-64.so.2"));
        check(
            "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            &loader,
            &[
                "interpreter(/lib/ld-linux-x86-64.so.2(x86_64))",
                "interpreter(/lib64/ld-linux-x86-64.so.2(x86_64))",
                "interpreter(/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2(x86_64))",
                "interpreter(/usr/lib64/ld-linux-x86-64.so.2(x86_64))",
                "soname(/lib/ld-linux-x86-64.so.2(x86_64))",
                "soname(/lib64/ld-linux-x86-64.so.2(x86_64))",
                "soname(/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2(x86_64))",
                "soname(/usr/lib64/ld-linux-x86-64.so.2(x86_64))",
                "soname(ld-linux-x86-64.so.2(x86_64))",
            ],
        );
    }

    #[test]
    fn cmake_packages_are_named_by_their_file() {
        let check = |name: &str, expected| assert_eq!(cmake_package(name), expected, "{name}");
        check("ZLIBConfig.cmake", Some("ZLIB"));
        check("fmt-config.cmake", Some("fmt"));
        check("x-Config.cmake", None);
        check("Config.cmake", None);
        check("FooConfigVersion.cmake", None);
    }

    #[test]
    fn python_names_are_normalised() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(python_distribution(text.as_bytes()).as_deref(), expected, "{text}");
        };
        check("Metadata-Version: 2.1\nName: Foo__bar.Baz\nVersion: 1\n", Some("foo-bar-baz"));
        check("Version: 1\n\nName: hidden\n", None);
        check("Name: ._\n", None);
    }
}
