//! A tree as a mounted filesystem.
//!
//! [`start`] mounts a store on a directory; [`control`] talks to mounts that
//! run, so that they show a new state; [`list`] says which there are; [`run`]
//! runs a program inside a state.

mod affected;
mod error;
mod event;
mod layer;
pub mod machine;
mod mirror;
mod mount;
mod process;
mod run;
mod serve;
mod shape;
mod source;
mod sys;
pub mod workspace;

pub use affected::{Affected, AffectedProcess, Usage};
pub use error::{Error, Result};
pub use event::{Event, Journal};
pub use layer::{Layer, LayerRules};
pub use mount::attach::Unmount;
pub use mount::idmap::{IdMap, IdRange, InvalidIdMap, Owners, check_ranges};
pub use mount::options::{Options, Trust};
pub use mount::registration::{Bound, Registration, list};
pub use mount::restrictions::{Restrictions, remount};
pub use mount::root::{RootBind, seed};
pub use mount::target::{check_target, registered_at};
pub use mount::unmounter::{Unmounter, unmount};
pub use mount::{Running, start};
pub use process::confined::confine;
pub use process::control;
pub use process::daemon::{Keeping, background, background_kept, notify_ready, succeed};
pub use process::keeper::{Keeper, Kept};
pub use process::resumed::resume_when_stopped;
pub use process::signal::Signals;
pub use process::successor::Role;
pub use process::takeover::resume;
pub use run::{Bind, Program, run, sandbox};
pub use serve::counters::{Memory, Operation, Passed, Requests, Slow, Stats};
pub use shape::Shape;
pub use source::Source;
pub use sys::{Network, bound_heap, end_with_parent, lock_memory};
