//! What another store sends, as it is joined: entity by entity, some registers at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::row::Change;

/// Registers of entities, to be read as often as need be. A page that came over the wire stays in its bytes: nothing
/// holds all of its registers at once.
pub trait Delta {
    /// How addresses are handed out.
    type Address: AsRef<[u8]> + Clone;

    /// Hands out all registers, in order; an entity's may come in several parts.
    ///
    /// # Errors
    /// The first one of `visit`, which then is not called again.
    fn each<E>(&self, visit: impl FnMut(Part<'_, Self::Address>) -> Result<(), E>) -> Result<(), E>;

    /// The newest time of any candidate.
    fn latest(&self) -> Option<u64>;
}

/// Some of one entity's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'p, A> {
    /// The entity's kind.
    pub kind: &'p str,
    /// The entity's id.
    pub id: &'p str,
    /// Addresses and what is joined there, ascending by address, at least one.
    pub changes: &'p [(A, Change<'p>)],
}

impl<A> Part<'_, A> {
    /// The times of all candidates.
    pub(super) fn times(&self) -> impl Iterator<Item = u64> {
        let registers = self.changes.iter().filter_map(|(_, change)| change.register());
        registers.flat_map(|register| register.alive.iter().map(|candidate| candidate.stamp.time))
    }
}

/// One entity's registers, in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incoming<'a> {
    /// The entity's kind.
    pub kind: Arc<str>,
    /// The entity's id.
    pub id: Arc<str>,
    /// Addresses and what is joined there, ascending by address.
    pub changes: Vec<(Arc<[u8]>, Change<'a>)>,
}

impl Incoming<'_> {
    fn part(&self) -> Part<'_, Arc<[u8]>> {
        Part { kind: &self.kind, id: &self.id, changes: &self.changes }
    }
}

/// What another store sends, of some entities alone, or of all but those.
#[derive(Debug)]
pub(crate) struct Chosen<'d, D> {
    pub(crate) delta: &'d D,
    /// By kind and id.
    pub(crate) entities: &'d BTreeSet<(String, String)>,
    /// Whether it is those, and not the others.
    pub(crate) are_in: bool,
}

impl<D: Delta> Delta for Chosen<'_, D> {
    type Address = D::Address;

    fn each<E>(&self, mut visit: impl FnMut(Part<'_, Self::Address>) -> Result<(), E>) -> Result<(), E> {
        self.delta.each(|part| {
            let is_in = self.entities.contains(&(part.kind.to_owned(), part.id.to_owned()));
            if is_in == self.are_in { visit(part) } else { Ok(()) }
        })
    }

    fn latest(&self) -> Option<u64> {
        self.delta.latest()
    }
}

impl Delta for [Incoming<'_>] {
    type Address = Arc<[u8]>;

    fn each<E>(&self, visit: impl FnMut(Part<'_, Self::Address>) -> Result<(), E>) -> Result<(), E> {
        self.iter().map(Incoming::part).try_for_each(visit)
    }

    fn latest(&self) -> Option<u64> {
        self.iter().flat_map(|incoming| incoming.part().times().max()).max()
    }
}

impl Delta for Vec<Incoming<'_>> {
    type Address = Arc<[u8]>;

    fn each<E>(&self, visit: impl FnMut(Part<'_, Self::Address>) -> Result<(), E>) -> Result<(), E> {
        self.as_slice().each(visit)
    }

    fn latest(&self) -> Option<u64> {
        self.as_slice().latest()
    }
}

impl<const N: usize> Delta for [Incoming<'_>; N] {
    type Address = Arc<[u8]>;

    fn each<E>(&self, visit: impl FnMut(Part<'_, Self::Address>) -> Result<(), E>) -> Result<(), E> {
        self.as_slice().each(visit)
    }

    fn latest(&self) -> Option<u64> {
        self.as_slice().latest()
    }
}
