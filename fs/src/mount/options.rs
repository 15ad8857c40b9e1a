//! What somebody wants to have mounted, and how.

use std::path::{Path, PathBuf};

use crate::mount::idmap::Owners;
use crate::mount::restrictions::Restrictions;
use crate::mount::root::RootBind;
use crate::process::keeper::Keeper;
use crate::shape::Shape;

/// Whether the kernel heeds what in a mount could give rights away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Setuid programs and device nodes are shown, but have no effect: old
    /// states hold old programs with known holes.
    Inspect,
    /// They have effect, as in the root of a system.
    System,
}

/// What to mount where.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the root of the mount is.
    pub shape: Shape,
    /// The directory to mount on.
    pub target: PathBuf,
    /// What /proc/mounts calls it: the path of the store.
    pub name: String,
    /// The store's `run` directory, in which the mount is registered. Without
    /// it nobody can find the mount to refresh it, and gc does not spare it.
    pub run: Option<PathBuf>,
    /// Whether setuid programs and device nodes have effect.
    pub trust: Trust,
    /// Who keeps the mount when this process dies, for [`resume`](crate::resume)
    /// in another one; it takes a registration as well.
    pub keeper: Option<Keeper>,
    /// What else has no effect.
    pub restrictions: Restrictions,
    /// What of the machine lies on it, in this order.
    pub binds: Vec<RootBind>,
    /// Whether the kernel is to read large files by itself, from plain files of the
    /// store. Where it does not permit that, it reads them from the mount as it reads all
    /// others, and the registration says why.
    pub passthrough: bool,
    /// Whether processors may sleep between requests that follow each other closely. As
    /// root they are kept from it otherwise, where they can be: each request has one wake up.
    pub power_save: bool,
    /// What the kernel makes of owners.
    pub owners: Owners,
}

impl Options {
    /// `shape` on `target`, with the trust that is usual for the shape.
    #[must_use]
    pub fn new(shape: Shape, target: &Path, store: &Path) -> Self {
        let trust = match shape {
            Shape::Follow => Trust::System,
            Shape::Folder | Shape::Pinned(_) => Trust::Inspect,
        };
        Self {
            shape,
            target: target.into(),
            name: store.display().to_string(),
            run: Some(store.join("run")),
            trust,
            keeper: None,
            restrictions: Restrictions::default(),
            binds: Vec::new(),
            passthrough: false,
            power_save: false,
            owners: Owners::default(),
        }
    }
}

/// Where and how to mount.
pub(crate) struct Place<'a> {
    /// The absolute path of a directory.
    pub(crate) target: PathBuf,
    /// What /proc/mounts calls it.
    pub(crate) name: &'a str,
    pub(crate) restrictions: Restrictions,
    /// What is to lie on it, which a successor has to know from the beginning.
    pub(crate) binds: &'a [RootBind],
    /// Whether the kernel is to read large files by itself.
    pub(crate) passthrough: bool,
    /// Whether processors may sleep in bursts of requests.
    pub(crate) power_save: bool,
    pub(crate) owners: &'a Owners,
}
