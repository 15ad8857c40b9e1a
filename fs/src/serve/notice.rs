//! What the kernel is told without having asked.
//!
//! fuser knows only some of these messages, and hides whether the kernel knew
//! what it was told of, so they are written here. Source: fuse_notify in
//! fs/fuse/dev.c, and linux/fuse.h.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use fuser::BackingId;

use crate::serve::node::NodeId;
use crate::sys;

const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
const RESEND: i32 = 7;

/// A connection, to tell the kernel things. To be used from threads that answer
/// no requests: the kernel may wait for an answer before it goes on.
#[derive(Clone, Debug)]
pub(crate) struct Notices(Arc<File>);

impl Notices {
    /// A copy of a connection.
    pub(crate) fn of(connection: &impl AsFd) -> io::Result<Self> {
        let connection = connection.as_fd().try_clone_to_owned()?;
        Ok(Self(Arc::new(connection.into())))
    }

    /// `name` in `directory` no longer stands for what it did. Says whether the
    /// kernel had an idea of it.
    pub(crate) fn forget_name(&self, directory: NodeId, name: &[u8]) -> io::Result<bool> {
        self.send(INVAL_ENTRY, &entry(directory, name))
    }

    /// The attributes and pages of `id` have to be asked for anew; of a
    /// directory that is its listing. Says whether the kernel knows it.
    pub(crate) fn look_anew(&self, id: NodeId) -> io::Result<bool> {
        self.send(INVAL_INODE, &inode(id, 0))
    }

    /// Whether the kernel knows the directory `id`; it asks for its attributes
    /// anew when it needs them.
    pub(crate) fn knows_directory(&self, id: NodeId) -> io::Result<bool> {
        self.send(INVAL_INODE, &inode(id, -1))
    }

    /// Whether the kernel knows the file `id`. It is told to forget a name in
    /// it, which it refuses for a file that it knows; nothing else happens.
    pub(crate) fn knows_file(&self, id: NodeId) -> io::Result<bool> {
        match self.send(INVAL_ENTRY, &entry(id, b"x")) {
            Err(err) if err.kind() == io::ErrorKind::NotADirectory => Ok(true),
            result => result,
        }
    }

    /// Requests that were read and never answered are sent once more. Linux before 6.9 does
    /// not do that: their callers wait until they are interrupted, and all others go on.
    pub(crate) fn resend(&self) -> io::Result<()> {
        match self.send(RESEND, &[]) {
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            sent => sent.map(drop),
        }
    }

    /// Has the kernel keep `file` open, to read by itself; returns the backing id under
    /// which it does.
    pub(crate) fn back(&self, file: &File) -> io::Result<u32> {
        BackingId::create_raw(&*self.0, file)
    }

    /// Has the kernel let go of the file that has a backing id.
    pub(crate) fn let_go(&self, id: u32) -> io::Result<()> {
        sys::close_backing(&self.0, id)
    }

    /// `fuse_out_header` and what follows it, in one write.
    fn send(&self, code: i32, body: &[u8]) -> io::Result<bool> {
        let len = u32::try_from(16 + body.len()).expect("a name has at most 255 bytes");
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend_from_slice(&len.to_ne_bytes());
        message.extend_from_slice(&code.to_ne_bytes());
        message.extend_from_slice(&0_u64.to_ne_bytes());
        message.extend_from_slice(body);
        match (&*self.0).write(&message) {
            Ok(_) => Ok(true),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err),
        }
    }
}

/// `fuse_notify_inval_entry_out` and the name.
fn entry(parent: NodeId, name: &[u8]) -> Vec<u8> {
    let len = u32::try_from(name.len()).expect("a name has at most 255 bytes");
    let mut body = parent.get().to_ne_bytes().to_vec();
    body.extend_from_slice(&len.to_ne_bytes());
    body.extend_from_slice(&0_u32.to_ne_bytes());
    body.extend_from_slice(name);
    body.push(0);
    body
}

/// `fuse_notify_inval_inode_out`: pages from `offset` on, none for -1.
fn inode(id: NodeId, offset: i64) -> Vec<u8> {
    let mut body = id.get().to_ne_bytes().to_vec();
    body.extend_from_slice(&offset.to_ne_bytes());
    body.extend_from_slice(&0_i64.to_ne_bytes());
    body
}
