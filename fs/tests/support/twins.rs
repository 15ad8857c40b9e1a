//! The same things done in two directories, of which both have to give the same.

#![allow(clippy::cast_possible_truncation, reason = "numbers are small, or any will do")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::sys;

/// What a call gave, to compare with what it gave elsewhere.
type Given = Result<Vec<u8>, Option<i32>>;

/// Does `count` things in `mount` and in `plain`, which have the same in them.
///
/// # Panics
/// When a call gives something else in one than in the other.
pub fn do_alike(mount: &Path, plain: &Path, seed: u64, count: usize) {
    let mut random = seed;
    let mut next = move |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    for step in 0..count {
        let paths: Vec<PathBuf> = see(plain).into_keys().collect();
        let path = paths[next(paths.len())].clone();
        let other = paths[next(paths.len())].clone();
        let name = ["a", "b", "c", "d", "e", "f"][next(6)];
        let numbers = [next(16), next(9), next(300_000), next(64)];
        // The directory itself stays.
        if path.as_os_str().is_empty() && matches!(numbers[0], 4 | 5 | 8 | 9) {
            continue;
        }
        let call = |root: &Path| -> Given {
            let [kind, mode, size, small] = numbers;
            let given = act(kind, &root.join(&path), &root.join(&other), name, (mode, size, small));
            given.map_err(|err| err.raw_os_error())
        };
        let given = call(mount);
        let what = format!("seed {seed}, step {step}: {numbers:?} {path:?} {other:?} {name}");
        if given == Err(Some(libc::EXDEV)) {
            // A directory of the state, which mv(1) copies.
            assert_eq!(numbers[0], 5, "{what}");
            continue;
        }
        assert_eq!(call(plain), given, "{what}");
    }
    assert_alike(mount, plain, &format!("seed {seed}"));
}

fn act(
    kind: usize,
    path: &Path,
    other: &Path,
    name: &str,
    (mode, size, small): (usize, usize, usize),
) -> io::Result<Vec<u8>> {
    let bytes: Vec<u8> = (0..size).map(|at| (at * (small + 1) % 251) as u8).collect();
    let (near, far) = (path.join(name), other.join(name));
    let data = fs::symlink_metadata(path)?;
    let done = |result: io::Result<()>| result.map(|()| Vec::new());
    match kind {
        0 => done(fs::write(near, &bytes)),
        1 => done(File::options().append(true).open(path)?.write_all(&bytes[..size.min(99)])),
        2 => done(File::options().write(true).open(path)?.set_len(size as u64)),
        3 => done(File::options().write(true).open(path)?.write_all_at(&bytes, size as u64 / 3)),
        4 => {
            let modes = if data.is_dir() {
                [0o755, 0o700, 0o1777, 0o755, 0o2755, 0o555, 0o755, 0o711, 0o750]
            } else {
                [0o644, 0o600, 0o4755, 0o444, 0o2755, 0o755, 0o640, 0o666, 0o400]
            };
            done(fs::set_permissions(path, Permissions::from_mode(modes[mode])))
        }
        5 => done(fs::rename(path, far)),
        6 if !data.is_dir() => done(fs::hard_link(path, far)),
        7 => done(symlink(format!("to/{small}"), near)),
        8 => done(fs::remove_file(path)),
        9 => done(fs::remove_dir(path)),
        10 => done(fs::create_dir(near)),
        11 => {
            let time = SystemTime::UNIX_EPOCH + Duration::new(size as u64, small as u32);
            let file = File::open(path)?;
            file.set_modified(time)?;
            let seen = fs::metadata(path)?;
            Ok(format!("{} {}", seen.mtime(), seen.mtime_nsec()).into_bytes())
        }
        12 if !data.is_symlink() => {
            sys::set_xattr(path, "user.note", &bytes[..small])?;
            sys::xattr(path, "user.note")
        }
        13 => {
            // With a hole, and read back through the same descriptor.
            let mut file =
                File::options().read(true).write(true).create_new(true).mode(0o640).open(near)?;
            file.write_all_at(&bytes[..size.min(5000)], 1 << 20)?;
            file.seek(SeekFrom::Start((1 << 20) - 10))?;
            let mut read = Vec::new();
            file.read_to_end(&mut read)?;
            Ok(read)
        }
        14 => {
            // Another descriptor sees what is written after it was opened, and the file is
            // there until it is closed.
            let mut before = File::open(path)?;
            if data.is_file() {
                let after = File::options().write(true).open(path)?;
                after.write_all_at(b"over", small as u64)?;
                fs::remove_file(path)?;
            }
            let mut read = Vec::new();
            before.read_to_end(&mut read)?;
            Ok(read)
        }
        15 if data.is_file() => fs::copy(path, far).map(|len| len.to_le_bytes().into()),
        _ => fs::read(path),
    }
}

/// What can be seen of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    size: u64,
    bytes: Vec<u8>,
    note: Option<Vec<u8>>,
    /// The first of its names, if it has several.
    linked: Option<PathBuf>,
}

/// Compares two directories with all in them.
///
/// # Panics
/// When they differ.
pub fn assert_alike(left: &Path, right: &Path, what: &str) {
    let (left, right) = (see(left), see(right));
    let names = |seen: &BTreeMap<PathBuf, Seen>| seen.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&left), names(&right), "{what}");
    for (path, seen) in &left {
        let other = &right[path];
        let is_same = seen == other;
        let shown = |it: &Seen| (it.mode, it.size, it.note.clone(), it.linked.clone());
        assert!(is_same, "{what}: {}: {:?} {:?}", path.display(), shown(seen), shown(other));
    }
}

fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut links: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(relative) = waiting.pop() {
        let path = root.join(&relative);
        let data = fs::symlink_metadata(&path).unwrap();
        let bytes = if data.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
            waiting.extend(entries.map(|name| relative.join(name)));
            Vec::new()
        } else if data.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        if !data.is_dir() && data.nlink() > 1 {
            links.entry(data.ino()).or_default().push(relative.clone());
        }
        let note = if data.is_symlink() { None } else { sys::xattr(&path, "user.note").ok() };
        let size = if data.is_dir() { 0 } else { data.size() };
        seen.insert(relative, Seen { mode: data.mode(), size, bytes, note, linked: None });
    }
    for mut paths in links.into_values() {
        paths.sort();
        for path in &paths {
            seen.get_mut(path).unwrap().linked = Some(paths[0].clone());
        }
    }
    seen
}
