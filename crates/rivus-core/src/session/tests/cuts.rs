//! Connections that end at any frame, and with them the processes at both ends: what goes on is read from the two stores
//! alone, each in another incarnation.

use super::*;

/// What becomes of the frame behind those that have passed when a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// It was not made yet.
    Unmade,
    /// Its sender has made it, and nobody gets it.
    Lost,
}

/// A store, and how it is opened.
pub(super) struct Site {
    pub(super) device: Device,
    reopen: fn(MemoryStore, u64) -> Device,
    openings: u64,
}

impl Site {
    /// `reopen` is told a number that no other opening of the store has.
    pub(super) fn new(device: Device, reopen: fn(MemoryStore, u64) -> Device) -> Self {
        Self { device, reopen, openings: 0 }
    }

    /// The process ends, and another one opens the store.
    fn restart(&mut self) {
        self.openings += 1;
        let before = self.device.identity().clone();
        let number = before.store.0 * 1000 + self.openings;
        self.device = (self.reopen)(self.device.store().copy(), number);
        assert_eq!(*self.device.identity(), before, "all of that is in the store");
    }
}

fn site(n: u64) -> Site {
    Site::new(device(n), |store, n| open(store, n, Admission::Quarantine { drift_ms_max: 60_000 }))
}

fn site_of_hub(n: u64) -> Site {
    Site::new(hub(n), |store, n| open(store, n, Admission::Refuse { drift_ms_max: 60_000 }))
}

/// What the connections between two stores have told, in sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Edits that were judged, whether that had been heard of before or not.
    pub(super) judged: usize,
    /// Of these, those that had been accepted unheard.
    pub(super) duplicate: usize,
    /// Registers that came, here and there.
    pub(super) joined: [usize; 2],
    /// Of these, those that had been written where they came.
    pub(super) own: usize,
    /// The types of the frames of the last connection.
    pub(super) frames: Vec<u8>,
    /// Whether the last connection has found equal digests.
    pub(super) verified: bool,
}

impl Told {
    /// Connects two stores, until neither has more to say or so many frames have passed.
    pub(super) fn connect(
        &mut self,
        [one, two]: [&mut Site; 2],
        [mut client, mut server]: [Session; 2],
        frames: usize,
        next: Next,
    ) {
        let (a, b) = (&mut one.device, &mut two.device);
        (self.frames, self.verified) = (Vec::new(), false);
        let now = Millis(1_000_000);
        let mut was_quiet = false;
        'open: loop {
            let before = self.frames.len();
            while let Some(frame) = poll(&mut client, a, now, frames - self.frames.len(), next) {
                let Some(frame) = frame else { break 'open };
                self.frames.push(frame[0]);
                orderly(server.handle(b, &frame, now));
            }
            while let Some(frame) = poll(&mut server, b, now, frames - self.frames.len(), next) {
                let Some(frame) = frame else { break 'open };
                self.frames.push(frame[0]);
                orderly(client.handle(a, &frame, now));
            }
            if self.frames.len() > before {
                continue;
            }
            if self.frames.len() == frames || std::mem::replace(&mut was_quiet, true) {
                break;
            }
            client.handle_quiet();
            server.handle_quiet();
        }
        let left = client.left_over(a).unwrap();
        self.add([client.poll_events().collect(), server.poll_events().collect()], left);
    }

    /// Notes what one connection has told; its report has to add up.
    fn add(&mut self, events: [Vec<SessionEvent>; 2], left: LeftOver) {
        let (mut offered, mut classes) = (None, 0);
        for (side, event) in (0..).zip(events).flat_map(|(side, all)| all.into_iter().map(move |e| (side, e)))
        {
            match event {
                SessionEvent::Offering { edits } => offered = Some(edits),
                SessionEvent::Answered(answered) => {
                    let Answered { accepted, superseded, duplicate, again, refused } = answered;
                    assert_eq!(
                        (superseded, again, refused.len()),
                        (0, 0, 0),
                        "nothing speaks against any edit"
                    );
                    classes += accepted + duplicate;
                    self.duplicate += duplicate;
                }
                SessionEvent::Joined { registers, quarantined, own, .. } => {
                    assert_eq!(quarantined, 0, "nothing is of the future");
                    self.joined[side] += registers;
                    self.own += own;
                }
                SessionEvent::Verified { .. } => self.verified = true,
                SessionEvent::Diverged { .. } | SessionEvent::Copied | SessionEvent::Fenced => {
                    panic!("{event:?} after {:?}", self.frames)
                }
                _ => {}
            }
        }
        self.judged += classes;
        if let Some(offered) = offered {
            assert_eq!(offered, classes + left.blocked + left.deferred, "{:?}", self.frames);
        }
    }

    /// Connects twice for a number of frames, with new processes at both ends after each, of which the first does something,
    /// and then to the end.
    pub(super) fn cut_twice(
        [one, two]: [&mut Site; 2],
        sessions: impl Fn() -> [Session; 2],
        (cut, next): (usize, Next),
        does: impl Fn(&mut Device),
    ) -> Self {
        let mut told = Self::default();
        // The second time a frame later.
        for frames in [cut, cut + 1] {
            told.connect([one, two], sessions(), frames, next);
            one.restart();
            two.restart();
            does(&mut one.device);
        }
        told.connect([one, two], sessions(), usize::MAX, next);
        told
    }
}

/// The next frame, if there is one; `None` within if nobody gets it.
fn poll(
    session: &mut Session,
    of: &mut Device,
    now: Millis,
    left: usize,
    next: Next,
) -> Option<Option<Vec<u8>>> {
    if left == 0 && next == Next::Unmade {
        return None;
    }
    let frame = session.poll_transmit(of, now).unwrap()?;
    Some((left > 0).then_some(frame))
}

fn orderly(handled: Result<(), SessionError>) {
    match handled {
        Ok(()) | Err(SessionError::Goaway { code: Code::CLOSED, .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// All ways to cut a connection of so many frames.
pub(super) fn cuts(frames: usize) -> impl Iterator<Item = (usize, Next)> {
    (0..=frames).flat_map(|cut| [(cut, Next::Unmade), (cut, Next::Lost)])
}

/// Counts and long titles at each of these, so that they fill pages and pushes.
fn fill(sites: [&mut Site; 2]) {
    for (name, site) in ["a", "b"].into_iter().zip(sites) {
        for n in 0..12 {
            inc(&mut site.device, 1000 + n, "t", 1);
            put(&mut site.device, 2000 + n, &format!("{name}{n}"), "title", name.repeat(40_000));
        }
    }
}

/// One more, by a clock that begins anew.
fn counts_on(device: &mut Device) {
    inc(device, 0, "t", 1);
}

fn assert_filled(sites: [&Site; 2], count: i128, when: &str) {
    assert_same(&sites.map(|site| &site.device));
    for site in sites {
        assert_eq!(shows(&site.device, "t", "views"), Some(Shown::Counter(count)), "{when}");
        for name in ["a", "b"] {
            let title = shows(&site.device, &format!("{name}11"), "title");
            assert_eq!(title, text(&name.repeat(40_000)), "{when}");
        }
        assert_eq!(site.device.pending_count(), Ok(0), "{when}");
    }
}

#[test]
fn a_device_and_its_hub_that_both_die_at_any_frame_lose_nothing_and_count_nothing_twice() {
    let build = || {
        let (mut a, mut b, mut h) = (site(1), device(2), site_of_hub(9));
        inc(&mut a.device, 500, "t", 1);
        sync(&mut a.device, &mut h.device);
        sync(&mut b, &mut h.device);
        let mut b = Site::new(b, |_, _| unreachable!());
        fill([&mut a, &mut b]);
        sync(&mut b.device, &mut h.device);
        (a, h)
    };
    for want in [Want::Once, Want::Live] {
        let small = || {
            let mut client = client(want);
            client.set_push_edits_max(3);
            [client, server()]
        };
        let ((mut a, mut h), mut whole) = (build(), Told::default());
        whole.connect([&mut a, &mut h], small(), usize::MAX, Next::Unmade);
        let of = |tag| whole.frames.iter().filter(|frame| **frame == tag).count();
        assert!(of(tag::PUSH) >= 8 && of(tag::ACK) >= 8 && of(tag::DELTA) >= 2, "{whole:?}");
        assert_eq!((whole.judged, whole.duplicate, whole.joined, whole.own), (24, 0, [25, 0], 0));
        let mut duplicate = 0;
        for cut in cuts(whole.frames.len()) {
            let when = format!("{want:?}, cut after {cut:?}");
            let (mut a, mut h) = build();
            let told = Told::cut_twice([&mut a, &mut h], small, cut, counts_on);
            assert_filled([&a, &h], 27, &when);
            assert_eq!((told.judged, told.joined, told.own), (26, [25, 0], 0), "{when}");
            assert!(told.verified, "{when}: {told:?}");
            duplicate += told.duplicate;
        }
        assert!(duplicate > 0, "in some the answer was not heard");
    }
}

#[test]
fn two_peers_that_both_die_at_any_frame_lose_nothing_and_count_nothing_twice() {
    let build = || {
        let (mut a, mut b) = (site(1), site(2));
        inc(&mut a.device, 500, "t", 1);
        sync(&mut a.device, &mut b.device);
        fill([&mut a, &mut b]);
        (a, b)
    };
    for want in [Want::Once, Want::Live] {
        let sessions = || [client(want), server()];
        let ((mut a, mut b), mut whole) = (build(), Told::default());
        whole.connect([&mut a, &mut b], sessions(), usize::MAX, Next::Unmade);
        assert!(whole.frames.iter().filter(|frame| **frame == tag::DELTA).count() >= 4, "{whole:?}");
        assert_eq!((whole.joined, whole.own), ([25, 25], 0));
        for cut in cuts(whole.frames.len()) {
            let when = format!("{want:?}, cut after {cut:?}");
            let (mut a, mut b) = build();
            let mut told = Told::cut_twice([&mut a, &mut b], sessions, cut, counts_on);
            assert_filled([&a, &b], 27, &when);
            // The register that was written twice since may have come that often.
            let [here, there] = told.joined;
            assert!((here, told.own) == (25, 0) && (25..=27).contains(&there), "{when}: {told:?}");
            told.connect([&mut a, &mut b], sessions(), usize::MAX, Next::Unmade);
            assert!(!told.frames.contains(&tag::DELTA), "{when}: nothing is left to tell, {told:?}");
        }
    }
}
