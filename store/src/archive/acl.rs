//! Access control lists as archives have them, as text, made what files have.
//!
//! The text is that of acl(5), as GNU tar (`SCHILY.acl.access`, an entry in each line) and
//! libarchive (entries between commas, with the number of a user or group behind) write
//! it.

use super::error::EntryProblem;

/// Source: linux/posix_acl_xattr.h, as all numbers here.
const VERSION: u32 = 2;
const NOBODY: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// An access control list.
///
/// Invariant: sorted as the kernel has it, complete, and nothing is there twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    id: u32,
    permissions: u16,
}

/// The numbers of users and groups that the archive has names of.
pub(super) struct Names<'a> {
    pub(super) user: &'a dyn Fn(&[u8]) -> Option<u32>,
    pub(super) group: &'a dyn Fn(&[u8]) -> Option<u32>,
}

impl Acl {
    pub(super) fn parse(text: &[u8], names: &Names<'_>) -> Result<Self, EntryProblem> {
        let mut entries = Vec::new();
        for part in text.split(|byte| matches!(byte, b'\n' | b',')) {
            // Behind a # stands what is in effect.
            let part = part.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            if !part.is_empty() {
                entries.push(Entry::parse(part, names)?);
            }
        }
        entries.sort_unstable();
        let is_twice = entries.windows(2).any(|pair| {
            let [one, other] = pair else { return false };
            (one.tag, one.id) == (other.tag, other.id)
        });
        let has = |tag| entries.iter().any(|entry| entry.tag == tag);
        let is_complete = [OWNER, OWNING_GROUP, OTHER].into_iter().all(has);
        let needs_mask = has(USER) || has(GROUP);
        if is_twice || !is_complete || needs_mask && !has(MASK) {
            return Err(EntryProblem::Extended("an ACL that is not whole"));
        }
        Ok(Self(entries))
    }

    /// The permissions of a mode that say the same as far as they can.
    pub(super) fn mode(&self) -> u16 {
        let of = |tag| self.0.iter().find(|entry| entry.tag == tag).map(|it| it.permissions);
        let group = of(MASK).or_else(|| of(OWNING_GROUP)).unwrap_or(0);
        of(OWNER).unwrap_or(0) << 6 | group << 3 | of(OTHER).unwrap_or(0)
    }

    /// Whether a mode says all of it.
    pub(super) fn is_a_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The value of the extended attribute.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for Entry { tag, id, permissions } in &self.0 {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }
}

impl Entry {
    /// `user:NAME:rwx`, perhaps with a number behind.
    fn parse(text: &[u8], names: &Names<'_>) -> Result<Self, EntryProblem> {
        let broken = EntryProblem::Extended("an ACL that is not one of acl(5)");
        let mut fields: Vec<&[u8]> = text.split(|byte| *byte == b':').collect();
        let tag = fields.remove(0);
        // One without a name may have only one colon.
        if matches!(tag, b"mask" | b"m" | b"other" | b"o") && fields.len() == 1 {
            fields.insert(0, b"");
        }
        let (name, permissions, number) = match fields[..] {
            [name, permissions] => (name, permissions, None),
            [name, permissions, number] => (name, permissions, Some(number)),
            _ => return Err(broken),
        };
        let (tag, find) = match (tag, name.is_empty()) {
            (b"user" | b"u", true) => (OWNER, None),
            (b"group" | b"g", true) => (OWNING_GROUP, None),
            (b"mask" | b"m", true) => (MASK, None),
            (b"other" | b"o", true) => (OTHER, None),
            (b"user" | b"u", false) => (USER, Some(names.user)),
            (b"group" | b"g", false) => (GROUP, Some(names.group)),
            _ => return Err(broken),
        };
        let id = match find {
            None => NOBODY,
            Some(find) => {
                let known = match number {
                    Some(number) => decimal(number).ok_or(broken)?,
                    None => decimal(name)
                        .or_else(|| find(name))
                        .ok_or_else(|| EntryProblem::AclName(name.into()))?,
                };
                // That number is nobody's.
                if known == NOBODY {
                    return Err(EntryProblem::Number("a user or group of its ACL"));
                }
                known
            }
        };
        let &[read, write, execute] = permissions.as_array().ok_or(BROKEN_PERMISSIONS)?;
        let mut bits = 0;
        for (found, letter, bit) in [(read, b'r', 4), (write, b'w', 2), (execute, b'x', 1)] {
            match found {
                b'-' => {}
                found if found == letter => bits |= bit,
                _ => return Err(BROKEN_PERMISSIONS),
            }
        }
        Ok(Self { tag, id, permissions: bits })
    }
}

const BROKEN_PERMISSIONS: EntryProblem = EntryProblem::Extended("an ACL with odd permissions");

fn decimal(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Acl, EntryProblem> {
        let user = |name: &[u8]| (name == b"lisa").then_some(1000);
        let group = |name: &[u8]| (name == b"staff").then_some(50);
        Acl::parse(text.as_bytes(), &Names { user: &user, group: &group })
    }

    #[test]
    fn the_texts_of_both_programs_are_one_attribute() {
        let expected = [
            [1, 0, 6, 0, 255, 255, 255, 255],
            [2, 0, 4, 0, 1, 0, 0, 0],
            [2, 0, 7, 0, 232, 3, 0, 0],
            [4, 0, 5, 0, 255, 255, 255, 255],
            [8, 0, 1, 0, 50, 0, 0, 0],
            [16, 0, 7, 0, 255, 255, 255, 255],
            [32, 0, 0, 0, 255, 255, 255, 255],
        ];
        let expected = [&[2, 0, 0, 0][..], expected.as_flattened()].concat();
        for text in [
            "user::rw-\nuser:lisa:rwx\nuser:1:r--\ngroup::r-x\ngroup:staff:--x\nmask::rwx\nother::---\n",
            "user::rw-,user:who:r--:1,user:lisa:rwx:1000,group::r-x,group:x:--x:50,mask::rwx,other::---",
            "u::rw-\nu:1:r--\nu:1000:rwx\t#effective:r--\ng::r-x\ng:50:--x\nm:rwx\no:---",
        ] {
            let acl = parse(text).expect(text);
            assert_eq!(acl.encode(), expected, "{text}");
            assert_eq!((acl.mode(), acl.is_a_mode()), (0o670, false));
        }
        let plain = parse("user::rwx,group::r-x,other::r--").expect("a mode");
        assert_eq!((plain.mode(), plain.is_a_mode()), (0o754, true));
    }

    #[test]
    fn what_no_file_can_have_is_refused() {
        let check = |text: &str, expected: &str| {
            let problem = parse(text).expect_err(expected).to_string();
            assert!(problem.contains(expected), "{text}: {problem}, not {expected}");
        };
        check("", "not whole");
        check("user::rwx,group::r-x", "not whole");
        check("user::rwx,user::rwx,group::r-x,other::---", "not whole");
        check("user::rwx,user:1:rwx,group::r-x,other::---", "not whole");
        check("u::r", "odd permissions");
        check("user::rwz", "odd permissions");
        check("user::wrx", "odd permissions");
        check("user", "not one of acl(5)");
        check("mask:lisa:rwx", "not one of acl(5)");
        check("nobody::rwx", "not one of acl(5)");
        check("user:a:rwx:1:2", "not one of acl(5)");
        check("user:a:rwx:x", "not one of acl(5)");
        check("user:bob:rwx", "its ACL names \"bob\"");
        check("group:lisa:rwx", "its ACL names \"lisa\"");
        check("user:4294967295:rwx", "is not a number that it can be");
        check("user:a:rwx:4294967296", "not one of acl(5)");
    }
}
