//! What files offer to other packages, and what they need of them.
//!
//! The rules are those of boulder's analysers, applied to the paths of a
//! merged root. Converted packages and built ones share them.

pub mod elf;
mod pkgconfig;
mod python;

use std::collections::BTreeSet;

use crate::dependency::{Dependency, Kind};

pub use elf::Elf;
pub use pkgconfig::requirements as pkgconfig_requirements;
pub use python::{
    Environment as PythonEnvironment, distribution as python_distribution,
    egg_requirements as python_egg_requirements, requirements as python_requirements,
};

/// What the name of a file or link alone offers; `path` has the names below
/// `/usr`.
pub fn of_name(path: &[&str], found: &mut BTreeSet<Dependency>) {
    let Some((name, directories)) = path.split_last() else { return };
    match directories {
        ["bin", ..] => _ = found.insert(Dependency::new(Kind::Binary, *name)),
        ["sbin", ..] => _ = found.insert(Dependency::new(Kind::SysBinary, *name)),
        _ => {}
    }
    if let Some(stem) = pkgconfig_stem(path) {
        let is_32 = directories.contains(&"lib32");
        let kind = if is_32 { Kind::PkgConfig32 } else { Kind::PkgConfig };
        found.insert(Dependency::new(kind, stem));
    }
    if let Some(stem) = cmake_package(name) {
        found.insert(Dependency::new(Kind::Cmake, stem));
    }
}

/// The name of a pkg-config file without its suffix, if the path is that of
/// one.
#[must_use]
pub fn pkgconfig_stem<'a>(path: &[&'a str]) -> Option<&'a str> {
    let (name, directories) = path.split_last()?;
    name.strip_suffix(".pc").filter(|_| directories.contains(&"pkgconfig"))
}

/// Whether a path is that of the metadata of a Python distribution.
#[must_use]
pub fn is_python_metadata(path: &[&str]) -> bool {
    match path {
        [.., parent, "METADATA"] => parent.ends_with(".dist-info"),
        [.., parent, "PKG-INFO"] => parent.ends_with(".egg-info"),
        _ => false,
    }
}

/// Whether a path is that of what a Python egg requires.
#[must_use]
pub fn is_python_egg_requires(path: &[&str]) -> bool {
    matches!(path, [.., parent, "requires.txt"] if parent.ends_with(".egg-info"))
}

/// Whether a file of this name can be a shared library.
#[must_use]
pub fn is_library_name(name: &str) -> bool {
    name.contains(".so") && !name.ends_with(".debug")
}

/// The package of `FooConfig.cmake` and `foo-config.cmake`.
fn cmake_package(name: &str) -> Option<&str> {
    let stem = name
        .strip_suffix("-config.cmake")
        .or_else(|| name.strip_suffix("Config.cmake").filter(|stem| !stem.ends_with('-')));
    stem.filter(|stem| !stem.is_empty())
}

/// What a shared library offers: its soname; and the dynamic loader itself
/// under all the paths by which programs may know it.
pub fn of_library(path: &[&str], elf: &Elf, found: &mut BTreeSet<Dependency>) {
    let Some((name, _)) = path.split_last() else { return };
    if !elf.is_shared {
        return;
    }
    let soname = elf.soname.as_deref().unwrap_or(name);
    found.insert(soname_at(path, soname, elf));

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

/// The dependency on a library that lies at `path` and has this soname.
#[must_use]
pub fn soname_at(path: &[&str], soname: &str, elf: &Elf) -> Dependency {
    let directory = below_libraries(path);
    let text = [directory.as_slice(), &[soname]].concat().join("/");
    Dependency::new(Kind::Soname, format!("{text}({})", elf.isa))
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
            ..Elf::default()
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
}
