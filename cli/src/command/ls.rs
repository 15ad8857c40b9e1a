//! `cairn ls`: what a directory of a state holds, without any mount.

use std::ffi::OsString;

use cairn_store::tree::Device;
use cairn_store::{Attributes, Content, Entry, Name, Store, TreePath};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::place::{LastLink, Place};
use crate::units;

/// List files of a state, without mounting it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File or directory: 5:/usr/bin, TAG:/etc, or /usr of the current state
    #[arg(value_name = "STATE:PATH", default_value = "/")]
    place: OsString,
    /// Show mode, owner, size and time; the size of a directory is that of all
    /// files below it
    #[arg(short, long)]
    long: bool,
    /// List what lies below directories, too
    #[arg(short = 'R', long)]
    recursive: bool,
}

#[derive(Serialize)]
struct Listing {
    state: u64,
    path: String,
    entries: Vec<File>,
    #[serde(skip)]
    long: bool,
}

#[derive(Serialize)]
struct File {
    name: String,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    modified: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<String>,
    #[serde(skip)]
    bits: u16,
    #[serde(skip)]
    seconds: i64,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let last = if args.long { LastLink::Keep } else { LastLink::Follow };
    let place = Place::new(&args.place)?;
    // A link to nowhere is still something that can be listed.
    let found = place.find(&store, last).or_else(|err| match err {
        Error::NoSuchFile { .. } => place.find(&store, LastLink::Keep),
        err => Err(err),
    })?;
    let mut entries = Vec::new();
    match found.entry.as_directory() {
        Some(directory) => {
            let depth = if args.recursive { usize::MAX } else { 0 };
            list(&store, directory.id, &mut Vec::new(), depth, &mut entries)?;
        }
        None => {
            let name = found.path.split_last().map(|(_, name)| name.as_bytes().to_vec());
            entries.push(file(&store, &name.unwrap_or_default(), &found.entry)?);
        }
    }
    let (state, path) = (found.state.id.0, shown(&found.path));
    output.list(&Listing { state, path, entries, long: args.long })
}

fn shown(path: &TreePath) -> String {
    Escaped(&path.to_bytes()).to_string()
}

fn list(
    store: &Store,
    id: cairn_store::TreeId,
    above: &mut Vec<u8>,
    depth: usize,
    entries: &mut Vec<File>,
) -> Result<(), Error> {
    for (name, entry) in store.tree(id)?.entries() {
        let len = above.len();
        above.extend_from_slice(Name::as_bytes(name));
        entries.push(file(store, above, entry)?);
        if depth > 0
            && let Some(below) = entry.as_directory()
        {
            above.push(b'/');
            list(store, below.id, above, depth - 1, entries)?;
        }
        above.truncate(len);
    }
    Ok(())
}

fn file(store: &Store, name: &[u8], entry: &Entry) -> Result<File, Error> {
    let name = Escaped(name).to_string();
    Ok(match entry {
        Entry::Directory(below) => {
            let tree = store.tree(below.id)?;
            File::new(name, "directory", &tree.attributes, below.summary.bytes)
        }
        Entry::Leaf(leaf) => {
            let kind = match &leaf.content {
                Content::File(_) => "file",
                Content::Symlink(_) => "symlink",
                Content::CharDevice(_) => "char-device",
                Content::BlockDevice(_) => "block-device",
                Content::Fifo => "fifo",
                Content::Socket => "socket",
            };
            let mut file = File::new(name, kind, &leaf.attributes, leaf.stat_size());
            match &leaf.content {
                Content::File(blob) => file.digest = Some(blob.digest.to_string()),
                Content::Symlink(target) => file.target = Some(Escaped(target).to_string()),
                Content::CharDevice(Device { major, minor })
                | Content::BlockDevice(Device { major, minor }) => {
                    file.device = Some(format!("{major}:{minor}"));
                }
                Content::Fifo | Content::Socket => {}
            }
            file.links = leaf.link.map(|link| link.count);
            file
        }
    })
}

impl File {
    fn new(name: String, kind: &'static str, attributes: &Attributes, size: u64) -> Self {
        let seconds = attributes.mtime.seconds();
        let xattrs = attributes.xattrs.iter();
        Self {
            name,
            kind,
            mode: format!("{:04o}", attributes.mode),
            uid: attributes.uid,
            gid: attributes.gid,
            size,
            modified: units::utc_time(seconds),
            target: None,
            device: None,
            digest: None,
            links: None,
            xattrs: xattrs.map(|xattr| Escaped(&xattr.name).to_string()).collect(),
            bits: attributes.mode,
            seconds,
        }
    }

    fn style(&self) -> Style {
        match self.kind {
            "directory" => Style::Strong,
            "symlink" => Style::Faint,
            "file" if self.bits & 0o111 != 0 => Style::Good,
            _ => Style::Plain,
        }
    }

    /// `-rwsr-xr-x`, as ls(1) shows it.
    fn mode_text(&self) -> String {
        let kind = match self.kind {
            "directory" => 'd',
            "symlink" => 'l',
            "char-device" => 'c',
            "block-device" => 'b',
            "fifo" => 'p',
            "socket" => 's',
            _ => '-',
        };
        let mut text = String::from(kind);
        for (shift, special, mark) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let bits = self.bits >> shift;
            text.push(if bits & 4 != 0 { 'r' } else { '-' });
            text.push(if bits & 2 != 0 { 'w' } else { '-' });
            text.push(match (self.bits & special != 0, bits & 1 != 0) {
                (true, true) => mark,
                (true, false) => mark.to_ascii_uppercase(),
                (false, true) => 'x',
                (false, false) => '-',
            });
        }
        if !self.xattrs.is_empty() {
            text.push('+');
        }
        text
    }

    fn row(&self) -> Vec<Cell> {
        let name = match &self.target {
            Some(target) => format!("{} -> {target}", self.name),
            None => self.name.clone(),
        };
        vec![
            Cell::new(self.mode_text()),
            Cell::right(self.uid),
            Cell::right(self.gid),
            Cell::right(self.device.clone().unwrap_or_else(|| units::size(self.size))),
            Cell::new(units::local_time(self.seconds)).style(Style::Faint),
            Cell::new(name).style(self.style()),
        ]
    }
}

impl View for Listing {
    fn show(&self, page: &mut Page) {
        if self.long {
            let rows: Vec<_> = self.entries.iter().map(File::row).collect();
            page.table(0, &rows);
        } else {
            for file in &self.entries {
                page.styled_line(file.style(), &file.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        let text =
            |kind, mode| File::new(String::new(), kind, &Attributes::of_root(mode), 0).mode_text();
        let cases = [
            ("file", 0o4755, "-rwsr-xr-x"),
            ("file", 0o2644, "-rw-r-Sr--"),
            ("directory", 0o1777, "drwxrwxrwt"),
            ("directory", 0o1700, "drwx-----T"),
            ("symlink", 0o777, "lrwxrwxrwx"),
            ("char-device", 0o600, "crw-------"),
        ];
        for (kind, mode, expected) in cases {
            assert_eq!(text(kind, mode), expected);
        }
    }
}
