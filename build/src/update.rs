//! Brings a recipe to another version, as text: comments and layout stay.

use crate::problem::{Problem, Span};
use crate::recipe::{Archive, Git, Hash, Recipe, Upstream};
use crate::yaml::{self, Node, Style, Value};

/// What a recipe is to become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The new version.
    pub version: Option<String>,
    /// The new release.
    pub release: Option<u64>,
    /// What becomes of each upstream, by its number.
    pub upstreams: Vec<(usize, NewUpstream)>,
}

/// What an upstream becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewUpstream {
    /// Another file.
    Archive {
        /// Where it comes from.
        url: String,
        /// What it hashes to.
        hash: Hash,
    },
    /// Another commit.
    Git {
        /// A commit, tag or branch.
        reference: String,
    },
}

/// The text of a recipe after a change.
///
/// # Errors
/// The recipe cannot be read, or an upstream is to become another kind of one.
pub fn apply(text: &str, change: &Change) -> Result<String, Vec<Problem>> {
    let recipe = Recipe::parse(text)?.recipe;
    let root = yaml::parse(text).map_err(|problem| vec![problem])?;
    let mut edits: Vec<(Span, String)> = Vec::new();
    let mut problems = Vec::new();
    if let Some(version) = &change.version
        && let Some(node) = field(&root, "version")
    {
        // Quoted, since some readers take 1.10 for a number.
        edits.push((scalar_span(node, text), format!("\"{version}\"")));
    }
    if let Some(release) = change.release
        && let Some(node) = field(&root, "release")
    {
        edits.push((scalar_span(node, text), release.to_string()));
    }
    for (number, new) in &change.upstreams {
        let Some(upstream) = recipe.upstreams.get(*number) else {
            let message = format!("the recipe has no upstream number {}", number + 1);
            problems.push(Problem::error(Span::default(), message));
            continue;
        };
        match (upstream, new) {
            (
                Upstream::Archive(Archive { url, hash, .. }),
                NewUpstream::Archive { url: new_url, hash: new_hash },
            ) => {
                edits.push((inner(url.span, text), new_url.clone()));
                edits.push((inner(hash.span, text), new_hash.to_string()));
            }
            (Upstream::Git(Git { reference, .. }), NewUpstream::Git { reference: new }) => {
                edits.push((inner(reference.span, text), new.clone()));
            }
            _ => {
                let message = "a file cannot become a git repository, nor the other way round";
                problems.push(Problem::error(upstream.url().span, message));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    edits.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut changed = text.to_owned();
    for (span, new) in edits {
        changed.replace_range(span.start..span.end, &new);
    }
    // Whatever came from outside, the result is a recipe.
    Recipe::parse(&changed)?;
    Ok(changed)
}

fn field<'n>(root: &'n Node, name: &str) -> Option<&'n Node> {
    match &root.value {
        Value::Map(pairs) => pairs.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
        _ => None,
    }
}

/// The bytes of a scalar with its quotes, without what follows on the line.
fn scalar_span(node: &Node, text: &str) -> Span {
    let written = &text[node.span.start..node.span.end];
    let is_plain = matches!(&node.value, Value::Scalar(it) if it.style == Style::Plain);
    let len = if is_plain { written.trim_end().len() } else { quoted_len(written) };
    Span::new(node.span.start, node.span.start + len)
}

/// The length of a quoted text with its quotes: what the parser gives goes on to the
/// next token, past a comment.
fn quoted_len(written: &str) -> usize {
    let Some(quote) = written.chars().next().filter(|c| "\"'".contains(*c)) else {
        return written.trim_end().len();
    };
    let end = written[1..].find(quote).map(|at| at + 2);
    end.unwrap_or(written.trim_end().len())
}

/// The bytes of a scalar without its quotes.
fn inner(span: Span, text: &str) -> Span {
    let written = &text[span.start..span.end];
    let written = &written[..quoted_len(written)];
    let (start, end) = (span.start, span.start + written.len());
    let is_quoted = written.len() >= 2
        && (written.starts_with('"') || written.starts_with('\''))
        && written.ends_with(&written[..1]);
    if is_quoted { Span::new(start + 1, end - 1) } else { Span::new(start, end) }
}

/// The lines that differ, each with what comes before and after it.
#[must_use]
pub fn difference(old: &str, new: &str) -> Vec<(char, String)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // Lines are only replaced, so that they pair up.
    if old.len() != new.len() {
        let all = old.iter().map(|line| ('-', (*line).to_owned()));
        return all.chain(new.iter().map(|line| ('+', (*line).to_owned()))).collect();
    }
    let mut lines = Vec::new();
    for (old, new) in old.iter().zip(&new) {
        if old != new {
            lines.push(('-', (*old).to_owned()));
            lines.push(('+', (*new).to_owned()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "\
# Kept.
name        : demo
version     : \"1.2\"   # the version
release     : 7
homepage    : https://example.org
license     : MIT
upstreams   :
    - https://example.org/demo-1.2.tar.xz : 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef # main
    - \"git|https://example.org/sub.git\": 'v1.2'
    - https://example.org/data.zip:
        rename: data   # odd
        hash: \"1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"
install     : |
    echo 1.2
";

    #[test]
    fn only_what_changes_changes() {
        let hash = |digit: &str| Hash::parse(&digit.repeat(64)).expect("a hash");
        let change = Change {
            version: Some("1.10".into()),
            release: Some(8),
            upstreams: vec![
                (
                    0,
                    NewUpstream::Archive {
                        url: "https://example.org/demo-1.10.tar.xz".into(),
                        hash: hash("a"),
                    },
                ),
                (1, NewUpstream::Git { reference: "v1.10".into() }),
                (
                    2,
                    NewUpstream::Archive {
                        url: "https://example.org/data.zip".into(),
                        hash: hash("b"),
                    },
                ),
            ],
        };
        let changed = apply(RECIPE, &change).expect("a recipe");
        let expected = RECIPE
            .replace(": \"1.2\"   #", ": \"1.10\"   #")
            .replace(": 7", ": 8")
            .replace("demo-1.2.tar.xz", "demo-1.10.tar.xz")
            .replace(&["0123456789abcdef"; 4].concat(), &"a".repeat(64))
            .replace("'v1.2'", "'v1.10'")
            .replace(
                "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                &"b".repeat(64),
            );
        assert_eq!(changed, expected);
        let lines = difference(RECIPE, &changed);
        assert_eq!(lines.len(), 10, "{lines:?}");
        assert_eq!(lines[0], ('-', "version     : \"1.2\"   # the version".into()));
    }

    #[test]
    fn an_impossible_change_is_refused() {
        let git = NewUpstream::Git { reference: "x".into() };
        let change = Change { upstreams: vec![(0, git.clone())], ..Change::default() };
        assert!(apply(RECIPE, &change).is_err());
        let change = Change { upstreams: vec![(9, git)], ..Change::default() };
        assert!(apply(RECIPE, &change).is_err());
        let change = Change { version: Some("../x".into()), ..Change::default() };
        assert!(apply(RECIPE, &change).is_err());
    }
}
