//! Scopes: each device holds what it follows and may read, whatever moves and whoever is let in or out meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use super::*;
use crate::edit::EditError;
use crate::replica::{Delta, Edited, Event, Kept, Origin};
use crate::wire::Scoped;

mod claims;
mod collections;
mod cuts;
mod differences;
mod moves;
mod random;
mod rights;

/// Notes in lists, which are scopes; settings are in none.
fn notes() -> Arc<Schema> {
    let note = |k: crate::schema::KindBuilder| {
        k.value("list").scope("list").value("title").value("about").set("tags").counter("views").aliases()
    };
    let builder = Schema::builder().kind("note", note).kind("setting", |k| k.value("title").set("tags"));
    Arc::new(builder.build().unwrap())
}

fn open_notes(n: u64, admission: Admission) -> Device {
    reopen_notes(MemoryStore::new(), n, admission)
}

fn reopen_notes(store: MemoryStore, n: u64, admission: Admission) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission, rank: 0 };
    let mut replica = Replica::open(store, notes(), options).unwrap();
    replica.watch(Watching::Yes);
    replica
}

fn notes_hub() -> Device {
    let mut hub = open_notes(1, Admission::Refuse { drift_ms_max: 60_000 });
    hub.become_authority().unwrap();
    hub
}

fn notes_device(n: u64) -> Device {
    open_notes(n, Admission::Quarantine { drift_ms_max: 60_000 })
}

/// Who may do what with which scope; nobody anything else.
#[derive(Clone, Debug, Default)]
struct Rights(Arc<Mutex<BTreeSet<(String, Access, String)>>>);

impl Rights {
    fn grant(&self, subject: &str, access: Access, scope: &str) {
        self.0.lock().unwrap().insert((subject.to_owned(), access, scope.to_owned()));
    }

    fn grant_all(&self, subject: &str, scopes: &[&str]) {
        for scope in scopes {
            self.grant(subject, Access::Read, scope);
            self.grant(subject, Access::Write, scope);
        }
    }

    fn revoke(&self, subject: &str, access: Access, scope: &str) {
        self.0.lock().unwrap().remove(&(subject.to_owned(), access, scope.to_owned()));
    }

    fn revoke_all(&self, subject: &str, scope: &str) {
        self.revoke(subject, Access::Read, scope);
        self.revoke(subject, Access::Write, scope);
    }
}

impl Authorizer for Rights {
    fn allows(&self, subject: &str, access: Access, scope: &str) -> bool {
        self.0.lock().unwrap().contains(&(subject.to_owned(), access, scope.to_owned()))
    }
}

/// The hub's side, where each member shows its name as its token.
fn guarded(rights: &Rights) -> Session {
    bounded(rights, Limits::default())
}

fn bounded(rights: &Rights, limits: Limits) -> Session {
    let members = (2..=4).map(|n| format!("member {n}"));
    let grants = members.fold(Grants::nobody(), |grants, name| grants.grant_as(name.clone(), name, 0));
    let gate = Gate::new(grants).authorizer(Arc::new(rights.clone())).limits(limits);
    options(Role::Server { gate: Arc::new(gate) }, Want::Live)
}

fn named(name: &str, want: Want) -> Session {
    options(Role::Client { token: Some(name.to_owned()) }, want)
}

/// A connection, and a reader of everything that the hub sends on it.
struct Wire {
    client: Session,
    server: Session,
    eavesdropper: RowDecoder,
    /// Which entities may be told of, as of when what is under way was written.
    readable: BTreeSet<(String, String)>,
}

/// A device with the name under which the hub knows it.
struct Member {
    name: String,
    device: Device,
    wants: BTreeSet<String>,
    wire: Option<Wire>,
    /// How many times it was away for too long.
    fenced: usize,
    /// What new ids come from.
    seed: u64,
}

const NOW: Millis = Millis(1_000_000);

impl Member {
    fn new(n: u64, wants: &[&str]) -> Self {
        let wants = wants.iter().map(|scope| (*scope).to_owned()).collect();
        Self {
            name: format!("member {n}"),
            device: notes_device(n),
            wants,
            wire: None,
            fenced: 0,
            seed: 1000 * n,
        }
    }

    fn connect(&mut self, rights: &Rights) {
        self.connect_to(guarded(rights));
    }

    fn connect_to(&mut self, server: Session) {
        let mut client = named(&self.name, Want::Live);
        self.seed += 1;
        client.options.seeds = seeds(self.seed);
        client.follow_scopes(self.wants.iter().cloned()).unwrap();
        self.wire =
            Some(Wire { client, server, eavesdropper: RowDecoder::default(), readable: BTreeSet::new() });
    }

    fn cut(&mut self) {
        self.wire = None;
    }

    fn subscribe(&mut self, scope: &str) {
        self.wants.insert(scope.to_owned());
        if let Some(wire) = &mut self.wire {
            wire.client.subscribe(scope).unwrap();
        }
    }

    fn unsubscribe(&mut self, scope: &str, kept: Kept) {
        self.wants.remove(scope);
        match &mut self.wire {
            Some(wire) => wire.client.unsubscribe(&mut self.device, scope, kept).unwrap(),
            None => self.device.unfollow(scope, kept).unwrap(),
        }
    }

    /// Moves at most so many frames each way, and says how many.
    fn exchange(&mut self, hub: &mut Device, rights: &Rights, frames: usize) -> usize {
        let Some(wire) = &mut self.wire else { return 0 };
        let mut passed = 0;
        while passed < frames {
            let up = wire.client.poll_transmit(&mut self.device, NOW).unwrap();
            let mut writes_anew = wire.server.control.is_empty();
            if let Some(frame) = &up {
                passed += 1;
                match wire.server.handle(hub, frame, NOW) {
                    Err(SessionError::Refused { code: Code::FENCED, .. }) => {
                        self.wire = None;
                        return passed;
                    }
                    handled => handled.unwrap(),
                }
            }
            writes_anew |= wire.server.control.is_empty();
            let mut scopes = held(hub);
            scopes.retain(|scope, _| rights.allows(&self.name, Access::Read, scope));
            if writes_anew {
                wire.readable.clear();
            }
            wire.readable.extend(scopes.into_values().flatten());
            let down = match wire.server.poll_transmit(hub, NOW) {
                // It is behind what can be told: the next connection says so.
                Err(SessionError::Refused { code: Code::FENCED, .. }) => {
                    self.wire = None;
                    return passed;
                }
                down => down.unwrap(),
            };
            if let Some(frame) = &down {
                if ["", "a", "b", "c"].iter().all(|scope| rights.allows(&self.name, Access::Read, scope)) {
                    // Of what was collected, too.
                    wire.readable.extend(told_of(frame));
                }
                overhear(&mut wire.eavesdropper, &wire.readable, frame);
                passed += 1;
                match wire.client.handle(&mut self.device, frame, NOW) {
                    // It has missed a collection, and goes on as another store on the next connection.
                    Err(SessionError::Fenced) => {
                        self.wire = None;
                        self.fenced += 1;
                        return passed;
                    }
                    handled => handled.unwrap(),
                }
            }
            if up.is_none() && down.is_none() {
                break;
            }
        }
        passed
    }

    /// Until nothing is left to say.
    fn settle(&mut self, hub: &mut Device, rights: &Rights) -> Vec<SessionEvent> {
        let mut events = Vec::new();
        loop {
            let passed = self.exchange(hub, rights, usize::MAX);
            let Some(wire) = &mut self.wire else { return events };
            let diverges = |event: &SessionEvent| matches!(event, SessionEvent::Diverged { .. });
            if wire.client.events.iter().any(diverges) {
                return events;
            }
            events.extend(wire.client.poll_events());
            wire.client.handle_quiet();
            wire.server.handle_quiet();
            if passed == 0 && self.exchange(hub, rights, usize::MAX) == 0 {
                return events;
            }
        }
    }

    fn sync(&mut self, hub: &mut Device, rights: &Rights) -> Vec<SessionEvent> {
        self.connect(rights);
        let events = self.settle(hub, rights);
        self.cut();
        events
    }

    fn follows(&self) -> Vec<String> {
        let scopes = self.wire.as_ref().and_then(|wire| wire.client.scopes());
        scopes.unwrap_or_default().into_iter().map(str::to_owned).collect()
    }
}

/// Moves frames until neither side has any, and returns those of the hub without their envelopes.
fn hear(member: &mut Member, hub: &mut Device) -> Vec<Vec<u8>> {
    let (wire, mut heard) = (member.wire.as_mut().unwrap(), Vec::new());
    loop {
        let up = wire.client.poll_transmit(&mut member.device, NOW).unwrap();
        if let Some(frame) = &up {
            wire.server.handle(hub, frame, NOW).unwrap();
        }
        let down = wire.server.poll_transmit(hub, NOW).unwrap();
        if let Some(frame) = &down {
            wire.client.handle(&mut member.device, frame, NOW).unwrap();
            heard.push(bare(frame));
        }
        if up.is_none() && down.is_none() {
            return heard;
        }
    }
}

fn bare(frame: &[u8]) -> Vec<u8> {
    if frame[0] == tag::SCOPED { Scoped::decode(frame).unwrap().frame.to_vec() } else { frame.to_vec() }
}

/// SUBSCRIBE to everything of a scope.
fn from_the_start() -> Vec<u8> {
    let cursor = crate::identity::Cursor::default();
    let subscribe =
        crate::wire::Subscribe { cursor, incarnation: None, live: true, everything: true, digest: None };
    Frame::Subscribe(subscribe).encode()
}

/// What LOST is about.
fn told_of(frame: &[u8]) -> Vec<(String, String)> {
    match Frame::decode(frame) {
        Ok(Frame::Lost(losses)) => losses.conflicts.into_iter().map(|lost| (lost.kind, lost.id)).collect(),
        _ => Vec::new(),
    }
}

/// Reads what the hub sends, and fails if it is of what the receiver may not read.
fn overhear(decoder: &mut RowDecoder, readable: &BTreeSet<(String, String)>, frame: &[u8]) {
    let inner = if frame[0] == tag::SCOPED { Scoped::decode(frame).unwrap().frame } else { frame };
    let check = |kind: &str, id: &str| {
        assert!(
            readable.contains(&(kind.to_owned(), id.to_owned())),
            "{kind} `{id}` may not be told of, in {}",
            inner[0]
        );
        Ok::<_, SessionError>(())
    };
    match inner[0] {
        tag::DELTA => {
            decoder.page(inner, StoreId(1)).unwrap().rows.each(|part| check(part.kind, part.id)).unwrap();
        }
        tag::REPAIR => {
            decoder.repair(inner, StoreId(1)).unwrap().rows.each(|part| check(part.kind, part.id)).unwrap();
        }
        tag::FETCHED => {
            decoder.fetched(inner, StoreId(1)).unwrap().rows.each(|part| check(part.kind, part.id)).unwrap();
        }
        tag::LOST => {
            let Frame::Lost(losses) = Frame::decode(inner).unwrap() else { return };
            losses.conflicts.iter().try_for_each(|lost| check(&lost.kind, &lost.id)).unwrap();
        }
        _ => {}
    }
}

fn edit(on: &mut Device, ops: &[(&str, &str, Action)]) -> Result<Edited, EditError> {
    let ops: Vec<_> = ops.iter().map(|(kind, id, action)| Op::new(*kind, *id, action.clone())).collect();
    on.edit(NOW, &ops)
}

fn field(name: &str, value: impl Into<Value>) -> Action {
    Action::Put(vec![(name.to_owned(), value.into())])
}

fn note(list: &str, title: &str) -> Action {
    Action::Put(vec![("list".to_owned(), list.into()), ("title".to_owned(), title.into())])
}

fn tag_with(key: impl Into<String>) -> Action {
    Action::Add { field: "tags".to_owned(), key: key.into() }
}

/// The title that shows, if the note does.
fn title(of: &Device, id: &str) -> Option<String> {
    let view = of.view("note", id).unwrap()?;
    match view.fields.get("title") {
        Some(Shown::Value(Value::Text(title))) => Some(title.clone()),
        _ => Some(String::new()),
    }
}

/// Kind and id of the entities that are held, by scope.
fn held(by: &Device) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut names = BTreeSet::new();
    let visit = &mut |row: crate::store::Changed<'_>| {
        // One that was created by a refused edit alone is empty.
        if crate::row::Row::new(row.bytes, row.seq).unwrap().entries().next().is_some() {
            names.insert((row.kind.to_owned(), row.id.to_owned()));
        }
        ControlFlow::Continue(())
    };
    by.store().changes(0, visit).unwrap();
    let mut held: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for (kind, id) in names {
        held.entry(by.scope_of(&kind, &id).unwrap()).or_default().insert((kind, id));
    }
    held
}

/// The device holds of these scopes just what the hub holds, and shows it alike.
fn assert_holds(device: &Device, hub: &Device, scopes: &[&str]) {
    let (here, there) = (held(device), held(hub));
    for scope in scopes {
        let names = there.get(*scope).cloned().unwrap_or_default();
        assert_eq!(here.get(*scope).cloned().unwrap_or_default(), names, "what is held of `{scope}`");
        for (kind, id) in &names {
            assert_eq!(device.view(kind, id).unwrap(), hub.view(kind, id).unwrap(), "{kind} `{id}`");
        }
        let (ours, theirs) = (device.digest_of(scope).unwrap(), hub.digest_of(scope).unwrap());
        assert_eq!((ours.confirmed, ours.count), (theirs.confirmed, theirs.count), "the digest of `{scope}`");
    }
    for replica in [device, hub] {
        let verified = replica.verify().unwrap();
        assert!(verified.is_sound(), "{verified:?}");
    }
}
