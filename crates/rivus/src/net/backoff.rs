//! Pauses between tries, and how many tries there may be.
//!
//! The clients of a hub that was down must not all come at once: each pause is drawn anew, from nothing up to a bound
//! that doubles ("full jitter").

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// The bound of the first pause.
const PAUSE_MIN: Duration = Duration::from_millis(400);
/// The bound of every later one.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How many connections may be made at once by itself.
const BURST: u32 = 8;
/// So often one more.
const REFILL: Duration = Duration::from_secs(2);

/// Growing pauses, without end.
#[derive(Debug)]
pub(super) struct Backoff(ExponentialBackoff);

impl Backoff {
    pub(super) fn new() -> Self {
        let builder = ExponentialBuilder::default().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX);
        Self(builder.without_max_times().build())
    }

    /// The next pause, `random` deciding where up to its bound, and not below `at_least`.
    pub(super) fn next(&mut self, at_least: Duration, random: u64) -> Duration {
        let bound = self.0.next().unwrap_or(PAUSE_MAX);
        // Of 2^32 places, one.
        let share = u32::try_from(random >> 32).unwrap_or(u32::MAX);
        at_least + bound.mul_f64(f64::from(share) / f64::from(u32::MAX))
    }
}

/// A bucket of tokens: a connection that an application did not ask for takes one.
///
/// By hand: it must go by tokio's clock, which tests can stop.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    pub(super) fn full() -> Self {
        Self { tokens: BURST, since: Instant::now() }
    }

    /// Takes a token, or says when there will be one.
    pub(super) fn take(&mut self) -> Result<(), Instant> {
        let now = Instant::now();
        while self.tokens < BURST && self.since + REFILL <= now {
            self.tokens += 1;
            self.since += REFILL;
        }
        if self.tokens == BURST {
            self.since = now;
        }
        self.tokens = self.tokens.checked_sub(1).ok_or(self.since + REFILL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_nothing_up_to_a_bound_that_doubles_without_end() {
        let mut backoff = Backoff::new();
        let bounds: Vec<_> = (0..12).map(|_| backoff.next(Duration::ZERO, u64::MAX).as_millis()).collect();
        assert_eq!(bounds[..5], [400, 800, 1600, 3200, 6400]);
        assert_eq!(bounds[11], 60_000);
        assert_eq!(backoff.next(Duration::ZERO, 0), Duration::ZERO);
        assert_eq!(backoff.next(Duration::from_secs(90), 0), Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_beyond_a_burst_wait_for_their_token() {
        let mut bucket = Bucket::full();
        let start = Instant::now();
        assert!((0..8).all(|_| bucket.take().is_ok()));
        for _ in 0..1000 {
            assert_eq!(bucket.take(), Err(start + REFILL), "asking takes nothing");
        }
        tokio::time::advance(REFILL).await;
        assert_eq!((bucket.take(), bucket.take()), (Ok(()), Err(start + REFILL * 2)));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!((0..8).all(|_| bucket.take().is_ok()), "it fills again");
        assert!(bucket.take().is_err());
    }
}
