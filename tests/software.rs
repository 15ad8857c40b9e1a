//! Real software of each build system, from its upstream archive to a program that
//! runs in a state: drafted, changed where a packager would, built in a root of
//! converted Debian packages, compared with `objdump` and with what Debian's own
//! packages of it declare, and installed.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_tests::builder::{Builder, Built, objdump, sonames, texts};
use cairn_tests::{Kind, Listing, real};

/// What is built, and what must come of it.
#[derive(Clone, Copy, Default)]
struct Project {
    /// Debian's name of the source; with a version, the name of a crate.
    source: &'static str,
    version: &'static str,
    /// What a packager changes in the draft.
    edits: &'static [(&'static str, &'static str)],
    /// Packages that the edits give all paths that begin so, beside those by the
    /// templates.
    splits: &'static [(&'static str, &'static str)],
    /// Some paths, with their packages.
    files: &'static [(&'static str, &'static str)],
    /// Packages, with Debian's packages of the same files.
    debian: &'static [(&'static str, &'static str)],
    /// What is installed, run, and what that has to say.
    install: &'static str,
    run: &'static [&'static str],
    says: &'static str,
}

/// The toolchain of Debian 12; all recipes have it.
const GNU: (&str, &str) = ("release: 1\n", "release: 1\ntoolchain: gnu\n");

#[test]
#[ignore = "many minutes: make recipes"]
fn zlib_with_a_configure_of_its_own() {
    prove(&Project {
        source: "zlib",
        files: &[
            ("usr/lib/libz.so.1", "zlib"),
            ("usr/lib/libz.so", "zlib-devel"),
            ("usr/lib/libz.a", "zlib-devel"),
            ("usr/include/zlib.h", "zlib-devel"),
            ("usr/lib/pkgconfig/zlib.pc", "zlib-devel"),
            ("usr/share/man/man3/zlib.3", "zlib-devel"),
        ],
        debian: &[("zlib", "zlib1g")],
        install: "zlib",
        run: &["/lib64/ld-linux-x86-64.so.2", "--list", "/usr/lib/libz.so.1"],
        says: "libc.so.6 => ",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn nano_with_autotools_and_ncurses() {
    prove(&Project {
        source: "nano",
        edits: &[(
            "toolchain: gnu\n",
            "toolchain: gnu\npackages:\n    - \"%(name)-docs\":\n        \
             paths: [/usr/share/doc, /usr/share/info]\n",
        )],
        splits: &[("usr/share/doc/", "nano-docs"), ("usr/share/info/", "nano-docs")],
        files: &[
            ("usr/bin/nano", "nano"),
            ("usr/share/nano/rust.nanorc", "nano"),
            ("usr/share/man/man1/nano.1", "nano"),
            ("usr/share/locale/de/LC_MESSAGES/nano.mo", "nano"),
            ("usr/share/doc/nano/nano.html", "nano-docs"),
            ("usr/share/info/nano.info", "nano-docs"),
        ],
        debian: &[("nano", "nano")],
        install: "nano",
        run: &["nano", "--version"],
        says: "GNU nano, version 7.2",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn fmt_with_cmake_and_cxx() {
    prove(&Project {
        source: "fmtlib",
        edits: &[
            // Debian's name of the archive; its files tell no page.
            ("(write its homepage)", "https://fmt.dev"),
            ("name: fmtlib\n", "name: fmt\n"),
            // The archive, as Debian keeps it, lacks gtest.
            ("-DBUILD_SHARED_LIBS=ON", "-DBUILD_SHARED_LIBS=ON -DFMT_TEST=OFF"),
        ],
        files: &[
            ("usr/lib/libfmt.so.9", "fmt"),
            ("usr/lib/libfmt.so", "fmt-devel"),
            ("usr/include/fmt/core.h", "fmt-devel"),
            ("usr/lib/pkgconfig/fmt.pc", "fmt-devel"),
            ("usr/lib/cmake/fmt/fmt-config.cmake", "fmt-devel"),
        ],
        debian: &[("fmt", "libfmt9")],
        install: "fmt",
        run: &["/lib64/ld-linux-x86-64.so.2", "--list", "/usr/lib/libfmt.so.9"],
        says: "libstdc++.so.6 => ",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn fribidi_with_meson_and_its_tests() {
    prove(&Project {
        source: "fribidi",
        edits: &[
            // Debian has no c2man, which the manual pages are made with.
            ("    %meson\n", "    %meson -Ddocs=false\n"),
            (
                "toolchain: gnu\n",
                "toolchain: gnu\npackages:\n    - \"%(name)-libs\":\n        \
                 paths: [/usr/lib/libfribidi.so.*]\n    - \"%(name)-devel\":\n        \
                 rundeps: [\"%(name)-libs\"]\n",
            ),
        ],
        splits: &[("usr/lib/libfribidi.so.", "fribidi-libs")],
        files: &[
            ("usr/bin/fribidi", "fribidi"),
            ("usr/lib/libfribidi.so.0", "fribidi-libs"),
            ("usr/lib/libfribidi.so", "fribidi-devel"),
            ("usr/include/fribidi/fribidi.h", "fribidi-devel"),
            ("usr/lib/pkgconfig/fribidi.pc", "fribidi-devel"),
        ],
        debian: &[("fribidi", "libfribidi-bin"), ("fribidi-libs", "libfribidi0")],
        install: "fribidi",
        run: &["fribidi", "--version"],
        says: "fribidi (GNU FriBidi) 1.0.8",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn jinja_with_setup_py() {
    prove(&Project {
        source: "jinja2",
        edits: &[("toolchain: gnu\n", "toolchain: gnu\nrundeps: [python3]\n")],
        files: &[("usr/lib/python3/dist-packages/jinja2/nodes.py", "jinja2")],
        debian: &[("jinja2", "python3-jinja2")],
        install: "jinja2",
        run: &[
            "python3",
            "-c",
            "import jinja2; print(jinja2.Template('{{ x|e }}').render(x='<a>'))",
        ],
        says: "&lt;a&gt;",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn rich_with_pyproject_toml() {
    prove(&Project {
        source: "rich",
        edits: &[("toolchain: gnu\n", "toolchain: gnu\nrundeps: [python3]\n")],
        files: &[("usr/lib/python3/dist-packages/rich/console.py", "rich")],
        debian: &[("rich", "python3-rich")],
        install: "rich",
        run: &[
            "python3",
            "-c",
            "import rich, rich.markdown as m; rich.print(m.Markdown('# Title'))",
        ],
        says: "Title",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn godotenv_with_go() {
    prove(&Project {
        source: "golang-github-joho-godotenv",
        files: &[("usr/bin/godotenv", "godotenv")],
        install: "godotenv",
        run: &["godotenv", "-h"],
        says: "Run a process with an env setup from a .env file",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn clone_with_makefile_pl() {
    prove(&Project {
        source: "libclone-perl",
        edits: &[(
            "toolchain: gnu\n",
            "toolchain: gnu\nbuilddeps: [libperl-dev]\ncheckdeps: [libb-cow-perl]\n\
             rundeps: [perl, perlapi-5.36.0]\n",
        )],
        files: &[
            ("usr/lib/x86_64-linux-gnu/perl5/5.36/auto/Clone/Clone.so", "perl-clone"),
            ("usr/share/man/man3/Clone.3pm", "perl-clone-devel"),
        ],
        debian: &[("perl-clone", "libclone-perl")],
        install: "perl-clone",
        run: &["perl", "-MClone=clone", "-e", "print clone([1, 2])->[1] + 40"],
        says: "42",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn cmark_with_cmake_and_c() {
    prove(&Project {
        source: "cmark",
        files: &[
            ("usr/bin/cmark", "cmark"),
            ("usr/lib/libcmark.so.0.30.2", "cmark"),
            ("usr/lib/libcmark.so", "cmark-devel"),
            ("usr/include/cmark.h", "cmark-devel"),
            ("usr/lib/pkgconfig/libcmark.pc", "cmark-devel"),
            ("usr/share/man/man1/cmark.1", "cmark"),
            ("usr/share/man/man3/cmark.3", "cmark-devel"),
        ],
        debian: &[("cmark", "cmark")],
        install: "cmark",
        run: &["cmark", "/proc/sys/kernel/ostype"],
        says: "<p>Linux</p>",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn hexyl_with_cargo_and_crates_beside_it() {
    prove(&Project {
        source: "hexyl",
        version: "0.8.0",
        files: &[("usr/bin/hexyl", "hexyl")],
        debian: &[("hexyl", "hexyl")],
        install: "hexyl",
        run: &["hexyl", "--color", "never", "--length", "4", "/usr/bin/hexyl"],
        says: "7f 45 4c 46",
        ..Project::default()
    });
}

#[test]
#[ignore = "many minutes: make recipes"]
fn a_crate_goes_to_its_next_release() {
    let Some(old) = real::released_crate("hexyl", "0.7.0") else { return };
    let Some(new) = real::released_crate("hexyl", "0.8.0") else { return };
    let crates = ["-vendor.tar.gz:\n        hash: ", ".crate: "];
    goes_to(&old, &new, "0.8.0", &crates, &["hexyl", "--version"], "hexyl 0.8.0");
}

#[test]
#[ignore = "many minutes: make recipes"]
fn a_project_of_python_goes_to_its_next_release() {
    let (old, new) = (real::source("rich"), real::source_of("trixie", "rich"));
    let (Some(old), Some(new)) = (old, new) else { return };
    let run = ["python3", "-c", "import importlib.metadata as m; print('is', m.version('rich'))"];
    goes_to(&[old], &[new], "13.9.4", &[".orig.tar.xz: "], &run, "is 13.9.4");
}

/// Drafts a recipe of old archives, writes comments into it, updates it to the new ones,
/// of which each has what `ends` says behind its version, and builds that.
fn goes_to(
    old: &[PathBuf],
    new: &[PathBuf],
    version: &str,
    ends: &[&str],
    run: &[&str],
    says: &str,
) {
    let Some(world) = Builder::with(real::software_repository) else { return };
    let here = |path: &PathBuf| {
        let to = world.path(path.file_name().unwrap().to_str().unwrap());
        fs::copy(path, &to).unwrap();
        to
    };
    let old: Vec<PathBuf> = old.iter().map(here).collect();
    let new: Vec<PathBuf> = new.iter().map(here).collect();
    let text = world.draft(&old.iter().map(PathBuf::as_path).collect::<Vec<_>>(), "recipe");
    let before = text.lines().find_map(|it| it.strip_prefix("version: \"")).unwrap();
    let before = before.trim_end_matches('"');
    world.edit("recipe", GNU.0, GNU.1);
    world.edit("recipe", "release: 1\n", "release  :   1   # of this version\n\n# Kept.\n");
    let mut changes = vec![
        (format!("version: \"{before}\""), format!("version: \"{version}\"")),
        ("release  :   1 ".into(), "release  :   2 ".into()),
    ];
    for end in ends {
        let hash = |archives: &[PathBuf]| {
            let file = end.split(':').next().unwrap();
            let archive = archives.iter().find(|it| it.to_str().unwrap().ends_with(file)).unwrap();
            cairn_tests::builder::sha256(archive)
        };
        let change = |version: &str, archives| format!("{version}{end}{}", hash(archives));
        changes.push((change(before, &old), change(version, &new)));
    }
    let changes: Vec<(&str, &str)> = changes.iter().map(|(a, b)| (&**a, &**b)).collect();
    world.update("recipe", version, &changes);

    let built = world.build(&["recipe", "--no-check", "--to", "local"]);
    assert_eq!((built.version(), built.0["release"].as_u64()), (version, Some(2)));
    let name = built.0["recipe"].as_str().unwrap();
    world.cairn.data(["-y", "install", name]);
    let said = world.cairn.data([&["run", "--"], run].concat());
    assert!(said.contains(says), "{run:?}: {said}");
}

/// Takes a project all the way, unless this machine cannot.
fn prove(project: &Project) {
    let archives = if project.version.is_empty() {
        real::source(project.source).map(|it| vec![it])
    } else {
        real::released_crate(project.source, project.version)
    };
    let (Some(archives), Some(world)) = (archives, Builder::with(real::software_repository)) else {
        return;
    };
    let archives: Vec<&Path> = archives.iter().map(PathBuf::as_path).collect();
    world.draft(&archives, "recipe");
    for (from, to) in [&[GNU], project.edits].concat() {
        world.edit("recipe", from, to);
    }
    world.cairn.data(["recipe", "check", "recipe"]);
    let built = world.build(&["recipe", "--to", "local"]);
    world.assert_same_again("recipe", "local", &built);

    let trees: BTreeMap<&str, PathBuf> = built
        .names()
        .into_iter()
        .map(|name| (name, world.extracted(built.package(name))))
        .collect();
    assert_divided(project, &built, &trees);
    for (name, tree) in &trees {
        assert_libraries(&built, name, tree);
    }
    assert_debug_information(&trees);

    world.cairn.data(["-y", "install", project.install]);
    let said = world.cairn.data([&["run", "--"], project.run].concat());
    assert!(said.contains(project.says), "{:?}: {said}", project.run);
    assert_needs_what_debian_declares(project, &world);
}

/// Each file lies in the package in which it is looked for.
fn assert_divided(project: &Project, built: &Built, trees: &BTreeMap<&str, PathBuf>) {
    let main = built.0["recipe"].as_str().unwrap();
    let mut places = BTreeMap::new();
    for (name, tree) in trees {
        for (path, entry) in Listing::of_directory(tree).0 {
            let path = String::from_utf8(path).unwrap();
            if entry.kind != Kind::Directory {
                let suffix = suffix_of(&path);
                let split = project.splits.iter().find(|(prefix, _)| path.starts_with(prefix));
                let expected = match split {
                    Some((_, package)) => (*package).to_owned(),
                    None => format!("{main}{suffix}"),
                };
                assert_eq!(**name, expected, "the package of {path}");
                places.insert(path, *name);
            }
        }
    }
    if let Some(devel) = built.packages().find(|it| it["name"] == format!("{main}-devel")) {
        assert!(texts(&devel["depends"]).contains(main), "{devel}");
    }
    for (path, package) in project.files {
        assert_eq!(places.get(*path), Some(package), "the package of {path}");
    }
}

/// What the template's package of a path is called, behind the name of the recipe.
fn suffix_of(path: &str) -> &'static str {
    let file = path.rsplit('/').next().unwrap_or(path);
    let is_library = path == format!("usr/lib/{file}") && file.starts_with("lib");
    let directories =
        ["usr/include/", "usr/lib/cmake/", "usr/lib/pkgconfig/", "usr/share/man/man3/"];
    if path.starts_with("usr/lib/debug/") {
        "-dbginfo"
    } else if directories.iter().any(|it| path.starts_with(it))
        || is_library && (file.ends_with(".so") || file.ends_with(".a"))
    {
        "-devel"
    } else {
        ""
    }
}

/// The ELF files of a tree that were linked, but those of debug information.
fn elf_files(tree: &Path) -> Vec<PathBuf> {
    let files = Listing::of_directory(tree).0.into_iter();
    let files = files.filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
    let paths = files.map(|(path, _)| tree.join(String::from_utf8(path).unwrap()));
    let is_elf = |path: &PathBuf| fs::read(path).unwrap().starts_with(b"\x7fELF");
    paths.filter(|path| is_elf(path) && !path.starts_with(tree.join("usr/lib/debug"))).collect()
}

/// What a package needs and offers of libraries is what `objdump` says; libraries
/// outside of the loader's directories are named with theirs.
fn assert_libraries(built: &Built, name: &str, tree: &Path) {
    let dumps: Vec<String> = elf_files(tree).iter().map(|it| objdump("-p", it)).collect();
    let all = |tag: &str| -> BTreeSet<String> {
        dumps.iter().flat_map(|dump| sonames(dump, tag)).collect()
    };
    let offered = all("SONAME");
    let needed: BTreeSet<String> = all("NEEDED").difference(&offered).cloned().collect();
    let package = built.package(name);
    for (key, expected) in [("provides", offered), ("depends", needed)] {
        let is_public = |it: &&str| it.starts_with("soname(") && !it.contains('/');
        let found = texts(&package[key]).into_iter().filter(is_public);
        let found: BTreeSet<String> = found.map(ToOwned::to_owned).collect();
        assert_eq!(found, expected, "{key} of {name}");
    }
}

/// Debug information is split off, and found again by the build id.
fn assert_debug_information(trees: &BTreeMap<&str, PathBuf>) {
    for file in trees.values().flat_map(|tree| elf_files(tree)) {
        let notes = Command::new("readelf").arg("-n").arg(&file).output().unwrap();
        let notes = String::from_utf8(notes.stdout).unwrap();
        let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
        let id = id.unwrap_or_else(|| panic!("{} has no build id", file.display()));
        let path = format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
        let debug: Vec<PathBuf> =
            trees.values().map(|it| it.join(&path)).filter(|it| it.exists()).collect();
        let [debug] = debug.as_slice() else { panic!("{path} of {}: {debug:?}", file.display()) };
        assert!(!objdump("-h", &file).contains(".debug_info"), "{}", file.display());
        assert!(objdump("-h", debug).contains(".debug_info"), "{}", debug.display());
    }
}

/// What satisfies the needs of a package are the packages that Debian's has in `Depends`,
/// one of each alternatives.
fn assert_needs_what_debian_declares(project: &Project, world: &Builder) {
    let index = real::index();
    for (name, debian) in project.debian {
        let shown = world.cairn.json(["depends", "--depth", "1", name]);
        let below = shown["below"].as_array().unwrap().iter();
        let found: BTreeSet<&str> = below.map(|it| it["name"].as_str().unwrap()).collect();
        let declared = declared(&index, debian);
        let ours = |declared: &str| {
            let known = project.debian.iter().find(|(_, debian)| *debian == declared);
            found.get(known.map_or(declared, |(name, _)| name)).copied()
        };
        let wanted: Vec<BTreeSet<&str>> =
            declared.iter().map(|any| any.iter().filter_map(|it| ours(it)).collect()).collect();
        let explained: BTreeSet<&str> = wanted.iter().flatten().copied().collect();
        let is_met = wanted.iter().all(|any| !any.is_empty());
        assert!(is_met && explained == found, "{name} needs {found:?}, {debian} {declared:?}");
    }
}

/// The names in the `Depends` of a package, with their alternatives; of a virtual
/// package those that provide it.
fn declared(index: &str, package: &str) -> Vec<Vec<String>> {
    let paragraphs: BTreeMap<&str, &str> = index
        .split("\n\n")
        .filter_map(|it| Some((it.strip_prefix("Package: ")?.lines().next()?, it)))
        .collect();
    let list = |package: &str, field: &str| {
        let line = paragraphs[package].lines().find_map(|line| line.strip_prefix(field));
        line.unwrap_or_default().split(',').filter(|it| !it.trim().is_empty())
    };
    let name = |text: &str| {
        let end = |c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c);
        text.trim().split(end).next().unwrap_or_default().to_owned()
    };
    let real = |wanted: String| -> Vec<String> {
        if paragraphs.contains_key(wanted.as_str()) {
            return vec![wanted];
        }
        let provides = |it: &&str| list(it, "Provides: ").any(|it| name(it) == wanted);
        paragraphs.keys().copied().filter(provides).map(ToOwned::to_owned).collect()
    };
    assert!(paragraphs.contains_key(package), "{package} is not in Debian");
    list(package, "Depends: ")
        .map(|any| any.split('|').map(name).flat_map(real).collect())
        .collect()
}
