//! `stone.yaml`: how a package is made.
//!
//! [`Recipe::parse`] reads the whole format and checks it; whatever is wrong is
//! told with its place in the file. Texts with macros are kept as they are
//! written: what they mean depends on the target.
//!
//! Format: docs/recipes.md.

mod check;
mod file;
mod package;
mod parts;
mod script;
#[cfg(test)]
mod tests;
mod upstream;

use std::fmt;
use std::str::FromStr;

use crate::problem::{Problem, Severity, Span};
use crate::yaml;

pub(crate) use check::compile;
pub(crate) use parts::package_templates;

pub use check::{is_name, is_version};
pub use file::read;
pub use script::Script;
pub use upstream::{Archive, Git, Hash, Upstream};

/// How a package is made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name of the source and of the main package.
    pub name: String,
    /// Begins with a digit; never compared.
    pub version: String,
    /// Grows with each change; at least 1.
    pub release: u64,
    /// A web page.
    pub homepage: String,
    /// SPDX expressions.
    pub licenses: Vec<String>,
    /// What is downloaded.
    pub upstreams: Vec<Upstream>,
    /// What is built, for every target that has nothing else to say.
    pub build: BuildPart,
    /// What single targets have to say.
    pub profiles: Vec<Profile>,
    /// For which targets it is built; the native one and perhaps its 32-bit
    /// emulation if there are none.
    pub architectures: Vec<TargetPattern>,
    /// The main package, whose texts are those of all others that have none.
    pub package: PackagePart,
    /// The other packages, and more of the main one, in the order of the file.
    pub packages: Vec<(Spanned<String>, PackagePart)>,
    /// Which compiler flags are wanted.
    pub tuning: Vec<Spanned<Tuning>>,
    /// Everything that is only on or off.
    pub options: Options,
}

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// Where.
    pub span: Span,
    /// What.
    pub value: T,
}

impl<T> Spanned<T> {
    pub(crate) fn new(span: Span, value: T) -> Self {
        Self { span, value }
    }
}

/// What is built and what that needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildPart {
    /// What has to be there.
    pub builddeps: Vec<Spanned<String>>,
    /// What its tests need beside that.
    pub checkdeps: Vec<Spanned<String>>,
    /// Comes before every other script.
    pub environment: Option<Script>,
    /// Configures.
    pub setup: Option<Script>,
    /// Compiles.
    pub build: Option<Script>,
    /// Installs into the install root.
    pub install: Option<Script>,
    /// Tests.
    pub check: Option<Script>,
    /// Does what the program is optimised for.
    pub workload: Option<Script>,
}

/// What the targets of a pattern have to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Which targets.
    pub target: TargetPattern,
    /// What they say.
    pub build: BuildPart,
}

/// What one package says and has.
#[derive(Clone, Debug, Default)]
pub struct PackagePart {
    /// One line; macros are expanded.
    pub summary: Option<Spanned<String>>,
    /// Some paragraphs; macros are expanded.
    pub description: Option<Spanned<String>>,
    /// What must be installed beside it; macros are expanded.
    pub rundeps: Vec<Spanned<String>>,
    /// Dependencies that analysis finds and that are none, as regular
    /// expressions on `kind(text)`.
    pub rundeps_exclude: Vec<Spanned<String>>,
    /// Providers that analysis finds and that are none.
    pub provides_exclude: Vec<Spanned<String>>,
    /// What must not be installed beside it; macros are expanded.
    pub conflicts: Vec<Spanned<String>>,
    /// Which files it has.
    pub paths: Vec<Spanned<PathRule>>,
}

/// Which files belong to a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// A pattern of absolute paths; macros are expanded.
    pub glob: String,
    /// Which kinds of files it is about.
    pub kind: PathKind,
}

/// Which kinds of files a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathKind {
    /// All of them.
    #[default]
    Any,
    /// Regular files that may be executed.
    Exe,
    /// Symbolic links.
    Symlink,
    /// Devices, named pipes and sockets.
    Special,
}

/// One wish about compiler flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// This group, with its default choice.
    Enable(String),
    /// Not this group.
    Disable(String),
    /// This group with this choice.
    Choose(String, String),
}

impl Tuning {
    /// The group that it is about.
    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Self::Enable(group) | Self::Disable(group) | Self::Choose(group, _) => group,
        }
    }
}

/// Which compilers are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Toolchain {
    /// clang, lld and their tools.
    #[default]
    Llvm,
    /// gcc and binutils.
    Gnu,
}

/// Everything that is only on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the format has them")]
pub struct Options {
    /// Which compilers are used.
    pub toolchain: Toolchain,
    /// Links with mold.
    pub mold: bool,
    /// Trains a second time, with contexts (LLVM).
    pub cspgo: bool,
    /// The training covers only a part of the program.
    pub samplepgo: bool,
    /// Splits debug information off.
    pub debug: bool,
    /// Strips ELF files.
    pub strip: bool,
    /// The scripts may use the network.
    pub networking: bool,
    /// Compresses manual pages.
    pub compressman: bool,
    /// Drops libtool's `.la` files.
    pub lastrip: bool,
    /// Builds for the 32-bit emulation as well.
    pub emul32: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            toolchain: Toolchain::Llvm,
            mold: false,
            cspgo: false,
            samplepgo: false,
            debug: true,
            strip: true,
            networking: false,
            compressman: false,
            lastrip: true,
            emul32: false,
        }
    }
}

/// Names targets: `native`, `emul32`, `x86_64` or `emul32/x86_64`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPattern {
    /// Whatever the building machine is.
    Native,
    /// The 32-bit emulation of whatever the building machine is.
    Emul32,
    /// One target.
    Exactly(Target),
}

/// What is built for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Whether it is the 32-bit emulation.
    pub emul32: bool,
    /// Such as `x86_64`.
    pub architecture: String,
}

impl Target {
    /// The architecture itself.
    #[must_use]
    pub fn native(architecture: &str) -> Self {
        Self { emul32: false, architecture: architecture.into() }
    }

    /// The 32-bit emulation of an architecture.
    #[must_use]
    pub fn emul32(architecture: &str) -> Self {
        Self { emul32: true, architecture: architecture.into() }
    }
}

/// `x86_64` or `emul32/x86_64`, as files of macros are named.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.emul32 {
            f.write_str("emul32/")?;
        }
        f.write_str(&self.architecture)
    }
}

impl TargetPattern {
    /// Whether it names `target`, which is built on a machine of the same
    /// architecture.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        match self {
            Self::Native => !target.emul32,
            Self::Emul32 => target.emul32,
            Self::Exactly(own) => own == target,
        }
    }
}

/// The text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a target")]
pub struct InvalidTarget(String);

impl FromStr for TargetPattern {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let architecture = |name: &str| {
            let allowed =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            let fits = (1..=32).contains(&name.len()) && name.chars().all(allowed);
            if fits { Ok(name.to_owned()) } else { Err(InvalidTarget(text.into())) }
        };
        Ok(match text {
            "native" => Self::Native,
            "emul32" => Self::Emul32,
            text => match text.split_once('/') {
                Some(("emul32", name)) => Self::Exactly(Target::emul32(&architecture(name)?)),
                Some(_) => return Err(InvalidTarget(text.into())),
                None => Self::Exactly(Target::native(&architecture(text)?)),
            },
        })
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Emul32 => f.write_str("emul32"),
            Self::Exactly(target) => target.fmt(f),
        }
    }
}

/// A recipe that can be used, and what somebody should look at.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The recipe.
    pub recipe: Recipe,
    /// Only warnings.
    pub warnings: Vec<Problem>,
}

impl Recipe {
    /// Reads and checks the text of a recipe.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file, warnings
    /// included.
    pub fn parse(text: &str) -> Result<Checked, Vec<Problem>> {
        let root = yaml::parse(text).map_err(|problem| vec![problem])?;
        let mut reader = yaml::Reader::default();
        let recipe = parts::recipe(&root, text, &mut reader);
        let mut problems = reader.problems;
        problems.sort_by_key(|problem| problem.span.start);
        match recipe {
            Some(recipe) if problems.iter().all(|it| it.severity == Severity::Warning) => {
                Ok(Checked { recipe, warnings: problems })
            }
            _ => Err(problems),
        }
    }

    /// The targets for which it is built on a machine of this architecture: the
    /// 32-bit emulation first, so that what both install is the native one's.
    #[must_use]
    pub fn targets(&self, architecture: &str) -> Vec<Target> {
        let (emul32, native) = (Target::emul32(architecture), Target::native(architecture));
        let wanted = |target: &Target| {
            if self.architectures.is_empty() {
                !target.emul32 || self.options.emul32
            } else {
                self.architectures.iter().any(|pattern| pattern.matches(target))
            }
        };
        [emul32, native].into_iter().filter(wanted).collect()
    }

    /// What is built for a target: each script and list of the first profile
    /// that has it, else of the recipe.
    #[must_use]
    pub fn build_of(&self, target: &Target) -> BuildPart {
        let mut build = self.build.clone();
        // The more exact pattern wins, then the one that comes first.
        let exact = |it: &&Profile| matches!(it.target, TargetPattern::Exactly(_));
        let matching = self.profiles.iter().filter(|it| it.target.matches(target));
        let (exact, general): (Vec<_>, Vec<_>) = matching.partition(exact);
        for profile in general.into_iter().rev().chain(exact.into_iter().rev()) {
            build.overlay(&profile.build);
        }
        build
    }
}

impl BuildPart {
    /// Takes over what `other` has.
    fn overlay(&mut self, other: &Self) {
        let scripts = [
            (&mut self.environment, &other.environment),
            (&mut self.setup, &other.setup),
            (&mut self.build, &other.build),
            (&mut self.install, &other.install),
            (&mut self.check, &other.check),
            (&mut self.workload, &other.workload),
        ];
        for (own, other) in scripts {
            if let Some(other) = other {
                *own = Some(other.clone());
            }
        }
        self.builddeps.extend(other.builddeps.iter().cloned());
        self.checkdeps.extend(other.checkdeps.iter().cloned());
    }
}
