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
    let Some(attributes) = attributes(base, ours, theirs) else { return Ok(Decision::Conflict) };
    if ours.content == theirs.content || ours.content == base.content {
        let same = is_same(&attributes, &theirs.attributes);
        // A time alone is no change that anybody has made.
        return Ok(match same {
            true => Decision::Theirs,
            false if base.content == theirs.content => Decision::Ours,
            false => {
                // The content is the new one, the attributes are those of both.
                let bytes = read(theirs)?;
                match bytes {
                    Some(_) => Decision::Merged { bytes, attributes },
                    None => Decision::Conflict,
                }
            }
        });
    }
    if base.content == theirs.content {
        return Ok(match is_same(&attributes, &ours.attributes) {
            true => Decision::Ours,
            false => Decision::Merged { bytes: None, attributes },
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
fn attributes(base: &Leaf, ours: &Leaf, theirs: &Leaf) -> Option<Attributes> {
    let (base, ours, theirs) = (&base.attributes, &ours.attributes, &theirs.attributes);
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

fn is_same(one: &Attributes, other: &Attributes) -> bool {
    let timeless = |it: &Attributes| Attributes { mtime: Default::default(), ..it.clone() };
    timeless(one) == timeless(other)
}
