//! Trigger files: what is to be done when which paths have changed.
//!
//! Format: docs/triggers.md, "Files".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cairn_store::TreePath;
use serde::Deserialize;

use super::document::{self, Field};
use super::pattern::{Captures, InvalidPattern, Pattern};

/// One trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What others call it to come before or after it.
    pub name: String,
    /// For people.
    pub description: String,
    /// The name of a trigger that comes later.
    pub before: Option<String>,
    /// The name of a trigger that comes earlier.
    pub after: Option<String>,
    /// What keeps it from being due.
    pub inhibitors: Inhibitors,
    /// What is done, by the name that paths call it by.
    pub handlers: BTreeMap<String, Handler>,
    /// When it is done.
    pub paths: Vec<Watched>,
    /// Where its file lies in the root.
    pub file: TreePath,
}

/// What keeps a trigger from being due.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Inhibitors {
    /// Paths one of which exists in the root.
    pub paths: BTreeSet<String>,
    /// Variables one of which is set where the transaction was asked for.
    pub environment: BTreeSet<String>,
}

/// What is done, in which `$(group)` stands for what a group has captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// A program is run, without a shell.
    Run {
        /// Its path.
        program: String,
        /// What follows its name.
        arguments: Vec<String>,
    },
    /// These go, directories with all that is in them.
    Delete(Vec<String>),
}

/// Paths that a trigger is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Which paths.
    pub pattern: Pattern,
    /// What is done for each, by name.
    pub handlers: Vec<String>,
    /// Whether only one kind of entry counts.
    pub kind: Option<PathKind>,
}

/// The kind of entry that a path must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// Something to do, with everything captured in its place.
///
/// The order is that in which the actions of one trigger are done.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// This path goes.
    Delete(String),
    /// This program is run: its path and what follows its name.
    Run(Vec<String>),
}

/// Shows the words, separated by spaces.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(path) => write!(f, "delete {path}"),
            Self::Run(words) => f.write_str(&words.join(" ")),
        }
    }
}

/// Why a file is no trigger.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not the YAML that it should be.
    #[error("it is not a trigger in YAML")]
    Yaml(#[source] serde_yaml::Error),
    /// It is not KDL.
    #[error("it is not KDL: {0}")]
    Kdl(String),
    /// It is not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A pattern is wrong.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A path names a handler that there is none of.
    #[error("the path {path:?} names the handler {handler:?}, which it does not have")]
    UnknownHandler {
        /// The pattern of the path.
        path: String,
        /// The name.
        handler: String,
    },
    /// A handler does not say what to do.
    #[error("the handler {0:?} has to have either `run` or `delete`")]
    Handler(String),
    /// A path to be deleted does not begin with a slash.
    #[error("the handler {handler:?} deletes {path:?}, which is not an absolute path")]
    Delete {
        /// The name of the handler.
        handler: String,
        /// What it says.
        path: String,
    },
}

#[derive(Deserialize)]
struct OnDisk {
    name: String,
    description: String,
    before: Option<String>,
    after: Option<String>,
    inhibitors: Option<Inhibitors>,
    handlers: BTreeMap<String, HandlerOnDisk>,
    paths: BTreeMap<String, WatchedOnDisk>,
}

#[derive(Deserialize)]
struct HandlerOnDisk {
    run: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    delete: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct WatchedOnDisk {
    handlers: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<PathKind>,
}

impl Trigger {
    /// Reads the trigger in `file`, whose bytes are `bytes`: KDL if its name
    /// ends in `.kdl`, else YAML.
    pub fn parse(file: &TreePath, bytes: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::NotUtf8)?;
        let is_kdl = file.names().last().is_some_and(|name| name.as_bytes().ends_with(b".kdl"));
        let on_disk: OnDisk = if is_kdl {
            let value = document::value(text, SHAPE).map_err(Problem::Kdl)?;
            serde_yaml::from_value(value).map_err(|err| Problem::Kdl(err.to_string()))?
        } else {
            serde_yaml::from_str(text).map_err(Problem::Yaml)?
        };
        on_disk.check(file)
    }

    /// What is due because `path` is what it is: an entry of the kind `kind`.
    pub(super) fn actions(&self, path: &str, kind: EntryKind) -> Vec<(&Watched, Captures, Action)> {
        let mut due = Vec::new();
        for watched in &self.paths {
            let fits = match watched.kind {
                None => true,
                Some(PathKind::Directory) => kind == EntryKind::Directory,
                Some(PathKind::Symlink) => kind == EntryKind::Symlink,
            };
            let Some(captures) = fits.then(|| watched.pattern.captures(path)).flatten() else {
                continue;
            };
            for handler in watched.handlers.iter().filter_map(|name| self.handlers.get(name)) {
                for action in handler.actions(&captures) {
                    due.push((watched, captures.clone(), action));
                }
            }
        }
        due
    }
}

/// What matching has to know of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Directory,
    Symlink,
    Other,
}

impl Handler {
    fn actions(&self, captures: &Captures) -> Vec<Action> {
        match self {
            Self::Delete(paths) => {
                paths.iter().map(|path| Action::Delete(fill_in(path, captures))).collect()
            }
            Self::Run { program, arguments } => {
                let words = [program].into_iter().chain(arguments);
                vec![Action::Run(words.map(|word| fill_in(word, captures)).collect())]
            }
        }
    }
}

/// Puts what groups have captured in the place of `$(group)`.
fn fill_in(text: &str, captures: &Captures) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let captured = from.find(')').and_then(|end| Some((end, captures.get(&from[2..end])?)));
        match captured {
            Some((end, captured)) => {
                filled.push_str(captured);
                rest = &from[end + 1..];
            }
            None => {
                filled.push_str("$(");
                rest = &from[2..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

impl OnDisk {
    fn check(self, file: &TreePath) -> Result<Trigger, Problem> {
        let Self { name, description, before, after, inhibitors, handlers, paths } = self;
        let handlers = handlers
            .into_iter()
            .map(|(name, handler)| Ok((name.clone(), handler.check(&name)?)))
            .collect::<Result<BTreeMap<_, _>, Problem>>()?;
        let mut watched = Vec::new();
        for (pattern, WatchedOnDisk { handlers: names, kind }) in paths {
            if let Some(handler) = names.iter().find(|name| !handlers.contains_key(*name)) {
                return Err(Problem::UnknownHandler { path: pattern, handler: handler.clone() });
            }
            watched.push(Watched { pattern: Pattern::new(&pattern)?, handlers: names, kind });
        }
        let inhibitors = inhibitors.unwrap_or_default();
        let paths = watched;
        let file = file.clone();
        Ok(Trigger { name, description, before, after, inhibitors, handlers, paths, file })
    }
}

impl HandlerOnDisk {
    fn check(self, name: &str) -> Result<Handler, Problem> {
        match (self.run, self.delete) {
            (Some(program), None) if !program.is_empty() => {
                Ok(Handler::Run { program, arguments: self.args })
            }
            (None, Some(paths)) => {
                let relative = paths.iter().find(|path| !path.starts_with('/'));
                match relative.cloned() {
                    Some(path) => Err(Problem::Delete { handler: name.into(), path }),
                    None => Ok(Handler::Delete(paths)),
                }
            }
            _ => Err(Problem::Handler(name.into())),
        }
    }
}

/// What the nodes of a trigger in KDL are.
const SHAPE: &[Field] = {
    use document::Kind::{Fields, List, Map, Text};
    &[
        Field("name", Text),
        Field("description", Text),
        Field("before", Text),
        Field("after", Text),
        Field("inhibitors", Fields(&[Field("paths", List), Field("environment", List)])),
        Field("handlers", Map(&[Field("run", Text), Field("args", List), Field("delete", List)])),
        Field("paths", Map(&[Field("handlers", List), Field("type", Text)])),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Result<Trigger, Problem> {
        let path = format!("usr/share/moss/triggers/tx.d/{name}");
        Trigger::parse(&TreePath::new(path.as_bytes()).expect("a path"), text.as_bytes())
    }

    const YAML: &str = r#"
name: glyph-cache
description: Refresh the glyph cache of every font family directory
after: name-service
needs: [something that nobody evaluates]

inhibitors:
    paths: [/etc/no-glyphs]
    environment: []
handlers:
    refresh:
        run: /usr/bin/glyph-cache
        args: ["--family", "$(family)"]
    stamp:
        run: /usr/bin/touch
        args: ["/usr/share/glyphs/.stamp"]
    clean:
        delete: ["/usr/share/glyphs/$(family)/.old"]
paths:
    "/usr/share/glyphs/(family:*)/**.glyph":
        handlers:
            - refresh
            - stamp
            - clean
    "/usr/share/glyphs/*":
        handlers: [stamp]
        type: directory
"#;

    const KDL: &str = r#"
name glyph-cache
description "Refresh the glyph cache of every font family directory"
after name-service
needs "something that nobody evaluates" 7
inhibitors {
    paths "/etc/no-glyphs"
}
handlers {
    refresh {
        run "/usr/bin/glyph-cache"
        args "--family" "$(family)"
    }
    stamp {
        run "/usr/bin/touch"
        args "/usr/share/glyphs/.stamp"
    }
    clean {
        delete {
            - "/usr/share/glyphs/$(family)/.old"
        }
    }
}
paths {
    "/usr/share/glyphs/(family:*)/**.glyph" {
        handlers refresh stamp clean
    }
    "/usr/share/glyphs/*" {
        handlers {
            - stamp
        }
        type directory
    }
}
"#;

    #[test]
    fn both_notations_say_the_same() {
        let (yaml, kdl) = (parse("a.yaml", YAML).unwrap(), parse("a.kdl", KDL).unwrap());
        assert_eq!(yaml, Trigger { file: yaml.file.clone(), ..kdl });
        assert_eq!(yaml.after.as_deref(), Some("name-service"));
        assert_eq!(yaml.paths.len(), 2);
        assert!(yaml.inhibitors.paths.contains("/etc/no-glyphs"));
    }

    #[test]
    fn what_is_due_has_what_was_captured_in_its_place() {
        let trigger = parse("a.yaml", YAML).unwrap();
        let due = |path, kind| -> Vec<Action> {
            let mut due: Vec<_> =
                trigger.actions(path, kind).into_iter().map(|(.., action)| action).collect();
            due.sort();
            due
        };
        let run = |words: &[&str]| Action::Run(words.iter().map(|&word| word.into()).collect());
        let stamp = || run(&["/usr/bin/touch", "/usr/share/glyphs/.stamp"]);
        assert_eq!(
            due("/usr/share/glyphs/mono/bold/x.glyph", EntryKind::Other),
            [
                Action::Delete("/usr/share/glyphs/mono/.old".into()),
                run(&["/usr/bin/glyph-cache", "--family", "mono"]),
                stamp(),
            ]
        );
        assert_eq!(due("/usr/share/glyphs/mono", EntryKind::Directory), [stamp()]);
        for kind in [EntryKind::Other, EntryKind::Symlink] {
            assert_eq!(due("/usr/share/glyphs/mono", kind), []);
        }
        assert_eq!(due("/usr/share/glyphs/mono/x.png", EntryKind::Other), []);
    }

    #[test]
    fn only_groups_that_there_are_are_filled_in() {
        let captures = Captures::from([("a".into(), "$(b)".into()), ("b".into(), "2".into())]);
        for (text, expected) in [
            ("$(a)-$(b)", "$(b)-2"),
            ("$(c)", "$(c)"),
            ("$(a", "$(a"),
            ("$a $$(b)", "$a $2"),
            ("$($(b))", "$(2)"),
            ("", ""),
        ] {
            assert_eq!(fill_in(text, &captures), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_trigger_is_refused_and_says_why() {
        let check = |name: &str, text: &str, expected: &str| {
            let problem = parse(name, text).expect_err(text);
            let source = std::error::Error::source(&problem).map(ToString::to_string);
            let said = format!("{problem}: {}", source.unwrap_or_default());
            assert!(said.contains(expected), "{said}");
        };
        let yaml = |from: &str, to: &str| YAML.replacen(from, to, 1);
        check("a.yaml", "", "missing field `name`");
        check("a.yaml", "[", "not a trigger in YAML");
        check("a.yaml", &yaml("description", "descr"), "missing field `description`");
        check("a.yaml", &yaml("- clean", "- cleanse"), "names the handler \"cleanse\"");
        check("a.yaml", &yaml("delete:", "remove:"), "\"clean\" has to have either");
        check("a.yaml", &yaml("run: /usr/bin/touch", "run: x\n        delete: [/y]"), "\"stamp\"");
        check("a.yaml", &yaml("delete: [\"/", "delete: [\""), "not an absolute path");
        check("a.yaml", &yaml("(family:*)", "(family)"), "the pattern");
        check("a.yaml", &yaml("type: directory", "type: file"), "unknown variant");
        check("a.kdl", "name {", "it is not KDL");
        check("a.kdl", &KDL.replacen("name glyph-cache", "name a b", 1), "name");
        check("a.kdl", &KDL.replacen("name glyph-cache", "name 7", 1), "name");
        let path = TreePath::new(b"a.yaml").unwrap();
        assert!(matches!(Trigger::parse(&path, b"\xff"), Err(Problem::NotUtf8)));
    }
}
