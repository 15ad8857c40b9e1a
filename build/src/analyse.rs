//! What the files of a build offer and need, each in its package.
//!
//! | file | offers | needs |
//! |---|---|---|
//! | below /usr/bin, /usr/sbin | `binary`, `sysbinary` | |
//! | ELF | `soname`, `interpreter` of a loader | `soname` of each library, `interpreter` |
//! | pkg-config | `pkgconfig`, `pkgconfig32` | the same of what it requires |
//! | Python distribution | `python` | `python` of what it requires |
//! | CMake package | `cmake` | |
//!
//! What lies outside of /usr, and libtool's `.la` files, is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use cairn_package::analyse::{self, Elf, PythonEnvironment};
use cairn_package::{Dependency, Kind};

use crate::collect::{Found, FoundKind};
use crate::error::{Error, Result};
use crate::package::Definitions;
use crate::recipe::Options;

/// What is known of the system for which packages are made.
pub trait BuildRoot {
    /// Whether a file is at an absolute path of the build root.
    fn has(&self, path: &str) -> bool;
    /// The text of the symbolic link at an absolute path of the build root.
    fn link(&self, path: &str) -> Option<String>;
}

/// Nothing but what was built.
impl BuildRoot for () {
    fn has(&self, _: &str) -> bool {
        false
    }

    fn link(&self, _: &str) -> Option<String> {
        None
    }
}

/// What a package has, offers and needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its files, in the order in which they were collected.
    pub files: Vec<Found>,
    /// Without its own name.
    pub provides: BTreeSet<Dependency>,
    /// Without what it offers itself.
    pub depends: BTreeSet<Dependency>,
}

/// The files of a build, divided among packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// Packages that have files, by name.
    pub packages: BTreeMap<String, Contents>,
    /// Files that become part of no package, and why.
    pub dropped: Vec<(String, Dropped)>,
    /// Numbers of the rules that were used.
    pub used_rules: BTreeSet<usize>,
}

/// Why a file becomes part of no package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dropped {
    /// It lies outside of /usr, where packages have nothing.
    OutsideOfUsr,
    /// It is one of libtool's `.la` files.
    Libtool,
    /// No rule is about it.
    NoPackage,
}

/// Divides `files` among the packages, and finds what these offer and need.
///
/// # Errors
/// [`Error::Io`]: a file cannot be read.
pub fn analyse(
    files: Vec<Found>,
    definitions: &Definitions,
    options: &Options,
    root: &dyn BuildRoot,
) -> Result<Analysis> {
    let mut analysis = Analysis::default();
    let installed: BTreeSet<String> = files.iter().map(|file| file.text.clone()).collect();
    let there = |path: &str| installed.contains(path) || root.has(path);
    let python = python_of(root);
    for file in files {
        if let Some(reason) = dropped(&file, options) {
            analysis.dropped.push((file.text, reason));
            continue;
        }
        let Some((package, rule)) = definitions.package_of(&file) else {
            analysis.dropped.push((file.text, Dropped::NoPackage));
            continue;
        };
        analysis.used_rules.insert(rule);
        let contents = analysis.packages.entry(package.to_owned()).or_default();
        of_file(&file, &there, &python, contents)?;
        contents.files.push(file);
    }
    for (name, contents) in &mut analysis.packages {
        let definition = &definitions.packages[name];
        contents.provides.retain(|found| !definition.excludes_provider(found));
        let own = contents.provides.clone();
        contents
            .depends
            .retain(|found| !own.contains(found) && !definition.excludes_dependency(found));
    }
    Ok(analysis)
}

fn dropped(file: &Found, options: &Options) -> Option<Dropped> {
    let Some(path) = file.below_usr() else { return Some(Dropped::OutsideOfUsr) };
    let is_libtool =
        matches!(path.as_slice(), ["lib" | "lib32", .., name] if name.ends_with(".la"));
    (is_libtool && options.lastrip).then_some(Dropped::Libtool)
}

fn of_file(
    file: &Found,
    there: &dyn Fn(&str) -> bool,
    python: &str,
    contents: &mut Contents,
) -> Result<()> {
    let Some(path) = file.below_usr() else { return Ok(()) };
    if !matches!(file.kind, FoundKind::File(_) | FoundKind::Symlink(_)) {
        return Ok(());
    }
    analyse::of_name(&path, &mut contents.provides);
    if !matches!(file.kind, FoundKind::File(_)) {
        return Ok(());
    }
    let open = || File::open(&file.source).map_err(Error::io(&file.source));
    if let Some(elf) = elf_of(file)? {
        of_elf(&path, &elf, there, contents);
    } else if analyse::pkgconfig_stem(&path).is_some() {
        let is_32 = path.contains(&"lib32");
        for name in analyse::pkgconfig_requirements(open()?) {
            let has_32 = is_32 && there(&format!("/usr/lib32/pkgconfig/{name}.pc"));
            let kind = if has_32 { Kind::PkgConfig32 } else { Kind::PkgConfig };
            contents.depends.insert(Dependency::new(kind, name));
        }
    } else if analyse::is_python_metadata(&path) {
        let name = analyse::python_distribution(open()?);
        contents.provides.extend(name.map(|name| Dependency::new(Kind::Python, name)));
        let needs = analyse::python_requirements(open()?, &python_environment(&path, python));
        contents.depends.extend(needs.into_iter().map(|name| Dependency::new(Kind::Python, name)));
    } else if analyse::is_python_egg_requires(&path) {
        let needs = analyse::python_egg_requirements(open()?, &python_environment(&path, python));
        contents.depends.extend(needs.into_iter().map(|name| Dependency::new(Kind::Python, name)));
    }
    Ok(())
}

/// An ELF file that is analysed: files of debug information are not.
pub(crate) fn elf_of(file: &Found) -> Result<Option<Elf>> {
    let Some(path) = file.below_usr() else { return Ok(None) };
    let is_debug =
        path.last().is_some_and(|name| name.ends_with(".debug")) && path.contains(&"debug");
    if is_debug || !matches!(file.kind, FoundKind::File(size) if size >= 52) {
        return Ok(None);
    }
    let opened = File::open(&file.source).map_err(Error::io(&file.source))?;
    Ok(analyse::elf::read(opened))
}

fn of_elf(path: &[&str], elf: &Elf, there: &dyn Fn(&str) -> bool, contents: &mut Contents) {
    // Objects that were not linked yet offer and need nothing.
    if elf.is_relocatable {
        return;
    }
    if path.last().is_some_and(|name| name.contains(".so")) {
        analyse::of_library(path, elf, &mut contents.provides);
    }
    if let Some(interpreter) = &elf.interpreter {
        let text = format!("{interpreter}({})", elf.isa);
        contents.depends.insert(Dependency::new(Kind::Interpreter, text));
    }
    let own = Path::new("/usr").join(path[..path.len() - 1].join("/"));
    for needed in &elf.needed {
        let search = std::iter::once(own.display().to_string())
            .chain(elf.run_path.iter().map(|it| expand_origin(it, &own)));
        let found = search.map(|directory| normalise(&format!("{directory}/{needed}")));
        let found = found.into_iter().find(|path| path.starts_with("/usr/") && there(path));
        let dependency = match &found {
            Some(found) => {
                let path: Vec<&str> = found["/usr/".len()..].split('/').collect();
                analyse::soname_at(&path, needed, elf)
            }
            None => Dependency::new(Kind::Soname, format!("{needed}({})", elf.isa)),
        };
        contents.depends.insert(dependency);
    }
}

fn expand_origin(directory: &str, own: &Path) -> String {
    let own = own.display().to_string();
    directory.replace("${ORIGIN}", &own).replace("$ORIGIN", &own)
}

/// Takes `.`, `..` and double slashes out of an absolute path, and leads through
/// the links of a merged root.
fn normalise(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => _ = names.pop(),
            name => names.push(name),
        }
    }
    let path = names.join("/");
    let is_merged = matches!(names.first(), Some(&("lib" | "lib32" | "lib64" | "bin" | "sbin")));
    if is_merged { format!("/usr/{path}") } else { format!("/{path}") }
}

/// The Python that is meant where neither a path nor the build root tells.
const USUAL_PYTHON: &str = "3.12";

/// The version of the build root's Python, for distributions that are not installed for
/// one of them: its link has it.
fn python_of(root: &dyn BuildRoot) -> String {
    let link = root.link("/usr/bin/python3");
    let program = link.as_deref().and_then(|it| it.rsplit('/').next());
    program.and_then(python_version).unwrap_or(USUAL_PYTHON).to_owned()
}

/// `python3.11`: `3.11`.
fn python_version(name: &str) -> Option<&str> {
    let version = name.strip_prefix("python")?;
    let is_version = version.split('.').all(|part| part.parse::<u32>().is_ok());
    (is_version && version.contains('.')).then_some(version)
}

/// The Python for which a distribution was installed, by its path; `usual` where that
/// does not tell.
fn python_environment(path: &[&str], usual: &str) -> PythonEnvironment {
    let version = path.iter().find_map(|name| python_version(name));
    PythonEnvironment {
        python_version: version.unwrap_or(usual).into(),
        machine: std::env::consts::ARCH.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::collect::collect;
    use crate::package::tests::definitions;

    const RECIPE: &str = "\
name: demo
version: 1
release: 1
homepage: https://example.org
license: MIT
install: x
rundeps-exclude: [zlib]
packages:
    - demo-devel:
        provides-exclude: [hidden]
";

    struct Root(&'static [&'static str]);

    impl BuildRoot for Root {
        fn has(&self, path: &str) -> bool {
            self.0.contains(&path)
        }

        fn link(&self, path: &str) -> Option<String> {
            let mut links = self.0.iter().filter_map(|it| it.split_once(" -> "));
            links.find(|(from, _)| *from == path).map(|(_, to)| to.to_owned())
        }
    }

    /// Analyses files with these contents.
    fn analysed(files: &[(&str, &[u8])], root: &Root) -> Analysis {
        let directory = tempfile::tempdir().expect("a directory");
        for (path, bytes) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            match bytes.strip_prefix(b"-> ") {
                Some(target) => symlink(str::from_utf8(target).expect("text"), path),
                None => fs::write(path, bytes),
            }
            .expect("a file");
        }
        let (recipe, definitions) = definitions(RECIPE);
        let files = collect(directory.path(), (0, 0)).expect("a list");
        analyse(files, &definitions, &recipe.options, root).expect("an analysis")
    }

    fn texts(set: &BTreeSet<Dependency>) -> Vec<String> {
        set.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn files_offer_and_need_what_the_specification_says() {
        let metadata = b"Name: Demo_Lib\nRequires-Dist: requests\nRequires-Dist: x; extra == 'y'\n";
        let analysis = analysed(
            &[
                ("usr/bin/demo", b"#!/bin/sh\n"),
                ("usr/bin/demo2", b"-> demo"),
                ("usr/sbin/demod", b""),
                ("usr/lib/pkgconfig/demo.pc", b"Requires: glib-2.0 >= 2, zlib\n"),
                ("usr/lib/pkgconfig/hidden.pc", b""),
                ("usr/lib/cmake/Demo/DemoConfig.cmake", b""),
                ("usr/lib32/pkgconfig/demo.pc", b"Requires: glib-2.0 other\n"),
                ("usr/lib/python3.11/site-packages/demo-1.dist-info/METADATA", metadata),
                ("usr/lib/python3/dist-packages/old.egg-info/requires.txt", b"six\n[x]\nno\n"),
                ("usr/share/doc/demo/requires.txt", b"no\n"),
                ("usr/lib/libdemo.la", b"# libtool"),
                ("etc/demo.conf", b"x"),
            ],
            &Root(&["/usr/lib32/pkgconfig/glib-2.0.pc"]),
        );
        let of = |name: &str| {
            let Contents { provides, depends, .. } = &analysis.packages[name];
            (texts(provides).join(" "), texts(depends).join(" "))
        };
        let main = "binary(demo) binary(demo2) python(demo-lib) sysbinary(demod)";
        assert_eq!(of("demo"), (main.into(), "python(requests) python(six)".into()));
        // The main package's patterns are about its own dependencies alone.
        let devel =
            ("cmake(Demo) pkgconfig(demo)".into(), "pkgconfig(glib-2.0) pkgconfig(zlib)".into());
        assert_eq!(of("demo-devel"), devel);
        let emul32 = ("pkgconfig32(demo)".into(), "pkgconfig(other) pkgconfig32(glib-2.0)".into());
        assert_eq!(of("demo-32bit-devel"), emul32);
        let dropped: Vec<_> =
            analysis.dropped.iter().map(|(path, why)| (path.as_str(), *why)).collect();
        assert_eq!(
            dropped,
            [("/etc/demo.conf", Dropped::OutsideOfUsr), ("/usr/lib/libdemo.la", Dropped::Libtool),]
        );
    }

    #[test]
    fn markers_are_about_the_python_of_the_path_or_of_the_build_root() {
        let metadata = b"Name: x\nRequires-Dist: old; python_version < '3.10'\n\
                         Requires-Dist: new; python_version >= '3.10'\n";
        let needs = |path: &str, root: &'static [&'static str]| {
            let analysis = analysed(&[(path, metadata)], &Root(root));
            texts(&analysis.packages["demo"].depends).join(" ")
        };
        let shared = "usr/lib/python3/dist-packages/x-1.dist-info/METADATA";
        assert_eq!(needs(shared, &["/usr/bin/python3 -> python3.9"]), "python(old)");
        assert_eq!(needs(shared, &["/usr/bin/python3 -> /usr/bin/python3.11"]), "python(new)");
        assert_eq!(needs(shared, &["/usr/bin/python3 -> snake"]), "python(new)");
        let own = "usr/lib/python3.11/site-packages/x-1.dist-info/METADATA";
        assert_eq!(needs(own, &["/usr/bin/python3 -> python3.9"]), "python(new)");
    }

    #[test]
    fn programs_need_their_libraries_and_their_loader() {
        let program = fs::read(std::env::current_exe().expect("a file")).expect("a program");
        let analysis = analysed(&[("usr/bin/demo", &program)], &Root(&[]));
        let depends = texts(&analysis.packages["demo"].depends);
        let isa = std::env::consts::ARCH;
        assert!(depends.contains(&format!("soname(libc.so.6({isa}))")), "{depends:?}");
        assert!(depends.iter().any(|it| it.starts_with("interpreter(/lib")), "{depends:?}");
    }

    #[test]
    fn private_libraries_are_named_by_their_directory() {
        let elf = Elf {
            isa: "x86_64",
            is_64: true,
            needed: ["liba.so", "libb.so", "libc.so.6", "libd.so"].map(Into::into).into(),
            run_path: ["$ORIGIN/../lib/demo", "/lib/x86_64-linux-gnu/more"].map(Into::into).into(),
            ..Elf::default()
        };
        let there = |path: &str| {
            ["/usr/lib/demo/liba.so", "/usr/bin/libb.so", "/usr/lib/x86_64-linux-gnu/more/libd.so"]
                .contains(&path)
        };
        let mut contents = Contents::default();
        of_elf(&["bin", "demo"], &elf, &there, &mut contents);
        assert_eq!(
            texts(&contents.depends),
            [
                "soname(demo/liba.so(x86_64))",
                "soname(libb.so(x86_64))",
                "soname(libc.so.6(x86_64))",
                "soname(more/libd.so(x86_64))",
            ]
        );
    }

    #[test]
    fn what_a_package_offers_itself_it_does_not_need() {
        let analysis = analysed(
            &[
                ("usr/lib/pkgconfig/a.pc", b"Requires: b\n"),
                ("usr/lib/pkgconfig/b.pc", b"Requires.private: c\n"),
            ],
            &Root(&[]),
        );
        assert_eq!(texts(&analysis.packages["demo-devel"].depends), ["pkgconfig(c)"]);
    }
}
