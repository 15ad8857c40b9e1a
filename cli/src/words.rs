//! Short words of moss, which its users know.

use std::ffi::OsString;

/// Words that stand for others, where the name of a command stands.
const WORDS: [(&[&str], &[&str]); 20] = [
    (&["ar"], &["repo", "add"]),
    (&["cache", "prune"], &["cache", "clean", "--unused"]),
    (&["dr"], &["repo", "disable"]),
    (&["er"], &["repo", "enable"]),
    (&["index"], &["repo", "index"]),
    (&["ix"], &["repo", "index"]),
    (&["la"], &["list", "available"]),
    (&["li"], &["list", "installed"]),
    (&["lr"], &["repo", "list"]),
    (&["lu"], &["list", "upgradable"]),
    (&["rr"], &["repo", "remove"]),
    (&["search-file"], &["search", "--files"]),
    (&["sf"], &["search", "--files"]),
    (&["state", "activate"], &["switch"]),
    (&["state", "active"], &["state", "show"]),
    (&["state", "export"], &["export-model", "--kdl"]),
    (&["state", "query"], &["state", "show"]),
    (&["state", "verify"], &["verify"]),
    (&["ur"], &["repo", "update"]),
    (&["version"], &["--version"]),
];

/// Options before the command that are followed by a value.
const WITH_VALUE: [&str; 6] = ["--cache", "--color", "--directory", "--log", "--store", "-D"];

/// The command line `words`, its program first, with short words replaced.
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
    let rest = words.get(at..).unwrap_or_default();
    let found = WORDS.iter().find(|(short, _)| {
        rest.len() >= short.len() && rest.iter().zip(*short).all(|(word, short)| word == short)
    });
    if let Some((short, long)) = found {
        words.splice(at..at + short.len(), long.iter().map(OsString::from));
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
        check("cairn -D ar state active 7", "cairn -D ar state show 7");
        check("cairn state list", "cairn state list");
        check("cairn state", "cairn state");
        check("cairn", "cairn");
        check("cairn --color never", "cairn --color never");
    }
}
