//! What is due, against a look at every path of every root.

use std::collections::{BTreeMap, BTreeSet};

use cairn_store::tree::{Content, Leaf};
use cairn_store::{
    Attributes, BlobRef, BytesSource, Edit, Staged, Store, Transaction, Tree, TreeId, TreePath,
    edit,
};
use proptest::prelude::*;

use super::file::EntryKind;
use super::*;

/// Files with their contents, and links with where they lead, by path.
type Root = BTreeMap<String, String>;

struct Lab {
    _directory: tempfile::TempDir,
    transaction: Transaction,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        Self { transaction: store.begin().unwrap(), _directory: directory }
    }

    fn put(&mut self, root: &Root) -> TreeId {
        let empty = Tree::empty(Attributes::implied_directory());
        let empty = self.transaction.put_tree(empty).unwrap();
        let mut edits = BTreeMap::new();
        for (path, text) in root {
            let content = match text.strip_prefix("-> ") {
                Some(target) => Content::Symlink(target.as_bytes().into()),
                None => {
                    let source = BytesSource { name: path, bytes: text.as_bytes() };
                    let blobs: Vec<BlobRef> = self.transaction.ingest(&[source], &()).unwrap();
                    Content::File(blobs[0])
                }
            };
            let leaf = Leaf { attributes: Attributes::of_root(0o755), content, link: None };
            edits.insert(TreePath::new(path.as_bytes()).unwrap(), Edit::Leaf(leaf));
        }
        edit(&mut self.transaction, empty, &edits).unwrap()
    }

    fn staged(&mut self) -> Staged {
        self.transaction.staged().unwrap()
    }
}

fn root<const N: usize>(files: [(&str, &str); N]) -> Root {
    files.into_iter().map(|(path, text)| (path.into(), text.into())).collect()
}

/// A trigger `name` that runs /bin/NAME with `argument` for each path.
fn trigger(name: &str, argument: &str, paths: &str) -> (String, String) {
    let file = format!("/usr/share/moss/triggers/tx.d/{name}.yaml");
    let text = format!(
        "name: {name}\ndescription: x\nhandlers:\n  run: {{run: /bin/{name}, args: [\"{argument}\"]}}\n\
         paths:\n  {paths}: {{handlers: [run]}}\n"
    );
    (file, text)
}

fn due_between(old: Option<&Root>, new: &Root, done: &BTreeSet<Job>) -> Due {
    due_in(&mut Lab::new(), old, new, done)
}

fn due_in(lab: &mut Lab, old: Option<&Root>, new: &Root, done: &BTreeSet<Job>) -> Due {
    let old = old.map(|old| lab.put(old));
    let roots = Roots { old, new: lab.put(new) };
    let staged = lab.staged();
    let triggers = load(&staged, roots.new, Scope::Transaction).unwrap();
    due(&staged, roots, &triggers, done, &BTreeSet::new(), &BTreeSet::new()).unwrap()
}

fn words(jobs: &[Job]) -> Vec<String> {
    let word = |job: &Job| match &job.action {
        Action::Run(words) => words.join(" "),
        Action::Delete(path) => format!("delete {path}"),
    };
    jobs.iter().map(word).collect()
}

#[test]
fn only_what_changed_makes_something_due() {
    let icons = trigger("icons", "$(theme)", "/usr/share/icons/(theme:*)/**.png");
    let other = trigger("other", "x", "/usr/share/other/*");
    let base = root([
        ("/usr/share/icons/a/x.png", "1"),
        ("/usr/share/icons/b/x.png", "1"),
        ("/usr/share/icons/b/y.png", "1"),
        ("/usr/share/other/z", "1"),
        (&icons.0, &icons.1),
        (&other.0, &other.1),
    ]);
    let first = due_between(None, &base, &BTreeSet::new());
    assert_eq!(words(&first.jobs), ["/bin/icons a", "/bin/icons b", "/bin/other x"]);
    let done: BTreeSet<Job> = first.jobs.into_iter().collect();

    let check = |change: &dyn Fn(&mut Root), expected: &[&str], gone: &[&str]| {
        let mut new = base.clone();
        change(&mut new);
        let due = due_between(Some(&base), &new, &done);
        assert_eq!(words(&due.jobs), expected);
        assert_eq!(words(&due.gone.into_iter().collect::<Vec<_>>()), gone);
    };
    let put = |path: &'static str, text: &'static str| {
        move |root: &mut Root| drop(root.insert(path.into(), text.into()))
    };
    let take = |path: &'static str| move |root: &mut Root| drop(root.remove(path));
    check(&|_| (), &[], &[]);
    check(&put("/usr/bin/unrelated", "1"), &[], &[]);
    check(&put("/usr/share/icons/a/x.png", "2"), &["/bin/icons a"], &[]);
    check(&put("/usr/share/icons/c/deep/x.png", "2"), &["/bin/icons c"], &[]);
    check(&take("/usr/share/icons/b/x.png"), &["/bin/icons b"], &[]);
    check(&take("/usr/share/icons/a/x.png"), &[], &["/bin/icons a"]);
    check(&take("/usr/share/other/z"), &[], &["/bin/other x"]);
    // The program of a trigger, and the trigger itself.
    check(&put("/bin/icons", "new"), &["/bin/icons a", "/bin/icons b"], &[]);
    let file = icons.0.clone();
    let gone = |root: &mut Root| drop(root.remove(&file));
    check(&gone, &[], &["/bin/icons a", "/bin/icons b"]);
    let changed = trigger("icons", "-$(theme)", "/usr/share/icons/(theme:a)/**.png");
    let change = |root: &mut Root| drop(root.insert(changed.0.clone(), changed.1.clone()));
    check(&change, &["/bin/icons -a"], &["/bin/icons a", "/bin/icons b"]);
}

#[test]
fn a_directory_has_changed_if_anything_below_it_has() {
    let depmod = trigger("depmod", "$(v)", "/usr/lib/modules/(v:*)/kernel");
    let mut base = root([(&depmod.0, &depmod.1), ("/usr/lib/modules/6.1/kernel/a/b/c.ko", "1")]);
    let before = base.clone();
    base.insert("/usr/lib/modules/6.1/kernel/a/b/d.ko".into(), "1".into());
    let due = due_between(Some(&before), &base, &BTreeSet::new());
    assert_eq!(words(&due.jobs), ["/bin/depmod 6.1"]);
}

#[test]
fn inhibitors_inhibit_and_what_was_done_before_is_gone() {
    let (file, text) = trigger("a", "x", "/usr/a/*");
    let text = format!("{text}inhibitors: {{paths: [/usr/no-a], environment: [NO_A]}}\n");
    let base = root([(&file, &text), ("/usr/a/b", "1")]);
    let first = due_between(None, &base, &BTreeSet::new());
    assert_eq!(words(&first.jobs), ["/bin/a x"]);
    let done: BTreeSet<Job> = first.jobs.iter().cloned().collect();
    let mut inhibited = base.clone();
    inhibited.insert("/usr/no-a".into(), "-> nothing".into());
    // A link that leads nowhere is nothing.
    assert_eq!(due_between(Some(&base), &inhibited, &done), Due::default());
    inhibited.insert("/usr/no-a".into(), String::new());
    let due = due_between(Some(&base), &inhibited, &done);
    assert_eq!((due.jobs.len(), due.gone.len()), (0, 1));
    let again = due_between(Some(&inhibited), &base, &BTreeSet::new());
    assert_eq!(again.jobs, first.jobs, "it was inhibited before");

    let mut lab = Lab::new();
    let roots = Roots { old: None, new: lab.put(&base) };
    let staged = lab.staged();
    let triggers = load(&staged, roots.new, Scope::Transaction).unwrap();
    let variables = BTreeSet::from(["NO_A".to_owned()]);
    let found =
        super::due(&staged, roots, &triggers, &BTreeSet::new(), &BTreeSet::new(), &variables)
            .unwrap();
    assert_eq!(found, Due::default());
}

#[test]
fn a_file_that_is_no_trigger_is_an_error_that_names_it() {
    let mut lab = Lab::new();
    let mut files = root([("/usr/share/moss/triggers/tx.d/ignored.yml", "{")]);
    let tree = lab.put(&files);
    assert_eq!(load(&lab.staged(), tree, Scope::Transaction).unwrap(), []);
    files.insert("/usr/share/moss/triggers/tx.yaml".into(), "{".into());
    let tree = lab.put(&files);
    assert_eq!(load(&lab.staged(), tree, Scope::System).unwrap(), []);
    let error = load(&lab.staged(), tree, Scope::Transaction).unwrap_err();
    let expected = "the trigger /usr/share/moss/triggers/tx.yaml cannot be used";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn kdl_wins_over_yaml_of_the_same_name() {
    let mut lab = Lab::new();
    let (file, text) = trigger("a", "x", "/usr/a/*");
    let kdl = file.replace(".yaml", ".kdl");
    let in_kdl = "name b\ndescription x\nhandlers { x { run \"/bin/b\"; }; }\npaths { \"/x\" { handlers x; }; }\n";
    let tree = lab.put(&root([(&file, &text), (&kdl, in_kdl)]));
    let triggers = load(&lab.staged(), tree, Scope::Transaction).unwrap();
    assert_eq!(triggers.iter().map(|trigger| trigger.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

/// Whatever every path of a root asks for, as moss finds it.
fn all_of(root: &Root) -> BTreeSet<Job> {
    let mut paths: BTreeMap<String, EntryKind> = BTreeMap::new();
    for (path, text) in root {
        let kind = if text.starts_with("-> ") { EntryKind::Symlink } else { EntryKind::Other };
        paths.insert(path.clone(), kind);
        for (at, _) in path.match_indices('/').skip(1) {
            paths.insert(path[..at].into(), EntryKind::Directory);
        }
    }
    let triggers = root.iter().filter(|(path, _)| path.contains("/tx.d/")).map(|(path, text)| {
        Trigger::parse(&TreePath::new(path.as_bytes()).unwrap(), text.as_bytes()).unwrap()
    });
    let mut jobs = BTreeSet::new();
    for trigger in triggers {
        for (path, kind) in &paths {
            for (.., action) in trigger.actions(path, *kind) {
                jobs.insert(Job { trigger: trigger.name.clone(), action });
            }
        }
    }
    jobs
}

const PATTERNS: [(&str, &str, &str); 7] = [
    ("p", "$(x)", "/a/(x:*)/**"),
    ("q", "$(x)$(y)", "/(x:*)/(y:*)"),
    ("r", "all", "/**.so"),
    ("s", "dir", "/a/b"),
    ("t", "$(x)", "/a/?/(x:*)"),
    ("u", "fixed", "/[ab]/c"),
    ("v", "$(x)", "/a/b/(x:*).so"),
];

fn roots() -> impl Strategy<Value = Root> {
    let names = prop::sample::select(vec!["a", "b", "c", "d.so"]);
    let path = prop::collection::vec(names, 1..4);
    let text = prop::sample::select(vec!["1", "2", "-> a"]);
    let files = prop::collection::vec((path, text), 0..8);
    let triggers = prop::collection::btree_set(0..PATTERNS.len(), 0..PATTERNS.len());
    let programs = prop::collection::btree_map(0..PATTERNS.len(), 0..2_u8, 0..3);
    (files, triggers, programs).prop_map(|(files, triggers, programs)| {
        let mut root = Root::new();
        for (path, text) in files {
            let path = format!("/{}", path.join("/"));
            let clashes = |other: &String| {
                other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/"))
            };
            if !root.keys().any(clashes) {
                root.insert(path, text.into());
            }
        }
        for at in triggers {
            let (name, argument, paths) = PATTERNS[at];
            root.extend([trigger(name, argument, &format!("\"{paths}\""))]);
        }
        for (at, version) in programs {
            root.insert(format!("/bin/{}", PATTERNS[at].0), version.to_string());
        }
        root
    })
}

/// Doing what is due after each change comes to the same jobs as doing everything.
#[test]
fn nothing_is_missed_and_nothing_done_for_nothing() {
    let lab = std::cell::RefCell::new(Lab::new());
    let between = |old: &Root, new: &Root, done: &BTreeSet<Job>| {
        due_in(&mut lab.borrow_mut(), Some(old), new, done)
    };
    let config =
        ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(old in roots(), new in roots())| {
        let before = all_of(&old);
        let after = all_of(&new);
        let due = between(&old, &new, &before);
        let jobs: BTreeSet<Job> = due.jobs.iter().cloned().collect();
        prop_assert!(jobs.is_subset(&after), "{jobs:?} {after:?}");
        let gone: BTreeSet<Job> = before.difference(&after).cloned().collect();
        prop_assert_eq!(&due.gone, &gone);
        let new_jobs: BTreeSet<Job> = after.difference(&before).cloned().collect();
        prop_assert!(new_jobs.is_subset(&jobs), "{new_jobs:?} {jobs:?}");
        // What is left is what would ask for the same without what changed.
        for job in after.difference(&jobs) {
            let mut without = new.clone();
            without.retain(|path, text| old.get(path) == Some(text));
            prop_assert!(all_of(&without).contains(job), "{job:?}");
        }
        prop_assert_eq!(between(&new, &new, &after), Due::default());
    });
}

#[test]
fn a_live_root_has_no_triggers_only_where_it_surely_has_none() {
    let home = tempfile::tempdir().unwrap();
    let plain = home.path().join("plain");
    std::fs::create_dir_all(plain.join("usr/share")).unwrap();
    assert!(!can_have_triggers(&plain));
    std::fs::create_dir_all(plain.join("usr/share/moss/triggers")).unwrap();
    assert!(can_have_triggers(&plain));
    let linked = home.path().join("linked");
    std::fs::create_dir(&linked).unwrap();
    // What it leads to inside the root is for the store to say.
    std::os::unix::fs::symlink("/nowhere", linked.join("usr")).unwrap();
    assert!(can_have_triggers(&linked));
}
