//! The text of a recipe, from its file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::problem::{Problem, Span};
use crate::yaml::MAX_LEN;

/// Reads the text of a recipe; no more of it than a recipe may have.
///
/// # Errors
/// [`Error::Io`]; [`Error::Recipe`] for what is too long or is not UTF-8.
pub fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() > MAX_LEN {
        let message = format!("the file has more than {MAX_LEN} bytes");
        let problem = Problem::error(Span::default(), message);
        return Err(Error::Recipe { path: path.into(), problems: vec![problem.located("")] });
    }
    String::from_utf8(bytes).map_err(|err| {
        let at = err.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(err.as_bytes());
        let problem = Problem::error(Span::new(at, at), "the file is not UTF-8 from here on");
        Error::Recipe { path: path.into(), problems: vec![problem.located(&text)] }
    })
}
