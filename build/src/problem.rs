//! What is wrong with a file that somebody wrote: where, what, and what to do.

use std::fmt;

use serde::Serialize;

/// A range of bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of its first byte.
    pub start: usize,
    /// Offset after its last byte; never below `start`.
    pub end: usize,
}

impl Span {
    /// The bytes from `start` to before `end`.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }
}

/// Whether a file can be used in spite of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, and somebody should look.
    Warning,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the file can be used.
    pub severity: Severity,
    /// Where it is.
    pub span: Span,
    /// What it is, in one line.
    pub message: String,
    /// What to do about it, in one line.
    pub hint: Option<String>,
    /// Another place that explains it.
    pub also: Option<(Span, String)>,
}

impl Problem {
    /// Something with which the file cannot be used.
    #[must_use]
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        let (message, severity) = (shortened(message.into()), Severity::Error);
        Self { severity, span, message, hint: None, also: None }
    }

    /// Something that somebody should look at.
    #[must_use]
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Points at another place that explains it.
    #[must_use]
    pub fn also(self, span: Span, message: impl Into<String>) -> Self {
        Self { also: Some((span, message.into())), ..self }
    }

    /// The problem with the lines of `text` that it is about.
    #[must_use]
    pub fn located(&self, text: &str) -> Located {
        let also = self.also.as_ref();
        Located {
            severity: self.severity,
            place: Place::of(self.span, text),
            message: self.message.clone(),
            hint: self.hint.clone(),
            also: also.map(|(span, message)| (Place::of(*span, text), message.clone())),
        }
    }
}

/// A problem with its place as people count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located {
    /// Whether the file can be used.
    pub severity: Severity,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// What it is.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Another place that explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub also: Option<(Place, String)>,
}

/// A place in a file as people count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The first is 1.
    pub line: usize,
    /// In characters; the first is 1.
    pub column: usize,
    /// The text of the line.
    pub text: String,
    /// How many characters of the line are meant, at least 1.
    #[serde(skip)]
    pub len: usize,
}

/// Values of a file are quoted in messages, and may be as long as the file: so many
/// bytes of the beginning and of the end are told.
const MAX_MESSAGE: (usize, usize) = (300, 80);

fn shortened(message: String) -> String {
    let (begin, end) = MAX_MESSAGE;
    if message.len() <= begin + end {
        return message;
    }
    let (first, last) = (floor(&message, begin), floor(&message, message.len() - end));
    format!("{} ... {}", &message[..first], &message[last..])
}

/// More of a line than this is not shown.
const MAX_SHOWN: usize = 160;

impl Place {
    fn of(span: Span, text: &str) -> Self {
        let start = floor(text, span.start);
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[..begin].matches('\n').count() + 1;
        let within = &text[start..floor(text, span.end.min(end)).max(start)];
        let shown: String = text[begin..end].chars().take(MAX_SHOWN).collect();
        Self {
            line,
            column: text[begin..start].chars().count() + 1,
            text: shown,
            len: within.trim_end().chars().count().max(1),
        }
    }

    /// The line with its number, and marks below what is meant.
    fn quote(&self, mark: char) -> String {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let visible = |c: char| if c == '\t' { ' ' } else { c };
        let text: String = self.text.chars().map(visible).filter(|c| !c.is_control()).collect();
        let room = MAX_SHOWN.saturating_sub(self.column - 1);
        let marks = mark.to_string().repeat(self.len.min(room.max(1)));
        let before = " ".repeat((self.column - 1).min(MAX_SHOWN));
        format!(" {number} | {}\n {gutter} | {before}{marks}", text.trim_end())
    }
}

/// The nearest boundary of characters at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Several lines: `line:column: error: message`, the line of the file, the
/// hint.
impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, .. } = self.place;
        write!(
            f,
            "{line}:{column}: {}: {}\n{}",
            self.severity,
            self.message,
            self.place.quote('^')
        )?;
        if let Some((place, message)) = &self.also {
            write!(f, "\n{}:{}: {message}\n{}", place.line, place.column, place.quote('-'))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n   = {hint}")?;
        }
        Ok(())
    }
}

/// The one of `known` that somebody meant who wrote `written`.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance = |other: &str| edits(written, other);
    let candidates = known.into_iter().map(|other| (distance(other), other));
    let (distance, best) = candidates.min_by_key(|(distance, _)| *distance)?;
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    (distance <= allowed).then_some(best)
}

/// How many letters have to be put in, taken out, changed, or swapped with
/// their neighbours.
fn edits(left: &str, right: &str) -> usize {
    // Nobody means a name of this length.
    if left.len() > 64 || right.len() > 64 {
        return usize::MAX;
    }
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (left, right) = (letters(left), letters(right));
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let change = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            let swapped =
                i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if swapped {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line() {
        let text = "name: x\n  ümlaut: yes\n";
        let problem = Problem::error(Span::new(10, 17), "unknown key \"ümlaut\"")
            .hint("did you mean \"umlaut\"?")
            .also(Span::new(0, 4), "the map begins here");
        assert_eq!(
            problem.located(text).to_string(),
            "\
2:3: error: unknown key \"ümlaut\"
 2 |   ümlaut: yes
   |   ^^^^^^
1:1: the map begins here
 1 | name: x
   | ----
   = did you mean \"umlaut\"?"
        );
    }

    #[test]
    fn a_place_is_always_one_of_the_file() {
        for text in ["", "ä", "\n", "a\nb", "a\r\nb\t\u{7}c"] {
            for start in 0..8 {
                for end in start..8 {
                    let place = Place::of(Span::new(start, end), text);
                    assert!(place.line >= 1 && place.column >= 1 && place.len >= 1);
                    assert!(!place.quote('^').contains('\u{7}'));
                }
            }
        }
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let known = ["tuning", "toolchain", "release"];
        let check = |written, expected| assert_eq!(nearest(written, known), expected, "{written}");
        check("tune", None);
        check("tunning", Some("tuning"));
        check("Release", Some("release"));
        check("x", None);
        check("toolchian", Some("toolchain"));
    }
}
