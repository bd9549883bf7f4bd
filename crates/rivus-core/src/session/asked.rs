//! What a session can be asked while it runs.

use super::{ANSWERS_BYTES_MAX, ANSWERS_MAX, Phase, Session, Want};

impl Session {
    /// Whether the next frame may take long to make, however little a page is to tell: other sides have asked for
    /// entities, or for what tells a difference.
    #[must_use]
    pub fn owes_much(&self) -> bool {
        self.helping.is_work() || self.lanes.are_helping() || !self.giving.is_empty()
    }

    /// Whether the other side has everything and is told of changes as they come: the next page is of others' making.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.writing.is_some_and(|writing| writing.is_live()) || self.lanes.are_followed()
    }

    /// Whether the frame that [`Session::poll_transmit`] has just given is the last one, until something comes in or is
    /// committed: a page of live changes mostly is. To ask once more would do no harm, and give nothing.
    #[must_use]
    pub fn has_told_all(&self) -> bool {
        self.has_told_all
    }

    /// Whether a page that has just been filled holds all that there is to tell.
    pub(super) fn is_live_alone(&self) -> bool {
        let is_idle = self.control.is_empty() && self.telling.is_idle() && self.giving.is_empty();
        self.is_server()
            && self.lanes.len() == 0
            && self
                .writing
                .is_some_and(|writing| writing.is_live() && !writing.has_more && !writing.has_marked)
            && is_idle
            && !self.leasing.is_due()
            && !self.repairing.is_under_way()
            && self.helping.is_idle()
    }

    /// Whether so many answers wait to be sent that nothing more should be taken from the other side before it has read
    /// some.
    #[must_use]
    pub fn is_choked(&self) -> bool {
        self.control.len() > ANSWERS_MAX
            || self.control.iter().map(Vec::len).sum::<usize>() > ANSWERS_BYTES_MAX
    }

    /// Whether everything that this session was to do is done: it may go on live, but each side has everything of
    /// the other. `head` is this store's head seq.
    #[must_use]
    pub fn is_synced(&self, head: u64) -> bool {
        let is_authority = self.peer.as_ref().is_some_and(|peer| peer.is_authority);
        let given = match &self.pushing {
            Some(pushing) => pushing.is_quiet(self.holds_pushes),
            None => {
                !is_authority
                    && (!self.options.offers
                        || self.holds_pushes
                        || self.writing.is_some_and(|writing| writing.is_received(head, self.peer_synced)))
            }
        };
        (self.phase == Phase::Open || self.finished)
            && given
            && self.fetching.is_done()
            && !self.is_repairing()
            && (self.options.want == Want::Nothing || self.is_caught_up())
    }

    /// How many changes the other side is behind `head`, this store's head seq; `None` if it follows none.
    #[must_use]
    pub fn lag(&self, head: u64) -> Option<u64> {
        let everything = self.writing.as_ref().map(|writing| (writing, self.peer_synced));
        let lags = everything.into_iter().chain(self.lanes.writings()).map(|(writing, synced)| {
            if writing.is_received(head, synced) {
                return 0;
            }
            head.saturating_sub(synced.unwrap_or(0).max(writing.from())).max(1)
        });
        lags.max()
    }

    /// Whether this session is to bring the other side's changes, too.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.options.want != Want::Nothing
    }

    /// Whether this side has something for a peer that is held back for now. `head` is this store's head seq.
    #[must_use]
    pub fn withholds(&self, head: u64) -> bool {
        self.holds_pages() && self.lag(head).is_some_and(|lag| lag > 0)
    }

    /// Whether the next frame may wait for a commit.
    #[must_use]
    pub fn may_commit(&self) -> bool {
        self.pushing.as_ref().is_some_and(|pushing| !pushing.is_quiet(self.holds_pushes) || pushing.holds())
    }
}
