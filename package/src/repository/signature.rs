//! What a signature of an index says, and whether it is believed.
//!
//! Format: docs/repositories.md, "Signatures".

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::key::{KeyProblem, SecretKey};

pub use super::key::PublicKey;

/// A signature may not be longer.
pub(super) const MAX_LEN: u64 = 16 << 10;

/// What comes after the name of an index.
pub(super) const SUFFIX: &str = ".minisig";

/// What is signed together with an index: the trusted comment of minisign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Of which repository the index is.
    pub repository: Identity,
    /// Larger in each newer index.
    pub sequence: u64,
    /// When it was signed, in seconds since 1970.
    pub signed: u64,
    /// Until when it is believed, in seconds since 1970; none for ever.
    pub expires: Option<u64>,
}

/// The name that a repository has for whoever signs it.
///
/// Invariant: 1 to 128 visible characters of ASCII.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Identity(String);

/// A text that cannot be an [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot identify a repository: use up to 128 characters without spaces")]
pub struct InvalidIdentity(String);

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let fits = (1..=128).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIdentity(text.into()))
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a signature is not believed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum SignatureProblem {
    /// It is not a signature of minisign.
    #[error("it is not a signature in the format of minisign")]
    Malformed,
    /// It was made with a key that the repository is not pinned to.
    #[error("it was made with another key")]
    OtherKey,
    /// It is not that of this index.
    #[error("it does not fit the index")]
    Forged,
    /// It says nothing of repositories, so that it was made for something else.
    #[error("it was not made for an index: {problem}")]
    Statement { problem: &'static str },
}

impl Statement {
    /// Whether it is not believed any more at `now`.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let fields: Vec<(&str, &str)> =
            text.split('\t').filter_map(|it| it.split_once(':')).collect();
        let field = |name: &str| {
            let mut found = fields.iter().filter(|(it, _)| *it == name).map(|(_, value)| *value);
            let value = found.next();
            // Two readers could take one or the other.
            if found.next().is_some() { Err("it says something twice") } else { Ok(value) }
        };
        let number = |name| {
            let value = field(name)?.map(str::parse::<u64>).transpose();
            value.map_err(|_| "a number of it is none")
        };
        match field("cairn")? {
            Some("1") => {}
            Some(_) => return Err("it is of a newer version of Cairn"),
            None => return Err("it does not say so"),
        }
        let repository = field("repository")?.ok_or("it names no repository")?;
        Ok(Self {
            repository: repository.parse().map_err(|_| "it names no repository")?,
            sequence: number("sequence")?.ok_or("it has no sequence number")?,
            signed: number("timestamp")?.ok_or("it has no time")?,
            expires: number("expires")?,
        })
    }

    /// The file of the signature of an index, which says this.
    pub(super) fn sign(&self, index: &[u8], key: &SecretKey) -> Result<String, KeyProblem> {
        key.sign(index, &self.to_string())
    }

    /// What the signature in `file` says, which one of `keys` made for
    /// `index`, and which of them.
    ///
    /// Nothing of it is looked at before it is proved.
    pub(super) fn verify<'k>(
        file: &[u8],
        index: &[u8],
        keys: &'k [PublicKey],
    ) -> Result<(Self, &'k PublicKey), SignatureProblem> {
        let text = str::from_utf8(file).map_err(|_| SignatureProblem::Malformed)?;
        let signature = minisign_verify::Signature::decode(text);
        let signature = signature.map_err(|_| SignatureProblem::Malformed)?;
        for key in keys {
            match key.key.verify(index, &signature, false) {
                Ok(()) => {
                    let statement = Self::parse(signature.trusted_comment());
                    let statement =
                        statement.map_err(|problem| SignatureProblem::Statement { problem })?;
                    return Ok((statement, key));
                }
                Err(minisign_verify::Error::UnexpectedKeyId) => {}
                Err(_) => return Err(SignatureProblem::Forged),
            }
        }
        Err(SignatureProblem::OtherKey)
    }

    /// What a signature says that nobody has proved: good for the next one
    /// that is made in the same place.
    pub(super) fn unproved(file: &[u8]) -> Option<Self> {
        let signature = minisign_verify::Signature::decode(str::from_utf8(file).ok()?).ok()?;
        Self::parse(signature.trusted_comment()).ok()
    }
}

/// Shows the trusted comment.
impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repository, sequence, signed, expires } = self;
        // The first words are those of minisign's own comments.
        write!(f, "timestamp:{signed}\tfile:stone.index\thashed\tcairn:1")?;
        write!(f, "\trepository:{repository}\tsequence:{sequence}")?;
        expires.map_or(Ok(()), |expires| write!(f, "\texpires:{expires}"))
    }
}

/// The time in seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        let repository = "debian/main".parse().unwrap();
        Statement { repository, sequence: 7, signed: 1_700_000_000, expires: Some(1_800_000_000) }
    }

    fn key() -> SecretKey {
        SecretKey::read(&SecretKey::generate(None).unwrap().0, None).unwrap()
    }

    #[test]
    fn a_statement_reads_back() {
        let statement = statement();
        assert_eq!(Statement::parse(&statement.to_string()), Ok(statement.clone()));
        let forever = Statement { expires: None, ..statement };
        assert_eq!(Statement::parse(&forever.to_string()), Ok(forever));
    }

    #[test]
    fn what_is_not_a_whole_statement_is_refused() {
        let whole = statement().to_string();
        let check = |from: &str, to: &str, expected: &str| {
            let text = whole.replacen(from, to, 1);
            assert_ne!(text, whole, "{from}");
            assert_eq!(Statement::parse(&text), Err(expected), "{text}");
        };
        check("cairn:1", "", "it does not say so");
        check("cairn:1", "cairn:2", "it is of a newer version of Cairn");
        check("repository:debian/main", "", "it names no repository");
        check("repository:debian/main", "repository:", "it names no repository");
        check("debian/main", "debian main", "it names no repository");
        check("sequence:7", "", "it has no sequence number");
        check("sequence:7", "sequence:-7", "a number of it is none");
        check("sequence:7", "sequence:7\tsequence:8", "it says something twice");
        check("timestamp:", "time:", "it has no time");
        check("expires:18", "expires:soon", "a number of it is none");
    }

    #[test]
    fn a_signature_proves_an_index_for_its_key_alone() {
        let (key, other) = (key(), key());
        let file = statement().sign(b"index", &key).unwrap();
        let keys = [other.public(), key.public()];
        let (found, by) = Statement::verify(file.as_bytes(), b"index", &keys).unwrap();
        assert_eq!((found, by), (statement(), &key.public()));

        let problem = |file: &str, index: &[u8], key: &SecretKey| {
            Statement::verify(file.as_bytes(), index, &[key.public()]).unwrap_err()
        };
        assert!(matches!(problem(&file, b"Index", &key), SignatureProblem::Forged));
        assert!(matches!(problem(&file, b"index", &other), SignatureProblem::OtherKey));
        assert!(matches!(problem("x", b"index", &key), SignatureProblem::Malformed));
        // What is signed beside the index cannot be changed either.
        let changed = file.replacen("sequence:7", "sequence:8", 1);
        assert!(matches!(problem(&changed, b"index", &key), SignatureProblem::Forged));
        // A signature of something else than an index.
        let plain = key.sign(b"index", "timestamp:1\tfile:x").unwrap();
        assert!(matches!(problem(&plain, b"index", &key), SignatureProblem::Statement { .. }));
    }

    #[test]
    fn a_broken_signature_is_an_error_wherever_it_is_cut() {
        let key = key();
        let file = statement().sign(b"index", &key).unwrap();
        let keys = [key.public()];
        let whole = file.trim_end().len();
        for len in 0..whole {
            assert!(Statement::verify(&file.as_bytes()[..len], b"index", &keys).is_err(), "{len}");
        }
        for at in 0..whole {
            // The first line is not signed.
            let mut bytes = file.clone().into_bytes();
            bytes[at] ^= 4;
            let is_signed = at > file.find('\n').unwrap();
            if is_signed {
                assert!(Statement::verify(&bytes, b"index", &keys).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn a_statement_expires_at_its_second() {
        assert!(!statement().is_expired(1_799_999_999));
        assert!(statement().is_expired(1_800_000_000));
        assert!(!Statement { expires: None, ..statement() }.is_expired(u64::MAX));
    }
}
