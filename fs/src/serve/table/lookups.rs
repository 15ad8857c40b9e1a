//! How often the kernel was told of a node, and how sure that is.

/// How often the kernel was told of a node, less how often it has forgotten it.
///
/// Of a node that was taken over the count may be too high, never too low: what
/// was noted may not have been answered, and what was forgotten not noted. So
/// the kernel is asked for such a node when it may have forgotten it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lookups(pub(super) u32);

/// What to do after the kernel has forgotten something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The kernel has forgotten the node altogether.
    Nothing,
    /// The kernel knows it.
    Some,
    /// The kernel may know it, and has to be asked.
    Perhaps,
}

impl Lookups {
    /// Set where the count may be too high.
    pub(super) const INHERITED: u32 = 1 << 31;
    /// How far asking the kernel has come, see [`Doubt`].
    const DOUBT: u32 = 0b11 << 29;
    pub(super) const MAX: u32 = (1 << 29) - 1;

    pub(super) fn count(self) -> u32 {
        self.0 & Self::MAX
    }

    pub(super) fn doubt(self) -> Doubt {
        match (self.0 & Self::DOUBT) >> 29 {
            0 => Doubt::None,
            1 => Doubt::New,
            2 => Doubt::Aged,
            _ => Doubt::Unknown,
        }
    }

    pub(super) fn set_doubt(&mut self, doubt: Doubt) {
        self.0 = self.0 & !Self::DOUBT | (doubt as u32) << 29;
    }

    pub(super) fn add(&mut self) {
        self.set_doubt(Doubt::None);
        // A full count is one of which more may be true; only asking ends it.
        if self.count() < Self::MAX {
            self.0 += 1;
        }
    }

    pub(super) fn forget(&mut self, count: u64) -> Left {
        let known = self.count();
        let rest = match u32::try_from(count) {
            _ if count == u64::MAX => 0,
            _ if known == Self::MAX => known,
            Ok(count) => known.saturating_sub(count),
            Err(_) => 0,
        };
        if rest == 0 {
            self.0 = 0;
            return Left::Nothing;
        }
        self.0 = self.0 - known + rest;
        if self.0 & Self::INHERITED == 0 && known != Self::MAX {
            return Left::Some;
        }
        if self.doubt() != Doubt::None {
            return Left::Some;
        }
        self.set_doubt(Doubt::New);
        Left::Perhaps
    }
}

/// How far asking has come for a node that the kernel may have forgotten without
/// being heard; anew from the beginning whenever the kernel is told of it.
///
/// Between two rounds of asking, callers run who have got an answer, and what
/// the kernel has forgotten is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// There is none.
    None,
    /// There is since the last round: the kernel may have been told just before.
    New,
    /// The next round asks.
    Aged,
    /// The kernel does not know it. What it has forgotten may still be on its
    /// way, and must not meet a count that begins anew: the next round drops it.
    Unknown,
}
