//! The menu of a boot loader offers what is current and what was.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cairn_tests::{Cairn, Change, Fault, Need, Random};

/// What each state has, as paths with the seeds of their bytes, and its texts.
struct Root {
    noise: &'static [(&'static str, u64)],
    texts: &'static [(&'static str, &'static str)],
}

const OS: &str = "ID=tiny\nPRETTY_NAME=\"Tiny\"\n";

/// Three layouts of kernels; the second and the third have the same one.
const ROOTS: [Root; 3] = [
    Root {
        noise: &[
            ("usr/lib/kernel/6.9.1-5.desktop/vmlinuz", 1),
            ("usr/lib/kernel/6.9.1-5.desktop/10-a.initrd", 2),
            ("usr/lib/kernel/6.9.1-5.desktop/20-b.initrd", 3),
            ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", 4),
        ],
        texts: &[
            ("usr/lib/os-release", OS),
            ("usr/lib/kernel/6.9.1-5.desktop/own.cmdline", "# of this kernel\nquiet\n"),
            ("usr/lib/kernel/cmdline.d/10-all.cmdline", "  splash\nloglevel=3"),
        ],
    },
    Root {
        noise: &[("boot/vmlinuz-6.10.0-1-amd64", 5), ("boot/initrd.img-6.10.0-1-amd64", 6)],
        texts: &[("etc/os-release", OS)],
    },
    Root {
        noise: &[
            ("boot/vmlinuz-6.10.0-1-amd64", 5),
            ("boot/initrd.img-6.10.0-1-amd64", 6),
            ("usr/lib/modules/6.9.1/vmlinuz", 7),
        ],
        texts: &[("etc/os-release", OS), ("usr/lib/os-release", "ID=other\n")],
    },
];

fn bytes(seed: u64) -> Vec<u8> {
    Random(seed).bytes(150_000)
}

/// A store with a state for each of [`ROOTS`], and the directory of a boot loader.
fn store() -> (Cairn, PathBuf) {
    let cairn = Cairn::new();
    for (number, root) in ROOTS.iter().enumerate() {
        let tree = cairn.directory().join(format!("tree {number}"));
        let put = |path: &str, bytes: &[u8]| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        root.noise.iter().for_each(|(path, seed)| put(path, &bytes(*seed)));
        root.texts.iter().for_each(|(path, text)| put(path, text.as_bytes()));
        cairn.data([Path::new("import"), &tree]);
    }
    cairn.data(["switch", "3"]);
    let esp = cairn.directory().join("esp");
    fs::create_dir(&esp).unwrap();
    (cairn, esp)
}

fn sync<'a>(esp: &'a Path, word: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["boot", word, "--cmdline", "root=LABEL=x rw", "--esp", esp.to_str().unwrap()];
    [&words[..], more].concat()
}

/// Each entry by its name: its lines, by their keys.
fn entries(esp: &Path) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(esp.join("loader/entries")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("cairn-") || !name.ends_with(".conf") {
            continue;
        }
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let (key, value) = line.split_once(' ').unwrap();
            keys.entry(key.into()).or_default().push(value.into());
        }
        all.insert(name, keys);
    }
    all
}

/// Checks that all entries name files that are there as a whole; returns what they start.
fn started(esp: &Path) -> BTreeSet<(String, Vec<Vec<u8>>)> {
    let file = |path: &String| fs::read(esp.join(path.trim_start_matches('/'))).unwrap();
    let whole: Vec<Vec<u8>> = (1..8).map(bytes).collect();
    entries(esp)
        .into_iter()
        .map(|(name, keys)| {
            let initrds = keys.get("initrd").into_iter().flatten();
            let files: Vec<Vec<u8>> = keys["linux"].iter().chain(initrds).map(file).collect();
            assert!(files.iter().all(|file| whole.contains(file)), "{name}");
            (name, files)
        })
        .collect()
}

#[test]
fn each_state_can_be_started_with_the_kernels_that_it_has() {
    let (cairn, esp) = store();
    fs::create_dir_all(esp.join("loader/entries")).unwrap();
    fs::write(esp.join("loader/entries/windows.conf"), "title Other\n").unwrap();
    fs::write(esp.join("loader/loader.conf"), "timeout 3\ndefault @saved\n").unwrap();
    let before = cairn.json(sync(&esp, "status", &[]));
    assert_eq!(
        (&before["synced"], before["entries"].as_array().unwrap().len()),
        (&false.into(), 4)
    );
    assert!(entries(&esp).is_empty(), "to look changes nothing");
    assert_eq!(cairn.json(sync(&esp, "sync", &["-n"])), before);

    let told = cairn.data(sync(&esp, "sync", &[]));
    let first = told.lines().find(|line| line.starts_with("current ")).unwrap();
    let first: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(first, ["current", "6.10.0-1-amd64", "root=LABEL=x", "rw"], "{told}");
    let expected = [
        ("cairn-tiny-current-6.10.0-1-amd64.conf", vec![bytes(5), bytes(6)]),
        ("cairn-tiny-current-6.9.1.conf", vec![bytes(7)]),
        ("cairn-tiny-00000002-6.10.0-1-amd64.conf", vec![bytes(5), bytes(6)]),
        ("cairn-tiny-00000001-6.9.1-5.desktop.conf", vec![bytes(1), bytes(2), bytes(3)]),
    ];
    let expected = expected.map(|(name, files)| (name.to_owned(), files));
    assert_eq!(started(&esp), expected.into_iter().collect());
    let all = entries(&esp);
    let first = &all["cairn-tiny-00000001-6.9.1-5.desktop.conf"];
    assert_eq!(first["options"], ["root=LABEL=x rw cairn.state=1 quiet splash loglevel=3"]);
    assert!(first["title"][0].starts_with("Tiny (6.9.1-5.desktop), state 1: import "), "{first:?}");
    assert_eq!(all["cairn-tiny-current-6.9.1.conf"]["options"], ["root=LABEL=x rw"]);
    let settings = || fs::read_to_string(esp.join("loader/loader.conf")).unwrap();
    assert_eq!(settings(), "default cairn-tiny-current-6.10.0-1-amd64.conf\ntimeout 3\n");
    // What two states have in common lies there once.
    let kernels = fs::read_dir(esp.join("cairn/6.10.0-1-amd64")).unwrap().count();
    assert_eq!(kernels, 2);
    let again = cairn.json(sync(&esp, "sync", &[]));
    assert_eq!(
        (&again["write"], &again["remove"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );

    // An older state becomes current, and a file of the partition is damaged.
    let damaged = esp.join("cairn/6.9.1-5.desktop");
    let damaged = fs::read_dir(damaged).unwrap().next().unwrap().unwrap().path();
    fs::write(&damaged, vec![0; 150_000]).unwrap();
    fs::create_dir_all(esp.join("EFI/BOOT")).unwrap();
    fs::write(esp.join("EFI/BOOT/BOOTX64.EFI"), "of somebody else").unwrap();
    cairn.data(["switch", "1"]);
    let done = cairn.json(sync(&esp, "sync", &["--older", "0"]));
    assert!(
        done["write"].as_array().unwrap().contains(&damaged.to_str().unwrap().into()),
        "{done}"
    );
    let names: Vec<String> = started(&esp).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["cairn-tiny-current-6.9.1-5.desktop.conf"]);
    assert!(settings().starts_with("default cairn-tiny-current-6.9.1-5.desktop.conf\n"));
    assert_eq!(fs::read(esp.join("EFI/systemd/systemd-bootx64.efi")).unwrap(), bytes(4));
    assert_eq!(fs::read(esp.join("EFI/BOOT/BOOTX64.EFI")).unwrap(), b"of somebody else");
    assert!(!esp.join("cairn/6.10.0-1-amd64").exists(), "nothing names it any more");
    assert!(esp.join("loader/entries/windows.conf").exists());
}

#[test]
fn what_cannot_be_is_said_before_anything_is_written() {
    let (cairn, esp) = store();
    let nowhere = cairn.directory().join("nowhere");
    let complaint = cairn.fails(1, sync(&nowhere, "sync", &[]));
    assert!(
        complaint.contains("there is no directory") && complaint.contains("mkdir"),
        "{complaint}"
    );
    let empty = cairn.directory().join("empty");
    fs::create_dir(&empty).unwrap();
    cairn.data([Path::new("import"), &empty]);
    cairn.data(["switch", "4"]);
    let complaint = cairn.fails(1, sync(&esp, "sync", &["--older", "0"]));
    assert!(complaint.contains("no state has a kernel"), "{complaint}");
    assert_eq!(fs::read_dir(&esp).unwrap().count(), 0);
    // Without a kernel of its own what is current cannot be started; others can.
    let menu = cairn.json(sync(&esp, "sync", &["--older", "1"]));
    assert_eq!(menu["entries"][0]["state"], 3);
}

#[test]
fn the_state_that_was_chosen_in_the_menu_becomes_current() {
    let (cairn, _) = store();
    let file = cairn.directory().join("cmdline");
    let begin = |line: &str| {
        fs::write(&file, line).unwrap();
        cairn.run(["boot", "switch", "--cmdline", file.to_str().unwrap()])
    };
    assert_eq!(begin("root=LABEL=x rw quiet\n").code(), Some(0));
    assert_eq!(cairn.current(), 3);
    assert_eq!(begin("root=LABEL=x rw cairn.state=2 quiet\n").code(), Some(0));
    assert_eq!(cairn.current(), 2);
    for (line, what) in [("cairn.state=9", "9"), ("cairn.state=../x", "does not name a state")] {
        let ended = begin(line);
        assert_eq!((ended.code(), cairn.current()), (Some(1), 2), "{line}");
        assert!(ended.stderr.contains(what), "{}", ended.stderr);
    }
}

#[test]
fn whatever_interrupts_it_what_the_menu_offers_can_be_started() {
    if !Need::all(&[Need::Program("strace", "strace")]) {
        return;
    }
    let (cairn, esp) = store();
    let words: Vec<String> =
        sync(&esp, "sync", &["--older", "1"]).iter().map(ToString::to_string).collect();
    // The partition is that of state 1, and state 3 is current.
    let prepare = || {
        let _ = fs::remove_dir_all(&esp);
        fs::create_dir(&esp).unwrap();
        cairn.data(["switch", "1"]);
        cairn.data(sync(&esp, "sync", &[]));
        cairn.data(["switch", "3"]);
    };
    prepare();
    let changes = Change::all(&cairn, &words);
    let of_esp = changes.iter().filter(|change| Path::new(&change.path).starts_with(&esp));
    assert!(of_esp.clone().count() > 20, "{changes:?}");
    for change in of_esp {
        prepare();
        change.replaced(&cairn, &words, Fault::Kill);
        assert!(!started(&esp).is_empty(), "{change:?}");
        cairn.data(&words);
        assert_eq!(started(&esp).len(), 3, "{change:?}");
        let names = fs::read_dir(esp.join("loader/entries")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.all(|name| name.ends_with(".conf")), "{change:?}");
    }
}
