//! Running the program as a user runs it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use cairn_store::Store;
use serde_json::Value;
use tempfile::TempDir;

use crate::deb::Deb;

/// `cairn` with a store of its own, in a directory that goes away with it.
#[derive(Debug)]
pub struct Cairn {
    directory: TempDir,
    program: PathBuf,
}

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code, or the signal that killed it.
    pub status: ExitStatus,
    /// What it printed as data.
    pub stdout: String,
    /// What it told people.
    pub stderr: String,
}

impl Ended {
    /// The exit code; none if a signal killed it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
        let Output { status, stdout, stderr } = output;
        Self { status, stdout: text(stdout), stderr: text(stderr) }
    }
}

impl Cairn {
    /// Makes the directory; the store is made by the first command that wants
    /// one.
    ///
    /// # Panics
    /// If the program has not been built.
    #[must_use]
    pub fn new() -> Self {
        let program = crate::target().join("release/cairn");
        assert!(program.exists(), "{} is missing: run `make build`", program.display());
        Self {
            directory: tempfile::Builder::new().prefix("cairn-test-").tempdir().unwrap(),
            program,
        }
    }

    /// A directory for whatever the test needs beside the store.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where the store is, or will be.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Switches to the current state until the log of the store has as many records as there
    /// may be: one more without one more state has it replaced.
    ///
    /// # Panics
    /// When the store has no state, or cannot be changed.
    pub fn fill_log(&self) {
        let store = Store::open(&self.store()).expect("a store");
        let log = self.store().join("refs/log");
        let current = store.current().expect("a state").id;
        let most = 2 * (store.refs().states.len() + 2) + 256;
        while fs::read_to_string(&log).expect("it can be read").lines().count() < most {
            store.switch(current).expect("it can be changed");
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `cairn ARGS` without a terminal, with this store and nothing of the
    /// environment that would change what it does.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        self.settle(&mut command).args(args);
        command
    }

    /// Gives any program the environment that `cairn` is to have.
    pub fn settle<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for variable in [
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "XDG_DATA_HOME",
            "SSL_CERT_FILE",
            "XDG_CONFIG_HOME",
            "CAIRN_CONFIG",
            "COLUMNS",
        ] {
            command.env_remove(variable);
        }
        command.env("CAIRN_STORE", self.store()).env("HOME", self.directory()).env("TZ", "UTC");
        command.env("LC_ALL", "C.UTF-8").current_dir(self.directory()).stdin(Stdio::null())
    }

    /// Runs `cairn ARGS` to its end, whatever that is.
    ///
    /// # Panics
    /// If it panics: no input whatever makes the program do that.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().into()).collect();
        let ended = Ended::from(self.command(&args).output().unwrap());
        let panicked = ended.stderr.contains("panicked at") || ended.code() == Some(101);
        assert!(!panicked, "cairn {args:?}: {}", ended.stderr);
        ended
    }

    /// Runs `cairn ARGS`, which has to succeed; returns what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn data<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().into()).collect();
        let ended = self.run(&args);
        let Ended { status, stdout, stderr } = ended;
        assert!(status.success(), "cairn {args:?}: {status}\n{stdout}{stderr}");
        stdout
    }

    /// Runs `cairn --json ARGS`, which has to succeed; returns its document.
    ///
    /// # Panics
    /// If it fails, or prints anything but one document.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().into()).collect();
        let text = self.data([OsString::from("--json")].iter().chain(&args));
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("cairn {args:?}: {err}: {text}"))
    }

    /// Runs `cairn ARGS`, which has to fail with `code` and to print no data;
    /// returns its complaint.
    ///
    /// # Panics
    /// If it ends otherwise.
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> String {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().into()).collect();
        let ended = self.run(&args);
        let said = &ended.stderr;
        assert_eq!(ended.code(), Some(code), "cairn {args:?}: {}{said}", ended.stdout);
        assert!(ended.stdout.is_empty(), "cairn {args:?} prints data: {}", ended.stdout);
        let is_told = said.lines().any(|line| line.starts_with("cairn: "));
        assert!(is_told || code == 2, "cairn {args:?}: {said}");
        ended.stderr
    }

    /// Offers small packages: converts them, and adds a repository with them.
    /// Called again, it offers these as well.
    ///
    /// # Panics
    /// If something goes wrong.
    pub fn offer(&self, debs: impl IntoIterator<Item = Deb>) {
        let [made, stones] = ["debs", "stones"].map(|name| self.directory().join(name));
        let is_new = !stones.exists();
        let debs: Vec<PathBuf> = debs.into_iter().map(|deb| deb.write(&made)).collect();
        let convert = ["--quiet", "convert", "-o"].map(OsStr::new).into_iter();
        self.data(
            convert.chain([stones.as_os_str()]).chain(debs.iter().map(|deb| deb.as_os_str())),
        );
        self.data([OsStr::new("repo"), OsStr::new("index"), stones.as_os_str()]);
        if is_new {
            self.data(["repo", "add", "small", &format!("file://{}", stones.display())]);
        } else {
            self.data(["repo", "update"]);
        }
    }

    /// The names of the packages of the current state.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn installed(&self) -> BTreeSet<String> {
        let shown = self.json(["state", "show"]);
        let packages = shown["packages"].as_array().expect("a state has packages").iter();
        packages.map(|it| it["name"].as_str().expect("it has a name").to_owned()).collect()
    }

    /// The number of the current state.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.json(["state", "show"])["state"].as_u64().expect("a state has a number")
    }
}

impl Default for Cairn {
    fn default() -> Self {
        Self::new()
    }
}
