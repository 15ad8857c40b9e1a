//! `STATE` and `STATE:PATH`: how the command line names states and files.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

pub(crate) use cairn_store::LastLink;
use cairn_store::{Entry, Followed, Refs, State, StateId, Store, Tag, TreePath, follow};

use crate::error::Error;
use crate::escape::Escaped;

/// The name of a state: its number, a tag, or `current`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateName {
    /// The state that live roots follow.
    Current,
    /// The state with this number.
    Number(StateId),
    /// The state that this tag keeps.
    Tag(Tag),
}

impl FromStr for StateName {
    type Err = cairn_store::InvalidTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "current" {
            return Ok(Self::Current);
        }
        match text.parse() {
            Ok(id) => Ok(Self::Number(id)),
            Err(_) => text.parse().map(Self::Tag),
        }
    }
}

impl StateName {
    /// The state that has the name in `store`.
    pub(crate) fn find(&self, store: &Store) -> Result<State, Error> {
        self.find_in(&store.refs())
    }

    /// The state that has the name in a store with these states and tags.
    pub(crate) fn find_in(&self, refs: &Refs) -> Result<State, Error> {
        use cairn_store::Error::{NoState, UnknownState, UnknownTag};
        let id = match self {
            Self::Current => refs.current.ok_or(NoState)?,
            Self::Number(id) => *id,
            Self::Tag(tag) => *refs.tags.get(tag).ok_or_else(|| UnknownTag(tag.clone()))?,
        };
        Ok(refs.states.get(&id).cloned().ok_or(UnknownState(id))?)
    }
}

/// A file of a state: `5:/usr/bin/bash`, `stable:/etc`, or `/usr` alone for the
/// current state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    state: StateName,
    path: OsString,
}

/// What lies at a [`Place`].
#[derive(Debug)]
pub(crate) struct Found {
    /// The state that has it.
    pub state: State,
    /// Where it is, without symbolic links on the way.
    pub path: TreePath,
    /// What it is.
    pub entry: Entry,
}

impl Place {
    /// Reads `[STATE:]PATH`; the first colon ends the state, unless a slash
    /// comes before it.
    pub(crate) fn new(text: &OsString) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let end = bytes.iter().position(|byte| matches!(byte, b':' | b'/'));
        match end {
            Some(at) if bytes[at] == b':' => {
                let not_a_state = || Error::NotAState(Escaped(&bytes[..at]).to_string());
                let name = std::str::from_utf8(&bytes[..at]).map_err(|_| not_a_state())?;
                let state = name.parse().map_err(|_| not_a_state())?;
                let path = std::ffi::OsStr::from_bytes(&bytes[at + 1..]).to_owned();
                Ok(Self { state, path })
            }
            Some(0) => Ok(Self { state: StateName::Current, path: text.clone() }),
            _ => Err(Error::NotAPlace(Escaped(bytes).to_string())),
        }
    }

    /// Finds what lies there. Symbolic links on the way lead to where they
    /// would lead if the state were the root directory.
    ///
    /// # Errors
    /// [`Error::NoSuchFile`] and [`Error::TooManyLinks`].
    pub(crate) fn find(&self, store: &Store, last: LastLink) -> Result<Found, Error> {
        let state = self.state.find(store)?;
        match follow(store, state.tree, self.path.as_bytes(), last)? {
            Followed::Found(path, entry) => Ok(Found { state, path, entry }),
            Followed::Missing => Err(Error::NoSuchFile {
                state: state.id,
                path: Escaped(self.path.as_bytes()).to_string(),
            }),
            Followed::TooManyLinks => Err(Error::TooManyLinks {
                state: state.id,
                path: Escaped(self.path.as_bytes()).to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::{Attributes, Content, Draft, Leaf, Name, Tree};

    #[test]
    fn a_place_is_a_state_and_a_path() {
        let place = |text: &str| Place::new(&text.into());
        let at = |state, path: &str| Place { state, path: path.into() };
        assert_eq!(place("5:/usr").unwrap(), at(StateName::Number(StateId(5)), "/usr"));
        assert_eq!(place("5:usr").unwrap(), at(StateName::Number(StateId(5)), "usr"));
        assert_eq!(place("5:").unwrap(), at(StateName::Number(StateId(5)), ""));
        assert_eq!(place("/a:b").unwrap(), at(StateName::Current, "/a:b"));
        assert_eq!(place("current:/a:b").unwrap(), at(StateName::Current, "/a:b"));
        let stable = StateName::Tag(Tag::new("stable").unwrap());
        assert_eq!(place("stable:/a").unwrap(), at(stable, "/a"));
        for text in ["", "usr/bin", "5", ":/usr"] {
            assert!(place(text).is_err(), "{text:?}");
        }
    }

    /// A store whose only state has /usr/bin/sh, /bin -> usr/bin, and others.
    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let mut transaction = store.begin().unwrap();
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let link = |text: &str| {
            Entry::Leaf(Leaf {
                attributes: Attributes::of_root(0o777),
                content: Content::Symlink(text.as_bytes().into()),
                link: None,
            })
        };
        let attributes = Attributes::implied_directory;
        let bin = Tree::new(attributes(), vec![(name("sh"), link("dash"))]).unwrap();
        let bin = transaction.put_subtree(bin).unwrap();
        let usr = Tree::new(attributes(), vec![(name("bin"), bin)]).unwrap();
        let usr = transaction.put_subtree(usr).unwrap();
        let entries = vec![
            (name("usr"), usr),
            (name("bin"), link("usr/bin")),
            (name("absolute"), link("/bin/../bin/.")),
            (name("out"), link("../../../usr")),
            (name("loop"), link("loop")),
        ];
        let tree = transaction.put_tree(Tree::new(attributes(), entries).unwrap()).unwrap();
        let request = "install nothing".into();
        let packages = transaction.put_tree(Tree::empty(attributes())).unwrap();
        transaction.commit(Draft { parent: None, request, tree, packages }).unwrap();
        (directory, store)
    }

    #[test]
    fn links_lead_where_they_would_if_the_state_were_the_root() {
        let (_directory, store) = store();
        let find = |path: &str, last| {
            let place = Place { state: StateName::Current, path: path.into() };
            place.find(&store, last).map(|found| found.path.to_string()).ok()
        };
        let cases = [
            ("/", "/"),
            ("/bin", "/usr/bin"),
            ("bin//./", "/usr/bin"),
            ("/absolute", "/usr/bin"),
            ("/out/bin", "/usr/bin"),
            ("/../../usr", "/usr"),
        ];
        for (path, expected) in cases {
            assert_eq!(find(path, LastLink::Follow).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(find("/bin/sh", LastLink::Keep).as_deref(), Some("/usr/bin/sh"));
        assert_eq!(find("/bin", LastLink::Keep).as_deref(), Some("/bin"));
        for path in ["/bin/sh", "/loop", "/nothing", "/bin/sh/x"] {
            assert_eq!(find(path, LastLink::Follow), None, "{path}");
        }
    }
}
