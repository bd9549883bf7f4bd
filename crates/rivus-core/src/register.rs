//! The floor register: the one primitive of merging, and nothing else.
//!
//! Owns the state of one address, its join and its laws. Knows nothing of fields, schemas, stores or who is
//! local. Invariant ([`Register::check`]): there is at least one alive candidate, at most one per replica, and
//! nothing below the floor; the join of two well-formed registers is well-formed.
//!
//! Margin 0 is plain last-writer-wins and costs one stamp; a finite margin keeps the concurrent candidates
//! within it; an infinite margin is a multi-value register. The *writer* stamps the floor: a margin applied by
//! readers is not transitive and diverges. `seen` is the optimised causal context of Bieniusa et al., *An
//! optimized conflict-free replicated set* (2012), cut off at the floor.

use std::ops::Deref;

use crate::canary::{Canary, is_on};
use crate::clock::{Instant, Stamp};
use crate::id::{Incarnation, ReplicaId};

/// The author's position at the authority when it made the edit: decides whether a lost write was seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Saw {
    /// The authority's incarnation.
    pub incarnation: Incarnation,
    /// The seq up to which the author had everything.
    pub done: u64,
}

/// One write that is still in the running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// When and by whom.
    pub stamp: Stamp,
    /// The writer's authority, 0 without one.
    pub rank: u8,
    /// See [`Saw`]; not part of the merged state's identity.
    pub saw: Option<Saw>,
    /// Canonical bytes; never decoded by merging.
    pub value: &'a [u8],
}

impl Candidate<'_> {
    /// What stays when two candidates bear the same stamp: the greater rank and value, and the greater `saw`.
    fn reconcile(self, other: Self) -> Self {
        let stays = is_on(Canary::FirstComeStays) || (self.rank, self.value) >= (other.rank, other.value);
        let stronger = if stays { self } else { other };
        Self { saw: self.saw.max(other.saw), ..stronger }
    }
}

impl Candidate<'_> {
    /// Appends what [`Register::encode_canonical`] appends of a plain register.
    pub(crate) fn encode_canonical(&self, out: &mut Vec<u8>) {
        // All but the value in one piece: this is made twice for every edit.
        let mut head = [0; 69];
        let mut rest = head.as_mut_slice();
        let mut put = |bytes: &[u8]| {
            if let Some((place, after)) = std::mem::take(&mut rest).split_at_mut_checked(bytes.len()) {
                place.copy_from_slice(bytes);
                rest = after;
            }
        };
        for is_floor in [true, false] {
            put(&self.stamp.generation.to_be_bytes());
            put(&self.stamp.time.to_be_bytes());
            put(&self.stamp.replica.0);
            if is_floor {
                put(&1_u64.to_be_bytes());
            }
        }
        put(&[self.rank]);
        put(&(self.value.len() as u64).to_be_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(self.value);
    }
}

/// All writes of `replica` up to `instant` have been seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Whose writes.
    pub replica: ReplicaId,
    /// Up to when, inclusive.
    pub instant: Instant,
}

/// How far back a write keeps concurrent writes in the running.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// Not at all: last-writer-wins.
    None,
    /// This many NTP64 units, more than 0.
    Ticks(u64),
    /// For ever: every concurrent write stays.
    Infinite,
}

/// The state of one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Register<'a> {
    /// Nothing below it is in the running.
    pub floor: Stamp,
    /// The candidates, ascending by stamp.
    pub alive: Alive<'a>,
    /// What is seen beyond the candidates themselves, ascending by replica. A candidate's own stamp is
    /// implied: no entry names a candidate's replica.
    pub seen: Vec<Seen>,
}

/// How long a register may become at an authority, in bytes as [`Register::bytes`] has them: an edit that would make it
/// longer is refused. A frame has room for it and for what is beside it.
pub const REGISTER_BYTES_MAX: usize = 16 << 20;

/// What a candidate takes in a frame beyond its value, in bytes, at the most.
const CANDIDATE_BYTES: usize = 128;

/// What a seen entry takes in a frame, in bytes, at the most.
const SEEN_BYTES: usize = 48;

impl Register<'_> {
    /// How many bytes it takes in a frame, at the most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let candidates = self.alive.iter().map(|candidate| CANDIDATE_BYTES + candidate.value.len());
        candidates.sum::<usize>() + SEEN_BYTES * self.seen.len()
    }

    /// Registers of one address that make it up when they are joined, none of them longer than `bytes` if no candidate
    /// is.
    pub(crate) fn pieces(&self, bytes: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        let (mut alive, mut len) = (Vec::new(), 0);
        for candidate in self.alive.iter() {
            let more = CANDIDATE_BYTES + candidate.value.len();
            if len + more > bytes && !alive.is_empty() {
                pieces.push(Self {
                    floor: self.floor,
                    alive: std::mem::take(&mut alive).into(),
                    seen: Vec::new(),
                });
                len = 0;
            }
            alive.push(*candidate);
            len += more;
        }
        // What is seen is older than the newest candidate, so it goes with that.
        pieces.push(Self { floor: self.floor, alive: alive.into(), seen: self.seen.clone() });
        pieces
    }
}

/// The candidates of a register, ascending by stamp; nearly always one, which then needs no allocation.
#[derive(Clone, Debug)]
pub enum Alive<'a> {
    /// The usual case.
    One([Candidate<'a>; 1]),
    /// Several; or none, while a malformed register is being checked.
    Many(Vec<Candidate<'a>>),
}

impl<'a> Deref for Alive<'a> {
    type Target = [Candidate<'a>];
    fn deref(&self) -> &[Candidate<'a>] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl PartialEq for Alive<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Alive<'_> {}

impl<'a> From<Vec<Candidate<'a>>> for Alive<'a> {
    fn from(candidates: Vec<Candidate<'a>>) -> Self {
        match <[Candidate<'a>; 1]>::try_from(candidates) {
            Ok(one) => Self::One(one),
            Err(many) => Self::Many(many),
        }
    }
}

impl<'a> Register<'a> {
    /// A plain last-writer-wins register: one candidate that is its own floor.
    #[must_use]
    pub fn plain(candidate: Candidate<'a>) -> Self {
        Self { floor: candidate.stamp, alive: Alive::One([candidate]), seen: Vec::new() }
    }

    /// The only candidate, if the register is plain.
    #[must_use]
    pub fn as_plain(&self) -> Option<&Candidate<'a>> {
        match &*self.alive {
            [only] if self.seen.is_empty() && only.stamp == self.floor => Some(only),
            _ => None,
        }
    }

    /// The newest candidate.
    ///
    /// # Panics
    /// Never on a well-formed register: it has a candidate.
    #[must_use]
    pub fn newest(&self) -> &Candidate<'a> {
        #[expect(clippy::expect_used, reason = "a well-formed register is never empty")]
        self.alive.last().expect("a register has a candidate")
    }

    /// The delta of a write by someone who looks at `state`.
    ///
    /// `own` carries the new stamp, which is above everything in `state`.
    ///
    /// # Panics
    /// If `own` is not above everything in `state`: the clock makes it so.
    #[must_use]
    pub fn write(state: Option<&Register<'_>>, own: Candidate<'a>, reach: Reach) -> Self {
        let stamp = own.stamp;
        let Some(state) = state else {
            return Self { floor: floor_of(stamp, reach), ..Self::plain(own) };
        };
        let seen_last = state.newest().stamp.instant();
        assert!(stamp.instant() > seen_last, "a write is stamped above what its author saw");
        let floor = floor_of(stamp, reach).max(state.floor);
        let mut seen = Vec::new();
        if floor < stamp {
            seen = union(state, None);
            seen.retain(|s| s.replica != stamp.replica && s.instant.by(s.replica) >= floor);
        }
        Self { floor, alive: Alive::One([own]), seen }
    }

    /// The least state above both: commutative, associative, idempotent, for any two well-formed registers.
    ///
    /// Two writes of equal stamp and different content (a copied database) leave the greater of the two.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        if let (Some(mine), Some(theirs)) = (self.as_plain(), other.as_plain()) {
            return Self::plain(match mine.stamp.cmp(&theirs.stamp) {
                std::cmp::Ordering::Less => *theirs,
                std::cmp::Ordering::Equal => mine.reconcile(*theirs),
                std::cmp::Ordering::Greater => *mine,
            });
        }
        let floor = if is_on(Canary::OwnFloorStays) { self.floor } else { self.floor.max(other.floor) };
        let (self_seen, other_seen) = (union(self, None), union(other, None));
        let mut alive: Vec<Candidate<'a>> = Vec::new();
        let (mut left, mut right) = (self.alive.iter().peekable(), other.alive.iter().peekable());
        loop {
            let kept = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(l), Some(r)) if l.stamp == r.stamp => {
                    let both = l.reconcile(**r);
                    left.next();
                    right.next();
                    Some(both)
                }
                (Some(l), r) if r.is_none_or(|r| l.stamp < r.stamp) => {
                    let l = **l;
                    left.next();
                    (!covers(&other_seen, l.stamp)).then_some(l)
                }
                (_, Some(r)) => {
                    let r = **r;
                    right.next();
                    (!covers(&self_seen, r.stamp)).then_some(r)
                }
                (Some(_), None) => break,
            };
            alive.extend(kept.filter(|c| c.stamp >= floor));
        }
        let mut seen = union(self, Some(other));
        seen.retain(|_| !is_on(Canary::JoinForgetsSeen));
        let authors = authors(&alive);
        seen.retain(|s| s.instant.by(s.replica) >= floor && authors.binary_search(&s.replica).is_err());
        Self { floor, alive: alive.into(), seen }
    }

    /// The same without its `n` oldest candidates and what was seen before those that are left: joined, it drops them
    /// everywhere, and whatever else is older. As it is if no candidate would be left.
    #[must_use]
    pub fn raised(&self, n: usize) -> Self {
        let Some((oldest, alive)) = self.alive.get(n..).and_then(|kept| Some((kept.first()?, kept))) else {
            return self.clone();
        };
        let floor = oldest.stamp;
        let seen = self.seen.iter().filter(|s| s.instant.by(s.replica) >= floor).copied().collect();
        Self { floor, alive: alive.to_vec().into(), seen }
    }

    /// Whether a write of this stamp has been seen here (it may be alive or replaced).
    #[must_use]
    pub fn covers(&self, stamp: Stamp) -> bool {
        covers(&union(self, None), stamp)
    }

    /// Whether the register is one that honest replicas can hold.
    ///
    /// # Errors
    /// [`Malformed`], naming the broken condition.
    pub fn check(&self) -> Result<(), Malformed> {
        let Some(newest) = self.alive.last() else { return Err(Malformed::NoCandidate) };
        if self.floor > newest.stamp {
            return Err(Malformed::FloorAboveNewest);
        }
        if self.alive.first().is_some_and(|c| c.stamp < self.floor) {
            return Err(Malformed::BelowFloor);
        }
        if self.alive.len() == 1 && self.seen.is_empty() {
            return Ok(());
        }
        if !self.alive.is_sorted_by(|a, b| a.stamp < b.stamp)
            || !self.seen.is_sorted_by(|a, b| a.replica < b.replica)
        {
            return Err(Malformed::Unsorted);
        }
        let authors = authors(&self.alive);
        if authors.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Malformed::TwoOfOneReplica);
        }
        for entry in &self.seen {
            if entry.instant.by(entry.replica) < self.floor {
                return Err(Malformed::BelowFloor);
            }
            if authors.binary_search(&entry.replica).is_ok() {
                return Err(Malformed::SeenOfCandidate);
            }
            if entry.instant >= newest.stamp.instant() {
                return Err(Malformed::SeenAboveNewest);
            }
        }
        Ok(())
    }

    /// Appends the form that the digest hashes: everything but `saw`.
    pub fn encode_canonical(&self, out: &mut Vec<u8>) {
        if let Some(only) = self.as_plain() {
            return only.encode_canonical(out);
        }
        let stamp = |out: &mut Vec<u8>, s: Stamp| {
            out.extend_from_slice(&s.generation.to_be_bytes());
            out.extend_from_slice(&s.time.to_be_bytes());
            out.extend_from_slice(&s.replica.0);
        };
        stamp(out, self.floor);
        out.extend_from_slice(&(self.alive.len() as u64).to_be_bytes());
        for candidate in self.alive.iter() {
            stamp(out, candidate.stamp);
            out.push(candidate.rank);
            out.extend_from_slice(&(candidate.value.len() as u64).to_be_bytes());
            out.extend_from_slice(candidate.value);
        }
        for entry in &self.seen {
            stamp(out, entry.instant.by(entry.replica));
        }
    }
}

/// The floor that a write with this reach stamps.
fn floor_of(own: Stamp, reach: Reach) -> Stamp {
    match reach {
        Reach::None => own,
        Reach::Ticks(ticks) => Stamp {
            generation: own.generation,
            time: own.time.saturating_add(1).saturating_sub(ticks),
            replica: ReplicaId::default(),
        },
        Reach::Infinite => Stamp::LOWEST,
    }
}

/// Whether a write of this stamp is among what was seen, sorted by replica.
fn covers(seen: &[Seen], stamp: Stamp) -> bool {
    let found = seen.binary_search_by(|s| s.replica.cmp(&stamp.replica)).ok();
    let seen = found.and_then(|at| seen.get(at));
    seen.is_some_and(|s| {
        s.instant > stamp.instant() || s.instant == stamp.instant() && !is_on(Canary::SeenIsStrict)
    })
}

/// Whose the candidates are, sorted.
fn authors(alive: &[Candidate<'_>]) -> Vec<ReplicaId> {
    let mut authors: Vec<_> = alive.iter().map(|c| c.stamp.replica).collect();
    authors.sort_unstable();
    authors
}

/// Everything seen by either, candidates included, pointwise greatest, by replica.
fn union<'a>(one: &Register<'a>, two: Option<&Register<'a>>) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    for register in std::iter::once(one).chain(two) {
        all.extend_from_slice(&register.seen);
        all.extend(
            register.alive.iter().map(|c| Seen { replica: c.stamp.replica, instant: c.stamp.instant() }),
        );
    }
    all.sort_unstable_by(|a, b| (a.replica, b.instant).cmp(&(b.replica, a.instant)));
    all.dedup_by_key(|s| s.replica);
    all
}

/// Why a register is not well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No candidate is alive.
    #[error("a register without a candidate")]
    NoCandidate,
    /// The floor is above every candidate.
    #[error("a floor above the newest candidate")]
    FloorAboveNewest,
    /// A candidate or a seen entry is below the floor.
    #[error("a candidate or seen entry below the floor")]
    BelowFloor,
    /// Candidates or seen entries are out of order or repeated.
    #[error("candidates or seen entries out of order")]
    Unsorted,
    /// Two candidates are of one replica.
    #[error("two candidates of one replica")]
    TwoOfOneReplica,
    /// A seen entry names the replica of a candidate, whose stamp is implied.
    #[error("a seen entry for the replica of a candidate")]
    SeenOfCandidate,
    /// A seen entry is not below the newest candidate.
    #[error("a seen entry that is not below the newest candidate")]
    SeenAboveNewest,
}

#[cfg(test)]
mod tests;
