//! What a mount has answered and how long that took, counted while it goes on.
//!
//! A request costs two looks at the clock and four additions to counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_store::{Reads, StateId};
use serde::{Deserialize, Serialize};

use crate::process::confined::outside;
use crate::serve::node::NodeId;
use crate::serve::table::Reading;

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are those of linux/fuse.h")]
pub enum Operation {
    Lookup,
    Forget,
    Getattr,
    Readlink,
    Read,
    Readdirplus,
    Statfs,
    Getxattr,
    Listxattr,
    Open,
    Release,
}

impl Operation {
    /// All, in their order.
    const ALL: [Self; 11] = [
        Self::Lookup,
        Self::Forget,
        Self::Getattr,
        Self::Readlink,
        Self::Read,
        Self::Readdirplus,
        Self::Statfs,
        Self::Getxattr,
        Self::Listxattr,
        Self::Open,
        Self::Release,
    ];

    /// The name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Forget => "forget",
            Self::Getattr => "getattr",
            Self::Readlink => "readlink",
            Self::Read => "read",
            Self::Readdirplus => "readdirplus",
            Self::Statfs => "statfs",
            Self::Getxattr => "getxattr",
            Self::Listxattr => "listxattr",
            Self::Open => "open",
            Self::Release => "release",
        }
    }
}

/// What a mount has done since its process began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The process.
    pub pid: u32,
    /// The state that it follows or is pinned to.
    pub state: Option<StateId>,
    /// How long the process has been answering.
    pub seconds: f64,
    /// Each kind of request that came.
    pub requests: Vec<Requests>,
    /// Requests that were answered with an error; a name that does not exist is
    /// none.
    pub errors: u64,
    /// Bytes of files that the kernel got; what it had in its cache it did not
    /// ask for.
    pub bytes_read: u64,
    /// What the kernel reads by itself.
    #[serde(default)]
    pub passthrough: Passed,
    /// For how many seconds processors were kept from sleeping, since requests followed each
    /// other closely; nothing where that cannot be done or is not wanted.
    #[serde(default)]
    pub kept_awake: Option<f64>,
    /// What reading from the store has cost.
    pub store: Reads,
    /// Files and directories that the kernel knows.
    pub nodes: usize,
    /// Memory of the process, if the kernel tells.
    pub memory: Option<Memory>,
    /// The slowest requests, the slowest first.
    pub slowest: Vec<Slow>,
}

/// Large files, on a mount that passes through; all 0 on others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// How often one was opened that the kernel reads by itself.
    pub opens: u64,
    /// How often one was opened that it asks for, since that could not be expanded.
    pub fallbacks: u64,
    /// How many of either kind are open, as far as is known.
    pub open: usize,
    /// How many files of this machine the kernel has open to read from.
    pub backing_ids: usize,
}

/// Requests of one kind; times in microseconds.
///
/// Percentiles are at most a quarter above the truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Which.
    pub operation: Operation,
    /// How many.
    pub count: u64,
    /// What all of them took.
    pub total: f64,
    /// What half of them took at most.
    pub p50: f64,
    /// What nine of ten took at most.
    pub p90: f64,
    /// What 99 of 100 took at most.
    pub p99: f64,
    /// What the slowest took.
    pub max: f64,
}

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// Which.
    pub operation: Operation,
    /// The number of the file or directory: its `st_ino`.
    pub node: u64,
    /// Where that is on the mount, as bytes, if it is still known and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Vec<u8>>,
    /// What it took, in microseconds.
    pub microseconds: f64,
    /// Frames that were decoded meanwhile, for it or for another request.
    pub frames_decoded: u64,
    /// Directories that were decoded meanwhile.
    pub trees_decoded: u64,
}

/// Bytes of memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// At most so far.
    pub peak: u64,
}

/// How many of the slowest requests are kept.
const SLOWEST_KEPT: usize = 8;

/// Times are counted by their highest bit and the two below it.
const BUCKETS: usize = 64 * 4;

#[derive(Debug)]
struct Counter {
    nanoseconds: AtomicU64,
    max: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What others know of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) state: Option<StateId>,
    pub(crate) nodes: usize,
    /// Large files that are open, and backing ids.
    pub(crate) opens: (usize, usize),
    pub(crate) kept_awake: Option<Duration>,
    pub(crate) store: Reads,
}

/// The counters of a mount.
#[derive(Debug)]
pub(crate) struct Counters {
    begun: Instant,
    counters: [Counter; Operation::ALL.len()],
    errors: AtomicU64,
    bytes_read: AtomicU64,
    passed: AtomicU64,
    fallbacks: AtomicU64,
    /// What a request has to take to be kept in `slowest`, in nanoseconds.
    slow: AtomicU64,
    slowest: Mutex<Vec<(u64, Slow)>>,
}

impl Default for Counters {
    fn default() -> Self {
        let counter = |_| Counter {
            nanoseconds: AtomicU64::new(0),
            max: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        };
        Self {
            begun: Instant::now(),
            counters: Operation::ALL.map(counter),
            errors: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            slowest: Mutex::default(),
        }
    }
}

impl Counters {
    /// A request was answered in `time`; `cost` says, if it was slow, what was read
    /// meanwhile.
    pub(crate) fn answered(
        &self,
        operation: Operation,
        node: NodeId,
        time: Duration,
        cost: impl FnOnce() -> Reads,
    ) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counter = &self.counters[operation as usize];
        counter.nanoseconds.fetch_add(time, Ordering::Relaxed);
        counter.buckets[bucket(time)].fetch_add(1, Ordering::Relaxed);
        if time > counter.max.load(Ordering::Relaxed) {
            counter.max.fetch_max(time, Ordering::Relaxed);
        }
        if time <= self.slow.load(Ordering::Relaxed) {
            return;
        }
        let Reads { frames_decoded, trees_decoded, .. } = cost();
        let slow = Slow {
            operation,
            node: node.get(),
            path: None,
            microseconds: microseconds(time),
            frames_decoded,
            trees_decoded,
        };
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        slowest.push((time, slow));
        slowest.sort_unstable_by_key(|(time, _)| std::cmp::Reverse(*time));
        slowest.truncate(SLOWEST_KEPT);
        if let Some((least, _)) = slowest.get(SLOWEST_KEPT - 1) {
            self.slow.store(*least, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A large file was opened, to be read from there.
    pub(crate) fn opened(&self, reading: Reading) {
        let counter = match reading {
            Reading::Passed(_) => &self.passed,
            Reading::Asked => &self.fallbacks,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted, with what others know.
    pub(crate) fn stats(&self, known: Known) -> Stats {
        let Known { state, nodes, opens: (open, backing_ids), kept_awake, store } = known;
        let requests = Operation::ALL.iter().zip(&self.counters);
        let slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            pid: std::process::id(),
            state,
            seconds: self.begun.elapsed().as_secs_f64(),
            requests: requests.filter_map(|(operation, it)| it.requests(*operation)).collect(),
            errors: self.errors.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            passthrough: Passed {
                opens: self.passed.load(Ordering::Relaxed),
                fallbacks: self.fallbacks.load(Ordering::Relaxed),
                open,
                backing_ids,
            },
            kept_awake: kept_awake.map(|time| time.as_secs_f64()),
            store,
            nodes,
            memory: memory(),
            slowest: slowest.iter().map(|(_, slow)| slow.clone()).collect(),
        }
    }
}

impl Counter {
    fn requests(&self, operation: Operation) -> Option<Requests> {
        let buckets: Vec<u64> = self.buckets.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let count: u64 = buckets.iter().sum();
        if count == 0 {
            return None;
        }
        let max = self.max.load(Ordering::Relaxed);
        let percentile = |hundredths: u64| {
            let wanted = (u128::from(count) * u128::from(hundredths)).div_ceil(100);
            let mut sum = 0;
            let at = buckets.iter().position(|number| {
                sum += u128::from(*number);
                sum >= wanted
            });
            microseconds(at.map_or(max, |at| upper_end(at).min(max)))
        };
        Some(Requests {
            operation,
            count,
            total: microseconds(self.nanoseconds.load(Ordering::Relaxed)),
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: microseconds(max),
        })
    }
}

/// The bucket of a time.
fn bucket(nanoseconds: u64) -> usize {
    // Below 4 there are no two bits below the highest.
    let time = nanoseconds.max(4);
    let highest = 63 - time.leading_zeros();
    let below = (time >> (highest - 2)) & 0b11;
    highest as usize * 4 + usize::try_from(below).expect("it has two bits")
}

/// The longest time that is in a bucket.
fn upper_end(bucket: usize) -> u64 {
    let (highest, below) = (bucket / 4, bucket as u64 % 4);
    let end = (u128::from(4 + below) + 1) << highest >> 2;
    u64::try_from(end - 1).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a time needs no more than 53 bits")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// Format: `/proc/PID/status` in proc(5).
fn memory() -> Option<Memory> {
    let text = outside(|| std::fs::read_to_string("/proc/self/status")).ok()?.ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    };
    Some(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_in_its_bucket_and_at_most_a_quarter_below_the_end() {
        let mut times: Vec<u64> = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1]).collect();
        times.extend((0..1000).map(|i| i * i * 7919));
        times.push(u64::MAX);
        for time in times {
            let end = upper_end(bucket(time));
            assert!(end >= time, "{time} is above {end}");
            assert!(time < 5 || u128::from(end) * 4 <= u128::from(time) * 5, "{time}: {end}");
        }
    }

    #[test]
    fn percentiles_and_the_slowest_are_those_of_what_was_counted() {
        let counters = Counters::default();
        for micros in 1..=1000 {
            let cost = || Reads { frames_decoded: micros, ..Reads::default() };
            let (node, time) = (NodeId::from_kernel(micros), Duration::from_micros(micros));
            counters.answered(Operation::Read, node, time, cost);
        }
        counters.answered(Operation::Getattr, NodeId::ROOT, Duration::from_nanos(700), || {
            panic!("it was not slow")
        });
        let stats = counters.stats(Known { nodes: 1, ..Known::default() });
        let [getattr, read] = &stats.requests[..] else { panic!("{stats:?}") };
        assert_eq!((getattr.count, getattr.max, getattr.p50), (1, 0.7, 0.7));
        assert_eq!((read.count, read.max, read.total), (1000, 1000.0, 500_500.0));
        for (found, truth) in [(read.p50, 500.0), (read.p90, 900.0), (read.p99, 990.0)] {
            assert!((truth..=truth * 1.25).contains(&found), "{found} instead of {truth}");
        }
        let slowest: Vec<_> =
            stats.slowest.iter().map(|slow| (slow.node, slow.frames_decoded)).collect();
        assert_eq!(slowest, (993..=1000).rev().map(|it| (it, it)).collect::<Vec<_>>());
        assert!(stats.memory.is_some_and(|memory| memory.now > 0 && memory.peak >= memory.now));
    }
}
