//! Damaged and hostile input, through the program: a clear error and the right exit
//! code each, never a panic, and nothing is lost.
//!
//! What each kind of damage does is tested where it is read, in the crates `store`
//! and `package`; here it is that all of it arrives at the user as it should.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

#[path = "../package/tests/common/mod.rs"]
#[allow(dead_code, reason = "not every test uses everything")]
mod raw;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_store::BlobKey;
use cairn_tests::{Cairn, Deb, Listing, Mount, Need, Random, run};
use raw::{
    CONTENT, INDEX, LAYOUT, RawPayload, index_record, layout_record, meta, meta_records, stone,
};

const FAILED: i32 = 1;
const DAMAGED: i32 = 3;

/// A package of these payloads beside a Meta payload.
fn package(payloads: &[RawPayload]) -> Vec<u8> {
    stone(1, &[&[meta(&meta_records("crafted"))], payloads].concat())
}

fn layout(records: &[Vec<u8>]) -> RawPayload {
    RawPayload::plain(LAYOUT, records.len() as u32, records.concat())
}

/// A package with one file. Nothing in it is compressed, so that each of its bytes
/// says something.
fn small_stone(content: &[u8]) -> Vec<u8> {
    let key = *BlobKey::of(content).as_bytes();
    package(&[
        layout(&[layout_record(1, 0o100_755, &key, b"bin/crafted")]),
        RawPayload::plain(INDEX, 1, index_record(0, content.len() as u64, &key)),
        RawPayload::plain(CONTENT, 0, content.into()),
    ])
}

/// Calls `check` for each of `0..end`, on all cores.
fn in_parallel(end: usize, check: impl Fn(usize) + Sync) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 0..workers {
            let check = &check;
            scope.spawn(move || (first..end).step_by(workers).for_each(check));
        }
    });
}

/// Extracts a stone in a directory of its own. Returns what came of it, or the exit
/// code with the complaint.
fn extract(cairn: &Cairn, name: &str, stone: &[u8]) -> Result<Listing, (i32, String)> {
    let [file, out] = ["stone", "out"].map(|end| cairn.directory().join(format!("{name}.{end}")));
    fs::write(&file, stone).unwrap();
    let words = ["--quiet", "extract", "--to"].map(AsRef::as_ref);
    let ended = cairn.run(words.into_iter().chain([out.as_os_str(), file.as_os_str()]));
    let result = match ended.code() {
        Some(0) => {
            let mut listing = Listing::of_directory(&out);
            // That stone has no times.
            listing.0.values_mut().for_each(|entry| entry.mtime = None);
            Ok(listing)
        }
        Some(code @ (FAILED | DAMAGED)) => {
            assert!(ended.stderr.starts_with("cairn: "), "{name}: {}", ended.stderr);
            assert!(ended.stderr.contains(&format!("{name}.stone")), "{name}: {}", ended.stderr);
            Err((code, ended.stderr))
        }
        code => panic!("{name}: {code:?}: {}{}", ended.stdout, ended.stderr),
    };
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    fs::remove_file(&file).unwrap();
    result
}

#[test]
fn a_flipped_byte_of_a_stone_is_told_or_does_no_harm() {
    let cairn = Cairn::new();
    let good = small_stone(b"#!/bin/sh\necho crafted\n");
    let expected = extract(&cairn, "good", &good).unwrap();
    assert!(expected.0.contains_key(&b"usr/bin/crafted"[..]), "{expected:?}");
    in_parallel(good.len(), |at| {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        match extract(&cairn, &format!("flipped-{at}"), &bad) {
            Ok(found) => found.assert_same(&expected, &format!("byte {at}")),
            // What is covered by a checksum is known to be damage; of the rest, in the
            // prelude and the headers, a stone that was made wrong cannot be told apart.
            Err((code, complaint)) => {
                let is_body = at >= 32 && !is_in_header(&good, at);
                assert!(code == DAMAGED || !is_body, "{at}: {complaint}");
            }
        }
        let file = cairn.directory().join(format!("inspected-{at}"));
        fs::write(&file, &bad).unwrap();
        let inspected = cairn.run(["inspect".as_ref(), "--check".as_ref(), file.as_os_str()]);
        assert!(matches!(inspected.code(), Some(0 | FAILED | DAMAGED)), "{at}: {inspected:?}");
    });
}

/// Whether byte `at` of a stone belongs to the header of a payload.
fn is_in_header(stone: &[u8], at: usize) -> bool {
    let mut header = 32;
    while header < stone.len() {
        if (header..header + 32).contains(&at) {
            return true;
        }
        let size = stone[header..header + 8].try_into().unwrap();
        header += 32 + usize::try_from(u64::from_be_bytes(size)).unwrap();
    }
    false
}

#[test]
fn every_prefix_of_a_stone_is_an_error_and_installs_nothing() {
    let cairn = store();
    let good = small_stone(b"#!/bin/sh\necho crafted\n");
    in_parallel(good.len(), |len| {
        let name = format!("cut-{len}");
        let (code, complaint) = extract(&cairn, &name, &good[..len]).unwrap_err();
        // What does not even begin like a stone is not a damaged one.
        assert_eq!(code, if len < 32 { FAILED } else { DAMAGED }, "{len}: {complaint}");
        if len % 16 == 0 {
            let file = cairn.directory().join(format!("{name}.stone"));
            fs::write(&file, &good[..len]).unwrap();
            let words = ["--yes".as_ref(), "install".as_ref(), file.as_os_str()];
            let complaint = cairn.fails(code, words);
            assert!(complaint.contains(&name), "{complaint}");
        }
    });
    assert_eq!(cairn.current(), 2);
    cairn.data(["verify"]);
}

#[test]
fn hostile_paths_lead_nowhere() {
    let cairn = store();
    let outside = cairn.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("mine"), "mine").unwrap();
    let key = *BlobKey::of(b"evil").as_bytes();
    let file = |path: &[u8]| layout_record(1, 0o100_644, &key, path);
    let link = |path: &[u8], text: &[u8]| layout_record(2, 0o120_777, text, path);
    let absolute = outside.join("evil").into_os_string().into_encoded_bytes();
    let far = outside.to_str().unwrap();
    let cases: [(&str, Vec<Vec<u8>>); 9] = [
        ("climbs", vec![file(b"../../../../../../../../tmp/evil")]),
        ("climbs-within", vec![file(b"bin/../../evil")]),
        ("nul", vec![file(b"bin/a\0b")]),
        ("empty-name", vec![file(b"bin//evil")]),
        ("dot", vec![file(b"./evil")]),
        ("long-name", vec![file(&[b'n'; 256])]),
        ("twice", vec![file(b"bin/a"), file(b"bin/a")]),
        ("through-a-link", vec![link(b"way", far.as_bytes()), file(b"way/evil")]),
        ("through-a-later-link", vec![file(b"way/evil"), link(b"way", far.as_bytes())]),
    ];
    for (name, records) in &cases {
        let stone = package(&[
            layout(records),
            RawPayload::plain(INDEX, 1, index_record(0, 4, &key)),
            RawPayload::plain(CONTENT, 0, b"evil".into()),
        ]);
        let (code, complaint) = extract(&cairn, name, &stone).unwrap_err();
        assert_eq!(code, FAILED, "{name}: {complaint}");
        let path = cairn.directory().join(format!("{name}.stone"));
        fs::write(&path, &stone).unwrap();
        cairn.fails(FAILED, ["--yes".as_ref(), "install".as_ref(), path.as_os_str()]);
    }
    // A path from the root stays below the root of whoever unpacks it.
    let stone = package(&[
        layout(&[file(&absolute)]),
        RawPayload::plain(INDEX, 1, index_record(0, 4, &key)),
        RawPayload::plain(CONTENT, 0, b"evil".into()),
    ]);
    let extracted = extract(&cairn, "absolute", &stone).unwrap();
    assert!(extracted.0.contains_key(&absolute[1..]), "{extracted:?}");

    // Debian packages with the same in mind.
    for (name, member) in [("climbs", "../../evil"), ("climbs-later", "usr/../../../evil")] {
        let deb = hostile_deb(&cairn, name, member);
        let words = ["convert".as_ref(), deb.as_os_str(), "-o".as_ref(), "stones".as_ref()];
        let ended = cairn.run(words);
        assert_eq!(ended.code(), Some(FAILED), "{name}: {}{}", ended.stdout, ended.stderr);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was written outside");
    assert!(!Path::new("/tmp/evil").exists() && !cairn.directory().join("evil").exists());
    assert_eq!(cairn.current(), 2);
}

/// A Debian package whose one file has a path that libraries refuse to write.
fn hostile_deb(cairn: &Cairn, name: &str, member: &str) -> PathBuf {
    let placeholder = "x".repeat(member.len());
    let deb = Deb::new(name, "1-1").file(&placeholder, 0o644, "evil");
    let path = deb.write(&cairn.directory().join("hostile"));
    let mut bytes = fs::read(&path).unwrap();
    let find = |bytes: &[u8]| {
        let mut names = bytes.windows(member.len());
        names.position(|window| window == placeholder.as_bytes()).expect("the name is there")
    };
    let at = find(&bytes);
    bytes[at..at + member.len()].copy_from_slice(member.as_bytes());
    // The sum of the header's bytes, with spaces where it stands itself: 6 octal digits.
    let header = &mut bytes[at..at + 512];
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    fs::write(&path, bytes).unwrap();
    path
}

/// Runs `cairn WORDS` with little memory: what believes a number from outside fails
/// with it, or is killed.
fn with_little_memory(cairn: &Cairn, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 1500000 && exec \"$@\"", "sh"]);
    let ended =
        cairn.settle(command.arg(cairn.program()).arg("--quiet").args(words)).output().unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[test]
fn absurd_counts_and_sizes_cost_nothing_but_an_error() {
    let cairn = Cairn::new();
    let good = small_stone(b"content");
    // Where the payload after Meta begins.
    let meta_size = u64::from_be_bytes(good[32..40].try_into().unwrap()) as usize;
    let next = 64 + meta_size;
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    let huge = u64::MAX.to_be_bytes();
    let cases = [
        ("payloads", with(4, &[0xff; 2])),
        ("stored-meta", with(32, &huge)),
        ("plain-meta", with(40, &huge)),
        ("records-meta", with(56, &[0xff; 4])),
        ("stored-layout", with(next, &huge)),
        ("stored-layout-wraps", with(next, &(u64::MAX - next as u64).to_be_bytes())),
        ("plain-layout", with(next + 8, &huge)),
        ("records-layout", with(next + 24, &[0xff; 4])),
        ("plain-content", with(good.len() - 7 - 24, &(1_u64 << 62).to_be_bytes())),
    ];
    for (name, bad) in &cases {
        let path = cairn.directory().join(format!("{name}.stone"));
        fs::write(&path, bad).unwrap();
        let file = path.to_str().unwrap();
        for words in [&["extract", file, "--to", "out"][..], &["--yes", "install", file]] {
            let (code, said) = with_little_memory(&cairn, words);
            // A size of Meta is a hint: some writers count too much.
            let is_hint = *name == "plain-meta";
            let is_told = matches!(code, Some(FAILED | DAMAGED)) && said.starts_with("cairn: ");
            assert!(is_told || is_hint && code == Some(0), "{name}: {words:?}: {code:?}: {said}");
        }
        let _ = fs::remove_dir_all(cairn.directory().join("out"));
    }
}

#[test]
fn a_decompression_bomb_ends_at_its_limit() {
    let cairn = store();
    let zeros = vec![0; 64 << 20];
    // 16 GiB in about a MiB, announced as little, and as much.
    let frame = zstd::bulk::compress(&zeros, 3).unwrap().repeat(256);
    let key = *BlobKey::of(&[0; 4096]).as_bytes();
    let entry = || layout(&[layout_record(1, 0o100_644, &key, b"bomb")]);
    let index = |size: u64| RawPayload::plain(INDEX, 1, index_record(0, size, &key));
    let content = |size: u64| RawPayload::frames(CONTENT, 0, size, frame.clone());
    let cases = [
        ("layout", package(&[RawPayload::frames(LAYOUT, 1, 43, frame.clone())])),
        ("layout-told", package(&[RawPayload::frames(LAYOUT, 1, 16 << 30, frame.clone())])),
        ("content", package(&[entry(), index(4096), content(4096)])),
        ("content-of-index", package(&[entry(), index(4096), content(16 << 30)])),
    ];
    for (name, bomb) in &cases {
        let path = cairn.directory().join(format!("{name}.stone"));
        fs::write(&path, bomb).unwrap();
        let file = path.to_str().unwrap();
        for words in [&["extract", file, "--to", "out"][..], &["--yes", "install", file]] {
            let (code, said) = with_little_memory(&cairn, words);
            let is_told = matches!(code, Some(FAILED | DAMAGED)) && said.starts_with("cairn: ");
            assert!(is_told, "{name}: {words:?}: {code:?}: {said}");
        }
        let left = cairn.directory().join("out");
        let _ = fs::remove_dir_all(left);
    }
    assert_eq!(cairn.current(), 2);
}

/// A store with two states: 1 has the package base, 2 has app, too.
fn store() -> Cairn {
    let cairn = Cairn::new();
    let base = Deb::new("base", "1-1").file("usr/bin/base", 0o755, "#!/bin/sh\n").file(
        "usr/share/base/data",
        0o644,
        Random(5).bytes(90_000),
    );
    let app = Deb::new("app", "1-1")
        .field("Depends", "base")
        .file("usr/bin/app", 0o755, "#!/bin/sh\necho app\n")
        .file("usr/share/app/large", 0o644, Random(6).bytes(1_500_000));
    cairn.offer([base, app]);
    cairn.data(["--yes", "install", "base"]);
    cairn.data(["--yes", "install", "app"]);
    cairn
}

/// Packs of the store, the largest first.
fn packs(cairn: &Cairn) -> Vec<PathBuf> {
    let entries = fs::read_dir(cairn.store().join("packs")).unwrap();
    let mut packs: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    packs.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    packs
}

/// What the commands that only look say of the store: exit code and words.
fn looks(cairn: &Cairn) -> Vec<(Option<i32>, String, String)> {
    let large = "/usr/share/app/large";
    let commands: [&[&str]; 6] = [
        &["state", "list"],
        &["state", "show", "1"],
        &["state", "diff", "1", "2"],
        &["ls", "-lR", "2:/"],
        &["cat", "1:/usr/bin/base"],
        &["--json", "ls", large],
    ];
    let look = |words: &&[&str]| {
        let ended = cairn.run(*words);
        (ended.code(), ended.stdout, ended.stderr)
    };
    commands.iter().map(look).collect()
}

#[test]
fn a_damaged_pack_is_told_with_what_it_affects_and_the_rest_goes_on() {
    let cairn = store();
    let before = looks(&cairn);
    let pack = packs(&cairn).remove(0);
    let whole = fs::read(&pack).unwrap();
    let harms: [(&str, Option<Vec<u8>>); 5] = [
        ("flipped", Some(changed(&whole, whole.len() / 2, 0x20))),
        ("flipped at its beginning", Some(changed(&whole, 0, 0x20))),
        ("flipped at its end", Some(changed(&whole, whole.len() - 1, 0x20))),
        ("cut", Some(whole[..whole.len() / 3].to_vec())),
        ("gone", None),
    ];
    for (harm, bytes) in harms {
        match bytes {
            Some(bytes) => fs::write(&pack, bytes).unwrap(),
            None => fs::remove_file(&pack).unwrap(),
        }
        let verified = cairn.run(["verify"]);
        assert_eq!(verified.code(), Some(DAMAGED), "{harm}: {}", verified.stdout);
        let affected = verified.stdout.contains("  2:/usr/share/app/large\n");
        // The end of a pack says what it holds, which the index knows as well.
        assert!(affected || harm.starts_with("flipped at"), "{harm}: {}", verified.stdout);
        assert!(!verified.stdout.contains("1:/"), "{harm}: {}", verified.stdout);
        assert!(cairn.data(["verify", "1"]).ends_with(", 1 state walked: no damage.\n"), "{harm}");
        assert_eq!(cairn.run(["verify", "1", "current"]).code(), Some(DAMAGED), "{harm}");
        assert_eq!(looks(&cairn), before, "{harm}: what is not in the pack is there");
        if affected {
            let complaint = cairn.fails(DAMAGED, ["cat", "2:/usr/share/app/large"]);
            assert!(complaint.ends_with("help: cairn verify tells what is affected\n"), "{harm}");
        }
        // The store goes on: states without the damage come, and are current.
        cairn.data(["--yes", "remove", "app"]);
        assert_eq!(cairn.installed().len(), 1, "{harm}");
        cairn.data(["switch", "2"]);
        fs::write(&pack, &whole).unwrap();
        let verified = cairn.data(["verify"]);
        assert!(verified.ends_with(": no damage.\n"), "{harm}: {verified}");
        let newest = cairn.json(["state", "list"])[0]["state"].as_u64().unwrap();
        cairn.data(["--yes", "state", "remove", &newest.to_string()]);
    }
}

#[test]
fn what_only_a_workspace_or_a_mount_has_is_verified_and_repaired() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = store();
    let sound = cairn.directory().join("sound");
    run(Command::new("cp").arg("-a").args([&cairn.store(), &sound]));
    Mount::new(&cairn, &["--rw", "work", "--state", "2"], "place").umount();
    cairn.data(["switch", "1"]);
    let mount = Mount::new(&cairn, &["--state", "2"], "mount");
    cairn.data(["--yes", "state", "remove", "2"]);
    let place = mount.path().display().to_string();
    let check = |by: serde_json::Value, shown: &str| {
        fs::remove_file(packs(&cairn).remove(0)).unwrap();
        assert_eq!(cairn.run(["verify", "1"]).code(), Some(0));
        let verified = cairn.run(["verify"]);
        assert_eq!(verified.code(), Some(DAMAGED), "{}", verified.stdout);
        let line = format!("  {shown}:/usr/share/app/large\n");
        assert!(verified.stdout.contains(&line), "{line}: {}", verified.stdout);
        let verified: serde_json::Value =
            serde_json::from_str(&cairn.run(["--json", "verify"]).stdout).unwrap();
        let damage = verified["damage"].as_array().unwrap();
        let affected = damage.iter().find_map(|damage| damage["affects"].get(0)).unwrap();
        let (key, name) = by.as_object().unwrap().iter().next().unwrap();
        assert_eq!(affected[key], *name, "{verified}");
        let words = ["verify", "--repair", "--from", sound.to_str().unwrap()];
        let repaired = cairn.json(words);
        assert_eq!(repaired["repair"]["missing"], serde_json::json!([]), "{repaired}");
        assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
    };
    check(serde_json::json!({ "workspace": "work" }), "workspace work");
    cairn.data(["--yes", "workspace", "discard", "work"]);
    check(serde_json::json!({ "mount": place }), &format!("mount {place}"));
    drop(mount);
}

#[test]
fn a_state_that_is_verified_is_repaired_if_it_needs_that() {
    let cairn = store();
    let pack = packs(&cairn).remove(0);
    let sound = cairn.directory().join("sound");
    run(Command::new("cp").arg("-a").args([&cairn.store(), &sound]));
    fs::remove_file(&pack).unwrap();
    let words = |state| ["verify", "--repair", "--from", sound.to_str().unwrap(), state];
    assert_eq!(cairn.json(words("1"))["repair"], serde_json::Value::Null);
    assert_eq!(cairn.run(["verify"]).code(), Some(DAMAGED));
    let repaired = cairn.json(words("2"));
    let of_source = &repaired["repair"]["restored"][sound.to_str().unwrap()];
    assert!(of_source.as_u64().unwrap() > 0, "{repaired}");
    assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
}

fn changed(bytes: &[u8], at: usize, bits: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= bits;
    bytes
}

#[test]
fn a_damaged_file_is_an_error_in_a_mount_and_all_others_are_read() {
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let cairn = store();
    let pack = packs(&cairn).remove(0);
    let whole = fs::read(&pack).unwrap();
    fs::write(&pack, changed(&whole, whole.len() / 2, 1)).unwrap();
    let root = Mount::new(&cairn, &["--follow"], "root");
    let err = fs::read(root.join("/usr/share/app/large")).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
    assert_eq!(fs::read(root.join("/usr/bin/app")).unwrap(), b"#!/bin/sh\necho app\n");
    assert_eq!(fs::read(root.join("/usr/share/base/data")).unwrap(), Random(5).bytes(90_000));
    let log = fs::read_to_string(cairn.store().join("run/mount.log")).unwrap();
    let name = pack.file_stem().unwrap().to_str().unwrap();
    assert!(log.contains(name), "the log names the object: {log}");
    drop(root);
    fs::write(&pack, whole).unwrap();
    let root = Mount::new(&cairn, &["--follow"], "root");
    assert_eq!(fs::read(root.join("/usr/share/app/large")).unwrap(), Random(6).bytes(1_500_000));
}

#[test]
fn a_damaged_index_is_made_anew_by_whoever_meets_it() {
    let cairn = store();
    let before = looks(&cairn);
    let index = cairn.store().join("index");
    let saved = cairn.directory().join("saved");
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy(&index, &saved);
    let files = fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<_> = files.collect();
    assert!(files.len() > 3, "{files:?}");
    for file in &files {
        let path = index.join(file);
        let whole = fs::read(saved.join(file)).unwrap();
        let noise = Random(9).bytes(whole.len().max(100));
        for (harm, bytes) in [
            ("empty", Some(Vec::new())),
            ("gone", None),
            ("cut", Some(whole[..whole.len() / 2].to_vec())),
            ("noise", Some(noise)),
        ] {
            copy(&saved, &index);
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let what = format!("{} {harm}", file.display());
            assert_eq!(looks(&cairn), before, "{what}");
            copy(&saved, &index);
            match harm {
                "gone" => fs::remove_file(&path).unwrap(),
                _ => fs::write(&path, &whole[..whole.len() / 3]).unwrap(),
            }
            // Also by a writer.
            cairn.data(["state", "tag", "kept", "1"]);
            cairn.data(["--yes", "remove", "app"]);
            cairn.data(["rollback"]);
            let newest = cairn.json(["state", "list"])[0]["state"].as_u64().unwrap();
            cairn.data(["--yes", "state", "remove", &newest.to_string()]);
            cairn.data(["state", "untag", "kept"]);
            let verified = cairn.data(["verify"]);
            assert!(verified.ends_with(": no damage.\n"), "{what}: {verified}");
        }
    }
    fs::remove_dir_all(&index).unwrap();
    assert_eq!(looks(&cairn), before, "without any index");
}

#[test]
fn damaged_refs_are_told_and_left_as_they_are() {
    let cairn = store();
    let log = cairn.store().join("refs/log");
    let whole = fs::read(&log).unwrap();
    let before = looks(&cairn);
    for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
        let bad = changed(&whole, at, 4);
        fs::write(&log, &bad).unwrap();
        let looked = cairn.run(["state", "show", "1"]);
        let installed = cairn.run(["--yes", "remove", "app"]);
        // Only an end that was never finished is passed over in silence, and then
        // the index remembers that there was more.
        assert_eq!(installed.code(), Some(DAMAGED), "{at}: {}", installed.stderr);
        assert!(installed.stderr.contains("refs/log"), "{at}: {}", installed.stderr);
        let is_told = looked.code() == Some(0) || looked.stderr.contains("refs/log");
        assert!(is_told || looked.stderr.contains("state"), "{at}: {}", looked.stderr);
        assert_eq!(fs::read(&log).unwrap(), bad, "{at}: the log was changed");
    }
    fs::write(&log, &whole).unwrap();
    assert_eq!(looks(&cairn), before);

    let format = cairn.store().join("format");
    let known = fs::read(&format).unwrap();
    for text in ["", "cairn store 999\n", "\u{fe}\0"] {
        fs::write(&format, text).unwrap();
        for words in [&["state", "list"][..], &["--yes", "remove", "app"], &["verify"]] {
            let complaint = cairn.fails(FAILED, words);
            assert!(complaint.contains("help: "), "{complaint}");
        }
    }
    fs::write(&format, known).unwrap();
    assert_eq!(looks(&cairn), before);
}
