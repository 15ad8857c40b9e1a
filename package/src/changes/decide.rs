//! What becomes of a file that two sides have changed.

use cairn_store::{Attributes, Content, Leaf};

use super::merge3::merge3;

/// What becomes of a file that two sides may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is as the new version has it.
    Theirs,
    /// It stays as it was changed.
    Ours,
    /// It has both changes.
    Merged {
        /// Its content; that of the changed file without.
        bytes: Option<Vec<u8>>,
        /// Its attributes.
        attributes: Attributes,
    },
    /// Both have changed the same.
    Conflict,
}

/// Decides what becomes of `ours`, which was `base` once, where `base` has become
/// `theirs`. `read` gives the bytes of regular files.
pub(super) fn decide<E>(
    base: &Leaf,
    ours: &Leaf,
    theirs: &Leaf,
    mut read: impl FnMut(&Leaf) -> Result<Option<Vec<u8>>, E>,
) -> Result<Decision, E> {
    let [base_has, ours_has, theirs_has] = [base, ours, theirs].map(|leaf| &leaf.attributes);
    let Some(attributes) = attributes(base_has, ours_has, theirs_has) else {
        return Ok(Decision::Conflict);
    };
    let is_theirs = ours.content == theirs.content || ours.content == base.content;
    // A time alone is no change that anybody has made.
    if is_theirs && attributes.is_like(&theirs.attributes) {
        return Ok(Decision::Theirs);
    }
    if base.content == theirs.content {
        return Ok(match attributes.is_like(&ours.attributes) {
            true => Decision::Ours,
            false => Decision::Merged { bytes: None, attributes },
        });
    }
    if is_theirs {
        // The content is the new one, the attributes are those of both.
        return Ok(match read(theirs)? {
            Some(bytes) => Decision::Merged { bytes: Some(bytes), attributes },
            None => Decision::Conflict,
        });
    }
    let files = [base, ours, theirs];
    if !files.iter().all(|leaf| matches!(leaf.content, Content::File(_))) {
        return Ok(Decision::Conflict);
    }
    let (Some(base), Some(ours), Some(theirs)) = (read(base)?, read(ours)?, read(theirs)?) else {
        return Ok(Decision::Conflict);
    };
    Ok(match merge3(&base, &ours, &theirs) {
        Some(bytes) => Decision::Merged { bytes: Some(bytes), attributes },
        None => Decision::Conflict,
    })
}

/// The attributes of both sides; nothing where they contradict each other.
pub(super) fn attributes(
    base: &Attributes,
    ours: &Attributes,
    theirs: &Attributes,
) -> Option<Attributes> {
    Some(Attributes {
        mode: either(&base.mode, &ours.mode, &theirs.mode)?,
        uid: either(&base.uid, &ours.uid, &theirs.uid)?,
        gid: either(&base.gid, &ours.gid, &theirs.gid)?,
        mtime: theirs.mtime,
        xattrs: either(&base.xattrs, &ours.xattrs, &theirs.xattrs)?,
    })
}

fn either<T: Clone + PartialEq>(base: &T, ours: &T, theirs: &T) -> Option<T> {
    match () {
        () if ours == theirs || theirs == base => Some(ours.clone()),
        () if ours == base => Some(theirs.clone()),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::{BlobRef, Timestamp};

    /// What a file has, a mode and a time that no other number has.
    fn file(text: &str, mode: u16) -> Leaf {
        let seconds = i64::from(mode) + i64::try_from(text.len()).unwrap();
        let attributes =
            Attributes { mtime: Timestamp::new(seconds, 0).unwrap(), ..Attributes::of_root(mode) };
        Leaf { attributes, content: Content::File(BlobRef::of(text.as_bytes())), link: None }
    }

    fn link(text: &str) -> Leaf {
        let content = Content::Symlink(text.as_bytes().into());
        Leaf { attributes: Attributes::of_root(0o777), content, link: None }
    }

    const BASE: &str = "a\n-\nz\n";
    const OURS: &str = "A\n-\nz\n";
    const THEIRS: &str = "a\n-\nZ\n";
    const BOTH: &str = "A\n-\nZ\n";
    const OTHER: &str = "B\n-\nz\n";
    const BYTES: [&str; 2] = ["\0", "\0b"];
    const TEXTS: [&str; 7] = [BASE, OURS, THEIRS, BOTH, OTHER, BYTES[0], BYTES[1]];

    /// Decides; whoever is asked for bytes has those of [`TEXTS`].
    fn decided(base: &Leaf, ours: &Leaf, theirs: &Leaf) -> Decision {
        let read = |leaf: &Leaf| {
            let text = TEXTS
                .iter()
                .find(|text| leaf.content == Content::File(BlobRef::of(text.as_bytes())));
            Ok::<_, std::convert::Infallible>(text.map(|text| text.as_bytes().to_vec()))
        };
        let Ok(decision) = decide(base, ours, theirs, read);
        decision
    }

    /// What both are together, with the attributes of `like` at the time of the new one.
    fn merged(text: Option<&str>, mode: u16, theirs: &Leaf) -> Decision {
        let mtime = theirs.attributes.mtime;
        let attributes = Attributes { mtime, ..Attributes::of_root(mode) };
        Decision::Merged { bytes: text.map(|text| text.as_bytes().to_vec()), attributes }
    }

    #[test]
    fn the_content_is_that_of_whoever_changed_it() {
        let [base, ours, theirs] = [BASE, OURS, THEIRS].map(|text| file(text, 0o644));
        assert_eq!(decided(&base, &ours, &base), Decision::Ours);
        assert_eq!(decided(&base, &base, &theirs), Decision::Theirs);
        assert_eq!(decided(&base, &ours, &ours), Decision::Theirs, "they are the same");
        assert_eq!(decided(&base, &ours, &theirs), merged(Some(BOTH), 0o644, &theirs));
        assert_eq!(decided(&base, &ours, &file(OTHER, 0o644)), Decision::Conflict);
        let mut touched = base.clone();
        touched.attributes.mtime = Timestamp::new(1, 0).unwrap();
        assert_eq!(decided(&base, &touched, &base), Decision::Theirs, "a time alone");
    }

    #[test]
    fn attributes_are_merged_one_by_one_whatever_the_content_is() {
        let [base, private] = [0o644, 0o600].map(|mode| file(BASE, mode));
        assert_eq!(decided(&base, &private, &base), Decision::Ours);
        let theirs = file(THEIRS, 0o644);
        assert_eq!(decided(&base, &private, &theirs), merged(Some(THEIRS), 0o600, &theirs));
        // The new package has another mode, and the same content as before.
        let ours = file(OURS, 0o644);
        assert_eq!(decided(&base, &ours, &private), merged(None, 0o600, &private));
        let theirs = file(THEIRS, 0o600);
        assert_eq!(decided(&base, &ours, &theirs), merged(Some(BOTH), 0o600, &theirs));
        // Two modes contradict each other, as two owners do.
        assert_eq!(decided(&base, &private, &file(BASE, 0o640)), Decision::Conflict);
        let owned = |uid, mode| {
            let mut leaf = file(BASE, mode);
            leaf.attributes.uid = uid;
            leaf
        };
        let theirs = owned(0, 0o600);
        let Decision::Merged { attributes, .. } = decided(&base, &owned(7, 0o644), &theirs) else {
            panic!("an owner and a mode lie apart");
        };
        assert_eq!((attributes.uid, attributes.mode), (7, 0o600));
        assert_eq!(decided(&base, &owned(7, 0o644), &owned(8, 0o644)), Decision::Conflict);
    }

    #[test]
    fn what_is_no_text_is_never_mixed() {
        let base = link("a");
        assert_eq!(decided(&base, &link("b"), &base), Decision::Ours);
        assert_eq!(decided(&base, &link("b"), &link("c")), Decision::Conflict);
        assert_eq!(decided(&base, &link("b"), &link("b")), Decision::Theirs);
        let [ours, theirs] = BYTES.map(|bytes| file(bytes, 0o644));
        assert_eq!(decided(&file(BASE, 0o644), &ours, &theirs), Decision::Conflict);
        // A file with other attributes, and a link in its place: neither has both.
        let mut owned = link("a");
        owned.attributes.uid = 7;
        assert_eq!(decided(&base, &owned, &link("c")), Decision::Conflict);
    }
}
