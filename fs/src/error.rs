//! What can go wrong around a mount, as facts.

use std::io;
use std::path::PathBuf;

use cairn_store::{StateId, TreePath, WorkspaceName};

/// Shorthand for what nearly every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something around a mount failed. What happens inside one is an
/// [`crate::Event`] and an errno for the program that met it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// The store could not give what was to be mounted.
    #[error(transparent)]
    Store(#[from] cairn_store::Error),
    /// `target` cannot be used as the directory to mount on.
    #[error("cannot mount on {}", target.display())]
    Target { target: PathBuf, source: io::Error },
    /// There is a mount of Cairn on `target` already.
    #[error("{} is in use: a mount of Cairn is there already", target.display())]
    Occupied { target: PathBuf },
    /// The process behind the mount on `target` has ended; it can be unmounted.
    #[error("the process of the mount on {} has ended", target.display())]
    Dead { target: PathBuf },
    /// The machine has no FUSE, or this process may not use it.
    #[error("cannot open /dev/fuse")]
    NoFuse { source: io::Error },
    /// The kernel refused the mount.
    #[error("cannot mount on {}", target.display())]
    Mount { target: PathBuf, source: io::Error },
    /// The user namespace of a map of owners could not be made.
    #[error("cannot make a user namespace that maps owners")]
    OwnersMap { source: io::Error },
    /// The kernel refused to map owners on the mount.
    #[error("cannot map owners on {}", target.display())]
    OwnersNotMapped { target: PathBuf, source: io::Error },
    /// `fusermount3`, which mounts for ordinary users, could not be started.
    #[error("cannot start fusermount3, which mounts for ordinary users")]
    NoFusermount { source: io::Error },
    /// `fusermount3` refused.
    #[error("fusermount3 refused to work on {}: {message}", target.display())]
    Fusermount { target: PathBuf, message: String },
    /// The kernel's FUSE is too old, or spoke another language.
    #[error("cannot come to terms with the kernel's FUSE")]
    Session { source: io::Error },
    /// There is no mount of Cairn on `target`.
    #[error("there is no mount of Cairn on {}", target.display())]
    NotMounted { target: PathBuf },
    /// Programs use the mount.
    #[error("{} is in use", target.display())]
    Busy { target: PathBuf },
    /// The kernel refused to unmount.
    #[error("cannot unmount {}", target.display())]
    Unmount { target: PathBuf, source: io::Error },
    /// The registration or socket of a mount could not be written or read.
    #[error("cannot access {}", path.display())]
    Registration { path: PathBuf, source: io::Error },
    /// The process of a mount does not answer, or not as it should.
    #[error("the mount on {target} does not answer")]
    Control { target: String, source: io::Error },
    /// The process of a mount could not do what it was asked for.
    #[error("the mount on {target} failed: {message}")]
    Refused { target: String, message: String },
    /// A mount could not be left with the process that keeps it, or taken over
    /// from there.
    #[error("cannot hand the mount over")]
    Keeper { source: io::Error },
    /// A process with several threads cannot be copied safely.
    #[error("cannot leave a process in the background once threads run")]
    Threads,
    /// A process or a thread could not be made.
    #[error("cannot start a process")]
    Process { source: io::Error },
    /// The kernel refused a process with namespaces of its own.
    #[error("cannot start a process in namespaces of its own")]
    Namespaces { source: io::Error },
    /// The kernel does not tell of the processes of this machine.
    #[error("cannot read /proc")]
    Processes { source: io::Error },
    /// The process in the background ended with `message`.
    #[error("{message}")]
    Background { message: String },
    /// The directory `path` of a workspace's layer could not be made, read or
    /// taken away.
    #[error("cannot access {}", path.display())]
    Layer { path: PathBuf, source: io::Error },
    /// The kernel refused an overlay with this layer.
    #[error("cannot mount an overlay with the layer {}", layer.display())]
    Overlay { layer: PathBuf, source: io::Error },
    /// The layer of a workspace does not fit the state below it.
    #[error("the layer of the workspace is damaged at {path}: {problem}")]
    DamagedLayer { path: TreePath, problem: &'static str },
    /// The process of a mount of the workspace was killed, and the mount is there.
    #[error("the workspace {name} is still mounted on {}, by a process that has ended", target.display())]
    StillMounted { name: WorkspaceName, target: PathBuf },
    /// The state has nothing at `path` that something could be bound on.
    #[error("the state has no {path} to put a directory of this machine on")]
    NoBindPoint { path: TreePath },
    /// `directory` could not be bound on `path`.
    #[error("cannot put {} on {path}", directory.display())]
    Bind { path: TreePath, directory: PathBuf, source: io::Error },
    /// A directory of the machine could not be filled or read.
    #[error("cannot access {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// The mount would hide the store that it shows.
    #[error("the store {} lies below {}", store.display(), target.display())]
    StoreBelow { store: PathBuf, target: PathBuf },
    /// The workspace lies on another state than the one asked for.
    #[error("the workspace {name} lies on state {base}")]
    OtherBase { name: WorkspaceName, base: StateId },
    /// The layer of the workspace was written by an ordinary user (or by root),
    /// and overlayfs does not read it as the other one.
    #[error(
        "the workspace {name} was made by {}, who alone can use it",
        if *by_user { "an ordinary user" } else { "root of this machine" }
    )]
    OtherNamespace { name: WorkspaceName, by_user: bool },
    /// A state cannot be entered, because the directory `path` is missing in it.
    #[error("cannot enter the state: it has no directory {}", path.display())]
    NoMountPoint { path: PathBuf },
    /// A state cannot be entered, because `step` failed.
    #[error("cannot enter the state: cannot {step}")]
    Enter { step: String, source: io::Error },
    /// The program could not be started inside the state.
    #[error("cannot run {}", program.display())]
    Execute { program: PathBuf, source: io::Error },
}

/// An error and what caused it in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
