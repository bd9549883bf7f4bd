//! Syncing.

use std::io::Write;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use rivus::{Event, Origin, Phase, SyncReport, SyncState};
use serde::Serialize;

use crate::args::{Global, Remote, Sync};
use crate::database;
use crate::output::{Form, Output};
use crate::table::{count, printable};

/// `rivus sync`.
pub(crate) fn sync(global: &Global, sync: &Sync, out: &mut Output) -> Result<()> {
    let is_new = !global.db.exists();
    let db = database::open_or_make(global)?;
    let remote = remote_of(&sync.remote)?;
    let report = crate::wait(async {
        Ok(match (sync.push, sync.pull || sync.limit.is_some()) {
            (true, _) => db.push_once(&remote).await,
            (false, true) => db.pull_once(&remote, sync.limit, None).await,
            (false, false) => db.sync_once(&remote).await,
        })
    })?;
    if is_new && report.peer.is_empty() {
        let made = format!("{} was made, and nothing is in it yet", global.db.display());
        crate::note(&made, Form::of(global));
    }
    // Also of a sync that broke: it says how far it came.
    if out.is_json() {
        out.json(&report)?;
    } else if report.error.is_none() {
        tell(&report, out)?;
    } else if has_moved(&report) {
        tell_broken(&report, out)?;
    }
    report.ok()?;
    Ok(())
}

/// Whether anything went either way.
fn has_moved(report: &SyncReport) -> bool {
    let answered = report.pushed.in_classes() - report.pushed.deferred;
    answered + report.pulled.received + report.given + report.repaired > 0
}

/// What a sync did before it broke off; nothing of what it did not come to.
fn tell_broken(report: &SyncReport, out: &mut Output) -> Result<()> {
    writeln!(out, "broke off with store {}, after this:", report.peer)?;
    tell_pushed(report, out)?;
    Ok(writeln!(out, "received  {}", count(report.pulled.received, "register"))?)
}

/// What became of what is here.
fn tell_pushed(report: &SyncReport, out: &mut Output) -> Result<()> {
    let pushed = &report.pushed;
    let accepted = pushed.accepted + pushed.superseded + pushed.duplicate;
    writeln!(out, "accepted  {} of this database", count(accepted, "edit"))?;
    if pushed.superseded > 0 {
        writeln!(
            out,
            "          {} lost to others at once: see `conflicts`",
            count(pushed.superseded, "edit")
        )?;
    }
    if report.given > 0 {
        let to =
            if report.is_authority { "written before the first meeting" } else { "that the peer lacked" };
        writeln!(out, "brought   {} {to}", count(report.given, "register"))?;
    }
    for (reason, edits) in &pushed.rejected {
        writeln!(out, "refused   {}, {reason}: see `rejected`", count(*edits, "edit"))?;
    }
    if pushed.blocked > 0 {
        writeln!(out, "blocked   {}, by a refused one: see `rejected`", count(pushed.blocked, "edit"))?;
    }
    if pushed.deferred > 0 {
        writeln!(out, "deferred  {} to the next sync", count(pushed.deferred, "edit"))?;
    }
    Ok(())
}

fn tell(report: &SyncReport, out: &mut Output) -> Result<()> {
    let role = if report.is_authority { "the authority" } else { "a peer" };
    writeln!(out, "synced with {role}, store {}", report.peer)?;
    tell_pushed(report, out)?;
    let pulled = &report.pulled;
    writeln!(out, "received  {}", count(pulled.received, "register"))?;
    if pulled.set_aside > 0 {
        let set_aside = count(pulled.set_aside, "register");
        writeln!(out, "          {set_aside} set aside until due: they are stamped in the future")?;
    }
    if pulled.more {
        writeln!(out, "          more is waiting after position {}", pulled.position)?;
    }
    for scope in &report.denied {
        writeln!(out, "denied    scope `{}`: ask for the right to read it", printable(scope))?;
    }
    let digests = match (report.verified, report.diverged, report.repaired) {
        (true, false, _) => "equal".to_owned(),
        (false, false, _) => "not compared this time".to_owned(),
        (_, true, 0) => "differed, and everything was fetched anew".to_owned(),
        (true, true, repaired) => format!("differed; equal now, by {}", count(repaired, "register")),
        (false, true, repaired) => {
            format!("differed, and {} exchanged; `verify`, and sync again", count(repaired, "register"))
        }
    };
    writeln!(out, "digests   {digests}")?;
    writeln!(out, "traffic   {} bytes out, {} bytes in", report.bytes_sent, report.bytes_received)?;
    Ok(())
}

/// `rivus live`.
pub(crate) fn live(global: &Global, remote: &Remote, out: &mut Output) -> Result<()> {
    let remote = remote_of(remote)?;
    let db = database::open_or_make(global)?;
    crate::wait(async {
        let mut ends = Ends::new()?;
        let mut events = db.subscribe();
        let connection = db.connect(remote);
        let mut states = connection.states();
        let mut told = None;
        loop {
            let state = states.borrow_and_update().clone();
            if let (Phase::Stopped, Some(error)) = (state.phase, state.error()) {
                return Err(error.clone().into());
            }
            let now = StateJson::of(&state);
            if told.as_ref() != Some(&now) && !is_ending(&state) {
                out.say(now.text(), &now)?;
                told = Some(now);
            }
            // Others read along: each line as it comes.
            out.flush()?;
            tokio::select! {
                changed = states.changed() => if changed.is_err() { break },
                event = events.next() => match event {
                    Some(Ok(event)) => tell_event(&event, out)?,
                    Some(Err(lagged)) => out.say(lagged, &LostJson { lost: lagged.missed })?,
                    None => break,
                },
                () = ends.next() => break,
            }
        }
        connection.close().await;
        Ok(out.say(StateJson::CLOSED.text(), &StateJson::CLOSED)?)
    })
}

pub(crate) fn remote_of(remote: &Remote) -> Result<rivus::Remote> {
    let mut to = rivus::Remote::new(&remote.url);
    if let Some(path) = &remote.ca {
        to = to.ca(std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?);
    }
    if !remote.scope.is_empty() {
        to = to.scopes(&remote.scope);
    }
    // A variable that is set to nothing is a common way to say that there is none.
    Ok(match remote.token.as_ref().filter(|token| !token.is_empty()) {
        Some(token) => to.token(token),
        None => to,
    })
}

#[derive(Serialize, PartialEq)]
struct StateJson {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Whether it has failed in a way that nothing but somebody mends: it is about to be told as its end.
fn is_ending(state: &SyncState) -> bool {
    state.phase != Phase::Waiting && state.error().is_some_and(|error| !error.is_retryable())
}

impl StateJson {
    const CLOSED: Self = Self { state: "closed", pending: None, error: None };

    fn of(state: &SyncState) -> Self {
        let name = match state.phase {
            Phase::Connecting => "connecting",
            Phase::Waiting => "waiting",
            Phase::Following => "following",
            Phase::Paused => "paused",
            Phase::Stopped => "closed",
            Phase::Idle => "idle",
            _ if state.synced => "synced",
            _ => "exchanging",
        };
        let pending = Some(state.pending).filter(|pending| *pending > 0);
        Self { state: name, pending, error: state.error().map(ToString::to_string) }
    }

    fn text(&self) -> String {
        let pending =
            self.pending.map_or_else(String::new, |edits| format!(", {} pending", count(edits, "edit")));
        match &self.error {
            Some(error) if self.state == "waiting" => format!("waiting{pending}: {error}; trying again"),
            Some(error) => format!("{}{pending}: {error}", self.state),
            None if self.state == "following" => {
                format!("following: another process syncs this database{pending}")
            }
            None => format!("{}{pending}", self.state),
        }
    }
}

#[derive(Serialize)]
struct LostJson {
    lost: u64,
}

fn tell_event(event: &Event, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct ChangedJson<'e> {
        changed: EntityJson<'e>,
    }
    #[derive(Serialize)]
    struct EntityJson<'e> {
        kind: &'e str,
        id: &'e str,
        origin: &'e str,
    }
    #[derive(Serialize)]
    struct EventJson<'e> {
        event: &'e str,
    }
    let other = match event {
        Event::Changed { kind, id, origin } => {
            let (origin, from) = match origin {
                Origin::Local => ("local", "written here".to_owned()),
                Origin::Remote(store) => ("remote", format!("from store {store}")),
                Origin::Withdrawn => ("withdrawn", "an edit was refused and taken back".to_owned()),
                Origin::Evicted => ("evicted", "evicted, the hub has it".to_owned()),
                Origin::OtherProcess => ("other-process", "by another process".to_owned()),
                Origin::Left => ("left", "in no scope any more that is followed here".to_owned()),
            };
            let text = format!("{} `{}` changed: {from}", printable(kind), printable(id));
            return Ok(out.say(text, &ChangedJson { changed: EntityJson { kind, id, origin } })?);
        }
        Event::Rejected(rejected) => {
            format!("the authority refused an edit: {}", printable(&rejected.message))
        }
        Event::Settled { key } => format!("the refused edit {key} is settled"),
        Event::Conflict { number, conflict } => {
            let place =
                (printable(&conflict.kind), printable(&conflict.id), printable(conflict.parts().name));
            format!(
                "conflict {number}: a write of {} `{}` {} was lost: see `conflicts`",
                place.0, place.1, place.2
            )
        }
        Event::Swayed { kind } => {
            format!("by another process: rules may show others of {} otherwise", printable(kind))
        }
        Event::Quarantined { registers, .. } => {
            format!("{} stamped in the future set aside until due", count(*registers, "register"))
        }
        Event::Denied { scope } => {
            format!("the scope `{}` may not be read: ask for the right to", printable(scope))
        }
        Event::Revoked { scope, entities } => {
            let gone = crate::evict::entities(*entities);
            format!("the scope `{}` may not be read any more: {gone} left this database", printable(scope))
        }
        Event::Copied { before, now } => format!("store {before} is a copy and is now store {now}"),
        Event::Fenced { before, now } => format!(
            "store {before} was away for longer than its lease: it is now store {now} and reads everything again"
        ),
        Event::Diverged { with, scope } => {
            let scope = scope.as_ref().map_or(String::new(), |s| format!(" in the scope `{}`", printable(s)));
            format!("this database and store {with} differ{scope}: what differs is looked for and mended")
        }
        Event::Repaired { with, registers } => {
            format!("what differed between this database and store {with} is mended: {registers} registers")
        }
        Event::Clash { stamp } => {
            format!("two databases wrote as one (stamp {stamp}): somebody copied a file while it was in use")
        }
        other => format!("{other:?}"),
    };
    Ok(out.say(&other, &EventJson { event: &other })?)
}

/// What ends a command that would run for ever: ctrl-c, and where there is one, SIGTERM.
pub(crate) struct Ends {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Ends {
    pub(crate) fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Ends {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {})
    }

    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
