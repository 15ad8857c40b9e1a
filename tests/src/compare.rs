//! Whether two directories are the same, as programs say that know nothing of Cairn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::need::Need;
use crate::run;

/// A directory to compare others with.
///
/// | program | knows |
/// |---|---|
/// | rsync | content, modes, owners, times, extended attributes, ACLs, hard links |
/// | mtree | content, modes, owners, times, devices, texts of links |
/// | bsdtar | the same, as it would archive it |
/// | GNU tar | the same, and hard links |
#[derive(Debug)]
pub struct Original {
    root: PathBuf,
    temporary: TempDir,
    listed: Vec<String>,
}

impl Original {
    /// What it takes.
    pub const NEEDS: [Need; 4] = [
        Need::Root,
        Need::Program("rsync", "rsync"),
        Need::Program("bsdtar", "libarchive-tools"),
        Need::Program("mtree", "mtree-netbsd"),
    ];

    /// Reads `root`, which is not to change from now on.
    ///
    /// # Panics
    /// If one of the programs fails.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let keywords = "type,mode,uid,gid,link,device,sha256,time";
        let specification = run(Command::new("mtree").args(["-c", "-k", keywords, "-p"]).arg(root));
        fs::write(temporary.path().join("mtree"), specification).unwrap();
        Self { root: root.into(), temporary, listed: listed(root) }
    }

    /// Checks that each of the programs finds `other` to be the same.
    ///
    /// # Panics
    /// If one does not.
    pub fn assert_is(&self, other: &Path) {
        for (program, report) in self.reports(other) {
            let some: Vec<_> = report.lines().take(40).collect();
            assert!(some.is_empty(), "{program}: {}:\n{}", other.display(), some.join("\n"));
        }
    }

    /// What each program says of differences; nothing if it finds none.
    fn reports(&self, other: &Path) -> [(&'static str, String); 4] {
        [
            ("rsync", self.by_rsync(other)),
            ("mtree", self.by_mtree(other)),
            ("bsdtar", self.by_bsdtar(other)),
            ("tar", self.by_tar(other)),
        ]
    }

    fn by_rsync(&self, other: &Path) -> String {
        let mut rsync = Command::new("rsync");
        // Without the window, nanoseconds are not looked at.
        rsync.args(["-aHAXn", "--checksum", "--modify-window=-1", "--itemize-changes", "--delete"]);
        run(rsync.args([&*self.root, other].map(|path| format!("{}/", path.display()))))
    }

    fn by_mtree(&self, other: &Path) -> String {
        let mut mtree = Command::new("mtree");
        mtree.arg("-p").arg(other).arg("-f").arg(self.temporary.path().join("mtree"));
        let output = mtree.output().unwrap();
        // It fails where something differs.
        said(&output)
    }

    fn by_bsdtar(&self, other: &Path) -> String {
        let found = listed(other);
        let (mut old, mut new) = (self.listed.iter().peekable(), found.iter().peekable());
        let mut differences = String::new();
        while let Some(line) = old.peek().into_iter().chain(new.peek()).min().copied() {
            let is = [&mut old, &mut new].map(|lines| lines.next_if(|it| *it == line).is_some());
            match is {
                [true, true] => {}
                [true, false] => differences.push_str(&format!("-{line}\n")),
                [false, _] => differences.push_str(&format!("+{line}\n")),
            }
        }
        differences
    }

    fn by_tar(&self, other: &Path) -> String {
        let mut archiver = Command::new("tar");
        // It tells nobody of further names of FIFOs.
        archiver.args(["--format=posix", "--warning=no-file-ignored", "-cf", "-", "-C"]);
        let mut archiver =
            archiver.arg(&self.root).arg(".").stdout(Stdio::piped()).spawn().unwrap();
        let mut comparer = Command::new("tar");
        comparer.args(["--compare", "--warning=no-timestamp", "-f", "-", "-C"]).arg(other);
        let output = comparer.stdin(archiver.stdout.take().unwrap()).output().unwrap();
        assert!(archiver.wait().unwrap().success(), "tar -c {}", self.root.display());
        said(&output)
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

/// What bsdtar says of every entry, sorted.
fn listed(directory: &Path) -> Vec<String> {
    let keywords = ["type", "mode", "uid", "gid", "time", "link", "device", "sha256"];
    let keywords = keywords.map(|keyword| format!("mtree:{keyword}")).join(",");
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.arg(format!("--options=mtree:!all,{keywords}")).args(["--format=mtree", "-cf", "-"]);
    let listing = run(bsdtar.arg("-C").arg(directory).arg("."));
    let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_finds_the_differences_that_it_knows_of() {
        if !Need::all(&Original::NEEDS) {
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let [root, other] = ["root", "other"].map(|name| temporary.path().join(name));
        fs::create_dir_all(root.join("directory")).unwrap();
        fs::write(root.join("one"), "content").unwrap();
        fs::hard_link(root.join("one"), root.join("two")).unwrap();
        crate::set_xattr(&root.join("directory"), "user.a", b"b").unwrap();
        let original = Original::new(&root);
        for (change, expected) in [
            ("", &[][..]),
            ("printf C | dd of=one conv=notrunc status=none; touch -r ../root/one one", &ALL),
            ("touch -d \"@$(stat -c %Y one).000000001\" one", &ALL),
            ("chmod 600 two", &ALL),
            ("chown 7 one", &ALL),
            ("cp -p one three; mv three one; touch -r ../root .", &["rsync", "tar"]),
            ("rm -r directory; touch -r ../root .", &ALL),
            ("touch more; touch -r ../root .", &ALL[..3]),
            ("chmod 700 directory", &ALL),
            (
                "rmdir directory; mkdir directory; touch -r ../root/directory directory; touch -r ../root .",
                &ALL[..1],
            ),
        ] {
            run(Command::new("cp").arg("-aT").args([&root, &other]));
            run(Command::new("sh").args(["-ec", change]).current_dir(&other));
            let reports = original.reports(&other);
            let found = reports.iter().filter(|(_, report)| !report.is_empty());
            let found: Vec<&str> = found.map(|(program, _)| *program).collect();
            assert_eq!(found, expected, "{change}: {reports:?}");
            fs::remove_dir_all(&other).unwrap();
        }
    }

    const ALL: [&str; 4] = ["rsync", "mtree", "bsdtar", "tar"];
}
