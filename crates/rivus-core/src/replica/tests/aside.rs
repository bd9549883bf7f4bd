//! What is set aside, within its bounds.

use super::sync::{ends, sync};
use super::*;
use crate::code::Code;
use crate::session::pair::{End, run};
use crate::session::{SessionError, SessionEvent};

/// When those play who are in time, and when those do who are not.
const NOW: Millis = Millis(1_000_000);
const FAR: i64 = 20 * YEAR;

/// An entity with so many registers from the future, besides its life.
fn early(from: &mut Device, id: &str, registers: usize, value: &str) {
    let fields = (0..registers).map(|n| (format!("f{n}"), Value::from(value))).collect();
    on(from, FAR, "any", id, Action::Put(fields));
}

/// Lets both talk, and says why they stop if they do.
fn talk_at(now: Millis, from: &mut Device, to: &mut Device) -> Result<(), SessionError> {
    let (mut s, mut t) = ends();
    let mut from = End { replica: from, session: &mut s, now };
    run(&mut from, &mut End { replica: to, session: &mut t, now }, usize::MAX).map(|_| ())
}

fn talk(from: &mut Device, to: &mut Device) -> Result<(), SessionError> {
    talk_at(NOW, from, to)
}

fn is_full(talked: &Result<(), SessionError>) -> bool {
    let Err(error) = talked else { return false };
    error.code() == Some(Code::CLOCK_SKEW) && error.to_string().contains("is the clock right")
}

/// Peers set aside, and so does an authority with what is brought back.
fn takers() -> [Device; 2] {
    let mut hub = device(8);
    hub.serve_as_authority().unwrap();
    [device(9), hub]
}

#[test]
fn registers_from_the_future_are_set_aside_up_to_a_number_and_what_is_in_time_goes_on() {
    for mut to in takers() {
        let mut liar = device(1);
        let each = ASIDE_REGISTERS_MAX / 4;
        for id in ["a", "b", "c", "d", "e"] {
            early(&mut liar, id, each, "x");
        }
        assert!(is_full(&talk(&mut liar, &mut to)));
        let kept = to.quarantined().unwrap();
        assert!(kept >= 2 * each && kept <= ASIDE_REGISTERS_MAX, "{kept}");
        // However often it is tried.
        assert!(is_full(&talk(&mut liar, &mut to)));
        assert_eq!(to.quarantined(), Ok(kept));
        let mut honest = device(2);
        on(&mut honest, 1000, "task", "t", field("title", "in time"));
        sync(&mut honest, &mut to);
        assert!(to.view("task", "t").unwrap().is_some());
        // Once their time has come there is room again, and all of it is had.
        assert_eq!(to.release(Millis(FAR)), Ok(kept));
        assert_eq!(to.quarantined(), Ok(0));
        talk_at(Millis(FAR), &mut liar, &mut to).unwrap();
        assert_eq!(to.quarantined(), Ok(0));
        assert!(to.view("any", "e").unwrap().is_some());
    }
}

#[test]
fn registers_from_the_future_are_set_aside_up_to_so_many_bytes() {
    for mut to in takers() {
        let mut liar = device(1);
        let value = "x".repeat(1 << 20);
        for n in 0..=ASIDE_BYTES_MAX >> 20 {
            early(&mut liar, &n.to_string(), 1, &value);
        }
        assert!(is_full(&talk(&mut liar, &mut to)));
        let kept = to.quarantined().unwrap();
        assert!(kept > 100 && kept <= 2 * (ASIDE_BYTES_MAX >> 20), "{kept}");
    }
}

#[test]
fn what_is_set_aside_already_needs_no_more_room() {
    let (mut to, mut liar) = (device(9), device(1));
    early(&mut liar, "a", ASIDE_REGISTERS_MAX / 2 - 1, "x");
    early(&mut liar, "b", ASIDE_REGISTERS_MAX / 2 - 1, "x");
    talk(&mut liar, &mut to).unwrap();
    assert_eq!(to.quarantined(), Ok(ASIDE_REGISTERS_MAX));
    // Another has the same, and tells it once more.
    let mut copy = device(2);
    talk_at(Millis(FAR), &mut copy, &mut liar).unwrap();
    let (mut s, mut t) = ends();
    let mut one = End { replica: &mut copy, session: &mut s, now: NOW };
    run(&mut one, &mut End { replica: &mut to, session: &mut t, now: NOW }, usize::MAX).unwrap();
    let told = |event| matches!(event, SessionEvent::Joined { quarantined, .. } if quarantined > 0);
    assert!(t.poll_events().any(told), "it was told again");
    assert_eq!(to.quarantined(), Ok(ASIDE_REGISTERS_MAX));
    // One more does not fit.
    early(&mut liar, "c", 1, "x");
    assert!(is_full(&talk(&mut liar, &mut to)));
}
