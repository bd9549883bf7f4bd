//! Serving and syncing.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Result;
use futures_util::StreamExt;
use rivus::{ConnectionState, Event, HubOptions, Origin, SyncReport};
use serde::Serialize;

use crate::args::{Global, Remote, Serve};
use crate::database;
use crate::output::Output;
use crate::table::{count, printable};

/// `rivus serve`.
pub(crate) fn serve(global: &Global, serve: &Serve, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Started<'s> {
        url: String,
        store: &'s str,
    }
    #[derive(Serialize)]
    struct Stopped<'s> {
        stopped: bool,
        changes: u64,
        digest: &'s str,
    }
    if serve.grant.is_empty() && !serve.open && !is_loopback(&serve.listen) {
        let message = "beyond loopback, say who may connect: --grant TOKEN=RANK, or --open for everybody";
        return Err(crate::usage(message));
    }
    let is_open = serve.open || serve.grant.is_empty();
    let mut options = if is_open { HubOptions::open() } else { HubOptions::closed() };
    for grant in &serve.grant {
        options = options.grant(&grant.token, grant.rank);
    }
    if serve.peer {
        options = options.as_peer();
    }
    let db = database::open_or_make(global)?;
    crate::wait(async {
        // Before anybody is told that it runs, so that from then on a signal ends it in order.
        let mut ends = Ends::new()?;
        let hub = db.serve(&serve.listen, options).await?;
        let before = db.status()?;
        let (file, url) = (global.db.display(), hub.url());
        let guests = if is_open { "everybody" } else { "those with a token" };
        out.say(
            format_args!("serving {file} at {url} to {guests}; ctrl-c ends it"),
            &Started { url: hub.url(), store: &before.store },
        )?;
        out.flush()?;
        ends.next().await;
        hub.shutdown().await;
        let after = db.status()?;
        let changes = after.seq.saturating_sub(before.seq);
        let text = format!("stopped after {changes} new changes; digest {}", after.digest);
        Ok(out.say(text, &Stopped { stopped: true, changes, digest: &after.digest })?)
    })
}

fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    host == "localhost" || listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

/// `rivus sync`.
pub(crate) fn sync(global: &Global, remote: &Remote, out: &mut Output) -> Result<()> {
    let db = database::open_or_make(global)?;
    let report = crate::wait(async { Ok(db.sync(&remote_of(remote)).await?) })?;
    if out.is_json() {
        return Ok(out.json(&report)?);
    }
    tell(&report, out)
}

fn tell(report: &SyncReport, out: &mut Output) -> Result<()> {
    let role = if report.is_authority { "the authority" } else { "a peer" };
    writeln!(out, "synced with {role}, store {}", report.peer)?;
    writeln!(out, "accepted  {} of this database", count(report.accepted, "edit"))?;
    if report.excepted > 0 {
        writeln!(out, "          {} refused or made anew: `status` tells", count(report.excepted, "edit"))?;
    }
    writeln!(out, "received  {}", count(report.received, "register"))?;
    if report.quarantined > 0 {
        let set_aside = count(report.quarantined, "register");
        writeln!(out, "          {set_aside} set aside until due: they are stamped in the future")?;
    }
    for scope in &report.denied {
        writeln!(out, "denied    scope `{}`: ask for the right to read it", printable(scope))?;
    }
    let digests = match (report.verified, report.diverged) {
        (_, true) => "differed at some time, and everything was fetched anew",
        (true, false) => "equal",
        (false, false) => "not compared this time",
    };
    writeln!(out, "digests   {digests}")?;
    writeln!(out, "traffic   {} bytes out, {} bytes in", report.bytes_sent, report.bytes_received)?;
    Ok(())
}

/// `rivus live`.
pub(crate) fn live(global: &Global, remote: &Remote, out: &mut Output) -> Result<()> {
    let db = database::open_or_make(global)?;
    crate::wait(async {
        let mut ends = Ends::new()?;
        let mut events = db.subscribe();
        let connection = db.connect(remote_of(remote));
        let mut states = connection.states();
        let mut told = None;
        loop {
            let state = states.borrow_and_update().clone();
            if let ConnectionState::Stopped { error: Some(error) } = state {
                return Err(error.into());
            }
            let now = StateJson::of(&state);
            if told.as_ref() != Some(&now) {
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
        let state = StateJson { state: "closed", error: None };
        Ok(out.say(state.text(), &state)?)
    })
}

pub(crate) fn remote_of(remote: &Remote) -> rivus::Remote {
    let mut to = rivus::Remote::new(&remote.url);
    if !remote.scope.is_empty() {
        to = to.scopes(&remote.scope);
    }
    // A variable that is set to nothing is a common way to say that there is none.
    match remote.token.as_ref().filter(|token| !token.is_empty()) {
        Some(token) => to.token(token),
        None => to,
    }
}

#[derive(Serialize, PartialEq)]
struct StateJson {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl StateJson {
    fn of(state: &ConnectionState) -> Self {
        let (state, error) = match state {
            ConnectionState::Connecting => ("connecting", None),
            ConnectionState::Live { synced: Some(_) } => ("synced", None),
            ConnectionState::Live { synced: None } => ("exchanging", None),
            ConnectionState::Waiting { error } => ("waiting", Some(error.to_string())),
            _ => ("closed", None),
        };
        Self { state, error }
    }

    fn text(&self) -> String {
        match &self.error {
            Some(error) => format!("{}: {error}; trying again", self.state),
            None => self.state.to_owned(),
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
                Origin::Left => ("left", "in no scope any more that is followed here".to_owned()),
            };
            let text = format!("{} `{}` changed: {from}", printable(kind), printable(id));
            return Ok(out.say(text, &ChangedJson { changed: EntityJson { kind, id, origin } })?);
        }
        Event::Rejected(rejected) => {
            format!("the authority refused an edit: {}", printable(&rejected.message))
        }
        Event::Conflict { number, conflict } => {
            let place =
                (printable(&conflict.kind), printable(&conflict.id), printable(conflict.parts().name));
            format!(
                "conflict {number}: a write of {} `{}` {} was lost: see `conflicts`",
                place.0, place.1, place.2
            )
        }
        Event::Quarantined { registers, .. } => {
            format!("{} stamped in the future set aside until due", count(*registers, "register"))
        }
        Event::Revoked { scope, entities } => {
            let gone = crate::evict::entities(*entities);
            format!("the scope `{}` may not be read any more: {gone} left this database", printable(scope))
        }
        Event::Copied { before, now } => format!("store {before} is a copy and is now store {now}"),
        Event::Clash { stamp } => {
            format!("two databases wrote as one (stamp {stamp}): somebody copied a file while it was in use")
        }
        other => format!("{other:?}"),
    };
    Ok(out.say(&other, &EventJson { event: &other })?)
}

/// What ends a command that would run for ever: ctrl-c, and where there is one, SIGTERM.
struct Ends {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Ends {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Ends {
    fn new() -> Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
