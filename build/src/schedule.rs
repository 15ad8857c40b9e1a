//! Works on several recipes side by side, each after those that it needs.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;

/// How the work on several recipes has ended.
#[derive(Debug)]
pub struct Ended<E> {
    /// What went wrong first, and with which of them.
    pub failed: Option<(usize, E)>,
    /// Those that nobody has begun with, in their order.
    pub left: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
}

/// Runs `work` with each number below `needs.len()`, up to `at_once` of them side by
/// side, each after those that `needs` has for it; `done` takes what came out, one
/// after the other, in the thread that has called, before others begin that need it.
///
/// After a failure nothing more begins, and what runs is waited for: a build that is
/// nearly through is not lost.
pub fn run<T: Send, E: Send>(
    needs: &[Vec<usize>],
    at_once: NonZeroUsize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    mut done: impl FnMut(T) -> Result<(), E>,
) -> Ended<E> {
    let mut states = vec![State::Waiting; needs.len()];
    let mut failed = None;
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let mut running = 0;
        loop {
            while failed.is_none() && running < at_once.get() {
                let is_ready = |at: &usize| {
                    states[*at] == State::Waiting
                        && needs[*at].iter().all(|other| states[*other] == State::Done)
                };
                let Some(at) = (0..states.len()).find(is_ready) else { break };
                states[at] = State::Running;
                running += 1;
                let (sender, work) = (sender.clone(), &work);
                scope.spawn(move || {
                    let result = catch_unwind(AssertUnwindSafe(|| work(at)));
                    // The receiver lives as long as something runs.
                    let _ = sender.send((at, result));
                });
            }
            if running == 0 {
                break;
            }
            let (at, result) = receiver.recv().expect("whatever runs sends when it ends");
            running -= 1;
            let result = result.unwrap_or_else(|panic| resume_unwind(panic));
            match result.and_then(&mut done) {
                Ok(()) => states[at] = State::Done,
                Err(err) => failed = failed.take().or(Some((at, err))),
            }
        }
    });
    let is_left = |at: &usize| states[*at] == State::Waiting;
    Ended { failed, left: (0..states.len()).filter(is_left).collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use super::*;

    fn at_once(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).expect("not zero")
    }

    #[test]
    fn each_comes_after_what_it_needs_and_once() {
        // 0 needs 3 and 1, 1 needs 3.
        let needs = [vec![3, 1], vec![3], vec![], vec![]];
        for number in 1..5 {
            let (begun, mut done) = (Mutex::new(Vec::new()), Vec::new());
            let work = |at: usize| {
                begun.lock().expect("nobody panics").push(at);
                Ok::<_, ()>(at)
            };
            let ended = run(&needs, at_once(number), work, |at| {
                // What needs it has not begun before it was taken.
                let begun = begun.lock().expect("nobody panics");
                assert!(!begun.iter().any(|other| needs[*other].contains(&at)));
                done.push(at);
                Ok(())
            });
            assert!(ended.failed.is_none() && ended.left.is_empty());
            done.sort_unstable();
            assert_eq!(done, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn what_can_run_side_by_side_does() {
        let both = Barrier::new(2);
        let work = |at: usize| {
            // Ends only if the other one runs as well.
            both.wait();
            Ok::<_, ()>(at)
        };
        let ended = run(&[vec![], vec![]], at_once(2), work, |_| Ok(()));
        assert!(ended.failed.is_none());
    }

    #[test]
    fn after_a_failure_nothing_begins_and_what_runs_is_taken() {
        let both = Barrier::new(2);
        let mut done = Vec::new();
        let work = |at: usize| {
            both.wait();
            if at == 0 { Err("broken") } else { Ok(at) }
        };
        // The others need what fails: it may be heard of after what does not.
        let needs = [vec![], vec![], vec![0], vec![0, 1]];
        let ended = run(&needs, at_once(2), work, |at| {
            done.push(at);
            Ok(())
        });
        assert_eq!(ended.failed, Some((0, "broken")));
        assert_eq!((done, ended.left), (vec![1], vec![2, 3]));
    }

    #[test]
    fn what_cannot_be_taken_is_a_failure() {
        let ended = run(&[vec![], vec![0]], at_once(1), Ok::<usize, &str>, |_| Err("full"));
        assert_eq!((ended.failed, ended.left), (Some((0, "full")), vec![1]));
    }

    #[test]
    #[should_panic(expected = "a defect of the work")]
    fn a_panic_ends_it_and_is_not_waited_for() {
        run(&[vec![]], at_once(1), |_| -> Result<(), ()> { panic!("a defect of the work") }, Ok);
    }
}
