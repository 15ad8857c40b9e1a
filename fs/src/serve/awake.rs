//! Keeps processors from going to sleep between requests that follow each other closely.
//!
//! A request wakes a thread of the mount, and its answer wakes whoever asked: mostly on a
//! processor that has gone idle meanwhile. Where that takes long, in a virtual machine or
//! out of a deep sleep, most of the time of a cold walk goes there. The kernel can be told
//! how long it may take at most: as long as `/dev/cpu_dma_latency` is held open with a
//! number of microseconds in it, no processor enters an idle state that takes longer to
//! leave. Source: Documentation/power/pm_qos_interface.rst of Linux.
//!
//! That costs power, so it is done only as long as requests come in a burst, and ends with
//! the process.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

const DEVICE: &str = "/dev/cpu_dma_latency";

/// Which states of processors there are, and who knows how to enter them.
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// A request that comes so much later than the one before, in microseconds, does not wait
/// for a processor above all.
const CLOSE: u64 = 3_000;

/// So many requests in a row make a burst.
const BURST: u32 = 16;

/// A burst is over when no request has come for so long.
const QUIET: Duration = Duration::from_millis(10);

/// What the kernel takes for no demand at all: `PM_QOS_DEFAULT_VALUE`.
const ANY: i32 = -1;

/// Watches the requests of a mount, once it has begun to.
#[derive(Debug, Default)]
pub(crate) struct Awake {
    begun: OnceLock<(Arc<Watch>, Sender<()>)>,
}

#[derive(Debug)]
struct Watch {
    begun: Instant,
    /// When the last request came, in microseconds since then.
    last: AtomicU64,
    /// How many have come in a row.
    in_a_row: AtomicU32,
    /// Whether this is a burst.
    is_burst: AtomicBool,
    /// How long bursts have lasted, in microseconds.
    held: AtomicU64,
}

impl Awake {
    /// Keeps processors awake in bursts from here on.
    ///
    /// # Errors
    /// `Unsupported` where no processor has idle states that could be avoided, and
    /// `PermissionDenied` unless root runs this.
    pub(crate) fn begin(&self) -> io::Result<()> {
        let driver = fs::read_to_string(DRIVER).unwrap_or_default();
        let latency = match driver.trim() {
            "" | "none" => return Err(io::ErrorKind::Unsupported.into()),
            // Any sleep there ends with a message to the host: only polling helps.
            "haltpoll" => 0,
            // The lightest sleep is left in about one microsecond, on all architectures.
            _ => 5,
        };
        self.watch(File::options().write(true).open(DEVICE)?, latency)
    }

    fn watch(&self, device: File, latency: i32) -> io::Result<()> {
        let watch = Arc::new(Watch {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            is_burst: AtomicBool::new(false),
            held: AtomicU64::new(0),
        });
        // Nobody sends another one before the first is dealt with.
        let (sender, bursts) = bounded(1);
        let watched = watch.clone();
        let hold = move || watched.hold(device, latency, &bursts);
        thread::Builder::new().name("awake".into()).spawn(hold)?;
        // The first one stays, if this is called twice.
        let _ = self.begun.set((watch, sender));
        Ok(())
    }

    /// Notes that a request has come. Costs a look at the clock and two changes of counters.
    pub(crate) fn request_came(&self) {
        let Some((watch, burst)) = self.begun.get() else { return };
        let now = watch.now();
        if now.saturating_sub(watch.last.swap(now, Relaxed)) > CLOSE {
            watch.in_a_row.store(0, Relaxed);
        } else if watch.in_a_row.fetch_add(1, Relaxed) >= BURST
            && !watch.is_burst.load(Relaxed)
            && !watch.is_burst.swap(true, Relaxed)
        {
            let _ = burst.try_send(());
        }
    }

    /// For how long processors were kept awake; nothing if that has not begun.
    pub(crate) fn held(&self) -> Option<Duration> {
        let (watch, _) = self.begun.get()?;
        Some(Duration::from_micros(watch.held.load(Relaxed)))
    }
}

impl Watch {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Runs until [`Awake`] is dropped, or the kernel does not want to be told.
    fn hold(&self, mut device: File, latency: i32, bursts: &Receiver<()>) {
        for () in bursts {
            if device.write_all(&latency.to_ne_bytes()).is_err() {
                return;
            }
            let mut from = self.now();
            loop {
                thread::sleep(QUIET);
                let now = self.now();
                self.held.fetch_add(now.saturating_sub(from), Relaxed);
                from = now;
                let quiet = now.saturating_sub(self.last.load(Relaxed));
                if u128::from(quiet) >= QUIET.as_micros() {
                    break;
                }
            }
            if device.write_all(&ANY.to_ne_bytes()).is_err() {
                return;
            }
            self.in_a_row.store(0, Relaxed);
            self.is_burst.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written to the device so far.
    fn written(device: &tempfile::NamedTempFile) -> Vec<i32> {
        let bytes = fs::read(device.path()).unwrap();
        bytes.chunks(4).map(|word| i32::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn only_a_burst_keeps_processors_awake_and_only_as_long_as_it_lasts() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let awake = Awake::default();
        awake.request_came();
        assert_eq!(awake.held(), None);
        awake.watch(device.reopen().unwrap(), 7).unwrap();
        let wait_for = |expected: &[i32]| {
            let end = Instant::now() + Duration::from_secs(20);
            while written(&device) != expected {
                assert!(Instant::now() < end, "{:?} is not {expected:?}", written(&device));
                thread::sleep(Duration::from_millis(1));
            }
        };
        // As many requests as make a burst, but one after the other.
        for _ in 0..=BURST {
            awake.request_came();
            thread::sleep(Duration::from_micros(2 * CLOSE));
        }
        assert_eq!((written(&device), awake.held()), (vec![], Some(Duration::ZERO)));
        for burst in 1..=2 {
            let begun = Instant::now();
            while begun.elapsed() < 5 * QUIET {
                awake.request_came();
            }
            wait_for(&[7, ANY].repeat(burst));
            assert!(awake.held() >= Some(QUIET), "{:?}", awake.held());
        }
        // The device is closed, whatever has come last.
        (0..2 * BURST).for_each(|_| awake.request_came());
        drop(awake);
        wait_for(&[7, ANY, 7, ANY, 7, ANY]);
    }
}
