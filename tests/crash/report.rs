//! What came out, as a table.

use std::collections::BTreeMap;
use std::sync::Mutex;

use cairn_tests::disk::{Filesystem, Image};

use crate::operations::OPERATIONS;
use crate::record::Recording;
use crate::{Mode, Point, flushes};

/// How many points there were, and what was wrong.
pub struct Report {
    seed: u64,
    keeps_disk: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By operation, filesystem and mode: points, and how many of them were wrong.
    counts: BTreeMap<(usize, &'static str, Mode), (usize, usize)>,
    wrong: Vec<String>,
    /// Events and flushes of each filesystem.
    logs: BTreeMap<&'static str, (usize, usize)>,
}

impl Report {
    pub fn new(seed: u64) -> Self {
        Self { seed, keeps_disk: true, state: Mutex::default() }
    }

    /// The same, where what is wrong is expected: no disk is kept.
    pub fn of_control(seed: u64) -> Self {
        Self { keeps_disk: false, ..Self::new(seed) }
    }

    /// Notes what came out of a point; keeps the first disk on which something was wrong.
    pub fn note(
        &self,
        recording: &Recording,
        point: &Point,
        checked: Result<(), String>,
        image: &Image,
    ) {
        let mut state = self.state.lock().unwrap();
        let name = recording.filesystem.name();
        let log = (recording.events.len(), flushes(&recording.events));
        state.logs.insert(name, log);
        let count = state.counts.entry((point.operation, name, point.mode)).or_default();
        count.0 += 1;
        if let Err(problem) = checked {
            count.1 += 1;
            let operation = OPERATIONS[point.operation].name;
            let at = format!("{operation}, {name}, {:?}, event {}", point.mode, point.at);
            let (begun, done) = (&recording.begun, &recording.done);
            let window = (begun[point.operation], done[point.operation]);
            state.wrong.push(format!("{at} (begun {}, done {}): {problem}", window.0, window.1));
            if self.keeps_disk && state.wrong.len() == 1 {
                let directory = cairn_tests::target().join("crash");
                let saved = std::fs::create_dir_all(&directory)
                    .and_then(|()| image.save(&directory.join("first.image")));
                saved.unwrap();
            }
        }
    }

    /// All that was wrong.
    pub fn wrong(&self) -> Vec<String> {
        self.state.lock().unwrap().wrong.clone()
    }

    /// Shows how often the power was cut, by operation, filesystem and mode.
    pub fn print(&self) {
        let state = self.state.lock().unwrap();
        println!("power cuts: in order/reordered/torn/twice, and how many were wrong");
        let names: Vec<&str> = Filesystem::ALL.iter().map(|it| it.name()).collect();
        print!("{:16}", "");
        names.iter().for_each(|name| print!("{name:>22}"));
        println!();
        for (number, operation) in OPERATIONS.iter().enumerate() {
            print!("{:16}", operation.name);
            for name in &names {
                let cells = Mode::ALL.map(|mode| state.counts.get(&(number, *name, mode)));
                let cells = cells.map(|cell| cell.copied().unwrap_or_default());
                let points: Vec<String> = cells.iter().map(|it| it.0.to_string()).collect();
                let wrong: usize = cells.iter().map(|it| it.1).sum();
                print!("{:>22}", format!("{} ({wrong})", points.join("/")));
            }
            println!();
        }
        for (name, (events, flushes)) in &state.logs {
            println!("{name}: the log has {events} events, {flushes} of them flushes");
        }
        let points: usize = state.counts.values().map(|it| it.0).sum();
        println!("{points} power cuts, {} wrong", state.wrong.len());
    }

    /// Fails if anything was wrong.
    pub fn assert_right(&self) {
        let wrong = self.wrong();
        let first: Vec<&String> = wrong.iter().take(10).collect();
        let seed = self.seed;
        assert!(wrong.is_empty(), "CRASH_SEED={seed}: {} wrong, first: {first:#?}", wrong.len());
    }
}
