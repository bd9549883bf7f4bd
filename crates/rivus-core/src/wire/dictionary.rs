//! A dictionary that both ends of a connection fill alike.
//!
//! Things are sent in full once and named by their distance from the newest entry afterwards. When the bounds are
//! reached the oldest entries go, at both ends at the same moment.
//!
//! The reading side keeps its entries in one piece of memory each, so that what a hostile frame adds takes a small
//! multiple of the bytes that it came in. An entry that goes in the middle of a frame stays in memory until the next
//! frame: then this one can be read a second time, with the [`Span`] of its start.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::bytes::Cut;

/// Bounds of a dictionary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// The reading side: the words, oldest first, numbered from the connection's start.
#[derive(Clone, Debug)]
pub(super) struct Known {
    bounds: Bounds,
    /// The number of the first word still in memory.
    base: u64,
    words: Vec<Word>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    /// Where it ends among the bytes.
    end: u32,
    /// What it counts against the bound.
    cost: u32,
}

/// Which words can be named at one point of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Span {
    /// The oldest word's number.
    first: u64,
    /// The next word's number.
    next: u64,
    cost: u64,
}

impl Known {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, base: 0, words: Vec::new(), bytes: Vec::new() }
    }

    /// Keeps a word, which is in `parts`. A span learns of it by [`Span::add`].
    pub(super) fn append(&mut self, parts: [&[u8]; 2], cost: usize) -> Result<(), Cut> {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        let end = u32::try_from(self.bytes.len()).map_err(|_| Cut)?;
        self.words.push(Word { end, cost: u32::try_from(cost).map_err(|_| Cut)? });
        Ok(())
    }

    /// The word of this number, if it is still in memory.
    #[inline]
    pub(super) fn word(&self, number: u64) -> Option<&[u8]> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let start = match at.checked_sub(1) {
            None => 0,
            Some(before) => self.words.get(before)?.end as usize,
        };
        self.bytes.get(start..self.words.get(at)?.end as usize)
    }

    /// Forgets the words before this number, once they are more than the others: each is moved but once or twice.
    pub(super) fn trim(&mut self, first: u64) {
        let dead = usize::try_from(first.saturating_sub(self.base)).unwrap_or(0);
        if !self.is_trimmed(dead) {
            return;
        }
        let Some(end) = dead.checked_sub(1).and_then(|last| self.words.get(last)).map(|word| word.end) else {
            return;
        };
        self.words.drain(..dead);
        self.words.iter_mut().for_each(|word| word.end -= end);
        self.bytes.drain(..end as usize);
        self.base = first;
        self.words.shrink_to(self.bounds.entries);
        self.bytes.shrink_to(self.bounds.bytes);
    }

    fn is_trimmed(&self, dead: usize) -> bool {
        dead > self.words.len() / 2
    }

    /// Whether [`Known::trim`] up to the start of this span would do anything.
    pub(super) fn has_waste(&self, span: Span) -> bool {
        self.is_trimmed(usize::try_from(span.first.saturating_sub(self.base)).unwrap_or(0))
    }

    fn cost(&self, number: u64) -> u64 {
        let at = number.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.words.get(at)).map_or(0, |word| u64::from(word.cost))
    }
}

impl Span {
    /// The number of the word at this distance: 1 is the newest.
    #[inline]
    pub(super) fn at(self, distance: u64) -> Result<u64, Cut> {
        let number = self.next.checked_sub(distance).filter(|number| *number >= self.first && distance > 0);
        number.ok_or(Cut)
    }

    /// The oldest word's number.
    pub(super) fn first(self) -> u64 {
        self.first
    }

    /// The numbers of the words.
    pub(super) fn numbers(self) -> std::ops::Range<u64> {
        self.first..self.next
    }

    /// Goes past the next word, which is among those known, and returns its number.
    pub(super) fn add(&mut self, known: &Known) -> u64 {
        let number = self.next;
        self.cost += known.cost(number);
        self.next += 1;
        while self.next - self.first > known.bounds.entries as u64
            || self.cost > known.bounds.bytes as u64 && self.next - self.first > 1
        {
            self.cost -= known.cost(self.first);
            self.first += 1;
        }
        number
    }
}

/// The writing side: the same words, and where each is.
#[derive(Clone, Debug)]
pub(super) struct Told {
    known: Known,
    span: Span,
    /// The number of the last word of each hash. Of two with one hash the older is told again, which is no harm.
    index: BTreeMap<u64, u64>,
}

impl Told {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { known: Known::new(bounds), span: Span::default(), index: BTreeMap::new() }
    }

    /// The distance of a word that the other side knows; 1 is the newest.
    pub(super) fn distance(&self, word: &[u8]) -> Option<u64> {
        let number = *self.index.get(&xxh3_64(word))?;
        (self.known.word(number)? == word).then(|| self.span.next - number)
    }

    /// Keeps a word that was told in full.
    pub(super) fn add(&mut self, word: &[u8], cost: usize) {
        if self.known.append([word, &[]], cost).is_err() {
            // More than four gigabytes of words, which the bounds leave no room for.
            return;
        }
        let oldest = self.span.first;
        let number = self.span.add(&self.known);
        self.index.insert(xxh3_64(word), number);
        for gone in oldest..self.span.first {
            if let Some(hash) = self.known.word(gone).map(xxh3_64)
                && self.index.get(&hash) == Some(&gone)
            {
                self.index.remove(&hash);
            }
        }
        self.known.trim(self.span.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { entries: 3, bytes: 10 };

    fn add(known: &mut Known, span: &mut Span, key: u64, bytes: usize) {
        known.append([&key.to_be_bytes(), &[]], bytes).unwrap();
        assert_eq!(known.word(span.add(known)), Some(&key.to_be_bytes()[..]));
    }

    #[test]
    fn both_ends_forget_the_oldest_at_the_same_moment() {
        let (mut told, mut known, mut span) = (Told::new(BOUNDS), Known::new(BOUNDS), Span::default());
        for (key, bytes) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 9), (6, 20), (7, 1)] {
            told.add(&u64::to_be_bytes(key), bytes);
            add(&mut known, &mut span, key, bytes);
            for key in 1..=7_u64 {
                let found = told.distance(&u64::to_be_bytes(key)).map(|distance| span.at(distance));
                let found = found.map(|number| known.word(number.unwrap()).unwrap().to_vec());
                assert!(found.is_none_or(|found| found == key.to_be_bytes()));
            }
            assert_eq!(told.distance(&u64::to_be_bytes(key)), Some(1));
            known.trim(span.first());
        }
        let told = [1, 6, 7].map(|key| told.distance(&u64::to_be_bytes(key)));
        assert_eq!(told, [None, None, Some(1)]);
        assert_eq!((span.at(0), span.at(1), span.at(2)), (Err(Cut), Ok(6), Err(Cut)));
        assert!(known.words.len() < 7, "what is gone was trimmed");
    }

    #[test]
    fn a_frame_can_be_read_again_from_the_span_of_its_start() {
        let (mut known, mut span) = (Known::new(BOUNDS), Span::default());
        add(&mut known, &mut span, 1, 1);
        let start = span;
        (2..9).for_each(|key| add(&mut known, &mut span, key, 1));
        assert_eq!(span.numbers(), 5..8);
        let mut again = start;
        assert_eq!(known.word(again.at(1).unwrap()), Some(&1_u64.to_be_bytes()[..]), "gone since, yet there");
        assert_eq!((2..9).map(|_| again.add(&known)).last(), span.at(1).ok());
        assert_eq!(again, span);
    }
}
