//! What an edit will write to one entity, by address.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::clock::Instant;
use crate::register::Reach;

/// A register that the edit will write.
#[derive(Clone, Debug)]
pub(super) struct Intent {
    pub(super) value: Vec<u8>,
    pub(super) reach: Reach,
    /// The newest instant that the register holds.
    pub(super) newest: Option<Instant>,
}

/// Intents in order of address. Most edits write a register or two, which then need no tree.
#[derive(Clone, Debug)]
pub(super) enum Intents {
    Few(SmallVec<[(Vec<u8>, Intent); 1]>),
    Many(BTreeMap<Vec<u8>, Intent>),
}

const FEW_MAX: usize = 12;

impl Default for Intents {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Intents {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn get(&self, address: &[u8]) -> Option<&Intent> {
        match self {
            Self::Few(few) => few.iter().find(|(at, _)| at == address).map(|(_, intent)| intent),
            Self::Many(many) => many.get(address),
        }
    }

    /// Adds an intent and gives the one that it replaces.
    pub(super) fn insert(&mut self, address: Vec<u8>, intent: Intent) -> Option<Intent> {
        match self {
            Self::Many(many) => many.insert(address, intent),
            Self::Few(few) => {
                let at = few.partition_point(|(before, _)| *before < address);
                match few.get_mut(at) {
                    Some((found, before)) if *found == address => {
                        return Some(std::mem::replace(before, intent));
                    }
                    _ => few.insert(at, (address, intent)),
                }
                if few.len() > FEW_MAX {
                    *self = Self::Many(few.drain(..).collect());
                }
                None
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Intent)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter()), None),
            Self::Many(many) => (None, Some(many.iter())),
        };
        let few = few.into_iter().flatten().map(|(address, intent)| (address, intent));
        few.chain(many.into_iter().flatten()).map(|(address, intent)| (address.as_slice(), intent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_or_many_intents_are_in_order_and_the_last_of_an_address_stands() {
        let few = u8::try_from(FEW_MAX).unwrap();
        for count in [1, few, few + 1, 100] {
            let mut intents = Intents::default();
            for round in 0..2 {
                for n in (0..count).rev() {
                    let intent = Intent { value: vec![n, round], reach: Reach::None, newest: None };
                    let before = intents.insert(vec![n], intent);
                    assert_eq!(before.map(|before| before.value), (round == 1).then(|| vec![n, 0]));
                }
            }
            assert_eq!((intents.len(), intents.is_empty()), (usize::from(count), false));
            assert!(intents.iter().map(|(address, _)| address.to_vec()).eq((0..count).map(|n| vec![n])));
            assert_eq!(intents.get(&[0]).map(|intent| intent.value.clone()), Some(vec![0, 1]));
            assert!(intents.get(&[200]).is_none());
        }
    }
}
