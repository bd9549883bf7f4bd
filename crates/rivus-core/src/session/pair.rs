//! Two sessions in one process, frame by frame: for replay scripts, simulators and tests.

use super::{Session, SessionError};
use crate::clock::Millis;
use crate::replica::Replica;
use crate::store::Store;

/// One end of a pair.
#[derive(Debug)]
pub struct End<'e, S> {
    /// The store's replica.
    pub replica: &'e mut Replica<S>,
    /// Its session.
    pub session: &'e mut Session,
    /// Its clock's reading.
    pub now: Millis,
}

/// Moves frames between two ends until neither has any more, or `frames` have passed.
///
/// Returns how many frames passed.
///
/// # Errors
/// The first [`SessionError`] of either end that is not an orderly end; the other end has been told.
pub fn run<A: Store, B: Store>(
    one: &mut End<'_, A>,
    two: &mut End<'_, B>,
    frames: usize,
) -> Result<usize, SessionError> {
    let mut passed = 0;
    loop {
        let before = passed;
        while passed < frames
            && let Some(frame) = one.session.poll_transmit(one.replica, one.now)?
        {
            passed += 1;
            orderly(two.session.handle(two.replica, &frame, two.now))?;
        }
        while passed < frames
            && let Some(frame) = two.session.poll_transmit(two.replica, two.now)?
        {
            passed += 1;
            orderly(one.session.handle(one.replica, &frame, one.now))?;
        }
        if passed == before {
            return Ok(passed);
        }
    }
}

fn orderly(result: Result<(), SessionError>) -> Result<(), SessionError> {
    match result {
        Err(SessionError::Goaway { code: crate::code::Code::CLOSED, .. }) => Ok(()),
        other => other,
    }
}
