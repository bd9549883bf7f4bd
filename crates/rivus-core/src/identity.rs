//! Who a store is, and what it remembers of others: the records behind identities, cursors and positions.
//!
//! Owns the byte forms of these records. Cursors name a position in another store's order of changes.

use crate::bytes::{Cut, Put, Reader};
use crate::canary::{Canary, is_on};
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::store::StoreError;

/// The key of the identity record.
pub(crate) const IDENTITY_KEY: &[u8] = b"identity";

/// Random numbers for what a store may have to take new: core draws none itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// For a store that has no id yet, or is found to be a copy.
    pub store: StoreId,
    /// For a replica that has no id yet, or is found to be a copy.
    pub replica: ReplicaId,
    /// For this opening.
    pub incarnation: Incarnation,
}

/// The authority that a store has met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authority {
    /// Its store id.
    pub store: StoreId,
    /// Whether it has everything that this store confirmed before they met.
    pub met: bool,
    /// The rank that it granted last.
    pub rank: u8,
    /// Its greatest seq at which an edit of this store was accepted.
    pub acked: u64,
    /// What to add to this machine's clock, in ms, because the authority refused its stamps.
    pub correction_ms: i64,
    /// How often pending edits were stamped anew in a way that other processes of this store must know of before
    /// they stamp again. Edits that they have under way fail as stale.
    pub restamped: u64,
    /// Whether it may have accepted an edit that was then made anew, or taken back, before its answer was heard. What
    /// only the former version wrote comes in no page: the authority takes this store for its source.
    pub unheard: bool,
}

/// Who a store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The store's id.
    pub store: StoreId,
    /// The replica id of each slot: each process that has the store open takes a slot.
    pub replicas: Vec<ReplicaId>,
    /// Replica ids that were used before the store was found to be a copy.
    pub former: Vec<ReplicaId>,
    /// Whether this store judges others' edits.
    pub is_authority: bool,
    /// The authority that judges this store's edits.
    pub authority: Option<Authority>,
}

impl Identity {
    /// Every replica id that this store's edits may bear.
    pub fn all_replicas(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.replicas.iter().chain(&self.former).copied()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, u8::from(self.is_authority)];
        out.extend_from_slice(&self.store.0.to_be_bytes());
        for list in [&self.replicas, &self.former] {
            out.varint(list.len() as u64);
            for replica in list {
                out.extend_from_slice(&replica.0);
            }
        }
        if let Some(authority) = self.authority {
            out.extend_from_slice(&authority.store.0.to_be_bytes());
            out.push(u8::from(authority.met));
            out.push(authority.rank);
            out.varint(authority.acked);
            out.extend_from_slice(&authority.correction_ms.to_be_bytes());
            if authority.restamped > 0 || authority.unheard {
                out.varint(authority.restamped);
            }
            if authority.unheard {
                out.push(1);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes);
        Self::read(&mut reader)
            .map_err(|_| StoreError::Damaged("its identity record is unreadable".to_owned()))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Cut> {
        if reader.u8()? != 1 {
            return Err(Cut);
        }
        let is_authority = reader.u8()? != 0;
        let store = StoreId(reader.u64()?);
        let mut list = || -> Result<Vec<ReplicaId>, Cut> {
            (0..reader.count(16)?).map(|_| reader.array().map(ReplicaId)).collect()
        };
        let (replicas, former) = (list()?, list()?);
        let authority = if reader.is_empty() {
            None
        } else {
            Some(Authority {
                store: StoreId(reader.u64()?),
                met: reader.u8()? != 0,
                rank: reader.u8()?,
                acked: reader.varint()?,
                correction_ms: i64::from_be_bytes(reader.array()?),
                restamped: if reader.is_empty() { 0 } else { reader.varint()? },
                unheard: !reader.is_empty() && reader.u8()? != 0,
            })
        };
        Ok(Self { store, replicas, former, is_authority, authority })
    }
}

/// A place in a store's order of changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// The store's newest incarnation in the snapshot.
    pub incarnation: Incarnation,
    /// A seq.
    pub seq: u64,
}

/// How far a reader is in another store.
///
/// `done` is the seq at which the last complete pass ended; `at` how far the running pass has come. One number
/// is not enough: a row that changes behind the reader would be passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// The incarnation named by the last page.
    pub incarnation: Incarnation,
    /// Everything up to here has been received.
    pub done: u64,
    /// Rows up to here have been received in this pass.
    pub at: u64,
}

impl Cursor {
    /// The position that the cursor vouches for.
    #[must_use]
    pub fn position(self) -> Position {
        Position { incarnation: self.incarnation, seq: self.at }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = self.incarnation.0.to_be_bytes().to_vec();
        out.varint(self.done);
        out.varint(self.at);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        Ok(Self { incarnation: Incarnation(reader.u64()?), done: reader.varint()?, at: reader.varint()? })
    }
}

/// What a store remembers of another one that has been connected.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// The greatest position that the other has told of itself.
    pub position: Position,
    /// Its incarnations at that time, with their first seqs, oldest first, the newest [`INCARNATIONS_TOLD`].
    pub history: Vec<(Incarnation, u64)>,
    /// How far the other said that it has read this store.
    pub read: Cursor,
}

/// How many incarnations a store tells others of.
pub const INCARNATIONS_TOLD: usize = 32;

impl Peer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.position.incarnation.0.to_be_bytes().to_vec();
        out.varint(self.position.seq);
        out.slice(&self.read.encode());
        put_history(&mut out, &self.history);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let position = Position { incarnation: Incarnation(reader.u64()?), seq: reader.varint()? };
        let read = Cursor::decode(reader.slice()?)?;
        Ok(Self { position, history: history(&mut reader)?, read })
    }
}

pub(crate) fn put_history(out: &mut Vec<u8>, history: &[(Incarnation, u64)]) {
    out.varint(history.len() as u64);
    for (incarnation, first) in history {
        out.extend_from_slice(&incarnation.0.to_be_bytes());
        out.varint(*first);
    }
}

pub(crate) fn history(reader: &mut Reader<'_>) -> Result<Vec<(Incarnation, u64)>, Cut> {
    (0..reader.count(9)?).map(|_| Ok((Incarnation(reader.u64()?), reader.varint()?))).collect()
}

/// Whether a store with these incarnations and head knows a position that was once told of it.
///
/// It does not if the incarnation is foreign or the position lies past the incarnation's end: then the store is
/// a copy or a restored backup of the one that told it.
#[must_use]
pub fn knows(history: &[(Incarnation, u64)], head: u64, position: Position) -> bool {
    if position == Position::default() {
        return true;
    }
    let Some(at) = history.iter().position(|(incarnation, _)| *incarnation == position.incarnation) else {
        return false;
    };
    let end = history.get(at + 1).map_or(head, |(_, next)| next - 1);
    position.seq < end || position.seq == end && !is_on(Canary::EndUnknown)
}

/// The first seq at which a store's order of changes parts from the one that another remembers of it.
///
/// `told` is the other's memory of the incarnations, `position` of the last seq.
#[must_use]
pub fn fork(history: &[(Incarnation, u64)], told: &[(Incarnation, u64)], position: Position) -> u64 {
    let common = history.iter().rev().find(|own| told.contains(own));
    let Some(common) = common else { return 1 };
    let next = |list: &[(Incarnation, u64)], end: u64| {
        let at = list.iter().position(|entry| entry == common);
        at.and_then(|at| list.get(at + 1)).map_or(end, |(_, first)| *first)
    };
    next(history, u64::MAX).min(next(told, position.seq.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Incarnation = Incarnation(1);
    const B: Incarnation = Incarnation(2);
    const C: Incarnation = Incarnation(3);

    #[test]
    fn a_position_is_known_within_its_incarnation_only() {
        let history = [(A, 1), (B, 50)];
        let knows = |incarnation, seq| knows(&history, 70, Position { incarnation, seq });
        assert!(knows(A, 49) && knows(B, 50) && knows(B, 70));
        assert!(!knows(A, 50) && !knows(B, 71) && !knows(C, 1));
        assert!(super::knows(&[], 0, Position::default()));
    }

    #[test]
    fn a_fork_is_where_the_histories_part() {
        let told = [(A, 1), (B, 50)];
        assert_eq!(fork(&[(A, 1), (C, 50)], &told, Position { incarnation: B, seq: 60 }), 50);
        assert_eq!(fork(&[(A, 1), (C, 41)], &told, Position { incarnation: B, seq: 60 }), 41);
        assert_eq!(fork(&[(A, 1)], &[(A, 1)], Position { incarnation: A, seq: 60 }), 61);
        assert_eq!(fork(&[(C, 1)], &told, Position { incarnation: B, seq: 60 }), 1);
    }

    #[test]
    fn records_round_trip() {
        let identity = Identity {
            store: StoreId(7),
            replicas: vec![ReplicaId::from_u128(1)],
            former: vec![ReplicaId::from_u128(2)],
            is_authority: false,
            authority: Some(Authority {
                store: StoreId(8),
                met: true,
                rank: 3,
                acked: 9,
                correction_ms: -5,
                restamped: 0,
                unheard: false,
            }),
        };
        assert_eq!(Identity::decode(&identity.encode()).as_ref(), Ok(&identity));
        for (restamped, unheard) in [(300, false), (0, true), (300, true)] {
            let authority = identity.authority.map(|before| Authority { restamped, unheard, ..before });
            let identity = Identity { authority, ..identity.clone() };
            assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
        }
        assert!(Identity::decode(&[9]).is_err());
        let peer = Peer {
            position: Position { incarnation: A, seq: 300 },
            history: vec![(A, 1), (B, 200)],
            read: Cursor { incarnation: C, done: 4, at: 6 },
        };
        assert_eq!(Peer::decode(&peer.encode()), Ok(peer));
    }
}
