//! Signals that end a mount in good order.

use std::io;
use std::thread;

use crate::mount::attach::Unmount;
use crate::mount::unmounter::Unmounter;
use crate::sys::HeldSignals;

/// Signals that wait to be asked for, in all threads that are started later.
#[derive(Debug)]
pub struct Signals(HeldSignals);

impl Signals {
    /// Keeps SIGINT, SIGTERM and SIGHUP from ending this process. To be called
    /// before the first thread is started.
    pub fn hold() -> io::Result<Self> {
        HeldSignals::hold_these(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP], &[]).map(Self)
    }

    /// Unmounts when one of the signals comes: whoever uses the mount may go
    /// on, and the process ends with the last of them.
    pub fn unmount_on_any(self, unmounter: Unmounter) -> io::Result<()> {
        let wait = move || {
            while self.0.wait().is_ok() {
                // If it fails now, it may succeed at the next signal.
                let _ = unmounter.unmount(Unmount::WhenUnused);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
    }
}
