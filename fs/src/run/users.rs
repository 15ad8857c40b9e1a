//! Who one can be in a user namespace: root, as which the user goes who makes it, and
//! further users, where the machine gives some to that one.
//!
//! The kernel lets an ordinary user map nobody but the own user and group. `newuidmap` and
//! `newgidmap`, which run as root, map also what /etc/subuid and /etc/subgid give
//! (user_namespaces(7), newuidmap(1), subuid(5)). They have to run outside of the namespace, and
//! know the process by its number there. Where one of it is missing, root is alone.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::inside::{During, Result};
use crate::sys::{self, Forked};

/// The users of a namespace that is about to be made.
#[derive(Debug)]
pub(crate) struct Users {
    /// User and group that are root inside.
    root: (u32, u32),
    /// A process outside that can map the others.
    helper: Option<UnixStream>,
}

/// What a helper has mapped, as bits of its answer.
const USERS: u8 = 1;
const GROUPS: u8 = 2;

impl Users {
    /// Root alone; `None` if this process is root already, and needs no namespace.
    pub(crate) fn root_alone() -> Option<Self> {
        let root = sys::effective_user();
        (root.0 != 0).then_some(Self { root, helper: None })
    }

    /// Root, and all whom the machine gives to this user. Before the namespace is made, by a
    /// process that has one thread.
    ///
    /// # Errors
    /// When no process can be made.
    pub(crate) fn all() -> io::Result<Option<Self>> {
        let Some(mut users) = Self::root_alone() else { return Ok(None) };
        let name = name_of(users.root.0);
        let given = |file: &str| {
            let text = fs::read_to_string(file).ok()?;
            range(&text, users.root.0, name.as_deref())
        };
        if let (Some(uids), Some(gids)) = (given("/etc/subuid"), given("/etc/subgid")) {
            users.helper = Some(help(users.root, uids, gids)?);
        }
        Ok(Some(users))
    }

    /// Makes this process root of the namespace that it is in.
    pub(crate) fn map(mut self) -> Result<()> {
        let write =
            |file: &str, text: &str| fs::write(file, text).during(|| format!("write {file}"));
        let mapped = self.helper.take().map_or(0, |helper| hear(helper).unwrap_or(0));
        if mapped & USERS == 0 {
            write("/proc/self/uid_map", &format!("0 {} 1\n", self.root.0))?;
        }
        if mapped & GROUPS == 0 {
            // Without this the kernel does not let an ordinary user map a group.
            write("/proc/self/setgroups", "deny")?;
            write("/proc/self/gid_map", &format!("0 {} 1\n", self.root.1))?;
        }
        Ok(())
    }
}

/// Asks a helper to map the users and groups of this process; what it has mapped.
fn hear(mut helper: UnixStream) -> io::Result<u8> {
    // In a namespace of its own for processes this one has another number.
    let outside = fs::read_link("/proc/self")?;
    helper.write_all(outside.as_os_str().as_encoded_bytes())?;
    helper.shutdown(std::net::Shutdown::Write)?;
    let mut answer = [0];
    helper.read_exact(&mut answer)?;
    Ok(answer[0])
}

/// Starts a process that maps users and groups for whoever asks at the other end, and ends when
/// nobody can any more. It is nobody's child.
fn help(root: (u32, u32), uids: Range, gids: Range) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Forked::Parent(child) => {
            sys::wait_for(child)?;
            Ok(ours)
        }
        Forked::Child => {
            if let Ok(Forked::Child) = sys::fork() {
                drop(ours);
                // If nobody hears it, nobody wants to know.
                let _ = answer(theirs, root, uids, gids);
            }
            sys::exit(0)
        }
    }
}

/// Maps what is asked for, and says what was.
fn answer(mut asker: UnixStream, root: (u32, u32), uids: Range, gids: Range) -> io::Result<()> {
    let mut process = String::new();
    asker.read_to_string(&mut process)?;
    if process.is_empty() {
        return Ok(());
    }
    let is_mapped = |program: &str, root: u32, (first, count): Range| {
        let map = [0, root, 1, 1, first, count].map(|number| number.to_string());
        let mut command = Command::new(program);
        command.arg(&process).args(map).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let users = u8::from(is_mapped("newuidmap", root.0, uids)) * USERS;
    let groups = u8::from(is_mapped("newgidmap", root.1, gids)) * GROUPS;
    asker.write_all(&[users | groups])
}

/// The first of some ids, and how many they are.
type Range = (u32, u32);

/// The first range that a file of the form of subuid(5) gives to a user.
fn range(text: &str, user: u32, name: Option<&str>) -> Option<Range> {
    let number = user.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        if owner != number && Some(owner) != name {
            return None;
        }
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (count > 0).then_some((first, count))
    })
}

/// The name that /etc/passwd has for a user.
fn name_of(user: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let number = user.to_string();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&number))?;
    line.split(':').next().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_the_first_range_of_its_name_or_number() {
        let text =
            "# who has what\nada:100000:65536\n7:5:0\nbob:x:1\nbob:9\n7:200000:10\nada:1:1\n";
        let of = |user, name| range(text, user, name);
        assert_eq!(of(1000, Some("ada")), Some((100_000, 65_536)));
        assert_eq!(of(7, None), Some((200_000, 10)), "none is no range");
        assert_eq!(of(8, Some("bob")), None, "what cannot be read gives nothing");
        assert_eq!(of(8, None), None);
        assert_eq!(range(":1:2\n", 8, None), None);
    }
}
