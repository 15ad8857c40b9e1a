//! From tuning to the command lines of compilers.
//!
//! 1. The group `architecture` is always enabled.
//! 2. What the recipe says of a group holds.
//! 3. Every default group that it does not mention is enabled.
//! 4. Further groups come from the stage of a profile-guided optimisation.
//! 5. An enabled group has the flags of its choice, or its own; a disabled one
//!    has those that switch it off, which are mostly none.
//! 6. For each language the texts are a set, sorted by their bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Group, Language, Setting, TargetMacros};
use crate::problem::{Problem, nearest};
use crate::recipe::{Spanned, Toolchain, Tuning};

/// The command lines, with definitions as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<Language, String>);

impl Flags {
    /// What is given to the compiler of a language.
    #[must_use]
    pub fn of(&self, language: Language) -> &str {
        self.0.get(&language).map_or("", String::as_str)
    }
}

/// A group or a choice that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTuning {
    /// No such group.
    #[error("there is no tuning group {group:?}")]
    Group {
        /// What was written.
        group: String,
        /// What is probably meant.
        meant: Option<String>,
    },
    /// No such choice of a group.
    #[error("the tuning group {group:?} has no choice {choice:?}")]
    Choice {
        /// The group.
        group: String,
        /// What was written.
        choice: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A group has a flag that does not exist.
    #[error("the tuning group {group:?} has the flag {flag:?}, which does not exist")]
    Flag {
        /// The group.
        group: String,
        /// The flag.
        flag: String,
    },
}

impl UnknownTuning {
    /// The problem at its place in a recipe.
    #[must_use]
    pub fn problem<T>(&self, at: &Spanned<T>) -> Problem {
        let problem = Problem::error(at.span, self.to_string());
        match self {
            Self::Group { meant: Some(meant), .. } => {
                problem.hint(format!("did you mean {meant:?}?"))
            }
            Self::Group { meant: None, .. } => problem.hint("docs/macros.md lists the groups"),
            Self::Choice { known, .. } if known.is_empty() => {
                problem.hint("it is only on or off: true or false")
            }
            Self::Choice { known, .. } => problem.hint(format!("known: {}", known.join(", "))),
            Self::Flag { .. } => problem,
        }
    }
}

impl TargetMacros {
    /// Names of all tuning groups, each with its choices and whether it is on by
    /// default.
    pub fn tuning_groups(&self) -> impl Iterator<Item = (&str, Vec<&str>, bool)> {
        self.groups.iter().map(|(name, group)| {
            let choices = group.choices.iter().map(|(name, _)| name.as_str()).collect();
            (name.as_str(), choices, self.default_tuning.contains(name))
        })
    }

    /// The command lines that `wanted` gives, with `further` groups enabled as
    /// well.
    ///
    /// # Errors
    /// [`UnknownTuning`], with the number of the wish that it is about; none if
    /// it is about none of them.
    pub fn flags(
        &self,
        wanted: &[Spanned<Tuning>],
        further: &[&str],
        toolchain: Toolchain,
    ) -> Result<Flags, (Option<usize>, UnknownTuning)> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut take = |group: &str, flags: &'_ [String]| -> Result<(), UnknownTuning> {
            for flag in flags {
                let Some((name, _)) = self.flags.get_key_value(flag) else {
                    let (group, flag) = (group.to_owned(), flag.clone());
                    return Err(UnknownTuning::Flag { group, flag });
                };
                names.insert(name);
            }
            Ok(())
        };
        let mut mentioned: BTreeSet<&str> = BTreeSet::new();
        for (number, Spanned { value: tuning, .. }) in wanted.iter().enumerate() {
            let failed = |err| (Some(number), err);
            let group = self.group(tuning.group()).map_err(failed)?;
            mentioned.insert(tuning.group());
            let flags = match tuning {
                Tuning::Disable(_) => &group.own.disabled,
                Tuning::Enable(_) => &group.chosen().enabled,
                Tuning::Choose(name, choice) => {
                    let found = group.choices.iter().find(|(other, _)| other == choice);
                    let (_, setting) = found.ok_or_else(|| {
                        let known = group.choices.iter().map(|(name, _)| name.clone()).collect();
                        let (group, choice) = (name.clone(), choice.clone());
                        failed(UnknownTuning::Choice { group, choice, known })
                    })?;
                    &setting.enabled
                }
            };
            take(tuning.group(), flags).map_err(failed)?;
        }
        let defaults = self.default_tuning.iter().map(String::as_str);
        let defaults = defaults.filter(|name| !mentioned.contains(name));
        let always = ["architecture"].into_iter().filter(|it| self.groups.contains_key(*it));
        for name in always.chain(defaults).chain(further.iter().copied()) {
            let group = self.group(name).map_err(|err| (None, err))?;
            take(name, &group.chosen().enabled).map_err(|err| (None, err))?;
        }
        let text = |language: Language| {
            let texts: BTreeSet<&str> = names
                .iter()
                .filter_map(|name| self.flags[*name].text(language, toolchain))
                .collect();
            (language, Vec::from_iter(texts).join(" "))
        };
        Ok(Flags(Language::ALL.into_iter().map(text).collect()))
    }

    fn group(&self, name: &str) -> Result<&Group, UnknownTuning> {
        self.groups.get(name).ok_or_else(|| {
            let meant = nearest(name, self.groups.keys().map(String::as_str));
            UnknownTuning::Group { group: name.into(), meant: meant.map(ToOwned::to_owned) }
        })
    }
}

impl super::Flag {
    /// The text for a language: that of the toolchain, else the general one.
    fn text(&self, language: Language, toolchain: Toolchain) -> Option<&str> {
        let own = match toolchain {
            Toolchain::Gnu => &self.gnu,
            Toolchain::Llvm => &self.llvm,
        };
        own.get(&language).or_else(|| self.any.get(&language)).map(String::as_str)
    }
}

impl Group {
    /// The default choice, or what the group itself has.
    fn chosen(&self) -> &Setting {
        let default = self.default.as_ref();
        let choice = default.and_then(|it| self.choices.iter().find(|(name, _)| name == it));
        choice.map_or(&self.own, |(_, setting)| setting)
    }
}
