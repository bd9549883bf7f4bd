//! The records of one table, by key.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};

/// Records in order of their keys. Those of the outbox have keys of 8 bytes, come in ascending order and leave from
/// the front: they lie in a row, and only what is otherwise takes a tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    row: VecDeque<InRow>,
    /// Where the values of the row are, one behind the other.
    blocks: VecDeque<Block>,
    /// The number of the first block.
    first: u32,
    tree: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct InRow {
    key: u64,
    block: u32,
    start: u32,
    len: u32,
}

#[derive(Clone, Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    /// How many records have their value here.
    live: u32,
}

/// How much a block takes before the next is begun, in bytes.
const BLOCK_BYTES: usize = 64 << 10;

impl Records {
    /// Where the key is in the row, if it is there.
    fn place(&self, key: &[u8]) -> Option<usize> {
        let key = u64::from_be_bytes(key.try_into().ok()?);
        self.row.binary_search_by_key(&key, |at| at.key).ok()
    }

    fn value(&self, at: &InRow) -> &[u8] {
        let (start, len) = (at.start as usize, at.len as usize);
        let block = self.blocks.get(at.block.wrapping_sub(self.first) as usize);
        block.and_then(|block| block.bytes.get(start..start + len)).unwrap_or_default()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let in_row = self.place(key).and_then(|at| self.row.get(at));
        in_row.map(|at| self.value(at)).or_else(|| self.tree.get(key).map(Vec::as_slice))
    }

    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) {
        let number =
            key.try_into().ok().map(u64::from_be_bytes).filter(|_| u32::try_from(value.len()).is_ok());
        let Some(number) = number else {
            self.tree.insert(key.to_vec(), value.to_vec());
            return;
        };
        let is_last = self.row.back().is_none_or(|last| last.key < number);
        if is_last && (self.tree.is_empty() || !self.tree.contains_key(key)) {
            let added = self.add(number, value);
            self.row.push_back(added);
        } else if let Ok(at) = self.row.binary_search_by_key(&number, |at| at.key) {
            let added = self.add(number, value);
            let held = self.row.get_mut(at).map(|place| std::mem::replace(place, added));
            held.into_iter().for_each(|held| self.release(held));
        } else {
            self.tree.insert(key.to_vec(), value.to_vec());
        }
    }

    /// Puts a value at the end of the blocks.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "blocks are small, but for a single long value of u32 length"
    )]
    fn add(&mut self, key: u64, value: &[u8]) -> InRow {
        if self.blocks.back().is_none_or(|last| last.bytes.len() + value.len() > BLOCK_BYTES) {
            let bytes = Vec::with_capacity(BLOCK_BYTES.max(value.len()));
            self.blocks.push_back(Block { bytes, live: 0 });
        }
        let block = self.first.wrapping_add(self.blocks.len() as u32 - 1);
        let start = self.blocks.back_mut().map_or(0, |last| {
            let start = last.bytes.len();
            last.bytes.extend_from_slice(value);
            last.live += 1;
            start as u32
        });
        InRow { key, block, start, len: value.len() as u32 }
    }

    /// Counts a value as gone, and frees blocks that have none left.
    fn release(&mut self, held: InRow) {
        let at = held.block.wrapping_sub(self.first) as usize;
        let Some(block) = self.blocks.get_mut(at) else { return };
        block.live -= 1;
        if block.live == 0 {
            *block = Block::default();
        }
        while self.blocks.front().is_some_and(|first| first.live == 0) {
            self.blocks.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let removed = self.place(key).and_then(|at| self.row.remove(at));
        match removed {
            Some(held) => self.release(held),
            None => drop(self.tree.remove(key)),
        }
    }

    /// The record with the greatest key below `below`.
    pub(super) fn last_below(&self, below: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let end = self.row.partition_point(|at| at.key.to_be_bytes().as_slice() < below);
        let row = end.checked_sub(1).and_then(|at| self.row.get(at));
        let row = row.map(|at| (at.key.to_be_bytes().to_vec(), self.value(at).to_vec()));
        let tree = self.tree.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(below))).next_back();
        let tree = tree.map(|(key, value)| (key.clone(), value.clone()));
        row.max(tree)
    }

    /// Visits the records at or above `from`, ascending, until the visitor breaks off.
    pub(super) fn visit(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
        let first = self.row.partition_point(|at| at.key.to_be_bytes().as_slice() < from);
        let mut row = self.row.iter().skip(first).map(|at| (at.key.to_be_bytes(), at)).peekable();
        let mut tree = self.tree.range(from.to_vec()..).peekable();
        loop {
            let row_first = match (row.peek(), tree.peek()) {
                (None, None) => return,
                (Some((one, _)), Some((two, _))) => one.as_slice() < two.as_slice(),
                (one, _) => one.is_some(),
            };
            let visited = if row_first {
                row.next().map(|(key, at)| visit(&key, self.value(at)))
            } else {
                tree.next().map(|(key, value)| visit(key, value))
            };
            if visited.is_none_or(|flow| flow.is_break()) {
                return;
            }
        }
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
                let value = step.to_be_bytes().repeat(usize::try_from(pick % 200).unwrap());
                records.insert(&key, &value);
                model.insert(key.clone(), value);
            } else {
                records.remove(&key);
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

    #[test]
    fn what_has_left_the_row_takes_no_room() {
        let mut records = Records::default();
        for at in 0..10_000_u64 {
            records.insert(&at.to_be_bytes(), &[7; 100]);
            // The first stays for ever.
            if at > 3 {
                records.remove(&(at - 2).to_be_bytes());
            }
        }
        let held: usize = records.blocks.iter().map(|block| block.bytes.capacity()).sum();
        assert!(held <= 3 * BLOCK_BYTES, "{held} bytes are held");
        assert_eq!(records.get(&0_u64.to_be_bytes()), Some(&[7; 100][..]));
    }
}
