//! Who had seen what: whether a write that is no longer in the running was replaced, or lost.

use std::sync::Arc;

use super::{Conflict, LostTo};
use crate::address::{Parts, class};
use crate::clock::Stamp;
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::identity::{Position, knows};
use crate::register::{Candidate, Register};

/// Whose losses are looked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Whose {
    /// Nobody's: local edits see what they replace, and a device hears of its losses from its authority.
    #[default]
    Nobody,
    /// Those of this store's replicas, where there is no authority.
    Own {
        /// Every replica id that the store's writes bear.
        all: Vec<ReplicaId>,
        /// Those that write now: they see each other's writes.
        now: Vec<ReplicaId>,
    },
    /// Everybody's: this store is the authority.
    Everybody {
        /// Its incarnations, with their first seqs.
        history: Arc<[(Incarnation, u64)]>,
        /// Its head.
        head: u64,
    },
}

/// What is known, while registers are joined, of who had seen what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Witness {
    pub(crate) whose: Whose,
    /// Who pushed the edit that is joined: it has seen what it pushed before.
    pub(crate) pusher: Option<StoreId>,
    /// The edit that is joined was accepted before: whatever it lost to, that is decided.
    pub(crate) again: bool,
}

/// A write that lost, before its entity is named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Loss {
    pub(crate) address: Vec<u8>,
    pub(crate) loser: (Stamp, Vec<u8>),
    pub(crate) winner: (Stamp, Vec<u8>),
    pub(crate) to: LostTo,
}

impl Loss {
    pub(crate) fn of(self, kind: &str, id: &str) -> Conflict {
        Conflict {
            kind: kind.to_owned(),
            id: id.to_owned(),
            address: self.address,
            loser: self.loser.0,
            value: self.loser.1,
            winner: self.winner.0,
            winner_value: self.winner.1,
            to: self.to,
        }
    }
}

/// A register as held before a join.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'h> {
    /// When it last changed; 0 if in this very commit.
    pub(crate) seq: u64,
    /// Who sent it as it is.
    pub(crate) source: Option<StoreId>,
    pub(crate) candidates: &'h [Candidate<'h>],
}

impl Witness {
    /// Whether losses are looked for at all.
    #[inline]
    pub(crate) fn looks(&self) -> bool {
        self.whose != Whose::Nobody
    }

    /// Whether losses of writes that come in are looked for, beside those of writes that are held.
    pub(crate) fn looks_at_incoming(&self) -> bool {
        matches!(self.whose, Whose::Everybody { .. }) && !self.again
    }

    /// Whether a loss of this replica's write is to be recorded here.
    pub(crate) fn minds(&self, replica: ReplicaId) -> bool {
        match &self.whose {
            Whose::Nobody => false,
            Whose::Own { all, .. } => all.contains(&replica),
            Whose::Everybody { .. } => true,
        }
    }

    /// Whether the author of `winner`, which comes in, is known to have seen the write of `loser` that is held.
    pub(crate) fn saw(&self, winner: &Candidate<'_>, loser: Stamp, held: Held<'_>) -> bool {
        if winner.stamp.replica == loser.replica {
            return true;
        }
        match &self.whose {
            Whose::Nobody => true,
            Whose::Own { now, .. } => now.contains(&winner.stamp.replica),
            Whose::Everybody { history, head } => {
                let was_sent = self.pusher.is_some() && held.source == self.pusher;
                let is_read = winner.saw.is_some_and(|saw| {
                    let position = Position { incarnation: saw.incarnation, seq: saw.done };
                    held.seq != 0 && held.seq <= saw.done && knows(history, *head, position)
                });
                was_sent || is_read
            }
        }
    }

    /// The usual case, one plain register over or under another: what is lost, if anything.
    #[inline]
    pub(crate) fn plain(
        &self,
        address: &[u8],
        held: (&Candidate<'_>, u64, Option<StoreId>),
        incoming: &Candidate<'_>,
    ) -> Option<Loss> {
        if !self.looks() || held.0.stamp.replica == incoming.stamp.replica {
            return None;
        }
        let (old, seq, source) = held;
        if incoming.stamp > old.stamp {
            let before = Held { seq, source, candidates: std::slice::from_ref(old) };
            let is_lost = self.minds(old.stamp.replica) && !self.saw(incoming, old.stamp, before);
            return if is_lost { loss(address, old, incoming) } else { None };
        }
        if self.looks_at_incoming() { loss(address, incoming, old) } else { None }
    }

    /// What a join of any two registers loses.
    pub(crate) fn joined(
        &self,
        address: &[u8],
        (held, before): (&Register<'_>, Held<'_>),
        incoming: &Register<'_>,
        joined: &Register<'_>,
        out: &mut Vec<Loss>,
    ) {
        let stays = |c: &Candidate<'_>| joined.alive.binary_search_by(|d| d.stamp.cmp(&c.stamp)).is_ok();
        let newest = joined.newest();
        for old in before.candidates.iter().filter(|old| !stays(old)) {
            let above = || incoming.alive.iter().filter(|new| new.stamp > old.stamp);
            let is_seen = incoming.covers(old.stamp) || above().any(|new| self.saw(new, old.stamp, before));
            if self.minds(old.stamp.replica) && !is_seen {
                out.extend(loss(address, old, newest));
            }
        }
        if self.looks_at_incoming() {
            let lost = incoming.alive.iter().filter(|new| !stays(new) && !held.covers(new.stamp));
            out.extend(lost.filter_map(|new| loss(address, new, newest)));
        }
    }
}

/// The loss of one write to another. Equal values lose nothing, and claims are no user's writes.
fn loss(address: &[u8], loser: &Candidate<'_>, winner: &Candidate<'_>) -> Option<Loss> {
    let is_users = Parts::parse(address).is_some_and(|parts| parts.class <= class::COUNT);
    (is_users && loser.value != winner.value).then(|| Loss {
        address: address.to_vec(),
        loser: (loser.stamp, loser.value.to_vec()),
        winner: (winner.stamp, winner.value.to_vec()),
        to: LostTo::Write,
    })
}
