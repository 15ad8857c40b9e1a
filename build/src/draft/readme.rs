//! What a README says of a project: what it is, and where its home is.

use std::path::Path;

use regex::Regex;

use super::facts::capitalised;
use super::source::is_forge;
use super::system;

/// READMEs by name, the first of which is read.
const NAMES: [&str; 7] = [
    "README.md",
    "README",
    "README.rst",
    "README.txt",
    "README.mkd",
    "README.markdown",
    "README.pod",
];

/// What a README says first of its project: one line, and the paragraph.
pub(super) fn read(root: &Path, name: &str) -> (Option<String>, Option<String>) {
    // One that only points at another says nothing.
    let mut texts = NAMES.iter().filter_map(|name| system::read(&root.join(name)));
    let Some(text) = texts.find(|it| it.len() > MIN_LEN) else { return (None, None) };
    let plain = without_marks(&text.replace("\r\n", "\n"));
    let names = names_of(name);
    // Where there is no empty line, what is about the project begins inside.
    let from_name = |paragraph: &str| {
        let first = paragraph.lines().position(|line| is_about(line, &names)).unwrap_or(0);
        paragraph.lines().skip(first).collect::<Vec<_>>().join("\n")
    };
    let paragraphs: Vec<String> =
        plain.split("\n\n").take(40).map(from_name).filter(|it| is_prose(it)).collect();
    let defines = |text: &str| {
        let (subject, summary) = definition(text)?;
        let is_it = subject == "this" || names.iter().any(|name| has_word(&subject, name));
        is_it.then_some(summary)
    };
    // What it is says more than what it does, and that more than whatever comes first.
    let defining = paragraphs.iter().find(|it| defines(it).is_some());
    let doing = || paragraphs.iter().find(|it| is_about(it, &names));
    let Some(paragraph) = defining.or_else(doing).or(paragraphs.first()) else {
        return (None, None);
    };
    let visible = |c: &char| !c.is_control() || *c == '\n';
    let paragraph: String = paragraph.trim().chars().filter(visible).take(2000).collect();
    let paragraph = paragraph.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let flat = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = flat.find(". ").map_or(flat.as_str(), |end| &flat[..end]);
    let summary = defines(sentence).unwrap_or_else(|| sentence.trim_end_matches('.').to_owned());
    (Some(summary), Some(paragraph))
}

/// What a project may be called in its texts, in small letters.
fn names_of(name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    let plain = name.trim_start_matches("lib").trim_start_matches("python-").to_owned();
    // fmtlib calls itself fmt.
    let short = plain.trim_end_matches("lib").to_owned();
    [name, plain, short].into_iter().filter(|it| it.len() > 1).collect()
}

/// Whether a line begins with the name of a project, and goes on.
fn is_about(line: &str, names: &[String]) -> bool {
    let line = line.trim_start().to_lowercase();
    names.iter().any(|name| {
        let rest = line.strip_prefix("gnu ").unwrap_or(&line).strip_prefix(name.as_str());
        rest.is_some_and(|rest| rest.starts_with(' ') && rest.len() > 10)
    })
}

/// A shorter README points at another.
const MIN_LEN: usize = 40;
/// As late in a sentence may its subject end.
const MAX_SUBJECT: usize = 60;

fn is_prose(paragraph: &str) -> bool {
    let plain = paragraph.trim();
    let marks = ["#", "=", "-", "* ", "[", "!", "<", ".. ", "```", "|", ">", "+"];
    let letters = plain.chars().filter(|c| c.is_alphabetic()).count();
    let lower = plain.to_lowercase();
    let is_about_else = ["donat", "sponsor", "readme", "copyright", "funds", "please read"];
    let is_numbered = plain.starts_with(|c: char| c.is_ascii_digit());
    plain.len() > 30
        && !is_numbered
        && !marks.iter().any(|mark| plain.starts_with(mark))
        && !plain.contains("====")
        && letters * 10 > plain.len() * 6
        && plain.contains(' ')
        && !plain.ends_with(':')
        && !is_about_else.iter().any(|word| lower.contains(word))
}

/// `X is a Y`: `X` in small letters, and `Y` with a large letter at its beginning.
fn definition(text: &str) -> Option<(String, String)> {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let at = [" is a ", " is an ", " is the "]
        .iter()
        .filter_map(|verb| flat.find(verb).map(|at| (at, at + verb.len())))
        .min()?;
    let sentence = flat[at.1..].split(". ").next()?.trim_end_matches('.');
    let is_one = at.0 < MAX_SUBJECT && sentence.len() > 10;
    is_one.then(|| (flat[..at.0].to_lowercase(), capitalised(sentence.to_owned())))
}

/// Whether a name is in a text, and not only a part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part)
    })
}

/// Markdown without what shows as a link or in bold letters.
fn without_marks(text: &str) -> String {
    let links = Regex::new(r"\[([^\]\n]+)\]\([^)\s]*\)").expect("the pattern is fixed");
    links.replace_all(text, "$1").replace("**", "")
}

/// The first address in the README whose host has the name of the project in it,
/// or that ends in the name; of a forge, that of the project with the name.
pub(super) fn homepage(root: &Path, name: &str) -> Option<String> {
    let name = name.trim_start_matches("lib").to_lowercase();
    let mut at_the_end = None;
    for text in NAMES.iter().chain(&["ChangeLog"]).filter_map(|it| system::read(&root.join(it))) {
        for begin in ["https://", "http://"] {
            for (at, _) in text.match_indices(begin) {
                let end = |c: char| c.is_whitespace() || "<>()[]{}\"'`,*|\\".contains(c);
                let url = text[at..].split(end).next().unwrap_or_default();
                let url = url.trim_end_matches(['.', ';', ':', '/']);
                let host = url[begin.len()..].split('/').next().unwrap_or_default();
                if host.to_lowercase().contains(&name) && host.contains('.') {
                    return Some(format!("{begin}{host}"));
                }
                // What lies in a project of a forge is about the project.
                let depth = if is_forge(host) { 4 } else { usize::MAX };
                let url = url.match_indices('/').nth(depth).map_or(url, |(at, _)| &url[..at]);
                let last = url.trim_end_matches(".git").rsplit('/').next().unwrap_or_default();
                if last.to_lowercase() == name && !host.starts_with("ftp") && at_the_end.is_none() {
                    at_the_end = Some(url.trim_end_matches(".git").to_owned());
                }
            }
        }
    }
    at_the_end
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn definitions_say_what_something_is() {
        let text = "zlib 1.2.13 is a general purpose\ndata compression library.  All is well.";
        let found = definition(text).expect("a definition");
        assert_eq!(found.0, "zlib 1.2.13");
        assert_eq!(found.1, "General purpose data compression library");
        assert_eq!(definition("Nothing of the kind"), None);
    }

    #[test]
    fn a_readme_says_what_a_project_is() {
        let check = |name: &str, readme: &str, expected: &str| {
            let root = tempfile::tempdir().expect("a directory");
            fs::write(root.path().join("README"), readme).expect("a file");
            let (summary, _) = read(root.path(), name);
            assert_eq!(summary.as_deref(), Some(expected), "{name}");
        };
        // As in the README of the GNU program.
        check(
            "hello",
            "This is the README file for the GNU Hello distribution.\nHello prints a friendly \
             greeting.  It also serves as a sample.\n\nThere is a limited support for nothing.\n",
            "Hello prints a friendly greeting",
        );
        check(
            "libbidi",
            "The Free Implementation of the Bidirectional Algorithm.\n\nThere is a limited support \
             for character set conversion.\n",
            "The Free Implementation of the Bidirectional Algorithm",
        );
        check(
            "json-c",
            "1. [Overview and Build Status](#overview)\n2. [Building on Unix]\n\nJSON-C implements a \
             reference counting object model.\n",
            "JSON-C implements a reference counting object model",
        );
        check(
            "fmtlib",
            "**{fmt}** is an open-source formatting library. And so on.\n",
            "Open-source formatting library",
        );
        // A call is not the project.
        check(
            "fribidi",
            "Note that `fribidi_log2vis()` is a convenience function to calling the following:\n\n\
             The **Free** Implementation of the [Unicode Bidirectional Algorithm](https://x.org).\n",
            "The Free Implementation of the Unicode Bidirectional Algorithm",
        );
    }

    #[test]
    fn a_readme_says_where_a_project_is_at_home() {
        let check = |name: &str, readme: &str, expected: Option<&str>| {
            let root = tempfile::tempdir().expect("a directory");
            fs::write(root.path().join("README"), readme).expect("a file");
            assert_eq!(homepage(root.path(), name).as_deref(), expected, "{name}");
        };
        let readme = "See https://github.com/x/zlib and (http://www.zlib.net/manual.html).\n";
        check("zlib", readme, Some("http://www.zlib.net"));
        let readme = "From https://other.org/x or\nhttp://some.edu/users/ice/tree/. Good.\n";
        check("tree", readme, Some("http://some.edu/users/ice/tree"));
        check("libx", "git clone https://github.com/y/x.git\n", Some("https://github.com/y/x"));
        let readme = "![CI](https://github.com/y/x/workflows/CI/badge.svg) https://else.org/x\n";
        check("x", readme, Some("https://github.com/y/x"));
        check("nothing", "https://x.org\n", None);
    }
}
