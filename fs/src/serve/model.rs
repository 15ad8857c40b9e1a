//! A model of what the kernel keeps of a mount, to find out whether a switch
//! tells it enough: random look-ups, forgetting and switches, and after each
//! switch everything that is still kept has to be true.

#![allow(clippy::cast_possible_truncation, clippy::collapsible_match, reason = "dice are small")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex};

use cairn_store::tree::{Content, HardLink, LinkGroup};
use cairn_store::{
    Attributes, BlobRef, Entry, Error, Leaf, Name, Refs, Result, State, StateId, Subtree, Summary,
    Tag, Tree, TreeId,
};

use crate::serve::filesystem::{Filesystem, Found, Refusal};
use crate::serve::listing::{Cookie, Item};
use crate::serve::node::NodeId;
use crate::serve::stat::{Kind, Stat};
use crate::serve::switch::Change;
use crate::shape::{Shape, Shown};
use crate::source::Source;
use crate::sys;

/// Trees in memory.
#[derive(Default)]
struct Memory {
    trees: Mutex<BTreeMap<TreeId, Arc<Tree>>>,
    refs: Mutex<Refs>,
}

impl Source for Memory {
    fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        self.trees.lock().unwrap().get(&id).cloned().ok_or(Error::MissingTree { id })
    }

    /// All that both have is missing.
    fn differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        let (old, new) = (self.tree(old)?, self.tree(new)?);
        let without = |tree: &Tree, other: &Tree| {
            let entries =
                tree.entries().iter().filter(|(name, entry)| other.get(name) != Some(entry));
            Tree::new(tree.attributes.clone(), entries.cloned().collect()).map(Arc::new).unwrap()
        };
        Ok((without(&old, &new), without(&new, &old)))
    }

    fn read_at(&self, _: &BlobRef, _: u64, _: &mut [u8]) -> Result<usize> {
        Ok(0)
    }

    fn refs(&self) -> Refs {
        self.refs.lock().unwrap().clone()
    }

    fn refresh(&self) -> Result<()> {
        Ok(())
    }
}

impl Memory {
    fn put(&self, attributes: Attributes, entries: Vec<(Name, Entry)>) -> TreeId {
        let tree = Tree::new(attributes, entries).unwrap();
        let id = tree.encode().id;
        self.trees.lock().unwrap().insert(id, Arc::new(tree));
        id
    }

    fn publish(&self, id: u64, tree: TreeId) {
        let (id, time) = (StateId(id), id);
        let state = State { id, parent: None, time, request: String::new(), tree, packages: tree };
        self.refs.lock().unwrap().states.insert(id, state);
    }
}

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A random directory in which much is as in others.
fn grow(memory: &Memory, dice: &mut Dice, depth: u64) -> TreeId {
    let mut entries = Vec::new();
    for text in NAMES {
        let (bytes, mode) = ([dice.roll(2) as u8], 0o600 + dice.roll(2) as u16);
        let entry = match dice.roll(8) {
            0 | 1 => continue,
            2..4 if depth > 0 => {
                let id = grow(memory, dice, depth - 1);
                Entry::Directory(Subtree { id, summary: Summary::default() })
            }
            kind => {
                let content = Content::File(BlobRef::of(&bytes));
                let group = LinkGroup::of(&bytes);
                let link = (kind == 4).then_some(HardLink { group, count: 2 });
                Entry::Leaf(Leaf { attributes: Attributes::of_root(mode), content, link })
            }
        };
        entries.push((name(text), entry));
    }
    let mode = 0o700 + dice.roll(2) as u16;
    memory.put(Attributes::of_root(mode), entries)
}

type Mount = Filesystem<Arc<Memory>>;

/// What the kernel believes.
#[derive(Default)]
struct Kernel {
    names: BTreeMap<(NodeId, Name), Option<NodeId>>,
    nodes: BTreeMap<NodeId, (Stat, u64)>,
    /// Directories that some process is in.
    used: BTreeSet<NodeId>,
    /// How what it forgets comes to the mount.
    forgetting: Forgetting,
    /// What it has forgotten and not said yet: the kernel delivers that when it
    /// likes, also behind questions that were asked later. And how many rounds of
    /// asking ago that was.
    unsaid: Vec<(NodeId, u64, u32)>,
    /// Answers whose callers have not run yet, and how many rounds of asking ago
    /// they were given.
    unseen: Vec<((NodeId, Name), Stat, u32)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Forgetting {
    #[default]
    AtOnce,
    Later,
    /// It gets lost on its way to a mount that dies.
    Lost,
}

impl Kernel {
    /// Finds a name as a program does, and asks only what it does not know.
    fn look(&mut self, mount: &Mount, parent: NodeId, text: &str) -> Option<NodeId> {
        let key = (parent, name(text));
        if let Some(known) = self.names.get(&key) {
            return *known;
        }
        let found = match mount.view().lookup(parent, text.as_bytes()) {
            Ok(Found::Node(stat)) => {
                mount.keep().unwrap();
                self.told(stat);
                Some(stat.id)
            }
            Ok(Found::Nothing) => None,
            // Not kept, as the kernel does not keep errors.
            Err(Refusal::Gone) => return None,
            Err(other) => panic!("{other:?}"),
        };
        self.names.insert(key, found);
        found
    }

    fn told(&mut self, stat: Stat) {
        let (kept, count) = self.nodes.entry(stat.id).or_insert((stat, 0));
        (*kept, *count) = (stat, *count + 1);
    }

    /// Lists a directory as readdirplus does.
    fn list(&mut self, mount: &Mount, id: NodeId) {
        let view = mount.view();
        let Ok(listing) = view.list(id, Cookie::START) else { return };
        for (item, _) in listing.items() {
            let Item::Entry(at) = item else { continue };
            let stat = view.enter(&listing, at).unwrap();
            mount.keep().unwrap();
            self.told(stat);
            self.names.insert((id, listing.tree.entries()[at].0.clone()), Some(stat.id));
        }
    }

    /// Drops a name, with all below it that nobody uses.
    fn drop_name(&mut self, mount: &Mount, key: &(NodeId, Name)) {
        let Some(Some(id)) = self.names.remove(key) else { return };
        let is_waited_in = self.unseen.iter().any(|((parent, _), _, _)| *parent == id);
        let has_other_names = self.names.values().any(|other| *other == Some(id));
        if self.used.contains(&id) || is_waited_in || has_other_names {
            return;
        }
        let below: Vec<_> =
            self.names.keys().filter(|(parent, _)| *parent == id).cloned().collect();
        below.iter().for_each(|key| self.drop_name(mount, key));
        if let Some((_, count)) = self.nodes.remove(&id) {
            match self.forgetting {
                Forgetting::AtOnce => mount.forget(id, count),
                Forgetting::Later => self.unsaid.push((id, count, 0)),
                Forgetting::Lost => {}
            }
        }
    }

    /// Says some of what it has forgotten, in any order.
    fn say(&mut self, mount: &Mount, dice: &mut Dice, most: usize) {
        for _ in 0..most.min(self.unsaid.len()) {
            let at = dice.roll(self.unsaid.len() as u64) as usize;
            let (id, count, _) = self.unsaid.swap_remove(at);
            mount.forget(id, count);
        }
    }

    /// Asks for a name; whoever asked runs some time later.
    fn look_slowly(&mut self, mount: &Mount, parent: NodeId, text: &str) {
        let key = (parent, name(text));
        let waits = |(other, _, _): &((NodeId, Name), Stat, u32)| *other == key;
        let is_known = parent == NodeId::ROOT || self.nodes.contains_key(&parent);
        if !is_known || self.names.contains_key(&key) || self.unseen.iter().any(waits) {
            return;
        }
        if let Ok(Found::Node(stat)) = mount.view().lookup(parent, text.as_bytes()) {
            mount.keep().unwrap();
            self.unseen.push((key, stat, 0));
        }
    }

    /// Lets those run to whom an answer was given at least `rounds` ago.
    fn run_callers(&mut self, rounds: u32) {
        for (key, stat, _) in self.unseen.extract_if(.., |(_, _, age)| *age >= rounds) {
            let (kept, count) = self.nodes.entry(stat.id).or_insert((stat, 0));
            (*kept, *count) = (stat, *count + 1);
            self.names.insert(key, Some(stat.id));
        }
    }

    /// A round of asking.
    fn answer(&mut self, mount: &Mount) {
        // So long nobody takes to run, and nothing to be delivered.
        self.run_callers(1);
        for (id, count, _) in self.unsaid.extract_if(.., |(_, _, age)| *age >= 1) {
            mount.forget(id, count);
        }
        let knows = |id| Ok(self.nodes.contains_key(&id));
        mount.ask_for_doubted(knows, knows).unwrap();
        self.pass_time();
    }

    /// As much time passes as between two rounds of asking.
    fn pass_time(&mut self) {
        let ages = self.unseen.iter_mut().map(|(_, _, age)| age);
        ages.chain(self.unsaid.iter_mut().map(|(_, _, age)| age)).for_each(|age| *age += 1);
    }

    fn drop_if_unused(&mut self, mount: &Mount, id: NodeId) {
        if !self.names.values().any(|other| *other == Some(id)) {
            self.names.insert((id, name("marker")), None);
            self.names.insert((NodeId::ROOT, name("marker")), Some(id));
            self.drop_name(mount, &(NodeId::ROOT, name("marker")));
        }
    }

    /// Compares everything that is kept with what the mount says now.
    fn check(&self, mount: &Mount, seed: u64) {
        let view = mount.view();
        for ((parent, name), known) in &self.names {
            let now = match view.lookup(*parent, name) {
                Ok(Found::Node(stat)) => {
                    mount.forget(stat.id, 1);
                    Some(stat.id)
                }
                Ok(Found::Nothing) | Err(Refusal::Gone) => None,
                Err(other) => panic!("seed {seed}: {other:?}"),
            };
            assert_eq!(*known, now, "seed {seed}: {name} in {parent:?} is stale");
        }
        for (id, (stat, _)) in &self.nodes {
            let is_gone = stat.kind == Kind::Directory
                && matches!(view.list(*id, Cookie::START), Err(Refusal::Gone));
            if !is_gone {
                assert_eq!(view.stat(*id).unwrap(), *stat, "seed {seed}: {id:?} is stale");
            }
        }
    }
}

fn switch(mount: &Mount, kernel: &mut Kernel) {
    let next = Shown::of(mount.shape, &mount.source.refs()).unwrap();
    let switched = mount.switch(next);
    assert!(switched.unreadable.is_empty());
    tell(mount, kernel, switched.changes);
    mount.has_told().unwrap();
}

fn tell(mount: &Mount, kernel: &mut Kernel, changes: Vec<Change>) {
    // The kernel waits for whoever works in a directory.
    kernel.run_callers(0);
    for change in changes {
        for changed in change.names {
            kernel.drop_name(mount, &(change.directory, changed));
        }
        // The kernel asks again for the attributes of a directory that it knows.
        let count = kernel.nodes.remove(&change.directory).map(|(_, count)| count);
        if let (Some(count), Ok(stat)) = (count, mount.view().stat(change.directory)) {
            kernel.nodes.insert(change.directory, (stat, count));
        }
    }
}

/// The mount dies, and another process takes over.
fn succeed(mount: &mut Mount, kernel: &mut Kernel, ledger: &File) {
    let again = ledger.try_clone().unwrap();
    let (successor, about, switched) =
        Filesystem::resume(Arc::clone(&*mount.source), again).unwrap();
    assert_eq!(about, b"about");
    // What the dead mount had not written is lost with it.
    *mount = successor;
    kernel.forgetting = Forgetting::AtOnce;
    // It asks some time after it has begun, not at once.
    kernel.pass_time();
    let are_all_known = |kernel: &Kernel| {
        let mut known =
            kernel.nodes.keys().chain(kernel.unseen.iter().map(|(_, stat, _)| &stat.id));
        let is_known =
            |id| mount.table().directory(id).is_some() || mount.table().file(id).is_some();
        known.all(|id| is_known(*id))
    };
    assert!(are_all_known(kernel));
    tell(mount, kernel, switched.changes);
    mount.has_told().unwrap();
    assert!(are_all_known(kernel));
}

/// After enough rounds of asking nothing is known that the kernel has forgotten.
fn check_forgotten(mount: &Mount, kernel: &mut Kernel, dice: &mut Dice) {
    kernel.say(mount, dice, usize::MAX);
    (0..4).for_each(|_| kernel.answer(mount));
    let unknown = |id: &NodeId| !kernel.nodes.contains_key(id);
    assert_eq!(mount.table().files().filter(unknown).count(), 0);
}

/// Who ends how a game goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deaths {
    None,
    Many,
}

fn play(shape: Shape, seed: u64, deaths: Deaths) {
    let memory = Memory::default();
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let trees: Vec<TreeId> = (0..5).map(|_| grow(&memory, &mut dice, 3)).collect();
    for (id, tree) in (1..4).zip(&trees) {
        memory.publish(id, *tree);
    }
    memory.refs.lock().unwrap().current = Some(StateId(1));
    let mut mount = Filesystem::new(Arc::new(memory), shape).unwrap();
    let mut kernel = Kernel::default();
    let ledger = sys::file_in_memory().unwrap();
    if deaths == Deaths::Many {
        mount.keep_in(ledger.try_clone().unwrap(), b"about".into()).unwrap();
    }
    let tags = ["kept", "other"].map(|text| Tag::new(text).unwrap());
    for _ in 0..40 {
        for _ in 0..dice.roll(30) {
            let mut at = NodeId::ROOT;
            for depth in 0..dice.roll(6) {
                let top = ["current", "states", "tags", "1", "2", "3", "4", "kept", "other"];
                let text = if depth < 2 && shape == Shape::Folder {
                    top[dice.roll(9) as usize]
                } else {
                    NAMES[dice.roll(6) as usize]
                };
                let Some(id) = kernel.look(&mount, at, text) else { break };
                if kernel.nodes[&id].0.kind != Kind::Directory {
                    break;
                }
                at = id;
            }
            match dice.roll(8) {
                0 => drop(kernel.used.insert(at)),
                1 if at != NodeId::ROOT => {
                    if kernel.used.remove(&at) {
                        kernel.drop_if_unused(&mount, at);
                    }
                }
                2 => {
                    let keys: Vec<_> = kernel.names.keys().cloned().collect();
                    if let Some(key) = keys.get(dice.roll(keys.len().max(1) as u64) as usize) {
                        kernel.drop_name(&mount, key);
                    }
                }
                3..6 => kernel.list(&mount, at),
                6 if deaths == Deaths::Many && dice.roll(4) == 0 => {
                    let ways = [Forgetting::AtOnce, Forgetting::Later, Forgetting::Lost];
                    kernel.forgetting = ways[dice.roll(3) as usize];
                    for _ in 0..dice.roll(5) {
                        let keys: Vec<_> = kernel.names.keys().cloned().collect();
                        if !keys.is_empty() {
                            kernel.drop_name(&mount, &keys[dice.roll(keys.len() as u64) as usize]);
                        }
                    }
                    for _ in 0..dice.roll(3) {
                        kernel.look_slowly(&mount, at, NAMES[dice.roll(6) as usize]);
                    }
                    succeed(&mut mount, &mut kernel, &ledger);
                    if dice.roll(4) == 0 {
                        check_forgotten(&mount, &mut kernel, &mut dice);
                    }
                }
                7 if deaths == Deaths::Many => match dice.roll(4) {
                    0 => kernel.forgetting = Forgetting::Later,
                    1 => kernel.look_slowly(&mount, at, NAMES[dice.roll(6) as usize]),
                    2 => kernel.answer(&mount),
                    _ => {
                        let most = dice.roll(4) as usize;
                        kernel.say(&mount, &mut dice, most);
                        kernel.run_callers(dice.roll(2) as u32);
                    }
                },
                _ => {}
            }
        }
        {
            let mut refs = mount.source.refs.lock().unwrap();
            refs.current = Some(StateId(1 + dice.roll(3)));
            if dice.roll(3) == 0 {
                let tag = &tags[dice.roll(2) as usize];
                if dice.roll(3) == 0 {
                    refs.tags.remove(tag);
                } else {
                    refs.tags.insert(tag.clone(), StateId(1 + dice.roll(3)));
                }
            }
        }
        if dice.roll(2) == 0 {
            mount.source.publish(4, trees[3 + dice.roll(2) as usize]);
        } else {
            mount.source.refs.lock().unwrap().states.remove(&StateId(4));
        }
        if deaths == Deaths::Many && dice.roll(2) == 0 {
            // Dies when it has told some of what there is to tell.
            let next = Shown::of(mount.shape, &mount.source.refs()).unwrap();
            let mut changes = mount.switch(next).changes;
            changes.truncate(dice.roll(changes.len() as u64 + 1) as usize);
            tell(&mount, &mut kernel, changes);
            succeed(&mut mount, &mut kernel, &ledger);
        } else {
            switch(&mount, &mut kernel);
        }
        if dice.roll(2) == 0 {
            mount.settle();
        }
        kernel.check(&mount, seed);
    }
    // What the kernel has forgotten altogether leaves nothing behind.
    kernel.used.clear();
    let keys: Vec<_> = kernel.names.keys().cloned().collect();
    keys.iter().for_each(|key| kernel.drop_name(&mount, key));
    for (id, (_, count)) in std::mem::take(&mut kernel.nodes) {
        mount.forget(id, count);
    }
    check_forgotten(&mount, &mut kernel, &mut dice);
    assert_eq!(mount.table().len(), 1, "seed {seed}");
    let shown: BTreeMap<_, _> = mount.roots().into_iter().map(|root| (root, ())).collect();
    let expected = Shown::of(shape, &mount.source.refs()).unwrap().roots;
    assert!(shown.keys().eq(&expected), "seed {seed}: roots are held for nobody");
}

#[test]
fn a_root_is_held_until_its_files_are_found_elsewhere_or_forgotten() {
    for shape in [Shape::Follow, Shape::Folder] {
        let memory = Memory::default();
        let file = |text: &str| {
            let content = Content::File(BlobRef::of(text.as_bytes()));
            let leaf = Leaf { attributes: Attributes::of_root(0o600), content, link: None };
            (name(text), Entry::Leaf(leaf))
        };
        for (id, other) in [(1, "old"), (2, "new")] {
            // What is the same lies at another position.
            let tree = memory.put(Attributes::of_root(0o700), vec![file(other), file("same")]);
            memory.publish(id, tree);
        }
        memory.refs.lock().unwrap().current = Some(StateId(1));
        let mount = Filesystem::new(Arc::new(memory), shape).unwrap();
        let mut kernel = Kernel::default();
        let root = match shape {
            Shape::Folder => kernel.look(&mount, NodeId::ROOT, "current").unwrap(),
            _ => NodeId::ROOT,
        };
        let [same, old] = ["same", "old"].map(|text| kernel.look(&mount, root, text).unwrap());
        {
            let mut refs = mount.source.refs.lock().unwrap();
            refs.current = Some(StateId(2));
            refs.states.remove(&StateId(1));
        }
        kernel.used.insert(old);
        switch(&mount, &mut kernel);
        mount.settle();
        assert!(mount.holds_old_roots(), "{shape:?}: one of them is open");
        assert!(mount.view().stat(old).is_ok() && mount.view().stat(same).is_ok());
        kernel.used.remove(&old);
        kernel.drop_if_unused(&mount, old);
        assert!(!mount.holds_old_roots(), "{shape:?}: the other lies elsewhere");
        assert!(mount.view().stat(same).is_ok());
    }
}

/// As many games as a test plays, or as `CAIRN_SEEDS` says.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("CAIRN_SEEDS").map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn what_the_kernel_keeps_is_true_after_every_switch_of_a_followed_root() {
    seeds(300).for_each(|seed| play(Shape::Follow, seed, Deaths::None));
}

#[test]
fn what_the_kernel_keeps_is_true_after_every_switch_in_a_mount_of_all_states() {
    seeds(300).for_each(|seed| play(Shape::Folder, seed, Deaths::None));
}

#[test]
fn what_the_kernel_keeps_is_true_for_every_successor_of_a_mount_that_dies() {
    for seed in seeds(200) {
        play(Shape::Follow, seed, Deaths::Many);
        play(Shape::Folder, seed, Deaths::Many);
    }
}

/// Old states vanish from the source as soon as nobody holds them.
#[test]
fn a_file_that_is_known_can_be_read_until_it_is_forgotten_whatever_gc_takes() {
    for seed in seeds(200) {
        let memory = Memory::default();
        let mut dice = Dice(seed * 77 + 1);
        for id in 1..8 {
            let tree = grow(&memory, &mut dice, 2);
            memory.publish(id, tree);
        }
        memory.refs.lock().unwrap().current = Some(StateId(1));
        let shape = [Shape::Follow, Shape::Folder][dice.roll(2) as usize];
        let mount = Filesystem::new(Arc::new(memory), shape).unwrap();
        let mut kernel = Kernel::default();
        for current in 1..8 {
            for _ in 0..60 {
                let mut at = NodeId::ROOT;
                let wanted = dice.roll(7) + 1;
                if shape == Shape::Folder && dice.roll(2) == 0 {
                    let states = kernel.look(&mount, at, "states").unwrap();
                    let Some(id) = kernel.look(&mount, states, &wanted.to_string()) else {
                        continue;
                    };
                    at = id;
                } else if shape == Shape::Folder {
                    at = kernel.look(&mount, at, "current").unwrap();
                }
                for _ in 0..3 {
                    let Some(id) = kernel.look(&mount, at, NAMES[dice.roll(6) as usize]) else {
                        break;
                    };
                    if kernel.nodes[&id].0.kind != Kind::Directory {
                        // Every file stays open.
                        kernel.used.insert(id);
                        break;
                    }
                    at = id;
                }
                // The way to it may be forgotten.
                if dice.roll(4) == 0 {
                    let names: Vec<_> = kernel.names.keys().cloned().collect();
                    kernel.drop_name(&mount, &names[dice.roll(names.len() as u64) as usize]);
                }
            }
            {
                let mut refs = mount.source.refs.lock().unwrap();
                refs.current = Some(StateId(current));
                let removed = StateId(1 + dice.roll(current));
                if removed != StateId(current) {
                    refs.states.remove(&removed);
                }
            }
            switch(&mount, &mut kernel);
            for _ in 0..dice.roll(4) {
                mount.settle_some();
            }
            // gc: keeps what the states and the mount's registration reach.
            let mut kept = BTreeSet::new();
            let states = mount.source.refs().states.into_values().map(|state| state.tree);
            let mut stack: Vec<TreeId> = states.chain(mount.roots()).collect();
            while let Some(id) = stack.pop() {
                let tree = mount.source.tree(id).unwrap();
                if kept.insert(id) {
                    let below = tree.entries().iter().filter_map(|(_, entry)| entry.as_directory());
                    stack.extend(below.map(|subtree| subtree.id));
                }
            }
            mount.source.trees.lock().unwrap().retain(|id, _| kept.contains(id));
            for (id, (stat, _)) in &kernel.nodes {
                if stat.kind == Kind::File {
                    let now = mount.view().stat(*id);
                    assert_eq!(now.expect("it can be read"), *stat, "seed {seed}");
                }
            }
        }
    }
}
