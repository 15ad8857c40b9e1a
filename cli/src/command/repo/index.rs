//! `cairn repo index`: a directory of stones becomes a repository.

use std::path::PathBuf;
use std::time::Duration;

use cairn_package::repository::{Identity, IndexProgress, Indexed, Signer, index_directory};

use crate::context::Context;
use crate::error::Error;
use crate::key::secret_key;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::{Phase, Unit};
use crate::units::{counted, local_time};

/// Write the index of a directory of stones, which makes it a repository
///
/// Of several releases of a package the newest is offered.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory with stones, at any depth
    dir: PathBuf,
    /// Sign the index with the secret key in this file: see cairn key generate
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Sign it as the index of this repository, so that it cannot be passed off
    /// as another one (default: as before, else the name of the directory)
    #[arg(long, value_name = "NAME", requires = "sign")]
    name: Option<Identity>,
    /// Days after which it is not believed any more, or 'ever'
    #[arg(long, value_name = "DAYS", default_value = "180", requires = "sign", value_parser = days)]
    valid_for: Days,
}

/// A number of days; none for ever.
#[derive(Clone, Copy, Debug)]
struct Days(Option<u64>);

fn days(text: &str) -> Result<Days, String> {
    match text {
        "ever" => Ok(Days(None)),
        text => match text.parse() {
            Ok(days @ 1..=36_500) => Ok(Days(Some(days))),
            _ => Err("it must be a number of days, or 'ever'".into()),
        },
    }
}

impl IndexProgress for Phase {
    fn begin(&self, stones: u64) {
        self.set_total(stones, Unit::Pieces);
    }

    fn advance(&self) {
        Phase::advance(self, 1);
    }
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let signer = match &args.sign {
        None => None,
        Some(path) => Some(Signer {
            key: secret_key(path, context, output)?,
            repository: args.name.clone(),
            valid_for: args.valid_for.0.map(|days| Duration::from_secs(days * 24 * 3600)),
        }),
    };
    let phase = output.phase("Indexing stones", None, Unit::Pieces);
    let indexed = index_directory(&args.dir, signer.as_ref(), &phase)?;
    drop(phase);
    output.data(&indexed)
}

impl View for Indexed {
    fn show(&self, page: &mut Page) {
        for path in &self.older {
            page.marked_line(Style::Note, "older: ", format_args!("{}", path.display()));
        }
        let packages = counted(self.packages, "package");
        page.line(format_args!("{}: {packages}", self.path.display()));
        if let Some(it) = &self.signature {
            let time = it.expires.map(|time| local_time(time.cast_signed()));
            let time = time.map_or("for ever".into(), |time| format!("until {time}"));
            page.line(format_args!(
                "Signed as {} with the key {}, valid {time}.",
                it.repository, it.key
            ));
        }
    }
}
