//! What a pkg-config file needs.
//!
//! Format: pc(5) of pkgconf.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;

/// More of a file is not read.
const MAX_LEN: u64 = 1 << 20;
/// A value is not expanded to more than this.
const MAX_VALUE: usize = 64 << 10;

/// The names in `Requires` and `Requires.private`.
pub fn requirements(file: impl Read) -> BTreeSet<String> {
    let mut bytes = Vec::new();
    if file.take(MAX_LEN).read_to_end(&mut bytes).is_err() {
        return BTreeSet::new();
    }
    let text = String::from_utf8_lossy(&bytes).replace("\\\n", " ");
    let mut variables: HashMap<&str, String> = HashMap::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c)));
        let (key, rest) = line.split_at(end.unwrap_or(line.len()));
        let rest = rest.trim_start();
        if let Some(value) = rest.strip_prefix('=') {
            variables.insert(key, expand(value.trim(), &variables));
        } else if let Some(value) = rest.strip_prefix(':')
            && matches!(key, "Requires" | "Requires.private")
        {
            found.extend(names(&expand(value, &variables)));
        }
    }
    found
}

/// Replaces `${name}`; `$$` is a dollar sign.
fn expand(text: &str, variables: &HashMap<&str, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some((name, behind)) = rest.strip_prefix('{').and_then(|it| it.split_once('}')) {
            out.push_str(variables.get(name).map_or("", String::as_str));
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
        }
        if out.len() > MAX_VALUE {
            return String::new();
        }
    }
    out.push_str(rest);
    out
}

/// `a >= 1.0, b c`: the names.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let spaced =
        ["<=", ">=", "!=", "=", "<", ">"].iter().fold(text.to_owned(), |text, operator| {
            // Longer operators come first, and are marked so that they stay whole.
            text.replace(operator, " \u{1} ")
        });
    let mut words =
        spaced.split(|c: char| c.is_whitespace() || c == ',').filter(|it| !it.is_empty());
    while let Some(word) = words.next() {
        if word == "\u{1}" {
            // A comparison: its version is no name.
            let _ = words.next();
        } else {
            names.push(word.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_names_without_versions() {
        let check = |text: &str, expected: &[&str]| {
            let found = requirements(text.as_bytes());
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{text}");
        };
        check("Requires: zlib\n", &["zlib"]);
        check(
            "Requires.private: zlib >= 1.2, bzip2 libpng16>=1.6\n",
            &["bzip2", "libpng16", "zlib"],
        );
        check("x=1.2\nRequires: a = ${x} b\nRequires.private: c # d\n", &["a", "b", "c"]);
        check("v=gtk\nname=${v}-4.0\nRequires: ${name}\n", &["gtk-4.0"]);
        check("Requires: a \\\n  b\n", &["a", "b"]);
        check("Requires:\nLibs: -lz\nConflicts: y\n", &[]);
        check("Requires: a != 3\n", &["a"]);
        check("", &[]);
    }

    #[test]
    fn variables_do_not_grow_without_measure() {
        let mut text = "a0=xxxxxxxxxxxxxxxx\n".to_owned();
        for level in 1..60 {
            text += &format!("a{level}=${{a{0}}}${{a{0}}}\n", level - 1);
        }
        text += "Requires: ${a59}\n";
        assert!(requirements(text.as_bytes()).is_empty());
    }
}
