//! Does work on several threads and hands over its results in order.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::thread;

use crossbeam::channel::{Sender, bounded, unbounded};

/// Does `work` for each item of `next` on up to `threads` threads, and hands
/// the results to `done` in the order of the items.
///
/// `next` and `done` run on the calling thread. At most twice as many items as
/// threads are in memory. Stops at the first error of `next` or `done`.
pub(super) fn in_order<I: Send, O: Send, E>(
    threads: NonZeroUsize,
    mut next: impl FnMut() -> Result<Option<I>, E>,
    work: impl Fn(I) -> O + Sync,
    mut done: impl FnMut(O) -> Result<(), E>,
) -> Result<(), E> {
    if threads.get() == 1 {
        while let Some(item) = next()? {
            done(work(item))?;
        }
        return Ok(());
    }
    thread::scope(|scope| {
        let (to_workers, jobs) = unbounded::<(I, Sender<O>)>();
        for _ in 0..threads.get() {
            let (jobs, work) = (jobs.clone(), &work);
            scope.spawn(move || {
                for (item, result) in jobs {
                    // Nobody waits any more after an error.
                    let _ = result.send(work(item));
                }
            });
        }
        drop(jobs);
        let mut waiting = VecDeque::new();
        let mut more = true;
        loop {
            while more && waiting.len() < 2 * threads.get() {
                match next()? {
                    Some(item) => {
                        let (result, receiver) = bounded(1);
                        to_workers.send((item, result)).expect("the workers wait for items");
                        waiting.push_back(receiver);
                    }
                    None => more = false,
                }
            }
            let Some(receiver) = waiting.pop_front() else { return Ok(()) };
            done(receiver.recv().expect("a worker answers each item"))?;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(threads: usize, fail_at: Option<u64>) -> Result<Vec<u64>, u64> {
        let mut items = 0..1000u64;
        let mut squares = Vec::new();
        in_order(
            NonZeroUsize::new(threads).expect("some threads"),
            || Ok(items.next()),
            |item| item * item,
            |square| {
                if fail_at.is_some_and(|item| item * item == square) {
                    return Err(square);
                }
                squares.push(square);
                Ok(())
            },
        )?;
        Ok(squares)
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let expected: Vec<u64> = (0..1000).map(|item| item * item).collect();
        for threads in [1, 2, 7] {
            assert_eq!(squares(threads, None).as_ref(), Ok(&expected), "{threads} threads");
        }
    }

    #[test]
    fn the_first_error_ends_the_work() {
        for threads in [1, 2, 7] {
            assert_eq!(squares(threads, Some(20)), Err(400), "{threads} threads");
        }
    }
}
