//! A disk whose power can be cut: a real filesystem lies on it, and each write and flush
//! that reaches it is logged, so that it can be had as it was at any moment.
//!
//! ```text
//! cairn ──> ext4, xfs, btrfs ──> loop device ──> a file of FUSE, served here ──> Vec<Event>
//! ```
//!
//! What was written before the last flush is on a disk after a power cut. Of what was
//! written since, anything may be: [`Replay::cut`] takes the first part, a subset, or
//! sectors of a subset. What was promised, and when, is in the log as well
//! ([`Event::Mark`]).
//!
//! ```text
//! let served = Disks::serve()?;                          // in mounts of its own
//! let disk = served.add(filesystem.make());
//! let mounted = filesystem.mount(&disk, target)?;
//! ... disk.mark(1) ...
//! let image = Replay::of(&base, &disk.events()).cut(at, Loss::Reordered, random);
//! ```

mod filesystem;
mod image;
mod served;

pub use filesystem::{Filesystem, Mounted, own_mounts, shut_down};
pub use image::{Event, Image, Loss, Replay};
pub use served::{Disk, Disks};
