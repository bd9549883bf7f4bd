//! Packed rows against a map of states, and rows that are damaged.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::clock::Stamp;
use crate::id::{Incarnation, ReplicaId};
use crate::register::{Candidate, Saw};

mod golden;

static LARGE: [u8; 1500] = [0x61; 1500];
const VALUES: [&[u8]; 4] = [b"\xf6", b"\xf5", b"\x63abc", &LARGE];
const ADDRESSES: [&[u8]; 9] = [
    crate::address::LIFE,
    b"\x01\x00\x01a",
    b"\x01\x00\x01b",
    b"\x01\x00\x02aa",
    b"\x02\x00\x01g",
    b"\x03\x00\x01ska",
    b"\x03\x00\x01skb",
    b"\x04\x00\x01n0123456789abcdef",
    b"\xc8\x00\x01zz",
];

/// A change, before it is known which edits are pending.
#[derive(Clone, Debug)]
enum Act {
    Join(Register<'static>, Option<StoreId>),
    Pend(Register<'static>),
    /// Accepts a pending edit.
    Accept(Index),
    /// An authority may be asked twice and accept again what it has accepted.
    AcceptAgain(Register<'static>),
    /// Takes all pending edits back and puts these in their place.
    Rebuild(Vec<Register<'static>>),
}

/// What should be held of one address.
#[derive(Clone, Debug, Default)]
struct Held {
    confirmed: Option<Register<'static>>,
    pending: Vec<Register<'static>>,
    seq: u64,
    /// The registers that each store has sent.
    sent: Vec<(StoreId, Register<'static>)>,
}

impl Held {
    fn shown(&self) -> Option<Register<'static>> {
        self.confirmed.iter().chain(&self.pending).cloned().reduce(|one, two| one.join(&two))
    }

    fn confirm(&mut self, register: &Register<'static>) {
        self.confirmed = Some(self.confirmed.as_ref().map_or(register.clone(), |c| c.join(register)));
    }

    /// Does what the act says, and returns the changes that should do the same to a row.
    fn act(&mut self, act: &Act) -> Vec<Change<'static>> {
        match act {
            Act::Join(register, source) => {
                self.confirm(register);
                self.sent.extend(source.map(|store| (store, register.clone())));
                vec![Change::Join { register: register.clone(), source: *source }]
            }
            Act::Pend(register) => {
                self.pending.push(register.clone());
                vec![Change::Pend(register.clone())]
            }
            Act::Accept(at) if !self.pending.is_empty() => {
                let register = self.pending.remove(at.index(self.pending.len()));
                self.confirm(&register);
                vec![Change::Accept(register)]
            }
            Act::Accept(_) => Vec::new(),
            Act::AcceptAgain(register) => {
                self.confirm(register);
                vec![Change::Accept(register.clone())]
            }
            Act::Rebuild(edits) => {
                self.pending.clone_from(edits);
                std::iter::once(Change::Withdraw).chain(edits.iter().cloned().map(Change::Pend)).collect()
            }
        }
    }
}

/// An entity's rows: first address, row seq, bytes.
type Chunks = Vec<(Vec<u8>, u64, Vec<u8>)>;

/// The rows under test, the model, and the sums that have come together.
#[derive(Default)]
struct Entity {
    chunks: Chunks,
    held: BTreeMap<&'static [u8], Held>,
    sums: Sums,
    head: u64,
}

impl Entity {
    /// One commit of one or more passes over the rows.
    fn commit(&mut self, passes: &[Vec<(usize, Act)>]) {
        let mut written = vec![false; self.chunks.len().max(1)];
        if self.chunks.is_empty() {
            self.chunks.push((Vec::new(), 0, Vec::new()));
        }
        let mut moved: Vec<&'static [u8]> = Vec::new();
        for pass in passes {
            let mut changes: BTreeMap<&'static [u8], Vec<Change<'static>>> = BTreeMap::new();
            let before = self.held.clone();
            for (at, act) in pass {
                let held = self.held.entry(ADDRESSES[*at]).or_default();
                changes.entry(ADDRESSES[*at]).or_default().extend(held.act(act));
            }
            for address in changes.keys() {
                let hash = |held: &BTreeMap<_, Held>| held.get(address).and_then(Held::shown).map(canonical);
                if hash(&before) != hash(&self.held) {
                    moved.push(address);
                }
            }
            let changes: Vec<_> =
                changes.into_iter().flat_map(|(a, all)| all.into_iter().map(move |c| (a, c))).collect();
            self.pass(&changes, &mut written, &before);
        }
        for ((_, seq, _), _) in self.chunks.iter_mut().zip(&written).filter(|(_, written)| **written) {
            self.head += 1;
            *seq = self.head;
        }
        if !written.contains(&true) && self.head == 0 {
            self.chunks.clear();
        }
        for address in moved {
            let seq = self.chunks.iter().rev().find(|(start, ..)| start.as_slice() <= address).unwrap().1;
            self.held.get_mut(address).unwrap().seq = seq;
        }
    }

    fn pass(
        &mut self,
        changes: &[(&'static [u8], Change<'static>)],
        written: &mut Vec<bool>,
        before: &BTreeMap<&'static [u8], Held>,
    ) {
        let (mut buffer, mut scratch) = (Vec::new(), Vec::new());
        let mut digested = Digested::new(&mut buffer, "task", "t");
        let mut at = 0;
        while at < self.chunks.len() {
            let (start, seq, bytes) = self.chunks[at].clone();
            let row = match bytes.as_slice() {
                [] => Row::empty(),
                bytes => Row::new(bytes, if written[at] { 0 } else { seq }).unwrap(),
            };
            let here: Vec<_> =
                changes.iter().filter(|(a, _)| *a >= start.as_slice() && row.holds(a)).cloned().collect();
            let applied = apply(row, &here, &mut scratch, &mut digested).unwrap();
            let shows =
                |held: &BTreeMap<_, Held>, a: &&[u8]| held.get(a).and_then(Held::shown).map(canonical);
            let differs = here.iter().any(|(a, _)| shows(before, a) != shows(&self.held, a));
            assert_eq!(applied.shown_changed, differs);
            let pieces = applied.rows.len();
            if pieces > 0 {
                let end = row.end.to_vec();
                check_pieces(&start, &applied.rows, &end);
                let rows = applied.rows.into_iter().enumerate();
                let rows = rows.map(
                    |(n, (first, bytes))| {
                        if n == 0 { (start.clone(), seq, bytes) } else { (first, 0, bytes) }
                    },
                );
                self.chunks.splice(at..=at, rows);
                written.splice(at..=at, vec![true; pieces]);
            }
            at += pieces.max(1);
        }
        self.sums.add(digested.sums);
    }

    /// Compares every entry with the model, and the sums with the entries.
    fn check(&self) {
        let mut found = BTreeMap::new();
        let mut last: Option<Vec<u8>> = None;
        let mut buffer = Vec::new();
        let (mut shown, mut confirmed, mut count) = (0_u128, 0_u128, 0);
        for (start, seq, bytes) in &self.chunks {
            for entry in Row::new(bytes, *seq).unwrap().entries() {
                let entry = entry.unwrap();
                assert!(
                    last.as_deref().is_none_or(|last| last < entry.address)
                        && entry.address >= start.as_slice()
                );
                last = Some(entry.address.to_vec());
                let state = entry.state().unwrap();
                let mut digested = Digested::new(&mut buffer, "task", "t");
                shown = shown.wrapping_add(digested.hash(entry.address, &state.shown));
                if let Some(register) = state.confirmed() {
                    confirmed = confirmed.wrapping_add(digested.hash(entry.address, register));
                    count += 1;
                }
                found.insert(entry.address.to_vec(), state);
            }
        }
        assert_eq!(self.sums, Sums { shown, confirmed, count });
        for (address, held) in &self.held {
            let Some(state) = found.remove(*address) else {
                assert_eq!(held.shown(), None, "{address:?} is lost");
                continue;
            };
            assert_eq!(Some(&state.shown), held.shown().as_ref(), "confirmed joined with pending");
            assert_eq!(state.confirmed(), held.confirmed.as_ref());
            assert!(!held.pending.is_empty() || state.confirmed == Confirmed::Same, "nothing is pending");
            assert_eq!(state.seq, held.seq, "{address:?}");
            if let Some(source) = state.source {
                let sent =
                    held.sent.iter().any(|(store, register)| *store == source && *register == state.shown);
                assert!(sent, "{source} holds something else");
            }
        }
        assert!(found.is_empty());
    }
}

fn canonical(register: Register<'static>) -> Vec<u8> {
    let mut out = Vec::new();
    register.encode_canonical(&mut out);
    out
}

fn check_pieces(start: &[u8], rows: &[(Vec<u8>, Vec<u8>)], end: &[u8]) {
    assert!(rows[0].0.is_empty(), "the first keeps its start");
    for (n, (first, bytes)) in rows.iter().enumerate() {
        let row = Row::new(bytes, 0).unwrap();
        let first = if n == 0 { start } else { first };
        assert_eq!(row.end, rows.get(n + 1).map_or(end, |(next, _)| next));
        let entries: Vec<_> = row.entries().map(Result::unwrap).collect();
        assert!(entries.iter().all(|e| e.address >= first && row.holds(e.address)));
        assert!(bytes.len() <= CHUNK_BYTES_MAX || entries.len() == 1);
        assert!(n == 0 || !entries.is_empty());
    }
}

fn any_register() -> impl Strategy<Value = Register<'static>> {
    let saw = proptest::option::weighted(0.2, 0..3_u64);
    let candidate = (0..6_u64, 1..4_u128, 0..2_u8, saw, select(VALUES.to_vec())).prop_map(
        |(time, replica, rank, saw, value)| {
            let stamp = Stamp { generation: 0, time, replica: ReplicaId::from_u128(replica) };
            let saw = saw.map(|done| Saw { incarnation: Incarnation(7), done });
            Candidate { stamp, rank, saw, value }
        },
    );
    // Margins of all kinds, so that registers of several candidates and with `seen` come about.
    (vec((candidate, any::<bool>()), 1..4)).prop_map(|writes| {
        let mut all = writes.into_iter().map(|(own, open)| {
            let floor = if open { Stamp::LOWEST } else { own.stamp };
            Register { floor, ..Register::plain(own) }
        });
        let first = all.next().unwrap();
        all.fold(first, |register, next| register.join(&next))
    })
}

fn any_act() -> impl Strategy<Value = Act> {
    let source = || select(vec![None, Some(StoreId(1)), Some(StoreId(2))]);
    prop_oneof![
        4 => (any_register(), source()).prop_map(|(register, source)| Act::Join(register, source)),
        3 => any_register().prop_map(Act::Pend),
        3 => any::<Index>().prop_map(Act::Accept),
        1 => any_register().prop_map(Act::AcceptAgain),
        1 => vec(any_register(), 0..3).prop_map(Act::Rebuild),
    ]
}

fn any_passes() -> impl Strategy<Value = Vec<Vec<(usize, Act)>>> {
    vec(vec((0..ADDRESSES.len(), any_act()), 0..6), 1..3)
}

/// A row with pending and confirmed registers, sources and seqs of its own.
fn sample() -> Vec<u8> {
    let own = |time, value| {
        let stamp = Stamp { generation: 1, time, replica: ReplicaId::from_u128(9) };
        let saw = Some(Saw { incarnation: Incarnation(7), done: 300 });
        Register::plain(Candidate { stamp, rank: 3, saw, value })
    };
    let open = |time, value| Register { floor: Stamp::LOWEST, ..own(time, value) };
    let mut entity = Entity::default();
    entity.commit(&[vec![
        (0, Act::Join(open(1, VALUES[1]), Some(StoreId(1)))),
        (1, Act::Pend(own(1, VALUES[2]))),
    ]]);
    entity.commit(&[vec![(2, Act::Join(own(2, VALUES[2]), None)), (0, Act::Pend(open(5, VALUES[2])))]]);
    entity.commit(&[vec![(5, Act::Pend(open(3, VALUES[0])))]]);
    entity.check();
    entity.chunks[0].2.clone()
}

fn read(bytes: &[u8]) -> Result<usize, Corrupt> {
    let row = Row::new(bytes, 5)?;
    row.entries().try_fold(0, |count, entry| entry?.state().map(|_| count + 1))
}

fn apply_to(bytes: &[u8]) {
    let register = Register::plain(Candidate { stamp: Stamp::LOWEST, rank: 0, saw: None, value: VALUES[0] });
    for address in ADDRESSES {
        for change in [Change::Withdraw, Change::Pend(register.clone())] {
            let (mut buffer, mut scratch) = (Vec::new(), Vec::new());
            let mut digested = Digested::new(&mut buffer, "task", "t");
            let changes = [(address, change)];
            if let Ok(row) = Row::new(bytes, 5) {
                let _ = apply(row, &changes, &mut scratch, &mut digested);
                let _ = row.find(address);
            }
        }
    }
}

proptest! {
    #[test]
    fn rows_hold_what_a_map_of_states_holds(commits in vec(any_passes(), 1..12)) {
        let mut entity = Entity::default();
        for passes in &commits {
            entity.commit(passes);
            entity.check();
        }
    }

    #[test]
    fn junk_is_no_row_and_damage_does_no_harm(
        junk in vec(any::<u8>(), 0..60),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let _ = read(&junk);
        apply_to(&junk);
        let mut row = sample();
        for (at, byte) in damage {
            let at = at.index(row.len());
            row[at] = byte;
        }
        let _ = read(&row);
        apply_to(&row);
    }
}

#[test]
fn a_row_cut_short_inside_an_entry_is_corrupt() {
    let row = sample();
    assert_eq!(read(&row), Ok(4));
    let whole: Vec<_> = (0..row.len()).filter_map(|cut| read(&row[..cut]).ok()).collect();
    assert_eq!(whole, [0, 1, 2, 3], "between entries nothing is missing that a row could tell");
    assert_eq!(read(&[]), Err(Corrupt));
    assert_eq!(read(&[EVICTED + 1, 0]), Err(Corrupt));
    (0..row.len()).for_each(|cut| apply_to(&row[..cut]));
}

#[test]
fn an_entry_with_flags_that_no_version_writes_is_corrupt() {
    let row = sample();
    let at = (2..row.len()).find(|at| row[*at] & flag::CONFIRMED != 0 && row[*at] <= flag::KNOWN).unwrap();
    for flags in [flag::CONFIRMED_ABSENT | row[at], (flag::KNOWN + 1) | row[at], 0xff] {
        let mut bad = row.clone();
        bad[at] = flags;
        assert_eq!(read(&bad), Err(Corrupt), "{flags}");
    }
}

#[test]
fn an_entity_of_many_keys_is_kept_in_short_chunks() {
    let mut entity = Entity::default();
    for (n, value) in [3, 3, 3, 3, 3, 3, 3, 3, 3].into_iter().enumerate() {
        let stamp = Stamp { generation: 0, time: 1, replica: ReplicaId::from_u128(1) };
        let own = Register::plain(Candidate { stamp, rank: 0, saw: None, value: VALUES[value] });
        entity.commit(&[vec![(n, Act::Pend(own))]]);
        entity.check();
    }
    assert!(entity.chunks.len() > 1);
    assert!(entity.chunks.iter().all(|(_, _, bytes)| bytes.len() <= CHUNK_BYTES_MAX));
}

#[test]
fn a_row_is_empty_until_a_register_is_in_it_and_prints_what_it_holds() {
    assert!(Row::empty().is_empty());
    assert_eq!(format!("{:?}", Row::empty()), "[]");
    let bytes = sample();
    let row = Row::new(&bytes, 5).unwrap();
    assert!(!row.is_empty());
    let entry = row.find(ADDRESSES[1]).unwrap().unwrap();
    let parts = crate::address::Parts::parse(ADDRESSES[1]);
    assert_eq!(format!("{entry:?}"), format!("{parts:?}: {:?}", entry.state()));
    assert!(format!("{row:?}").contains(&format!("{entry:?}")));
}

#[test]
fn the_confirmed_form_is_the_shown_one_another_or_none() {
    let register = |time| {
        let stamp = Stamp { generation: 0, time, replica: ReplicaId::from_u128(1) };
        Register::plain(Candidate { stamp, rank: 0, saw: None, value: VALUES[0] })
    };
    let cases = [
        (Confirmed::Same, Some(register(2))),
        (Confirmed::Absent, None),
        (Confirmed::Register(register(1)), Some(register(1))),
    ];
    for (confirmed, expected) in cases {
        let state = State { shown: register(2), confirmed, seq: 0, source: None };
        assert_eq!(state.confirmed(), expected.as_ref());
        assert_eq!(state.into_confirmed(), expected);
    }
    for change in [
        Change::Join { register: register(3), source: None },
        Change::Pend(register(3)),
        Change::Accept(register(3)),
    ] {
        assert_eq!(change.register(), Some(&register(3)));
    }
    assert_eq!(Change::Withdraw.register(), None);
}

#[test]
fn digests_add_modulo_2_to_the_128_and_counts_go_both_ways() {
    let mut sums = Sums { shown: u128::MAX, confirmed: 7, count: 2 };
    sums.add(Sums { shown: 2, confirmed: u128::MAX, count: 3 });
    assert_eq!(sums, Sums { shown: 1, confirmed: 6, count: 5 });
    sums.add(Sums { count: -6, ..Sums::default() });
    assert_eq!(sums, Sums { shown: 1, confirmed: 6, count: -1 });
}

#[test]
fn only_a_joined_stamp_with_another_content_is_a_clash() {
    let stamp = |time| Stamp { generation: 0, time, replica: ReplicaId::from_u128(1) };
    let own = |time, rank, value| {
        let saw = Some(Saw { incarnation: Incarnation(7), done: time });
        Register {
            floor: Stamp::LOWEST,
            ..Register::plain(Candidate { stamp: stamp(time), rank, saw, value })
        }
    };
    let clashes = |change| {
        let (mut buffer, mut scratch) = (Vec::new(), Vec::new());
        let mut digested = Digested::new(&mut buffer, "task", "t");
        let held = Change::Join { register: own(5, 1, VALUES[0]), source: None };
        apply(Row::empty(), &[(ADDRESSES[1], held), (ADDRESSES[1], change)], &mut scratch, &mut digested)
            .unwrap();
        digested.clashes
    };
    let join = |register| Change::Join { register, source: None };
    assert_eq!(clashes(join(own(5, 1, VALUES[1]))), [stamp(5)], "another value");
    assert_eq!(clashes(join(own(5, 2, VALUES[0]))), [stamp(5)], "another rank");
    assert_eq!(clashes(join(own(5, 1, VALUES[0]))), []);
    assert_eq!(clashes(join(own(6, 1, VALUES[1]))), []);
    assert_eq!(clashes(Change::Pend(own(5, 1, VALUES[1]))), []);
}
