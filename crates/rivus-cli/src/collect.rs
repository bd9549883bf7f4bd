//! `rivus collect` and `rivus leases`.

use std::io::Write;

use anyhow::{Result, bail};
use rivus::Collectable;
use serde::Serialize;

use crate::args::Global;
use crate::database;
use crate::evict::entities;
use crate::output::Output;
use crate::serve::days_of;
use crate::table::{count, printable};

/// `rivus collect`.
pub(crate) fn collect(global: &Global, grace: u32, dry_run: bool, out: &mut Output) -> Result<()> {
    let db = database::open_as_it_is(global)?;
    let grace = days_of(grace);
    if dry_run {
        return foretell(&db.collectable(grace)?, out);
    }
    let done = db.collect(grace)?;
    let registers = count(usize::try_from(done.registers).unwrap_or(usize::MAX), "register");
    let text = format!(
        "{} forgotten, with {registers}; of others {} that had been taken out, and what was replaced in {}",
        entities(done.entities),
        count(done.keys, "key"),
        count(done.trimmed, "register"),
    );
    Ok(out.say(text, &done)?)
}

fn foretell(found: &Collectable, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct One<'n> {
        kind: &'n str,
        id: &'n str,
    }
    #[derive(Serialize)]
    struct Others {
        keys: usize,
        trimmed: usize,
    }
    for (kind, id) in &found.entities {
        out.say(format_args!("{} `{}`", printable(kind), printable(id)), &One { kind, id })?;
    }
    let text = format!(
        "{} would be forgotten; of others {} that had been taken out, and what was replaced in {}",
        entities(found.entities.len()),
        count(found.keys, "key"),
        count(found.trimmed, "register"),
    );
    Ok(out.say(text, &Others { keys: found.keys, trimmed: found.trimmed })?)
}

/// `rivus leases`.
pub(crate) fn leases(global: &Global, end: Option<&str>, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Ended<'s> {
        ended: &'s str,
    }
    let db = database::open_as_it_is(global)?;
    if let Some(store) = end {
        if !db.end_lease(store)? {
            bail!("there is no lease of store {store} to end: `rivus leases` lists them");
        }
        return Ok(out.say(format_args!("the lease of store {store} is ended"), &Ended { ended: store })?);
    }
    let leases = db.leases()?;
    if leases.is_empty() && !out.is_json() {
        writeln!(out, "no leases: no database has connected to this one")?;
    }
    for lease in leases {
        let is = if lease.running { "runs" } else { "has ended" };
        let text =
            format!("store {}  {is}  has up to number {}, {} behind", lease.store, lease.read, lease.behind);
        out.say(text, &lease)?;
    }
    Ok(())
}
