//! How much principals send: a token bucket for each, shared by all connections of a hub.
//!
//! Whoever is in credit may send whatever a frame holds, and is in debt afterwards: so a push of any size goes through
//! some day. A bucket that is full again is forgotten.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Millis;

/// So many bytes of a frame, unpacked, count as one register.
const COUNTED_BYTES: usize = 4096;

/// What a frame costs beside the registers in it.
pub(super) fn cost(bytes: usize) -> usize {
    1 + bytes / COUNTED_BYTES
}

/// How many seconds' worth may be sent at once.
const BURST_S: i64 = 6;

/// How many principals are remembered at most. Beyond, all are asked to wait until some have recovered.
const BUCKETS_MAX: usize = 65_536;

/// How long somebody waits for whom there is no room, in ms.
const ROOM_WAIT_MS: u64 = 1000;

/// The buckets of everybody who is not in full credit.
#[derive(Debug, Default)]
pub(super) struct Rate {
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What may be sent, in thousandths of a register; below zero after a large frame.
    level: i64,
    at: Millis,
}

impl Bucket {
    fn refilled(self, per_second: i64, now: Millis) -> Self {
        // A clock that is set back gives nothing and takes nothing.
        let elapsed_ms = now.0.saturating_sub(self.at.0).max(0);
        let level = self.level.saturating_add(elapsed_ms.saturating_mul(per_second));
        Self { level: level.min(full(per_second)), at: now }
    }

    /// After how many ms it has this much: whoever comes back can say more than a greeting.
    fn wait_ms(self, level: i64, per_second: i64) -> u64 {
        u64::try_from(level.saturating_sub(self.level) / per_second + 1).unwrap_or(0)
    }

    fn without(self, registers: usize) -> Self {
        let cost = i64::try_from(registers).unwrap_or(i64::MAX).saturating_mul(1000);
        Self { level: self.level.saturating_sub(cost), ..self }
    }
}

fn full(per_second: i64) -> i64 {
    per_second * BURST_S * 1000
}

impl Rate {
    /// Takes `registers` out of somebody's bucket, which gains `per_second`.
    ///
    /// # Errors
    /// After how many ms to try again. Nothing was taken.
    pub(super) fn take(&self, who: &str, registers: usize, per_second: u32, now: Millis) -> Result<(), u64> {
        let per_second = i64::from(per_second.max(1));
        // Whoever panicked with the lock in hand has left every bucket whole.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(who) {
            buckets.retain(|_, bucket| bucket.refilled(per_second, now).level < full(per_second));
            if buckets.len() >= BUCKETS_MAX {
                return Err(ROOM_WAIT_MS);
            }
        }
        let fresh = Bucket { level: full(per_second), at: now };
        let bucket = buckets.get(who).copied().unwrap_or(fresh).refilled(per_second, now);
        if bucket.level <= 0 {
            let wait_ms = bucket.wait_ms(per_second * 1000, per_second);
            buckets.insert(who.to_owned(), bucket);
            return Err(wait_ms);
        }
        buckets.insert(who.to_owned(), bucket.without(registers));
        Ok(())
    }

    /// Takes `registers` out of somebody's bucket, in credit or not.
    pub(super) fn debit(&self, who: &str, registers: usize, per_second: u32, now: Millis) {
        let per_second = i64::from(per_second.max(1));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(who) {
            *bucket = bucket.refilled(per_second, now).without(registers);
        }
    }
}

/// What a client may send without being asked to wait, as far as it can know: others may pay from the same bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace(Option<(Bucket, i64)>);

impl Pace {
    /// Keeps to so many registers a second. How much is left of the bucket from earlier connections is not known.
    pub(super) fn told(per_second: Option<u32>, now: Millis) -> Self {
        Self(per_second.map(|per_second| {
            let per_second = i64::from(per_second.max(1));
            (Bucket { level: enough(per_second), at: now }, per_second)
        }))
    }

    /// Something was sent.
    pub(super) fn spend(&mut self, registers: usize, now: Millis) {
        if let Some((bucket, per_second)) = &mut self.0 {
            *bucket = bucket.refilled(*per_second, now).without(registers);
        }
    }

    /// For how many ms nothing should be sent; `None` if something may be.
    pub(super) fn wait_ms(&self, now: Millis) -> Option<u64> {
        let (bucket, per_second) = self.0?;
        let bucket = bucket.refilled(per_second, now);
        (bucket.level <= 0).then(|| bucket.wait_ms(0, per_second))
    }

    /// For how many ms no push should be sent: a small one now is worse than a larger one in a moment.
    pub(super) fn push_wait_ms(&self, now: Millis) -> Option<u64> {
        let (bucket, per_second) = self.0?;
        let bucket = bucket.refilled(per_second, now);
        (bucket.level < enough(per_second)).then(|| bucket.wait_ms(enough(per_second), per_second))
    }

    /// How many registers a push may have.
    pub(super) fn registers_max(&self, now: Millis) -> usize {
        let Some((bucket, per_second)) = self.0 else { return usize::MAX };
        usize::try_from(bucket.refilled(per_second, now).level / 1000).unwrap_or(0)
    }
}

/// Half a second's worth.
fn enough(per_second: i64) -> i64 {
    per_second * 500
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lends_once_and_is_paid_back_by_time() {
        let rate = Rate::default();
        assert_eq!(
            rate.take("a", 1000, 100, Millis(0)),
            Ok(()),
            "600 in credit: a large frame goes into debt"
        );
        assert_eq!(rate.take("a", 1, 100, Millis(0)), Err(5001), "a second's worth");
        assert_eq!(rate.take("a", 1, 100, Millis(4000)), Err(1001));
        assert_eq!(rate.take("b", 1, 100, Millis(0)), Ok(()), "nobody pays for another");
        assert_eq!(rate.take("a", 1, 100, Millis(4001)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_neither_gives_nor_takes() {
        let rate = Rate::default();
        assert_eq!(rate.take("a", 700, 100, Millis(10_000)), Ok(()));
        assert_eq!(rate.take("a", 1, 100, Millis(0)), Err(2001));
        assert_eq!(rate.take("a", 1, 100, Millis(1001)), Ok(()));
    }

    #[test]
    fn those_in_full_credit_are_forgotten_where_room_is_needed() {
        let rate = Rate::default();
        for n in 0..BUCKETS_MAX {
            rate.take(&n.to_string(), 1, 100, Millis(0)).unwrap();
        }
        assert_eq!(rate.take("new", 1, 100, Millis(0)), Err(ROOM_WAIT_MS));
        assert_eq!(rate.take("new", 1, 100, Millis(10)), Ok(()));
        assert_eq!(rate.buckets.lock().unwrap().len(), 1);
    }
}
