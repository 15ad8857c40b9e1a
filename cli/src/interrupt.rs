//! Ctrl-C while work goes on that can be stopped cleanly.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::error::Error;
use crate::sys;

/// The signal that has come; 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// From now on the first SIGINT, SIGTERM or SIGHUP is only noted; a second one
/// ends the process at once, as usual.
pub(crate) fn note() -> Result<(), Error> {
    sys::note_signals(&SIGNAL).map_err(Error::Signals)
}

/// Whether one has come.
pub(crate) fn has_come() -> bool {
    SIGNAL.load(Ordering::Relaxed) != 0
}

/// Says of work that was stopped for the sake of a signal that it was.
pub(crate) fn explain(error: cairn_store::Error) -> Error {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => error.into(),
        signal => Error::Interrupted { signal },
    }
}
