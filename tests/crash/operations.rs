//! What is done to the store whose power is cut, and with what.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_store::workspace::layer_path;
use cairn_store::{Store, TreeId, WorkspaceName};
use cairn_tests::{Cairn, Deb, Ended, Mount, Random, base_tool_and_app};
use serde_json::Value;

/// One command, or damage.
pub struct Operation {
    pub name: &'static str,
    /// What is said to the program; TREE, OTHER and MORE stand for paths. None for damage.
    words: &'static str,
}

/// In this order: each goes on from what the one before has left.
pub const OPERATIONS: [Operation; 19] = [
    Operation { name: "repo add", words: "repo add more file://MORE" },
    Operation { name: "import", words: "import TREE" },
    Operation { name: "snapshot", words: "snapshot work" },
    Operation { name: "install", words: "--yes install tool" },
    Operation { name: "install, large", words: "--yes install app" },
    Operation { name: "tag", words: "state tag first 1" },
    Operation { name: "rollback", words: "rollback" },
    Operation { name: "switch", words: "switch 5" },
    Operation { name: "remove", words: "--yes remove tool" },
    Operation { name: "compact", words: COMPACT },
    Operation { name: "state remove", words: "--yes state remove 2" },
    Operation { name: "prune --gc", words: "--yes state prune --keep-last 1 --gc" },
    Operation { name: "gc", words: "gc --rewrite-below 100" },
    Operation { name: "untag", words: "state untag first" },
    Operation { name: "pull", words: "pull OTHER" },
    Operation { name: "rebuild", words: "store rebuild" },
    Operation { name: "damage", words: "" },
    Operation { name: "repair", words: "verify --repair --from OTHER" },
    Operation { name: "upgrade", words: "--yes upgrade" },
];

/// What it has replaced is looked at when it is recorded.
pub const COMPACT: &str = "--json store compact";

/// The number of an operation.
pub fn number_of(name: &str) -> usize {
    OPERATIONS.iter().position(|it| it.name == name).unwrap()
}

/// From this on until the repair is done the store may be damaged.
pub fn may_be_damaged(begun: usize, done: usize) -> bool {
    begun > number_of("damage") && done <= number_of("repair")
}

/// The machine around the disk: repositories, another store, and a store to begin with.
pub struct World {
    pub cairn: Cairn,
    tree: PathBuf,
    other: PathBuf,
    more: PathBuf,
    /// What the workspace shows, from the beginning to the end.
    written: TreeId,
}

/// What lies in the layer of the workspace until it is published.
const WRITTEN: [&str; 3] = ["srv/one", "srv/two", "srv/three"];

fn workspace() -> WorkspaceName {
    WorkspaceName::new("work").unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Random(seed).bytes(len)
}

/// What is written to a file of the workspace.
fn written(name: &str) -> Vec<u8> {
    noise(70 + name.len() as u64, 4000)
}

impl World {
    /// A store with one state, which has the package base, and a workspace on it.
    pub fn new() -> Self {
        let cairn = Cairn::new();
        let at = |name: &str| cairn.directory().join(name);
        let (tree, other, more) = (at("tree"), at("other"), at("more"));
        fs::create_dir_all(tree.join("below")).unwrap();
        for number in 0..20 {
            fs::write(tree.join(format!("below/{number}")), noise(number + 50, 3000)).unwrap();
        }
        fs::write(tree.join("large"), noise(49, 1_100_000)).unwrap();
        // Versions of a file, which only denser packs have as one.
        for number in 0..12 {
            let version = [&[number; 8][..], &noise(48, 90_000)].concat();
            fs::write(tree.join(format!("version {number}")), version).unwrap();
        }

        let [base, tool, app] = base_tool_and_app();
        let later = Deb::new("later", "1.0-1").file("usr/bin/later", 0o755, noise(4, 5000));
        let guest = Deb::new("guest", "1.0-1").file("usr/bin/guest", 0o755, noise(6, 700_000));
        cairn.offer([base, tool, app, later, guest]);
        let newer = Deb::new("base", "2.0-1").file("usr/bin/base", 0o755, "#!/bin/sh\nexit\n");
        let deb = newer.write(&at("debs"));
        cairn.data(
            ["--quiet", "convert", "-o"]
                .map(OsString::from)
                .into_iter()
                .chain([more.clone().into_os_string(), deb.into_os_string()]),
        );
        cairn.data([OsString::from("repo"), "index".into(), more.clone().into()]);

        // What the other store has is all that this one will have, and more.
        cairn.data(["--yes", "install", "app", "guest"]);
        fs::rename(cairn.store(), &other).unwrap();
        cairn.data(["repo", "add", "small", &format!("file://{}", at("stones").display())]);
        cairn.data(["--yes", "install", "base"]);
        let mount = Mount::new(&cairn, &["--rw", "work"], "work");
        for name in WRITTEN {
            fs::write(mount.join(name), written(name)).unwrap();
        }
        mount.umount();
        // Where states are removed it has become too long, and is replaced.
        cairn.fill_log();
        let published = at("published");
        let copied = Command::new("cp").arg("-a").arg(cairn.store()).arg(&published).status();
        assert!(copied.unwrap().success());
        let store = |path: &Path| [OsString::from("--store"), path.into()];
        let [snapshot, pull] = [["snapshot", "work"], ["pull", published.to_str().unwrap()]];
        cairn.data(store(&published).into_iter().chain(snapshot.map(Into::into)));
        cairn.data(store(&other).into_iter().chain(pull.map(Into::into)));
        let written = Store::open(&published).unwrap().current().unwrap().tree;
        Self { cairn, tree, other, more, written }
    }

    /// Checks that what was written in the workspace is there, in its layer or in the state
    /// that was published of it.
    pub fn check_workspace(&self, store: &Path) -> Result<(), String> {
        let store = Store::open(store).map_err(|err| format!("does not open: {err}"))?;
        let record = store.workspace(&workspace());
        let record = record.map_err(|err| format!("the workspace is lost: {err}"))?;
        if record.reference().tree == self.written {
            return Ok(());
        }
        let layer = layer_path(&store.workspace_path(&workspace()), record.layer).join("upper");
        for name in WRITTEN {
            let found = fs::read(layer.join(name));
            if !found.as_ref().is_ok_and(|bytes| *bytes == written(name)) {
                return Err(format!("{name} of the workspace is lost: {:?}", found.err()));
            }
        }
        Ok(())
    }

    /// The program with a store somewhere else.
    pub fn command(&self, store: &Path, words: &[String]) -> Command {
        let mut command = self.cairn.command([OsString::from("--store"), store.into()]);
        command.args(words);
        command
    }

    /// The same, run to its end.
    pub fn run(&self, store: &Path, words: &str) -> Ended {
        let words: Vec<String> = words.split(' ').map(Into::into).collect();
        self.command(store, &words).output().unwrap().into()
    }

    /// What is said to the program for an operation; none for damage.
    pub fn words(&self, operation: &Operation) -> Option<Vec<String>> {
        let places = [("TREE", &self.tree), ("OTHER", &self.other), ("MORE", &self.more)];
        let word = |word: &str| {
            let replace = |word: String, (name, path): (&str, &PathBuf)| {
                word.replace(name, path.to_str().unwrap())
            };
            places.into_iter().fold(word.to_owned(), replace)
        };
        (!operation.words.is_empty()).then(|| operation.words.split(' ').map(word).collect())
    }

    /// What is in a store as far as its user is concerned.
    pub fn shown(&self, store: &Path) -> Result<Shown, String> {
        let opened = Store::open(store).map_err(|err| format!("does not open: {err}"))?;
        let refs = opened.refs();
        let listed = self.run(store, "--json repo list");
        if listed.code() != Some(0) {
            return Err(format!("cannot list repositories: {}", listed.stderr));
        }
        let mut repositories: Value =
            serde_json::from_str(&listed.stdout).map_err(|err| err.to_string())?;
        for repository in repositories.as_array_mut().ok_or("there is no list")? {
            // What was read of it may vanish.
            repository.as_object_mut().ok_or("it is no repository")?.remove("index");
        }
        let states = refs.states.values().map(|it| {
            // All but the time, so that it is the same each time.
            format!("{:?} {:?} {} {} {}", it.id, it.parent, it.request, it.tree, it.packages)
        });
        let tags = refs.tags.iter().map(|tag| format!("{tag:?}"));
        Ok(Shown(
            [format!("{:?}", refs.current), repositories.to_string()]
                .into_iter()
                .chain(states)
                .chain(tags)
                .collect(),
        ))
    }
}

/// The current state, all states, tags and repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(pub Vec<String>);

/// Flips a byte of the largest pack, durably.
pub fn damage(store: &Path) {
    let packs = fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let packs = packs.filter(|path| path.is_file());
    let largest = packs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let pack = File::options().read(true).write(true).open(largest).unwrap();
    let mut byte = [0];
    pack.read_exact_at(&mut byte, 600_000).unwrap();
    pack.write_all_at(&[byte[0] ^ 1], 600_000).unwrap();
    pack.sync_all().unwrap();
}
