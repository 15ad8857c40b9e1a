//! Which errno says what; no other file chooses one.

use fuser::Errno;

use crate::serve::filesystem::Refusal;

pub(crate) fn of(refusal: &Refusal) -> Errno {
    match refusal {
        Refusal::Stale => Errno::ESTALE,
        Refusal::Gone => Errno::ENOENT,
        Refusal::NotADirectory => Errno::ENOTDIR,
        Refusal::IsADirectory => Errno::EISDIR,
        Refusal::Invalid => Errno::EINVAL,
        Refusal::NameTooLong => Errno::ENAMETOOLONG,
        Refusal::NoAttribute => Errno::ENODATA,
        Refusal::NotSupported => Errno::EOPNOTSUPP,
        Refusal::TooSmall => Errno::ERANGE,
        Refusal::Unreadable { .. } | Refusal::Short { .. } => Errno::EIO,
    }
}
