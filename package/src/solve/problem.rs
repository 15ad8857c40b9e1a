//! Why a request has no solution, as data and in words for people.

use std::fmt;

use serde::Serialize;

use crate::catalog;
use crate::dependency::Dependency;

/// Why a request has no solution.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Nothing has these names, or offers these things.
    #[error("{}", Lines(.0))]
    Unknown(Vec<Unknown>),
    /// Packages to remove or to upgrade are not installed.
    #[error("{}", Lines(&.0.iter().map(NotInstalled).collect::<Vec<_>>()))]
    NotInstalled(Vec<Unknown>),
    /// Packages to downgrade are older than what any repository has.
    #[error("{}", Lines(&.0.iter().map(NothingOlder).collect::<Vec<_>>()))]
    NothingOlder(Vec<(String, Option<String>)>),
    /// The request removes this, and also installs or upgrades it.
    #[error("{0} cannot be removed and asked for at once")]
    Contradiction(Dependency),
    /// The parts of the request that are impossible, each with its cause.
    #[error("{}", Lines(.0))]
    Impossible(Vec<Explanation>),
    /// A package could not be read.
    #[error("cannot read what a repository offers")]
    Catalog(#[from] catalog::Error),
}

/// Something that is not there, and what could have been meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// What was asked for.
    pub wanted: Dependency,
    /// Names that are nearly the same, the nearest first.
    pub similar: Vec<String>,
    /// Packages that offer something of this text, by name.
    pub offered_by: Vec<String>,
}

/// Something that cannot be had, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What cannot be had.
    pub subject: Subject,
    /// Why.
    pub cause: Cause,
}

/// What an explanation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Something that the request installs.
    Asked(Dependency),
    /// An installed package that the request must keep.
    Installed(String),
}

/// Why something cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing provides it.
    Nothing,
    /// Nothing provides it but these packages, which the request removes.
    OnlyRemoved(Vec<String>),
    /// Whatever provides it meets an obstacle.
    Obstacles(Vec<Obstacle>),
}

/// Why a package cannot be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// The name of the package, with the version where that matters.
    pub package: String,
    /// What is in its way.
    pub trouble: Trouble,
}

/// What is in the way of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// It needs something that cannot be had.
    Needs {
        /// What it needs.
        dependency: Dependency,
        /// Why that cannot be had.
        cause: Box<Cause>,
    },
    /// It conflicts with another package, or that one with it.
    Conflicts {
        /// The other package.
        with: String,
        /// What the other one is there for.
        standing: Standing,
    },
    /// It is another build of a package that must be there.
    Replaces {
        /// The other build.
        other: String,
        /// What the other one is there for.
        standing: Standing,
    },
    /// It does not go together with something else in the explanation.
    Elsewhere,
}

/// What a package is there for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is installed.
    Installed,
    /// The request asks for it.
    Asked,
    /// The request upgrades to it.
    Upgrade,
    /// The package of this name needs it.
    NeededBy(String),
}

/// One line for each.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.0.iter().enumerate() {
            write!(f, "{}{line}", if number == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

struct NotInstalled<'a>(&'a Unknown);

/// Holds name and version of what is installed, and the older version that was asked
/// for.
struct NothingOlder<'a>(&'a (String, Option<String>));

impl fmt::Display for NothingOlder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            (installed, Some(version)) => {
                write!(f, "no repository has {version} as an older build than {installed}")
            }
            (installed, None) => write!(f, "no repository has an older build than {installed}"),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing provides {}", self.wanted)?;
        self.write_hints(f)
    }
}

impl fmt::Display for NotInstalled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not installed", self.0.wanted)?;
        self.0.write_hints(f)
    }
}

impl Unknown {
    fn write_hints(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.offered_by.is_empty() {
            write!(f, "; something of this name is provided by {}", And(&self.offered_by))?;
        }
        if !self.similar.is_empty() {
            write!(f, "; similar names are {}", And(&self.similar))?;
        }
        Ok(())
    }
}

/// `a, b and c`.
struct And<'a>(&'a [String]);

impl fmt::Display for And<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [only] => f.write_str(only),
            [most @ .., last] => write!(f, "{} and {last}", most.join(", ")),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.subject, &self.cause) {
            // The sentence about the only provider begins with its name.
            (Subject::Asked(wanted), Cause::Obstacles(all))
                if all.len() == 1 && all[0].is_called(wanted) =>
            {
                all[0].write(f, 0)
            }
            (Subject::Installed(_), Cause::Obstacles(all)) if all.len() == 1 => all[0].write(f, 0),
            (Subject::Asked(wanted), cause) => {
                write!(f, "{wanted} is asked for, ")?;
                cause.write(f, wanted, 0)
            }
            (Subject::Installed(name), cause) => {
                write!(f, "{name} is installed, ")?;
                cause.write(f, &Dependency::on_package(name), 0)
            }
        }
    }
}

/// What follows on "it is needed, ".
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Obstacles(all) if all.len() == 1 => all[0].write(f, 0),
            Self::Obstacles(all) => write_list(f, all, 0),
            Self::Nothing => f.write_str("nothing provides it"),
            Self::OnlyRemoved(packages) => {
                write!(f, "only {} could provide it, which is to be removed", And(packages))
            }
        }
    }
}

impl Cause {
    /// Ends a sentence that began with `wanted`.
    fn write(&self, f: &mut fmt::Formatter<'_>, wanted: &Dependency, depth: usize) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("which nothing provides"),
            Self::OnlyRemoved(packages) => {
                write!(f, "which nothing provides but {}, to be removed", And(packages))
            }
            Self::Obstacles(all) => {
                let [only] = all.as_slice() else {
                    f.write_str("which could come from these:")?;
                    return write_list(f, all, depth);
                };
                if !only.is_called(wanted) {
                    write!(f, "which only {} provides, ", only.package)?;
                }
                let is_end = !matches!(only.trouble, Trouble::Needs { .. });
                f.write_str(if is_end { "but " } else { "and " })?;
                only.write(f, depth)
            }
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, all: &[Obstacle], depth: usize) -> fmt::Result {
    for obstacle in all {
        write!(f, "\n{:1$}- ", "", 2 * depth + 2)?;
        obstacle.write(f, depth + 1)?;
    }
    Ok(())
}

impl Obstacle {
    fn is_called(&self, wanted: &Dependency) -> bool {
        *wanted == Dependency::on_package(self.package.as_str())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let Self { package, trouble } = self;
        match trouble {
            Trouble::Needs { dependency, cause } => {
                write!(f, "{package} needs {dependency}, ")?;
                cause.write(f, dependency, depth)
            }
            Trouble::Conflicts { with, standing } => {
                write!(f, "{package} conflicts with {with}, which {standing}")
            }
            Trouble::Replaces { other, standing } => {
                write!(f, "{package} cannot take the place of {other}, which {standing}")
            }
            Trouble::Elsewhere => write!(f, "{package} does not go together with the rest"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("is installed"),
            Self::Asked => f.write_str("is asked for too"),
            Self::Upgrade => f.write_str("is an upgrade"),
            Self::NeededBy(package) => write!(f, "{package} needs"),
        }
    }
}
