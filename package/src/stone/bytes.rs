//! Decodes the big-endian records of a payload, by value and with every
//! length checked against the bytes that are there.

use super::error::{Error, Result};
use super::header::PayloadKind;

/// What is wrong with a record.
pub(super) type Problem = &'static str;

/// The bytes of a payload that are not decoded yet.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Problem> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (taken, rest) = split.ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("it ends too early")?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Problem> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Problem> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Problem> {
        self.array().map(i64::from_be_bytes)
    }
}

/// Decodes exactly `count` records, which must fill `plain`; nothing comes
/// after the first error.
///
/// No memory is reserved for `count`: the records are as many as there are
/// bytes for, or it is an error.
pub(super) fn records<T>(
    kind: PayloadKind,
    count: u32,
    plain: &[u8],
    one: impl Fn(&mut Cursor<'_>) -> Result<T, Problem>,
) -> impl Iterator<Item = Result<T>> {
    let mut from = Cursor::new(plain);
    let mut numbers = 0..count;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let record = match numbers.next() {
            Some(number) => Some(one(&mut from).map_err(|problem| Error::InvalidRecord {
                kind,
                number,
                problem,
            })),
            None if from.rest.is_empty() => None,
            None => Some(Err(Error::BytesAfterRecords { kind, bytes: from.rest.len() })),
        };
        ended = !matches!(record, Some(Ok(_)));
        record
    })
}

/// `bytes` without the NULs at their end, which some writers count and others
/// leave out.
pub(super) fn without_nuls(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = bytes {
        bytes = rest;
    }
    bytes
}
