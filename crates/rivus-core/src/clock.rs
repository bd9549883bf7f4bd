//! Hybrid logical clock: stamps, the generator, and what to do with stamps from the future.
//!
//! Owns the order of writes. Knows nothing of registers; reads no clock: every reading is an argument.
//! Invariant: a stamp that [`Clock::tick`] returns is above every stamp that it returned before, and above
//! everything that the caller says the edit has seen, whatever the physical clock says.
//!
//! Source: Kulkarni et al., *Logical Physical Clocks* (2014); the time is NTP64 (RFC 5905 section 6) as uhlc
//! has it. The generation is ours: it lets a write pass over a value stamped in the far future without
//! moving any clock there.

use std::fmt;

use crate::canary::{Canary, is_on};
use crate::id::{BadId, ReplicaId};

/// A reading of a physical clock: milliseconds since 1970, UTC. Readings may step back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Millis(pub i64);

/// When and by whom: the identity ("dot") of an edit and the order between edits.
///
/// Compared by generation, then time, then replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp {
    /// Raised only to pass over a seen value whose time cannot be reached.
    pub generation: u16,
    /// NTP64: seconds since 1970 times 2^32; below [`TIME_END`].
    pub time: u64,
    /// The replica that made the edit.
    pub replica: ReplicaId,
}

impl Stamp {
    /// The stamp that no other is below.
    pub const LOWEST: Self = Self { generation: 0, time: 0, replica: ReplicaId([0; 16]) };

    /// Generation and time, the part that one replica's stamps differ in.
    #[must_use]
    pub fn instant(self) -> Instant {
        Instant { generation: self.generation, time: self.time }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.generation, self.time, self.replica)
    }
}

impl TryFrom<Stamp> for uhlc::Timestamp {
    type Error = BadId;
    /// The generation has no place in uhlc's type and is left behind.
    fn try_from(stamp: Stamp) -> Result<Self, BadId> {
        Ok(Self::new(uhlc::NTP64(stamp.time), stamp.replica.try_into()?))
    }
}

impl From<uhlc::Timestamp> for Stamp {
    fn from(timestamp: uhlc::Timestamp) -> Self {
        Self {
            generation: 0,
            time: timestamp.get_time().as_u64(),
            replica: ReplicaId::from(*timestamp.get_id()),
        }
    }
}

/// A stamp without its replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant {
    /// See [`Stamp::generation`].
    pub generation: u16,
    /// See [`Stamp::time`].
    pub time: u64,
}

impl Instant {
    /// The stamp of `replica` at this instant.
    #[must_use]
    pub fn by(self, replica: ReplicaId) -> Stamp {
        Stamp { generation: self.generation, time: self.time, replica }
    }
}

/// Times at or above this are refused by decoding: NTP64 in its last second, in 2106.
pub const TIME_END: u64 = u64::MAX - (1 << 32) + 1;

/// The greatest clock reading that stamps can follow, in ms since 1970. Later readings count as this one.
pub const MILLIS_MAX: i64 = 4_294_967_294_000;

/// How far ahead of its own clock a replica lets others' stamps be, by default: one minute.
pub const DRIFT_DEFAULT_MS: u64 = 60_000;

/// `ms` milliseconds in NTP64 units, rounded down: `floor(ms * 2^32 / 1000)`.
///
/// Saturates at `u64::MAX`.
#[must_use]
pub fn ticks(ms: u64) -> u64 {
    u64::try_from((u128::from(ms) << 32) / 1000).unwrap_or(u64::MAX)
}

/// The whole milliseconds of an NTP64 time: the greatest `ms` with `ticks(ms) <= time`.
#[must_use]
pub fn whole_millis(time: u64) -> u64 {
    let ms = u64::try_from((u128::from(time) * 1000) >> 32).unwrap_or(u64::MAX);
    if ticks(ms + 1) <= time { ms + 1 } else { ms }
}

/// The reading as NTP64 time, held between 0 and [`MILLIS_MAX`].
#[must_use]
pub fn reading(now: Millis) -> u64 {
    ticks(now.0.clamp(0, MILLIS_MAX).unsigned_abs())
}

/// What a replica does with stamps that are further ahead than it believes possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Takes every stamp, and its own clock follows.
    Off,
    /// Between peers: keeps such a register aside, whole, until its time has come.
    Quarantine {
        /// How far ahead a stamp may be, in ms.
        drift_ms_max: u64,
    },
    /// An authority: refuses the edit and tells its own time.
    Refuse {
        /// How far ahead a stamp may be, in ms.
        drift_ms_max: u64,
    },
}

impl Admission {
    /// The greatest time that `now` admits, in NTP64 units; `None` where everything is admitted.
    #[must_use]
    pub fn latest(self, now: Millis) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Quarantine { drift_ms_max } | Self::Refuse { drift_ms_max } => {
                Some(reading(now).saturating_add(ticks(drift_ms_max)))
            }
        }
    }
}

/// The generator of one replica's stamps.
#[derive(Clone, Debug)]
pub struct Clock {
    replica: ReplicaId,
    high_water: u64,
    correction_ms: i64,
}

impl Clock {
    /// A clock of `replica` that has already used every time up to `high_water` (NTP64), as last persisted.
    #[must_use]
    pub fn new(replica: ReplicaId, high_water: u64) -> Self {
        Self { replica, high_water, correction_ms: 0 }
    }

    /// Whose stamps these are.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The greatest time that was used or taken over, in NTP64 units. Persisted with every commit.
    #[must_use]
    pub fn high_water(&self) -> u64 {
        self.high_water
    }

    /// What is added to every reading, in ms: not 0 while an authority's clock is known to differ too much.
    #[must_use]
    pub fn correction_ms(&self) -> i64 {
        self.correction_ms
    }

    /// Sets what is added to every reading, in ms.
    pub fn correct(&mut self, correction_ms: i64) {
        self.correction_ms = correction_ms;
    }

    /// The reading with the correction.
    #[must_use]
    pub fn corrected(&self, now: Millis) -> Millis {
        Millis(now.0.saturating_add(self.correction_ms))
    }

    /// Takes over a time that was joined, so that later stamps are above it.
    pub fn observe(&mut self, time: u64) {
        self.high_water = self.high_water.max(time);
    }

    /// Gives back times that were used by stamps which no one else holds and which are replaced.
    pub fn lower(&mut self, high_water: u64) {
        self.high_water = self.high_water.min(high_water);
    }

    /// The stamp of a new edit.
    ///
    /// `now` is the uncorrected reading; `newest` the greatest instant that the registers which the edit
    /// writes hold; `force` raises the generation whatever the time.
    ///
    /// # Errors
    /// [`ClockError`] at the end of time or of generations; the clock is as before.
    pub fn tick(&mut self, now: Millis, newest: Option<Instant>, force: Force) -> Result<Stamp, ClockError> {
        let time = reading(self.corrected(now)).max(self.high_water.saturating_add(1));
        if time >= TIME_END {
            return Err(ClockError::EndOfTime { high_water: self.high_water });
        }
        let newest = newest.unwrap_or_default();
        let raise = force == Force::Yes || newest.time >= time && !is_on(Canary::GenerationIgnored);
        let generation = if raise {
            newest.generation.checked_add(1).ok_or(ClockError::EndOfGenerations)?
        } else {
            newest.generation
        };
        self.high_water = time;
        Ok(Stamp { generation, time, replica: self.replica })
    }
}

/// Whether an edit goes over everything with a higher generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Force {
    /// An ordinary edit.
    #[default]
    No,
    /// The edit beats also concurrent writes of the old generation, wherever they come from.
    Yes,
}

/// Why no stamp can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The clock has reached 2106.
    #[error(
        "the clock has used up all times (high-water {high_water}): a stamp from 2106 was taken over; restore a backup from before it, and keep admission on"
    )]
    EndOfTime {
        /// The last time used, NTP64.
        high_water: u64,
    },
    /// A register's generation is already 65,535.
    #[error("the register's generation is 65535, the last: delete the entity and insert it under another id")]
    EndOfGenerations,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::new(ReplicaId::from_u128(1), 0)
    }

    #[test]
    fn ticks_round_down_and_whole_millis_is_their_inverse() {
        assert_eq!(ticks(1), 4_294_967);
        assert_eq!(ticks(1000), 1 << 32);
        for ms in [0, 1, 2, 3, 999, 1000, 1_700_000_000_123, 4_294_967_294_000] {
            assert_eq!(whole_millis(ticks(ms)), ms);
            assert_eq!(whole_millis(ticks(ms) + 1), ms);
            assert_eq!(whole_millis(ticks(ms + 1) - 1), ms);
        }
        assert_eq!(TIME_END >> 32, 0xffff_ffff);
        assert_eq!(TIME_END & 0xffff_ffff, 0);
    }

    #[test]
    fn a_year_back_and_a_year_forward_stamps_rise_across_a_restart() {
        let year = 31_536_000_000;
        let mut clock = clock();
        let mut last = Stamp::LOWEST;
        for now in [5 * year, 4 * year, 6 * year, 5 * year] {
            for _ in 0..3 {
                let stamp = clock.tick(Millis(now), None, Force::No).unwrap();
                assert!(stamp > last, "{stamp} after {last}");
                last = stamp;
            }
            clock = Clock::new(clock.replica(), clock.high_water());
        }
        assert_eq!(last.time, ticks(6 * 31_536_000_000) + 5);
    }

    #[test]
    fn a_seen_value_from_the_future_is_passed_by_generation_and_no_clock_moves() {
        let mut clock = clock();
        let poison = Instant { generation: 0, time: TIME_END - 1 };
        let stamp = clock.tick(Millis(1000), Some(poison), Force::No).unwrap();
        assert_eq!((stamp.generation, stamp.time), (1, 1 << 32));
        let next = clock.tick(Millis(1000), Some(stamp.instant()), Force::No).unwrap();
        assert_eq!((next.generation, next.time), (1, (1 << 32) + 1));
        let forced = clock.tick(Millis(1000), Some(next.instant()), Force::Yes).unwrap();
        assert_eq!(forced.generation, 2);
    }

    #[test]
    fn the_end_of_time_and_of_generations_are_errors_that_change_nothing() {
        let mut clock = Clock::new(ReplicaId::from_u128(1), TIME_END - 1);
        assert!(matches!(clock.tick(Millis(5), None, Force::No), Err(ClockError::EndOfTime { .. })));
        let mut clock = Clock::new(ReplicaId::from_u128(1), 7);
        let last = Instant { generation: u16::MAX, time: TIME_END - 1 };
        assert_eq!(clock.tick(Millis(0), Some(last), Force::No), Err(ClockError::EndOfGenerations));
        assert_eq!(clock.high_water(), 7);
        assert!(clock.tick(Millis(i64::MAX), None, Force::No).unwrap().time < TIME_END);
        assert_eq!(Clock::new(ReplicaId::from_u128(1), 0).tick(Millis(-5), None, Force::No).unwrap().time, 1);
    }

    #[test]
    fn stamps_go_to_uhlc_and_back_but_for_the_generation() {
        let stamp = Stamp { generation: 0, time: ticks(1234), replica: ReplicaId::from_u128(77) };
        assert_eq!(Stamp::from(uhlc::Timestamp::try_from(stamp).unwrap()), stamp);
    }

    #[test]
    fn a_stamp_is_an_instant_and_a_replica_and_is_shown_as_both() {
        let stamp = Stamp { generation: 2, time: 7, replica: ReplicaId::from_u128(0xab) };
        assert_eq!(stamp.instant(), Instant { generation: 2, time: 7 });
        assert_eq!(stamp.instant().by(stamp.replica), stamp);
        assert_eq!(stamp.to_string(), format!("2.7@{}", stamp.replica));
    }

    #[test]
    fn what_is_admitted_ends_the_drift_after_the_own_reading() {
        let (now, drift_ms_max) = (Millis(5000), 60_000);
        assert_eq!(Admission::Off.latest(now), None);
        for admission in [Admission::Quarantine { drift_ms_max }, Admission::Refuse { drift_ms_max }] {
            assert_eq!(admission.latest(now), Some(65 << 32));
        }
        let endless = Admission::Refuse { drift_ms_max: u64::MAX };
        assert_eq!(endless.latest(now), Some(u64::MAX));
    }

    #[test]
    fn readings_are_corrected_until_the_correction_is_taken_back() {
        let mut clock = clock();
        clock.correct(-4000);
        assert_eq!((clock.correction_ms(), clock.corrected(Millis(7000))), (-4000, Millis(3000)));
        assert_eq!(clock.tick(Millis(7000), None, Force::No).unwrap().time, 3 << 32);
        clock.correct(0);
        assert_eq!((clock.correction_ms(), clock.corrected(Millis(7000))), (0, Millis(7000)));
        clock.correct(1);
        assert_eq!(clock.corrected(Millis(i64::MAX)), Millis(i64::MAX));
    }

    #[test]
    fn the_high_water_rises_to_what_is_observed_and_falls_to_what_is_given_back() {
        let mut clock = clock();
        clock.observe(90);
        clock.observe(80);
        assert_eq!(clock.high_water(), 90);
        assert_eq!(clock.tick(Millis(0), None, Force::No).unwrap().time, 91);
        clock.lower(95);
        assert_eq!(clock.high_water(), 91);
        clock.lower(50);
        assert_eq!(clock.tick(Millis(0), None, Force::No).unwrap().time, 51);
    }

    #[test]
    fn a_seen_value_of_the_same_time_is_passed_by_generation() {
        let seen = |time| Some(Instant { generation: 4, time });
        for (time, generation) in [(99, 4), (100, 5), (101, 5)] {
            let mut clock = Clock::new(ReplicaId::from_u128(1), 99);
            let stamp = clock.tick(Millis(0), seen(time), Force::No).unwrap();
            assert_eq!((stamp.generation, stamp.time), (generation, 100), "seen at {time}");
            assert_eq!((stamp.replica, clock.replica()), (ReplicaId::from_u128(1), ReplicaId::from_u128(1)));
        }
    }
}
