//! What the end-to-end tests share: the program, packages to give it, mounts
//! that go away again, and a way to compare directories.
//!
//! | want | use |
//! |---|---|
//! | run `cairn` on a store of its own | [`Cairn`] |
//! | small packages, made for a test | [`Deb`] |
//! | real Debian packages | [`real`] |
//! | packages built from recipes | [`builder`] |
//! | everything below a directory, to compare | [`Listing`] |
//! | to have other programs compare directories | [`Original`] |
//! | a repository of small stones | [`Stones`] |
//! | a server that misbehaves | [`Server`] |
//! | the same over TLS | [`Authority`] |
//! | a git repository, and a server that speaks git | [`git`] |
//! | commands of an ordinary user | [`ordinary`] |
//! | a mount that goes away with the test | [`Mount`], of something else [`Mounted`] |
//! | an empty root to run programs in | [`Room`] |
//! | a disk whose power can be cut | [`disk`] |
//! | a program that is ended, or meets an error, at one of its changes | [`Change`] |
//! | bytes to parse, by whoever parses such | [`fuzz`] |
//! | to say that a test cannot run here | [`Need`] |
//!
//! The tests run `target/release/cairn`, which `make test` and
//! `cargo test --workspace` build beside them.

#![allow(clippy::unwrap_used, reason = "a test ends where something goes wrong")]

pub mod builder;
mod cairn;
mod call;
mod compare;
mod deb;
pub mod disk;
pub mod fuzz;
pub mod git;
mod inject;
mod listing;
mod mount;
mod need;
pub mod ordinary;
pub mod page;
mod plain;
pub mod real;
mod room;
mod root;
mod server;
mod stones;
mod sys;
mod tls;
mod wait;

pub use cairn::{Cairn, Ended};
pub use call::Call;
pub use compare::Original;
pub use deb::{Deb, base_tool_and_app};
pub use inject::{Change, Fault};
pub use listing::{Entry, Kind, Listing};
pub use mount::{Mount, Mounted};
pub use need::Need;
pub use plain::{Plain, assert_has_unpacked};
pub use room::Room;
pub use root::put_programs;
pub use server::{Behaviour, Request, Server};
pub use stones::Stones;
pub use sys::{
    CountedHeap, Mapping, drop_names, drop_pages, make_device, make_fifo, posix_acl, set_umask,
    set_xattr, signal, umount_lazily,
};
pub use tls::{Authority, Tls};
pub use wait::{StopOnDrop, eventually};

use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_store::{GcOptions, Store};

/// The directory of the build, `target`.
///
/// # Panics
/// If the test does not lie where cargo puts it.
#[must_use]
pub fn target() -> PathBuf {
    // target/release/deps/<test>
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).expect("a test lies in target/release/deps").into()
}

/// Runs a program that has to succeed; returns what it printed.
///
/// # Panics
/// If it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The number in an environment variable, or `usual`: how much of a long test is to run.
///
/// # Panics
/// If the variable has no number.
#[must_use]
pub fn amount(variable: &str, usual: usize) -> usize {
    let text = std::env::var(variable);
    text.map_or(usual, |text| text.parse().expect("the variable has a number"))
}

/// Collects, after which nothing may be left in the store that nothing needs: no temporary
/// file, and no pack or part of one that another collection would free.
///
/// # Errors
/// What is left, or why it cannot be collected.
pub fn room_comes_back(store: &Path) -> Result<(), String> {
    let failed = |err: cairn_store::Error| format!("cannot collect: {err}");
    let thorough = GcOptions { rewrite_below: 100 };
    let opened = Store::open(store).map_err(failed)?;
    opened.gc(thorough, &()).map_err(failed)?;
    // The files of an interrupted transaction go with the next one.
    drop(opened.begin().map_err(failed)?);
    let again = opened.preview_gc(thorough, &[], &()).map_err(failed)?;
    if again.freed > 0 || again.left.objects > 0 {
        return Err(format!("garbage stays after a collection: {again:?}"));
    }
    for directory in ["packs/new", "packs/gc"] {
        let left = std::fs::read_dir(store.join(directory)).map_or(0, Iterator::count);
        if left > 0 {
            return Err(format!("{left} files stay in {directory}"));
        }
    }
    Ok(())
}

/// Numbers without a pattern, the same in each run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64).try_into().expect("it is below a usize")
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.below(256)).expect("it is below 256")).collect()
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there is none.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
