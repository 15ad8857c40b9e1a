//! Short words of moss, which its users know.

use std::ffi::OsString;

/// Words that stand for others, where the name of a command stands.
const WORDS: [(&str, &[&str]); 12] = [
    ("ar", &["repo", "add"]),
    ("dr", &["repo", "disable"]),
    ("er", &["repo", "enable"]),
    ("index", &["repo", "index"]),
    ("ix", &["repo", "index"]),
    ("la", &["list", "available"]),
    ("li", &["list", "installed"]),
    ("lr", &["repo", "list"]),
    ("lu", &["list", "upgradable"]),
    ("rr", &["repo", "remove"]),
    ("sf", &["search", "--files"]),
    ("ur", &["repo", "update"]),
];

/// Options before the command that are followed by a value.
const WITH_VALUE: [&str; 2] = ["--color", "--store"];

/// The command line `words`, its program first, with a short word replaced.
pub(crate) fn expand(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let mut at = 1;
    while let Some(word) = words.get(at) {
        if WITH_VALUE.iter().any(|option| word == option) {
            at += 2;
        } else if word.as_encoded_bytes().starts_with(b"-") {
            at += 1;
        } else {
            break;
        }
    }
    if let Some((_, long)) = words.get(at).and_then(|word| WORDS.iter().find(|row| word == row.0)) {
        words.splice(at..=at, long.iter().map(OsString::from));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_words_are_replaced_where_a_command_stands_and_nowhere_else() {
        let check = |line: &str, expected: &str| {
            let words = expand(line.split(' ').map(OsString::from));
            let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
            assert_eq!(words.join(" "), expected);
        };
        check("cairn li", "cairn list installed");
        check("cairn --json --store ar la -v", "cairn --json --store ar list available -v");
        check("cairn install ar", "cairn install ar");
        check("cairn sf x", "cairn search --files x");
        check("cairn", "cairn");
        check("cairn --color never", "cairn --color never");
    }
}
