//! A process that stays connected and says what it hears: something for tests to kill.
//!
//! `rivus-test-live FILE URL` writes `state NAME` and `changed ID ORIGIN` lines; each line `ID N` of standard input is an
//! edit, and `acked ID N` follows its commit.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use rivus::{Connection, Db, Event, Origin, Phase};
use tokio::sync::mpsc;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, url] = args.as_slice() else { bail!("give FILE and URL") };
    let db = Db::open(file, rivus_tests::schema())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let events = db.subscribe();
    let connection = {
        let _inside = runtime.enter();
        db.connect(url.as_str().into())
    };
    let (edits, mut edited) = mpsc::channel::<String>(16);
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.try_for_each(|line| edits.blocking_send(line))
    });
    runtime.block_on(talk(&db, connection, events, &mut edited))
}

async fn talk(
    db: &Db,
    connection: Connection,
    mut events: rivus::Subscription,
    edited: &mut mpsc::Receiver<String>,
) -> Result<()> {
    let mut states = connection.states();
    states.mark_changed();
    loop {
        let said = tokio::select! {
            changed = states.changed() => {
                changed?;
                let state = states.borrow_and_update();
                match state.phase {
                    Phase::Following => "state following".to_owned(),
                    _ if state.synced => "state synced".to_owned(),
                    _ if state.connected => "state live".to_owned(),
                    _ => continue,
                }
            }
            event = std::future::poll_fn(|cx| futures_core::Stream::poll_next(std::pin::Pin::new(&mut events), cx)) => {
                let Some(Ok(Event::Changed { id, origin, .. })) = event else { continue };
                let origin = match origin {
                    Origin::OtherProcess => "other",
                    Origin::Remote(_) => "remote",
                    _ => "local",
                };
                format!("changed {id} {origin}")
            }
            line = edited.recv() => {
                let Some(line) = line else { return Ok(()) };
                let (id, n) = line.split_once(' ').context("ID and N")?;
                db.put("task", id, [("n", n.parse::<i64>()?.into())])?;
                format!("acked {line}")
            }
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{said}")?;
        out.flush()?;
    }
}
