//! `cairn recipe update`: a recipe of another version.

use std::path::PathBuf;

use cairn_build::draft::{next_url, source_of};
use cairn_build::fetch;
use cairn_build::places::Places;
use cairn_build::recipe::{Recipe, Upstream};
use cairn_build::update::{self, Change, NewUpstream};
use cairn_store::disk::directory_of;
use serde::Serialize;

use crate::build_root::Servers;
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::Unit;
use crate::recipes;

/// Bring a recipe to another version
///
/// Version, release, addresses and hashes are replaced where they stand; comments
/// and layout stay. With --ver alone the addresses are guessed from those of the
/// old version.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The recipe, or a directory with a stone.yaml
    #[arg(default_value = ".")]
    recipe: PathBuf,
    /// The new version
    #[arg(long, value_name = "VERSION")]
    ver: Option<String>,
    /// The new address of the first upstream, of the second if given again and so
    /// on; for git: git|REF
    #[arg(short, long, value_name = "URL or git|REF")]
    upstream: Vec<String>,
    /// Leave the release as it is
    #[arg(long)]
    no_bump: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep downloads here (default: /var/cache/cairn for root, ~/.cache/cairn for
    /// others)
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Updated {
    file: String,
    changes: Vec<(char, String)>,
    written: bool,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let file = recipes::recipe_file(&args.recipe);
    let text = cairn_build::recipe::read(&file)?;
    let bad = |problems: Vec<cairn_build::problem::Problem>| {
        let problems = problems.iter().map(|problem| problem.located(&text)).collect();
        Error::from(cairn_build::Error::Recipe { path: file.clone(), problems })
    };
    let recipe = Recipe::parse(&text).map_err(bad)?.recipe;
    let change = change(args, &recipe, context, output)?;
    let new = update::apply(&text, &change).map_err(bad)?;
    let mut updated = Updated {
        file: file.display().to_string(),
        changes: update::difference(&text, &new),
        written: false,
    };
    if args.dry_run || updated.changes.is_empty() {
        return output.data(&updated);
    }
    output.preview(&updated);
    output.confirm("\nWrite it?")?;
    write(&file, &new)?;
    updated.written = true;
    output.data(&updated)
}

/// Replaces a file at once and as a whole.
fn write(file: &std::path::Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Write { path: file.into(), source };
    let directory = directory_of(file);
    let permissions = std::fs::metadata(file).map_err(failed)?.permissions();
    let mut new = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    std::io::Write::write_all(&mut new, text.as_bytes()).map_err(failed)?;
    new.as_file().set_permissions(permissions).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    new.persist(file).map_err(|err| failed(err.error))?;
    Ok(())
}

fn change(
    args: &Args,
    recipe: &Recipe,
    context: &Context,
    output: &Output<'_>,
) -> Result<Change, Error> {
    let mut version = args.ver.clone();
    let mut wanted: Vec<(usize, String)> = args.upstream.iter().cloned().enumerate().collect();
    if wanted.is_empty() {
        let Some(new) = &version else { return Err(Error::NothingToUpdate) };
        for (number, upstream) in recipe.upstreams.iter().enumerate() {
            let guess = match upstream {
                Upstream::Archive(archive) => next_url(&archive.url.value, &recipe.version, new),
                Upstream::Git(git) => {
                    let reference = git.reference.value.replace(&recipe.version, new);
                    (reference != git.reference.value).then(|| format!("git|{reference}"))
                }
            };
            wanted.extend(guess.map(|guess| (number, guess)));
        }
    } else if version.is_none() {
        version = source_of(&wanted[0].1).map(|source| source.version);
    }
    let places = Places { cache: context.cache_path(args.cache_dir.clone())? };
    let mut upstreams = Vec::new();
    for (number, new) in wanted {
        let new = match new.strip_prefix("git|") {
            Some(reference) => NewUpstream::Git { reference: reference.into() },
            None => {
                let phase = output.phase(&format!("Getting {new}"), None, Unit::Bytes);
                let (_, hash) =
                    fetch::fetch_new(&new, &places, &Servers(context.network()), &phase)?;
                NewUpstream::Archive { url: new, hash }
            }
        };
        upstreams.push((number, new));
    }
    let release = if args.no_bump { None } else { recipe.release.checked_add(1) };
    Ok(Change { version, release, upstreams })
}

impl View for Updated {
    fn show(&self, page: &mut Page) {
        if self.changes.is_empty() {
            page.line(format_args!("{} is what it would become.", self.file));
            return;
        }
        if self.written {
            page.line(format_args!("{} was written.", self.file));
            return;
        }
        for (mark, line) in &self.changes {
            let style = if *mark == '-' { Style::Bad } else { Style::Good };
            page.styled_line(style, format_args!("{mark}{line}"));
        }
    }
}
