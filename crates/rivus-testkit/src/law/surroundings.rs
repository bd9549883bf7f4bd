//! What lies around a computation and must not reach into it: the clock, who computes, and chance.
//!
//! Owns a value for each thread that the checks change between two runs of the same function on the same input.
//! Knows nothing of the laws. A function under test that asks a clock, a random source or a locale of its own is
//! found out only if that source is connected to [`Surroundings::current`], or differs by itself between two calls.

use std::cell::Cell;

use rivus_core::clock::Millis;
use rivus_core::id::ReplicaId;

/// What is around a computation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Surroundings {
    /// What a clock of the machine would say.
    pub now: Millis,
    /// On whose machine it is.
    pub replica: ReplicaId,
    /// Whatever else differs between two machines, as a number: hash seeds, locale, how many cores.
    pub salt: u64,
}

impl Surroundings {
    /// One machine.
    pub const HERE: Self =
        Self { now: Millis(1_700_000_000_000), replica: ReplicaId(1_u128.to_be_bytes()), salt: 1 };
    /// Another machine.
    pub const THERE: Self = Self { replica: ReplicaId(2_u128.to_be_bytes()), salt: 2, ..Self::HERE };
    /// The first machine, a year later.
    pub const LATER: Self = Self { now: Millis(1_731_536_000_000), ..Self::HERE };

    /// What is around this thread now.
    ///
    /// ```
    /// use rivus_testkit::law::Surroundings;
    /// let later = Surroundings::LATER.around(|| Surroundings::current().now);
    /// assert!(later > Surroundings::current().now);
    /// ```
    #[must_use]
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Computes `f` in these surroundings, and puts the former ones back, also after a panic.
    pub fn around<T>(self, f: impl FnOnce() -> T) -> T {
        let _restored = Restore(CURRENT.replace(self));
        f()
    }
}

struct Restore(Surroundings);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

thread_local! {
    static CURRENT: Cell<Surroundings> = const { Cell::new(Surroundings::HERE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surroundings_come_back_after_a_panic() {
        let left = std::panic::catch_unwind(|| {
            Surroundings::THERE.around(|| std::panic::resume_unwind(Box::new("left")))
        });
        assert!(left.is_err());
        assert_eq!(Surroundings::current(), Surroundings::HERE);
    }
}
