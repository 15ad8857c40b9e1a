//! Keys that sign indices, in the format of minisign.
//!
//! Whoever takes over an index has bytes from outside in hand: they go to
//! `minisign-verify`, which checks every length. Making keys and signatures is
//! done by `minisign`.

use std::fmt;
use std::str::FromStr;

use ct_codecs::{Base64, Decoder};
use serde::{Serialize, Serializer};

/// A key that proves signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(super) key: minisign_verify::PublicKey,
    text: String,
    id: String,
}

/// Why something is no key, or cannot be used as one.
#[derive(Debug, thiserror::Error)]
pub enum KeyProblem {
    /// The text is none.
    #[error("it is not a public key of minisign, 56 characters that begin with RW")]
    NotPublic,
    /// The text is none.
    #[error("it is not a secret key of minisign")]
    NotSecret,
    /// The key is encrypted, with another password.
    #[error("the password is wrong")]
    WrongPassword,
    /// The key is encrypted.
    #[error("the key has a password, and nobody is there to be asked for it")]
    NoPassword,
    /// The key could not be made.
    #[error("cannot make a key")]
    Make(#[source] minisign::PError),
    /// The key cannot sign.
    #[error("cannot sign")]
    Sign(#[source] minisign::PError),
}

impl PublicKey {
    /// The number that tells people of which key a signature is: 16 digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file that minisign makes of the key.
    #[must_use]
    pub fn to_file(&self) -> String {
        format!("untrusted comment: minisign public key {}\n{}\n", self.id, self.text)
    }
}

/// Reads a key alone, or the file of one, whose first line is a comment.
impl FromStr for PublicKey {
    type Err = KeyProblem;

    fn from_str(text: &str) -> Result<Self, KeyProblem> {
        let mut lines = text.trim().lines();
        let text = match (lines.next(), lines.next(), lines.next()) {
            (Some(key), None, None) => key.trim(),
            (Some(comment), Some(key), None) if comment.starts_with("untrusted comment:") => {
                key.trim()
            }
            _ => return Err(KeyProblem::NotPublic),
        };
        let key = minisign_verify::PublicKey::from_base64(text);
        let key = key.map_err(|_| KeyProblem::NotPublic)?;
        let parts = minisign::PublicKey::from_base64(text).map_err(|_| KeyProblem::NotPublic)?;
        let id = parts.keynum().iter().rev().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self { key, text: text.into(), id })
    }
}

/// Shows the key as one word.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A key that signs.
pub struct SecretKey(minisign::SecretKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

/// Of an algorithm without and with a password, as the file of a key begins:
/// `Ed` and the first byte of zeros, or of `Sc`.
const PLAIN: &str = "RWQA";
const ENCRYPTED: &str = "RWRT";

impl SecretKey {
    /// Makes a key; returns the text of its file and its public key.
    ///
    /// With a password the file is encrypted, which costs a second and 32 MiB
    /// each time it is used.
    pub fn generate(password: Option<String>) -> Result<(String, PublicKey), KeyProblem> {
        let pair = match password {
            Some(password) => minisign::KeyPair::generate_encrypted_keypair(Some(password)),
            None => minisign::KeyPair::generate_unencrypted_keypair(),
        };
        let pair = pair.map_err(KeyProblem::Make)?;
        let text = pair.sk.to_box(Some("minisign secret key")).map_err(KeyProblem::Make)?;
        let public = pair.pk.to_base64().parse().expect("a key that was just made is one");
        Ok((text.into_string(), public))
    }

    /// Whether the file of a key is encrypted.
    #[must_use]
    pub fn is_encrypted(file: &str) -> bool {
        file.lines().nth(1).is_some_and(|line| line.starts_with(ENCRYPTED))
    }

    /// Reads the file of a key. `password` is used if it is encrypted.
    pub fn read(file: &str, password: Option<String>) -> Result<Self, KeyProblem> {
        let boxed = minisign::SecretKeyBox::from_string(file).map_err(|_| KeyProblem::NotSecret)?;
        match file.lines().nth(1) {
            Some(line) if line.starts_with(PLAIN) => {
                // Not through the box, which wants a checksum where minisign
                // itself writes zeros. That the key fits itself is tried out.
                let bytes = Base64::decode_to_vec(line.trim(), None);
                let bytes = bytes.map_err(|_| KeyProblem::NotSecret)?;
                let key = minisign::SecretKey::from_bytes(&bytes);
                let key = Self(key.map_err(|_| KeyProblem::NotSecret)?);
                if key.proves_itself() { Ok(key) } else { Err(KeyProblem::NotSecret) }
            }
            Some(line) if line.starts_with(ENCRYPTED) => {
                let password = password.ok_or(KeyProblem::NoPassword)?;
                let key = boxed.into_secret_key(Some(password)).map_err(|err| match err.kind() {
                    minisign::ErrorKind::Verify => KeyProblem::WrongPassword,
                    _ => KeyProblem::NotSecret,
                });
                key.map(Self)
            }
            _ => Err(KeyProblem::NotSecret),
        }
    }

    fn proves_itself(&self) -> bool {
        let Ok(key) = minisign::PublicKey::from_secret_key(&self.0) else { return false };
        let Ok(key) = key.to_base64().parse::<PublicKey>() else { return false };
        let Ok(file) = self.sign(b"", "") else { return false };
        let signature = minisign_verify::Signature::decode(&file);
        signature.is_ok_and(|it| key.key.verify(b"", &it, false).is_ok())
    }

    /// The key that proves its signatures.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let key = minisign::PublicKey::from_secret_key(&self.0).expect("a secret key has both");
        key.to_base64().parse().expect("it is the key of a whole secret key")
    }

    /// The file of the signature of `bytes`. `statement`, one line, is signed
    /// with them.
    pub(super) fn sign(&self, bytes: &[u8], statement: &str) -> Result<String, KeyProblem> {
        let comment = Some("signature of an index of stones");
        let signature = minisign::sign(None, &self.0, bytes, Some(statement), comment);
        Ok(signature.map_err(KeyProblem::Sign)?.into_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn a_public_key_is_a_word_or_a_file() {
        let key: PublicKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(key.id(), "E7620F1842B4E81F");
        assert_eq!(key.to_file().parse::<PublicKey>().unwrap(), key);
        let file = format!("untrusted comment: minisign public key E7620F1842B4E81F\n{KEY}\n");
        assert_eq!(key.to_file(), file);
        let without_last = &KEY[..55];
        for text in ["", "RWQ", without_last, &format!("x\n{KEY}"), &format!("{KEY}\n{KEY}")] {
            assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_key_reads_back_with_its_password_only() {
        let (file, public) = SecretKey::generate(None).unwrap();
        assert!(!SecretKey::is_encrypted(&file));
        assert_eq!(SecretKey::read(&file, None).unwrap().public(), public);

        let (file, public) = SecretKey::generate(Some("secret".into())).unwrap();
        assert!(SecretKey::is_encrypted(&file));
        let read = |password: Option<&str>| SecretKey::read(&file, password.map(Into::into));
        assert_eq!(read(Some("secret")).unwrap().public(), public);
        assert!(matches!(read(Some("Secret")), Err(KeyProblem::WrongPassword)));
        assert!(matches!(read(None), Err(KeyProblem::NoPassword)));
    }

    #[test]
    fn what_is_no_secret_key_is_refused() {
        let (file, public) = SecretKey::generate(None).unwrap();
        let flipped = file.replacen("RWQA", "RWQB", 1);
        let cut = &file[..file.len() - 20];
        // In the middle of the bytes that sign.
        let mut changed = file.clone().into_bytes();
        let at = file.find("RWQA").unwrap() + 90;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        for text in ["", "x", &public.to_file(), &flipped, cut, &changed] {
            assert!(matches!(SecretKey::read(text, None), Err(KeyProblem::NotSecret)), "{text:?}");
        }
        assert!(!format!("{:?}", SecretKey::read(&file, None)).contains("RWQA"));
    }
}
