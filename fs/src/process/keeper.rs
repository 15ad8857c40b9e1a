//! Leaving descriptors with a process that outlives this one.
//!
//! A mount lives as long as somebody has its connection open. A keeper has it
//! open beside the process that answers, and gives it to the next one. The
//! messages are those of sd_notify(3), so that systemd can be the keeper as
//! well as a process of ours.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use crate::sys;

/// A process that keeps descriptors, as the process that leaves them sees it.
#[derive(Clone, Debug)]
pub struct Keeper {
    socket: Arc<UnixDatagram>,
    /// Whether it is a keeper of ours, which can start another program.
    is_ours: bool,
}

impl Keeper {
    /// The supervisor at `socket`, the value of `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn supervisor(socket: &OsStr) -> io::Result<Self> {
        let address = match socket.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        let own = UnixDatagram::unbound()?;
        own.connect_addr(&address)?;
        Ok(Self { socket: Arc::new(own), is_ours: false })
    }

    /// A keeper, and the end at which it listens.
    pub(crate) fn pair() -> io::Result<(Self, UnixDatagram)> {
        let (ours, theirs) = UnixDatagram::pair()?;
        Ok((Self::ours(ours), theirs))
    }

    /// A keeper of ours, at the other end of `socket`.
    pub(crate) fn ours(socket: UnixDatagram) -> Self {
        Self { socket: Arc::new(socket), is_ours: true }
    }

    /// Has a keeper of ours go on with another program, and answer `asker` when that is done
    /// or cannot be; whether it is a keeper of ours.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn restart(
        &self,
        program: BorrowedFd<'_>,
        asker: BorrowedFd<'_>,
    ) -> io::Result<bool> {
        if self.is_ours {
            self.keep(PROGRAM, program)?;
            self.keep(ASKER, asker)?;
        }
        Ok(self.is_ours)
    }

    /// Leaves a copy of `descriptor` there under a name that nothing has there.
    pub(crate) fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        // Without the last line systemd lets go of a connection as soon as its
        // mount has ended, which is as well, but also looks at all others.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
        sys::send_message(&*self.socket, message.as_bytes(), descriptor)
    }

    /// Lets go of what is kept there under a name.
    pub(crate) fn let_go(&self, name: &str) -> io::Result<()> {
        self.socket.send(format!("FDSTOREREMOVE=1\nFDNAME={name}\n").as_bytes()).map(drop)
    }

    /// Lets go of the mount that is kept there, which ends with the last process that
    /// has it.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn abandon(&self) -> io::Result<()> {
        let names = [CONNECTION, LEDGER, CONTROL, WORKSPACE, OVERLAY];
        names.iter().try_for_each(|name| self.let_go(name))
    }

    /// Says that the mount can be used.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn ready(&self) -> io::Result<()> {
        let message = format!("READY=1\nMAINPID={}\n", std::process::id());
        self.socket.send(message.as_bytes()).map(drop)
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Descriptors that were kept for a process, by name.
#[derive(Debug, Default)]
pub struct Kept(Vec<(String, OwnedFd)>);

impl Kept {
    /// What a supervisor gives to a process that it has started, with the names
    /// from `LISTEN_FDNAMES`.
    #[must_use]
    pub fn new(descriptors: Vec<(String, OwnedFd)>) -> Self {
        Self(descriptors)
    }

    /// Whether there is a mount to take over.
    #[must_use]
    pub fn has_mount(&self) -> bool {
        [CONNECTION, LEDGER, CONTROL]
            .iter()
            .all(|name| self.0.iter().any(|(known, _)| known == name))
    }

    /// Whether that shows a workspace, for [`workspace::resume`](crate::workspace::resume).
    #[must_use]
    pub fn has_workspace(&self) -> bool {
        self.get(WORKSPACE).is_some()
    }

    /// What has a name.
    pub(crate) fn get(&self, name: &str) -> Option<&OwnedFd> {
        self.0.iter().find_map(|(known, descriptor)| (known == name).then_some(descriptor))
    }

    /// Keeps a descriptor in place of what had its name.
    pub(crate) fn put(&mut self, name: &str, descriptor: OwnedFd) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.into(), descriptor));
    }

    /// Does something with each.
    pub(crate) fn each(
        &self,
        mut work: impl FnMut(&str, &OwnedFd) -> io::Result<()>,
    ) -> io::Result<()> {
        self.0.iter().try_for_each(|(name, descriptor)| work(name, descriptor))
    }

    /// Takes out what has a name.
    pub(crate) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes out what has a name that begins so.
    pub(crate) fn take_all(&mut self, prefix: &str) -> Vec<(String, OwnedFd)> {
        self.0.extract_if(.., |(name, _)| name.starts_with(prefix)).collect()
    }

    /// Does what a message from a process asks for; says whether it is the one
    /// that the mount can be used.
    pub(crate) fn receive(&mut self, socket: &impl AsFd) -> io::Result<bool> {
        let mut message = [0; 256];
        let (len, descriptor) = sys::receive_message(socket, &mut message)?;
        let lines = || message[..len].split(|byte| *byte == b'\n');
        let name = lines().find_map(|line| line.strip_prefix(b"FDNAME="));
        let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else {
            return Ok(lines().any(|line| line == b"READY=1"));
        };
        if lines().any(|line| line == b"FDSTOREREMOVE=1") {
            self.0.retain(|(known, _)| known != name);
        }
        if let Some(descriptor) = descriptor {
            self.put(name, descriptor);
        }
        Ok(false)
    }
}

/// The connection to the kernel.
pub(crate) const CONNECTION: &str = "connection";
/// The ledger of what the kernel knows.
pub(crate) const LEDGER: &str = "ledger";
/// The control socket.
pub(crate) const CONTROL: &str = "control";
/// The lock of the workspace that it shows.
pub(crate) const WORKSPACE: &str = "workspace";
/// What lies below the layer of that, and where the overlay is, in a file in memory.
pub(crate) const OVERLAY: &str = "overlay";
/// What says that a thread of the process has ended.
pub(crate) const THREAD: &str = "thread";
/// Another program, with which the mount is to go on.
pub(crate) const PROGRAM: &str = "program";
/// Who has asked for that, and waits for an answer.
pub(crate) const ASKER: &str = "asker";
/// The end of a keeper's socket at which its processes speak.
pub(crate) const KEEPER: &str = "keeper";
/// The end at which it listens.
pub(crate) const MESSAGES: &str = "messages";
/// What was the root directory before the process of a system's root was confined.
pub(crate) const OUTSIDE: &str = "outside";
/// The locked registration; its name goes on with a number, since there are two
/// while one takes the place of the other.
pub(crate) const REGISTRATION: &str = "registration-";

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_was_left_comes_back_and_what_was_let_go_does_not() {
        let (keeper, socket) = Keeper::pair().unwrap();
        let mut kept = Kept::default();
        let pipes: Vec<_> = (0..3).map(|_| io::pipe().unwrap()).collect();
        for (name, (reader, _)) in [CONNECTION, LEDGER, CONTROL].iter().zip(&pipes) {
            assert!(!kept.has_mount());
            keeper.keep(name, reader.as_fd()).unwrap();
            assert!(!kept.receive(&socket).unwrap());
        }
        keeper.ready().unwrap();
        assert!(kept.receive(&socket).unwrap());
        assert!(kept.has_mount());
        keeper.let_go(LEDGER).unwrap();
        kept.receive(&socket).unwrap();
        assert!(!kept.has_mount());
        let connection = kept.take(CONNECTION).unwrap();
        for (reader, writer) in pipes {
            drop((reader, writer));
        }
        let mut rest = Vec::new();
        std::fs::File::from(connection).read_to_end(&mut rest).unwrap();
        assert_eq!(kept.take_all("con").len(), 1);
    }
}
