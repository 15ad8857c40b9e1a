//! Compresses manual and info pages.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::collect::{Found, FoundKind};
use crate::error::{Error, Result};

/// zstd's level for pages.
const LEVEL: i32 = 16;
const SUFFIX: &str = ".zst";

/// Compresses the pages among `files`, which lie in an install root: each gets
/// `.zst` behind its name and keeps its mode and time; links lead to what was
/// compressed.
///
/// Returns how many were compressed.
///
/// # Errors
/// [`Error::Io`].
pub fn compress(files: &[Found]) -> Result<usize> {
    let mut compressed = 0;
    let mut linked: HashMap<u32, PathBuf> = HashMap::new();
    for file in files.iter().filter(|file| is_page(file)) {
        let mut to = file.source.clone().into_os_string();
        to.push(SUFFIX);
        let to = PathBuf::from(to);
        match &file.kind {
            FoundKind::File(_) => match file.link.and_then(|link| linked.get(&link)) {
                Some(first) => fs::hard_link(first, &to).map_err(Error::io(&to))?,
                None => {
                    compress_one(&file.source, &to).map_err(Error::io(&to))?;
                    compressed += 1;
                    linked.extend(file.link.map(|link| (link, to.clone())));
                }
            },
            FoundKind::Symlink(text) => {
                let text = String::from_utf8_lossy(text);
                symlink(format!("{text}{SUFFIX}"), &to).map_err(Error::io(&to))?;
            }
            FoundKind::Directory | FoundKind::Special(_) => continue,
        }
        fs::remove_file(&file.source).map_err(Error::io(&file.source))?;
    }
    Ok(compressed)
}

/// Whether it is a page that is not compressed yet, or a link to one.
fn is_page(file: &Found) -> bool {
    let Some(path) = file.below_usr() else { return false };
    let Some((name, directories)) = path.split_last() else { return false };
    let named = |name: &str| {
        let section = name.rsplit('.').next().unwrap_or_default();
        let is_section = section.len() < name.len()
            && section.starts_with(|c: char| ('1'..='8').contains(&c))
            && section.chars().all(|c| c.is_ascii_alphanumeric());
        (directories.contains(&"man") && is_section)
            || (directories.contains(&"info") && name.ends_with(".info"))
    };
    match &file.kind {
        FoundKind::File(_) => named(name),
        FoundKind::Symlink(text) => {
            let text = String::from_utf8_lossy(text);
            named(name) && named(text.rsplit('/').next().unwrap_or_default())
        }
        FoundKind::Directory | FoundKind::Special(_) => false,
    }
}

fn compress_one(from: &Path, to: &Path) -> std::io::Result<()> {
    let metadata = fs::metadata(from)?;
    let bytes = zstd::bulk::compress(&fs::read(from)?, LEVEL)?;
    let mut file = File::create_new(to)?;
    file.write_all(&bytes)?;
    file.set_permissions(metadata.permissions())?;
    file.set_times(FileTimes::new().set_modified(metadata.modified()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::collect;

    #[test]
    fn pages_are_compressed_and_links_follow() {
        let root = tempfile::tempdir().expect("a directory");
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, text).expect("a file");
            path
        };
        let first = make("usr/share/man/man1/a.1", &"page ".repeat(1000));
        fs::hard_link(&first, first.with_file_name("hard.1")).expect("a link");
        symlink("a.1", first.with_file_name("soft.1")).expect("a link");
        make("usr/share/man/de/man3/x.3pm", "page");
        make("usr/share/man/man1/done.1.gz", "page");
        make("usr/share/info/a.info", "info");
        make("usr/share/info/dir", "info");
        make("usr/share/doc/a.1", "no page");
        let time = fs::metadata(&first).and_then(|it| it.modified()).expect("a time");

        let files = collect(root.path(), (0, 0)).expect("a list");
        assert_eq!(compress(&files).expect("compressed"), 3);
        let files = collect(root.path(), (0, 0)).expect("a list");
        let paths: Vec<&str> = files.iter().map(|file| file.text.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/usr/share/doc/a.1",
                "/usr/share/info/a.info.zst",
                "/usr/share/info/dir",
                "/usr/share/man/de/man3/x.3pm.zst",
                "/usr/share/man/man1/a.1.zst",
                "/usr/share/man/man1/done.1.gz",
                "/usr/share/man/man1/hard.1.zst",
                "/usr/share/man/man1/soft.1.zst",
            ]
        );
        let soft = root.path().join("usr/share/man/man1/soft.1.zst");
        assert_eq!(fs::read_link(&soft).expect("a link"), Path::new("a.1.zst"));
        let plain = zstd::bulk::decompress(&fs::read(&soft).expect("a page"), 1 << 20);
        assert_eq!(plain.expect("zstd"), "page ".repeat(1000).into_bytes());
        assert_eq!(fs::metadata(&soft).and_then(|it| it.modified()).expect("a time"), time);
        assert_eq!(files[4].link, files[6].link);
        assert!(files[4].link.is_some());
    }
}
