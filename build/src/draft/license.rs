//! Which licences the files of a project have, by their texts.
//!
//! The texts are those of SPDX. A file is taken apart into pairs of neighbouring
//! words; the licence that explains most of them is taken, its pairs are taken
//! away, and so on as long as one is nearly all there.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::error::{Error, Result};

use super::system::read;

/// So much of a licence must be in a file, in thousandths.
const ENOUGH: usize = 900;
/// A pair that is missing counts against a licence as much as so many that are
/// there speak for it.
const PENALTY: usize = 4;
/// As many licences are looked for in one file.
const MAX_LICENSES: usize = 6;
/// A licence of fewer pairs says nothing by its words.
const MIN_PAIRS: usize = 30;

/// The SPDX identifiers of the licences in files whose names say that they have
/// some; in the READMEs, if there are none.
///
/// # Errors
/// [`Error::Io`].
pub fn detect(root: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let reuse = root.join("LICENSES");
    if reuse.is_dir() {
        for entry in fs::read_dir(&reuse).map_err(Error::io(&reuse))? {
            let entry = entry.map_err(Error::io(&reuse))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.trim_end_matches(".txt");
            if spdx::license_id(id).is_some() || id.starts_with("LicenseRef-") {
                found.insert(id.to_owned());
            }
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(root).map_err(Error::io(root))? {
        let entry = entry.map_err(Error::io(root))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let is_license = |name: &&String| {
        let upper = name.to_uppercase();
        ["COPYING", "LICENSE", "LICENCE", "UNLICENSE"].iter().any(|it| upper.contains(it))
    };
    let is_readme = |name: &&String| name.to_uppercase().starts_with("README");
    let later = says_later(root, &names);
    let texts: Vec<String> =
        names.iter().filter(is_license).filter_map(|name| read(&root.join(name))).collect();
    for text in &texts {
        found.extend(of_text(text, later));
    }
    if found.is_empty() {
        for text in names.iter().filter(is_readme).filter_map(|name| read(&root.join(name))) {
            found.extend(of_text(&text, later));
        }
    }
    Ok(found)
}

/// Whether the sources allow later versions of their licence.
fn says_later(root: &Path, names: &[String]) -> bool {
    let mut files: Vec<_> = names.iter().map(|name| root.join(name)).collect();
    for directory in ["src", "lib", "source"] {
        let entries = fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
        let mut below: Vec<_> = entries.map(|entry| entry.path()).collect();
        below.sort();
        files.extend(below.into_iter().take(40));
    }
    files
        .iter()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
            // The licence itself explains how others say it.
            !name.contains("COPYING") && !name.contains("LICEN")
        })
        .take(120)
        .filter_map(|path| read(path))
        .any(|text| {
            let head: String = text.chars().take(6000).collect();
            words(&head).collect::<Vec<_>>().join(" ").contains("any later version")
        })
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|it| !it.is_empty()).map(str::to_lowercase)
}

fn pairs(text: &str) -> Vec<u64> {
    let words: Vec<String> = words(text).collect();
    let hash = |pair: &[String]| {
        let mut hasher = DefaultHasher::new();
        pair.hash(&mut hasher);
        hasher.finish()
    };
    words.windows(2).map(hash).collect()
}

/// The licences of a text.
fn of_text(text: &str, later: bool) -> BTreeSet<String> {
    let mut left: HashMap<u64, u32> = HashMap::new();
    for pair in pairs(text) {
        *left.entry(pair).or_default() += 1;
    }
    let mut known: Vec<(&str, Vec<u64>)> = Vec::new();
    for license in spdx::identifiers::LICENSES {
        let Some(id) = spdx::license_id(license.name) else { continue };
        // Of two names of one text the other is chosen below.
        let is_variant =
            license.name.contains("-invariants") || license.name.ends_with("-or-later");
        if id.is_deprecated() || is_variant {
            continue;
        }
        let pairs = pairs(id.text());
        if pairs.len() >= MIN_PAIRS {
            known.push((license.name, pairs));
        }
    }
    let mut found = BTreeSet::new();
    for _ in 0..MAX_LICENSES {
        let best = known
            .iter()
            .filter_map(|(name, pairs)| {
                let there = common(pairs, &left);
                let score = there.saturating_sub(PENALTY * (pairs.len() - there));
                (there * 1000 >= pairs.len() * ENOUGH).then_some((score, *name, pairs))
            })
            // The longest, and of equals the first by name.
            .max_by(|left, right| left.0.cmp(&right.0).then_with(|| right.1.cmp(left.1)));
        let Some((_, name, pairs)) = best else { break };
        for pair in pairs {
            if let Some(count) = left.get_mut(pair) {
                *count = count.saturating_sub(1);
            }
        }
        found.insert(match name.strip_suffix("-only") {
            Some(family) if later => format!("{family}-or-later"),
            _ => name.to_owned(),
        });
    }
    found
}

/// How many of `pairs` are in `left`.
fn common(pairs: &[u64], left: &HashMap<u64, u32>) -> usize {
    let mut used: HashMap<u64, u32> = HashMap::new();
    pairs
        .iter()
        .filter(|pair| {
            let used = used.entry(**pair).or_default();
            *used += 1;
            left.get(pair).is_some_and(|there| *there >= *used)
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(files: &[(&str, &str)]) -> Vec<String> {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        detect(root.path()).expect("licences").into_iter().collect()
    }

    fn text(id: &str) -> String {
        spdx::license_id(id).expect("a licence").text().to_owned()
    }

    #[test]
    fn licences_are_known_by_their_texts() {
        let mit = text("MIT").replace("<year> <copyright holders>", "1999 Somebody Else");
        assert_eq!(detected(&[("LICENSE", &mit)]), ["MIT"]);
        assert_eq!(detected(&[("COPYING", &text("GPL-3.0-only"))]), ["GPL-3.0-only"]);
        let source = "/* ... either version 3, or (at your option)\n * any later version. */";
        let gpl = text("GPL-3.0-only");
        let files = [("COPYING", gpl.as_str()), ("src/main.c", source)];
        assert_eq!(detected(&files), ["GPL-3.0-or-later"]);
        assert_eq!(detected(&[("LICENSE.md", &text("Apache-2.0"))]), ["Apache-2.0"]);
        assert_eq!(detected(&[("LICENSE", &text("BSD-3-Clause"))]), ["BSD-3-Clause"]);
        assert_eq!(detected(&[("LICENSE", &text("BSD-2-Clause"))]), ["BSD-2-Clause"]);
        let both = format!("{}\n\n{}", text("MIT"), text("Zlib"));
        assert_eq!(detected(&[("README", &both)]), ["MIT", "Zlib"]);
        // JSON's is the same with one sentence more.
        assert_eq!(detected(&[("LICENSE", &text("JSON"))]), ["JSON"]);
        assert_eq!(detected(&[("COPYING.DOC", &text("GFDL-1.2-only"))]), ["GFDL-1.2-only"]);
        assert_eq!(detected(&[("LICENSES/CC0-1.0.txt", "")]), ["CC0-1.0"]);
        assert!(detected(&[("LICENSE", "Do what you like with it.")]).is_empty());
    }
}
