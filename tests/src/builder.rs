//! Building packages from recipes, and looking at what came of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cairn::Cairn;
use crate::need::Need;
use crate::real;

/// A store with what building needs, and a cache that goes away with it.
#[derive(Debug)]
pub struct Builder {
    /// The program with the store.
    pub cairn: Cairn,
}

impl Builder {
    /// With what recipes of the GNU toolchain need.
    ///
    /// Returns nothing where that cannot be had, and says so as [`Need::all`] does.
    ///
    /// # Panics
    /// If it could be had, and something goes wrong.
    #[must_use]
    pub fn new() -> Option<Self> {
        Self::with(real::build_repository)
    }

    /// With the repository that `make` gives.
    ///
    /// # Panics
    /// As [`Builder::new`].
    #[must_use]
    pub fn with(make: impl FnOnce() -> Option<PathBuf>) -> Option<Self> {
        if !Need::all(&[Need::Fuse, Need::Root, Need::Program("objdump", "binutils")]) {
            return None;
        }
        let stones = make()?;
        let cairn = Cairn::new();
        cairn.data(["repo", "add", "debian", &format!("file://{}", stones.display())]);
        Some(Self { cairn })
    }

    /// A path in the directory of the store.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.cairn.directory().join(name)
    }

    /// A command that keeps what it downloads and builds in that directory.
    #[must_use]
    pub fn words(&self, words: &[&str]) -> Vec<String> {
        let cache = self.path("cache").display().to_string();
        words.iter().map(|it| (*it).to_owned()).chain(["--cache-dir".into(), cache]).collect()
    }

    /// Drafts a recipe of archives; returns its text.
    ///
    /// # Panics
    /// If it fails.
    pub fn draft(&self, archives: &[&Path], recipe: &str) -> String {
        let archives = archives.iter().map(|it| it.to_str().expect("a path of ours is text"));
        let words: Vec<&str> =
            ["recipe", "new"].into_iter().chain(archives).chain(["-o", recipe]).collect();
        self.cairn.data(self.words(&words));
        fs::read_to_string(self.path(recipe).join("stone.yaml")).unwrap()
    }

    /// What a packager changes in a recipe.
    ///
    /// # Panics
    /// If `from` is not in it.
    pub fn edit(&self, recipe: &str, from: &str, to: &str) {
        let file = self.path(recipe).join("stone.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }

    /// Builds, and returns what is told of the only recipe.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn build(&self, words: &[&str]) -> Built {
        let built = self.cairn.json(self.words(&[&["build"], words].concat()));
        Built(built["recipes"][0].clone())
    }

    /// Updates a recipe to another version, and checks that nothing but `changes` is
    /// changed in it.
    ///
    /// # Panics
    /// If it fails.
    pub fn update(&self, recipe: &str, version: &str, changes: &[(&str, &str)]) {
        let file = self.path(recipe).join("stone.yaml");
        let mut expected = fs::read_to_string(&file).unwrap();
        self.cairn.data(self.words(&["-y", "recipe", "update", recipe, "--ver", version]));
        for (from, to) in changes {
            assert!(expected.contains(from), "{from:?} is not in {expected}");
            expected = expected.replace(from, to);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    }

    /// Commits the manifest of a recipe that was built into `to`, and builds it again,
    /// with other numbers of processes: it must become the same bytes.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_same_again(&self, recipe: &str, to: &str, built: &Built) {
        let name = built.0["recipe"].as_str().expect("a recipe has a name");
        let manifest = format!("{to}/manifests/{name}/manifest.x86_64.bin");
        let committed = format!("{recipe}/manifest.x86_64.bin");
        fs::copy(self.path(&manifest), self.path(&committed)).unwrap();
        let words = [recipe, "--no-check", "-j3", "-o", "again", "--verify", &committed];
        let again = self.build(&words);
        assert_eq!(again.names(), built.names());
        for (first, second) in built.packages().zip(again.packages()) {
            let [first, second] = [first, second].map(|it| it["stone"].as_str().unwrap());
            assert_ne!(first, second);
            let is_same =
                fs::read(self.path(first)).unwrap() == fs::read(self.path(second)).unwrap();
            assert!(is_same, "{second} differs from the first build");
        }
        fs::remove_dir_all(self.path("again")).unwrap();
    }

    /// Everything below a package's files.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn extracted(&self, package: &Value) -> PathBuf {
        let stone = package["stone"].as_str().expect("a package is a file");
        let to = self.path(Path::new(stone).file_name().unwrap().to_str().unwrap());
        self.cairn.data(["extract", stone, "--to", to.to_str().unwrap()]);
        to
    }
}

/// What a build tells of one recipe.
#[derive(Clone, Debug)]
pub struct Built(pub Value);

impl Built {
    /// All packages.
    ///
    /// # Panics
    /// If there are none.
    pub fn packages(&self) -> impl Iterator<Item = &Value> {
        self.0["packages"].as_array().expect("packages were built").iter()
    }

    /// Their names.
    ///
    /// # Panics
    /// As [`Built::packages`].
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.packages().map(|it| it["name"].as_str().expect("a name")).collect()
    }

    /// The one with this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn package(&self, name: &str) -> &Value {
        let found = self.packages().find(|it| it["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {}", self.0))
    }

    /// The version of the recipe.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn version(&self) -> &str {
        self.0["version"].as_str().expect("a recipe has a version")
    }
}

/// The texts of a list.
///
/// # Panics
/// If it is something else.
#[must_use]
pub fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().expect("a list").iter().map(|it| it.as_str().expect("a text")).collect()
}

/// The SHA-256 of a file, as recipes write it.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn sha256(file: &Path) -> String {
    Sha256::digest(fs::read(file).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `objdump` prints of a file.
///
/// # Panics
/// If it cannot read it.
#[must_use]
pub fn objdump(option: &str, file: &Path) -> String {
    let output = Command::new("objdump").arg(option).arg(file).output().unwrap();
    assert!(output.status.success(), "objdump {option} {}: {output:?}", file.display());
    String::from_utf8(output.stdout).expect("names in an ELF file of ours are ASCII")
}

/// The libraries that `objdump` says an ELF file needs, as dependencies.
///
/// # Panics
/// As [`objdump`].
#[must_use]
pub fn needed(file: &Path) -> BTreeSet<String> {
    sonames(&objdump("-p", file), "NEEDED")
}

/// The values of one tag in what `objdump -p` prints, as dependencies.
#[must_use]
pub fn sonames(dynamic: &str, tag: &str) -> BTreeSet<String> {
    let lines = dynamic.lines().filter_map(|line| line.trim().strip_prefix(tag));
    lines.map(|name| format!("soname({}(x86_64))", name.trim())).collect()
}
