//! What one change does to one register: the only place where stored registers change.

use xxhash_rust::xxh3::xxh3_128;

use super::Confirmed;
use crate::address::class;
use crate::clock::Stamp;
use crate::conflict::{Held, Loss, Witness};
use crate::id::StoreId;
use crate::register::{Candidate, Register};
use crate::rules::Watch;

/// One register as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State<'a> {
    /// What the application sees: confirmed joined with pending.
    pub shown: Register<'a>,
    /// The same without pending edits.
    pub confirmed: Confirmed<'a>,
    /// When the shown form last changed; 0 is the seq of the row.
    pub seq: u64,
    /// The store that holds this very register already, because it sent it.
    pub source: Option<StoreId>,
}

impl<'a> State<'a> {
    /// The confirmed form, if there is one.
    #[must_use]
    pub fn confirmed(&self) -> Option<&Register<'a>> {
        match &self.confirmed {
            Confirmed::Same => Some(&self.shown),
            Confirmed::Absent => None,
            Confirmed::Register(register) => Some(register),
        }
    }

    /// Takes the confirmed form out.
    #[must_use]
    pub fn into_confirmed(self) -> Option<Register<'a>> {
        match self.confirmed {
            Confirmed::Same => Some(self.shown),
            Confirmed::Absent => None,
            Confirmed::Register(register) => Some(register),
        }
    }
}

/// A change of one register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// Joins something confirmed: from another store, or a local edit where there is no authority.
    Join {
        /// The delta.
        register: Register<'a>,
        /// Who sent it; `None` for a local edit.
        source: Option<StoreId>,
    },
    /// Joins a local edit that an authority has yet to judge.
    Pend(Register<'a>),
    /// The authority accepted this delta: it becomes confirmed.
    Accept(Register<'a>),
    /// Goes back to the confirmed form.
    Withdraw,
    /// It was never here: the authority does not take what was confirmed without it.
    Forget,
}

impl<'a> Change<'a> {
    /// What is joined.
    pub(crate) fn register(&self) -> Option<&Register<'a>> {
        match self {
            Self::Join { register, .. } | Self::Pend(register) | Self::Accept(register) => Some(register),
            Self::Withdraw | Self::Forget => None,
        }
    }
}

/// What a commit adds to the digests, and the address prefix that is hashed with each register.
#[derive(Debug)]
pub struct Digested<'b> {
    buffer: &'b mut Vec<u8>,
    prefix: usize,
    /// Where the address that was gone to last ends.
    address: usize,
    /// Where confirmed and pending are kept apart, the two digests differ.
    pub sums: Sums,
    /// Stamps that were met with two different contents: the mark of a copied database.
    pub clashes: Vec<Stamp>,
    /// Looks out for writes that get lost.
    pub(crate) witness: Option<&'b Witness>,
    pub(crate) losses: Vec<Loss>,
    /// What rules read of the entity's kind.
    pub(crate) watch: Option<&'b Watch>,
    /// The address that names the entity's scope, if its kind has one.
    pub(crate) scope: Option<&'b [u8]>,
}

/// Changes of a scope's digests and counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Added, modulo 2^128, to the digest of what is shown.
    pub shown: u128,
    /// Added, modulo 2^128, to the digest of what is confirmed.
    pub confirmed: u128,
    /// Added to the number of confirmed registers.
    pub count: i64,
}

impl Sums {
    /// Adds another change.
    pub fn add(&mut self, other: Self) {
        self.shown = self.shown.wrapping_add(other.shown);
        self.confirmed = self.confirmed.wrapping_add(other.confirmed);
        self.count += other.count;
    }

    /// What is left without a part of it.
    #[must_use]
    pub fn minus(self, part: Self) -> Self {
        Self {
            shown: self.shown.wrapping_sub(part.shown),
            confirmed: self.confirmed.wrapping_sub(part.confirmed),
            count: self.count - part.count,
        }
    }
}

impl<'b> Digested<'b> {
    /// Starts sums for the registers of one entity; `buffer` is scratch space.
    pub fn new(buffer: &'b mut Vec<u8>, kind: &str, id: &str) -> Self {
        buffer.clear();
        for part in [kind, id] {
            buffer.extend_from_slice(&(part.len() as u64).to_be_bytes());
            buffer.extend_from_slice(part.as_bytes());
        }
        let prefix = buffer.len();
        let (sums, clashes, losses) = (Sums::default(), Vec::new(), Vec::new());
        Self {
            buffer,
            prefix,
            address: prefix,
            sums,
            clashes,
            witness: None,
            losses,
            watch: None,
            scope: None,
        }
    }

    /// Whether the register stays when the entity is evicted: what rules read of it, and its scope.
    pub(super) fn keeps(&self, address: &[u8]) -> bool {
        let always = [class::LIFE, class::CLAIM, class::ALIAS];
        address.first().is_some_and(|class| always.contains(class))
            || self.watch.is_some_and(|watch| watch.reads(address))
            || self.scope == Some(address)
    }

    /// The register's summand of the digest.
    pub fn hash(&mut self, address: &[u8], register: &Register<'_>) -> u128 {
        self.at(address);
        register.encode_canonical(self.buffer);
        xxh3_128(self.buffer)
    }

    /// Goes to an address.
    pub(super) fn at(&mut self, address: &[u8]) {
        self.buffer.truncate(self.prefix);
        self.buffer.extend_from_slice(&(address.len() as u64).to_be_bytes());
        self.buffer.extend_from_slice(address);
        self.address = self.buffer.len();
    }

    /// The summand of a plain register at the address that was gone to last.
    pub(super) fn hash_plain(&mut self, only: &Candidate<'_>) -> u128 {
        self.buffer.truncate(self.address);
        only.encode_canonical(self.buffer);
        xxh3_128(self.buffer)
    }

    /// What a change of one register adds. Hashes are most of a small edit's time: each is made once, and none for
    /// a form that stays.
    fn replaced(&mut self, address: &[u8], before: Option<&State<'_>>, after: Option<&State<'_>>) -> Sums {
        let (old, new) = (before.map(|s| &s.shown), after.map(|s| &s.shown));
        let (old_confirmed, new_confirmed) =
            (before.and_then(State::confirmed), after.and_then(State::confirmed));
        let mut hash = |register: Option<&Register<'_>>| register.map_or(0, |r| self.hash(address, r));
        let shown = if old == new { None } else { Some((hash(old), hash(new))) };
        let confirmed = match (old_confirmed == new_confirmed, shown) {
            (true, _) => (0, 0),
            (false, None) => (hash(old_confirmed), hash(new_confirmed)),
            (false, Some((gone, come))) => (
                if old_confirmed == old { gone } else { hash(old_confirmed) },
                if new_confirmed == new { come } else { hash(new_confirmed) },
            ),
        };
        let (gone, come) = shown.unwrap_or_default();
        Sums {
            shown: come.wrapping_sub(gone),
            confirmed: confirmed.1.wrapping_sub(confirmed.0),
            count: i64::from(new_confirmed.is_some()) - i64::from(old_confirmed.is_some()),
        }
    }
}

pub(super) struct Outcome<'a> {
    pub(super) after: Option<State<'a>>,
    pub(super) changed: bool,
    pub(super) shown_changed: bool,
}

/// Applies the changes of one address in order and accounts for them in the digests.
pub(super) fn step<'a>(
    address: &[u8],
    before: Option<State<'a>>,
    changes: impl Iterator<Item = &'a Change<'a>>,
    digested: &mut Digested<'_>,
) -> Outcome<'a> {
    let mut after = before.clone();
    for change in changes {
        if let (Some(state), Change::Join { register, .. }) = (&after, change) {
            digested.clashes.extend(clash(&state.shown, register));
        }
        let held = digested.witness.and_then(|witness| after.clone().map(|held| (witness, held)));
        after = one(after, change);
        if let (Some((witness, held)), Some(after), Change::Join { register, .. }) = (&held, &after, change) {
            let seq = if Some(held) == before.as_ref() { held.seq } else { 0 };
            let had = Held { seq, source: held.source, candidates: &held.shown.alive };
            witness.joined(address, (&held.shown, had), register, &after.shown, &mut digested.losses);
        }
    }
    if before == after {
        return Outcome { after, changed: false, shown_changed: false };
    }
    let sums = digested.replaced(address, before.as_ref(), after.as_ref());
    digested.sums.add(sums);
    let shown_changed = sums.shown != 0;
    if let Some(state) = &mut after {
        // Also when it was taken back and made again as it was.
        state.seq = if shown_changed { 0 } else { before.as_ref().map_or(0, |before| before.seq) };
    }
    Outcome { after, changed: true, shown_changed }
}

fn one<'a>(before: Option<State<'a>>, change: &'a Change<'a>) -> Option<State<'a>> {
    let fresh = |shown: &Register<'a>, confirmed, source| {
        Some(State { shown: shown.clone(), confirmed, seq: 0, source })
    };
    let Some(mut state) = before else {
        return match change {
            Change::Join { register, source } => fresh(register, Confirmed::Same, *source),
            Change::Accept(register) => fresh(register, Confirmed::Same, None),
            Change::Pend(register) => fresh(register, Confirmed::Absent, None),
            Change::Withdraw | Change::Forget => None,
        };
    };
    match change {
        Change::Join { register, source } => {
            let joined = state.shown.join(register);
            if joined != state.shown {
                state.source = source.filter(|_| joined == *register);
                state.shown = joined;
            }
            confirm(&mut state, register);
        }
        Change::Accept(register) => {
            let joined = state.shown.join(register);
            if joined != state.shown {
                state.source = None;
                state.shown = joined;
            }
            confirm(&mut state, register);
        }
        Change::Pend(register) => {
            if state.confirmed == Confirmed::Same {
                state.confirmed = Confirmed::Register(state.shown.clone());
            }
            state.shown = state.shown.join(register);
            state.source = None;
        }
        Change::Withdraw => match std::mem::replace(&mut state.confirmed, Confirmed::Same) {
            Confirmed::Same => {}
            Confirmed::Absent => return None,
            Confirmed::Register(register) => state.shown = register,
        },
        Change::Forget => return None,
    }
    Some(state)
}

fn confirm<'a>(state: &mut State<'a>, register: &Register<'a>) {
    let confirmed = match &state.confirmed {
        Confirmed::Same => return,
        Confirmed::Absent => register.clone(),
        Confirmed::Register(confirmed) => confirmed.join(register),
    };
    state.confirmed = if confirmed == state.shown { Confirmed::Same } else { Confirmed::Register(confirmed) };
}

/// A stamp that both hold with different contents.
fn clash(one: &Register<'_>, two: &Register<'_>) -> Option<Stamp> {
    let differs = |c: &&crate::register::Candidate<'_>| {
        let same = two.alive.binary_search_by(|d| d.stamp.cmp(&c.stamp)).ok();
        same.and_then(|at| two.alive.get(at)).is_some_and(|d| (d.rank, d.value) != (c.rank, c.value))
    };
    one.alive.iter().find(differs).map(|c| c.stamp)
}
