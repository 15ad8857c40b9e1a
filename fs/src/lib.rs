//! A tree as a mounted filesystem.
//!
//! [`start`] mounts a store on a directory; [`control`] talks to mounts that
//! run, so that they show a new state; [`list`] says which there are; [`run`]
//! runs a program inside a state.

mod affected;
mod ahead;
mod attach;
mod awake;
mod confined;
pub mod control;
mod counters;
mod daemon;
mod errno;
mod error;
mod event;
mod filesystem;
mod fuse;
mod idmap;
mod inside;
mod keeper;
mod layer;
mod ledger;
mod listing;
pub mod machine;
mod mirror;
#[cfg(test)]
mod model;
mod mount;
mod mountinfo;
mod node;
mod notice;
mod passthrough;
mod places;
mod registration;
mod restrictions;
mod root;
mod run;
pub mod sandbox;
mod settle;
mod shape;
mod signal;
mod source;
mod stat;
mod successor;
mod switch;
mod sys;
mod table;
mod takeover;
mod target;
mod told;
mod unmounter;
pub mod workspace;
mod xattrs;

pub use affected::{Affected, AffectedProcess, Usage};
pub use confined::confine;
pub use counters::{Memory, Operation, Passed, Requests, Slow, Stats};
pub use daemon::{Keeping, background, background_kept, notify_ready, succeed};
pub use error::{Error, Result};
pub use event::{Event, Journal};
pub use idmap::{IdMap, IdRange, InvalidIdMap, Owners, check_ranges};
pub use keeper::{Keeper, Kept};
pub use layer::{Layer, LayerRules};
pub use mount::{Options, Running, Trust, Unmount, start, unmount};
pub use registration::{Bound, Registration, list};
pub use restrictions::{Restrictions, remount};
pub use root::{RootBind, seed};
pub use run::{Bind, Program, run};
pub use shape::Shape;
pub use signal::Signals;
pub use source::Source;
pub use successor::Role;
pub use sys::{Network, bound_heap, end_with_parent, lock_memory};
pub use takeover::resume;
pub use target::{check_target, registered_at};
pub use unmounter::Unmounter;
