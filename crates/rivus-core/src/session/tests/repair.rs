//! Stores that were damaged on purpose: the registers that differ are found and exchanged, and nothing else is.

use std::collections::BTreeMap;

use super::*;
use crate::address;
use crate::register::{Candidate, Register};
use crate::replica::Event;
use crate::row::{self, Change, Digested, Row, Sums};
use crate::sketch::{SYMBOLS_MAX, Symbol};
use crate::store::{Batch, Place, RowRead, RowWrite};
use crate::wire::capability;

const NOW: Millis = Millis(1_000_000);

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }

    pub(super) fn pick<'c>(&mut self, choices: &[&'c str]) -> &'c str {
        choices[self.below(choices.len())]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The register is gone.
    Drop,
    /// An older value is there.
    Older,
    /// A register is there that nobody wrote.
    Extra,
}

/// An older value of a register.
fn older() -> Register<'static> {
    let stamp = crate::clock::Stamp { generation: 0, time: 5, replica: ReplicaId::from_u128(77) };
    Register::plain(Candidate { stamp, rank: 0, saw: None, value: &[0x61, b'o'] })
}

/// Damages registers of one entity of kind `task` as a fault in the engine would: the digest is that of the rows.
fn damage(device: &mut Device, id: &str, faults: &BTreeMap<Vec<u8>, Fault>) {
    damage_in(device, "", ("task", id), faults);
}

/// Damages registers of one entity, which is in this scope and in one row.
pub(super) fn damage_in(
    device: &mut Device,
    scope: &str,
    (kind, id): (&str, &str),
    faults: &BTreeMap<Vec<u8>, Fault>,
) {
    let chunk = device.store().load(kind, id, &[]).unwrap().unwrap();
    let (bytes, seq, place) = (chunk.bytes.to_vec(), chunk.seq, chunk.place);
    let mut buffer = Vec::new();
    let mut digested = Digested::new(&mut buffer, kind, id);
    let (mut held, mut sums) = (BTreeMap::new(), Sums::default());
    for entry in Row::new(&bytes, seq).unwrap().entries() {
        let entry = entry.unwrap();
        let state = entry.state().unwrap();
        let share = digested.hash(entry.address, &state.shown);
        sums.add(Sums { shown: share.wrapping_neg(), confirmed: share.wrapping_neg(), count: -1 });
        held.insert(entry.address.to_vec(), state.shown);
    }
    for (address, fault) in faults {
        let before = match fault {
            Fault::Drop => held.remove(address),
            Fault::Older | Fault::Extra => held.insert(address.clone(), older()),
        };
        assert_eq!(before.is_none(), *fault == Fault::Extra, "{fault:?} of {address:?}");
    }
    let join = |register| Change::Join { register, source: None };
    let changes: Vec<_> = held.into_iter().map(|(address, register)| (address, join(register))).collect();
    let mut packing = Vec::new();
    let applied = row::apply(Row::empty(), &changes, &mut packing, &mut digested).unwrap();
    sums.add(digested.sums);
    let (_, bytes) = &applied.rows[0];
    assert_eq!(applied.rows.len(), 1);
    let row = RowRead { kind, id, start: (&[]).into(), seq, place: Place(place.0) };
    let write = RowWrite { row, bytes: bytes.into(), scope };
    let named = [(scope, sums)];
    let scopes = if scope.is_empty() { &[][..] } else { &named };
    let batch = Batch { rows: vec![write].into(), sums, scopes: scopes.into(), ..Batch::default() };
    device.store_mut().commit(batch).unwrap();
    assert_eq!(device.head().unwrap().digest, device.recompute_digest().unwrap());
}

/// Damages `count` registers at random of tasks `t0` to `tN` that have fields `f0` to `fM`.
fn damage_at_random(
    device: &mut Device,
    random: &mut Random,
    (tasks, fields): (usize, usize),
    count: usize,
    faults: &[Fault],
) {
    let mut all: BTreeMap<String, BTreeMap<Vec<u8>, Fault>> = BTreeMap::new();
    let mut left = count;
    while left > 0 {
        let fault = faults[random.below(faults.len())];
        let field = match fault {
            Fault::Extra => format!("x{}", random.below(1000)),
            _ => format!("f{}", random.below(fields)),
        };
        let task = all.entry(format!("t{}", random.below(tasks))).or_default();
        left -= usize::from(task.insert(address::field(&field), fault).is_none());
    }
    all.iter().for_each(|(id, faults)| damage(device, id, faults));
}

/// Tasks `t0` to `tN`, each with fields `f0` to `fM`.
fn fill(device: &mut Device, (tasks, fields): (usize, usize)) {
    for task in 0..tasks {
        let put = (0..fields).map(|field| (format!("f{field}"), Value::from(format!("{task} {field}"))));
        act(device, 1000 + i64::try_from(task).unwrap(), &format!("t{task}"), Action::Put(put.collect()));
    }
}

/// A hub and a device with the same content.
fn judged(size: (usize, usize)) -> (Device, Device) {
    let (mut device, mut hub) = (device(1), hub(9));
    fill(&mut hub, size);
    sync_at(&mut device, &mut hub, NOW.0).unwrap();
    assert_same(&[&device, &hub]);
    (device, hub)
}

/// Two peers with the same content.
fn peers(size: (usize, usize)) -> (Device, Device) {
    let (mut one, mut two) = (device(1), device(2));
    fill(&mut one, size);
    sync_at(&mut one, &mut two, NOW.0).unwrap();
    assert_same(&[&one, &two]);
    (one, two)
}

/// What a connection took from the moment on at which the digests were found to differ.
#[derive(Debug, Default)]
struct Taken {
    /// Bytes of all frames but those of registers.
    beside: usize,
    /// Bytes of the frames of registers.
    registers: usize,
    /// How often one side waited for the other.
    rounds: usize,
    events: Vec<SessionEvent>,
}

impl Taken {
    fn diverged(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, SessionEvent::Diverged { .. })).count()
    }

    /// The registers of the only repair.
    fn repaired(&self) -> Option<usize> {
        let mut repairs = self.events.iter().filter_map(|event| match event {
            SessionEvent::Repaired { registers, bytes, rounds } => Some((*registers, *bytes, *rounds)),
            _ => None,
        });
        let (registers, bytes, rounds) = repairs.next()?;
        assert!(repairs.next().is_none(), "one repair a connection");
        assert!(bytes <= self.beside && (2..=10).contains(&rounds), "{self:?}");
        Some(registers)
    }

    fn verified(&self) -> bool {
        matches!(
            self.events
                .iter()
                .rfind(|e| matches!(e, SessionEvent::Diverged { .. } | SessionEvent::Verified { .. })),
            Some(SessionEvent::Verified { .. })
        )
    }

    fn received(&self) -> usize {
        let joined = |event: &SessionEvent| match event {
            SessionEvent::Joined { registers, .. } => *registers,
            _ => 0,
        };
        self.events.iter().map(joined).sum()
    }
}

/// Runs a connection that wants everything once, and measures it. `alter` may change frames of the server on their way.
fn measured(
    one: &mut Device,
    two: &mut Device,
    capabilities: u64,
    mut alter: impl FnMut(&mut Vec<u8>),
) -> Taken {
    let (mut s, mut t) = (client(Want::Once), server());
    let mut taken = Taken::default();
    let mut differs = false;
    while !s.is_closed() {
        let mut moved = false;
        let mut note = |frame: &[u8], differs: bool| {
            if differs {
                let rows = [tag::REPAIR, tag::DELTA].contains(&frame[0]) && frame.len() > 16;
                *(if rows { &mut taken.registers } else { &mut taken.beside }) += frame.len();
            }
        };
        while let Some(frame) = s.poll_transmit(one, NOW).unwrap() {
            moved = true;
            note(&frame, differs);
            orderly(t.handle(two, &frame, NOW));
        }
        while let Some(mut frame) = t.poll_transmit(two, NOW).unwrap() {
            moved = true;
            note(&frame, differs);
            alter(&mut frame);
            s.handle(one, &frame, NOW).unwrap();
            if let Some(peer) = &mut s.peer {
                peer.capabilities &= capabilities;
            }
        }
        assert!(moved, "nobody has anything to say, and it has not ended: {s:?}");
        let events: Vec<_> = s.poll_events().collect();
        taken.rounds += usize::from(differs && taken.repaired().is_none());
        differs |= events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. }));
        taken.events.extend(events);
    }
    taken
}

fn orderly(result: Result<(), SessionError>) {
    match result {
        Err(SessionError::Goaway { code: Code::CLOSED, .. }) => {}
        other => other.unwrap(),
    }
}

fn connect(one: &mut Device, two: &mut Device) -> Taken {
    measured(one, two, u64::MAX, |_| {})
}

/// The bound that the project sets itself: 1.5 KB beyond the registers themselves, and 3 round trips.
#[test]
fn ten_differences_in_a_hundred_thousand_registers_take_at_most_1536_bytes_and_3_round_trips() {
    let size = (5000, 19);
    let lost = [Fault::Older];
    let mut random = Random(11);
    let (mut device, mut hub) = judged(size);
    assert_eq!(device.head().unwrap().digest.count, 100_000);
    damage_at_random(&mut device, &mut random, size, 10, &lost);
    let by_hub = connect(&mut device, &mut hub);
    assert_same(&[&device, &hub]);
    drop((device, hub));
    let (mut one, mut two) = peers(size);
    damage_at_random(&mut one, &mut random, size, 5, &lost);
    damage_at_random(&mut two, &mut random, size, 5, &lost);
    let by_peer = connect(&mut one, &mut two);
    assert_same(&[&one, &two]);
    for taken in [by_hub, by_peer] {
        println!("{} bytes beside {} of registers, {} rounds", taken.beside, taken.registers, taken.rounds);
        assert!(taken.repaired() >= Some(10) && taken.diverged() == 1, "{taken:?}");
        assert!(taken.beside <= 1536 && taken.rounds <= 3, "{taken:?}");
        assert!(taken.registers < 1000, "{taken:?}");
    }
}

#[test]
fn what_a_device_has_lost_or_holds_in_an_older_version_is_there_again_after_one_connection() {
    for seed in 0..40 {
        let size = (40, 6);
        let (mut device, mut hub) = judged(size);
        let mut random = Random(seed);
        let count = 1 + random.below(60);
        damage_at_random(&mut device, &mut random, size, count, &[Fault::Drop, Fault::Older]);
        let taken = connect(&mut device, &mut hub);
        assert_eq!((taken.diverged(), taken.repaired()), (1, Some(count)), "seed {seed}: {taken:?}");
        assert!(taken.verified() && taken.received() == count, "seed {seed}: {taken:?}");
        assert_same(&[&device, &hub]);
        assert!(device.identity().authority.unwrap().met, "nothing is owed to the hub");
    }
}

/// Single connections: what a damaged row holds now goes out as a change first. If the other side changes by that, no
/// position is common to both before the next connection.
#[test]
fn peers_that_have_both_lost_something_are_equal_after_two_connections_at_most() {
    let mut at_once = 0;
    for seed in 0..60 {
        let size = (40, 6);
        let (mut one, mut two) = peers(size);
        let mut random = Random(seed);
        let faults: &[Fault] = if seed % 2 == 0 {
            &[Fault::Drop, Fault::Older]
        } else {
            &[Fault::Drop, Fault::Older, Fault::Extra]
        };
        let both = seed % 3 > 0;
        let count = 1 + random.below(30);
        damage_at_random(&mut one, &mut random, size, count, faults);
        if both {
            damage_at_random(&mut two, &mut random, size, count, faults);
        }
        let first = connect(&mut one, &mut two);
        at_once += first.repaired().map_or(0, |_| 1);
        let second = connect(&mut one, &mut two);
        assert_same(&[&one, &two]);
        assert!(first.repaired().or(second.repaired()) > Some(0), "seed {seed}: {first:?}, {second:?}");
        assert!(both || seed % 2 == 1 || first.repaired() >= Some(count), "seed {seed}: {first:?}");
        let again = connect(&mut one, &mut two);
        assert!(again.verified() && again.received() == 0, "seed {seed}: {again:?}");
    }
    assert!(at_once >= 20, "{at_once}");
}

#[test]
fn peers_that_stay_connected_mend_whatever_both_have_lost() {
    for seed in 0..60 {
        let size = (40, 6);
        let (mut one, mut two) = peers(size);
        let mut random = Random(seed);
        for device in [&mut one, &mut two] {
            let count = 1 + random.below(30);
            damage_at_random(device, &mut random, size, count, &[Fault::Drop, Fault::Older, Fault::Extra]);
        }
        let (mut s, mut t) = (client(Want::Live), server());
        let mut events = Vec::new();
        for _ in 0..3 {
            let mut this = End { replica: &mut one, session: &mut s, now: NOW };
            run(&mut this, &mut End { replica: &mut two, session: &mut t, now: NOW }, usize::MAX).unwrap();
            s.handle_quiet();
            t.handle_quiet();
            events.extend(s.poll_events());
        }
        assert_same(&[&one, &two]);
        assert!(s.is_synced(one.head().unwrap().seq), "seed {seed}");
        let repairs = events.iter().filter(|event| matches!(event, SessionEvent::Repaired { .. })).count();
        assert_eq!(repairs, 1, "seed {seed}: {events:?}");
    }
}

/// An authority takes from a device what it judged, and by an upload what it has lost.
#[test]
fn what_the_hub_has_lost_it_gets_by_the_upload_of_the_next_connection() {
    let size = (40, 6);
    let (mut device, mut hub) = judged(size);
    let faults = [(address::field("f3"), Fault::Drop), (address::field("f4"), Fault::Older)];
    damage(&mut hub, "t7", &faults.into());
    damage(
        &mut device,
        "t8",
        &[(address::field("f1"), Fault::Older), (address::field("x"), Fault::Extra)].into(),
    );
    let taken = connect(&mut device, &mut hub);
    assert_eq!((taken.diverged(), taken.verified()), (2, false), "{taken:?}");
    assert!(taken.received() < 20, "not everything was read: {taken:?}");
    assert!(!device.identity().authority.unwrap().met);
    let taken = connect(&mut device, &mut hub);
    assert!(taken.diverged() == 0, "{taken:?}");
    assert_same(&[&device, &hub]);
}

#[test]
fn where_too_much_differs_everything_is_read_again() {
    let size = (400, 10);
    let (mut device, mut hub) = judged(size);
    damage_at_random(&mut device, &mut Random(3), size, 3500, &[Fault::Older]);
    device.poll_events();
    let taken = connect(&mut device, &mut hub);
    let with = hub.identity().store;
    let told = device.poll_events();
    assert!(told.contains(&Event::Diverged { with, scope: None }), "the application hears of it: {told:?}");
    assert_eq!((taken.diverged(), taken.repaired()), (1, None), "{taken:?}");
    assert!(taken.received() >= 4000 && taken.verified(), "{taken:?}");
    assert_same(&[&device, &hub]);
}

#[test]
fn from_a_side_that_tells_no_sketch_everything_is_read_again() {
    let size = (40, 6);
    for judges in [true, false] {
        let (mut one, mut two) = if judges { judged(size) } else { peers(size) };
        damage(&mut one, "t7", &[(address::field("f3"), Fault::Older)].into());
        let taken = measured(&mut one, &mut two, !capability::SKETCH, |_| {});
        assert_eq!((taken.diverged(), taken.repaired(), taken.received()), (1, None, 40 * 7), "{taken:?}");
        assert_same(&[&one, &two]);
    }
}

/// A digest that is not that of the rows is found by `verify`; whoever meets it finds no register that differs.
#[test]
fn where_no_register_differs_everything_is_read_once() {
    let size = (40, 6);
    let (mut device, mut hub) = judged(size);
    let sums = Sums { shown: 5, confirmed: 5, count: 0 };
    device.store_mut().commit(Batch { sums, ..Batch::default() }).unwrap();
    let taken = connect(&mut device, &mut hub);
    assert_eq!((taken.repaired(), taken.received(), taken.verified()), (Some(0), 40 * 7, false), "{taken:?}");
}

/// A share that is kept of an evicted register takes part as it is; nothing that was evicted comes back.
#[test]
fn a_wrong_share_of_an_evicted_register_is_mended_and_stays_a_share() {
    let size = (40, 6);
    let (mut device, mut hub) = judged(size);
    let names = |ids: &[&str]| ids.iter().map(|id| ("task".to_owned(), (*id).to_owned())).collect::<Vec<_>>();
    device.evict(NOW, &names(&["t3", "t4", "t5"])).unwrap();
    let before = device.evicted().unwrap();
    let chunk = device.store().load("task", "t4", &[]).unwrap().unwrap();
    let (mut bytes, seq, place) = (chunk.bytes.to_vec(), chunk.seq, chunk.place);
    // The row ends with the share of its last register.
    *bytes.last_mut().unwrap() ^= 1;
    let off = if bytes.last().unwrap() & 1 == 1 { 1 } else { u128::MAX };
    let row = RowRead { kind: "task", id: "t4", start: (&[]).into(), seq, place };
    let (rows, sums) = (
        vec![RowWrite { row, bytes: bytes.into(), scope: "" }],
        Sums { shown: off, confirmed: off, count: 0 },
    );
    device.store_mut().commit(Batch { rows: rows.into(), sums, ..Batch::default() }).unwrap();
    damage(&mut device, "t9", &[(address::field("f1"), Fault::Drop)].into());
    device.poll_events();
    let taken = connect(&mut device, &mut hub);
    let with = hub.identity().store;
    assert!(device.poll_events().contains(&Event::Repaired { with, registers: 2 }));
    assert_eq!((taken.diverged(), taken.repaired(), taken.verified()), (1, Some(2), true), "{taken:?}");
    assert_eq!(device.evicted().unwrap(), before);
    assert_same(&[&device, &hub]);
}

/// Edits that are made while a difference is mended are neither lost nor taken for one.
#[test]
fn edits_meanwhile_disturb_nothing() {
    let size = (30, 4);
    for judges in [true, false] {
        for at in 0..24 {
            let (mut one, mut two) = if judges { judged(size) } else { peers(size) };
            damage_at_random(&mut one, &mut Random(at), size, 9, &[Fault::Drop, Fault::Older]);
            let (mut s, mut t) = (client(Want::Live), server());
            let mut all = Vec::new();
            for step in 0..60 {
                let mut this = End { replica: &mut one, session: &mut s, now: NOW };
                let mut that = End { replica: &mut two, session: &mut t, now: NOW };
                run(&mut this, &mut that, 1).unwrap();
                if step == at || step == at + 1 {
                    put(&mut one, 2000, "t1", "f1", format!("one {step}"));
                    put(&mut two, 2001, "t2", "f2", format!("two {step}"));
                }
                if step % 16 == 15 {
                    t.handle_quiet();
                    s.handle_quiet();
                }
                all.extend(s.poll_events());
            }
            assert!(s.is_synced(one.head().unwrap().seq), "at {at}, judged {judges}: {all:?}");
            let repairs = all.iter().filter(|event| matches!(event, SessionEvent::Repaired { .. })).count();
            assert_eq!(repairs, 1, "at {at}, judged {judges}: {all:?}");
            assert_eq!(shows(&two, "t1", "f1"), text(&format!("one {}", at + 1)), "at {at}, judged {judges}");
            assert_eq!(shows(&one, "t2", "f2"), text(&format!("two {}", at + 1)), "at {at}, judged {judges}");
            assert_same(&[&one, &two]);
        }
    }
}

#[test]
fn a_repair_that_is_cut_at_any_frame_is_made_by_the_next_connection() {
    let size = (30, 4);
    for judges in [true, false] {
        for cut in 0..24 {
            let (mut one, mut two) = if judges { judged(size) } else { peers(size) };
            damage_at_random(&mut one, &mut Random(cut), size, 9, &[Fault::Drop, Fault::Older]);
            if !judges {
                damage_at_random(&mut two, &mut Random(cut + 100), size, 9, &[Fault::Drop, Fault::Extra]);
            }
            let (mut s, mut t) = (client(Want::Once), server());
            run(
                &mut End { replica: &mut one, session: &mut s, now: NOW },
                &mut End { replica: &mut two, session: &mut t, now: NOW },
                usize::try_from(cut).unwrap(),
            )
            .unwrap();
            for _ in 0..2 {
                connect(&mut one, &mut two);
            }
            assert_same(&[&one, &two]);
            assert!(one.identity().authority.is_none_or(|authority| authority.met), "cut after {cut}");
        }
    }
}

/// Whatever the other says that it holds: it is asked for so many symbols and no more, and then everything is read.
#[test]
fn a_sketch_of_lies_costs_bounded_rounds_and_joins_nothing_false() {
    let size = (30, 4);
    for seed in 0..10 {
        let (mut device, mut hub) = judged(size);
        damage(&mut device, "t7", &[(address::field("f3"), Fault::Older)].into());
        let (mut random, mut told, mut frames) = (Random(seed), 0, 0);
        let taken = measured(&mut device, &mut hub, u64::MAX, |frame| {
            if let Ok(Frame::Sketch(symbols)) = Frame::decode(frame) {
                frames += 1;
                told += symbols.len();
                let mut lie = |symbol: &Symbol| match seed % 3 {
                    0 => Symbol { keys: random.below(usize::MAX) as u64, checks: 7, count: symbol.count },
                    1 => Symbol { count: random.below(3) as u64, ..*symbol },
                    _ => Symbol { checks: symbol.checks ^ 1, ..*symbol },
                };
                *frame = Frame::Sketch(symbols.iter().map(&mut lie).collect()).encode();
            }
        });
        assert!(told <= SYMBOLS_MAX && frames <= 9, "seed {seed}: {told} symbols in {frames} frames");
        assert!(taken.verified() && taken.diverged() <= 2, "seed {seed}: {taken:?}");
        assert_same(&[&device, &hub]);
    }
}

/// A server answers one sketch a connection, and gives nothing that is not confirmed.
#[test]
fn a_side_that_asks_out_of_turn_is_turned_away() {
    let ask = |count| Frame::AskSketch { count }.encode();
    let lacks = || Frame::Lacks(vec![crate::sketch::Key(1)]).encode();
    let repair = || crate::wire::page::RowEncoder::default().finish_repair(false);
    let open = |hub: &mut Device, device: &mut Device| {
        let (mut s, mut t) = (client(Want::Live), server());
        let mut one = End { replica: device, session: &mut s, now: NOW };
        run(&mut one, &mut End { replica: hub, session: &mut t, now: NOW }, usize::MAX).unwrap();
        (s, t)
    };
    let drain = |t: &mut Session, hub: &mut Device| {
        let mut frames = Vec::new();
        while let Some(frame) = t.poll_transmit(hub, NOW).unwrap() {
            frames.push(frame);
        }
        frames
    };
    let cases: [(&str, Vec<Vec<u8>>); 6] = [
        ("registers before a sketch", vec![lacks()]),
        ("a sketch before the answer", vec![ask(1), ask(1)]),
        ("more symbols than there are", vec![ask(SYMBOLS_MAX), vec![], ask(1)]),
        ("registers twice", vec![ask(1), vec![], lacks(), vec![], lacks()]),
        ("a second sketch", vec![ask(1), vec![], lacks(), vec![], ask(1)]),
        ("registers for an authority", vec![ask(1), vec![], repair()]),
    ];
    for (what, frames) in cases {
        let (mut device, mut hub) = judged((3, 3));
        let (_, mut t) = open(&mut hub, &mut device);
        let before = hub.head().unwrap();
        let (last, sound) = frames.split_last().unwrap();
        for frame in sound {
            if frame.is_empty() {
                assert!(!drain(&mut t, &mut hub).is_empty(), "{what}");
            } else {
                t.handle(&mut hub, frame, NOW).unwrap();
            }
        }
        let error = t.handle(&mut hub, last, NOW).unwrap_err();
        assert!(matches!(error, SessionError::Refused { code: Code::UNEXPECTED, .. }), "{what}: {error}");
        assert_eq!(hub.head().unwrap(), before);
    }
    // A client tells no sketch, takes none that it has not asked for, and no registers.
    let symbols = || Frame::Sketch(vec![Symbol::default()]).encode();
    for frame in [ask(1), lacks(), symbols(), repair()] {
        let (mut one, mut two) = peers((3, 3));
        let (mut s, mut t) = open(&mut two, &mut one);
        let error = s.handle(&mut one, &frame, NOW).unwrap_err();
        assert!(matches!(error, SessionError::Refused { code: Code::UNEXPECTED, .. }), "{frame:?}: {error}");
        if frame != ask(1) {
            assert!(t.handle(&mut two, &frame, NOW).is_err(), "{frame:?}");
        }
    }
}
