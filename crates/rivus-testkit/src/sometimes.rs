//! "Sometimes" events: rare situations that a simulator must keep meeting, counted.
//!
//! A simulator that no longer gets into a situation has stopped testing it, and nothing else would say so.

use std::fmt;
use std::marker::PhantomData;

/// A situation that runs must get into now and then.
pub trait Situation: Copy + 'static {
    /// Every situation, in the order of tables.
    const ALL: &[Self];

    /// The situation in words.
    fn text(self) -> &'static str;

    /// Its place among all.
    fn place(self) -> usize;
}

/// How often each situation came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage<E> {
    counts: Vec<u64>,
    of: PhantomData<E>,
}

impl<E: Situation> Default for Coverage<E> {
    fn default() -> Self {
        Self { counts: vec![0; E::ALL.len()], of: PhantomData }
    }
}

impl<E: Situation> Coverage<E> {
    /// Counts one.
    pub fn hit(&mut self, event: impl Into<E>) {
        if let Some(count) = self.counts.get_mut(event.into().place()) {
            *count += 1;
        }
    }

    /// How often each came up, in the order of [`Situation::ALL`].
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    /// Those that came up less than `least` times.
    #[must_use]
    pub fn below(&self, least: u64) -> Vec<(E, u64)> {
        E::ALL.iter().copied().zip(self.counts.iter().copied()).filter(|(_, n)| *n < least).collect()
    }
}

/// A table, one situation a line.
impl<E: Situation> fmt::Display for Coverage<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        E::ALL.iter().zip(&self.counts).try_for_each(|(event, n)| writeln!(f, "{n:>12}  {}", event.text()))
    }
}

/// Declares the situations of a simulator, each with its words.
macro_rules! sometimes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A situation that runs must get into now and then.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Sometimes { $($(#[$doc])* $name,)* }

        impl $crate::sometimes::Situation for Sometimes {
            const ALL: &[Self] = &[$(Self::$name,)*];

            fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use sometimes;
