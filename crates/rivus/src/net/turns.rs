//! Whose turn it is at a hub's replica.
//!
//! A replica serves one connection at a time, so the time that one takes is taken from all others. It is therefore what
//! connections pay with, measured by the clock, whatever they did with it. An account earns a small part of the time
//! that passes. While it is in credit its short turns go at once. All other turns go through one lane, one at a time, who
//! owes least first; and behind a long one the lane stays empty for a while if anybody in credit was there lately. So
//! however many connections flood a hub, and whatever with, most of the time nobody stands in the way of those who do
//! little. While all are busy, or one alone is, nothing waits for anything but the turn before it.
//!
//! Owns accounts and the lane. Knows neither frames nor sockets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// What part of the time that passes an account earns: one in so many.
const EARNED_OF: u32 = 64;

/// The most that an account saves up, in time at the replica.
const CREDIT_MAX: Duration = Duration::from_millis(20);

/// What an account owes at first: whoever comes anew gains nothing by it.
const DEBT_FIRST: Duration = Duration::from_millis(20);

/// The most that it owes: a past of any length is paid off some day.
const DEBT_MAX: Duration = Duration::from_millis(100);

/// Who owes no more than this need not wait until the lane has rested.
const DEBT_LITTLE: Duration = Duration::from_millis(10);

/// A turn up to this long delays nobody by much.
const SHORT: Duration = Duration::from_micros(250);

/// How long the lane rests after a longer one: so many times what that took.
const REST: u32 = 2;

/// For so long after a turn of somebody in credit the lane makes room for the next.
const LIVE: Duration = Duration::from_millis(100);

/// How long somebody else may come first for what an account owes: so many times that.
const DEBT_WAIT: u32 = 8;

/// What a hub's connections share.
#[derive(Debug)]
pub(crate) struct Turns {
    lane: Mutex<Lane>,
    named: Mutex<Named>,
}

/// Where turns wait that are not taken at once.
#[derive(Debug, Default)]
struct Lane {
    is_taken: bool,
    /// Who waits, by when it is their turn at the latest: what they owe counts from when they came, so that nobody waits
    /// for ever behind others who come anew.
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<Place>>,
    came: u64,
    /// It rests until then.
    free_at: Option<Instant>,
    /// When somebody in credit last had a turn.
    lit_at: Option<Instant>,
}

impl Lane {
    fn is_live(&self) -> bool {
        self.lit_at.is_some_and(|lit_at| lit_at.elapsed() < LIVE)
    }
}

/// The place at the head of the lane. Whoever drops it lets the next one in.
#[derive(Debug)]
struct Place(Arc<Turns>);

impl Drop for Place {
    fn drop(&mut self) {
        let next = self.0.with(|lane| {
            let next = lane.waiting.pop_first();
            lane.is_taken = next.is_some();
            next
        });
        if let Some((_, next)) = next {
            // One that has gone meanwhile drops it in turn.
            drop(next.send(Self(Arc::clone(&self.0))));
        }
    }
}

/// Accounts of several connections.
#[derive(Debug, Default)]
struct Named {
    accounts: BTreeMap<String, Weak<Account>>,
    /// With so many the list is cleared of those that are gone.
    sweep_at: usize,
}

/// What connections of one principal pay from.
#[derive(Debug)]
struct Account(Mutex<Level>);

#[derive(Clone, Copy, Debug)]
struct Level {
    credit: Duration,
    debt: Duration,
    at: Instant,
}

impl Level {
    fn earned(self, now: Instant) -> Self {
        let earned = now.saturating_duration_since(self.at) / EARNED_OF;
        let credit = self.credit + earned.saturating_sub(self.debt);
        Self { credit: credit.min(CREDIT_MAX), debt: self.debt.saturating_sub(earned), at: now }
    }

    fn paid(self, used: Duration) -> Self {
        let debt = self.debt + used.saturating_sub(self.credit);
        Self { credit: self.credit.saturating_sub(used), debt: debt.min(DEBT_MAX), ..self }
    }
}

impl Account {
    fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Level { credit: Duration::ZERO, debt: DEBT_FIRST, at: now })))
    }

    fn change(&self, change: impl FnOnce(Level) -> Level) -> Level {
        let mut level = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *level = change(*level);
        *level
    }
}

impl Turns {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { lane: Mutex::default(), named: Mutex::default() })
    }

    /// A connection of nobody in particular.
    pub(crate) fn join(self: &Arc<Self>) -> Turn {
        Turn { turns: Arc::clone(self), account: Account::new(Instant::now()) }
    }

    fn account(&self, name: &str) -> Arc<Account> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = named.accounts.get(name).and_then(Weak::upgrade) {
            return account;
        }
        if named.accounts.len() >= named.sweep_at {
            named.accounts.retain(|_, account| account.strong_count() > 0);
            named.sweep_at = 2 * named.accounts.len() + 64;
        }
        let account = Account::new(Instant::now());
        named.accounts.insert(name.to_owned(), Arc::downgrade(&account));
        account
    }

    fn with<R>(&self, act: impl FnOnce(&mut Lane) -> R) -> R {
        act(&mut self.lane.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits at the place of who owes so much.
    async fn place(self: &Arc<Self>, debt: Duration) -> Place {
        let waits = self.with(|lane| {
            if !std::mem::replace(&mut lane.is_taken, true) {
                return None;
            }
            let (next, waits) = oneshot::channel();
            lane.came += 1;
            lane.waiting.insert((Instant::now() + debt * DEBT_WAIT, lane.came), next);
            Some(waits)
        });
        match waits {
            // Nobody drops the sender: what is taken out of the list is sent to.
            Some(waits) => waits.await.unwrap_or_else(|_| Place(Arc::clone(self))),
            None => Place(Arc::clone(self)),
        }
    }
}

/// One connection's turns.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    account: Arc<Account>,
}

/// A turn that has come. It ends with [`Turn::pay`], or when this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    lane: Option<Place>,
    /// What may be done with it.
    pub(crate) size: Size,
}

/// How much may be done in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// As much as takes about a millisecond.
    Short,
    /// What a frame holds.
    Full,
}

impl Turn {
    /// From now on this connection pays from the account of this name.
    pub(crate) fn name(&mut self, name: &str) {
        self.account = self.turns.account(name);
    }

    /// Waits for the next turn. `size` is how much is to be done at least.
    pub(crate) async fn come(&self, size: Size) -> Pass {
        let now = Instant::now();
        let level = self.account.change(|level| level.earned(now));
        if size == Size::Short && !level.credit.is_zero() {
            self.turns.with(|lane| lane.lit_at = Some(now));
            return Pass { lane: None, size };
        }
        let place = self.turns.place(level.debt).await;
        let (free_at, is_live) = self.turns.with(|lane| (lane.free_at, lane.is_live()));
        if let Some(free_at) = free_at.filter(|_| is_live && level.debt > DEBT_LITTLE) {
            sleep_until(free_at).await;
        }
        // What is cut into short turns lets others pass between them.
        Pass { lane: Some(place), size: if is_live { size } else { Size::Full } }
    }

    /// Ends a turn that took so long at the replica.
    pub(crate) fn pay(&self, pass: Pass, used: Duration) {
        self.account.change(|level| level.paid(used));
        if pass.lane.is_some() {
            let free_at = Instant::now() + used * REST;
            self.turns.with(|lane| lane.free_at = Some(free_at).filter(|_| used > SHORT && lane.is_live()));
        }
    }
}

#[cfg(test)]
mod tests;
