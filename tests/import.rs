//! What `cairn import` takes in, and when it reads it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cairn_tests::disk::Filesystem;
use cairn_tests::{Cairn, Mapping, Need, eventually};

/// A directory with a file that is written to through a mapping, and one that is not.
struct Mapped {
    root: PathBuf,
    mapping: Mapping,
    /// Whether the other file need not be read again.
    keeps_times: bool,
}

impl Mapped {
    fn new(directory: &Path, keeps_times: bool) -> Self {
        let root = directory.join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("plain"), "bytes").unwrap();
        fs::write(root.join("mapped"), [0; Mapping::LEN]).unwrap();
        let mut mapping = Mapping::new(&root.join("mapped")).unwrap();
        mapping.store(b'1');
        Self { root, mapping, keeps_times }
    }

    /// Imports it; returns how many files were read, and what the mapped one was then.
    fn import(&self, cairn: &Cairn) -> (u64, String) {
        let imported = cairn.json([Path::new("import"), &self.root]);
        let content = cairn.data(["cat", &format!("{}:/mapped", imported["state"])]);
        (imported["files_read"].as_u64().unwrap(), content)
    }
}

#[test]
fn what_is_stored_through_a_mapping_is_not_missed_by_the_next_import() {
    let kinds = [Filesystem::Ext4, Filesystem::Xfs, Filesystem::Btrfs];
    if !Need::all(&[Need::Root, Need::Loop]) || !Need::all(&kinds.map(Filesystem::need)) {
        return;
    }
    let cairn = Cairn::new();
    let mut disks = Vec::new();
    let mut places = Vec::new();
    for kind in kinds {
        let place = cairn.directory().join(kind.name());
        let image = place.with_extension("image");
        kind.make_in(&image);
        disks.push(kind.mount(&image, &place).unwrap());
        places.push(Mapped::new(&place, true));
    }
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    places.push(Mapped::new(memory.path(), false));
    // From now on the times of the files are far enough back to be believed.
    let made = SystemTime::now();
    eventually("two seconds are over", || {
        made.elapsed().is_ok_and(|time| time > Duration::from_millis(2100))
    });
    for Mapped { mapping, .. } in &mut places {
        // The page is dirty since it was made: this sets no time.
        mapping.store(b'2');
    }
    for place in &mut places {
        let name = place.root.display().to_string();
        assert_eq!(place.import(&cairn), (2, "2".repeat(Mapping::LEN)), "{name}");
        let again = if place.keeps_times { 0 } else { 2 };
        assert_eq!(place.import(&cairn).0, again, "{name}: nothing was changed");
        place.mapping.store(b'3');
        place.mapping.store(b'4');
        let again = if place.keeps_times { 1 } else { 2 };
        assert_eq!(place.import(&cairn), (again, "4".repeat(Mapping::LEN)), "{name}");
        // So soon after a change it is not believed.
        place.mapping.store(b'5');
        assert_eq!(place.import(&cairn), (again, "5".repeat(Mapping::LEN)), "{name}");
    }
}
