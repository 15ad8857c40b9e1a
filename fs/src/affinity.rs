//! Which processor the threads that answer run on: that of whoever asks.
//!
//! A caller sleeps until it is answered. The scheduler gives the thread that
//! answers an idle processor, and so each of the two is woken from idle on
//! another one, which takes longer than most answers. On one processor both
//! wakings are changes of context. That is right only while there is one caller:
//! else the threads go where the scheduler puts them.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Requests from one look at a caller to the next.
const LOOK_EACH: u32 = 16;

/// So many looks in a row have to find the same caller. Of two that ask at the
/// same rate, one is alone by chance once in 64 looks.
const AGREEING: u16 = 6;

/// What the threads that answer for one mount have seen of its callers.
#[derive(Debug, Default)]
pub(crate) struct Affinity(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The thread that asked when somebody looked last.
    caller: u32,
    /// How many looks before had found it as well.
    before: u16,
    /// Where it was when that was enough.
    processor: Option<usize>,
}

/// A thread that answers.
struct Worker {
    /// The processors that it was started with; nothing when they cannot be
    /// changed.
    allowed: Option<CpuSet>,
    /// The one to which it keeps now.
    at: Option<usize>,
    /// Requests until the next look.
    rest: u32,
}

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::new(Worker {
        allowed: sched_getaffinity(None).ok(),
        at: None,
        rest: LOOK_EACH,
    });
}

impl Affinity {
    /// To be called by the thread that answers a request for which the thread
    /// `caller` waits.
    pub(crate) fn follow(&self, caller: u32) {
        WORKER.with_borrow_mut(|worker| {
            worker.rest -= 1;
            if worker.rest == 0 {
                worker.rest = LOOK_EACH;
                worker.keep_to(self.look(caller, processor_of));
            }
        });
    }

    /// To be called for a request that nobody may be waiting for, or that takes
    /// longer than waking: it is answered while the caller works.
    pub(crate) fn roam(&self) {
        WORKER.with_borrow_mut(|worker| worker.keep_to(None));
    }

    /// The processor of `caller`, if it is the only one lately; `processor_of` is
    /// asked for it once.
    fn look(&self, caller: u32, processor_of: impl FnOnce(u32) -> Option<usize>) -> Option<usize> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.caller != caller {
            *seen = Seen { caller, before: 0, processor: None };
        } else if seen.before < AGREEING {
            seen.before += 1;
            if seen.before == AGREEING {
                seen.processor = processor_of(caller);
            }
        }
        seen.processor
    }
}

impl Worker {
    /// Runs on `processor` alone, or for `None` on all that it was started with.
    fn keep_to(&mut self, processor: Option<usize>) {
        let Some(allowed) = &self.allowed else { return };
        let processor = processor.filter(|at| *at < CpuSet::MAX_CPU && allowed.is_set(*at));
        if self.at == processor {
            return;
        }
        let mut set = *allowed;
        if let Some(at) = processor {
            set = CpuSet::new();
            set.set(at);
        }
        match sched_setaffinity(None, &set) {
            Ok(()) => self.at = processor,
            // A cpuset may have been changed, or a filter may forbid it.
            Err(_) => self.allowed = None,
        }
    }
}

/// The processor on which a thread was last, as proc_pid_stat(5) tells it;
/// nothing for one of another namespace, or that is gone.
fn processor_of(thread: u32) -> Option<usize> {
    const FIELD: usize = 39;
    // The second field is a name in parentheses, which may have any character.
    const AFTER_NAME: usize = 3;
    if thread == 0 {
        return None;
    }
    let mut buf = [0; 1024];
    let len = File::open(format!("/proc/{thread}/stat")).ok()?.read(&mut buf).ok()?;
    let text = std::str::from_utf8(&buf[..len]).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split(' ').nth(FIELD - AFTER_NAME)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> CpuSet {
        sched_getaffinity(None).unwrap()
    }

    #[test]
    fn a_thread_that_was_told_where_to_run_is_seen_there() {
        let before = allowed();
        let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        for processor in (0..CpuSet::MAX_CPU).filter(|at| before.is_set(*at)) {
            let mut set = CpuSet::new();
            set.set(processor);
            sched_setaffinity(None, &set).unwrap();
            assert_eq!(processor_of(id), Some(processor));
        }
        assert_eq!(processor_of(0), None);
        assert_eq!(processor_of(u32::MAX), None);
    }

    #[test]
    fn workers_go_to_the_only_caller_and_leave_it_when_there_is_another() {
        let affinity = Affinity::default();
        let all = allowed();
        let last = (0..CpuSet::MAX_CPU).rfind(|at| all.is_set(*at)).unwrap();
        let look = |caller, processor| {
            WORKER.with_borrow_mut(|worker| {
                worker.keep_to(affinity.look(caller, |_| Some(processor)));
            });
            allowed()
        };
        let mut one = CpuSet::new();
        one.set(last);
        for _ in 0..AGREEING {
            assert_eq!(look(7, last), all);
        }
        assert_eq!(look(7, last), one);
        // It is not looked for again, however it moves.
        assert_eq!(look(7, last + 1), one);
        assert_eq!(look(8, last), all);
        assert_eq!(look(7, last), all);
        // A processor on which it may not run is nothing to follow.
        for _ in 0..2 * AGREEING {
            assert_eq!(look(9, last + 1), all);
        }
        for _ in 0..2 * AGREEING {
            look(7, last);
        }
        assert_eq!(allowed(), one);
        affinity.roam();
        assert_eq!(allowed(), all);
    }
}
