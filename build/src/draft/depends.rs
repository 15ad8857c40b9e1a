//! What building a project needs, by what its build system's files ask for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

use super::System;
use super::facts;
use super::system::read;

/// As deep is looked for files of CMake and meson.
const MAX_DEPTH: usize = 4;
/// As many files are looked into.
const MAX_FILES: usize = 400;

/// Dependencies as recipes write them.
pub(super) fn find(root: &Path, system: System) -> BTreeSet<String> {
    match system {
        System::Autotools => {
            let text = ["configure.ac", "configure.in"].iter().find_map(|it| read(&root.join(it)));
            text.map(|text| autoconf(&text)).unwrap_or_default()
        }
        System::CMake => {
            texts(root, "CMakeLists.txt").iter().flat_map(|text| cmake(text)).collect()
        }
        System::Meson => texts(root, "meson.build").iter().flat_map(|text| meson(text)).collect(),
        System::Cargo => {
            read(&root.join("Cargo.lock")).map(|text| cargo(&text)).unwrap_or_default()
        }
        System::Python => {
            facts::toml(root, "pyproject.toml").map(|table| python(&table)).unwrap_or_default()
        }
        _ => BTreeSet::new(),
    }
}

/// The texts of all files of a name, but those of tests and examples.
fn texts(root: &Path, name: &str) -> Vec<String> {
    fn walk(directory: &Path, name: &str, depth: usize, found: &mut Vec<String>) {
        if found.len() >= MAX_FILES {
            return;
        }
        found.extend(read(&directory.join(name)));
        if depth == MAX_DEPTH {
            return;
        }
        let Ok(entries) = fs::read_dir(directory) else { return };
        let mut below: Vec<_> = entries.flatten().collect();
        below.sort_by_key(fs::DirEntry::file_name);
        for entry in below {
            let file = entry.file_name();
            let file = file.to_string_lossy().to_lowercase();
            let is_aside = ["test", "example", "bench", "doc", "fuzz", "subprojects", "third"]
                .iter()
                .any(|aside| file.starts_with(aside));
            if !is_aside && entry.file_type().is_ok_and(|it| it.is_dir()) {
                walk(&entry.path(), name, depth + 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, name, 0, &mut found);
    found
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns are fixed")
}

/// All modules of PKG_CHECK_MODULES and PKG_CHECK_EXISTS.
fn autoconf(text: &str) -> BTreeSet<String> {
    let text: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("dnl") && !line.trim_start().starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let calls = regex(r"(?s)PKG_CHECK_MODULES\w*\(\s*\[?\w+\]?\s*,\s*\[?([^\],)]+)");
    let mut found = BTreeSet::new();
    for call in calls.captures_iter(&text) {
        let mut words =
            call[1].split(|c: char| c.is_whitespace() || c == ',').filter(|it| !it.is_empty());
        while let Some(word) = words.next() {
            if ["=", ">", "<", ">=", "<=", "!="].contains(&word) {
                let _ = words.next();
            } else if is_module(word) {
                found.insert(format!("pkgconfig({word})"));
            }
        }
    }
    found
}

fn is_module(word: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(allowed)
}

/// Modules of CMake itself, which no package offers.
const CMAKE_OWN: [&str; 16] = [
    "Threads",
    "PkgConfig",
    "Git",
    "Doxygen",
    "Python",
    "Python3",
    "PythonInterp",
    "Perl",
    "OpenMP",
    "BISON",
    "FLEX",
    "Gettext",
    "Intl",
    "Backtrace",
    "CUDA",
    "MPI",
];

fn cmake(text: &str) -> BTreeSet<String> {
    let packages = regex(r"(?i)find_package\s*\(\s*([A-Za-z0-9_+.-]+)([^)]*)\)");
    let mut found = BTreeSet::new();
    for call in packages.captures_iter(text) {
        let line_begin =
            text[..call.get(0).map_or(0, |it| it.start())].rfind('\n').map_or(0, |at| at + 1);
        let is_comment = text[line_begin..].trim_start().starts_with('#');
        let needed = call[2].contains("REQUIRED");
        if needed && !is_comment && !CMAKE_OWN.contains(&&call[1]) {
            let dependency = match &call[1] {
                "ZLIB" => "pkgconfig(zlib)".into(),
                "CURL" => "pkgconfig(libcurl)".into(),
                "OpenSSL" => "pkgconfig(openssl)".into(),
                "PNG" => "pkgconfig(libpng)".into(),
                "Curses" => "pkgconfig(ncursesw)".into(),
                "LibXml2" => "pkgconfig(libxml-2.0)".into(),
                "EXPAT" => "pkgconfig(expat)".into(),
                "Freetype" => "pkgconfig(freetype2)".into(),
                name => format!("cmake({name})"),
            };
            found.insert(dependency);
        }
    }
    let modules = regex(r"(?is)pkg_(?:check|search)_modules?\s*\(\s*\w+([^)]*)\)");
    for call in modules.captures_iter(text) {
        for word in call[1].split_whitespace() {
            let name = word.trim_matches('"').split(['<', '>', '=']).next().unwrap_or_default();
            let is_option = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if is_module(name) && !is_option {
                found.insert(format!("pkgconfig({name})"));
            }
        }
    }
    found
}

/// What meson's own dependencies are called by pkg-config; an empty name for those
/// that need no package.
const MESON_OWN: [(&str, &str); 7] = [
    ("curses", "ncursesw"),
    ("dl", ""),
    ("threads", ""),
    ("openmp", ""),
    ("intl", ""),
    ("iconv", ""),
    ("appleframeworks", ""),
];

fn meson(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let comments = regex(r"(?m)^\s*#.*$");
    let text = comments.replace_all(text, "");
    for call in regex(r"\bdependency\s*\(\s*'([^']+)'([^)]*)\)").captures_iter(&text) {
        let optional = call[2].contains("required: false") || call[2].contains("required : false");
        let own = MESON_OWN.iter().find(|(name, _)| *name == &call[1]).map(|(_, module)| *module);
        let module = own.unwrap_or(&call[1]);
        if !optional && is_module(module) {
            found.insert(format!("pkgconfig({module})"));
        }
    }
    for call in regex(r"\bfind_program\s*\(\s*'([^']+)'([^)]*)\)").captures_iter(&text) {
        let optional = call[2].contains("required: false") || call[2].contains("required : false");
        let is_name = is_module(&call[1]) && !call[1].ends_with(".py") && !call[1].ends_with(".sh");
        let is_there = ["python3", "python", "sh", "bash", "sed", "cat"].contains(&&call[1]);
        if !optional && is_name && !is_there {
            found.insert(format!("binary({})", &call[1]));
        }
    }
    found
}

/// What crates with a C library below usually need of pkg-config.
const SYS_CRATES: [(&str, &str); 10] = [
    ("alsa-sys", "alsa"),
    ("fontconfig-sys", "fontconfig"),
    ("freetype-sys", "freetype2"),
    ("glib-sys", "glib-2.0"),
    ("gtk4-sys", "gtk4"),
    ("libdbus-sys", "dbus-1"),
    ("libsqlite3-sys", "sqlite3"),
    ("libudev-sys", "libudev"),
    ("openssl-sys", "openssl"),
    ("pango-sys", "pango"),
];

fn cargo(lock: &str) -> BTreeSet<String> {
    let has = |name: &str| lock.lines().any(|line| line.trim() == format!("name = \"{name}\""));
    let found = SYS_CRATES.iter().filter(|(name, _)| has(name));
    found.map(|(_, module)| format!("pkgconfig({module})")).collect()
}

/// `build-system.requires`, but what the actions bring.
fn python(table: &toml::Table) -> BTreeSet<String> {
    let list = table.get("build-system").and_then(|it| it.get("requires"));
    let list = list.and_then(toml::Value::as_array).into_iter().flatten();
    list.filter_map(toml::Value::as_str)
        .map(|requirement| {
            let is_end = |c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c);
            let name = requirement.trim().split(is_end).next().unwrap_or_default();
            name.to_lowercase().replace(['_', '.'], "-")
        })
        .filter(|name| is_module(name) && name != "wheel" && name != "build")
        .map(|name| format!("python({name})"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &BTreeSet<String>, expected: &[&str]) {
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn files_of_build_systems_say_what_is_needed() {
        check(
            &autoconf(
                "PKG_CHECK_MODULES([GLIB], [glib-2.0 >= 2.40 gio-2.0])\n\
                 dnl PKG_CHECK_MODULES(X, no)\nPKG_CHECK_MODULES(NCURSES, ncursesw, [have=yes])\n",
            ),
            &["pkgconfig(gio-2.0)", "pkgconfig(glib-2.0)", "pkgconfig(ncursesw)"],
        );
        check(
            &cmake(
                "find_package(ZLIB REQUIRED)\nfind_package(Qt6 6.5 REQUIRED COMPONENTS Core)\n\
                 # find_package(No REQUIRED)\nfind_package(Maybe)\nfind_package(Threads REQUIRED)\n\
                 pkg_check_modules(GTK REQUIRED IMPORTED_TARGET gtk+-3.0>=3.2 \"cairo\")\n",
            ),
            &["cmake(Qt6)", "pkgconfig(cairo)", "pkgconfig(gtk+-3.0)", "pkgconfig(zlib)"],
        );
        check(
            &meson(
                "dependency('glib-2.0', version: '>=2')\ndependency('x', required: false)\n\
                 dependency('threads')\n# dependency('no')\nfind_program('gperf')\n\
                 find_program('tool.py')\ndependency('curses')\n",
            ),
            &["binary(gperf)", "pkgconfig(glib-2.0)", "pkgconfig(ncursesw)"],
        );
        check(&cargo("[[package]]\nname = \"openssl-sys\"\n"), &["pkgconfig(openssl)"]);
        let requires =
            "[build-system]\nrequires = [ \"setuptools[x]>=61\", 'Flit_Core >=3',\n  \"wheel\"]\n";
        check(
            &python(&toml::from_str(requires).expect("TOML")),
            &["python(flit-core)", "python(setuptools)"],
        );
    }
}
