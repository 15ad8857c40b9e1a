//! What `%action` and `%(definition)` mean in a recipe, which compiler flags
//! tuning gives, which files go into which package by default, and what every
//! build root has.
//!
//! All of it is data: the files in `build/data/macros`, which are part of the
//! program, and whatever a distribution lays over them. A file that comes later
//! replaces single actions, definitions, flags and groups of those before it by
//! name.
//!
//! ```text
//! arch/base.yaml              for every target
//! arch/x86_64.yaml            for one target
//! arch/emul32/x86_64.yaml     for one 32-bit emulation
//! actions/*.yaml              for every target
//! ```
//!
//! Format: docs/macros.md.

mod expand;
mod file;
mod flags;
mod standard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::problem::{Located, Problem};
use crate::recipe::{PackagePart, Spanned, Target};

use file::MacroFile;

pub use expand::{Expanded, Expander, Piece, ScriptError, ScriptProblem};
pub use flags::{Flags, UnknownTuning};

/// A command that scripts call by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What it does.
    pub description: String,
    /// How it is used, if that is not obvious.
    pub example: Option<String>,
    /// What stands in its place.
    pub command: String,
    /// What has to be in the build root.
    pub dependencies: Vec<String>,
}

/// A part of a compiler's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flag {
    any: BTreeMap<Language, String>,
    gnu: BTreeMap<Language, String>,
    llvm: BTreeMap<Language, String>,
}

/// What flags are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are names of languages")]
pub enum Language {
    C,
    Cxx,
    Fortran,
    D,
    Rust,
    Vala,
    Go,
    /// The linker.
    Ld,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::C, Self::Cxx, Self::Fortran, Self::D, Self::Rust, Self::Vala, Self::Go, Self::Ld];
    const NAMES: [&'static str; 8] = ["c", "cxx", "f", "d", "rust", "vala", "go", "ld"];

    /// The key in files of macros.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Flags that go together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    own: Setting,
    choices: Vec<(String, Setting)>,
    default: Option<String>,
}

/// Names of flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Setting {
    enabled: Vec<String>,
    disabled: Vec<String>,
}

/// What build roots have, whatever a recipe asks for: dependencies, or
/// alternatives with a vertical bar between them, the first of which that
/// exists is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootSet {
    /// Every root.
    pub always: Option<Vec<String>>,
    /// With the LLVM toolchain.
    pub llvm: Option<Vec<String>>,
    /// With the GNU toolchain.
    pub gnu: Option<Vec<String>>,
    /// With the LLVM toolchain for the 32-bit emulation.
    pub emul32_llvm: Option<Vec<String>>,
    /// With the GNU toolchain for the 32-bit emulation.
    pub emul32_gnu: Option<Vec<String>>,
    /// With mold.
    pub mold: Option<Vec<String>>,
    /// With compiler caches.
    pub cache: Option<Vec<String>>,
    /// With compiler caches and cargo.
    pub cache_cargo: Option<Vec<String>>,
    /// By the suffix of an archive.
    pub archives: BTreeMap<String, Vec<String>>,
}

impl RootSet {
    const NAMES: [&'static str; 8] =
        ["always", "llvm", "gnu", "emul32-llvm", "emul32-gnu", "mold", "cache", "cache-cargo"];

    fn lists_mut(&mut self) -> [(&'static str, &mut Option<Vec<String>>); 8] {
        let lists = [
            &mut self.always,
            &mut self.llvm,
            &mut self.gnu,
            &mut self.emul32_llvm,
            &mut self.emul32_gnu,
            &mut self.mold,
            &mut self.cache,
            &mut self.cache_cargo,
        ];
        let mut names = Self::NAMES.into_iter();
        lists.map(|list| (names.next().expect("there are as many"), list))
    }

    fn overlay(&mut self, mut other: Self) {
        for ((_, own), (_, other)) in self.lists_mut().into_iter().zip(other.lists_mut()) {
            if other.is_some() {
                *own = other.take();
            }
        }
        self.archives.extend(other.archives);
    }
}

/// Why macros could not be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file is not one of macros.
    #[error("{}:{}", path.display(), show(problems))]
    File { path: PathBuf, problems: Vec<Located> },
    /// There is nothing for a target.
    #[error("there are no macros for the target {target}; known: {}", known.join(", "))]
    UnknownTarget { target: Target, known: Vec<String> },
}

fn show(problems: &[Located]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// All files of macros, in the order in which they count.
#[derive(Clone, Debug)]
pub struct Macros {
    base: Vec<MacroFile>,
    targets: BTreeMap<String, Vec<MacroFile>>,
    actions: Vec<MacroFile>,
}

impl Macros {
    /// Those that are part of the program.
    #[must_use]
    pub fn standard() -> Self {
        let mut macros = Self { base: vec![], targets: BTreeMap::new(), actions: vec![] };
        for (path, text) in standard::FILES {
            macros.add(path, text).expect("a test reads each file");
        }
        macros
    }

    /// Lays the files of a directory over those that are there already.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::File`].
    pub fn overlay(&mut self, directory: &Path) -> Result<(), Error> {
        let arch = directory.join("arch");
        let actions = directory.join("actions");
        let mut files = Vec::new();
        for (directory, prefix) in
            [(arch.clone(), "arch/"), (arch.join("emul32"), "arch/emul32/"), (actions, "actions/")]
        {
            let entries = match fs::read_dir(&directory) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                entries => entries
                    .and_then(Iterator::collect::<io::Result<Vec<_>>>)
                    .map_err(|source| Error::Read { path: directory.clone(), source })?,
            };
            for entry in entries {
                let name = entry.file_name();
                if let Some(name) = name.to_str().filter(|name| name.ends_with(".yaml")) {
                    files.push((format!("{prefix}{name}"), entry.path()));
                }
            }
        }
        files.sort();
        for (name, path) in files {
            let text = fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            self.add(&name, &text).map_err(|problems| {
                let problems = problems.iter().map(|problem| problem.located(&text)).collect();
                Error::File { path, problems }
            })?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, text: &str) -> Result<(), Vec<Problem>> {
        let file = MacroFile::parse(text)?;
        let name = path.trim_end_matches(".yaml");
        match name.strip_prefix("arch/") {
            Some("base") => self.base.push(file),
            Some(target) => self.targets.entry(target.to_owned()).or_default().push(file),
            None => self.actions.push(file),
        }
        Ok(())
    }

    /// What the macros are for one target.
    ///
    /// # Errors
    /// [`Error::UnknownTarget`].
    pub fn of_target(&self, target: &Target) -> Result<TargetMacros, Error> {
        let own = self.targets.get(&target.to_string()).ok_or_else(|| Error::UnknownTarget {
            target: target.clone(),
            known: self.targets.keys().cloned().collect(),
        })?;
        let mut macros = TargetMacros { target: target.clone(), ..TargetMacros::empty() };
        for file in self.base.iter().chain(own) {
            macros.packages.extend(file.packages.iter().cloned());
        }
        for file in self.base.iter().chain(own).chain(&self.actions) {
            macros.actions.extend(file.actions.iter().cloned());
            macros.definitions.extend(file.definitions.iter().cloned());
            macros.flags.extend(file.flags.iter().cloned());
            macros.groups.extend(file.tuning.iter().cloned());
            if let Some(groups) = &file.default_tuning {
                macros.default_tuning.clone_from(groups);
            }
            macros.root.overlay(file.root.clone());
        }
        Ok(macros)
    }
}

/// What macros are for one target.
#[derive(Clone, Debug)]
pub struct TargetMacros {
    /// The target.
    pub target: Target,
    /// By name.
    pub actions: BTreeMap<String, Action>,
    /// By name.
    pub definitions: BTreeMap<String, String>,
    /// Which files go into which package, the last rule that matches decides.
    pub packages: Vec<(Spanned<String>, PackagePart)>,
    /// What build roots have.
    pub root: RootSet,
    flags: BTreeMap<String, Flag>,
    groups: BTreeMap<String, Group>,
    default_tuning: Vec<String>,
}

impl TargetMacros {
    fn empty() -> Self {
        Self {
            target: Target::native(""),
            actions: BTreeMap::new(),
            definitions: BTreeMap::new(),
            packages: Vec::new(),
            root: RootSet::default(),
            flags: BTreeMap::new(),
            groups: BTreeMap::new(),
            default_tuning: Vec::new(),
        }
    }
}
