//! One connection: two sessions, the frames between them, and what the network does to those.
//!
//! A session stands on an ordered reliable stream. So a network fault is what such a stream makes of it: frames
//! stay away for ever, or the connection ends with frames under way. A frame that is lost, doubled or late is what
//! the stream itself finds out, and the connection ends there.

use std::collections::VecDeque;

use rivus_core::session::{Session, SessionOptions};

use super::plan::Fault;
use crate::model::Known;
use crate::random::Random;

/// How many frames may be under way in one direction.
const WINDOW: usize = 3;

/// Where frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The side that has connected.
    Client,
    /// The side that it has connected to.
    Server,
}

impl End {
    pub(super) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    /// By [`End`].
    pub(super) sites: [usize; 2],
    sessions: [Session; 2],
    /// Frames on their way to this end, pages with what their sender knew.
    under_way: [VecDeque<(Vec<u8>, Option<Known>)>; 2],
    fault: Fault,
    frames: u16,
    rng: Random,
    /// An end that has failed has nothing more to hear, only perhaps to say why.
    pub(super) failed: [bool; 2],
    /// A push is on its way, or its answer.
    pub(super) pushes: u32,
}

/// What became of a frame.
#[derive(Debug)]
pub(super) enum Moved {
    /// It arrives here.
    Arrives(End, Vec<u8>, Option<Known>),
    /// It is under way, or lost.
    Away,
    /// A frame is missing, doubled or late: the stream ends there.
    Spoiled,
    /// The network has ended the connection.
    Broken,
    /// Nothing is under way.
    Nothing,
}

impl Link {
    pub(super) fn new(sites: [usize; 2], options: [SessionOptions; 2], fault: Fault, seed: u64) -> Self {
        Self {
            sites,
            sessions: options.map(Session::new),
            under_way: [VecDeque::new(), VecDeque::new()],
            fault,
            frames: 0,
            rng: Random::new(seed),
            failed: [false; 2],
            pushes: 0,
        }
    }

    pub(super) fn session(&mut self, end: End) -> &mut Session {
        &mut self.sessions[end as usize]
    }

    pub(super) fn site(&self, end: End) -> usize {
        self.sites[end as usize]
    }

    pub(super) fn has_frames(&self) -> bool {
        self.under_way.iter().any(|queue| !queue.is_empty())
    }

    /// Whether this end may put another frame on its way now. On a perfect network one frame is under way at a
    /// time, on others several.
    pub(super) fn has_room(&mut self, to: End) -> bool {
        let queue = &self.under_way[to as usize];
        queue.is_empty() || self.fault != Fault::None && queue.len() < WINDOW && self.rng.chance(1, 2)
    }

    /// Whether nothing will ever come of what this end waits for.
    pub(super) fn is_closed(&self) -> bool {
        self.sessions.iter().all(Session::is_closed)
    }

    pub(super) fn send(&mut self, to: End, frame: Vec<u8>, known: Option<Known>) {
        self.under_way[to as usize].push_back((frame, known));
    }

    /// The next frame that is under way.
    pub(super) fn next(&mut self) -> Moved {
        let to = End::BOTH.into_iter().find(|end| !self.under_way[*end as usize].is_empty());
        let Some(to) = to else { return Moved::Nothing };
        let Some((frame, known)) = self.under_way[to as usize].pop_front() else { return Moved::Nothing };
        self.frames = self.frames.saturating_add(1);
        match self.fault {
            Fault::Cut(after) if self.frames > after => Moved::Broken,
            Fault::Forward(after) if self.frames > after && to == End::Client => Moved::Away,
            Fault::Backward(after) if self.frames > after && to == End::Server => Moved::Away,
            Fault::Noise { lost, doubled, swapped } => {
                let percents = [lost, doubled, swapped];
                let spoiled = percents.into_iter().any(|percent| self.rng.chance(percent.into(), 100));
                if spoiled { Moved::Spoiled } else { Moved::Arrives(to, frame, known) }
            }
            _ => Moved::Arrives(to, frame, known),
        }
    }
}
