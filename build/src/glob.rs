//! Patterns of paths, as recipes write them.
//!
//! | in a pattern | in a path |
//! |---|---|
//! | `?` | one character, also `/` |
//! | `*` | any run of characters, also none and also with `/` |
//! | `**` as a whole component | any run of components, also none |
//! | `[a-z]`, `[!a-z]` | one character of these, or of all others |
//! | anything else | itself |

/// A pattern, ready to be compared with many paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    AnyChar,
    AnyRun,
    /// Ends only behind a `/`, where it began.
    AnyComponents,
    /// Ranges of characters, and whether they are those that do not match.
    Class(Vec<(char, char)>, bool),
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGlob {
    /// `[` without `]`.
    #[error("\"[\" has no \"]\"")]
    OpenClass,
    /// `**` beside other characters.
    #[error("\"**\" must be a whole component, as in /a/**/b")]
    PartialComponents,
    /// `***` and more.
    #[error("more than two stars have no meaning")]
    Stars,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`InvalidGlob`].
    pub fn new(pattern: &str) -> Result<Self, InvalidGlob> {
        let chars: Vec<char> = pattern.chars().collect();
        let mut tokens = Vec::with_capacity(chars.len());
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            match c {
                '?' => tokens.push(Token::AnyChar),
                '*' => {
                    let stars = chars[at..].iter().take_while(|c| **c == '*').count();
                    let before = at == 0 || chars[at - 1] == '/';
                    let after = chars.get(at + stars).is_none_or(|c| *c == '/');
                    match stars {
                        1 => tokens.push(Token::AnyRun),
                        2 if before && after => {
                            tokens.push(Token::AnyComponents);
                            // The slash behind it belongs to what it stands for.
                            at += usize::from(chars.get(at + 2).is_some());
                        }
                        2 => return Err(InvalidGlob::PartialComponents),
                        _ => return Err(InvalidGlob::Stars),
                    }
                    at += stars - 1;
                }
                '[' => {
                    let (class, len) = class(&chars[at..]).ok_or(InvalidGlob::OpenClass)?;
                    tokens.push(class);
                    at += len - 1;
                }
                c => tokens.push(Token::Char(c)),
            }
            at += 1;
        }
        Ok(Self { tokens })
    }

    /// Whether the whole of `path` has this form.
    ///
    /// Costs at most the product of both lengths, whatever the pattern.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        // The set of tokens before which the path so far can end.
        let mut now = vec![false; self.tokens.len() + 1];
        let mut next = now.clone();
        now[0] = true;
        let mut behind_slash = true;
        self.skip_empty(&mut now, behind_slash);
        for c in path.chars() {
            next.fill(false);
            let ends_component = c == '/';
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
                match token {
                    Token::Char(own) => next[at + 1] |= *own == c,
                    Token::AnyChar => next[at + 1] = true,
                    Token::Class(ranges, negated) => {
                        let within = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                        next[at + 1] |= within != *negated;
                    }
                    Token::AnyRun | Token::AnyComponents => next[at] = true,
                }
            }
            behind_slash = ends_component;
            std::mem::swap(&mut now, &mut next);
            self.skip_empty(&mut now, behind_slash);
        }
        // A run of components at the end of the pattern ends with the path.
        now[self.tokens.len()]
            || (now[self.tokens.len() - usize::from(!self.tokens.is_empty())]
                && matches!(self.tokens.last(), Some(Token::AnyComponents)))
    }

    /// Adds the tokens behind those that may stand for nothing more.
    fn skip_empty(&self, states: &mut [bool], behind_slash: bool) {
        for (at, token) in self.tokens.iter().enumerate() {
            let may_end = match token {
                Token::AnyRun => true,
                Token::AnyComponents => behind_slash,
                _ => false,
            };
            if states[at] && may_end {
                states[at + 1] = true;
            }
        }
    }
}

/// The class at the beginning of `chars`, and its length; none if it does not
/// end. A `]` or `-` at its beginning means itself.
fn class(chars: &[char]) -> Option<(Token, usize)> {
    let negated = chars.get(1) == Some(&'!');
    let begin = 1 + usize::from(negated);
    // The first character cannot be the end.
    let end = begin + 1 + chars.get(begin + 1..)?.iter().position(|c| *c == ']')?;
    let inner = &chars[begin..end];
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < inner.len() {
        if at + 2 < inner.len() && inner[at + 1] == '-' {
            ranges.push((inner[at], inner[at + 2]));
            at += 3;
        } else {
            ranges.push((inner[at], inner[at]));
            at += 1;
        }
    }
    Some((Token::Class(ranges, negated), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_recipes_expect() {
        let check = |pattern: &str, path: &str, expected: bool| {
            let glob = Glob::new(pattern).expect(pattern);
            assert_eq!(glob.matches(path), expected, "{pattern} {path}");
        };
        check("*", "/usr/bin/nano", true);
        check("/usr/include", "/usr/include", true);
        check("/usr/include", "/usr/include/x.h", false);
        check("/usr/include/**", "/usr/include/a/b.h", true);
        check("/usr/include/**", "/usr/include", false);
        check("/usr/lib/lib*.so", "/usr/lib/libz.so", true);
        check("/usr/lib/lib*.so", "/usr/lib/libfoo/libbar.so", true);
        check("/usr/lib/lib*.so", "/usr/lib/libz.so.1", false);
        check("/usr/lib/*.a", "/usr/lib/foo/libx.a", true);
        check("/usr/lib/qt*/mkspecs", "/usr/lib/qt6/mkspecs", true);
        check("/usr/lib/lib?.so", "/usr/lib/libz.so", true);
        check("/usr/lib/lib?.so", "/usr/lib/lib/.so", true);
        check("/a/**/b", "/a/b", true);
        check("/a/**/b", "/a/x/y/b", true);
        check("/a/**/b", "/a/xb", false);
        check("**", "/anything/at/all", true);
        check("/a/**/b/**/c", "/a/1/b/2/3/c", true);
        check("/x[0-9]y", "/x5y", true);
        check("/x[!0-9]y", "/x5y", false);
        check("/x[!0-9]y", "/xay", true);
        check("/x[]a]", "/x]", true);
        check("/x[a-]", "/x-", true);
        check("/ü?", "/üä", true);
        check("", "", true);
        check("", "/", false);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (pattern, expected) in [
            ("/a**", InvalidGlob::PartialComponents),
            ("/**b", InvalidGlob::PartialComponents),
            ("/***", InvalidGlob::Stars),
            ("/[a", InvalidGlob::OpenClass),
            ("[", InvalidGlob::OpenClass),
            ("[]", InvalidGlob::OpenClass),
            ("[!]", InvalidGlob::OpenClass),
        ] {
            assert_eq!(Glob::new(pattern), Err(expected), "{pattern}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let glob = Glob::new(&"*a".repeat(500)).expect("a pattern");
        assert!(!glob.matches(&"a".repeat(499)));
        assert!(glob.matches(&"ab".repeat(499).replace('b', "aa")));
    }

    proptest::proptest! {
        /// The textbook's definition, which tries everything.
        #[test]
        fn matching_is_that_of_the_definition(
            pattern in "(a|/|\\*|\\?|/\\*\\*/|b){0,8}",
            path in "[ab/]{0,8}",
        ) {
            if let Ok(glob) = Glob::new(&pattern) {
                let path: Vec<char> = path.chars().collect();
                let text: String = path.iter().collect();
                proptest::prop_assert_eq!(
                    glob.matches(&text), definition(&glob.tokens, &path, true), "{}", pattern
                );
            }
        }
    }

    fn definition(tokens: &[Token], path: &[char], behind_slash: bool) -> bool {
        let Some((token, rest)) = tokens.split_first() else { return path.is_empty() };
        match token {
            Token::AnyRun => (0..=path.len()).any(|len| {
                let behind = if len == 0 { behind_slash } else { path[len - 1] == '/' };
                definition(rest, &path[len..], behind)
            }),
            Token::AnyComponents => (0..=path.len()).any(|len| {
                let behind = if len == 0 { behind_slash } else { path[len - 1] == '/' };
                (behind || (len == path.len() && rest.is_empty()))
                    && definition(rest, &path[len..], behind)
            }),
            token => path.split_first().is_some_and(|(c, below)| {
                let fits = match token {
                    Token::Char(own) => own == c,
                    Token::Class(ranges, negated) => {
                        ranges.iter().any(|(from, to)| (*from..=*to).contains(c)) != *negated
                    }
                    _ => true,
                };
                fits && definition(rest, below, *c == '/')
            }),
        }
    }
}
