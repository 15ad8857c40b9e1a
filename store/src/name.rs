//! One component of a path, and a path of them, as bytes.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

/// One component of a path inside a tree.
///
/// Invariant: 1 to 255 bytes, no `/` and no NUL, neither `.` nor `..`. It need
/// not be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// Bytes that cannot be a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" cannot be the name of a file", .0.escape_ascii())]
pub struct InvalidName(pub Box<[u8]>);

impl Name {
    /// The longest name in bytes, as in Linux's `NAME_MAX`.
    pub const MAX: usize = 255;

    /// Checks `bytes`; the only way to make a `Name`.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidName> {
        let fits = (1..=Self::MAX).contains(&bytes.len());
        let special = bytes == b"." || bytes == b"..";
        if !fits || special || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err(InvalidName(bytes.into()));
        }
        Ok(Self(bytes.into()))
    }

    /// Gives the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the name with everything but printable ASCII escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path below the root of a tree: names without `.` or `..`, so that it
/// cannot lead out. The root itself is the empty path.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<Name>);

/// Why bytes are not a [`TreePath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a path of a tree", path.escape_ascii())]
pub struct InvalidPath {
    path: Box<[u8]>,
    source: Option<InvalidName>,
}

impl TreePath {
    /// The deepest path that a tree may hold, in components.
    pub const MAX_DEPTH: usize = 256;

    /// The empty path.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Reads `a/b/c`, with or without one leading slash.
    ///
    /// # Errors
    /// Empty components (`a//b`, `a/`), `.` and `..`, NUL bytes, components of
    /// over 255 bytes and paths of over [`Self::MAX_DEPTH`] components.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidPath> {
        let invalid = |source| InvalidPath { path: bytes.into(), source };
        let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
        if relative.is_empty() {
            return Ok(Self::root());
        }
        let mut names = Vec::new();
        for component in relative.split(|byte| *byte == b'/') {
            if names.len() == Self::MAX_DEPTH {
                return Err(invalid(None));
            }
            names.push(Name::new(component).map_err(|err| invalid(Some(err)))?);
        }
        Ok(Self(names))
    }

    /// The components, outermost first.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Appends one component.
    pub fn push(&mut self, name: Name) {
        self.0.push(name);
    }

    /// Removes the last component, if there is one.
    pub fn pop(&mut self) -> Option<Name> {
        self.0.pop()
    }

    /// The path of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut path = self.clone();
        path.push(name.clone());
        path
    }

    /// Splits off the last component; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(TreePath, &Name)> {
        let (last, parents) = self.0.split_last()?;
        Some((Self(parents.to_vec()), last))
    }

    /// The bytes with a leading slash; the root is `/`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return b"/".to_vec();
        }
        self.0.iter().flat_map(|name| [b"/", name.as_bytes()].concat()).collect()
    }
}

impl FromIterator<Name> for TreePath {
    fn from_iter<I: IntoIterator<Item = Name>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

/// Shows the path with a leading slash, escaped like [`Name`].
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl serde::Serialize for TreePath {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component() {
        let long = [b'x'; 256];
        for bytes in [&b""[..], b".", b"..", b"a/b", b"a\0b", b"/", &long] {
            assert!(Name::new(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        for bytes in [&b"a"[..], b"...", b"\xff\xfe", b"a b", &long[..255]] {
            assert_eq!(Name::new(bytes).expect("a name").as_bytes(), bytes);
        }
    }

    #[test]
    fn a_path_cannot_lead_out_of_its_tree() {
        for bytes in [&b"a/../b"[..], b"..", b"a//b", b"a/", b"//a", b"./a", b"a/\0"] {
            assert!(TreePath::new(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(TreePath::new("a/".repeat(300).as_bytes()).is_err());
        for (bytes, shown) in [("", "/"), ("/", "/"), ("a/b", "/a/b"), ("/usr/bin", "/usr/bin")] {
            assert_eq!(TreePath::new(bytes.as_bytes()).expect("a path").to_string(), shown);
        }
    }
}
