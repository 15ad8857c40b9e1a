//! `cairn mount --passthrough`, as its users see it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;

use cairn_tests::ordinary::{as_user, give_to_user};
use cairn_tests::{Cairn, Mount, Need, Random, signal};

const LARGE: usize = 300 << 10;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Random(seed).bytes(len)
}

/// A store with a state that has a large file and a small one, for each seed.
fn with_states(seeds: &[u64]) -> Cairn {
    let cairn = Cairn::new();
    let tree = cairn.directory().join("tree");
    fs::create_dir(&tree).unwrap();
    for seed in seeds {
        fs::write(tree.join("large"), noise(*seed, LARGE)).unwrap();
        fs::write(tree.join("small"), "text").unwrap();
        cairn.data([Path::new("import"), Path::new("--switch"), &tree]);
    }
    cairn
}

fn plain_files(cairn: &Cairn) -> usize {
    fs::read_dir(cairn.store().join("plain")).map_or(0, Iterator::count)
}

#[test]
fn a_mount_with_passthrough_says_so_and_is_told_of() {
    if !Need::all(&[Need::Fuse, Need::Root, Need::Passthrough]) {
        return;
    }
    let cairn = with_states(&[1]);
    for (arguments, name) in [
        (&["--follow", "--passthrough"][..], "follow"),
        (&["--state", "1", "--passthrough"], "state"),
        (&["--passthrough"], "all"),
        (&["-o", "follow,passthrough"], "options"),
    ] {
        let mount = Mount::new(&cairn, arguments, name);
        let below = if name == "all" { "states/1/" } else { "" };
        assert_eq!(fs::read(mount.join(&format!("{below}large"))).unwrap(), noise(1, LARGE));
        let listed = cairn.json(["mount"]);
        assert_eq!(listed[0]["passthrough"], true, "{name}: {listed}");
        let stats = cairn.json([Path::new("stats"), mount.path()]);
        let passed = &stats["passthrough"];
        assert_eq!((&passed["opens"], &passed["fallbacks"]), (&1.into(), &0.into()), "{stats}");
        assert_eq!((&passed["backing_ids"], &stats["bytes_read"]), (&1.into(), &0.into()));
        let stats = cairn.data([Path::new("stats"), mount.path()]);
        assert!(stats.contains("Opened with passthrough  1, and 0 that could not"), "{stats}");
        assert!(cairn.data(["mount"]).contains(", with passthrough"));
        mount.umount();
    }
    assert_eq!(plain_files(&cairn), 1);
    let freed = cairn.data(["gc"]);
    assert!(
        freed.contains("of plain copies for passthrough that no mount needs: 1 file."),
        "{freed}"
    );
    assert_eq!(plain_files(&cairn), 0);
}

#[test]
fn a_workspace_is_not_mounted_with_passthrough() {
    let cairn = with_states(&[1]);
    let place = cairn.directory().join("place");
    fs::create_dir(&place).unwrap();
    let place = place.to_str().unwrap();
    let told = cairn.fails(2, ["mount", "--rw", "web", "--passthrough", place]);
    assert!(told.contains("--passthrough"), "{told}");
    let told = cairn.fails(2, ["mount", "--rw", "web", "-o", "passthrough", place]);
    assert!(told.contains("passthrough and workspace do not go together"), "{told}");
}

#[test]
fn a_switch_a_killed_process_and_a_collection_change_nothing_for_who_reads() {
    if !Need::all(&[Need::Fuse, Need::Root, Need::Passthrough]) {
        return;
    }
    let cairn = with_states(&[1, 2]);
    let mount = Mount::new(&cairn, &["--follow", "--passthrough"], "root");
    let large = mount.join("large");
    let open = fs::File::open(&large).unwrap();
    let process = mount.process();
    signal(process, libc::SIGKILL).unwrap();
    for state in [1, 2, 1] {
        cairn.data(["switch", &state.to_string()]);
        assert_eq!(fs::read(&large).unwrap(), noise(state, LARGE), "state {state}");
        cairn.data(["gc"]);
        assert_eq!(fs::read(&large).unwrap(), noise(state, LARGE), "state {state}");
    }
    let mut still = vec![0; LARGE];
    std::os::unix::fs::FileExt::read_exact_at(&open, &mut still, 0).unwrap();
    assert_eq!(still, noise(2, LARGE));
    assert_ne!(mount.process(), process);
    drop(open);
    mount.umount();
}

#[test]
fn an_ordinary_user_gets_a_mount_without_and_is_told_why() {
    let fusermount = Need::Program("fusermount3", "fuse3");
    if !Need::all(&[Need::Fuse, Need::Root, fusermount]) {
        return;
    }
    let cairn = Cairn::new();
    for path in ["", "tree", "place"].map(|name| cairn.directory().join(name)) {
        fs::create_dir_all(&path).unwrap();
        give_to_user(&path);
    }
    let large = cairn.directory().join("tree/large");
    fs::write(&large, noise(1, LARGE)).unwrap();
    let told = as_user(
        &cairn,
        r"
        c import tree >said
        user 65534 ./cairn mount --follow --passthrough place 2>warning >said
        grep -c 'warning: large files are read through the process of the mount' warning
        grep -c 'Operation not permitted' warning
        grep -c 'The kernel reads large files by itself' said || true
        user 65534 cmp tree/large place/large && echo same
        c stats place | grep -c 'Opened with passthrough' || true
        c stats place | grep -cw open || true
        c --json mount | grep -c passthrough_refused
        ls store/plain 2>/dev/null || echo nothing is expanded
        c umount place >said
        ",
    );
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines, ["1", "1", "0", "same", "0", "0", "1", "nothing is expanded"]);
}
