//! `--exclude`: patterns of paths that are left out.

use std::fs;
use std::path::PathBuf;

use cairn_store::TreePath;
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::Error;

/// What the command line says of paths to leave out.
#[derive(clap::Args)]
pub(crate) struct ExcludeArgs {
    /// Leave out what matches PATTERN, with all below it: *, ?, [abc] and {a,b}
    /// do not match a slash, ** does; with a slash in it, the pattern is for
    /// the whole path from DIR, else for a name anywhere
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out the patterns in FILE, one a line; lines with # are remarks
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
}

/// Patterns to leave out.
pub(crate) struct Excluded {
    names: GlobSet,
    paths: GlobSet,
}

impl ExcludeArgs {
    /// Whether there is anything to leave out.
    pub(crate) fn is_given(&self) -> bool {
        !self.exclude.is_empty() || !self.exclude_from.is_empty()
    }

    /// Reads the patterns; `None` when there are none.
    pub(crate) fn read(&self) -> Result<Option<Excluded>, Error> {
        let mut patterns = self.exclude.clone();
        for path in &self.exclude_from {
            let text = fs::read_to_string(path).map_err(Error::read(path))?;
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            patterns.extend(lines.map(str::to_owned));
        }
        if patterns.is_empty() { Ok(None) } else { Excluded::new(&patterns).map(Some) }
    }
}

impl Excluded {
    fn new(patterns: &[String]) -> Result<Self, Error> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            // A slash at the end is how people mark directories.
            let bare = pattern.strip_suffix('/').unwrap_or(pattern);
            if bare.contains('/') {
                paths.add(glob(bare.strip_prefix('/').unwrap_or(bare))?);
            } else {
                names.add(glob(bare)?);
            }
        }
        let build = |set: GlobSetBuilder| set.build().map_err(Error::Pattern);
        Ok(Self { names: build(names)?, paths: build(paths)? })
    }

    /// Whether `path` itself matches.
    pub(crate) fn matches(&self, path: &TreePath) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let is_match = |set: &GlobSet, bytes: &[u8]| {
            !set.is_empty() && set.is_match(std::ffi::OsStr::from_bytes(bytes))
        };
        let name = path.names().last().map_or(&b""[..], |name| name.as_bytes());
        is_match(&self.names, name)
            || (!self.paths.is_empty() && is_match(&self.paths, &path.to_bytes()[1..]))
    }
}

fn glob(pattern: &str) -> Result<Glob, Error> {
    GlobBuilder::new(pattern).literal_separator(true).build().map_err(Error::Pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_a_name_or_for_a_path_from_the_root() {
        let check = |pattern: &str, matching: &[&str], others: &[&str]| {
            let excluded = Excluded::new(&[pattern.to_owned()]).expect("a pattern");
            let matches =
                |path: &&str| excluded.matches(&TreePath::new(path.as_bytes()).expect("a path"));
            assert!(matching.iter().all(matches), "{pattern}: {matching:?}");
            assert!(!others.iter().any(matches), "{pattern}: {others:?}");
        };
        check("*.o", &["a.o", "b/c.o", ".o"], &["a.o/b", "a.ob"]);
        check("cache/", &["cache", "a/cache"], &["cached", "cache/a"]);
        check("/cache", &["cache"], &["a/cache"]);
        check("var/*/lock", &["var/a/lock"], &["var/a/b/lock", "x/var/a/lock"]);
        check("var/**/lock", &["var/a/lock", "var/a/b/lock", "var/lock"], &["lock"]);
        check("**/var/lock", &["var/lock", "a/var/lock"], &["var/lock/a"]);
        check("[a-c]?", &["ax", "d/bx"], &["dx", "a"]);
    }
}
