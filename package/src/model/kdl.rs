//! System models of moss, in KDL.

use ::kdl::{KdlDocument, KdlNode, KdlValue};
use serde_yaml::{Mapping, Value};

use super::{Model, Problem, yaml};
use crate::dependency::Dependency;
use crate::repository::Config;

/// How moss calls what a repository's own file calls otherwise.
const KEYS: [(&str, &str); 8] = [
    ("description", "description"),
    ("uri", "url"),
    ("base-uri", "base"),
    ("channel", "channel"),
    ("version", "version"),
    ("arch", "architecture"),
    ("priority", "priority"),
    ("enabled", "enabled"),
];

pub(super) fn parse(text: &str) -> Result<Model, Problem> {
    let document: KdlDocument = text.parse().map_err(|err: ::kdl::KdlError| {
        let message = err.diagnostics.first().and_then(|it| it.message.clone());
        Problem::Kdl(message.unwrap_or_else(|| err.to_string()))
    })?;
    let mut model = Model { repositories: Some(Vec::new()), ..Model::default() };
    for node in children(document.get("repositories")) {
        let config = repository(node)?;
        model.repositories.get_or_insert_default().push(config);
    }
    for node in children(document.get("packages")) {
        model.packages.insert(node.name().value().parse::<Dependency>()?);
    }
    Ok(model)
}

fn children(node: Option<&KdlNode>) -> &[KdlNode] {
    node.and_then(KdlNode::children).map(KdlDocument::nodes).unwrap_or_default()
}

fn repository(node: &KdlNode) -> Result<Config, Problem> {
    let name = node.name().value();
    let failed = |problem: String| Problem::Repository { name: name.into(), problem };
    let mut mapping = Mapping::new();
    for child in children(Some(node)) {
        let key = child.name().value();
        let Some((_, ours)) = KEYS.iter().find(|(theirs, _)| *theirs == key) else { continue };
        let value = match child.entries() {
            [entry] if entry.name().is_none() => value(entry.value()),
            _ => None,
        };
        let value = value.ok_or_else(|| failed(format!("`{key}` has to have one value")))?;
        // An empty text says as much as none.
        if value.as_str() != Some("") {
            mapping.insert((*ours).into(), value);
        }
    }
    if !mapping.contains_key("priority") {
        return Err(failed("it has no priority".into()));
    }
    yaml::repository(name, &Value::Mapping(mapping))
}

fn value(value: &KdlValue) -> Option<Value> {
    match value {
        KdlValue::String(text) => Some(text.as_str().into()),
        KdlValue::Integer(number) => Some(u64::try_from(*number).ok()?.into()),
        KdlValue::Bool(is) => Some((*is).into()),
        KdlValue::Float(_) | KdlValue::Null => None,
    }
}

/// Writes it as moss writes a fresh one: repositories by name, packages by kind and
/// name, what is as usual left out.
pub(super) fn write(model: &Model) -> String {
    let mut text = String::new();
    let mut repositories: Vec<&Config> = model.repositories.iter().flatten().collect();
    repositories.sort_by_key(|config| config.name.to_string());
    block(&mut text, "repositories", repositories, |text, config| {
        let yaml = config.to_yaml();
        let mapping: Mapping = serde_yaml::from_str(&yaml).expect("it was just written");
        text.push_str(&format!("    {} {{\n", quoted(config.name.as_str())));
        for (theirs, ours) in KEYS {
            let value = match mapping.get(ours) {
                Some(Value::String(value)) => {
                    let is_usual =
                        matches!((theirs, &**value), ("channel", "main") | ("arch", "x86_64"));
                    if is_usual {
                        continue;
                    }
                    format!("\"{}\"", escaped(value))
                }
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Bool(false)) if theirs == "enabled" => "#false".into(),
                _ => continue,
            };
            text.push_str(&format!("        {theirs} {value}\n"));
        }
        text.push_str("    }\n");
    });
    let mut packages: Vec<&Dependency> = model.packages.iter().collect();
    packages.sort_by_key(|package| (package.kind.number(), &package.text));
    block(&mut text, "packages", packages, |text, package| {
        text.push_str(&format!("    {}\n", quoted(&package.to_string())));
    });
    text
}

fn block<T>(text: &mut String, name: &str, items: Vec<T>, write: impl Fn(&mut String, T)) {
    if items.is_empty() {
        text.push_str(&format!("{name}\n"));
        return;
    }
    text.push_str(&format!("{name} {{\n"));
    for item in items {
        write(text, item);
    }
    text.push_str("}\n");
}

/// The name of a node, in quotes unless it can only be one.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char))
        && !["true", "false", "null", "inf", "nan"].contains(&name);
    if is_plain { name.into() } else { format!("\"{}\"", escaped(name)) }
}

fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|char| match char {
            '"' | '\\' => vec!['\\', char],
            '\n' => vec!['\\', 'n'],
            char if char.is_control() => vec![],
            char => vec![char],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As moss writes it, by its documented rules.
    const TEXT: &str = "repositories {\n    alpha {\n        uri \"file:///srv/alpha/stone.index\"\n        priority 50\n    }\n    beta {\n        uri \"file:///srv/beta/stone.index\"\n        priority 0\n        enabled #false\n    }\n}\npackages {\n    nano\n    \"binary(cc)\"\n}\n";

    #[test]
    fn a_model_of_moss_is_read_and_written() {
        let model = parse(TEXT).unwrap();
        let repositories = model.repositories.as_ref().unwrap();
        let names: Vec<&str> = repositories.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["alpha", "beta"]);
        assert_eq!((repositories[0].priority, repositories[0].enabled), (50, true));
        assert!(!repositories[1].enabled);
        assert_eq!(model.to_kdl(), TEXT);
        assert_eq!(parse(&Model::default().to_kdl()).unwrap().packages.len(), 0);
    }

    #[test]
    fn what_is_not_known_is_ignored_and_what_is_wrong_is_not() {
        let more = format!(
            "disable_warning #true\nother {{ x 1; }}\n{}",
            TEXT.replace(
                "    \"binary(cc)\"\n",
                "    \"binary(cc)\" {\n        why \"plugins need it\"\n    }\n",
            )
        );
        assert_eq!(parse(&more).unwrap(), parse(TEXT).unwrap());
        for (from, to) in [
            ("priority 50", "priority -1"),
            ("        priority 50\n", ""),
            ("priority 50", "priority \"50\""),
            ("nano", "\"nano(x\""),
            ("{", "{{"),
            ("enabled #false", "enabled 0"),
        ] {
            assert!(parse(&TEXT.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
