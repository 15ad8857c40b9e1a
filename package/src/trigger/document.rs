//! KDL documents of a known form as values.

use kdl::{KdlDocument, KdlNode, KdlValue};
use serde_yaml::{Mapping, Value};

/// A node that is known, by its name.
#[derive(Clone, Copy)]
pub(super) struct Field(pub(super) &'static str, pub(super) Kind);

/// What a node holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// One text.
    Text,
    /// Several texts behind its name, or as children that are called `-`.
    List,
    /// These nodes.
    Fields(&'static [Field]),
    /// Nodes of any names with these in each.
    Map(&'static [Field]),
}

/// The value that `text` describes; nodes that are not in `shape` are left out,
/// as in YAML.
pub(super) fn value(text: &str, shape: &[Field]) -> Result<Value, String> {
    let document: KdlDocument = text.parse().map_err(|err: kdl::KdlError| {
        let diagnostic = err.diagnostics.first();
        let message = diagnostic.and_then(|it| it.message.clone()).unwrap_or(err.to_string());
        let line = diagnostic.map(|it| {
            let end = it.span.offset().min(text.len());
            text.as_bytes()[..end].iter().filter(|&&byte| byte == b'\n').count() + 1
        });
        line.map_or(message.clone(), |line| format!("line {line}: {message}"))
    })?;
    fields(Some(&document), shape)
}

fn fields(document: Option<&KdlDocument>, shape: &[Field]) -> Result<Value, String> {
    let mut mapping = Mapping::new();
    for node in document.map(KdlDocument::nodes).unwrap_or_default() {
        let name = node.name().value();
        let Some(Field(_, kind)) = shape.iter().find(|field| field.0 == name) else { continue };
        mapping.insert(name.into(), of_node(node, *kind)?);
    }
    Ok(Value::Mapping(mapping))
}

fn of_node(node: &KdlNode, kind: Kind) -> Result<Value, String> {
    Ok(match kind {
        Kind::Text => match &texts(node)?[..] {
            [text] => text.as_str().into(),
            _ => return Err(format!("`{}` has to have one text", node.name().value())),
        },
        Kind::List => texts(node)?.into(),
        Kind::Fields(shape) => fields(node.children(), shape)?,
        Kind::Map(shape) => {
            let mut mapping = Mapping::new();
            for child in node.children().map(KdlDocument::nodes).unwrap_or_default() {
                let name = child.name().value();
                mapping.insert(name.into(), fields(child.children(), shape)?);
            }
            Value::Mapping(mapping)
        }
    })
}

/// The texts behind the name of a node, and those of its children called `-`.
fn texts(node: &KdlNode) -> Result<Vec<String>, String> {
    let children = node.children().map(KdlDocument::nodes).unwrap_or_default();
    let items = children.iter().filter(|child| child.name().value() == "-");
    let entries = node.entries().iter().chain(items.flat_map(KdlNode::entries));
    let text = |value: &KdlValue| match value {
        KdlValue::String(text) => Ok(text.clone()),
        other => Err(format!("`{}` has {other}, which is not a text", node.name().value())),
    };
    entries.filter(|entry| entry.name().is_none()).map(|entry| text(entry.value())).collect()
}
