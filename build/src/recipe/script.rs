//! A script of a recipe, which knows where each of its bytes is in the file.

use crate::problem::Span;
use crate::yaml::{Node, Scalar, Style, Value};

/// A script as it is written, with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The text.
    pub text: String,
    /// Where it is in the file.
    pub span: Span,
    /// For each line of the text: where it begins in it, and in the file.
    lines: Vec<(usize, usize)>,
}

impl Script {
    /// A script that is in no file.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), span: Span::default(), lines: Vec::new() }
    }

    /// The script of a scalar of `file`.
    pub(crate) fn of(node: &Node, file: &str) -> Option<Self> {
        let Value::Scalar(Scalar { text, style }) = &node.value else { return None };
        let lines = match style {
            Style::Literal => literal_lines(text, node.span, file),
            Style::Plain if !text.contains('\n') => vec![(0, node.span.start)],
            Style::Quoted if !text.contains('\n') => vec![(0, node.span.start + 1)],
            Style::Plain | Style::Quoted | Style::Folded => Vec::new(),
        };
        Some(Self { text: text.clone(), span: node.span, lines })
    }

    /// Where some bytes of the text are in the file; the whole script, if that
    /// is not known.
    #[must_use]
    pub fn place(&self, part: Span) -> Span {
        let line = self.lines.iter().rev().find(|(begin, _)| *begin <= part.start);
        match line {
            Some((begin, place)) => {
                let start = place + (part.start - begin);
                Span::new(start, start + (part.end.saturating_sub(part.start)))
            }
            None => self.span,
        }
    }
}

/// A literal block has its lines as they are, but for their indentation.
fn literal_lines(text: &str, span: Span, file: &str) -> Vec<(usize, usize)> {
    let mut at = span.start;
    // The span begins at the header or at the content.
    if file[at..].starts_with('|') {
        at += file[at..].find('\n').map_or(0, |end| end + 1);
    } else {
        at = file[..at].rfind('\n').map_or(0, |end| end + 1);
    }
    let mut lines = Vec::new();
    let mut begin = 0;
    let mut source = file[at..].split_inclusive('\n');
    for line in text.split_inclusive('\n') {
        let Some(written) = source.next() else { return Vec::new() };
        let bare = line.trim_end_matches('\n');
        let Some(indent) = written.trim_end_matches(['\n', '\r']).len().checked_sub(bare.len())
        else {
            return Vec::new();
        };
        if !written[indent..].starts_with(bare) {
            return Vec::new();
        }
        lines.push((begin, at + indent));
        begin += line.len();
        at += written.len();
    }
    lines
}
