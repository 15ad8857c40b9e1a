//! Expands scripts.
//!
//! | in a script | means |
//! |---|---|
//! | `%name` | the command of an action |
//! | `%(name)` | a definition |
//! | `%(_name)` | a value of the build; only in actions and definitions |
//! | `%%` | a percent sign |
//! | `%break_continue`, `%break_exit` | a breakpoint |
//! | `%` and anything else | itself |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Action;
use crate::problem::{Problem, Span, nearest};
use crate::recipe::Script;

/// How deep macros may use each other.
const MAX_DEPTH: usize = 128;
/// The longest result, in bytes: definitions that use each other several times
/// grow without measure.
const MAX_LEN: usize = 4 << 20;

/// Knows what stands for each name.
#[derive(Clone, Debug, Default)]
pub struct Expander {
    /// By name.
    pub actions: BTreeMap<String, Action>,
    /// By name.
    pub definitions: BTreeMap<String, String>,
    /// Values of the build, by name without the underscore.
    pub values: BTreeMap<String, String>,
}

/// A script without macros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Its text and its breakpoints.
    pub pieces: Vec<Piece>,
    /// What the actions in it need, as they say it.
    pub dependencies: BTreeSet<String>,
}

/// A part of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text for the shell.
    Text(String),
    /// Somebody looks around in the build.
    Breakpoint {
        /// Whether the build goes on then.
        goes_on: bool,
    },
}

impl Expanded {
    /// The text, without breakpoints.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Breakpoint { .. } => None,
        });
        texts.collect()
    }
}

/// Why a script cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Which bytes of the script it is about.
    pub part: Span,
    /// The macros through which it is reached, the outermost first.
    pub trace: Vec<String>,
    /// What it is.
    pub problem: ScriptProblem,
}

/// What is wrong with a macro.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptProblem {
    /// There is no such action.
    UnknownAction(String, Option<String>),
    /// There is no such definition.
    UnknownDefinition(String, Option<String>),
    /// A value of the build outside of actions and definitions.
    Private(String),
    /// `%(` without `)`.
    Unclosed,
    /// A macro that needs itself.
    Cycle,
    /// Macros need each other too deeply.
    TooDeep,
    /// The result is too long.
    TooLong,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            ScriptProblem::UnknownAction(name, _) => write!(f, "there is no action %{name}")?,
            ScriptProblem::UnknownDefinition(name, _) => {
                write!(f, "there is no definition %({name})")?;
            }
            ScriptProblem::Private(name) => {
                write!(f, "%({name}) can be used in actions and definitions only")?;
            }
            ScriptProblem::Unclosed => f.write_str("\"%(\" has no \")\"")?,
            ScriptProblem::Cycle => f.write_str("macros need each other in a circle")?,
            ScriptProblem::TooDeep => {
                write!(f, "macros need each other over {MAX_DEPTH} levels deep")?;
            }
            ScriptProblem::TooLong => write!(f, "the script becomes longer than {MAX_LEN} bytes")?,
        }
        if !self.trace.is_empty() {
            write!(f, " ({})", self.trace.join(" > "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ScriptError {}

impl ScriptError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.problem {
            ScriptProblem::UnknownAction(_, Some(meant)) => {
                Some(format!("did you mean %{meant}? For the percent sign itself write %%"))
            }
            ScriptProblem::UnknownAction(..) => Some(
                "for the percent sign itself write %%; cairn recipe macros lists actions".into(),
            ),
            ScriptProblem::UnknownDefinition(_, Some(meant)) => {
                Some(format!("did you mean %({meant})?"))
            }
            ScriptProblem::UnknownDefinition(..) => {
                Some("cairn recipe macros lists definitions".into())
            }
            ScriptProblem::Unclosed => Some("for the percent sign itself write %%".into()),
            ScriptProblem::Private(name) => Some(format!(
                "the definition may have another name: %({})",
                name.trim_start_matches('_')
            )),
            ScriptProblem::Cycle | ScriptProblem::TooDeep | ScriptProblem::TooLong => None,
        }
    }

    /// The problem at its place in the file of the script.
    #[must_use]
    pub fn problem(&self, script: &Script) -> Problem {
        let problem = Problem::error(script.place(self.part), self.to_string());
        match self.hint() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

impl Expander {
    /// Expands a script.
    ///
    /// # Errors
    /// [`ScriptError`], at the macro of the script that leads to it.
    pub fn script(&self, text: &str) -> Result<Expanded, ScriptError> {
        let mut run = Run { expander: self, stack: Vec::new(), out: Expanded::default(), len: 0 };
        run.expand(text, Span::default())?;
        Ok(run.out)
    }

    /// Expands a text in which actions have no meaning: names, summaries,
    /// dependencies.
    ///
    /// # Errors
    /// [`ScriptError`].
    pub fn text(&self, text: &str) -> Result<String, ScriptError> {
        let plain = Self {
            actions: BTreeMap::new(),
            definitions: self.definitions.clone(),
            values: self.values.clone(),
        };
        plain.texts_only(text)
    }

    fn texts_only(&self, text: &str) -> Result<String, ScriptError> {
        // A percent sign is common in prose, so that only definitions count.
        let mut escaped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            escaped.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            escaped.push_str(if after.starts_with('(') { "%" } else { "%%" });
            rest = after.strip_prefix('%').unwrap_or(after);
        }
        escaped.push_str(rest);
        self.script(&escaped).map(|expanded| expanded.text())
    }
}

struct Run<'e> {
    expander: &'e Expander,
    stack: Vec<String>,
    out: Expanded,
    len: usize,
}

impl Run<'_> {
    /// Expands `text`, which stands for the bytes `part` of the script, or is
    /// the script itself.
    fn expand(&mut self, text: &str, part: Span) -> Result<(), ScriptError> {
        let is_script = self.stack.is_empty();
        let mut at = 0;
        while let Some(percent) = text[at..].find('%').map(|found| at + found) {
            self.text(&text[at..percent], part)?;
            let rest = &text[percent + 1..];
            let part = |len: usize| {
                if is_script { Span::new(percent, percent + 1 + len) } else { part }
            };
            at = if rest.starts_with('%') {
                self.text("%", part(1))?;
                percent + 2
            } else if let Some(inner) = rest.strip_prefix('(') {
                let name_len = identifier_len(inner);
                if !inner[name_len..].starts_with(')') {
                    return Err(self.error(part(1 + name_len), ScriptProblem::Unclosed));
                }
                self.definition(&inner[..name_len], part(name_len + 2))?;
                percent + 3 + name_len
            } else {
                match identifier_len(rest) {
                    0 => {
                        self.text("%", part(0))?;
                        percent + 1
                    }
                    len => {
                        self.action(&rest[..len], part(len))?;
                        percent + 1 + len
                    }
                }
            };
        }
        self.text(&text[at..], part)
    }

    fn text(&mut self, text: &str, part: Span) -> Result<(), ScriptError> {
        self.len += text.len();
        if self.len > MAX_LEN {
            return Err(self.error(part, ScriptProblem::TooLong));
        }
        match self.out.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(before)) => before.push_str(text),
            _ => self.out.pieces.push(Piece::Text(text.into())),
        }
        Ok(())
    }

    fn definition(&mut self, name: &str, part: Span) -> Result<(), ScriptError> {
        if let Some(private) = name.strip_prefix('_') {
            if self.stack.is_empty() {
                return Err(self.error(part, ScriptProblem::Private(name.into())));
            }
            return match self.expander.values.get(private) {
                Some(value) => self.text(value, part),
                None => Err(self.error(part, ScriptProblem::UnknownDefinition(name.into(), None))),
            };
        }
        let Some(text) = self.expander.definitions.get(name) else {
            let known = self.expander.definitions.keys().map(String::as_str);
            let meant = nearest(name, known).map(ToOwned::to_owned);
            return Err(self.error(part, ScriptProblem::UnknownDefinition(name.into(), meant)));
        };
        self.nested(format!("%({name})"), text, part)
    }

    fn action(&mut self, name: &str, part: Span) -> Result<(), ScriptError> {
        if let "break_continue" | "break_exit" = name {
            self.out.pieces.push(Piece::Breakpoint { goes_on: name == "break_continue" });
            return Ok(());
        }
        let Some(action) = self.expander.actions.get(name) else {
            let known = self.expander.actions.keys().map(String::as_str);
            let meant = nearest(name, known).map(ToOwned::to_owned);
            return Err(self.error(part, ScriptProblem::UnknownAction(name.into(), meant)));
        };
        self.out.dependencies.extend(action.dependencies.iter().cloned());
        self.nested(format!("%{name}"), action.command.trim(), part)
    }

    fn nested(&mut self, name: String, text: &str, part: Span) -> Result<(), ScriptError> {
        // An empty definition that is used very often costs, too.
        self.len += 1;
        if self.stack.contains(&name) {
            self.stack.push(name);
            return Err(self.error(part, ScriptProblem::Cycle));
        }
        if self.stack.len() == MAX_DEPTH {
            // The whole trace would say nothing more.
            self.stack.truncate(8);
            return Err(self.error(part, ScriptProblem::TooDeep));
        }
        self.stack.push(name);
        self.expand(text, part)?;
        self.stack.pop();
        Ok(())
    }

    fn error(&self, part: Span, problem: ScriptProblem) -> ScriptError {
        ScriptError { part, trace: self.stack.clone(), problem }
    }
}

/// How many bytes at the beginning are letters, digits and underscores.
fn identifier_len(text: &str) -> usize {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.as_bytes().iter().take_while(|byte| part(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expander() -> Expander {
        let action = |command: &str, dependencies: &[&str]| Action {
            description: String::new(),
            example: None,
            command: command.into(),
            dependencies: dependencies.iter().map(ToString::to_string).collect(),
        };
        let text = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        let bomb = (1..40)
            .map(|level: usize| (format!("b{level}"), format!("%(b{})", level - 1).repeat(4)));
        let deep = (1..200).map(|level: usize| (format!("d{level}"), format!("%(d{})", level - 1)));
        let definitions = [
            ("prefix", "/usr"),
            ("bindir", "%(prefix)/bin"),
            ("private", "%(_jobs)"),
            ("bad", "%(_none)"),
            ("loop", "%(pool)"),
            ("pool", "x%(loop)"),
            ("empty", ""),
            ("b0", "x"),
            ("d0", "x"),
        ];
        Expander {
            actions: [
                ("make".to_owned(), action("\n  make -j%(_jobs)\n", &["binary(make)"])),
                ("make_install".to_owned(), action("%make install", &["binary(sh)"])),
                ("self".to_owned(), action("%self", &[])),
                ("stop".to_owned(), action("a %break_exit", &[])),
            ]
            .into(),
            definitions: definitions.into_iter().map(text).chain(bomb).chain(deep).collect(),
            values: [text(("jobs", "2%(x)"))].into(),
        }
    }

    #[test]
    fn macros_become_what_they_stand_for() {
        let check = |script: &str, expected: &str| {
            let expanded = expander().script(script).expect(script);
            assert_eq!(expanded.text(), expected, "{script}");
        };
        check("", "");
        check("cd %(bindir)", "cd /usr/bin");
        check("%make check\n", "make -j2%(x) check\n");
        check("%make_install", "make -j2%(x) install");
        check("100%% %% % %- %", "100% % % %- %");
        check("%%make", "%make");
        check("a%(empty)b", "ab");
        check("%(private)", "2%(x)");
        check("ü%(prefix)ü", "ü/usrü");
    }

    #[test]
    fn actions_bring_what_they_need() {
        let expanded = expander().script("%make_install").expect("a script");
        let expected = ["binary(make)", "binary(sh)"].map(ToOwned::to_owned);
        assert_eq!(expanded.dependencies, expected.into());
        assert!(expander().script("echo").expect("a script").dependencies.is_empty());
    }

    #[test]
    fn breakpoints_cut_a_script() {
        let text = |text: &str| Piece::Text(text.into());
        let check = |script: &str, expected: &[Piece]| {
            assert_eq!(expander().script(script).expect(script).pieces, expected, "{script}");
        };
        check(
            "a\n%break_continue\nb",
            &[text("a\n"), Piece::Breakpoint { goes_on: true }, text("\nb")],
        );
        check("%stop", &[text("a "), Piece::Breakpoint { goes_on: false }]);
    }

    #[test]
    fn mistakes_are_told_at_their_place() {
        let check = |script: &str, part: &str, expected: &str| {
            let err = expander().script(script).expect_err(script);
            assert_eq!(&script[err.part.start..err.part.end], part, "{script}");
            assert!(err.to_string().starts_with(expected), "{script}: {err}");
        };
        check("a %amke b", "%amke", "there is no action %amke");
        check("a %(bindri) b", "%(bindri)", "there is no definition %(bindri)");
        check("%(_jobs)", "%(_jobs)", "%(_jobs) can be used in actions");
        check("x %(bad)", "%(bad)", "there is no definition %(_none) (%(bad))");
        check("%(a b", "%(a", "\"%(\" has no \")\"");
        check("%(", "%(", "\"%(\" has no \")\"");
        check(
            "y %(loop)",
            "%(loop)",
            "macros need each other in a circle (%(loop) > %(pool) > %(loop))",
        );
        check("%self", "%self", "macros need each other in a circle (%self > %self)");
        check("%(d199)", "%(d199)", "macros need each other over 128 levels deep");
        check("z %(b39)", "%(b39)", "the script becomes longer");
        check("date +%Y", "%Y", "there is no action %Y");
        let err = expander().script("%amke").expect_err("a mistake");
        assert_eq!(
            err.hint().as_deref(),
            Some("did you mean %make? For the percent sign itself write %%")
        );
    }

    #[test]
    fn prose_may_have_percent_signs() {
        let text = expander().text("%(prefix) 100% %make %%").expect("prose");
        assert_eq!(text, "/usr 100% %make %");
        assert!(expander().text("%(none)").is_err());
    }
}
