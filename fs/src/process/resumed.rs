//! The process of the root of a system goes on by itself when it has been stopped.
//!
//! At shutdown systemd stops all processes, whatever they are called, and looks into /proc before
//! it has them go on (systemd/systemd#22875). If the kernel has to ask for something of the root
//! for that, both wait for each other. So the kernel is told to continue this process after a
//! while, which is put off again and again for as long as it runs.

use std::io;
use std::thread;
use std::time::Duration;

use crate::sys::ContinueTimer;

/// For so long the process may be stopped.
const STOPPED: Duration = Duration::from_secs(1);

/// How often that is put off.
const PAUSE: Duration = Duration::from_millis(300);

/// Has the kernel continue this process whenever it is stopped, within about a second.
///
/// # Errors
/// Those of making a timer or a thread.
pub fn resume_when_stopped() -> io::Result<()> {
    let timer = ContinueTimer::new()?;
    timer.put_off(STOPPED)?;
    let put_off = move || {
        // A timer that was set once can be set again.
        while timer.put_off(STOPPED).is_ok() {
            thread::sleep(PAUSE);
        }
    };
    thread::Builder::new().name("resumed".into()).spawn(put_off).map(drop)
}
