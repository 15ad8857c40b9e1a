//! How fast is a mounted system of 60,000 entries, cold and warm, beside the same
//! tree on the native filesystem? Walk with stat, and read of every file.
//!
//! Cold means: mounted anew, and the page, dentry and inode caches of the
//! machine dropped. Needs root.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::{
    drop_caches, judge, judge_time, make_system, median_of, report, run, walk, write_out,
};
use cairn_fs::{Journal, Options, Running, Shape};
use cairn_store::Store;

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("store");
    let store = Store::create(&path).expect("a new store");
    let (state, _) = make_system(&store, 60_000);
    let native = home.path().join("native");
    write_out(&store, state.tree, &native);
    drop(store);
    let mounted = home.path().join("mounted");
    fs::create_dir(&mounted).expect("a new directory");

    report_polling();
    let begin = Instant::now();
    let mut running = Some(mount(&path, &mounted, false));
    judge_time("mount", begin.elapsed(), Duration::from_millis(50));
    for (name, work) in [("walk", walk as fn(&Path) -> u64), ("read", read)] {
        let expected = work(&native);
        let [ours, peer] = [&mounted, &native].map(|root| {
            median_of(7, || {
                let begin = Instant::now();
                assert_eq!(work(root), expected, "both trees are the same");
                begin.elapsed()
            })
        });
        report(&format!("{name}/warm/mount"), ours);
        report(&format!("{name}/warm/native"), peer);
        judge(&format!("{name}/warm"), ours, peer, 1.4);
    }
    let cold = [("walk", walk as fn(&Path) -> u64, 0.5), ("read", read, 0.8)];
    let mut compare = |how: &str, power_save| {
        for (name, work, budget) in cold {
            let peer = median_of(5, || {
                drop_caches();
                time(|| work(&native))
            });
            let ours = median_of(5, || {
                // The old mount goes before the caches are dropped and the new one comes.
                drop(running.take());
                drop_caches();
                running = Some(mount(&path, &mounted, power_save));
                time(|| work(&mounted))
            });
            report(&format!("{name}/{how}/mount"), ours);
            report(&format!("{name}/{how}/native"), peer);
            judge(&format!("{name}/{how}"), ours, peer, budget);
        }
    };
    compare("cold", false);
    // Each request wakes the mount, and each answer the program: on a processor that
    // sleeps both take as long as it takes to wake it, which is up to the machine. On
    // one processor nothing has to be woken, and what is left is the mount's own time.
    compare("cold, saving power", true);
    run(Command::new("taskset").args(["-a", "-c", "-p", "0"]).arg(std::process::id().to_string()));
    compare("cold, saving power, on one processor", true);
}

/// Says how idle processors sleep, and for how long those of a virtual machine wait before
/// they do, which decides what it costs to wake one.
fn report_polling() {
    let driver = "/sys/devices/system/cpu/cpuidle/current_driver";
    if let Ok(text) = fs::read_to_string(driver) {
        println!("the driver of idle states is {}", text.trim());
    }
    let setting = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";
    if let Ok(text) = fs::read_to_string(setting) {
        println!("idle processors poll for {} ns (200000 is usual)", text.trim());
    }
}

fn mount(store: &Path, target: &Path, power_save: bool) -> Running {
    let source = Store::open(store).expect("the store opens");
    let options = Options { run: None, power_save, ..Options::new(Shape::Follow, target, store) };
    let journal: Journal = std::sync::Arc::new(|event| panic!("{event}"));
    cairn_fs::start(source, &options, journal).expect("a mount, as root")
}

fn time(work: impl FnOnce() -> u64) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// Reads every regular file; returns how many bytes there are.
fn read(root: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(root).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let kind = entry.file_type().expect("it has a type");
        if kind.is_dir() {
            sum += read(&entry.path());
        } else if kind.is_file() {
            sum += cairn_benches::read(&entry.path());
        }
    }
    sum
}
