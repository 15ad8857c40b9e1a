//! Which frames to decode before they are asked for.
//!
//! Files that were stored together lie side by side, and are mostly asked for together: in
//! their order, as by tar, or in another one, as when a program loads its modules. Whenever
//! a frame had to be waited for, the ones behind it are wanted next, more of them the more
//! often such frames are asked for afterwards, and none as long as none is. Inside of a large
//! file the kernel reads ahead by itself: only its end counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hash::PackId;

/// A frame: its pack, and its number there.
pub(super) type FrameId = (PackId, u32);

/// At most so many frames behind one are wanted.
const WIDEST: u32 = 8;

/// So many are wanted at first.
const FIRST: u32 = 4;

/// Frames that nobody has asked for yet are remembered up to this number: of 128 KiB each
/// half of what is kept in memory.
const UNUSED: usize = 256;

/// Where none are wanted, one is all the same each time that so many had to be waited for.
const TRIAL: u32 = 16;

/// What was waited for, and what is wanted for that.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    window: Mutex<Window>,
    /// Whether something is wanted.
    wants: AtomicBool,
}

#[derive(Debug)]
struct Window {
    /// How many frames behind one are wanted.
    width: u32,
    /// The last frame that somebody had to wait for, or would have had to if it had not been
    /// read ahead, until the end of a file in it is read.
    fresh: Option<FrameId>,
    /// What to read, in this order.
    wanted: VecDeque<FrameId>,
    /// What was read and not asked for yet, the oldest first.
    unused: VecDeque<FrameId>,
    /// How often nothing was wanted in a row.
    passed: u32,
}

impl Default for Window {
    fn default() -> Self {
        let (wanted, unused) = (VecDeque::new(), VecDeque::new());
        Self { width: FIRST, fresh: None, wanted, unused, passed: 0 }
    }
}

impl Readahead {
    /// Notes that a reader uses a frame, which was in memory or had to be waited for. Returns
    /// whether it was read ahead, and is used for the first time.
    pub(super) fn frame_was_used(&self, frame: FrameId, was_kept: bool) -> bool {
        let mut window = self.lock();
        let is_first_use = window.take_unused(frame);
        if is_first_use || !was_kept {
            window.fresh = Some(frame);
        }
        is_first_use
    }

    /// Notes that a file was read to its end, which lies in `frame`. `is_kept` says of a frame
    /// whether it is in memory.
    pub(super) fn file_ended(&self, frame: FrameId, is_kept: impl Fn(&FrameId) -> bool) {
        let mut window = self.lock();
        if window.fresh.take_if(|it| *it == frame).is_some() {
            window.want_behind(frame, is_kept);
            self.wants.store(!window.wanted.is_empty(), Relaxed);
        }
    }

    /// Whether something is wanted. Costs nothing.
    pub(super) fn wants(&self) -> bool {
        self.wants.load(Relaxed)
    }

    /// The next frame to read; it counts as read.
    pub(super) fn next(&self) -> Option<FrameId> {
        let mut window = self.lock();
        let next = window.wanted.pop_front();
        self.wants.store(!window.wanted.is_empty(), Relaxed);
        if let Some(frame) = next {
            window.was_read(frame);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        // Whatever is left of it, it is only about what to read.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Whether `frame` was read ahead, and not used before. It is not wanted any more.
    fn take_unused(&mut self, frame: FrameId) -> bool {
        self.wanted.retain(|it| *it != frame);
        let Some(place) = self.unused.iter().position(|it| *it == frame) else { return false };
        self.unused.remove(place);
        self.width = WIDEST.min(self.width + 1);
        true
    }

    fn was_read(&mut self, frame: FrameId) {
        if self.unused.len() == UNUSED {
            self.unused.pop_front();
            self.width = self.width.saturating_sub(1);
        }
        self.unused.push_back(frame);
    }

    fn want_behind(&mut self, (pack, number): FrameId, is_kept: impl Fn(&FrameId) -> bool) {
        let mut width = self.width;
        if width == 0 {
            self.passed += 1;
            width = u32::from(self.passed.is_multiple_of(TRIAL));
        }
        for number in number.saturating_add(1)..=number.saturating_add(width) {
            let frame = (pack, number);
            if !self.wanted.contains(&frame) && !is_kept(&frame) {
                self.wanted.push_back(frame);
            }
        }
        // Whoever is so far behind reads what was asked for meanwhile.
        let late = self.wanted.len().saturating_sub(2 * WIDEST as usize);
        self.wanted.drain(..late);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A reader of a pack with a file in each frame, and what is in memory.
    #[derive(Default)]
    struct Reader {
        readahead: Readahead,
        kept: HashSet<FrameId>,
        waited: u32,
        read_ahead: u32,
    }

    fn frame(number: u32) -> FrameId {
        (PackId::from_bytes([7; 16]), number)
    }

    impl Reader {
        fn read(&mut self, number: u32) {
            let was_kept = !self.kept.insert(frame(number));
            self.waited += u32::from(!was_kept);
            self.readahead.frame_was_used(frame(number), was_kept);
            self.readahead.file_ended(frame(number), |it| self.kept.contains(it));
            while let Some(next) = self.readahead.next() {
                assert!(self.kept.insert(next), "{next:?} is in memory");
                self.read_ahead += 1;
            }
            assert!(!self.readahead.wants());
        }
    }

    #[test]
    fn of_files_in_their_order_only_the_first_is_waited_for() {
        let mut reader = Reader::default();
        (0..1000).for_each(|number| reader.read(number));
        assert_eq!((reader.waited, reader.read_ahead), (1, 999 + WIDEST));
    }

    #[test]
    fn of_files_in_no_order_few_are_waited_for_if_most_are_read() {
        let mut reader = Reader::default();
        let mut numbers: Vec<u32> = (0..400).collect();
        numbers.sort_by_key(|number| number.wrapping_mul(2_654_435_761));
        numbers.into_iter().for_each(|number| reader.read(number));
        assert!(reader.waited < 100, "{}", reader.waited);
    }

    #[test]
    fn where_nothing_of_it_is_used_little_is_read_ahead_until_it_is_again() {
        let mut reader = Reader::default();
        let far = 100;
        (0..5000).for_each(|at| reader.read(at * far));
        let most = u32::try_from(UNUSED).unwrap() + 4 * FIRST + 5000 / TRIAL;
        assert!(reader.read_ahead < most, "{}", reader.read_ahead);
        let before = reader.waited;
        (0..1000).for_each(|at| reader.read(5000 * far + at));
        assert!(reader.waited - before <= 2 * TRIAL, "{}", reader.waited - before);
    }

    #[test]
    fn inside_of_a_file_nothing_is_wanted() {
        let readahead = Readahead::default();
        let wanted = || std::iter::from_fn(|| readahead.next()).map(|it| it.1).collect::<Vec<_>>();
        assert!(!readahead.frame_was_used(frame(5), false), "it was not read ahead");
        readahead.file_ended(frame(6), |_| false);
        assert!(wanted().is_empty());
        readahead.file_ended(frame(5), |it| it.1 == 7);
        assert_eq!(wanted(), [6, 8, 9]);
        // Whoever did not wait for it has read it.
        assert!(!readahead.frame_was_used(frame(20), false));
        readahead.file_ended(frame(20), |_| false);
        assert!(!readahead.frame_was_used(frame(22), false));
        assert_eq!(wanted(), [21, 23, 24]);
        // A file goes on from 8 to 9, and ends there.
        assert!(readahead.frame_was_used(frame(8), true), "it is used for the first time");
        assert!(!readahead.frame_was_used(frame(8), true), "and again");
        assert!(readahead.frame_was_used(frame(9), true));
        readahead.file_ended(frame(9), |_| false);
        assert_eq!(wanted(), [10, 11, 12, 13, 14, 15]);
    }
}
