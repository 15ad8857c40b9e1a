//! The parsers of stored and untrusted bytes, with everything in `corpus/`, real files and
//! what was found, and with bytes that are changed by chance: a few each time. `make fuzz` gives
//! them many more, guided by what they lead to: `src/bin/guided.rs`.
//!
//! With `UPDATE_CORPUS=1` the real files are written anew, from the golden files of the
//! crates and from what this machine's tools make.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod seeds;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cairn_tests::fuzz::{TARGETS, Target, changed};
use cairn_tests::{CountedHeap, Random};

#[global_allocator]
static HEAP: CountedHeap = CountedHeap;

/// The files of a directory, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|err| panic!("{}: {err}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The files of a target's corpus, with their names.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let files = files(&target.corpus()).into_iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&path).unwrap())
    });
    let corpus: Vec<_> = files.collect();
    assert!(!corpus.is_empty(), "{} has no corpus", target.name);
    corpus
}

/// Gives these bytes to a parser; where they lie if it panics.
fn check(target: Target, bytes: &[u8]) -> Result<(), PathBuf> {
    let kept = cairn_tests::target().join(format!("found-{}", target.name));
    // Before: it may also end the process.
    fs::write(&kept, bytes).unwrap();
    catch_unwind(|| target.check(bytes)).map_err(|_| kept.clone())?;
    fs::remove_file(kept).unwrap();
    Ok(())
}

// One test, since the heap is counted for the whole process.
#[test]
fn no_parser_panics_or_takes_too_much_memory() {
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        seeds::write();
    }
    let mut found = Vec::new();
    'targets: for target in TARGETS {
        let begun = Instant::now();
        let corpus = corpus(&target);
        let others = corpus.iter().flat_map(|(_, bytes)| bytes).copied().collect::<Vec<u8>>();
        let mut random = Random(1);
        for (name, bytes) in &corpus {
            let changed = (0..40).map(|_| changed(bytes, &others, &mut random));
            for (at, bytes) in [bytes.clone()].into_iter().chain(changed).enumerate() {
                if let Err(kept) = check(target, &bytes) {
                    found.push(format!("{name}, change {at}, in {}", kept.display()));
                    continue 'targets;
                }
            }
        }
        println!("{}: {:?}", target.name, begun.elapsed());
    }
    assert!(found.is_empty(), "{found:#?}");
}
