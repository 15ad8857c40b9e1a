//! `cairn key`: keys that sign repositories.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cairn_package::repository::{KeyProblem, PublicKey, SecretKey};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::key::secret_key;
use crate::output::{Output, View};
use crate::page::Page;

/// Make and show the keys that sign repositories
///
/// They have the format of minisign, which can use them as well.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Generate(Generate),
    Show(Show),
}

/// Make a key: FILE, which is to be kept secret, and FILE.pub, for everybody
#[derive(clap::Args)]
pub(crate) struct Generate {
    /// File for the secret key
    file: PathBuf,
    /// Encrypt it with a password, for which you are asked now and whenever it
    /// is used
    #[arg(long)]
    password: bool,
}

/// Show the public key that belongs to the file of a public or a secret key
#[derive(clap::Args)]
pub(crate) struct Show {
    /// File of the key
    file: PathBuf,
}

#[derive(Serialize)]
struct Key {
    key: PublicKey,
    id: String,
    secret_file: Option<PathBuf>,
    public_file: Option<PathBuf>,
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::Generate(args) => generate(args, context, output),
        Command::Show(args) => show(args, context, output),
    }
}

fn generate(args: &Generate, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let failed = |source| Error::Key { text: args.file.display().to_string(), source };
    let mut public_file = args.file.clone().into_os_string();
    public_file.push(".pub");
    let public_file = PathBuf::from(public_file);
    for path in [&args.file, &public_file] {
        if path.exists() {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(Error::Write { path: path.clone(), source });
        }
    }
    let mut password = None;
    if args.password {
        password = context.key_password();
        if password.is_none() {
            let missing = || failed(KeyProblem::NoPassword);
            let first = output.ask_secretly("Password: ")?.ok_or_else(missing)?;
            let again = output.ask_secretly("Once more: ")?.ok_or_else(missing)?;
            if first != again {
                return Err(Error::PasswordsDiffer);
            }
            password = Some(first);
        }
    }
    let (secret, key) = SecretKey::generate(password).map_err(failed)?;
    write_new(&args.file, 0o600, &secret)?;
    write_new(&public_file, 0o644, &key.to_file())?;
    let (id, secret_file) = (key.id().into(), Some(args.file.clone()));
    output.data(&Key { key, id, secret_file, public_file: Some(public_file) })
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| Error::Write { path: path.into(), source })
}

fn show(args: &Show, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let text = fs::read_to_string(&args.file).map_err(Error::read(&args.file))?;
    let key = match text.parse::<PublicKey>() {
        Ok(key) => key,
        Err(_) => secret_key(&args.file, context, output)?.public(),
    };
    let id = key.id().into();
    output.data(&Key { key, id, secret_file: None, public_file: None })
}

impl View for Key {
    fn show(&self, page: &mut Page) {
        if let (Some(secret), Some(public)) = (&self.secret_file, &self.public_file) {
            page.line(format_args!("Key {} is made.", self.id));
            page.fields(
                2,
                &[
                    ("Secret key", format!("{}, to sign with", secret.display())),
                    ("Public key", format!("{}, for everybody", public.display())),
                ],
            );
        }
        page.line(&self.key);
    }
}
