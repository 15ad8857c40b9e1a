//! Why a pack has frames of 128 KiB at level 3, in the order in which files come: what other
//! levels, lengths and orders would save, and what reading one file would then cost. So also
//! for a dictionary with each small file by itself, trained by `zstd`.
//!
//! The files are those of 100 packages of Debian. As packs do, files that fit into a frame
//! share it, and longer ones are cut. All on one thread and in memory.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::debian::hundred_debs;
use cairn_benches::run;

const KIB: usize = 1 << 10;
const LEVELS: [i32; 7] = [1, 3, 5, 7, 9, 12, 19];
const LENGTHS: [usize; 6] = [16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB];

/// Compressing less than so much would not be worth a decompression: a 32nd, and others.
const THRESHOLDS: [usize; 4] = [usize::MAX, 64, 32, 8];

/// What a file may have at most to be compressed with a dictionary.
const SMALL: usize = 16 * KIB;

type File = (PathBuf, Vec<u8>);

/// What a way to compress comes to.
struct Outcome {
    plain: usize,
    stored: usize,
    compressing: Duration,
    decompressing: Duration,
    frames: usize,
}

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let tree = home.path().join("tree");
    for deb in &hundred_debs()[..100] {
        run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&tree));
    }
    let mut files = Vec::new();
    gather(&tree, &mut files);
    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    println!("{} files, {:.1} MiB", files.len(), mib(bytes));

    println!("\nlevels, frames of 128 KiB");
    let frames = frames(&files, 128 * KIB);
    LEVELS.iter().for_each(|level| compress(&frames, *level).tell(&format!("level {level}")));
    println!("\nlengths of frames, level 3");
    for len in LENGTHS {
        compress(&self::frames(&files, len), 3).tell(&format!("{} KiB", len / KIB));
    }
    println!("\norders, frames of 128 KiB, level 3");
    compress(&frames, 3).tell("by path");
    let mut ordered: Vec<File> = files.clone();
    ordered.sort_by_cached_key(|(path, _)| (extension(path), path.clone()));
    compress(&self::frames(&ordered, 128 * KIB), 3).tell("by extension");
    ordered.sort_by_key(|(_, bytes)| bytes.len());
    compress(&self::frames(&ordered, 128 * KIB), 3).tell("by size");

    println!("\nwhat is stored as it is if compression saves less, of frames of 128 KiB, level 3");
    for threshold in THRESHOLDS {
        as_it_is(&frames, threshold);
    }
    println!("\nfiles of up to 16 KiB, level 3");
    files.retain(|(_, bytes)| (1..=SMALL).contains(&bytes.len()));
    compress(&self::frames(&files, 128 * KIB), 3).tell("in frames of 128 KiB");
    compress(&alone(&files), 3).tell("each alone");
    let dictionary = train(&files, home.path());
    with_dictionary(&alone(&files), &dictionary).tell("each alone, with a dictionary");
}

fn gather(directory: &Path, files: &mut Vec<File>) {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<PathBuf> = entries.map(|it| it.expect("it can be read").path()).collect();
    paths.sort();
    for path in paths {
        let kind = fs::symlink_metadata(&path).expect("it is there");
        if kind.is_dir() {
            gather(&path, files);
        } else if kind.is_file() {
            let bytes = fs::read(&path).expect("it can be read");
            files.push((path, bytes));
        }
    }
}

fn extension(path: &Path) -> OsString {
    path.extension().unwrap_or_default().into()
}

/// Frames of at most `len` bytes, as packs have them.
fn frames(files: &[File], len: usize) -> Vec<Vec<u8>> {
    let mut frames = vec![Vec::new()];
    for (_, bytes) in files {
        if bytes.len() >= len {
            frames.extend(bytes.chunks(len).map(<[u8]>::to_vec));
            frames.push(Vec::new());
            continue;
        }
        if frames.last().is_none_or(|last| last.len() + bytes.len() > len) {
            frames.push(Vec::new());
        }
        frames.last_mut().expect("there is one").extend_from_slice(bytes);
    }
    frames.retain(|frame| !frame.is_empty());
    frames
}

fn alone(files: &[File]) -> Vec<Vec<u8>> {
    files.iter().map(|(_, bytes)| bytes.clone()).collect()
}

fn compress(frames: &[Vec<u8>], level: i32) -> Outcome {
    let compressor = zstd::bulk::Compressor::new(level).expect("a level");
    measure(frames, compressor, zstd::bulk::Decompressor::new().expect("memory"))
}

fn with_dictionary(frames: &[Vec<u8>], dictionary: &[u8]) -> Outcome {
    let compressor = zstd::bulk::Compressor::with_dictionary(3, dictionary).expect("a dictionary");
    let decompressor = zstd::bulk::Decompressor::with_dictionary(dictionary);
    measure(frames, compressor, decompressor.expect("a dictionary"))
}

fn measure(
    frames: &[Vec<u8>],
    mut compressor: zstd::bulk::Compressor<'_>,
    mut decompressor: zstd::bulk::Decompressor<'_>,
) -> Outcome {
    let begun = Instant::now();
    let compressed: Vec<Vec<u8>> =
        frames.iter().map(|frame| compressor.compress(frame).expect("memory")).collect();
    let compressing = begun.elapsed();
    let begun = Instant::now();
    for (stored, frame) in compressed.iter().zip(frames) {
        let plain = decompressor.decompress(stored, frame.len()).expect("it was compressed");
        assert_eq!(plain.len(), frame.len());
    }
    let decompressing = begun.elapsed();
    let sum = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).sum();
    let (plain, stored, frames) = (sum(frames), sum(&compressed), frames.len());
    Outcome { plain, stored, compressing, decompressing, frames }
}

impl Outcome {
    #[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
    fn tell(&self, name: &str) {
        let rate = |time: Duration| mib(self.plain) / time.as_secs_f64();
        println!(
            "{name:<32} {:5.1} % of {:.1} MiB, compressing {:4.0} MiB/s, decompressing \
             {:5.0} MiB/s, a frame in {:6.1} us",
            100.0 * self.stored as f64 / self.plain as f64,
            mib(self.plain),
            rate(self.compressing),
            rate(self.decompressing),
            self.decompressing.as_secs_f64() * 1e6 / self.frames as f64,
        );
    }
}

/// What it would come to if only such frames were compressed of which at least one part in
/// `threshold` is saved that way.
#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn as_it_is(frames: &[Vec<u8>], threshold: usize) {
    let mut compressor = zstd::bulk::Compressor::new(3).expect("a level");
    let (mut stored, mut raw, mut plain) = (0, 0, 0);
    for frame in frames {
        let compressed = compressor.compress(frame).expect("memory").len();
        let is_raw = compressed + frame.len() / threshold >= frame.len();
        stored += if is_raw { frame.len() } else { compressed };
        raw += usize::from(is_raw);
        plain += frame.len();
    }
    let share = 100.0 * stored as f64 / plain as f64;
    let name = match threshold {
        usize::MAX => "less than nothing".to_owned(),
        part => format!("less than a part in {part}"),
    };
    println!("{name:<32} {share:6.2} %, {raw} of {} frames as they are", frames.len());
}

/// A dictionary of the length that zstd proposes.
fn train(files: &[File], home: &Path) -> Vec<u8> {
    let samples = home.join("samples");
    fs::create_dir(&samples).expect("a new directory");
    for (at, (_, bytes)) in files.iter().enumerate() {
        fs::write(samples.join(at.to_string()), bytes).expect("there is room");
    }
    let dictionary = home.join("dictionary");
    run(Command::new("zstd")
        .args(["-q", "--train", "-r"])
        .arg(&samples)
        .arg("-o")
        .arg(&dictionary));
    fs::read(dictionary).expect("it was made")
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
