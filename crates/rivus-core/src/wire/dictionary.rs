//! A dictionary that both ends of a connection fill alike.
//!
//! Things are sent in full once and named by their distance from the newest entry afterwards. When the bounds are
//! reached the oldest entries go, at both ends at the same moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bounds of a dictionary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// The reading side: entries by age.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    bounds: Bounds,
    entries: VecDeque<(T, usize)>,
    bytes: usize,
    /// How many entries have gone.
    gone: u64,
}

impl<T> Known<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: VecDeque::new(), bytes: 0, gone: 0 }
    }

    /// The entry at this distance: 1 is the newest.
    pub(super) fn at(&self, distance: u64) -> Option<&T> {
        let distance = usize::try_from(distance).ok()?;
        self.entries.get(self.entries.len().checked_sub(distance)?).map(|(entry, _)| entry)
    }

    pub(super) fn add(&mut self, entry: T, bytes: usize) -> Vec<T> {
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        let mut gone = Vec::new();
        while self.entries.len() > self.bounds.entries
            || self.bytes > self.bounds.bytes && self.entries.len() > 1
        {
            let Some((entry, bytes)) = self.entries.pop_front() else { break };
            self.bytes -= bytes;
            self.gone += 1;
            gone.push(entry);
        }
        gone
    }

    fn next(&self) -> u64 {
        self.gone + self.entries.len() as u64
    }
}

/// The writing side: the same entries, and where each is.
#[derive(Clone, Debug)]
pub(super) struct Told<K: Ord + ?Sized> {
    known: Known<Arc<K>>,
    index: BTreeMap<Arc<K>, u64>,
}

impl<K: Ord + ?Sized> Told<K> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { known: Known::new(bounds), index: BTreeMap::new() }
    }

    /// The distance of an entry that the other side knows; 1 is the newest.
    pub(super) fn distance(&self, key: &K) -> Option<u64> {
        self.index.get(key).map(|at| self.known.next() - at)
    }

    pub(super) fn add(&mut self, key: Arc<K>, bytes: usize) {
        self.index.insert(Arc::clone(&key), self.known.next());
        for gone in self.known.add(key, bytes) {
            self.index.remove(&gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_forget_the_oldest_at_the_same_moment() {
        let bounds = Bounds { entries: 3, bytes: 10 };
        let (mut told, mut known) = (Told::<u64>::new(bounds), Known::<u64>::new(bounds));
        for (key, bytes) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 9), (6, 20), (7, 1)] {
            told.add(Arc::new(key), bytes);
            known.add(key, bytes);
            for key in 1..=7 {
                let found = told.distance(&key).and_then(|distance| known.at(distance));
                assert!(found.is_none_or(|found| *found == key));
            }
            assert_eq!(told.distance(&key), Some(1));
        }
        assert_eq!((told.distance(&1), told.distance(&6), told.distance(&7)), (None, None, Some(1)));
    }
}
