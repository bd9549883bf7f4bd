//! The harnesses on stable: samples, damaged samples and random bytes.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::*;

/// How many inputs each harness gets.
const INPUTS: usize = 20_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// The sample with a few faults: bytes changed, put in, taken out, or a part of another sample.
    fn damage(&mut self, sample: &[u8], other: &[u8]) -> Vec<u8> {
        let mut data = sample.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len());
            match self.below(6) {
                0 if !data.is_empty() => data[at] = self.next() as u8,
                1 if !data.is_empty() => data[at] ^= 1 << self.below(8),
                2 => data.insert(at, self.next() as u8),
                3 if !data.is_empty() => drop(data.remove(at)),
                4 => data.truncate(at),
                _ => {
                    let from = self.below(other.len());
                    let len = self.below(other.len() - from).min(64);
                    data.splice(at..at, other[from..from + len].iter().copied());
                }
            }
        }
        data
    }
}

fn seed() -> u64 {
    let given = std::env::var("RIVUS_SEED").ok().map(|seed| seed.parse().expect("RIVUS_SEED is a number"));
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

fn feed(harness: fn(&[u8]), samples: &[Vec<u8>], inputs: usize) {
    let seed = seed();
    println!("repeat with RIVUS_SEED={seed}");
    let mut random = Random(seed);
    samples.iter().for_each(|sample| harness(sample));
    for _ in 0..inputs {
        let data = if samples.is_empty() || random.below(8) == 0 {
            let len = random.below(200);
            random.bytes(len)
        } else {
            let (sample, other) = (random.below(samples.len()), random.below(samples.len()));
            random.damage(&samples[sample], &samples[other])
        };
        harness(&data);
    }
}

#[test]
fn frames() {
    feed(frame_decode, &samples::frames(), INPUTS);
}

#[test]
fn connections() {
    feed(session, &samples::heard(), INPUTS / 3);
}

#[test]
fn joins() {
    feed(register_join, &[], 10 * INPUTS);
}

#[test]
fn rows() {
    feed(row, &samples::rows(), INPUTS);
}

#[test]
fn values() {
    let fields =
        [Value::Null, Value::from(-5), Value::from(1.5), Value::from("text"), Value::Bytes(vec![0; 30])];
    let map = Value::Map(fields.iter().map(|value| (format!("{value:?}"), value.clone())).collect());
    let unknown = Value::Unknown { tag: 60_000, bytes: vec![1, 2] };
    let samples = [map, Value::List(fields.to_vec()), unknown].map(|value| value.to_bytes());
    feed(value_decode, &samples, 10 * INPUTS);
}

#[test]
fn schemas() {
    feed(schema_json, &[samples::schema().to_json().into_bytes()], INPUTS);
}
