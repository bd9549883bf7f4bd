//! Peers without a hub, in chains and rings: how much goes over the lines, against what one direct transfer would take.
//!
//! What somebody misses is measured by a connection of its own: a fresh one from a store that has exactly that to one
//! that has nothing. All bytes of frames with registers that the net sends are then compared with the sum of that over
//! all stores.

use std::collections::BTreeSet;

use super::repair::Random;
use super::*;
use crate::replica::Delta;
use crate::row::Digested;
use crate::wire::page::RowDecoder;

const NOW: Millis = Millis(1_000_000);

/// What went over lines.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Sent {
    registers: usize,
    /// Of the frames that hold them.
    bytes: usize,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.registers += other.registers;
        self.bytes += other.bytes;
    }
}

/// A connection of two stores of a net, by their numbers: who connects, and to whom.
struct Line {
    ends: [usize; 2],
    sessions: [Session; 2],
    /// What the end of this number has said, read along.
    decoders: [RowDecoder; 2],
    said: [BTreeSet<u128>; 2],
}

impl Line {
    fn new(from: usize, to: usize, want: Want) -> Self {
        Self {
            ends: [from, to],
            sessions: [client(want), server()],
            decoders: Default::default(),
            said: Default::default(),
        }
    }

    /// Moves one frame each way, if there is one; what registers went, and whether anything did.
    fn step(&mut self, devices: &mut [Device]) -> (Sent, bool) {
        let (mut sent, mut moved) = (Sent::default(), false);
        for way in 0..2 {
            let [from, to] = [self.ends[way], self.ends[1 - way]];
            let Some(frame) = self.sessions[way].poll_transmit(&mut devices[from], NOW).unwrap() else {
                continue;
            };
            moved = true;
            self.read_along(way, &frame);
            let receiver = &mut self.sessions[1 - way];
            receiver.poll_events().for_each(drop);
            match receiver.handle(&mut devices[to], &frame, NOW) {
                Err(SessionError::Goaway { code: Code::CLOSED, .. }) => {}
                other => other.unwrap(),
            }
            for event in receiver.poll_events() {
                if let SessionEvent::Joined { registers, .. } = event {
                    sent += Sent { registers, bytes: frame.len() };
                }
                assert!(!matches!(event, SessionEvent::Diverged { .. }), "{event:?}");
            }
        }
        (sent, moved)
    }

    /// A frame arrives before the other end says anything, so nothing can cross: no register goes back over the line by
    /// which it came, and none goes over it twice.
    fn read_along(&mut self, way: usize, frame: &[u8]) {
        if frame[0] != tag::DELTA {
            return;
        }
        let page = self.decoders[way].page(frame, StoreId(0)).unwrap();
        let read = page.rows.each::<()>(|part| {
            let mut buffer = Vec::new();
            let mut digested = Digested::new(&mut buffer, part.kind, part.id);
            for (address, change) in part.changes {
                let share = digested.hash(address, change.register().unwrap());
                let name =
                    || format!("{} {:?} from {} to {}", part.id, address, self.ends[way], self.ends[1 - way]);
                assert!(!self.said[1 - way].contains(&share), "{} goes back", name());
                assert!(self.said[way].insert(share), "{} goes twice", name());
            }
            Ok(())
        });
        read.unwrap();
    }

    /// Until neither end has anything to say.
    fn run(&mut self, devices: &mut [Device]) -> Sent {
        let mut all = Sent::default();
        loop {
            let (sent, moved) = self.step(devices);
            all += sent;
            if !moved {
                return all;
            }
        }
    }
}

/// How the stores are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Chain,
    Ring,
}

fn ends(shape: Shape, count: usize) -> Vec<(usize, usize)> {
    let last = if shape == Shape::Ring { count } else { count - 1 };
    (0..last).map(|n| (n, (n + 1) % count)).collect()
}

fn net(count: usize) -> Vec<Device> {
    (1..=count as u64).map(device).collect()
}

/// A few entities of this author: `count` of them, with eight registers each.
fn write(on: &mut Device, author: usize, round: usize, count: usize) {
    for n in 0..count {
        let fields =
            (0..7).map(|field| (format!("f{field}"), Value::from(format!("text {field} of {author}"))));
        let now = 1000 + i64::try_from(100 * round + n).unwrap();
        act(on, now, &format!("{author}-{round}-{n}"), Action::Put(fields.collect()));
    }
}

/// What it takes to send what all but one have written to that one, directly, summed over all.
fn missing(count: usize, writers: &[usize], round: usize, entities: usize) -> Sent {
    let mut all = Sent::default();
    for receiver in 0..count {
        // The writers' own stores, in one: replica ids are told as often as in the net.
        let mut made = net(count);
        let mut source = device(100);
        for author in writers.iter().copied().filter(|author| *author != receiver) {
            write(&mut made[author], author, round, entities);
            let mut both = [std::mem::replace(&mut made[author], device(50)), source];
            Line::new(0, 1, Want::Once).run(&mut both);
            let [_, filled] = both;
            source = filled;
        }
        let mut ends = [device(101), source];
        all += Line::new(0, 1, Want::Once).run(&mut ends);
    }
    all
}

/// How often each register, in each version, has gone over each line.
fn assert_factor(what: &str, sent: Sent, missing: Sent, factor: f64) {
    let (bytes, registers) =
        (sent.bytes as f64 / missing.bytes as f64, sent.registers as f64 / missing.registers as f64);
    println!("{what}: {bytes:.2} of the bytes, {registers:.2} of the registers");
    assert!(
        bytes <= factor && registers <= factor,
        "{what}: {bytes:.2}, {registers:.2}: {sent:?}, {missing:?}"
    );
    assert!(registers >= 1.0, "{what}: everybody has got everything: {registers}");
}

/// Whom a net is of, who writes, and how the lines are used.
#[derive(Clone, Copy, Debug)]
struct Case {
    shape: Shape,
    count: usize,
    all_write: bool,
    entities: usize,
}

impl Case {
    fn writers(self) -> Vec<usize> {
        if self.all_write { (0..self.count).collect() } else { vec![0] }
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let shapes = [
        (Shape::Chain, 2),
        (Shape::Chain, 5),
        (Shape::Ring, 3),
        (Shape::Ring, 4),
        (Shape::Ring, 5),
        (Shape::Ring, 8),
    ];
    shapes.into_iter().flat_map(|(shape, count)| {
        [(false, 1), (false, 30), (true, 1), (true, 30)].map(|(all_write, entities)| Case {
            shape,
            count,
            all_write,
            entities,
        })
    })
}

fn bound(shape: Shape) -> f64 {
    match shape {
        Shape::Chain => 1.2,
        Shape::Ring => 2.2,
    }
}

#[test]
fn live_lines_carry_little_more_than_what_is_missing() {
    for case in cases() {
        let mut devices = net(case.count);
        let mut lines: Vec<_> = ends(case.shape, case.count)
            .into_iter()
            .map(|(from, to)| Line::new(from, to, Want::Live))
            .collect();
        let mut random = Random(case.count as u64);
        let mut settle = |lines: &mut [Line], devices: &mut [Device]| {
            let mut all = Sent::default();
            // Any line may be quicker than any other.
            for _ in 0..200 * lines.len() {
                all += lines[random.below(lines.len())].step(devices).0;
            }
            for _ in 0..2 * lines.len() {
                lines.iter_mut().for_each(|line| all += line.run(devices));
            }
            for line in lines {
                line.sessions.iter_mut().for_each(Session::handle_quiet);
                all += line.run(devices);
            }
            all
        };
        settle(&mut lines, &mut devices);
        for round in 0..3 {
            for author in case.writers() {
                write(&mut devices[author], author, round, case.entities);
            }
            let sent = settle(&mut lines, &mut devices);
            assert_same(&devices.iter().collect::<Vec<_>>());
            let missing = missing(case.count, &case.writers(), round, case.entities);
            assert_factor(&format!("live {case:?}, round {round}"), sent, missing, bound(case.shape));
            if case.shape == Shape::Chain {
                assert_eq!(sent.registers, missing.registers, "{case:?}: nothing goes twice, or back");
            }
        }
    }
}

#[test]
fn single_connections_carry_little_more_than_what_is_missing() {
    for case in cases() {
        let mut devices = net(case.count);
        for round in 0..3 {
            for author in case.writers() {
                write(&mut devices[author], author, round, case.entities);
            }
            let mut sent = Sent::default();
            for _ in 0..case.count {
                for (from, to) in ends(case.shape, case.count) {
                    let mut line = Line::new(from, to, Want::Once);
                    sent += line.run(&mut devices);
                    assert!(line.sessions[0].is_closed());
                }
            }
            assert_same(&devices.iter().collect::<Vec<_>>());
            let missing = missing(case.count, &case.writers(), round, case.entities);
            assert_factor(&format!("once {case:?}, round {round}"), sent, missing, bound(case.shape));
            if case.shape == Shape::Chain {
                assert_eq!(sent.registers, missing.registers, "{case:?}: nothing goes twice, or back");
            }
        }
    }
}
