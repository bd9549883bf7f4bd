//! The records of one table, by key.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

/// Records in order of their keys. Those of the outbox come in ascending order and leave from the front: they lie
/// in a row, and only what comes out of order takes a tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    row: VecDeque<(Key, Vec<u8>)>,
    tree: BTreeMap<Key, Vec<u8>>,
}

impl Records {
    fn place(&self, key: &Key) -> Result<usize, usize> {
        self.row.binary_search_by(|(at, _)| at.cmp(key))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let key = Key::new(key);
        let in_row = self.place(&key).ok().and_then(|at| self.row.get(at)).map(|(_, value)| value);
        in_row.or_else(|| self.tree.get(&key)).map(Vec::as_slice)
    }

    pub(super) fn insert(&mut self, key: Key, value: Vec<u8>) {
        if self.row.back().is_none_or(|(last, _)| *last < key) && !self.tree.contains_key(&key) {
            self.row.push_back((key, value));
            return;
        }
        match self.place(&key).ok().and_then(|at| self.row.get_mut(at)) {
            Some((_, held)) => *held = value,
            None => drop(self.tree.insert(key, value)),
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        match self.place(key) {
            Ok(at) => drop(self.row.remove(at)),
            Err(_) => drop(self.tree.remove(key)),
        }
    }

    /// Visits the records at or above `from`, ascending, until the visitor breaks off.
    pub(super) fn visit(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
        let from = Key::new(from);
        let first = self.row.partition_point(|(key, _)| *key < from);
        let mut row = self.row.iter().skip(first).map(|(key, value)| (key, value)).peekable();
        let mut tree = self.tree.range(from..).peekable();
        let mut buffer = Vec::new();
        loop {
            let row_first = match (row.peek(), tree.peek()) {
                (None, None) => return,
                (Some((one, _)), Some((two, _))) => one < two,
                (one, _) => one.is_some(),
            };
            let Some((key, value)) = (if row_first { row.next() } else { tree.next() }) else { return };
            if visit(key.read(&mut buffer), value).is_break() {
                return;
            }
        }
    }
}

/// A record's key. Its first bytes are compared as a number: most keys are not longer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    /// Padded with zeros.
    first: u64,
    /// How many of them there are.
    len: u8,
    rest: Box<[u8]>,
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Self {
        if let Some((first, rest)) = bytes.split_first_chunk() {
            return Self { first: u64::from_be_bytes(*first), len: 8, rest: rest.into() };
        }
        let (mut first, mut len) = ([0; 8], 0);
        for (to, from) in first.iter_mut().zip(bytes) {
            *to = *from;
            len += 1;
        }
        Self { first: u64::from_be_bytes(first), len, rest: Box::default() }
    }

    /// The bytes, in a buffer.
    fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> &'b [u8] {
        buffer.clear();
        buffer.extend(self.first.to_be_bytes().iter().take(usize::from(self.len)));
        buffer.extend_from_slice(&self.rest);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_in_and_out_of_order_are_those_of_a_map() {
        let (mut records, mut model) = (Records::default(), BTreeMap::<Vec<u8>, Vec<u8>>::new());
        let mut random = 1_u64;
        for step in 0..4000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = random >> 33;
            let key = match pick % 4 {
                0 => step.to_be_bytes().to_vec(),
                1 => (pick % 4000).to_be_bytes().to_vec(),
                2 => (pick % 4000).to_be_bytes()[6..].to_vec(),
                _ => [&(pick % 100).to_be_bytes()[..], &[7, 0]].concat(),
            };
            if pick % 7 < 4 {
                records.insert(Key::new(&key), step.to_be_bytes().to_vec());
                model.insert(key.clone(), step.to_be_bytes().to_vec());
            } else {
                records.remove(&Key::new(&key));
                model.remove(&key);
            }
            assert_eq!(records.get(&key), model.get(&key).map(Vec::as_slice));
        }
        for from in [vec![], vec![0, 1], 900_u64.to_be_bytes().to_vec()] {
            let mut seen = Vec::new();
            records.visit(&from, &mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            });
            assert!(seen.into_iter().eq(model.range(from..).map(|(k, v)| (k.clone(), v.clone()))));
        }
    }
}
