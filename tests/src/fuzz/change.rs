//! Bytes that nobody has thought of, made from some that are right.

use std::ops::Range;

use crate::Random;

/// Numbers at which parsers break.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// No change makes bytes longer than this.
const MAX_LEN: usize = 64 << 10;

/// `bytes` with one to four changes, one of which may take something from `others`.
#[must_use]
pub fn changed(bytes: &[u8], others: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        change(&mut bytes, others, random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, others: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(12) {
        0 => bytes.truncate(at),
        1..4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        4..7 => {
            let number = *random.choose(&NUMBERS);
            let len = *random.choose(&[1, 2, 4, 8]);
            let (low, high) = (number.to_le_bytes(), number.to_be_bytes());
            let number = *random.choose(&[&low[..len], &high[8 - len..]]);
            if let Some(place) = bytes.get_mut(at..at + len) {
                place.copy_from_slice(number);
            }
        }
        // Numbers that are written in digits: a length of tar, or JSON.
        7 => {
            let digit = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit());
            if let Some(digit) = digit {
                *digit = *random.choose(b"0123456789-.");
            }
        }
        8 => drop(bytes.drain(part(bytes, random))),
        9 | 10 => {
            let again = bytes[part(bytes, random)].to_vec();
            insert(bytes, at, &again);
        }
        _ => insert(bytes, at, &others[part(others, random)]),
    }
}

/// A short part as often as a long one.
fn part(bytes: &[u8], random: &mut Random) -> Range<usize> {
    let from = random.below(bytes.len() + 1);
    let rest = bytes.len() - from;
    let most = *random.choose(&[4, 64, 1024, MAX_LEN]);
    from..from + random.below(rest.min(most) + 1)
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    if bytes.len() + more.len() <= MAX_LEN {
        bytes.splice(at..at, more.iter().copied());
    }
}
