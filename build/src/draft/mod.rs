//! Recipes from upstream archives.
//!
//! A draft is a recipe that builds in the common case, and that a packager reads
//! before using it: the build system, its dependencies and the licences are found
//! in the files, the name and the version in the address.

mod depends;
mod facts;
mod license;
mod readme;
mod source;
mod system;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::recipe::{Hash, is_name};

pub use license::detect as detect_licenses;
pub use source::{Source, next_url, source_of};
pub use system::System;

/// An upstream that was downloaded.
#[derive(Clone, Debug)]
pub struct Downloaded {
    /// Where it comes from.
    pub url: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it hashes to.
    pub hash: Hash,
}

/// A recipe that was drafted.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The text of the recipe.
    pub text: String,
    /// How it is built.
    pub system: System,
    /// What a packager should look at.
    pub notes: Vec<String>,
}

/// Drafts a recipe of archives, the first of which is the main one; they are
/// unpacked below `directory`.
///
/// # Errors
/// [`Error::Unpack`], [`Error::Io`]; [`Error::NoName`]: the address tells neither
/// name nor version.
pub fn draft(archives: &[Downloaded], directory: &Path) -> Result<Draft> {
    let mut notes = Vec::new();
    let main = archives.first().expect("the caller names one");
    let source = source_of(&main.url).ok_or_else(|| Error::NoName { url: main.url.clone() })?;
    let mut roots = Vec::new();
    for (number, archive) in archives.iter().enumerate() {
        let to = directory.join(number.to_string());
        crate::archive::unpack(&archive.path, &to, 1)
            .map_err(|source| Error::Unpack { name: archive.url.clone(), source })?;
        roots.push(to);
    }
    let root = &roots[0];
    let system = system::detect(root);
    let facts = facts::facts(root, system, &source.name);
    // A library of Python keeps its prefix.
    let is_guess = source.is_guess && !source.name.starts_with("python-");
    let name = facts.name.filter(|it| is_guess && is_name(it)).unwrap_or(source.name);
    let of_readme = || readme::homepage(root, &name);
    let homepage = source.homepage.or(facts.homepage).or_else(of_readme).unwrap_or_else(|| {
        notes.push("no homepage was found".into());
        if main.url.starts_with("http") {
            source::directory_of(&main.url)
        } else {
            "(write its homepage)".into()
        }
    });
    let mut licenses: BTreeSet<String> = facts.license.into_iter().collect();
    for root in roots.iter().skip(licenses.len()) {
        licenses.extend(license::detect(root)?);
    }
    if licenses.is_empty() {
        notes.push("no licence was recognised; look for it in the files".into());
    }
    let summary = facts.summary.unwrap_or_else(|| {
        notes.push("no summary was found".into());
        format!("{name} (write what it is)")
    });
    let mut builddeps = depends::find(root, system);
    // What it makes itself it cannot need.
    builddeps.retain(|it| {
        let text = it.split_once('(').and_then(|(_, text)| text.strip_prefix(name.as_str()));
        !text.is_some_and(|rest| rest.starts_with([')', '-', '.']))
    });
    if let System::Unknown = system {
        notes.push("no build system was recognised; write the phases".into());
    }
    let crates = crates_beside(system, &roots);
    let downloads = system.downloads(root) && crates.is_none();
    if downloads {
        notes.push("it downloads what it needs, so that the recipe asks for the network".into());
    }

    let mut text = String::new();
    let list = |text: &mut String, key: &str, items: &mut dyn Iterator<Item = String>| {
        let items: Vec<String> = items.map(|item| format!("    - {}\n", scalar(&item))).collect();
        if !items.is_empty() {
            let _ = write!(text, "{key}:\n{}", items.concat());
        }
    };
    let _ = writeln!(text, "name: {}", scalar(&name));
    let _ = writeln!(text, "version: \"{}\"", source.version);
    let _ = writeln!(text, "release: 1");
    let _ = writeln!(text, "homepage: {}", scalar(&homepage));
    text.push_str("upstreams:\n");
    for (number, archive) in archives.iter().enumerate() {
        if crates == Some(number) {
            let _ = writeln!(text, "    - {}:", scalar(&archive.url));
            let _ = writeln!(text, "        hash: {}", archive.hash);
            let _ = writeln!(text, "        unpackdir: {CRATES}");
        } else {
            let _ = writeln!(text, "    - {}: {}", scalar(&archive.url), archive.hash);
        }
    }
    let _ = writeln!(text, "summary: {}", scalar(&summary));
    let description = facts.description.unwrap_or(summary);
    text.push_str("description: |\n");
    for line in description.trim().lines() {
        let _ = writeln!(text, "{}", format!("    {}", line.trim_end()).trim_end());
    }
    if licenses.is_empty() {
        text.push_str("license: LicenseRef-unknown\n");
    } else {
        list(&mut text, "license", &mut licenses.into_iter());
    }
    list(&mut text, "builddeps", &mut builddeps.into_iter());
    if downloads {
        text.push_str("networking: true\n");
    }
    if system == System::Go && root.join("vendor").is_dir() {
        // What the standard flags ask for takes no notice of the directory.
        text.push_str("tuning:\n    - golang-modflags: false\n");
    }
    let mut phases = system.phases(root, downloads);
    if system == System::Cargo
        && let Some(script) = system::setup_of_crates(root, crates.is_some().then_some(CRATES))
    {
        phases.insert(0, ("setup", script));
    }
    for (phase, script) in phases {
        let _ = writeln!(text, "{phase}: |");
        for line in script.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    Ok(Draft { text, system, notes })
}

/// The directory beside the project into which an archive of crates is unpacked.
const CRATES: &str = "vendor";

/// The number of the archive that has the crates of a project, as `cargo vendor` puts them
/// into a directory.
fn crates_beside(system: System, roots: &[PathBuf]) -> Option<usize> {
    let has_crates = |root: &PathBuf| system::is_of_crates(root);
    let beside = roots.iter().skip(1).position(has_crates).map(|at| at + 1);
    beside.filter(|_| system == System::Cargo)
}

/// A text as a scalar of YAML, quoted only where it must be.
fn scalar(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let special = |c: char| "\"'#:{}[],&*!|>%@`?-".contains(c);
    let risky = text.is_empty()
        || text.starts_with(special)
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.chars().any(char::is_control)
        || matches!(text.to_lowercase().as_str(), "true" | "false" | "null" | "~" | "yes" | "no");
    if risky { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn odd_texts_are_quoted() {
        for text in ["plain", "https://x/y", "GPL-3.0-or-later", "a b"] {
            assert_eq!(scalar(text), text);
        }
        for text in ["", "- a", "a: b", "a #b", "yes", "%x", "a \"b\": c", "\\: d"] {
            let node = crate::yaml::parse(&format!("k: {}\n", scalar(text))).expect(text);
            let crate::yaml::Value::Map(pairs) = node.value else { panic!("a map") };
            assert_eq!(pairs[0].1.as_text(), Some(text));
        }
    }

    /// Makes an archive in a directory.
    fn archive(directory: &Path, name: &str, files: &[(&str, &str)]) -> Downloaded {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).expect("a tar archive");
        }
        let path = directory.join(name);
        fs::write(&path, tar.into_inner().expect("a tar archive")).expect("a file");
        let hash = crate::fetch::hash_of(&path).expect("a hash");
        Downloaded { url: format!("https://example.org/releases/{name}"), path, hash }
    }

    #[test]
    fn a_crate_is_built_with_the_crates_that_come_beside_it_or_in_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let manifest = ("x-1.0/Cargo.toml", "[package]\nname = 'x'\nlicense = 'MIT'\n");
        let drafted = |name: &str, archives: &[Downloaded]| {
            let draft = draft(archives, &directory.path().join(name)).expect("a draft");
            let recipe = Recipe::parse(&draft.text).expect("a recipe").recipe;
            let places: Vec<String> =
                recipe.upstreams.iter().filter_map(|it| it.directory()).map(Into::into).collect();
            let setup = recipe.build.setup.map(|it| it.text).unwrap_or_default();
            (recipe.options.networking, places, setup)
        };
        let main = archive(directory.path(), "x-1.0.tar", &[manifest]);
        let (networking, _, setup) = drafted("alone", std::slice::from_ref(&main));
        assert!(networking && setup.trim() == "%cargo_fetch", "{setup}");

        let checksum = ("vendor/libc/.cargo-checksum.json", "{}");
        let crates = archive(directory.path(), "x-1.0-vendor.tar", &[checksum]);
        let (networking, places, setup) = drafted("beside", &[main, crates]);
        assert!(!networking && setup.contains("directory = \"../vendor\"\n"), "{setup}");
        assert_eq!(places, ["x-1.0.tar", "vendor"]);

        let checksum = ("x-1.0/vendor/libc/.cargo-checksum.json", "{}");
        let whole = archive(directory.path(), "x-1.0.tar", &[manifest, checksum]);
        let (networking, _, setup) = drafted("in it", &[whole]);
        assert!(!networking && setup.contains("directory = \"vendor\"\n"), "{setup}");

        // A project that says itself where its crates are is not told.
        let config = ("x-1.0/.cargo/config.toml", "[source.crates-io]\nreplace-with = 'a'\n");
        let told = archive(directory.path(), "x-1.0.tar", &[manifest, checksum, config]);
        assert_eq!(drafted("told", &[told]).2, "");
    }

    #[test]
    fn a_draft_is_a_recipe() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = [
            (
                "x-1.0/meson.build",
                "project('x', 'c')\ndependency('zlib')\ndependency('x')\nfind_program('gperf')\n",
            ),
            ("x-1.0/README", "X is an example.\n"),
        ];
        let archive = archive(directory.path(), "x-1.0.tar", &files);
        let draft = draft(&[archive], &directory.path().join("out")).expect("a draft");
        assert_eq!(draft.system, System::Meson);
        let recipe = Recipe::parse(&draft.text).expect("a recipe").recipe;
        assert_eq!((recipe.name.as_str(), recipe.version.as_str()), ("x", "1.0"));
        let deps: Vec<&str> = recipe.build.builddeps.iter().map(|it| it.value.as_str()).collect();
        assert_eq!(deps, ["binary(gperf)", "pkgconfig(zlib)"]);
        assert_eq!(recipe.build.setup.expect("a script").text.trim(), "%meson");
    }
}
