//! System calls as documents write them: `open(file, O_RDONLY|O_TRUNC)`.
//!
//! A page of the documentation says what a call gives; a test reads the page,
//! performs the call, and compares. So a call that the page has and this file does
//! not know is an error, never a success.

mod given;
mod steps;
mod words;

use std::io;

use crate::sys;

/// A call that can be performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who makes it, if not root.
    user: Option<u32>,
    name: String,
    arguments: Vec<String>,
}

/// What makes a call fail: an errno.
type Errno = io::Error;

impl Call {
    /// Reads `name(argument, argument)`, with `as USER: ` before it or not.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no call");
        let (user, call) = match text.strip_prefix("as ") {
            None => (None, text),
            Some(rest) => {
                let (user, call) = rest.split_once(": ").ok_or_else(wrong)?;
                (Some(user.parse().map_err(|_| wrong())?), call)
            }
        };
        let (name, rest) = call.split_once('(').ok_or_else(wrong)?;
        let rest = rest.strip_suffix(')').ok_or_else(wrong)?;
        let (mut arguments, mut depth, mut current) = (Vec::new(), 0_usize, String::new());
        for char in rest.chars() {
            match char {
                ',' if depth == 0 => arguments.push(std::mem::take(&mut current)),
                _ => current.push(char),
            }
            match char {
                '(' => depth += 1,
                ')' => depth = depth.checked_sub(1).ok_or_else(wrong)?,
                _ => {}
            }
        }
        if !current.is_empty() || !arguments.is_empty() {
            arguments.push(current);
        }
        let arguments = arguments.iter().map(|argument| repeated(argument.trim())).collect();
        Ok(Self { user, name: name.into(), arguments })
    }

    /// Makes the call; paths are relative to the working directory.
    ///
    /// Returns what it gave: a value, or `ok` if it has none, or the name of an errno.
    ///
    /// # Errors
    /// If there is no such call, or it has other arguments.
    pub fn perform(&self) -> Result<String, String> {
        let Some(user) = self.user else { return self.perform_here() };
        let work = move || {
            sys::become_user(user).map_err(|err| format!("cannot become user {user}: {err}"))?;
            self.perform_here()
        };
        std::thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
    }

    fn perform_here(&self) -> Result<String, String> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let unknown = || format!("no call {}({})", self.name, self.arguments.join(", "));
        let given = given::given(&self.name, &arguments).ok_or_else(unknown)??;
        Ok(match given {
            Ok(value) => value,
            Err(err) => {
                let code = err.raw_os_error();
                let name = code.and_then(|code| ERRNOS.iter().find(|(it, _)| *it == code));
                name.map_or_else(|| format!("{err:?}"), |(_, name)| (*name).into())
            }
        })
    }
}

/// `x*3` is `xxx`: names of a length that matters.
fn repeated(argument: &str) -> String {
    match argument.rsplit_once('*').and_then(|(text, count)| Some((text, count.parse().ok()?))) {
        Some((text, count)) => text.repeat(count),
        None => argument.into(),
    }
}

/// The errors that pages name.
const ERRNOS: [(i32, &str); 32] = [
    (libc::EACCES, "EACCES"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::EBADF, "EBADF"),
    (libc::EBUSY, "EBUSY"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::EEXIST, "EEXIST"),
    (libc::EFBIG, "EFBIG"),
    (libc::EINVAL, "EINVAL"),
    (libc::EIO, "EIO"),
    (libc::EISDIR, "EISDIR"),
    (libc::ELOOP, "ELOOP"),
    (libc::EMFILE, "EMFILE"),
    (libc::EMLINK, "EMLINK"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENODATA, "ENODATA"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOEXEC, "ENOEXEC"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ENXIO, "ENXIO"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EPERM, "EPERM"),
    (libc::ERANGE, "ERANGE"),
    (libc::EROFS, "EROFS"),
    (libc::ESTALE, "ESTALE"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::EXDEV, "EXDEV"),
    (libc::ENOTCONN, "ENOTCONN"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_is_written() {
        let call = Call::parse("as 7: inotify(a, rename(b, x*3))").unwrap();
        let expected = ["a", "rename(b, x*3)"].map(String::from).to_vec();
        assert_eq!((call.user, call.name.as_str()), (Some(7), "inotify"));
        assert_eq!(call.arguments, expected);
        assert_eq!(Call::parse("f(x*3)").unwrap().arguments, ["xxx"]);
        for text in ["open", "open(a", "as x: open(a)", "open(a))"] {
            assert!(Call::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_unknown_is_never_a_success() {
        for text in ["fly(file)", "open(.)", "open(., O_FLY)", "stat(., shape)", "open(., 1, 2, 3)"]
        {
            let call = Call::parse(text).unwrap();
            assert!(call.perform().is_err(), "{text}");
        }
        assert_eq!(Call::parse("lstat(nothing)").unwrap().perform().unwrap(), "ENOENT");
    }
}
