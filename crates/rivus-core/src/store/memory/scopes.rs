//! The scopes of a store in memory: their digests, and what has left them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::store::{Batch, Digest, ScopeChange};

/// By number; 0 is the scope without a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Scopes {
    numbers: BTreeMap<String, u32>,
    /// Of those with a name.
    digests: BTreeMap<u32, Digest>,
    /// By scope, kind and id, at which seq it left.
    left: BTreeMap<(u32, String, String), u64>,
    /// The same by scope and seq.
    order: BTreeSet<(u32, u64, String, String)>,
}

impl Scopes {
    /// The number of a scope, if anything was ever in it.
    pub(super) fn number(&self, scope: &str) -> Option<u32> {
        if scope.is_empty() { Some(0) } else { self.numbers.get(scope).copied() }
    }

    /// The number of a scope, a new one if it has none.
    pub(super) fn enter(&mut self, scope: &str) -> u32 {
        if let Some(number) = self.number(scope) {
            return number;
        }
        let number = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
        self.numbers.insert(scope.to_owned(), number);
        number
    }

    /// A scope's digest in a store with this one.
    pub(super) fn digest(&self, scope: &str, whole: Digest) -> Digest {
        if scope.is_empty() {
            return self.digests.values().fold(whole, |left, named| left.minus(*named));
        }
        self.numbers.get(scope).and_then(|number| self.digests.get(number)).copied().unwrap_or_default()
    }

    /// Those with a name that have registers.
    pub(super) fn named(&self) -> Vec<(String, Digest)> {
        let known = self.numbers.iter().filter_map(|(name, number)| {
            let digest = self.digests.get(number).filter(|digest| **digest != Digest::default())?;
            Some((name.clone(), *digest))
        });
        known.collect()
    }

    /// What has left a scope above a seq, ascending.
    pub(super) fn left_after(&self, scope: u32, after: u64) -> impl Iterator<Item = ScopeChange<'_>> {
        let from = (scope, after.saturating_add(1), String::new(), String::new());
        let left = self.order.range((Bound::Included(from), Bound::Unbounded));
        let left = left.take_while(move |(of, ..)| *of == scope);
        left.map(|(_, seq, kind, id)| ScopeChange::Left { kind, id, seq: *seq })
    }

    /// The scopes that an entity has left, sorted.
    pub(super) fn left_by(&self, kind: &str, id: &str) -> Vec<String> {
        let has_left = |number: u32| self.left.contains_key(&(number, kind.to_owned(), id.to_owned()));
        let nameless = has_left(0).then(String::new);
        let named = self.numbers.iter().filter(|(_, number)| has_left(**number));
        nameless.into_iter().chain(named.map(|(name, _)| name.clone())).collect()
    }

    /// Takes over what a batch moves and adds; `seq` is the head after it.
    pub(super) fn commit(&mut self, batch: &Batch<'_>, seq: u64) {
        for moved in batch.moves.iter() {
            let name = |scope| (scope, moved.kind.to_owned(), moved.id.to_owned());
            let to = self.enter(moved.to);
            self.take_back(name(to));
            if let Some(from) = moved.from {
                let from = self.enter(from);
                self.take_back(name(from));
                self.left.insert(name(from), seq);
                self.order.insert((from, seq, moved.kind.to_owned(), moved.id.to_owned()));
            }
        }
        for (scope, sums) in batch.scopes.iter() {
            let number = self.enter(scope);
            let digest = self.digests.entry(number).or_default();
            *digest = digest.plus(*sums);
        }
    }

    fn take_back(&mut self, name: (u32, String, String)) {
        if let Some(seq) = self.left.remove(&name) {
            let (scope, kind, id) = name;
            self.order.remove(&(scope, seq, kind, id));
        }
    }
}
