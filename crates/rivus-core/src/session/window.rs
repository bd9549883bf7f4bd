//! Credit for pages: how much of them may be on its way before the other side has joined it.
//!
//! Whoever reads tells how many bytes of pages it has taken, and whoever writes stops when more than a window is on
//! its way. So what is in the buffers between them is bounded whatever they could hold, and a change in one
//! subscription waits for no more than a window of another. Nothing is kept for a reader that falls behind: the
//! next page is read from its cursor.

use super::{Session, SessionError, unexpected};
use crate::wire::{Frame, PAGE_BYTES_AIM, WINDOW_BYTES};

/// The writing side of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outgoing {
    /// Bytes of pages sent since SUBSCRIBE.
    sent: u64,
    /// Of these, those that the other side has taken, as it says.
    taken: u64,
}

impl Outgoing {
    /// Of a scope half as much: what changes in another waits for it.
    pub(super) fn is_open(&self, is_of_scope: bool) -> bool {
        self.sent - self.taken < if is_of_scope { WINDOW_BYTES / 2 } else { WINDOW_BYTES }
    }

    pub(super) fn send(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }
}

/// The reading side of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Incoming {
    taken: u64,
    told: u64,
}

impl Incoming {
    /// Counts a page, and says what the other side is to be told.
    fn take(&mut self, bytes: usize) -> Option<u64> {
        self.taken = self.taken.saturating_add(bytes as u64);
        if self.taken - self.told < PAGE_BYTES_AIM as u64 {
            return None;
        }
        self.told = self.taken;
        Some(self.taken)
    }
}

impl Session {
    /// Whether so much is on its way that nothing more of what was subscribed to may be sent.
    pub(super) fn is_window_full(&self) -> bool {
        self.writing.is_some_and(|writing| !writing.window.is_open(self.scope.is_some()))
    }

    /// Counts a page of the subscription, and tells the other side when it is time.
    pub(super) fn take_page(&mut self, bytes: usize) {
        if let Some(taken) = self.reading.window.take(bytes) {
            self.send(&Frame::Window { taken });
        }
    }

    pub(super) fn handle_window(&mut self, taken: u64) -> Result<(), SessionError> {
        let window = self.writing.as_mut().map(|writing| &mut writing.window);
        match window {
            Some(window) if (window.taken..=window.sent).contains(&taken) => {
                window.taken = taken;
                Ok(())
            }
            _ => Err(unexpected("WINDOW beyond what was sent, or back")),
        }
    }
}
