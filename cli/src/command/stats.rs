//! `cairn stats`: what a mount has done.

use std::path::PathBuf;
use std::time::Duration;

use cairn_fs::{Passed, Stats, control};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::units::{duration, size};

/// Show what a mount has been asked for, and what that took
///
/// Counts what the kernel has asked the mount's process since that began. What
/// the kernel has in its caches it does not ask for, so that a warm mount is
/// asked for nothing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory that is mounted on
    dir: PathBuf,
}

/// So long a mount may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct StatsView {
    target: String,
    #[serde(flatten)]
    stats: Stats,
}

pub(crate) fn run(args: &Args, _: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let (run, mount) = cairn_fs::registered_at(&args.dir)?;
    let stats = control::stats(&run, &mount, DEADLINE)?;
    output.data(&StatsView { target: mount.target, stats })
}

/// A time of so many microseconds, for people: most are below a millisecond.
fn time(microseconds: f64) -> String {
    if microseconds < 1000.0 {
        return format!("{microseconds:.0} µs");
    }
    duration(Duration::from_secs_f64(microseconds / 1e6))
}

/// The same of so many nanoseconds.
fn nanoseconds(count: u64) -> String {
    time(Duration::from_nanos(count).as_secs_f64() * 1e6)
}

/// A part of a whole, in percent; nothing of nothing.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "none asked for".into();
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{} % of {whole}", tenths / 10, tenths % 10)
}

impl View for StatsView {
    fn show(&self, page: &mut Page) {
        let Stats { pid, state, seconds, requests, errors, bytes_read, store, nodes, .. } =
            &self.stats;
        let state = state.map_or_else(String::new, |state| format!(", state {state}"));
        let since = duration(Duration::from_secs_f64(*seconds));
        page.title(format_args!("{}{state} (process {pid}, for {since})", self.target));
        let heads = ["request", "count", "half", "90 %", "99 %", "slowest", "together"];
        let mut rows = vec![heads.map(|head| Cell::right(head).style(Style::Faint)).to_vec()];
        for it in requests {
            let times = [it.p50, it.p90, it.p99, it.max, it.total].map(time);
            let mut row = vec![Cell::right(it.operation.name()), Cell::right(it.count)];
            row.extend(times.map(Cell::right));
            rows.push(row);
        }
        page.table(2, &rows);
        page.blank();
        let frames = store.frames_cached + store.frames_decoded;
        let trees = store.trees_cached + store.trees_decoded;
        let mean = store.decoding_nanoseconds.checked_div(store.frames_decoded).unwrap_or(0);
        let mut fields = vec![
            ("Answered with an error", errors.to_string()),
            ("Read by the kernel", size(*bytes_read)),
            ("Frames found in memory", percent(store.frames_cached, frames)),
            ("Frames decoded", format!("{}, {}", store.frames_decoded, size(store.bytes_decoded))),
            (
                "Frames read ahead",
                format!(
                    "{}, {} of them used",
                    store.frames_read_ahead, store.frames_read_ahead_used
                ),
            ),
            (
                "Reading a frame took",
                format!(
                    "{} on average, {} at most",
                    nanoseconds(mean),
                    nanoseconds(store.slowest_nanoseconds)
                ),
            ),
            ("Directories in memory", percent(store.trees_cached, trees)),
            ("Known to the kernel", format!("{nodes} files and directories")),
        ];
        let Passed { opens, fallbacks, open, backing_ids } = self.stats.passthrough;
        if opens + fallbacks > 0 || backing_ids > 0 {
            let text = format!("{opens}, and {fallbacks} that could not; {open} are open now");
            fields.push(("Opened with passthrough", text));
            fields.push(("Backing ids", backing_ids.to_string()));
        }
        if let Some(seconds) = self.stats.kept_awake {
            fields.push(("Kept processors awake", time(seconds * 1e6)));
        }
        if let Some(memory) = self.stats.memory {
            let text = format!("{}, at most {}", size(memory.now), size(memory.peak));
            fields.push(("Memory of the process", text));
        }
        page.fields(2, &fields);
        if self.stats.slowest.is_empty() {
            return;
        }
        page.title("Slowest requests");
        let rows = self.stats.slowest.iter().map(|slow| {
            let why = format!(
                "meanwhile decoded: frames {}, directories {}",
                slow.frames_decoded, slow.trees_decoded
            );
            vec![
                Cell::right(time(slow.microseconds)),
                Cell::new(slow.operation.name()),
                Cell::new(match &slow.path {
                    Some(path) => Escaped(path).to_string(),
                    None => format!("inode {}", slow.node),
                }),
                Cell::new(why).style(Style::Faint),
            ]
        });
        page.table(2, &rows.collect::<Vec<_>>());
    }
}
