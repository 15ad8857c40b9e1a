//! What a recipe says of one package.

use super::check::{self, MAX_LINE, MAX_TEXT};
use super::{PackagePart, PathKind, PathRule, Spanned};
use crate::problem::Problem;
use crate::yaml::{Fields, Node, Reader, Value};

/// The fields of a package, which are among those of a recipe as well.
pub(super) const KEYS: &[&str] = &[
    "summary",
    "description",
    "rundeps",
    "rundeps-exclude",
    "provides-exclude",
    "conflicts",
    "paths",
];

/// Reads the fields of a package out of a map that may have others.
pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> PackagePart {
    let mut package = PackagePart::default();
    if let Some(node) = fields.take("summary") {
        package.summary = line(node, "summary", reader);
    }
    if let Some(node) = fields.take("description")
        && !node.is_null()
        && let Some(text) = reader.text(node, "description")
    {
        if text.len() > MAX_TEXT {
            reader.error(node.span, format!("a description of over {MAX_TEXT} bytes"));
        }
        package.description = Some(Spanned::new(node.span, text.trim().into()));
    }
    package.rundeps = dependencies(fields, "rundeps", reader);
    package.conflicts = dependencies(fields, "conflicts", reader);
    package.rundeps_exclude = patterns(fields, "rundeps-exclude", reader);
    package.provides_exclude = patterns(fields, "provides-exclude", reader);
    if let Some(node) = fields.take("paths") {
        for item in reader.list(node, "paths") {
            package.paths.extend(path(item, reader));
        }
    }
    package
}

fn line(node: &Node, what: &str, reader: &mut Reader) -> Option<Spanned<String>> {
    if node.is_null() {
        return None;
    }
    let text = reader.text(node, what)?.trim();
    if text.contains('\n') {
        reader.push(
            Problem::error(node.span, format!("the {what} has more than one line"))
                .hint("what needs more is a description"),
        );
    }
    if text.len() > MAX_LINE {
        reader.error(node.span, format!("a {what} of over {MAX_LINE} bytes"));
    }
    Some(Spanned::new(node.span, text.into()))
}

/// A list of dependencies.
pub(super) fn dependencies(
    fields: &mut Fields<'_>,
    name: &str,
    reader: &mut Reader,
) -> Vec<Spanned<String>> {
    let Some(node) = fields.take(name) else { return Vec::new() };
    let texts = reader.texts(node, name);
    for (text, span) in &texts {
        check::dependency(reader, text, *span);
    }
    texts.into_iter().map(|(text, span)| Spanned::new(span, text.into())).collect()
}

fn patterns(fields: &mut Fields<'_>, name: &str, reader: &mut Reader) -> Vec<Spanned<String>> {
    let Some(node) = fields.take(name) else { return Vec::new() };
    let texts = reader.texts(node, name);
    for (text, span) in &texts {
        check::regex(reader, text, *span);
    }
    texts.into_iter().map(|(text, span)| Spanned::new(span, text.into())).collect()
}

/// A path: a pattern, or a map from a pattern to a kind.
fn path(node: &Node, reader: &mut Reader) -> Option<Spanned<PathRule>> {
    let (glob, span, kind) = match &node.value {
        Value::Map(_) => {
            let (key, value) = reader.pair(node, "a path with a kind")?;
            let text = reader.text(value, "the kind of a path")?;
            let Some(kind) = PathKind::parse(text) else {
                let problem = Problem::error(value.span, format!("{text:?} is not a kind of path"));
                reader.push(problem.hint("known: any, exe, symlink, special"));
                return None;
            };
            (key.text.as_str(), key.span, kind)
        }
        _ => (reader.text(node, "a path")?, node.span, PathKind::Any),
    };
    if glob.len() > MAX_LINE {
        reader.error(span, "a path of this length is none");
        return None;
    }
    let rule = PathRule { glob: glob.into(), kind };
    check::path_rule(reader, &rule, span);
    Some(Spanned::new(span, rule))
}

impl PathKind {
    /// Reads the word of a recipe.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "any" => Some(Self::Any),
            "exe" => Some(Self::Exe),
            "symlink" => Some(Self::Symlink),
            "special" => Some(Self::Special),
            _ => None,
        }
    }
}
