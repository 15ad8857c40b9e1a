//! Processes that still use what a switch has replaced, as they are told.

use std::collections::BTreeSet;

use cairn_fs::Usage;
use cairn_store::Store;
use serde::Serialize;

use crate::error::Error;
use crate::escape::Escaped;
use crate::page::{Cell, Page, Style};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Affected {
    processes: Vec<ProcessView>,
    units: BTreeSet<String>,
    unseen: usize,
}

#[derive(Debug, Serialize)]
struct ProcessView {
    pid: u32,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    files: Vec<FileView>,
}

#[derive(Debug, Serialize)]
struct FileView {
    path: String,
    #[serde(rename = "use")]
    usage: Usage,
}

impl Affected {
    /// Looks at all processes of this machine.
    pub(crate) fn find(store: &Store) -> Result<Self, Error> {
        let found = cairn_fs::Affected::find(&store.path().join("run"))?;
        let units = found.processes.iter().filter_map(|process| process.unit.clone()).collect();
        let file =
            |(path, usage): (Vec<u8>, Usage)| FileView { path: Escaped(&path).to_string(), usage };
        let process = |it: cairn_fs::AffectedProcess| ProcessView {
            pid: it.pid,
            name: it.name,
            unit: it.unit,
            files: it.files.into_iter().map(file).collect(),
        };
        let processes = found.processes.into_iter().map(process).collect();
        Ok(Self { processes, units, unseen: found.unseen })
    }

    pub(crate) fn show(&self, page: &mut Page) {
        if self.processes.is_empty() {
            page.line("No process uses a file that has been replaced.");
        } else {
            let count = self.processes.len();
            let verb = if count == 1 { "uses" } else { "use" };
            let text = format!("{} still {verb} files that have been replaced", processes(count));
            page.title(text);
        }
        let mut rows = Vec::new();
        for ProcessView { pid, name, unit, files } in &self.processes {
            for (at, FileView { path, usage }) in files.iter().enumerate() {
                let first = |text: String| Cell::new(if at == 0 { text } else { String::new() });
                let usage = match usage {
                    Usage::Executed => "executed",
                    Usage::Mapped => "mapped",
                    Usage::Open => "open",
                };
                rows.push(vec![
                    first(pid.to_string()),
                    first(Escaped(name.as_bytes()).to_string()).style(Style::Strong),
                    first(unit.clone().unwrap_or_default()),
                    Cell::new(usage).style(Style::Faint),
                    Cell::new(path),
                ]);
            }
        }
        page.table(2, &rows);
        let services: Vec<_> = self
            .units
            .iter()
            .filter(|unit| unit.ends_with(".service"))
            .map(String::as_str)
            .collect();
        if !services.is_empty() {
            page.line(format_args!(
                "To use the new ones: systemctl restart {}",
                services.join(" ")
            ));
        }
        if self.unseen > 0 {
            let text = format_args!("{}, at which this user may not look", processes(self.unseen));
            page.marked_line(Style::Note, "left out: ", text);
        }
    }
}

fn processes(number: usize) -> String {
    format!("{number} {}", if number == 1 { "process" } else { "processes" })
}
