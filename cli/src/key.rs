//! Reading secret keys, and asking for their passwords.

use std::fs;
use std::path::Path;

use cairn_package::repository::{KeyProblem, SecretKey};

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// The secret key in a file, for whose password the user is asked if it has
/// one.
pub(crate) fn secret_key(
    path: &Path,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<SecretKey, Error> {
    let failed = |source| Error::Key { text: path.display().to_string(), source };
    let file = fs::read_to_string(path).map_err(Error::read(path))?;
    let mut password = None;
    if SecretKey::is_encrypted(&file) {
        password = match context.key_password() {
            Some(password) => Some(password),
            None => Some(
                output
                    .ask_secretly(&format!("Password of {}: ", path.display()))?
                    .ok_or_else(|| failed(KeyProblem::NoPassword))?,
            ),
        };
    }
    SecretKey::read(&file, password).map_err(failed)
}
