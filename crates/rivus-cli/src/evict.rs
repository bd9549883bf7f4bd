//! Entities that are not wanted at hand: `evict` and `fetch`.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::args::{Fetch, Global};
use crate::database;
use crate::network::remote_of;
use crate::output::Output;
use crate::table::{count, printable};

/// `rivus evict`.
pub(crate) fn evict(global: &Global, kind: &str, ids: &[String], out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Done {
        evicted: usize,
        registers: u64,
    }
    let evicted = database::open(global)?.evict(&named(kind, ids))?;
    let registers = count(usize::try_from(evicted.registers).unwrap_or(usize::MAX), "register");
    let text = format!("{} evicted, with {registers}", entities(evicted.entities));
    Ok(out.say(text, &Done { evicted: evicted.entities, registers: evicted.registers })?)
}

/// `rivus fetch`.
pub(crate) fn fetch(global: &Global, fetch: &Fetch, out: &mut Output) -> Result<()> {
    let db = database::open_or_make(global)?;
    let wanted = named(&fetch.kind, &fetch.ids);
    let fetched = crate::wait(async { Ok(db.fetch(&remote_of(&fetch.remote)?, &wanted).await?) })?;
    if out.is_json() {
        return Ok(out.json(&fetched)?);
    }
    let registers = count(fetched.registers, "register");
    writeln!(out, "{} fetched, with {registers}", entities(fetched.entities))?;
    for (kind, id) in &fetched.missing {
        writeln!(out, "the hub does not have {} `{}`", printable(kind), printable(id))?;
    }
    Ok(())
}

pub(crate) fn entities(number: usize) -> String {
    if number == 1 { "1 entity".to_owned() } else { format!("{number} entities") }
}

fn named<'e>(kind: &'e str, ids: &'e [String]) -> Vec<(&'e str, &'e str)> {
    ids.iter().map(|id| (kind, id.as_str())).collect()
}
