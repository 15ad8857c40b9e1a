//! What programs say while they run, line by line, on standard error.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::escape::visible;
use crate::page::{Look, Page, Style};
use crate::progress::Progress;

/// Shows lines as they come; threads may share it.
pub(crate) struct Lines {
    progress: Progress,
    look: Look,
    silent: bool,
    paused: AtomicBool,
}

impl Lines {
    pub(crate) fn new(progress: Progress, look: Look, silent: bool) -> Self {
        Self {
            progress,
            look: Look { width: None, ..look },
            silent,
            paused: AtomicBool::new(false),
        }
    }

    /// A line of our own: who speaks, and what.
    pub(crate) fn line(&self, style: Style, who: &str, text: &str) {
        let mut page = Page::new(self.look);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        page.marked_line(style, &format!("{who}: "), first);
        for line in lines {
            page.line(format_args!("  {line}"));
        }
        self.write(&page.into_text());
    }

    /// A line of a program, which may hold anything.
    pub(crate) fn raw(&self, who: &str, line: &[u8]) {
        let mut page = Page::new(self.look);
        let text = String::from_utf8_lossy(line).replace('\t', "    ");
        page.marked_line(
            Style::Faint,
            &format!("{who:>8} | "),
            visible(text.trim_end_matches('\r')),
        );
        self.write(&page.into_text());
    }

    /// Somebody else has the terminal.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn write(&self, text: &str) {
        if self.silent || self.paused.load(Ordering::Relaxed) {
            return;
        }
        // When even that fails there is nobody to tell.
        let _ = self.progress.suspend(|| std::io::stderr().write_all(text.as_bytes()));
    }
}
