//! One line that stands for a plan, whole or in part.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::plan::{Action, Fault, Flavour, Plan};

/// The form of tokens and of the plans that they name: a plan that changes with the program changes this.
const VERSION: u8 = 1;

/// The digits of Crockford's base 32: no letter that reads like another.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Names a plan by flavour and seed, and what was left out of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    flavour: Flavour,
    seed: u64,
    /// Steps that are left out.
    without: BTreeSet<u16>,
    /// Steps whose network fault is left out.
    faultless: BTreeSet<u16>,
}

impl Token {
    /// The token of a whole plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self { flavour: plan.flavour, seed: plan.seed, without: BTreeSet::new(), faultless: BTreeSet::new() }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.flavour, self.seed);
        for (number, step) in plan.steps.iter_mut().enumerate() {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            if self.without.contains(&number) {
                *step = None;
            }
            if let Some(step) = step
                && self.faultless.contains(&number)
                && let Action::Sync { fault, .. } = &mut step.action
            {
                *fault = Fault::None;
            }
        }
        plan
    }

    /// Leaves out more; false if all of that was left out before.
    pub(super) fn leave_out(&mut self, steps: &[usize], faults: &[usize]) -> bool {
        let mut fresh = false;
        for (numbers, set) in [(steps, &mut self.without), (faults, &mut self.faultless)] {
            for number in numbers {
                fresh |= set.insert(u16::try_from(*number).unwrap_or(u16::MAX));
            }
        }
        fresh
    }
}

/// Like `r1-0-4f…`: version, then everything in base 32.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.flavour as u8];
        bytes.extend_from_slice(&self.seed.to_be_bytes());
        for set in [&self.without, &self.faultless] {
            // As bits: most steps of a shrunk plan are left out.
            let len = set.last().map_or(0, |last| usize::from(*last) / 8 + 1);
            let mut bits = vec![0_u8; len];
            for number in set {
                bits[usize::from(*number) / 8] |= 1 << (number % 8);
            }
            bytes.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(&bits);
        }
        write!(f, "r{VERSION}-{}", base32(&bytes))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let bad = || BadToken(text.to_owned());
        let digits = text.trim().strip_prefix(&format!("r{VERSION}-")).ok_or_else(bad)?;
        let bytes = from_base32(digits).ok_or_else(bad)?;
        read(&bytes).ok_or_else(bad)
    }
}

fn read(bytes: &[u8]) -> Option<Token> {
    let (flavour, bytes) = bytes.split_first()?;
    let flavour = match flavour {
        0 => Flavour::Core,
        1 => Flavour::Full,
        _ => return None,
    };
    let (seed, mut bytes) = bytes.split_first_chunk()?;
    let mut sets = [BTreeSet::new(), BTreeSet::new()];
    for set in &mut sets {
        let (len, rest) = bytes.split_first_chunk()?;
        let (bits, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        for (at, byte) in bits.iter().enumerate() {
            let bit = |bit: usize| u16::try_from(at * 8 + bit).ok().filter(|_| byte >> bit & 1 == 1);
            set.extend((0..8).filter_map(bit));
        }
        bytes = rest;
    }
    let [without, faultless] = sets;
    Some(Token { flavour, seed: u64::from_be_bytes(*seed), without, faultless })
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(digit(buffer >> bits));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(digit(buffer << (5 - bits)));
    }
    out
}

fn digit(value: u32) -> char {
    char::from(DIGITS[usize::try_from(value & 31).unwrap_or(0)])
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut buffer, mut bits) = (0_u32, 0);
    for character in text.bytes() {
        let value = DIGITS.iter().position(|digit| *digit == character.to_ascii_lowercase())?;
        buffer = buffer << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(buffer >> bits & 255).ok()?);
        }
        buffer &= (1 << bits) - 1;
    }
    Some(out)
}

/// A text that is no token of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no token of this version: give one that `rivus simulate` of the same version printed")]
pub struct BadToken(pub String);
