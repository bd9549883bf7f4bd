//! What was written, and what each site was seen to hold: the memory of the oracles.
//!
//! Owns three things: every write with the writes that its author saw, every acknowledged edit, and each site's
//! registers as last seen. Knows nothing of sessions or faults; it is told which of them excuse what.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rivus_core::address::{Parts, class};
use rivus_core::clock::Stamp;
use rivus_core::register::{Candidate, Reach, Register, Seen};
use rivus_core::row::Row;
use rivus_core::schema::{Schema, Slot};
use rivus_core::store::Store;
use rivus_core::view::reach;

use super::Oracle;
use super::coverage::{Coverage, Sometimes};

/// Something that must not be, in plain words.
pub(super) type Finding = (Oracle, String);

/// One register as a site holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) floor: Stamp,
    alive: Vec<(Stamp, u8, Box<[u8]>)>,
    seen: Vec<Seen>,
    /// When it last changed in its store.
    seq: u64,
}

impl Held {
    fn of(register: &Register<'_>, seq: u64) -> Self {
        let alive = register.alive.iter().map(|c| (c.stamp, c.rank, c.value.into())).collect();
        Self { floor: register.floor, alive, seen: register.seen.clone(), seq }
    }

    fn register(&self) -> Register<'_> {
        let alive: Vec<_> = self
            .alive
            .iter()
            .map(|(stamp, rank, value)| Candidate { stamp: *stamp, rank: *rank, saw: None, value })
            .collect();
        Register { floor: self.floor, alive: alive.into(), seen: self.seen.clone() }
    }

    /// Whether a write of this stamp is shown here, or was replaced, or lies below the floor.
    pub(super) fn covers(&self, stamp: Stamp) -> bool {
        stamp < self.floor
            || self.alive.iter().any(|(s, ..)| s.replica == stamp.replica && *s >= stamp)
            || self.seen.iter().any(|s| s.replica == stamp.replica && s.instant >= stamp.instant())
    }

    fn shows(&self, stamp: Stamp) -> bool {
        self.alive.iter().any(|(s, ..)| *s == stamp)
    }
}

/// One write at one address.
#[derive(Debug)]
struct Write {
    stamp: Stamp,
    /// Which of the address's writes its author saw, as bits; those beyond the 128th are not kept.
    saw: u128,
    /// What it bears: one value, unless a copy has used the stamp too.
    values: Vec<Box<[u8]>>,
}

/// An edit that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) site: usize,
    /// The seq of its commit, under which the outbox keeps it.
    pub(super) seq: u64,
    pub(super) stamp: Stamp,
    pub(super) step: usize,
    pub(super) addresses: Vec<usize>,
    /// What it added to counters: kind, id, field, how much.
    pub(super) incs: Vec<(String, String, String, i64)>,
    /// The store was set back to before it, or shares its stamps with a copy.
    pub(super) excused: bool,
    /// It has been in an outbox that was made anew: it may have come to nothing.
    pub(super) rebuilt: bool,
    /// It was pending in a copy or a backup, and stamped anew: counters are not what was added to them.
    pub(super) counts_apart: bool,
}

impl Edit {
    fn entities(&self, witness: &Witness) -> usize {
        let mut names: Vec<_> = self.addresses.iter().map(|at| &witness.names[*at]).collect();
        names.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
        names.len()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Witness {
    addresses: BTreeMap<Box<[u8]>, usize>,
    names: Vec<(String, String, Box<[u8]>)>,
    writes: Vec<Vec<Write>>,
    /// By site and address.
    held: Vec<Vec<Option<Held>>>,
    pub(super) edits: Vec<Edit>,
    key: Vec<u8>,
}

/// How a look at a site is to be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// Nothing may have gone back.
    Onward,
    /// Refused edits were taken back.
    Back,
    /// An edit was just made there, in this step.
    Edit,
}

impl Witness {
    /// Forgets what a site held: its store was set back, or is new.
    pub(super) fn forget(&mut self, site: usize) {
        if self.held.len() <= site {
            self.held.resize_with(site + 1, Vec::new);
        }
        self.held[site].clear();
    }

    fn address(&mut self, kind: &str, id: &str, address: &[u8]) -> usize {
        self.key.clear();
        for part in [kind.as_bytes(), &[0], id.as_bytes(), &[0], address] {
            self.key.extend_from_slice(part);
        }
        if let Some(at) = self.addresses.get(self.key.as_slice()) {
            return *at;
        }
        let at = self.names.len();
        self.addresses.insert(self.key.as_slice().into(), at);
        self.names.push((kind.to_owned(), id.to_owned(), address.into()));
        self.writes.push(Vec::new());
        at
    }

    /// The entity of an address.
    pub(super) fn entity(&self, at: usize) -> (String, String) {
        let (kind, id, _) = &self.names[at];
        (kind.clone(), id.clone())
    }

    /// Where an address is, in words.
    pub(super) fn place(&self, at: usize) -> String {
        let (kind, id, address) = &self.names[at];
        match Parts::parse(address) {
            Some(Parts { class: class::LIFE, .. }) => format!("life of {kind} {id}"),
            Some(Parts { name, key: [], .. }) => format!("field {name} of {kind} {id}"),
            Some(Parts { name, key, .. }) => {
                format!("key {} of field {name} of {kind} {id}", String::from_utf8_lossy(key))
            }
            None => format!("an address of {kind} {id}"),
        }
    }

    /// Looks at what has changed in a site's store since `after`, and returns where it stands now and at which
    /// addresses something changed.
    pub(super) fn look<S: Store>(
        &mut self,
        site: usize,
        store: &S,
        after: u64,
        look: Look,
        coverage: &mut Coverage,
    ) -> Result<(u64, Vec<usize>), Finding> {
        let mut found = Ok(());
        let mut changed_at = Vec::new();
        let mut entities: Vec<(String, String)> = Vec::new();
        let head = store.changes(after, &mut |changed| {
            if changed.kind == "task" {
                // Rows of one entity that were written together come together.
                if entities.iter().any(|(kind, id)| kind == changed.kind && id == changed.id) {
                    coverage.hit(Sometimes::Chunked);
                }
                entities.push((changed.kind.to_owned(), changed.id.to_owned()));
            }
            found = self.row(site, changed.kind, changed.id, changed, after, look, &mut changed_at, coverage);
            if found.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        found?;
        let head =
            head.map_err(|error| (Oracle::Store, format!("a store that runs cannot be read: {error}")))?;
        Ok((head.seq, changed_at))
    }

    #[expect(clippy::too_many_arguments, reason = "the loop over a store's rows, taken out of a closure")]
    fn row(
        &mut self,
        site: usize,
        kind: &str,
        id: &str,
        changed: rivus_core::store::Changed<'_>,
        after: u64,
        look: Look,
        changed_at: &mut Vec<usize>,
        coverage: &mut Coverage,
    ) -> Result<(), Finding> {
        let corrupt = |_| (Oracle::Store, format!("a row of {kind} {id} is unreadable"));
        for entry in Row::new(changed.bytes, changed.seq).map_err(corrupt)?.entries() {
            let entry = entry.map_err(corrupt)?;
            let state = entry.state().map_err(corrupt)?;
            if state.seq <= after {
                continue;
            }
            let at = self.address(kind, id, entry.address);
            changed_at.push(at);
            self.register(site, at, &state.shown, state.seq, look)?;
            let alive = state.shown.alive.len();
            if alive >= 3 && state.shown.floor > Stamp::LOWEST {
                coverage.hit(Sometimes::MarginTie);
            }
        }
        Ok(())
    }

    fn register(
        &mut self,
        site: usize,
        at: usize,
        now: &Register<'_>,
        seq: u64,
        look: Look,
    ) -> Result<(), Finding> {
        now.check().map_err(|malformed| {
            (
                Oracle::Register,
                format!("{} at {} is malformed: {malformed}", self.place(at), super::name(site)),
            )
        })?;
        let slots = &mut self.held[site];
        if slots.len() <= at {
            slots.resize_with(at + 1, || None);
        }
        let before = slots[at].take();
        let held = Held::of(now, seq);
        if let Some(before) = &before
            && look != Look::Back
        {
            let joined = before.register().join(&held.register());
            if Held::of(&joined, seq) != held {
                let text = format!(
                    "{} at {} went back: it held {before:?} and now holds {held:?}",
                    self.place(at),
                    super::name(site)
                );
                return Err((Oracle::Monotonic, text));
            }
        }
        self.note_writes(at, &held, before.as_ref(), look);
        let found = self.overwrites(site, at, &held);
        self.held[site][at] = Some(held);
        found
    }

    /// Takes up writes that are met for the first time.
    fn note_writes(&mut self, at: usize, held: &Held, before: Option<&Held>, look: Look) {
        for (stamp, _, value) in &held.alive {
            let known = self.writes[at].iter().position(|write| write.stamp == *stamp);
            let is_made_now = look == Look::Edit && before.is_none_or(|before| !before.shows(*stamp));
            if known.is_some() && !is_made_now {
                continue;
            }
            let mut saw = 0;
            if let Some(before) = before
                && is_made_now
            {
                for (number, write) in self.writes[at].iter().enumerate().take(128) {
                    if before.shows(write.stamp) {
                        saw |= 1 << number | write.saw;
                    }
                }
            }
            match known {
                // A copy, or the store before it was set back, has used the stamp: nobody can tell the two writes
                // apart, so that only what both authors saw is sure to be replaced, and either value may show.
                Some(number) => {
                    let write = &mut self.writes[at][number];
                    write.saw &= saw;
                    write.values.push(value.clone());
                }
                None => self.writes[at].push(Write { stamp: *stamp, saw, values: vec![value.clone()] }),
            }
        }
    }

    /// No value is shown beside one whose author saw it.
    fn overwrites(&self, site: usize, at: usize, held: &Held) -> Result<(), Finding> {
        if held.alive.len() < 2 {
            return Ok(());
        }
        let writes = &self.writes[at];
        let shown = |(_, write): &(usize, &Write)| held.shows(write.stamp);
        let alive: Vec<_> = writes.iter().enumerate().take(128).filter(shown).collect();
        for (_, write) in &alive {
            for (number, older) in &alive {
                if write.saw & 1 << number != 0 {
                    let text = format!(
                        "{} at {} shows the write {} again beside {}, whose author saw it",
                        self.place(at),
                        super::name(site),
                        older.stamp,
                        write.stamp
                    );
                    return Err((Oracle::Overwrite, text));
                }
            }
        }
        Ok(())
    }

    /// Notes an acknowledged edit; what it wrote must show at its site at once.
    pub(super) fn acknowledge(
        &mut self,
        mut edit: Edit,
        registers: usize,
        changed: &[usize],
        may_fork: bool,
    ) -> Result<(), Finding> {
        let held = &self.held[edit.site];
        edit.addresses = changed
            .iter()
            .copied()
            .filter(|at| held[*at].as_ref().is_some_and(|held| held.shows(edit.stamp)))
            .collect();
        if edit.addresses.len() != registers {
            let text = format!(
                "{} wrote {registers} registers at {}, and shows {} of them",
                super::name(edit.site),
                edit.stamp,
                edit.addresses.len()
            );
            return Err((Oracle::OwnWrites, text));
        }
        // Copies may use one stamp twice; then the greater value stays.
        for other in self.edits.iter_mut().filter(|other| other.stamp == edit.stamp) {
            if !may_fork {
                let text = format!(
                    "{} and {} both used the stamp {}",
                    super::name(other.site),
                    super::name(edit.site),
                    edit.stamp
                );
                return Err((Oracle::Clock, text));
            }
            other.excused = true;
            edit.excused = true;
        }
        self.edits.push(edit);
        Ok(())
    }

    /// Nobody was told whether this was added to counters.
    pub(super) fn unsure(&mut self, site: usize, incs: Vec<(String, String, String, i64)>) {
        let (stamp, addresses) = (Stamp::LOWEST, Vec::new());
        self.edits.push(Edit {
            site,
            seq: 0,
            stamp,
            step: 0,
            addresses,
            incs,
            excused: true,
            rebuilt: false,
            counts_apart: false,
        });
    }

    /// What is pending under this number bears this stamp. Says whether it bore another; its author must stay the
    /// same, where no copy may have taken it over.
    pub(super) fn restamped(
        &mut self,
        site: usize,
        seq: u64,
        stamp: Stamp,
        may_fork: bool,
    ) -> Result<bool, Finding> {
        let held = &self.held[site];
        let edits = self.edits.iter_mut().filter(|edit| edit.site == site && edit.seq == seq);
        let mut anew = false;
        for edit in edits.filter(|edit| edit.stamp != stamp) {
            anew = true;
            if edit.stamp.replica != stamp.replica && !may_fork {
                let (name, before) = (super::name(site), edit.stamp);
                return Err((
                    Oracle::Author,
                    format!("{name} made {before} anew as {stamp}: by another author"),
                ));
            }
            edit.stamp = stamp;
            let shows = |at: &usize| held[*at].as_ref().is_some_and(|held| held.shows(stamp));
            edit.addresses = (0..held.len()).filter(shows).collect();
        }
        Ok(anew)
    }

    /// Whether the site's own write of this stamp bears a floor above the one that its schema's margin gives.
    pub(super) fn carries(&self, site: usize, at: usize, stamp: Stamp, schema: &Schema) -> bool {
        let Some(held) = self.held[site].get(at).and_then(Option::as_ref).filter(|held| held.shows(stamp))
        else {
            return false;
        };
        let (kind, _, address) = &self.names[at];
        let parts = Parts::parse(address).filter(|parts| parts.class == class::FIELD);
        let slot = parts.and_then(|parts| schema.kind(kind).map(|kind| kind.slot(parts.name)));
        let Some(Slot::Field(field)) = slot else { return false };
        match reach(field.ty.margin()) {
            Reach::Ticks(ticks) => {
                let own = stamp.time.saturating_add(1).saturating_sub(ticks);
                held.floor.generation == stamp.generation && held.floor.time > own
            }
            _ => false,
        }
    }

    fn covers(&self, site: usize, at: usize, stamp: Stamp) -> bool {
        let held = self.held[site].get(at).and_then(Option::as_ref);
        held.is_some_and(|held| held.covers(stamp))
    }

    /// `reader` has caught up with `writer` as it was at `done`: every transaction that the one had whole then, the
    /// other has whole.
    pub(super) fn whole(
        &self,
        reader: usize,
        writer: usize,
        done: u64,
        coverage: &mut Coverage,
    ) -> Result<(), Finding> {
        for edit in self.edits.iter().filter(|edit| edit.addresses.len() > 1 && !edit.excused) {
            let has = |site: usize| move |at: &&usize| self.covers(site, **at, edit.stamp);
            let had = |at: &usize| {
                let held = self.held[writer].get(*at).and_then(Option::as_ref);
                held.is_some_and(|held| held.seq <= done && held.covers(edit.stamp))
            };
            if !edit.addresses.iter().all(had) {
                continue;
            }
            let missing = edit.addresses.iter().find(|at| !has(reader)(at));
            if let Some(at) = missing {
                let text = format!(
                    "{} has caught up with {} and lacks {} of the transaction of step {}",
                    super::name(reader),
                    super::name(writer),
                    self.place(*at),
                    edit.step
                );
                return Err((Oracle::Transaction, text));
            }
            if edit.site != reader && edit.entities(self) > 1 {
                coverage.hit(Sometimes::TransactionRead);
            }
        }
        Ok(())
    }

    /// At the end, on a site that has everything: every acknowledged edit is shown or was replaced.
    pub(super) fn kept(&self, site: usize, is_rejected: impl Fn(&Edit) -> bool) -> Result<(), Finding> {
        for edit in self.edits.iter().filter(|edit| !edit.excused) {
            let lost = edit.addresses.iter().find(|at| !self.covers(site, **at, edit.stamp));
            let Some(at) = lost else {
                self.unchanged(site, edit)?;
                continue;
            };
            if edit.rebuilt || is_rejected(edit) {
                continue;
            }
            let text = format!(
                "{} at {} knows nothing of the write {} that {} acknowledged in step {}",
                self.place(*at),
                super::name(site),
                edit.stamp,
                super::name(edit.site),
                edit.step
            );
            return Err((Oracle::Acknowledged, text));
        }
        Ok(())
    }

    /// What is shown of an edit is what it wrote.
    fn unchanged(&self, site: usize, edit: &Edit) -> Result<(), Finding> {
        for at in &edit.addresses {
            let held = self.held[site][*at].iter().flat_map(|held| &held.alive);
            let Some((_, _, value)) = held.clone().find(|(stamp, ..)| *stamp == edit.stamp) else { continue };
            let written = self.writes[*at].iter().find(|write| write.stamp == edit.stamp);
            if written.is_some_and(|write| !write.values.contains(value)) {
                let text = format!("{} shows another value than {} bore", self.place(*at), edit.stamp);
                return Err((Oracle::Acknowledged, text));
            }
        }
        Ok(())
    }

    /// The greatest number of edits of a site that its store does not reach any more.
    pub(super) fn excuse(&mut self, site: usize, after: u64) {
        for edit in self.edits.iter_mut().filter(|edit| edit.site == site && edit.seq > after) {
            edit.excused = true;
        }
    }

    /// Verdicts came to the site: edits that are neither pending nor held there were refused, or came to nothing.
    pub(super) fn mark_rebuilt(&mut self, site: usize, is_pending: impl Fn(u64) -> bool) {
        let held = &self.held[site];
        for edit in self.edits.iter_mut().filter(|edit| edit.site == site && !is_pending(edit.seq)) {
            let holds =
                |at: &usize| held.get(*at).and_then(Option::as_ref).is_some_and(|h| h.covers(edit.stamp));
            edit.rebuilt |= !edit.addresses.iter().all(holds);
        }
    }

    /// An edit is pending once more, as a backup had it. It may have been stamped anew since.
    pub(super) fn comes_back(&mut self, site: usize, seq: u64, stamp: Stamp) {
        if self.edits.iter().any(|edit| edit.site == site && edit.seq == seq && edit.stamp != stamp) {
            self.counts_apart(site, seq);
        }
    }

    /// This edit goes on under two stamps: what it added to counters counts twice, or what was added later is lost.
    pub(super) fn counts_apart(&mut self, site: usize, seq: u64) {
        for edit in self.edits.iter_mut().filter(|edit| edit.site == site && edit.seq == seq) {
            edit.counts_apart = true;
        }
    }

    /// What each counter must stand at, where no edit of it is excused.
    pub(super) fn counters(&self, is_rejected: impl Fn(&Edit) -> bool) -> BTreeMap<(&str, &str, &str), i128> {
        let mut sums: BTreeMap<(&str, &str, &str), Option<i128>> = BTreeMap::new();
        // A number of a store that was restored may be another edit's now: what is known of it is not of this one.
        let counts = |edit: &&Edit| edit.excused || !is_rejected(edit);
        for edit in self.edits.iter().filter(counts) {
            for (kind, id, field, by) in &edit.incs {
                let sum = sums.entry((kind, id, field)).or_insert(Some(0));
                *sum = if edit.excused || edit.rebuilt || edit.counts_apart {
                    None
                } else {
                    sum.map(|sum| sum + i128::from(*by))
                };
            }
        }
        sums.into_iter().filter_map(|(counter, sum)| Some((counter, sum?))).collect()
    }
}
