//! What is due because of what has changed.
//!
//! moss does everything that any path of the new root asks for, each time. Here
//! a job is due if one of the paths that ask for it has changed, so that a
//! small transaction stays small. A directory has changed if anything below it
//! has.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cairn_store::tree::{Content, Entry};
use cairn_store::{BlobReader, LastLink, Result, Tree, TreeId, TreePath, TreeReader};
use serde::{Deserialize, Serialize};

use super::file::{Action, EntryKind, Handler, Trigger, Watched};
use super::order::order;
use super::pattern::{Captures, Pattern};

/// Something that a trigger has to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Job {
    /// The name of the trigger.
    pub trigger: String,
    /// What is done.
    pub action: Action,
}

/// What a new root means for its triggers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// What is to be done, in this order.
    pub jobs: Vec<Job>,
    /// What was done before, and nothing asks for any more.
    pub gone: BTreeSet<Job>,
}

/// Two roots, of which the new one may become the system.
#[derive(Clone, Copy, Debug)]
pub struct Roots {
    /// The root before, if there was one.
    pub old: Option<TreeId>,
    /// The root afterwards.
    pub new: TreeId,
}

/// Finds what is due when `roots.old` becomes `roots.new`, which has `triggers`.
///
/// `done` is what was done before, and `again` are the names of triggers that
/// are looked at as if they were new. `variables` are the names of the variables
/// that are set where the transaction was asked for, which may inhibit triggers.
///
/// Costs the entries that differ. Only for triggers that are new or were
/// changed, or whose programs were, it costs everything below the directories
/// in which their patterns can match.
pub fn due(
    from: &impl BlobReader,
    roots: Roots,
    triggers: &[Trigger],
    done: &BTreeSet<Job>,
    again: &BTreeSet<String>,
    variables: &BTreeSet<String>,
) -> Result<Due> {
    let mut active = Vec::new();
    for trigger in triggers {
        if !is_inhibited(from, roots.new, trigger, variables)? {
            active.push(trigger);
        }
    }
    let mut found: BTreeSet<Job> = BTreeSet::new();
    let mut gone: BTreeSet<Job> = BTreeSet::new();
    let mut known = Vec::new();
    for trigger in &active {
        let is_new = again.contains(&trigger.name);
        if !is_new && is_as_before(from, roots, trigger, variables)? {
            known.push(*trigger);
            continue;
        }
        everything(from, roots.new, trigger, &mut found)?;
        let of_it = done.iter().filter(|job| job.trigger == trigger.name);
        gone.extend(of_it.filter(|job| !found.contains(job)).cloned());
    }
    // Whether a path that went was the last one to ask for a job.
    let mut lost: BTreeMap<Job, Vec<(Watched, Captures)>> = BTreeMap::new();
    let mut visit = |path: &str, kind, side| {
        for trigger in &known {
            for (watched, captures, action) in trigger.actions(path, kind) {
                let job = Job { trigger: trigger.name.clone(), action };
                match side {
                    Side::New => drop(found.insert(job)),
                    Side::Old => {
                        lost.entry(job).or_default().push((watched.clone(), captures));
                    }
                }
            }
        }
    };
    if !known.is_empty() {
        let mut walk = Walk { from, path: String::new(), visit: &mut visit };
        walk.changes(roots.old, Some(roots.new))?;
    }
    for (job, askers) in lost {
        if found.contains(&job) {
            continue;
        }
        let trigger = known.iter().find(|trigger| trigger.name == job.trigger);
        match trigger {
            Some(trigger) if is_asked_for(from, roots.new, trigger, &job, &askers)? => {
                found.insert(job);
            }
            _ => drop(gone.insert(job)),
        }
    }
    let names: HashSet<&str> = active.iter().map(|trigger| trigger.name.as_str()).collect();
    gone.extend(done.iter().filter(|job| !names.contains(job.trigger.as_str())).cloned());
    // Two files may share a name: what one of them asks for is not gone.
    gone.retain(|job| done.contains(job) && !found.contains(job));
    Ok(Due { jobs: sort(&active, found), gone })
}

/// Jobs in the order of their triggers, and within one in that of its actions.
pub(super) fn sort(triggers: &[&Trigger], jobs: BTreeSet<Job>) -> Vec<Job> {
    let asked: BTreeSet<&str> = jobs.iter().map(|job| job.trigger.as_str()).collect();
    let due = triggers.iter().copied().filter(|trigger| asked.contains(trigger.name.as_str()));
    let places: BTreeMap<&str, usize> =
        order(due).into_iter().enumerate().map(|(place, name)| (name, place)).collect();
    let mut sorted: Vec<Job> = jobs.iter().cloned().collect();
    sorted.sort_by_key(|job| places.get(job.trigger.as_str()).copied());
    sorted
}

/// What lies at a path, through links.
fn find(from: &impl TreeReader, root: TreeId, path: &[u8]) -> Result<Option<(TreePath, Entry)>> {
    Ok(cairn_store::follow(from, root, path, LastLink::Follow)?.found())
}

fn is_inhibited(
    from: &impl TreeReader,
    root: TreeId,
    trigger: &Trigger,
    variables: &BTreeSet<String>,
) -> Result<bool> {
    let inhibitors = &trigger.inhibitors;
    if inhibitors.environment.iter().any(|name| variables.contains(name)) {
        return Ok(true);
    }
    for path in &inhibitors.paths {
        if find(from, root, path.as_bytes())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the trigger was there in the old root, did not change, and would run
/// the same programs.
fn is_as_before(
    from: &impl TreeReader,
    roots: Roots,
    trigger: &Trigger,
    variables: &BTreeSet<String>,
) -> Result<bool> {
    let Some(old) = roots.old else { return Ok(false) };
    let same = |path: &[u8]| {
        Ok::<_, cairn_store::Error>(find(from, old, path)? == find(from, roots.new, path)?)
    };
    if !same(&trigger.file.to_bytes())? || is_inhibited(from, old, trigger, variables)? {
        return Ok(false);
    }
    for handler in trigger.handlers.values() {
        if let Handler::Run { program, .. } = handler
            && program.starts_with('/')
            && !program.contains("$(")
            && !same(program.as_bytes())?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds whatever the trigger asks for in a root.
fn everything(
    from: &impl TreeReader,
    root: TreeId,
    trigger: &Trigger,
    found: &mut BTreeSet<Job>,
) -> Result<()> {
    for watched in &trigger.paths {
        // Other paths of the trigger are looked at on their own.
        let only = Trigger { paths: vec![watched.clone()], ..trigger.clone() };
        search(from, root, &watched.pattern, &Captures::new(), &mut |path, kind| {
            for (.., action) in only.actions(path, kind) {
                found.insert(Job { trigger: trigger.name.clone(), action });
            }
            true
        })?;
    }
    Ok(())
}

/// Whether a path of the root asks for the job, as those did that are gone.
fn is_asked_for(
    from: &impl TreeReader,
    root: TreeId,
    trigger: &Trigger,
    job: &Job,
    askers: &[(Watched, Captures)],
) -> Result<bool> {
    let mut tried = Vec::new();
    // Another pattern of the trigger may ask for the same.
    let of_others = trigger.paths.iter().map(|watched| (watched, Captures::new()));
    let of_askers = askers.iter().map(|(watched, captures)| (watched, captures.clone()));
    for (watched, captures) in of_askers.chain(of_others) {
        let begin = watched.pattern.beginning(&captures);
        if tried.contains(&(watched.pattern.as_str(), begin.clone())) {
            continue;
        }
        let only = Trigger { paths: vec![watched.clone()], ..trigger.clone() };
        let mut is_asked = false;
        search(from, root, &watched.pattern, &captures, &mut |path, kind| {
            let mut actions = only.actions(path, kind).into_iter();
            is_asked = actions.any(|(.., action)| action == job.action);
            !is_asked
        })?;
        if is_asked {
            return Ok(true);
        }
        tried.push((watched.pattern.as_str(), begin));
    }
    Ok(false)
}

/// Tells `visit` of each entry that may match a pattern whose groups capture
/// what `captures` says, until it returns false.
fn search(
    from: &impl TreeReader,
    root: TreeId,
    pattern: &Pattern,
    captures: &Captures,
    visit: &mut dyn FnMut(&str, EntryKind) -> bool,
) -> Result<()> {
    let begin = pattern.beginning(captures);
    // The names on the way are known; below them, all are looked at that begin
    // with the rest.
    let (way, rest) = begin.rsplit_once('/').unwrap_or(("", ""));
    let mut id = root;
    for name in way.split('/').filter(|name| !name.is_empty()) {
        let tree = from.read_tree(id)?;
        let found = tree.entries().iter().find(|(other, _)| other.as_bytes() == name.as_bytes());
        match found {
            Some((_, Entry::Directory(subtree))) => id = subtree.id,
            _ => return Ok(()),
        }
    }
    let used = way.split('/').filter(|name| !name.is_empty()).count();
    let depth = pattern.depth().map(|depth| depth.saturating_sub(used));
    let mut go_on = true;
    let mut path = String::from(way);
    below(from, id, &mut path, rest, depth, &mut go_on, visit)
}

fn below(
    from: &impl TreeReader,
    id: TreeId,
    path: &mut String,
    begin: &str,
    depth: Option<usize>,
    go_on: &mut bool,
    visit: &mut dyn FnMut(&str, EntryKind) -> bool,
) -> Result<()> {
    if depth == Some(0) {
        return Ok(());
    }
    let len = path.len();
    for (name, entry) in from.read_tree(id)?.entries() {
        let Ok(name) = std::str::from_utf8(name.as_bytes()) else { continue };
        if !name.starts_with(begin) {
            continue;
        }
        path.push('/');
        path.push_str(name);
        *go_on = visit(path, kind_of(entry));
        if let (true, Entry::Directory(subtree)) = (*go_on, entry) {
            let depth = depth.map(|depth| depth - 1);
            below(from, subtree.id, path, "", depth, go_on, visit)?;
        }
        path.truncate(len);
        if !*go_on {
            break;
        }
    }
    Ok(())
}

fn kind_of(entry: &Entry) -> EntryKind {
    match entry {
        Entry::Directory(_) => EntryKind::Directory,
        Entry::Leaf(leaf) if matches!(leaf.content, Content::Symlink(_)) => EntryKind::Symlink,
        Entry::Leaf(_) => EntryKind::Other,
    }
}

/// Which root has a path that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The new one, whatever the old one has there.
    New,
    /// The old one only.
    Old,
}

/// Walks what differs between two roots.
struct Walk<'w, F> {
    from: &'w F,
    path: String,
    visit: &'w mut dyn FnMut(&str, EntryKind, Side),
}

impl<F: TreeReader> Walk<'_, F> {
    fn changes(&mut self, old: Option<TreeId>, new: Option<TreeId>) -> Result<()> {
        if old == new {
            return Ok(());
        }
        let read = |id: Option<TreeId>| id.map(|id| self.from.read_tree(id)).transpose();
        let (old, new) = (read(old)?, read(new)?);
        let entries = |tree: &Option<std::sync::Arc<Tree>>| {
            tree.as_ref().map(|tree| tree.entries().to_vec()).unwrap_or_default()
        };
        let mut both = BTreeMap::new();
        for (name, entry) in entries(&old) {
            both.insert(name, (Some(entry), None));
        }
        for (name, entry) in entries(&new) {
            both.entry(name).or_insert((None, None)).1 = Some(entry);
        }
        for (name, (old, new)) in both {
            // Names that are not UTF-8 match no pattern, and nothing below them.
            let Ok(name) = std::str::from_utf8(name.as_bytes()) else { continue };
            if old == new {
                continue;
            }
            let len = self.path.len();
            self.path.push('/');
            self.path.push_str(name);
            if let Some(old) = &old
                && new.as_ref().is_none_or(|new| kind_of(new) != kind_of(old))
            {
                (self.visit)(&self.path, kind_of(old), Side::Old);
            }
            if let Some(new) = &new {
                (self.visit)(&self.path, kind_of(new), Side::New);
            }
            let below = |entry: &Option<Entry>| Some(entry.as_ref()?.as_directory()?.id);
            self.changes(below(&old), below(&new))?;
            self.path.truncate(len);
        }
        Ok(())
    }
}
