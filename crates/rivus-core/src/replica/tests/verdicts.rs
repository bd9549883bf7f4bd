//! What an authority says of pushed edits, and what its devices make of that.

use super::*;
use crate::code::Code;
use crate::identity::Peer;
use crate::register::Candidate;
use crate::wire::page::{RowDecoder, RowEncoder};

pub(super) const HUB: StoreId = StoreId(9);

pub(super) fn hub() -> Device {
    let options = OpenOptions {
        seeds: seeds(9),
        slot: 0,
        admission: Admission::Refuse { drift_ms_max: 60_000 },
        rank: 0,
    };
    let mut hub = Replica::open(MemoryStore::new(), schema(), options).unwrap();
    hub.become_authority().unwrap();
    hub
}

/// A device that has met the hub, and may write with this rank.
fn met(n: u64) -> Device {
    let mut device = device(n);
    device.meet_authority(HUB, 0).unwrap();
    device
}

/// One connection, frame by frame.
#[derive(Default)]
pub(super) struct Line {
    taint: Taint,
    heard: u64,
    answers: u64,
    encoder: RowEncoder,
    decoder: RowDecoder,
}

impl Line {
    /// Up to `count` pending edits after the given key, in one frame.
    pub(super) fn push<S: Store>(
        &mut self,
        device: &Replica<S>,
        after: u64,
        count: usize,
    ) -> (Vec<(u64, Stamp)>, Vec<u8>) {
        let mut keys = Vec::new();
        let encoder = &mut self.encoder;
        device
            .pending(after + 1, &mut |key, edit| {
                if keys.len() == count {
                    return ControlFlow::Break(());
                }
                encoder.start_edit(key - keys.last().map_or(0, |(key, _)| *key), edit.entities.len());
                for entity in &edit.entities {
                    encoder.entity(entity.kind, entity.id, entity.registers.iter().map(|(a, r)| (*a, r)));
                }
                keys.push((key, edit.header.stamp));
                ControlFlow::Continue(())
            })
            .unwrap();
        (keys, encoder.finish_push(self.heard, device.head().unwrap().seq, None))
    }

    pub(super) fn judge<S: Store>(
        &mut self,
        hub: &mut Device,
        device: &Replica<S>,
        frame: &[u8],
    ) -> Verdicts {
        let store = device.identity().store;
        let push = self.decoder.push(frame, store).unwrap();
        let replicas = device.identity().all_replicas().collect();
        let principal = Principal { store, replicas, rank_max: 0, scopes: WriteScopes::default() };
        self.answers += 1;
        let note = Peer::default();
        hub.judge(Millis(100_000), push.edits, &principal, &note, &mut self.taint, push.heard, self.answers)
            .unwrap()
    }

    pub(super) fn answer<S: Store>(
        &mut self,
        device: &mut Replica<S>,
        keys: Vec<(u64, Stamp)>,
        verdicts: Verdicts,
    ) {
        self.heard += 1;
        let answer = Answer { edits: keys, verdicts, clock: Millis(100_000) };
        device.verdicts(Millis(100_000), &answer).unwrap();
        assert_eq!(device.head().unwrap().digest, device.recompute_digest().unwrap());
    }

    /// Pushes all that is pending and returns the codes of the exceptions (none: again).
    pub(super) fn round<S: Store>(&mut self, device: &mut Replica<S>, hub: &mut Device) -> Vec<Option<Code>> {
        let (keys, frame) = self.push(device, 0, usize::MAX);
        let verdicts = self.judge(hub, device, &frame);
        let codes = verdicts.exceptions.iter().map(|(_, verdict)| match verdict {
            Verdict::Again => None,
            Verdict::Refused { code, .. } => Some(*code),
        });
        let codes = codes.collect();
        self.answer(device, keys, verdicts);
        codes
    }
}

/// An edit with a rank that the hub does not grant.
pub(super) fn ranked<S: Store>(device: &mut Replica<S>, now: i64, id: &str, action: Action) {
    device.meet_authority(HUB, 7).unwrap();
    on(device, now, "task", id, action);
    device.meet_authority(HUB, 0).unwrap();
}

fn states(device: &Device, id: &str) -> Vec<(Register<'static>, Option<Register<'static>>)> {
    let mut all = Vec::new();
    device
        .registers("task", id, &mut |_, state| {
            let own = |register: &Register<'_>| {
                let mut bytes = Vec::new();
                encode_register(register, &mut bytes);
                decode_register(bytes.leak()).unwrap()
            };
            all.push((own(&state.shown), state.confirmed().map(own)));
        })
        .unwrap();
    all
}

pub(super) fn assert_equal<S: Store>(device: &Replica<S>, hub: &Device) {
    let (ours, theirs) = (device.head().unwrap().digest, hub.head().unwrap().digest);
    assert_eq!((ours.shown, ours.confirmed, ours.count), (theirs.shown, theirs.shown, theirs.count));
}

#[test]
fn edits_are_pending_until_accepted_and_then_confirmed() {
    let (mut a, mut h, mut line) = (met(1), hub(), Line::default());
    act(&mut a, 1000, field("title", "x"));
    act(&mut a, 1001, inc("views", 2));
    assert_eq!((a.pending_count().unwrap(), a.head().unwrap().digest.count), (2, 0));
    assert!(states(&a, "t").iter().all(|(_, confirmed)| confirmed.is_none()));
    assert_eq!(line.round(&mut a, &mut h), []);
    assert_eq!(a.pending_count().unwrap(), 0);
    assert_equal(&a, &h);
    assert_eq!(a.identity().authority.unwrap().acked, h.head().unwrap().seq);
}

#[test]
fn a_refused_edit_is_taken_out_exactly_and_kept_with_its_reason() {
    let (mut a, mut h, mut line) = (met(1), hub(), Line::default());
    for action in [field("title", "before"), add("tags", "red"), inc("views", 2), field("notes", "n")] {
        act(&mut a, 1000, action);
    }
    line.round(&mut a, &mut h);
    let before = (states(&a, "t"), a.view("task", "t").unwrap(), a.head().unwrap().digest);
    let all = vec![
        field("title", "no"),
        remove("tags", "red"),
        add("tags", "new"),
        inc("views", 9),
        field("notes", "m"),
    ];
    for action in &all {
        ranked(&mut a, 2000, "t", action.clone());
    }
    ranked(&mut a, 2000, "created", field("title", "no"));
    assert_eq!(line.round(&mut a, &mut h)[0], Some(Code::RANK));
    while a.pending_count().unwrap() > 0 {
        line.round(&mut a, &mut h);
    }
    // The first was refused; the others rested on it, were made anew with the rank that is granted, and stand.
    assert_eq!(a.rejected().unwrap().len(), 2);
    assert_equal(&a, &h);
    let mut b = met(2);
    give(&h, &mut b);
    let (mut line, again) =
        (Line::default(), (states(&b, "t"), b.view("task", "t").unwrap(), b.head().unwrap().digest));
    ranked(&mut b, 3000, "t", field("title", "refused"));
    ranked(&mut b, 3000, "u", field("title", "refused"));
    assert_eq!(line.round(&mut b, &mut h), [Some(Code::RANK), Some(Code::RANK)]);
    assert_eq!((states(&b, "t"), b.view("task", "t").unwrap(), b.head().unwrap().digest), again);
    assert_eq!(b.view("task", "u").unwrap(), None, "what only it had made is gone");
    let rejected = b.rejected().unwrap();
    assert_eq!((rejected[0].code, &rejected[0].ops[0].action), (Code::RANK, &field("title", "refused")));
    assert_ne!(before.2, a.head().unwrap().digest);
}

#[test]
fn what_rests_on_a_refused_edit_is_built_anew_in_order_and_the_rest_stands() {
    let (mut a, mut h, mut line) = (met(1), hub(), Line::default());
    ranked(&mut a, 1000, "t", inc("views", 1000));
    act(&mut a, 1001, inc("views", 5));
    let stands = stamp_of(on(&mut a, 1002, "task", "u", field("title", "alone")));
    let both = [Op::new("task", "t", field("title", "x")), Op::new("task", "v", field("title", "x"))];
    a.edit(Millis(1003), &both).unwrap();
    on(&mut a, 1004, "task", "v", inc("views", 3));
    act(&mut a, 1005, inc("views", 50));
    let codes = line.round(&mut a, &mut h);
    assert_eq!(codes, [Some(Code::RANK), None, None, None, None], "t, then v by the edit of both");
    assert_eq!(shows(&a, "views"), Some(Shown::Counter(55)));
    assert_eq!(a.pending_count().unwrap(), 4);
    assert_eq!(line.round(&mut a, &mut h), []);
    assert_equal(&a, &h);
    assert_eq!(shows(&h, "views"), Some(Shown::Counter(55)));
    assert_eq!(states(&h, "u")[0].0.newest().stamp, stands);
    let v = h.view("task", "v").unwrap().unwrap().fields;
    assert_eq!((&v["title"], &v["views"]), (&Shown::Value("x".into()), &Shown::Counter(3)));
}

#[test]
fn edits_that_were_not_pushed_yet_are_built_anew_with_what_they_rest_on() {
    let (mut a, mut h, mut line) = (met(1), hub(), Line::default());
    ranked(&mut a, 1000, "t", inc("views", 1000));
    let both = [Op::new("task", "t", inc("views", 5)), Op::new("task", "v", field("title", "x"))];
    a.edit(Millis(1001), &both).unwrap();
    let before = stamp_of(on(&mut a, 1002, "task", "v", inc("views", 3)));
    let (keys, frame) = line.push(&a, 0, 1);
    let verdicts = line.judge(&mut h, &a, &frame);
    line.answer(&mut a, keys, verdicts);
    assert_eq!((shows(&a, "views"), a.pending_count().unwrap()), (Some(Shown::Counter(5)), 2));
    assert_eq!(line.round(&mut a, &mut h), []);
    assert_equal(&a, &h);
    let v = h.view("task", "v").unwrap().unwrap().fields;
    assert_eq!((&v["title"], &v["views"]), (&Shown::Value("x".into()), &Shown::Counter(3)));
    assert!(states(&h, "v")[2].0.newest().stamp > before, "v rests on t, by the edit of both");
}

#[test]
fn an_edit_wanted_again_in_a_push_of_its_own_keeps_what_was_counted_before() {
    let (mut a, mut h, mut line) = (met(1), hub(), Line::default());
    ranked(&mut a, 1000, "t", field("title", "refused"));
    act(&mut a, 1001, inc("views", 5));
    act(&mut a, 1002, inc("views", 10));
    let mut after = 0;
    let pushes = [(); 3].map(|()| {
        let (keys, frame) = line.push(&a, after, 1);
        after = keys[0].0;
        (keys, frame)
    });
    let judged = pushes.map(|(keys, frame)| (keys, line.judge(&mut h, &a, &frame)));
    for (keys, verdicts) in judged {
        line.answer(&mut a, keys, verdicts);
        assert_eq!(shows(&a, "views"), Some(Shown::Counter(15)));
    }
    assert_eq!(line.round(&mut a, &mut h), []);
    assert_equal(&a, &h);
    assert_eq!(shows(&h, "views"), Some(Shown::Counter(15)));
}

#[test]
fn edits_under_way_while_a_refusal_comes_are_wanted_again_until_it_is_heard() {
    let (mut a, mut h, mut line) = (met(1), hub(), Line::default());
    ranked(&mut a, 1000, "t", field("title", "refused"));
    let (first, one) = line.push(&a, 0, 1);
    act(&mut a, 1001, field("best", 5));
    let (second, two) = line.push(&a, first[0].0, 1);
    let verdicts = [line.judge(&mut h, &a, &one), line.judge(&mut h, &a, &two)];
    assert_eq!(verdicts[1].exceptions, [(second[0].0, Verdict::Again)]);
    let [refusal, again] = verdicts;
    line.answer(&mut a, first, refusal);
    line.answer(&mut a, second, again);
    assert_eq!(line.round(&mut a, &mut h), [], "heard: the entity is clean again");
    assert_equal(&a, &h);
    assert_eq!((shows(&h, "title"), shows(&h, "best")), (None, value(5)));
}

#[test]
fn a_push_that_comes_twice_is_accepted_again_and_changes_nothing() {
    let (mut a, mut h) = (met(1), hub());
    act(&mut a, 1000, inc("views", 5));
    act(&mut a, 1001, field("notes", "n"));
    // The answer is lost with the connection.
    let mut lost = Line::default();
    let (_, frame) = lost.push(&a, 0, 9);
    lost.judge(&mut h, &a, &frame);
    let before = h.head().unwrap();
    act(&mut a, 1002, inc("views", 6));
    let mut line = Line::default();
    let (keys, frame) = line.push(&a, 0, 2);
    let verdicts = line.judge(&mut h, &a, &frame);
    assert_eq!((verdicts.exceptions.len(), verdicts.seq, h.head().unwrap()), (0, before.seq, before));
    line.answer(&mut a, keys, verdicts);
    line.round(&mut a, &mut h);
    assert_equal(&a, &h);
    assert_eq!(shows(&h, "views"), Some(Shown::Counter(11)));
}

#[test]
fn an_edit_made_in_flight_stays_pending_when_the_one_before_is_accepted() {
    let (mut a, mut h, mut line) = (met(1), hub(), Line::default());
    act(&mut a, 1000, field("title", "one"));
    let (keys, frame) = line.push(&a, 0, 9);
    act(&mut a, 1001, field("title", "two"));
    let verdicts = line.judge(&mut h, &a, &frame);
    line.answer(&mut a, keys, verdicts);
    assert_eq!((a.pending_count().unwrap(), shows(&a, "title")), (1, value("two")));
    let title = &states(&a, "t")[1];
    assert_eq!(
        (title.0.newest().value, title.1.as_ref().unwrap().newest().value),
        (&b"\x63two"[..], &b"\x63one"[..])
    );
    assert_eq!(line.round(&mut a, &mut h), []);
    assert_equal(&a, &h);
}

#[test]
fn a_page_that_comes_before_the_verdict_leaves_the_edit_pending() {
    let (mut a, mut b, mut h) = (met(1), met(2), hub());
    let (mut of_a, mut of_b) = (Line::default(), Line::default());
    act(&mut b, 5000, field("title", "b"));
    of_b.round(&mut b, &mut h);
    act(&mut a, 6000, field("title", "a"));
    act(&mut a, 6000, add("tags", "red"));
    give(&h, &mut a);
    assert_eq!((shows(&a, "title"), a.pending_count().unwrap()), (value("a"), 2));
    assert_eq!(a.head().unwrap().digest.confirmed, h.head().unwrap().digest.shown);
    of_a.round(&mut a, &mut h);
    assert_equal(&a, &h);
}

/// What the hub says of one edit of one register by `replica`, and of a good one after it.
fn judged(register: Register<'static>, address: &[u8], of: u128) -> (Vec<(u64, Option<Code>)>, Device) {
    let mut h = hub();
    let mut line = Line::default();
    let good = Register::plain(Candidate {
        stamp: Stamp { generation: 0, time: ticks(2000), replica: ReplicaId::from_u128(of) },
        rank: 0,
        saw: None,
        value: b"\x01",
    });
    line.encoder.start_edit(1, 1);
    line.encoder.entity("task", "t", [(address, &register)].into_iter());
    line.encoder.start_edit(1, 1);
    line.encoder.entity("task", "good", [(&*address::field("title"), &good)].into_iter());
    let frame = line.encoder.finish_push(0, 2, None);
    let sender = open_with(MemoryStore::new(), u64::try_from(of).unwrap(), schema());
    let verdicts = line.judge(&mut h, &sender, &frame);
    let codes = verdicts.exceptions.into_iter().map(|(number, verdict)| match verdict {
        Verdict::Again => (number, None),
        Verdict::Refused { code, .. } => (number, Some(code)),
    });
    (codes.collect(), h)
}

#[test]
fn an_authority_refuses_what_it_must_edit_by_edit() {
    let own = |replica, time, rank| Candidate {
        stamp: Stamp { generation: 0, time, replica: ReplicaId::from_u128(replica) },
        rank,
        saw: None,
        value: b"\x01",
    };
    let seen = |replica, time| crate::register::Seen {
        replica: ReplicaId::from_u128(replica),
        instant: crate::clock::Instant { generation: 0, time },
    };
    let open =
        |own: Candidate<'static>, seen| Register { floor: Stamp::LOWEST, seen, ..Register::plain(own) };
    let title = address::field("title");
    let (now, late) = (ticks(1000), ticks(100_000 + 60_001));
    for (register, expected) in [
        (Register::plain(own(1, now, 0)), vec![]),
        (Register::plain(own(77, now, 0)), vec![(1, Some(Code::FOREIGN_STAMP))]),
        (Register::plain(own(1, now, 3)), vec![(1, Some(Code::RANK))]),
        (Register::plain(own(1, late, 0)), vec![(1, Some(Code::CLOCK_SKEW)), (2, None)]),
        (open(own(1, now, 0), vec![seen(5, 10)]), vec![(1, Some(Code::SEEN))]),
        (open(own(1, now, 0), vec![]), vec![]),
        (
            Register { alive: vec![own(2, 5, 0), own(1, now, 0)].into(), ..open(own(1, now, 0), vec![]) },
            vec![(1, Some(Code::MALFORMED))],
        ),
    ] {
        let (codes, h) = judged(register.clone(), &title, 1);
        assert_eq!(codes, expected, "{register:?}");
        assert_eq!(h.view("task", "t").unwrap().is_some(), expected.is_empty());
        assert_eq!(h.view("task", "good").unwrap().is_some(), !expected.contains(&(2, None)));
    }
}

#[test]
fn an_edit_that_saw_others_writes_is_accepted_once_the_hub_knows_them() {
    let (mut a, mut b, mut h) = (met(1), met(2), hub());
    let (mut of_a, mut of_b) = (Line::default(), Line::default());
    act(&mut b, 5000, field("notes", "b"));
    act(&mut h, 6000, field("notes", "h"));
    of_b.round(&mut b, &mut h);
    give(&h, &mut a);
    act(&mut a, 7000, field("notes", "a has seen both"));
    assert_eq!(of_a.round(&mut a, &mut h), []);
    assert_eq!(shows(&h, "notes"), value(vec![Value::from("a has seen both")]));
}
