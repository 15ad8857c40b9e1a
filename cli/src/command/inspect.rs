//! `cairn inspect`: what stones hold.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use cairn_package::Metadata;
use cairn_package::stone::{self, Description, EntryDescription, FileType, Package};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::progress::Unit;
use crate::units::{count, size};

/// Show what stones hold
///
/// Works with packages, indices and build manifests. Checksums are verified;
/// exit code 3 says that one of the files is damaged.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stones
    #[arg(value_name = "FILE", required = true)]
    stones: Vec<PathBuf>,
    /// List the files of packages, too
    #[arg(short, long)]
    files: bool,
    /// Unpack the content of packages as well, to compare the hash of each file
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
struct Inspected {
    file: String,
    #[serde(flatten)]
    description: Description,
    #[serde(skip)]
    list_files: bool,
    #[serde(skip)]
    list_payloads: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct All(Vec<Inspected>);

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let mut all = Vec::new();
    for path in &args.stones {
        let failed = |source| Error::Stone { path: path.clone(), source };
        let file = File::open(path).map_err(Error::read(path))?;
        let description = stone::describe(BufReader::new(file)).map_err(failed)?;
        if args.check && description.file_type == FileType::Package {
            check(path, context, output).map_err(failed)?;
        }
        all.push(Inspected {
            file: path.display().to_string(),
            description,
            list_files: args.files,
            list_payloads: context.verbose(),
        });
    }
    let damaged = all.iter().flat_map(|it| &it.description.payloads);
    let found = damaged.filter(|payload| payload.problem.is_some()).count();
    output.list(&All(all))?;
    if found > 0 { Err(Error::DamageFound { found }) } else { Ok(()) }
}

/// Reads a package as an installation would.
fn check(path: &Path, context: &Context, output: &Output<'_>) -> Result<(), stone::Error> {
    let _phase = output.phase("Checking the content", None, Unit::Bytes);
    Package::open(path)?.content(&context.content_options())?;
    Ok(())
}

impl View for All {
    fn show(&self, page: &mut Page) {
        for inspected in &self.0 {
            inspected.show(page);
        }
    }
}

impl Inspected {
    fn show(&self, page: &mut Page) {
        let Description { file_type, payloads, packages, layout, warnings, .. } = &self.description;
        page.title(format_args!("{}: {file_type}, {}", self.file, size(self.description.size)));
        if *file_type == FileType::Package {
            for metadata in packages {
                let mut fields = fields(metadata);
                fields.push(("Files", self.totals()));
                page.fields(2, &fields);
            }
        } else {
            let rows: Vec<_> = packages.iter().map(summary_row).collect();
            page.table(2, &rows);
        }
        if self.list_files {
            let rows: Vec<_> = layout.iter().map(entry_row).collect();
            page.blank();
            page.table(2, &rows);
        }
        if self.list_payloads {
            page.blank();
            self.show_payloads(page);
        }
        for (number, payload) in payloads.iter().enumerate() {
            if let Some(problem) = &payload.problem {
                let kind = payload.kind;
                let text = format_args!("payload {number} ({kind}): {problem}");
                page.marked_line(Style::Bad, "  damaged: ", text);
            }
        }
        for warning in warnings {
            page.marked_line(Style::Note, "  warning: ", warning);
        }
    }

    fn totals(&self) -> String {
        let Description { layout, index, .. } = &self.description;
        let plain = index.iter().map(|record| record.end).max().unwrap_or(0);
        let (entries, unique) = (count(layout.len() as u64), count(index.len() as u64));
        format!("{entries} ({} of content, {unique} unique)", size(plain))
    }

    fn show_payloads(&self, page: &mut Page) {
        let head = ["Payload", "Records", "Stored", "Plain", "Offset", "Checksum"];
        let mut rows = vec![head.map(|text| Cell::new(text).style(Style::Faint)).to_vec()];
        for payload in &self.description.payloads {
            rows.push(vec![
                Cell::new(format_args!("{} ({})", payload.kind, payload.compression)),
                Cell::right(count(payload.records.into())),
                Cell::right(size(payload.stored_size)),
                Cell::right(size(payload.plain_size)),
                Cell::right(payload.offset),
                Cell::new(&payload.checksum),
            ]);
        }
        page.table(2, &rows);
    }
}

/// What a package says of itself, without what it does not say.
pub(crate) fn fields(metadata: &Metadata) -> Vec<(&'static str, String)> {
    let list = |set: &std::collections::BTreeSet<_>| {
        set.iter().map(ToString::to_string).collect::<Vec<String>>().join("  ")
    };
    let licenses = metadata.licenses.iter().cloned().collect::<Vec<_>>().join(", ");
    let fields = [
        ("Name", metadata.name.clone()),
        ("Version", metadata.version.clone()),
        ("Release", format!("{}, build {}", metadata.release, metadata.build_release)),
        ("Architecture", metadata.architecture.clone()),
        ("Summary", metadata.summary.clone()),
        ("Description", paragraphs(&metadata.description)),
        ("Homepage", metadata.homepage.clone()),
        ("Licences", licenses),
        ("Source", metadata.source_id.clone()),
        ("Depends on", list(&metadata.depends)),
        ("Provides", list(&metadata.provides)),
        ("Conflicts", list(&metadata.conflicts)),
    ];
    fields.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn summary_row(metadata: &Metadata) -> Vec<Cell> {
    vec![
        Cell::new(&metadata.name).style(Style::Strong),
        Cell::new(metadata.full_version()),
        Cell::right(metadata.location.as_ref().map_or_else(String::new, |at| size(at.size))),
        Cell::new(&metadata.summary),
    ]
}

fn entry_row(entry: &EntryDescription) -> Vec<Cell> {
    let path = match (&*entry.kind, &entry.source) {
        ("symlink", Some(target)) => format!("{} -> {target}", entry.path),
        _ => entry.path.clone(),
    };
    vec![
        Cell::new(&entry.mode),
        Cell::right(entry.uid),
        Cell::right(entry.gid),
        Cell::new(&entry.kind).style(Style::Faint),
        Cell::new(path),
    ]
}

/// A description with a line for each paragraph and each item of a list, however its author
/// has broken the lines.
fn paragraphs(text: &str) -> String {
    let mut out = String::new();
    for line in text.trim().lines() {
        let words = line.trim();
        let is_item = ["-", "*", "•"].iter().any(|mark| words.starts_with(mark));
        if words.is_empty() {
            out.push_str("\n\n");
        } else {
            if is_item && !out.ends_with('\n') {
                out.push('\n');
            } else if !out.is_empty() && !out.ends_with('\n') {
                out.push(' ');
            }
            out.push_str(words);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_paragraphs_of_a_description_stay() {
        let text = "First\nline:\n - one\n   more\n * two\n\nLast.\n";
        assert_eq!(paragraphs(text), "First line:\n- one more\n* two\n\nLast.");
        assert_eq!(paragraphs(""), "");
    }
}
