//! From text to a tree of nodes.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::{Key, Node, Scalar, Style, Value};
use crate::problem::{Problem, Span};

/// The longest file in bytes.
pub(crate) const MAX_LEN: usize = 4 << 20;
/// How deep lists and maps may lie in each other.
const MAX_DEPTH: usize = 24;
/// The most nodes, counting what an alias repeats each time.
const MAX_NODES: usize = 200_000;

/// Reads a file with one document.
///
/// # Errors
/// The first thing that is wrong, at its place: broken YAML, more than one
/// document, a key twice, a key that is no text, tags, and whatever is over the
/// limits above.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > MAX_LEN {
        let message = format!("the file has more than {MAX_LEN} bytes");
        return Err(Problem::error(Span::default(), message));
    }
    let mut builder = Builder { offsets: offsets(text), text, anchors: HashMap::new(), nodes: 0 };
    let events = Parser::new_from_str(text);
    let mut root = None;
    let mut stack: Vec<Open> = Vec::new();
    for event in events {
        let (event, span) = event.map_err(|err| {
            let at = builder.offset(err.marker());
            Problem::error(Span::new(at, at), format!("broken YAML: {}", err.info()))
        })?;
        let span = Span::new(builder.offset(&span.start), builder.offset(&span.end));
        let done = match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
            Event::Alias(anchor) => {
                let Some((size, node)) = builder.anchors.get(&anchor).cloned() else {
                    return Err(Problem::error(span, "an alias of something that is not complete")
                        .hint("a value cannot contain itself"));
                };
                builder.count(size, span)?;
                (0, Node { span, ..node })
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                let (style, span) = builder.style(style, span);
                let value = Value::Scalar(Scalar { text: text.into_owned(), style });
                builder.count(1, span)?;
                (anchor, Node { span, value })
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                push(&mut stack, Open::list(anchor, span, builder.nodes))?;
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                push(&mut stack, Open::map(anchor, span, builder.nodes))?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = stack.pop().expect("the parser ends what it began");
                builder.count(1, span)?;
                (open.anchor, open.close(span))
            }
        };
        let (anchor, node) = done;
        if anchor > 0 {
            builder.anchors.insert(anchor, (size_of(&node), node.clone()));
        }
        match stack.last_mut() {
            Some(open) => open.add(node)?,
            None if root.is_none() => root = Some(node),
            None => {
                return Err(Problem::error(node.span, "a second document in the file")
                    .hint("one file has one document; remove the line \"---\""));
            }
        }
    }
    root.ok_or_else(|| Problem::error(Span::default(), "the file is empty"))
}

fn push(stack: &mut Vec<Open>, open: Open) -> Result<(), Problem> {
    if stack.len() == MAX_DEPTH {
        let message = format!("lists and maps are over {MAX_DEPTH} levels deep");
        return Err(Problem::error(open.span, message));
    }
    stack.push(open);
    Ok(())
}

fn refuse_tag(there_is_one: bool, span: Span) -> Result<(), Problem> {
    if there_is_one {
        return Err(Problem::error(span, "tags (!name) have no meaning here")
            .hint("quote the text if it begins with an exclamation mark"));
    }
    Ok(())
}

fn size_of(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 1,
        Value::List(items) => 1 + items.iter().map(size_of).sum::<usize>(),
        Value::Map(pairs) => 1 + pairs.iter().map(|(_, node)| 1 + size_of(node)).sum::<usize>(),
    }
}

struct Builder<'a> {
    text: &'a str,
    /// Byte offset of each character, if not all are ASCII.
    offsets: Option<Vec<u32>>,
    /// Nodes that have an anchor, and how many nodes each is.
    anchors: HashMap<usize, (usize, Node)>,
    nodes: usize,
}

fn offsets(text: &str) -> Option<Vec<u32>> {
    let offset = |(at, _)| u32::try_from(at).expect("the file is not that long");
    (!text.is_ascii()).then(|| text.char_indices().map(offset).collect())
}

impl Builder<'_> {
    fn offset(&self, marker: &Marker) -> usize {
        let at = match &self.offsets {
            Some(offsets) => offsets.get(marker.index()).map_or(self.text.len(), |it| *it as usize),
            None => marker.index(),
        };
        at.min(self.text.len())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let message = format!("over {MAX_NODES} values, counting those that aliases repeat");
            return Err(Problem::error(span, message));
        }
        Ok(())
    }

    /// The style, and for blocks the span of their header and their lines.
    fn style(&self, style: ScalarStyle, span: Span) -> (Style, Span) {
        match style {
            ScalarStyle::Plain => (Style::Plain, span),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => (Style::Quoted, span),
            ScalarStyle::Literal => (Style::Literal, span),
            ScalarStyle::Folded => (Style::Folded, span),
        }
    }
}

/// A list or map whose end has not come yet.
struct Open {
    anchor: usize,
    span: Span,
    content: Value,
    keys: HashSet<String>,
    key: Option<Key>,
}

impl Open {
    fn list(anchor: usize, span: Span, _: usize) -> Self {
        let content = Value::List(Vec::new());
        Self { anchor, span, content, keys: HashSet::new(), key: None }
    }

    fn map(anchor: usize, span: Span, _: usize) -> Self {
        let content = Value::Map(Vec::new());
        Self { anchor, span, content, keys: HashSet::new(), key: None }
    }

    fn add(&mut self, node: Node) -> Result<(), Problem> {
        let pairs = match &mut self.content {
            Value::List(items) => {
                items.push(node);
                return Ok(());
            }
            Value::Map(pairs) => pairs,
            Value::Scalar(_) => unreachable!("a scalar is never open"),
        };
        if let Some(key) = self.key.take() {
            pairs.push((key, node));
            return Ok(());
        }
        let Value::Scalar(Scalar { text, .. }) = node.value else {
            return Err(Problem::error(node.span, "a key must be a text"));
        };
        if !self.keys.insert(text.clone()) {
            let first = pairs.iter().find(|(key, _)| key.text == text).map(|(key, _)| key.span);
            let problem = Problem::error(node.span, format!("{text:?} is there twice"));
            return Err(match first {
                Some(first) => problem.also(first, "the first one is here"),
                None => problem,
            });
        }
        self.key = Some(Key { span: node.span, text });
        Ok(())
    }

    fn close(self, end: Span) -> Node {
        Node { span: Span::new(self.span.start, end.end.max(self.span.end)), value: self.content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        fn show(text: &str, node: &Node, to: &mut String) {
            match &node.value {
                Value::Scalar(it) => {
                    to.push_str(&format!("{:?}@{}", it.text, &text[..node.span.start].len()));
                }
                Value::List(items) => {
                    to.push('[');
                    items.iter().for_each(|item| {
                        show(text, item, to);
                        to.push(' ');
                    });
                    to.push(']');
                }
                Value::Map(pairs) => {
                    to.push('{');
                    pairs.iter().for_each(|(key, node)| {
                        to.push_str(&format!("{}@{}:", key.text, key.span.start));
                        show(text, node, to);
                        to.push(' ');
                    });
                    to.push('}');
                }
            }
        }
        let mut to = String::new();
        show(text, &parse(text).expect(text), &mut to);
        to
    }

    fn refused(text: &str) -> (usize, String) {
        let problem = parse(text).expect_err(text);
        (problem.span.start, problem.message)
    }

    #[test]
    fn every_value_has_its_place() {
        assert_eq!(
            shown("a: 1\nb:\n  - x\n  - 'y'\n"),
            r#"{a@0:"1"@3 b@5:["x"@12 "y"@18 ]@ }"#.replace("]@", "]")
        );
        // Places are those of bytes, whatever comes before.
        assert_eq!(shown("ä: ü\nb: c\n"), r#"{ä@0:"ü"@4 b@7:"c"@10 }"#);
    }

    #[test]
    fn aliases_are_what_they_stand_for_up_to_a_limit() {
        assert_eq!(shown("a: &x [1]\nb: *x\n"), r#"{a@0:["1"@7 ] b@10:["1"@7 ] }"#);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let item = format!("*a{}", level - 1);
            let items = vec![item; 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{items}]\n");
        }
        let (at, message) = refused(&bomb);
        assert!(message.contains("over 200000 values"), "{message}");
        assert!(bomb[at..].starts_with("*a"), "{at}");
        let (_, message) = refused("a: &x [*x]\n");
        assert!(message.contains("not complete"), "{message}");
    }

    #[test]
    fn what_is_no_recipe_of_anything_is_refused_at_its_place() {
        let check = |text: &str, at: usize, expected: &str| {
            let (found, message) = refused(text);
            assert!(message.contains(expected), "{text:?}: {message}");
            assert_eq!(found, at, "{text:?}: {message}");
        };
        check("", 0, "empty");
        check("a: 1\na: 2\n", 5, "twice");
        check("a: !x 1\n", 3, "tags");
        check("? [a]\n: b\n", 2, "a key must be a text");
        check("a: 1\n---\nb: 2\n", 9, "second document");
        check("a: [\n", 5, "broken YAML");
        let deep = format!("a: {}", "[".repeat(100));
        check(&deep, 3 + MAX_DEPTH - 1, "levels deep");
        check(&"- ".repeat(100), 2 * MAX_DEPTH, "levels deep");
        let (_, message) = refused(&"a".repeat(MAX_LEN + 1));
        assert!(message.contains("bytes"), "{message}");
    }
}
