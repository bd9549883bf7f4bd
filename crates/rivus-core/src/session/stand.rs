//! How far a session is, for whoever watches it.

use super::read::Reading;
use super::{Phase, Session, Want};

/// What a session is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Doing {
    /// The two sides greet each other.
    Greeting,
    /// Edits, or what this store has confirmed, go to the other side.
    Pushing,
    /// The other side's changes come.
    Pulling,
    /// Each side has what the other had.
    Idle,
    /// It is over.
    Closed,
}

/// A part of the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// How much is behind it.
    pub done: u64,
    /// How much there is, as far as is known. It grows while others write.
    pub total: u64,
}

/// How far a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stand {
    /// What it is about.
    pub doing: Doing,
    /// How far it has read the other side's changes: its position in them, of their head.
    pub read: Progress,
    /// Whether it waits for something that the other side owes it.
    pub awaits: bool,
}

impl Session {
    /// How far the session is.
    #[must_use]
    pub fn stand(&self) -> Stand {
        let head = self.peer.as_ref().map_or(0, |peer| peer.head);
        let done = self.read_up_to(head);
        Stand { doing: self.doing(), read: Progress { done, total: head.max(done) }, awaits: self.awaits() }
    }

    /// Up to where everything that is wanted has been read: where several scopes are followed, where the last of them
    /// is. One that is caught up lacks nothing, wherever its own last change was.
    fn read_up_to(&self, head: u64) -> u64 {
        let at = |reading: &Reading| reading.cursor().at.max(reading.cursor().done);
        if !self.lanes.are_named() {
            return at(&self.reading);
        }
        let behind = self.lanes.readings().filter(|reading| !reading.is_caught_up()).map(at).min();
        behind.unwrap_or(head)
    }

    /// Whether something holds in a subscription, be it to everything or to a scope.
    fn any_reading(&self, holds: impl Fn(&Reading) -> bool) -> bool {
        holds(&self.reading) || self.lanes.readings().any(holds)
    }

    fn doing(&self) -> Doing {
        match self.phase {
            Phase::Start | Phase::Greeting => Doing::Greeting,
            Phase::Closed => Doing::Closed,
            Phase::Open if self.schema_due => Doing::Greeting,
            Phase::Open
                if !self.is_server() && (self.pushing.is_none() || !self.is_drained()) && self.gives() =>
            {
                Doing::Pushing
            }
            Phase::Open if self.any_reading(|reading| reading.is_awaited() || reading.is_planned()) => {
                Doing::Pulling
            }
            Phase::Open => Doing::Idle,
        }
    }

    /// Whether the other side judges what this one writes.
    fn gives(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.is_authority)
    }

    /// Whether the other side owes something: an answer, a page, or to say what it has received.
    ///
    /// A server is owed nothing by a client that is merely slow to be told of changes: that says so when it has them.
    fn awaits(&self) -> bool {
        match self.phase {
            Phase::Start | Phase::Closed => false,
            Phase::Greeting => true,
            Phase::Open if self.schema_due => true,
            Phase::Open => {
                let uploads = !self.is_server() && self.gives() && self.pushing.is_none();
                let received = self.options.want != Want::Live && !self.gives() && !self.is_server();
                self.pushing.as_ref().is_some_and(super::push::Pushing::is_awaited)
                    || self.any_reading(Reading::is_awaited)
                    || self.fetching.is_awaited()
                    || uploads
                    || received
            }
        }
    }

    /// How far this side has read the other's changes, if it is at a position: (incarnation, seq).
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        let cursor = self.reading.cursor();
        (cursor.incarnation.0, cursor.at)
    }
}
