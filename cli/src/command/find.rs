//! `cairn find`: where something is in a state, by a pattern of its name or path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use cairn_store::{Entry, Name, Store, TreeId, TreePath, resolve};
use globset::{GlobBuilder, GlobMatcher};
use serde::Serialize;

use crate::context::Context;
use crate::differences::kind;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::Page;
use crate::place::StateName;

/// Find files and directories of a state by name
///
/// In a pattern, * stands for any text without a slash, ** for any text, ? for one
/// character, [abc] for one of these and {a,b} for one of both. A pattern without a slash is
/// compared with names, one with a slash with whole paths, which may begin without one. Exit
/// code 1 says that nothing was found.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// State to look into
    state: StateName,
    /// What to look for, such as '*.so.6' or '/usr/**/*.conf'
    pattern: String,
    /// Do not distinguish upper and lower case
    #[arg(short, long)]
    ignore_case: bool,
}

#[derive(Serialize)]
struct Found {
    state: u64,
    matches: Vec<Match>,
}

#[derive(Serialize)]
struct Match {
    path: String,
    kind: &'static str,
    /// Bytes of a file, or of all files below a directory.
    bytes: u64,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    let pattern = GlobBuilder::new(&args.pattern)
        .literal_separator(true)
        .case_insensitive(args.ignore_case)
        .build()
        .map_err(Error::Pattern)?;
    let mut walk = Walk {
        store: &store,
        matcher: pattern.compile_matcher(),
        whole: args.pattern.contains('/'),
        matches: Vec::new(),
    };
    let mut top = TreePath::root();
    if walk.whole && !args.ignore_case {
        top = directories_named_by(&args.pattern);
    }
    if let Some(Entry::Directory(subtree)) = resolve(&store, state.tree, &top)? {
        walk.directory(subtree.id, &mut top)?;
    }
    let found = Found { state: state.id.0, matches: walk.matches };
    output.list(&found)?;
    if found.matches.is_empty() {
        return Err(Error::NothingFound { pattern: args.pattern.clone(), state: state.id });
    }
    Ok(())
}

/// The directories in which everything lies whose path fits: the components before the last one
/// and before those that leave something open.
fn directories_named_by(pattern: &str) -> TreePath {
    let above = pattern.rsplit_once('/').map_or("", |(above, _)| above);
    let components = above.split('/').filter(|it| !it.is_empty());
    let named = components.take_while(|it| !it.contains(['*', '?', '[', ']', '{', '}', '\\']));
    named.map_while(|it| Name::new(it.as_bytes()).ok()).collect()
}

struct Walk<'a> {
    store: &'a Store,
    matcher: GlobMatcher,
    whole: bool,
    matches: Vec<Match>,
}

impl Walk<'_> {
    fn directory(&mut self, id: TreeId, path: &mut TreePath) -> Result<(), Error> {
        for (name, entry) in self.store.tree(id)?.entries() {
            path.push(name.clone());
            let fits = |subject: &[u8]| self.matcher.is_match(OsStr::from_bytes(subject));
            let is_found = if self.whole {
                let whole = path.to_bytes();
                fits(&whole) || whole.strip_prefix(b"/").is_some_and(fits)
            } else {
                fits(name.as_bytes())
            };
            if is_found {
                self.matches.push(Match {
                    path: Escaped(&path.to_bytes()).to_string(),
                    kind: kind(entry),
                    bytes: entry.summary().bytes,
                });
            }
            if let Entry::Directory(subtree) = entry {
                self.directory(subtree.id, path)?;
            }
            path.pop();
        }
        Ok(())
    }
}

impl View for Found {
    fn show(&self, page: &mut Page) {
        for found in &self.matches {
            page.line(&found.path);
        }
    }
}
