//! What does it cost to keep the states of a real tree: the first import, one of the
//! unchanged tree, one after a change of 1 % of its files, the way out, a look at every
//! byte, and the room for 1, 10 and 100 states, beside programs that keep trees too?
//!
//! The tree are 100 packages of Debian, unpacked; state N of the history has the first N
//! of them. All is in the page cache, and after each import what was written is synced,
//! which is in its time: some of the peers do so themselves and some do not. The peers
//! compress with zstd at level 3, as Cairn does, if they can be told to; restic encrypts
//! in addition, and `ostree` compresses as gzip does, or, in the mode bare, not at all, so that
//! its way out are hard links. tar and squashfs have each state whole, and 10 states are
//! enough of those.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_benches::debian::hundred_debs;
use cairn_benches::{binary, run};

/// A program that keeps trees, as commands of a shell: `$R` is the directory that it keeps
/// them in, `$T` the tree, `$N` the number of the import, `$O` a directory that is not
/// there yet.
struct Peer {
    name: &'static str,
    /// Makes `$R`.
    create: &'static str,
    import: &'static str,
    /// Writes the state of import `$N` into `$O`.
    export: &'static str,
    /// Reads all bytes and compares them with their hashes; empty if it cannot.
    verify: &'static str,
    /// Removes all states but the last, `$N`, and gives their room back.
    forget: &'static str,
    /// How many states of the history it keeps.
    states: usize,
}

const PEERS: [Peer; 8] = [
    Peer {
        name: "cairn",
        create: "",
        import: "cairn import $T",
        export: "cairn export $N $O",
        verify: "cairn verify",
        forget: "cairn switch $N; cairn --yes state prune --keep-last 1 --gc",
        states: 100,
    },
    Peer {
        name: "ostree, archive",
        create: "ostree init --repo=$R --mode=archive",
        import: "ostree commit --repo=$R -b main --tree=dir=$T",
        export: "ostree checkout --repo=$R main $O",
        verify: "ostree fsck --repo=$R",
        forget: "ostree prune --repo=$R --refs-only --depth=0",
        states: 10,
    },
    Peer {
        name: "ostree, bare",
        create: "ostree init --repo=$R --mode=bare",
        import: "ostree commit --repo=$R -b main --tree=dir=$T",
        export: "ostree checkout --repo=$R main $O",
        verify: "ostree fsck --repo=$R",
        forget: "ostree prune --repo=$R --refs-only --depth=0",
        states: 100,
    },
    Peer {
        name: "restic",
        create: "restic init",
        import: "restic backup $T",
        export: "restic restore latest --target $O",
        verify: "restic check --read-data",
        forget: "restic forget --keep-last 1 --prune",
        states: 100,
    },
    Peer {
        name: "borg",
        create: "borg init -e none",
        import: "cd $T; borg create -C zstd,3 ::$N .",
        export: "mkdir $O; cd $O; borg extract ::$N",
        verify: "borg check --verify-data",
        forget: "borg prune --keep-last 1; borg compact",
        states: 100,
    },
    Peer {
        name: "casync",
        create: "mkdir $R",
        import: "casync make --store=$R/store $R/$N.caidx $T",
        export: "casync extract --store=$R/store $R/$N.caidx $O",
        verify: "",
        forget: "cd $R; ls | grep caidx | grep -v ^$N | xargs rm; casync gc --store=store $N.caidx",
        states: 100,
    },
    Peer {
        name: "tar and zstd",
        create: "mkdir $R",
        import: "tar -C $T -cf - . | zstd -q -3 -T0 -o $R/$N.tar.zst",
        export: "mkdir $O; tar -C $O -xpf $R/$N.tar.zst",
        verify: "zstd -tq $R/*",
        forget: "cd $R; ls | grep -v ^$N | xargs rm",
        states: 10,
    },
    Peer {
        name: "squashfs",
        create: "mkdir $R",
        import: "mksquashfs $T $R/$N.squashfs -comp zstd -Xcompression-level 3",
        export: "unsquashfs -d $O $R/$N.squashfs",
        verify: "",
        forget: "cd $R; ls | grep -v ^$N | xargs rm",
        states: 10,
    },
];

/// What a command took, processes that it started included.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    /// User and system.
    processor: f64,
    /// MiB of the largest process.
    memory: f64,
}

struct Place {
    home: PathBuf,
    tree: PathBuf,
    number: usize,
}

impl Place {
    /// Runs commands of a shell; `after` is in the time.
    fn run(&self, commands: &str, after: &str) -> Cost {
        let costs = self.home.join("costs");
        let repository = self.home.join("repository");
        let script = format!("{commands}\n{after}");
        let mut time = Command::new("/usr/bin/time");
        time.args(["-f", "%e %U %S %M", "-o"]).arg(&costs).args(["sh", "-ec", &script]);
        time.env("R", &repository).env("T", &self.tree).env("N", self.number.to_string());
        time.env("O", self.home.join("out")).env("HOME", &self.home).env("LC_ALL", "C.UTF-8");
        let search = std::env::var("PATH").unwrap_or_default();
        let programs = binary().parent().map(|it| it.display().to_string()).unwrap_or_default();
        time.env("PATH", format!("{programs}:{search}")).env("CAIRN_STORE", &repository);
        time.env("RESTIC_REPOSITORY", &repository).env("RESTIC_PASSWORD", "none");
        time.env("BORG_REPO", &repository).env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        run(&mut time);
        let text = fs::read_to_string(&costs).expect("time has written it");
        let numbers: Vec<f64> =
            text.split_whitespace().map(|it| it.parse().expect("a number")).collect();
        let [seconds, user, system, memory] = numbers[..] else { panic!("{text}") };
        Cost { seconds, processor: user + system, memory: memory / 1024.0 }
    }

    fn import(&mut self, peer: &Peer) -> Cost {
        self.number += 1;
        run(Command::new("sync").arg("-f").arg(&self.home));
        self.run(peer.import, "sync -f $R")
    }

    fn begin(&mut self, peer: &Peer) {
        let _ = fs::remove_dir_all(self.home.join("repository"));
        self.number = 0;
        self.run(peer.create, "");
    }

    /// MiB that the repository takes on the disk.
    fn size(&self) -> f64 {
        let du = Command::new("du").arg("-sk").arg(self.home.join("repository")).output();
        let text = String::from_utf8_lossy(&du.expect("du is here").stdout).into_owned();
        let kib: f64 = text.split_whitespace().next().unwrap_or_default().parse().expect("KiB");
        kib / 1024.0
    }
}

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let debs = &hundred_debs()[..100];
    let tree = home.path().join("tree");
    let mut place = Place { home: home.path().into(), tree, number: 0 };
    unpack(debs, &place.tree);
    let files = files_below(&place.tree);
    let mut ours = Vec::new();
    for peer in &PEERS {
        let theirs = Kept::measure(&mut place, peer, &files);
        theirs.tell(peer.name, &ours);
        if ours.is_empty() {
            ours = theirs.0;
        }
    }
    let history = home.path().join("history");
    place.tree = history;
    let mut ours = Vec::new();
    for peer in &PEERS {
        let theirs = Kept::measure_history(&mut place, peer, debs);
        theirs.tell(peer.name, &ours);
        if ours.is_empty() {
            ours = theirs.0;
        }
    }
}

/// What was measured of one program: what was done, what it took, and MiB on the disk then.
struct Kept(Vec<(String, Cost, f64)>);

impl Kept {
    fn measure(place: &mut Place, peer: &Peer, files: &[PathBuf]) -> Self {
        let mut first = || {
            place.begin(peer);
            place.import(peer)
        };
        let mut all = vec![("first import".to_owned(), median(&mut first), place.size())];
        let cost = median(|| place.import(peer));
        all.push(("unchanged".to_owned(), cost, place.size()));
        let cost = median(|| {
            change(files);
            place.import(peer)
        });
        all.push(("1 % changed".to_owned(), cost, place.size()));
        let cost = median(|| {
            let cost = place.run(peer.export, "");
            fs::remove_dir_all(place.home.join("out")).expect("it was written");
            cost
        });
        all.push(("export".to_owned(), cost, place.size()));
        if !peer.verify.is_empty() {
            let cost = median(|| place.run(peer.verify, ""));
            all.push(("verify".to_owned(), cost, place.size()));
        }
        let cost = place.run(peer.forget, "");
        all.push(("forget all but one, collect".to_owned(), cost, place.size()));
        Self(all)
    }

    /// Each state has one package more.
    fn measure_history(place: &mut Place, peer: &Peer, debs: &[PathBuf]) -> Self {
        let _ = fs::remove_dir_all(&place.tree);
        place.begin(peer);
        let mut all = Vec::new();
        let mut sum = Cost { seconds: 0.0, processor: 0.0, memory: 0.0 };
        for (deb, number) in debs.iter().zip(1..=peer.states) {
            unpack(std::slice::from_ref(deb), &place.tree);
            let cost = place.import(peer);
            sum.seconds += cost.seconds;
            sum.processor += cost.processor;
            sum.memory = sum.memory.max(cost.memory);
            if [1, 10, 100].contains(&number) {
                all.push((format!("{number} states"), sum, place.size()));
            }
        }
        Self(all)
    }

    #[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
    fn tell(&self, peer: &str, ours: &[(String, Cost, f64)]) {
        for (what, cost, size) in &self.0 {
            let Cost { seconds, processor, memory } = cost;
            print!(
                "{peer:<16} {what:<28} {seconds:>8.2} s {processor:>8.2} s CPU \
                 {memory:>7.0} MiB memory {size:>8.1} MiB kept"
            );
            match ours.iter().find(|our| our.0 == *what) {
                Some((_, our, kept)) => {
                    let (time, room) = (our.seconds / seconds, kept / size);
                    println!("   cairn {time:.3} of the time, {room:.3} of the room");
                }
                None => println!(),
            }
        }
    }
}

/// The cost whose time is the median of three.
fn median(mut work: impl FnMut() -> Cost) -> Cost {
    let mut costs: Vec<Cost> = (0..3).map(|_| work()).collect();
    costs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    costs[1]
}

fn unpack(debs: &[PathBuf], tree: &Path) {
    for deb in debs {
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(tree));
    }
}

/// One byte more for each 100th file.
fn change(files: &[PathBuf]) {
    for file in files.iter().step_by(100) {
        let mut file = OpenOptions::new().append(true).open(file).expect("it is ours");
        file.write_all(b"\n").expect("there is room");
    }
}

/// All files below `directory`, sorted.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let find = Command::new("find").arg(directory).args(["-type", "f"]).output();
    let text = String::from_utf8_lossy(&find.expect("find is here").stdout).into_owned();
    let mut files: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
    files.sort();
    files
}
