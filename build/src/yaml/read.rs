//! From nodes to the values that a format wants, collecting what is wrong.

use super::{Key, Node, Scalar, Style, Value};
use crate::problem::{Problem, Span, nearest};

/// Reads values and collects every problem, not only the first.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) problems: Vec<Problem>,
}

/// More problems than this in one file are not told.
const MAX_PROBLEMS: usize = 100;

impl Reader {
    pub(crate) fn push(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.push(Problem::error(span, message));
    }

    fn expected(&mut self, node: &Node, what: &str, expected: &str) {
        let kind = node.kind();
        self.error(node.span, format!("{what} must be {expected}, and this is {kind}"));
    }

    /// A text that is not empty.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        if node.is_null() {
            self.error(node.span, format!("{what} is empty"));
            return None;
        }
        let Some(text) = node.as_text() else {
            self.expected(node, what, "a text");
            return None;
        };
        if text.trim().is_empty() {
            self.error(node.span, format!("{what} is empty"));
            return None;
        }
        if text.contains('\0') {
            self.error(node.span, format!("{what} has a NUL byte"));
            return None;
        }
        Some(text)
    }

    /// `true` or `false`, quoted or not.
    pub(crate) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        match node.as_text() {
            Some("true" | "True" | "TRUE") => Some(true),
            Some("false" | "False" | "FALSE") => Some(false),
            Some(text) => {
                let problem = Problem::error(
                    node.span,
                    format!("{what} must be true or false, not {text:?}"),
                );
                self.push(match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "1" => problem.hint("write true"),
                    "no" | "off" | "0" => problem.hint("write false"),
                    _ => problem,
                });
                None
            }
            None => {
                self.expected(node, what, "true or false");
                None
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn number(
        &mut self,
        node: &Node,
        what: &str,
        (least, most): (u64, u64),
    ) -> Option<u64> {
        let Value::Scalar(Scalar { text, style }) = &node.value else {
            self.expected(node, what, "a number");
            return None;
        };
        let range = if most == u64::MAX {
            format!("a whole number from {least} on")
        } else {
            format!("a whole number from {least} to {most}")
        };
        let number = match style {
            Style::Plain => text.parse::<u64>().ok().filter(|it| (least..=most).contains(it)),
            _ => None,
        };
        if number.is_none() {
            let problem =
                Problem::error(node.span, format!("{what} must be {range}, not {text:?}"));
            let unquoted = *style != Style::Plain && text.parse::<u64>().is_ok();
            self.push(if unquoted { problem.hint("write it without quotes") } else { problem });
        }
        number
    }

    /// The items of a list; a list that is written as nothing is empty.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            _ if node.is_null() => &[],
            _ => {
                let kind = node.kind();
                let message = format!("{what} must be a list, and this is {kind}");
                let problem = Problem::error(node.span, message);
                let is_text = node.as_text().is_some();
                self.push(if is_text {
                    problem.hint("write it as an item: - ...")
                } else {
                    problem
                });
                &[]
            }
        }
    }

    /// The texts of a list.
    pub(crate) fn texts<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(&'n str, Span)> {
        let item = format!("an item of {what}");
        let items = self.list(node, what);
        items.iter().filter_map(|it| Some((self.text(it, &item)?, it.span))).collect()
    }

    /// The pairs of a map; a map that is written as nothing is empty.
    pub(crate) fn map<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(Key, Node)] {
        match &node.value {
            Value::Map(pairs) => pairs,
            _ if node.is_null() => &[],
            _ => {
                self.expected(node, what, "a map");
                &[]
            }
        }
    }

    /// The key and the value of a map that has one pair.
    pub(crate) fn pair<'n>(&mut self, node: &'n Node, what: &str) -> Option<(&'n Key, &'n Node)> {
        match &node.value {
            Value::Map(pairs) => match pairs.as_slice() {
                [(key, value)] => return Some((key, value)),
                pairs => {
                    let span = pairs.get(1).map_or(node.span, |(key, _)| key.span);
                    let message = format!("{what} must be a map with one key, not {}", pairs.len());
                    self.push(
                        Problem::error(span, message)
                            .hint("begin each one with a dash, and indent what belongs to it more"),
                    );
                }
            },
            _ => self.expected(node, what, "a map with one key"),
        }
        None
    }

    /// The fields of a map, to be taken one by one.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, what: &str) -> Fields<'n> {
        let pairs = self.map(node, what);
        Fields { pairs: pairs.iter().map(|(key, value)| (key, value, false)).collect() }
    }
}

/// The fields of a map.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    /// With whether it was asked for.
    pairs: Vec<(&'n Key, &'n Node, bool)>,
}

impl<'n> Fields<'n> {
    /// The value of a field.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'n Node> {
        let (_, node, taken) = self.pairs.iter_mut().find(|(key, ..)| key.text == name)?;
        *taken = true;
        Some(node)
    }

    /// Complains of every field that nobody has asked for; `known` are all that
    /// there could be.
    pub(crate) fn finish(&self, known: &[&str], reader: &mut Reader) {
        for (key, ..) in self.pairs.iter().filter(|(.., taken)| !taken) {
            let problem = Problem::error(key.span, format!("unknown key {:?}", key.text));
            reader.push(match nearest(&key.text, known.iter().copied()) {
                Some(meant) => problem.hint(format!("did you mean {meant:?}?")),
                None => problem.hint(format!("known here: {}", known.join(", "))),
            });
        }
    }
}
