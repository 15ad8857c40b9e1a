//! What takes time, shown while it goes on.
//!
//! On a terminal a phase is a bar with rate and time left, which vanishes when
//! the phase ends. Elsewhere it is one line when it begins. With `--quiet` and
//! `--json` it is nothing.

use std::io::Write;
use std::sync::Once;
use std::time::{Duration, Instant};

use cairn_package::repository::{DownloadProgress, Retry};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::error::in_one_line;
use crate::escape::Escaped;
use crate::units::duration;

/// How phases are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As bars on the terminal that is standard error.
    Bars,
    /// As one line each on standard error.
    Lines,
    /// Not at all.
    Silent,
}

/// What the numbers of a phase count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, shown in binary units.
    Bytes,
    /// Files, packages or whatever the name of the phase says.
    Pieces,
}

/// The phases of one command.
#[derive(Clone)]
pub(crate) struct Progress {
    mode: Mode,
    bars: MultiProgress,
}

/// A bar that comes and goes within this time is a flicker, not information.
const DELAY: Duration = Duration::from_millis(200);

impl Progress {
    /// Shows phases as `mode` says.
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, bars: MultiProgress::new() }
    }

    /// Begins a phase that is named like `Storing files`; it ends when the
    /// result is dropped. `total` may be unknown.
    pub(crate) fn phase(&self, name: &str, total: Option<u64>, unit: Unit) -> Phase {
        if self.mode == Mode::Lines {
            // A progress line that cannot be written is no reason to fail.
            let _ = writeln!(std::io::stderr(), "{name} ...");
        }
        let bar = ProgressBar::hidden().with_style(style(total, unit));
        bar.set_prefix(name.to_owned());
        if let Some(total) = total {
            bar.set_length(total);
        }
        let bars = (self.mode == Mode::Bars).then(|| self.bars.clone());
        Phase { bar, bars, notes: self.clone(), begun: Instant::now(), shown: Once::new() }
    }

    /// Tells people of something that happens in the middle of a phase.
    pub(crate) fn note(&self, text: &str) {
        if self.mode != Mode::Silent {
            let text = Escaped(text.as_bytes());
            // A note that cannot be written is no reason to fail.
            self.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
        }
    }

    /// Runs `write`, which writes to the terminal, while the bars are away.
    pub(crate) fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        match self.mode {
            Mode::Bars => self.bars.suspend(write),
            Mode::Lines | Mode::Silent => write(),
        }
    }
}

/// A phase that is going on; threads may share it.
pub(crate) struct Phase {
    bar: ProgressBar,
    bars: Option<MultiProgress>,
    notes: Progress,
    begun: Instant,
    shown: Once,
}

impl Phase {
    /// Counts `number` more as done.
    pub(crate) fn advance(&self, number: u64) {
        self.bar.inc(number);
        self.show_when_it_lasts();
    }

    /// Counts `number` as done no more.
    pub(crate) fn lose(&self, number: u64) {
        self.bar.dec(number);
    }

    /// There is `number` more to do than was known.
    pub(crate) fn expect(&self, number: u64) {
        self.bar.inc_length(number);
    }

    /// There are `bytes` more to come, where it was not known before that any are.
    pub(crate) fn expect_bytes(&self, bytes: u64) {
        match self.bar.length() {
            Some(_) => self.bar.inc_length(bytes),
            None => self.set_total(bytes, Unit::Bytes),
        }
    }

    /// Tells something beside the bar.
    pub(crate) fn note(&self, text: &str) {
        self.notes.note(text);
    }

    /// Sets how much there is to do, when it is known only now.
    pub(crate) fn set_total(&self, total: u64, unit: Unit) {
        self.bar.set_style(style(Some(total), unit));
        self.bar.set_length(total);
    }

    fn show_when_it_lasts(&self) {
        if let Some(bars) = &self.bars
            && self.begun.elapsed() >= DELAY
        {
            self.shown.call_once(|| {
                bars.add(self.bar.clone());
                self.bar.enable_steady_tick(Duration::from_millis(100));
            });
        }
    }
}

impl DownloadProgress for Phase {
    fn expect(&self, bytes: u64) {
        Phase::expect(self, bytes);
    }

    fn advance(&self, bytes: u64) {
        Phase::advance(self, bytes);
    }

    fn lose(&self, bytes: u64) {
        Phase::lose(self, bytes);
    }

    fn retry(&self, retry: &Retry<'_>) {
        self.note(&retry_in_words(retry));
    }
}

/// A download that is tried again, and why.
pub(crate) fn retry_in_words(retry: &Retry<'_>) -> String {
    let problem = in_one_line(retry.problem);
    format!("{}: {problem}; trying again in {}", retry.url, duration(retry.delay))
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(total: Option<u64>, unit: Unit) -> ProgressStyle {
    let template = match (total, unit) {
        (Some(_), Unit::Bytes) => {
            "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} \
             {binary_bytes_per_sec} {eta} left"
        }
        (Some(_), Unit::Pieces) => "{prefix} {wide_bar} {pos}/{len} {per_sec:>8} {eta} left",
        (None, Unit::Bytes) => "{spinner} {prefix} {binary_bytes} {binary_bytes_per_sec} {elapsed}",
        (None, Unit::Pieces) => "{spinner} {prefix} {pos} {elapsed}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates are well-formed");
    style.progress_chars("━╸ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_phase_has_a_well_formed_line() {
        for total in [None, Some(3)] {
            for unit in [Unit::Bytes, Unit::Pieces] {
                let phase = Progress::new(Mode::Silent).phase("Storing files", total, unit);
                phase.advance(2);
                assert_eq!(phase.bar.position(), 2);
                assert_eq!(phase.bar.length(), total);
            }
        }
    }
}
