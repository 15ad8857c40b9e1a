//! The language in which triggers say which paths they are about.
//!
//! ```text
//! ?               one character        (name:pattern)  captures what matches
//! *               any text without /   [ ] + ^ $ | { } as in regular expressions
//! **              any text             anything else   itself
//! ```
//!
//! Format: docs/triggers.md, "Patterns".

use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

/// What the groups of a pattern have captured, by name.
pub type Captures = BTreeMap<String, String>;

/// A pattern for whole paths, which begin with a slash.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
    regex: Regex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Itself.
    Text(String),
    /// `?`: one character.
    One,
    /// `*`: any text without a slash.
    Run,
    /// `**`: any text.
    Deep,
    /// What has its meaning in regular expressions.
    Special(char),
    /// `(name:pattern)`.
    Group(String, Vec<Token>),
}

/// A text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {text:?} {problem}")]
pub struct InvalidPattern {
    /// All of it.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The most that a compiled pattern may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A group without a name or an end or inside another, a name that is used
    /// twice or not a word, a backslash, and what regular expressions refuse.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |problem: String| InvalidPattern { text: text.into(), problem };
        let tokens = tokens(text).map_err(|problem| invalid(problem.into()))?;
        let mut source = String::from("^(?:");
        write_regex(&tokens, &mut source);
        source.push_str(")$");
        let mut builder = RegexBuilder::new(&source);
        builder.size_limit(SIZE_LIMIT).unicode(true);
        let regex = builder.build().map_err(|err| {
            // The expression that it quotes is none that anybody wrote.
            let text = err.to_string();
            let last = text.lines().last().unwrap_or_default();
            invalid(format!("is not valid: {}", last.trim_start_matches("error: ")))
        })?;
        Ok(Self { text: text.into(), tokens, regex })
    }

    /// The text that it was read from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the groups capture of `path`, if all of it matches.
    #[must_use]
    pub fn captures(&self, path: &str) -> Option<Captures> {
        if !path.starts_with(&*self.beginning(&Captures::new())) {
            return None;
        }
        let found = self.regex.captures(path)?;
        let names = self.regex.capture_names().flatten();
        Some(
            names
                .filter_map(|name| Some((name.into(), found.name(name)?.as_str().into())))
                .collect(),
        )
    }

    /// The text with which every path begins that matches and for which the
    /// groups capture what `captures` says.
    pub(super) fn beginning(&self, captures: &Captures) -> String {
        let mut text = String::new();
        if !self.has_special() {
            for token in &self.tokens {
                match token {
                    Token::Text(more) => text.push_str(more),
                    Token::Group(name, _) => match captures.get(name) {
                        Some(captured) => text.push_str(captured),
                        None => break,
                    },
                    _ => break,
                }
            }
        }
        text
    }

    /// How many components each path has that matches, if that is the same for
    /// all.
    pub(super) fn depth(&self) -> Option<usize> {
        fn slashes(tokens: &[Token]) -> Option<usize> {
            let slashes = tokens.iter().map(|token| match token {
                Token::Text(text) => Some(text.matches('/').count()),
                Token::Run => Some(0),
                Token::Group(_, tokens) => slashes(tokens),
                Token::One | Token::Deep | Token::Special(_) => None,
            });
            slashes.sum()
        }
        slashes(&self.tokens)
    }

    fn has_special(&self) -> bool {
        self.tokens.iter().any(|token| match token {
            Token::Special(_) => true,
            Token::Group(_, tokens) => {
                tokens.iter().any(|token| matches!(token, Token::Special(_)))
            }
            _ => false,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Two patterns are equal if their texts are.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut names = Vec::new();
    let mut all = Vec::new();
    let mut group: Option<(String, Vec<Token>)> = None;
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        let token = match char {
            '(' => {
                if group.is_some() {
                    return Err("has a group inside a group");
                }
                let mut name = String::new();
                loop {
                    match rest.next() {
                        Some(':') => break,
                        Some(')') | None => return Err("has a group without a name and a colon"),
                        Some(char) => name.push(char),
                    }
                }
                let is_word = name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
                if !is_word || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                    return Err("has a group whose name is not a word");
                }
                if names.contains(&name) {
                    return Err("has two groups of one name");
                }
                names.push(name.clone());
                group = Some((name, Vec::new()));
                continue;
            }
            ')' => match group.take() {
                Some((name, tokens)) => Token::Group(name, tokens),
                None => continue,
            },
            ':' if group.is_some() => return Err("has a group with two colons"),
            '?' => Token::One,
            '*' if rest.next_if_eq(&'*').is_some() => Token::Deep,
            '*' => Token::Run,
            '\\' => return Err("has a backslash, which means nothing in patterns"),
            '[' | ']' | '+' | '^' | '$' | '|' | '{' | '}' => Token::Special(char),
            char => Token::Text(char.into()),
        };
        let to = group.as_mut().map_or(&mut all, |(_, tokens)| tokens);
        match (to.last_mut(), token) {
            (Some(Token::Text(text)), Token::Text(more)) => text.push_str(&more),
            (_, token) => to.push(token),
        }
    }
    if group.is_some() { Err("has a group without an end") } else { Ok(all) }
}

fn write_regex(tokens: &[Token], to: &mut String) {
    for token in tokens {
        match token {
            // In a class, as in `[0-9]`, an escaped one would mean itself.
            Token::Text(text) => to.push_str(&regex::escape(text).replace("\\-", "-")),
            Token::One => to.push_str("(?s:.)"),
            Token::Run => to.push_str("[^/]*"),
            Token::Deep => to.push_str("(?s:.)*"),
            Token::Special(char) => to.push(*char),
            Token::Group(name, tokens) => {
                to.push_str(&format!("(?P<{name}>"));
                write_regex(tokens, to);
                to.push(')');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect(text)
    }

    fn matches(text: &str, path: &str) -> bool {
        pattern(text).captures(path).is_some()
    }

    #[test]
    fn wildcards_match_as_documented() {
        let check = |text: &str, path: &str, expected| {
            assert_eq!(matches(text, path), expected, "{text} {path}");
        };
        check("/usr/lib/*", "/usr/lib/a", true);
        check("/usr/lib/*", "/usr/lib/", true);
        check("/usr/lib/*", "/usr/lib/a/b", false);
        check("/usr/lib/*", "/usr/lib", false);
        check("/usr/lib/**", "/usr/lib/a/b", true);
        check("/usr/lib/**", "/usr/lib/", true);
        check("/usr/lib/**.so", "/usr/lib/a/b.so", true);
        check("/usr/lib/**.so", "/usr/lib/a/b.so.1", false);
        check("/a?b", "/axb", true);
        check("/a?b", "/a/b", true);
        check("/a?b", "/ab", false);
        check("/a?b", "/a\u{e4}b", true);
        check("/a.b", "/a.b", true);
        check("/a.b", "/axb", false);
        check("/usr/lib*/x", "/usr/lib32/x", true);
        check("/usr/lib*/x", "/usr/lib/y/x", false);
        check("/a/b", "x/a/b", false);
        check("/a/b", "/a/b/c", false);
        check("/a/*", "/a/line\nfeed", true);
        check("/a/**", "/a/line\nfeed", true);
        check("/\u{e4}/*", "/\u{e4}/b", true);
        check("/a)b", "/ab", true);
        check("/a:b", "/a:b", true);
        // What regular expressions mean.
        check("/[ab]c", "/bc", true);
        check("/[ab]c", "/[ab]c", false);
        check("/a+b", "/aaab", true);
        check("/a|/b", "/b", true);
    }

    #[test]
    fn groups_capture_and_are_greedy() {
        let check = |text: &str, path: &str, expected: &[(&str, &str)]| {
            let captures = pattern(text).captures(path).expect(path);
            let expected = expected.iter().map(|(name, text)| ((*name).into(), (*text).into()));
            assert_eq!(captures, expected.collect(), "{text} {path}");
        };
        check(
            "/usr/lib/modules/(version:*)/kernel",
            "/usr/lib/modules/6.1/kernel",
            &[("version", "6.1")],
        );
        check("/(a:**)/(b:*)", "/x/y/z", &[("a", "x/y"), ("b", "z")]);
        // Text right in front of a group stays there.
        check("/foo-(v:*)/x", "/foo-1/x", &[("v", "1")]);
        check("/lib/(abi:?*)/t", "/lib/2/t", &[("abi", "2")]);
        check("/(n:[0-9]+)", "/42", &[("n", "42")]);
        check("/plain", "/plain", &[]);
    }

    #[test]
    fn what_is_not_a_pattern_is_refused() {
        for text in [
            "/(a)",
            "/(a",
            "/(a:b",
            "/(a:b:c)",
            "/(a:(b:c))",
            "/(:x)",
            "/(a-b:*)",
            "/(1a:*)",
            "/(a:*)/(a:*)",
            "/a\\*",
            "/{a,b}",
            "/[a",
            "/a{2000}{2000}",
        ] {
            let problem = Pattern::new(text).expect_err(text);
            assert!(problem.to_string().contains(text) || text.contains('\\'), "{problem}");
            assert!(!problem.to_string().contains('\n'), "{problem}");
        }
    }

    #[test]
    fn the_beginning_holds_for_whatever_matches() {
        let none = Captures::new();
        let check = |text: &str, expected: &str, depth| {
            let pattern = pattern(text);
            assert_eq!(pattern.beginning(&none), expected, "{text}");
            assert_eq!(pattern.depth(), depth, "{text}");
        };
        check("/usr/lib/x", "/usr/lib/x", Some(3));
        check("/usr/lib*/x", "/usr/lib", Some(3));
        check("/usr/lib/**", "/usr/lib/", None);
        check("/usr/(a:*)/b", "/usr/", Some(3));
        check("/usr?lib", "/usr", None);
        check("/a+b", "", None);
        let icons = pattern("/usr/share/icons/(theme:*)/**.png");
        let captured = icons.captures("/usr/share/icons/hicolor/16/x.png").unwrap();
        assert_eq!(icons.beginning(&captured), "/usr/share/icons/hicolor/");
    }
}
