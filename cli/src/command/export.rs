//! `cairn export`: a state as a directory, an archive or an image.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_store::disk::directory_of;
use cairn_store::export::{
    ArchiveNames, DirectoryOptions, ExportProgress, Exported, ImageConfig, ImageOptions, Packing,
    ParallelWriter, export_archive, export_directory, export_image,
};
use cairn_store::{State, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::image::{ImagePlace, architecture};
use crate::interrupt;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::place::StateName;
use crate::progress::{Phase, Unit};
use crate::units::{counted, duration, size};

/// Write the files of a state into a directory, an archive or an image
///
/// The archive of a state has the same bytes each time, and an image the same
/// digest. Root alone can set owners
/// and make devices in a directory; what was left out is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number or tag of the state
    state: StateName,
    /// Empty or new directory; file with a name like *.tar, *.tar.gz, *.tar.zst,
    /// *.squashfs or *.erofs; - for an archive to standard output; oci:DIR[:NAME]
    /// for an image in a new OCI layout
    target: PathBuf,
    /// What to make (default: what the name of the target says)
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How to compress an archive or the layer of an image (default: what the name
    /// says, else gzip for an image and not at all for an archive)
    #[arg(long, value_enum)]
    compress: Option<Compress>,
    /// Make holes where files have blocks of zeros
    #[arg(long)]
    sparse: bool,
    #[command(flatten)]
    image: ImageArgs,
}

/// What an image says of itself.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of images")]
struct ImageArgs {
    /// Program that runs with the arguments of --cmd; may be given several times,
    /// as may --cmd and --env
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Word of the command that runs by default
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Variable of the environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User that it runs as
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Directory that it runs in
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Label
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Share out the packages over so many layers at most, so that images of states
    /// which have most packages in common have most layers in common (default: 1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MOST_LAYERS))]
    layers: Option<u8>,
    /// Architecture as images name it (default: that of this machine)
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
}

/// As many as programs that mount them one over the other take.
const MOST_LAYERS: i64 = 127;

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("a label is NAME=VALUE")?;
    Ok((pair.0.into(), pair.1.into()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A directory
    Dir,
    /// A tar archive
    Tar,
    /// An image in an OCI layout
    Oci,
    /// A squashfs image, by mksquashfs
    Squashfs,
    /// An EROFS image, by mkfs.erofs
    Erofs,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Dir => "a directory",
            Self::Tar => "a tar archive",
            Self::Oci => "an image in an OCI layout",
            Self::Squashfs => "a squashfs image",
            Self::Erofs => "an EROFS image",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compress {
    /// Not at all
    None,
    /// gzip
    Gzip,
    /// zstd
    Zstd,
}

#[derive(Serialize)]
struct Done {
    state: u64,
    target: String,
    entries: u64,
    bytes: u64,
    left_out: Vec<LeftOut>,
    /// That of the manifest of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    seconds: f64,
    #[serde(skip)]
    time: Duration,
}

#[derive(Serialize)]
struct LeftOut {
    path: String,
    reason: &'static str,
}

impl ExportProgress for Phase {
    fn advance(&self, _: u64, bytes: u64) {
        Phase::advance(self, bytes);
    }

    fn is_cancelled(&self) -> bool {
        interrupt::has_come()
    }
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let state = args.state.find(&store)?;
    let begun = Instant::now();
    let is_stdout = args.target.as_os_str() == "-";
    let format = args.format.unwrap_or_else(|| format_of(&args.target));
    if is_stdout && context.json() {
        return Err(Error::NoJson { command: "cairn export to standard output" });
    }
    args.check(format)?;
    interrupt::note()?;
    let total = store.tree(state.tree)?.summary().bytes;
    let phase = output.phase("Exporting", Some(total), Unit::Bytes);
    let mut digest = None;
    let exported = match format {
        Format::Dir => {
            let options = DirectoryOptions { sparse: args.sparse };
            export_directory(&store, state.tree, &args.target, options, &phase)
                .map_err(interrupt::explain)
        }
        Format::Tar => export_tar(args, &store, &state, &phase),
        Format::Oci => {
            let place = ImagePlace::new(&args.target)
                .unwrap_or_else(|| ImagePlace { layout: args.target.clone(), name: None });
            let options = args.image_options(place.name, &store, &state)?;
            let image = export_image(&store, state.tree, &place.layout, &options, &phase);
            image.map_err(interrupt::explain).map(|(exported, of_image)| {
                digest = Some(of_image);
                exported
            })
        }
        Format::Squashfs | Format::Erofs => {
            filesystem_image(format, &store, &state, &args.target, &phase)
        }
    };
    drop(phase);
    let Exported { entries, bytes, left_out } = exported?;
    let time = begun.elapsed();
    let left_out = left_out
        .into_iter()
        .map(|(path, reason)| LeftOut { path: Escaped(&path.to_bytes()).to_string(), reason });
    let done = Done {
        state: state.id.0,
        target: args.target.display().to_string(),
        entries,
        bytes,
        left_out: left_out.collect(),
        digest,
        seconds: time.as_secs_f64(),
        time,
    };
    if is_stdout {
        output.preview(&done);
        return Ok(());
    }
    output.data(&done)
}

fn format_of(target: &Path) -> Format {
    let name = target.as_os_str().as_bytes();
    let ends = |ends: &[&[u8]]| ends.iter().any(|end| name.ends_with(end));
    match () {
        () if name == b"-" || packing_of(target).is_some() => Format::Tar,
        () if ImagePlace::new(target).is_some() => Format::Oci,
        () if ends(&[b".squashfs", b".sqfs", b".sfs"]) => Format::Squashfs,
        () if ends(&[b".erofs"]) => Format::Erofs,
        () => Format::Dir,
    }
}

impl Args {
    /// Refuses options that would do nothing.
    fn check(&self, format: Format) -> Result<(), Error> {
        let ImageArgs { entrypoint, cmd, env, user, workdir, label, layers, arch } = &self.image;
        let of_directories = [("--sparse", self.sparse)];
        let of_images = [
            ("--entrypoint", !entrypoint.is_empty()),
            ("--cmd", !cmd.is_empty()),
            ("--env", !env.is_empty()),
            ("--user", user.is_some()),
            ("--workdir", workdir.is_some()),
            ("--label", !label.is_empty()),
            ("--layers", layers.is_some()),
            ("--arch", arch.is_some()),
        ];
        let compress = [("--compress", self.compress.is_some())];
        let useless: &[&[(&'static str, bool)]] = match format {
            Format::Dir => &[&compress, &of_images],
            Format::Tar => &[&of_directories, &of_images],
            Format::Oci => &[&of_directories],
            Format::Squashfs | Format::Erofs => &[&of_directories, &compress, &of_images],
        };
        match useless.iter().copied().flatten().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Error::NotForFormat { option, format: format.name() }),
            None => Ok(()),
        }
    }

    fn image_options(
        &self,
        reference: Option<String>,
        store: &Store,
        state: &State,
    ) -> Result<ImageOptions, Error> {
        let ImageArgs { entrypoint, cmd, env, user, workdir, label, layers, arch } = &self.image;
        // One of them is that of everything else.
        let layers = layers.unwrap_or(1);
        let groups = cairn_package::system::groups(store, state.packages, layers - 1)?;
        let config = ImageConfig {
            user: user.clone().unwrap_or_default(),
            env: env.clone(),
            entrypoint: entrypoint.clone(),
            cmd: cmd.clone(),
            working_dir: workdir.clone().unwrap_or_default(),
            labels: label.iter().cloned().collect(),
        };
        let packing = packing(self.compress.unwrap_or(Compress::Gzip));
        let architecture = arch.as_deref().unwrap_or(architecture()).to_owned();
        Ok(ImageOptions { reference, packing, architecture, config, groups })
    }
}

fn packing(compress: Compress) -> Packing {
    match compress {
        Compress::None => Packing::None,
        Compress::Gzip => Packing::Gzip,
        Compress::Zstd => Packing::Zstd,
    }
}

/// Has mksquashfs(1) or mkfs.erofs(1) make an image of a directory, which goes away
/// again: neither takes all of an archive, the attributes of the root above all.
fn filesystem_image(
    format: Format,
    store: &Store,
    state: &State,
    target: &Path,
    progress: &Phase,
) -> Result<Exported, Error> {
    if target.exists() {
        return Err(cairn_store::Error::OccupiedTarget { path: target.into() }.into());
    }
    let beside = directory_of(target);
    let directory = tempfile::tempdir_in(beside).map_err(Error::write(beside))?;
    let root = directory.path().join("root");
    let options = DirectoryOptions::default();
    let exported = export_directory(store, state.tree, &root, options, progress);
    let exported = exported.map_err(interrupt::explain)?;
    // Without the moment, as far as the programs can do that.
    let (program, mut command) = if format == Format::Squashfs {
        let mut command = Command::new("mksquashfs");
        command.arg(root).arg(target).args(["-noappend", "-no-progress", "-quiet"]);
        command.args(["-mkfs-time", "0"]);
        ("mksquashfs", command)
    } else {
        let mut command = Command::new("mkfs.erofs");
        command.args(["-U", "00000000-0000-0000-0000-000000000000", "--quiet"]);
        command.arg(target).arg(root);
        ("mkfs.erofs", command)
    };
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Program { program, source })?;
    let done = if output.status.success() {
        File::open(target).and_then(|file| file.sync_all()).map_err(Error::write(target))
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        let source = io::Error::other(last.unwrap_or("it says nothing").to_owned());
        Err(Error::Program { program, source })
    };
    if done.is_err() {
        // Half an image is worth nothing.
        let _ = std::fs::remove_file(target);
    }
    done.map(|()| exported)
}

/// What the name of an archive says of its compression; `None` when it is not
/// the name of an archive.
fn packing_of(target: &Path) -> Option<Compress> {
    let name = target.file_name()?.to_str()?;
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    match () {
        () if ends(&[".tar"]) => Some(Compress::None),
        () if ends(&[".tar.gz", ".tgz"]) => Some(Compress::Gzip),
        () if ends(&[".tar.zst", ".tzst"]) => Some(Compress::Zstd),
        () => None,
    }
}

/// Writes an archive; one in a file appears under its name when it is whole.
fn export_tar(
    args: &Args,
    store: &Store,
    state: &State,
    progress: &Phase,
) -> Result<Exported, Error> {
    let compress = args.compress.or_else(|| packing_of(&args.target));
    let packing = packing(compress.unwrap_or(Compress::None));
    if args.target.as_os_str() == "-" {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Error::ToTerminal);
        }
        let to = BufWriter::with_capacity(1 << 20, stdout.lock());
        let written = write_tar(store, state, packing, (to, Error::Output), progress);
        return written.map(|(exported, _)| exported);
    }
    let target = &args.target;
    let failed = |source| Error::Write { path: target.clone(), source };
    let directory = directory_of(target);
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    let file = File::create(&temporary).map_err(failed)?;
    let to = BufWriter::with_capacity(1 << 20, file);
    let written = write_tar(store, state, packing, (to, failed), progress);
    let written = written.and_then(|(exported, to)| {
        let file = to.into_inner().map_err(|err| failed(err.into_error()))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&temporary, target).map_err(failed)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(exported)
    });
    if written.is_err() {
        // Half an archive is worth nothing.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Writes an archive to something; the second of the pair says what that is where it fails.
fn write_tar<W: Write>(
    store: &Store,
    state: &State,
    packing: Packing,
    (to, failed): (W, impl Fn(io::Error) -> Error),
    progress: &Phase,
) -> Result<(Exported, W), Error> {
    let mut to = ParallelWriter::new(to, packing);
    let exported = export_archive(store, state.tree, ArchiveNames::Dotted, &mut to, progress);
    let exported = exported.map_err(|err| match err {
        cairn_store::Error::Target { source, .. } => failed(source),
        err => interrupt::explain(err),
    })?;
    Ok((exported, to.finish().map_err(failed)?))
}

/// Entries that are told one by one; what comes after them is counted.
const SHOWN: usize = 20;

impl View for Done {
    fn show(&self, page: &mut Page) {
        for LeftOut { path, reason } in self.left_out.iter().take(SHOWN) {
            page.marked_line(Style::Note, "left out: ", format_args!("{path}: {reason}"));
        }
        if let Some(more @ 1..) = self.left_out.len().checked_sub(SHOWN) {
            page.line(format_args!("and {more} more"));
        }
        if let Some(digest) = &self.digest {
            page.line(format_args!("Digest of the image: {digest}"));
        }
        page.line(format_args!(
            "State {} in {}: {} ({}) written ({}).",
            self.state,
            self.target,
            counted(self.entries, "entry"),
            size(self.bytes),
            duration(self.time),
        ));
    }
}
