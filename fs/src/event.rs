//! What happens inside a mount that nobody waits for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::error::with_causes;
use crate::serve::filesystem::Refusal;

/// Takes what a mount has to say; called from several threads.
pub type Journal = Arc<dyn Fn(&Event) + Send + Sync>;

/// Something that whoever runs a mount should be able to read later.
#[derive(Debug)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Event {
    /// A program got EIO, because `what` could not be read.
    Unreadable { what: String, source: cairn_store::Error },
    /// A program got EIO, because the source gave fewer bytes of the file `what`
    /// than its tree says it has.
    Short { what: String },
    /// Files are read from the mount though the kernel was to read large ones by itself:
    /// it does not permit that.
    NotPassed { source: std::io::Error },
    /// A large file is read from the mount, since `what`, its content, could not be given
    /// to the kernel as a file.
    NotExpanded { what: String, source: cairn_store::Error },
    /// A request made its handler panic; the program got EIO.
    Panicked { operation: &'static str, message: String },
    /// The kernel could not be told of a change in a directory.
    NotTold { source: std::io::Error },
    /// A request on the control socket failed.
    Control { source: std::io::Error },
    /// A mount whose process had ended was taken off `target`.
    DeadRemoved { target: std::path::PathBuf },
    /// The process of a mount has ended without unmounting it, and another has
    /// taken its place. `code` is its exit code, or 128 and the signal.
    Succeeded { target: String, code: i32 },
    /// A process could not take over what a dead one has left.
    NotResumed {
        /// The mount.
        target: String,
        /// Why, with the causes.
        message: String,
    },
    /// A mount goes on with another program.
    Restarted { target: String },
    /// A mount could not go on with another program, and does so with the one before.
    NotRestarted {
        /// The mount.
        target: String,
        /// Why.
        message: String,
    },
    /// So many processes of a mount have ended at once that no other is started.
    GivenUp { target: String },
    /// The keeper of a mount has died: if this process dies, the mount dies with
    /// it.
    KeeperLost,
    /// What the kernel knows could not be noted: if this process dies, the mount
    /// dies with it.
    NotKept { source: std::io::Error },
    /// The memory of a process that serves the root of the system could not be
    /// locked.
    NotLocked { source: std::io::Error },
    /// Nothing continues a process that serves the root of the system when it is stopped.
    StaysStopped { source: std::io::Error },
    /// Something of the machine that had lain on a mount whose process died is not
    /// there any more.
    NotBound { source: crate::Error },
    /// What the mount keeps from gc could not be written down.
    NotRegistered { source: crate::Error },
}

impl Event {
    /// What there is to say of a refusal, if it has a cause that its errno hides.
    pub(crate) fn of(refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::Unreadable { what, source } => Some(Self::Unreadable { what, source }),
            Refusal::Short { what } => Some(Self::Short { what }),
            _ => None,
        }
    }

    /// What there is to say of a panic.
    pub(crate) fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::Panicked { operation, message: text.unwrap_or("?").into() }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { what, source } => {
                write!(f, "cannot read {what}: {}", with_causes(source))
            }
            Self::Short { what } => {
                write!(f, "cannot read {what}: it is shorter than it should be")
            }
            Self::NotPassed { source } => write!(
                f,
                "large files are read through this process, as without passthrough, which the \
                 kernel does not permit: {source}"
            ),
            Self::NotExpanded { what, source } => write!(
                f,
                "cannot expand {what}, which is read through this process instead: {}",
                with_causes(source)
            ),
            Self::Panicked { operation, message } => {
                write!(f, "a defect in Cairn made {operation} fail: {message}")
            }
            Self::NotTold { source } => write!(f, "cannot tell the kernel of a change: {source}"),
            Self::Control { source } => write!(f, "a control request failed: {source}"),
            Self::DeadRemoved { target } => {
                write!(f, "removed what a mount on {} had left when it died", target.display())
            }
            Self::Succeeded { target, code } => {
                let how = match code {
                    129.. => format!("was ended by signal {}", code - 128),
                    _ => format!("ended with code {code}"),
                };
                write!(f, "the process of the mount on {target} {how}; another has taken over")
            }
            Self::NotResumed { target, message } => {
                write!(f, "cannot take over the mount on {target}: {message}")
            }
            Self::Restarted { target } => {
                write!(f, "the mount on {target} goes on with another program")
            }
            Self::NotRestarted { target, message } => {
                write!(f, "the mount on {target} cannot go on with another program: {message}")
            }
            Self::GivenUp { target } => {
                write!(f, "every process of the mount on {target} ends at once; none is started")
            }
            Self::KeeperLost => {
                write!(f, "the keeper of the mount has died; if this process dies, the mount does")
            }
            Self::NotKept { source } => {
                write!(f, "cannot note what the kernel knows of the mount: {source}")
            }
            Self::NotLocked { source } => {
                write!(f, "cannot lock memory, so that a full machine may stand still: {source}")
            }
            Self::StaysStopped { source } => {
                write!(f, "cannot set a timer, so that the machine may not go down: {source}")
            }
            Self::NotBound { source } => {
                write!(f, "cannot put back what lies on the mount: {}", with_causes(source))
            }
            Self::NotRegistered { source } => {
                write!(f, "cannot update the registration of the mount: {}", with_causes(source))
            }
        }
    }
}
