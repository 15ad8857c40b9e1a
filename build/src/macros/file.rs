//! A file of macros: actions, definitions, flags, tuning groups, packages.

use std::collections::BTreeMap;

use super::{Action, Flag, Group, Language, RootSet, Setting};
use crate::problem::Problem;
use crate::recipe::{PackagePart, Spanned};
use crate::yaml::{self, Node, Reader, Value};

/// What one file has.
#[derive(Clone, Debug, Default)]
pub(super) struct MacroFile {
    pub(super) actions: Vec<(String, Action)>,
    pub(super) definitions: Vec<(String, String)>,
    pub(super) flags: Vec<(String, Flag)>,
    pub(super) tuning: Vec<(String, Group)>,
    pub(super) packages: Vec<(Spanned<String>, PackagePart)>,
    pub(super) default_tuning: Option<Vec<String>>,
    pub(super) root: RootSet,
}

const KEYS: &[&str] =
    &["actions", "definitions", "flags", "tuning", "packages", "defaultTuningGroups", "root"];

impl MacroFile {
    /// Reads and checks a file.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let root = yaml::parse(text).map_err(|problem| vec![problem])?;
        let mut reader = Reader::default();
        let mut file = Self::default();
        let mut fields = reader.fields(&root, "a file of macros");
        let mut take = |name: &str| fields.take(name);
        let lists = ["actions", "definitions", "flags", "tuning", "packages"].map(&mut take);
        let [actions, definitions, flags, tuning, packages] = lists;
        each(actions, "an action", &mut reader, |name, node, reader| {
            file.actions.extend(action(node, reader).map(|action| (name.to_owned(), action)));
        });
        each(definitions, "a definition", &mut reader, |name, node, reader| {
            // An empty definition is one, too.
            let text = if node.is_null() || node.as_text() == Some("") {
                Some("")
            } else {
                reader.text(node, "a definition")
            };
            file.definitions.extend(text.map(|text| (name.to_owned(), text.trim().to_owned())));
        });
        each(flags, "a flag", &mut reader, |name, node, reader| {
            file.flags.push((name.to_owned(), flag(node, reader)));
        });
        each(tuning, "a tuning group", &mut reader, |name, node, reader| {
            file.tuning.push((name.to_owned(), group(node, reader)));
        });
        if let Some(node) = packages {
            file.packages = crate::recipe::package_templates(node, &mut reader);
        }
        if let Some(node) = fields.take("defaultTuningGroups") {
            let texts = reader.texts(node, "defaultTuningGroups");
            file.default_tuning = Some(texts.into_iter().map(|(text, _)| text.into()).collect());
        }
        if let Some(node) = fields.take("root") {
            file.root = root_set(node, &mut reader);
        }
        fields.finish(KEYS, &mut reader);
        if reader.problems.is_empty() { Ok(file) } else { Err(reader.problems) }
    }
}

/// Calls `take` with the name and the value of each item of a list of maps
/// with one key.
fn each(
    list: Option<&Node>,
    what: &str,
    reader: &mut Reader,
    mut take: impl FnMut(&str, &Node, &mut Reader),
) {
    let Some(list) = list else { return };
    for item in reader.list(list, what) {
        let Some((key, value)) = reader.pair(item, what) else { continue };
        take(&key.text, value, reader);
    }
}

fn action(node: &Node, reader: &mut Reader) -> Option<Action> {
    let mut fields = reader.fields(node, "an action");
    let mut text = |name: &str, reader: &mut Reader| {
        let node = fields.take(name)?;
        reader.text(node, name).map(|text| text.trim().to_owned())
    };
    let description = text("description", reader).unwrap_or_default();
    let example = text("example", reader);
    let command = text("command", reader);
    let mut dependencies = Vec::new();
    if let Some(node) = fields.take("dependencies") {
        let texts = reader.texts(node, "dependencies");
        dependencies = texts.into_iter().map(|(text, _)| text.to_owned()).collect();
    }
    fields.finish(&["description", "example", "command", "dependencies"], reader);
    if command.is_none() {
        reader.error(node.span, "an action without a command");
    }
    Some(Action { description, example, command: command?, dependencies })
}

fn flag(node: &Node, reader: &mut Reader) -> Flag {
    let mut flag = Flag::default();
    let mut fields = reader.fields(node, "a flag");
    for (part, target) in [("gnu", &mut flag.gnu), ("llvm", &mut flag.llvm)] {
        if let Some(node) = fields.take(part) {
            let mut fields = reader.fields(node, part);
            *target = languages(&mut fields, reader);
            fields.finish(&Language::NAMES, reader);
        }
    }
    flag.any = languages(&mut fields, reader);
    let known = [&Language::NAMES[..], &["gnu", "llvm"]].concat();
    fields.finish(&known, reader);
    flag
}

fn languages(fields: &mut yaml::Fields<'_>, reader: &mut Reader) -> BTreeMap<Language, String> {
    let mut texts = BTreeMap::new();
    for language in Language::ALL {
        if let Some(node) = fields.take(language.name())
            && let Some(text) = reader.text(node, "a flag")
        {
            texts.insert(language, text.trim().to_owned());
        }
    }
    texts
}

fn group(node: &Node, reader: &mut Reader) -> Group {
    let mut fields = reader.fields(node, "a tuning group");
    let own = setting(&mut fields, reader);
    let mut choices = Vec::new();
    each(fields.take("options"), "a choice", reader, |name, node, reader| {
        let mut fields = reader.fields(node, "a choice");
        let setting = setting(&mut fields, reader);
        fields.finish(&["enabled", "disabled"], reader);
        choices.push((name.to_owned(), setting));
    });
    let mut default = None;
    if let Some(node) = fields.take("default")
        && let Some(text) = reader.text(node, "default")
    {
        if choices.iter().any(|(name, _)| name == text) {
            default = Some(text.to_owned());
        } else {
            reader.error(node.span, format!("the group has no choice {text:?}"));
        }
    }
    fields.finish(&["enabled", "disabled", "options", "default"], reader);
    Group { own, choices, default }
}

fn setting(fields: &mut yaml::Fields<'_>, reader: &mut Reader) -> Setting {
    let mut names = |name: &str| {
        let Some(node) = fields.take(name) else { return Vec::new() };
        match &node.value {
            Value::Scalar(_) => {
                reader.text(node, name).map(|text| vec![text.to_owned()]).unwrap_or_default()
            }
            _ => reader.texts(node, name).into_iter().map(|(text, _)| text.to_owned()).collect(),
        }
    };
    Setting { enabled: names("enabled"), disabled: names("disabled") }
}

fn root_set(node: &Node, reader: &mut Reader) -> RootSet {
    let mut set = RootSet::default();
    let mut fields = reader.fields(node, "root");
    for (name, list) in set.lists_mut() {
        if let Some(node) = fields.take(name) {
            let texts = reader.texts(node, name);
            *list = Some(texts.into_iter().map(|(text, _)| text.to_owned()).collect());
        }
    }
    if let Some(node) = fields.take("archives") {
        for (key, value) in reader.map(node, "archives") {
            let texts = reader.texts(value, "archives");
            let needs = texts.into_iter().map(|(text, _)| text.to_owned()).collect();
            set.archives.insert(key.text.clone(), needs);
        }
    }
    let names: Vec<&str> = RootSet::NAMES.iter().copied().chain(["archives"]).collect();
    fields.finish(&names, reader);
    set
}
