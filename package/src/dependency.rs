//! What a package asks for and what it offers: a kind and a text.
//!
//! Format: stone v1, "Dependency kinds". There are no versions in it.

use std::fmt;
use std::str::FromStr;

/// Which name space the text of a [`Dependency`] belongs to.
///
/// The order is that of the prefixes as text, which is the order in which
/// stones list dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file in `/usr/bin`.
    Binary,
    /// A `CMake` package.
    Cmake,
    /// The program interpreter of an ELF file with its architecture.
    Interpreter,
    /// The name of a package.
    Name,
    /// A pkg-config file without its suffix.
    PkgConfig,
    /// A pkg-config file of the 32-bit emulation.
    PkgConfig32,
    /// A Python distribution, normalised as in PEP 503.
    Python,
    /// The soname of a shared library with its architecture.
    Soname,
    /// A file in `/usr/sbin`.
    SysBinary,
}

/// Every kind, with the number that stands for it in a stone and its prefix.
const KINDS: [(Kind, u8, &str); 9] = [
    (Kind::Name, 0, "name"),
    (Kind::Soname, 1, "soname"),
    (Kind::PkgConfig, 2, "pkgconfig"),
    (Kind::Interpreter, 3, "interpreter"),
    (Kind::Cmake, 4, "cmake"),
    (Kind::Python, 5, "python"),
    (Kind::Binary, 6, "binary"),
    (Kind::SysBinary, 7, "sysbinary"),
    (Kind::PkgConfig32, 8, "pkgconfig32"),
];

impl Kind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|row| row.0)
    }

    /// The kind with this number in a stone.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        KINDS.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The number in a stone.
    #[must_use]
    pub fn number(self) -> u8 {
        self.row().1
    }

    /// The word before the parentheses.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Self, u8, &'static str) {
        KINDS.iter().find(|row| row.0 == self).expect("the table has every kind")
    }
}

/// Something that a package depends on, provides or conflicts with, such as
/// `soname(libz.so.1(x86_64))`.
///
/// The same type serves for all three roles, as in stones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dependency {
    /// The name space.
    pub kind: Kind,
    /// The text between the parentheses.
    pub text: String,
}

impl Dependency {
    /// A dependency of `kind` on `text`.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// A dependency on the package `name`.
    pub fn on_package(name: impl Into<String>) -> Self {
        Self::new(Kind::Name, name)
    }
}

/// Shows `kind(text)`, and a package name as it is.
impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Name => f.write_str(&self.text),
            kind => write!(f, "{}({})", kind.prefix(), self.text),
        }
    }
}

/// A text that is neither a package name nor `kind(text)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDependency {
    /// There is nothing in it, or nothing between its parentheses.
    #[error("{0:?} names nothing")]
    Empty(String),
    /// It has an opening parenthesis, but does not end in a closing one.
    #[error("{0:?} lacks the closing parenthesis at its end")]
    Unclosed(String),
    /// The word before the parenthesis is not a kind.
    #[error("{text:?}: {kind:?} is not a kind of dependency")]
    UnknownKind {
        /// The whole text.
        text: String,
        /// The word before the parenthesis.
        kind: String,
    },
}

/// Reads `name` or `kind(text)`; the first parenthesis ends the kind.
impl FromStr for Dependency {
    type Err = InvalidDependency;

    fn from_str(text: &str) -> Result<Self, InvalidDependency> {
        let Some((prefix, rest)) = text.split_once('(') else {
            if text.is_empty() {
                return Err(InvalidDependency::Empty(text.into()));
            }
            return Ok(Self::on_package(text));
        };
        let Some(inner) = rest.strip_suffix(')') else {
            return Err(InvalidDependency::Unclosed(text.into()));
        };
        let Some((kind, ..)) = KINDS.iter().find(|row| row.2 == prefix) else {
            let kind = prefix.into();
            return Err(InvalidDependency::UnknownKind { text: text.into(), kind });
        };
        if inner.is_empty() {
            return Err(InvalidDependency::Empty(text.into()));
        }
        Ok(Self::new(*kind, inner))
    }
}

impl serde::Serialize for Dependency {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Dependency {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back() {
        for text in ["nano", "soname(libz.so.1(x86_64))", "binary(a)", "pkgconfig32(x)"] {
            let dependency: Dependency = text.parse().expect(text);
            assert_eq!(dependency.to_string(), text);
        }
        let explicit: Dependency = "name(nano)".parse().expect("a package name");
        assert_eq!(explicit, Dependency::on_package("nano"));
    }

    #[test]
    fn the_order_of_kinds_is_that_of_their_prefixes() {
        let mut kinds: Vec<Kind> = KINDS.iter().map(|row| row.0).collect();
        kinds.sort_unstable();
        let prefixes: Vec<&str> = kinds.into_iter().map(Kind::prefix).collect();
        assert!(prefixes.is_sorted(), "{prefixes:?}");
    }

    #[test]
    fn what_is_not_a_dependency_is_refused() {
        for text in ["", "binary()", "binary(x", "library(x)"] {
            assert!(text.parse::<Dependency>().is_err(), "{text}");
        }
    }
}
