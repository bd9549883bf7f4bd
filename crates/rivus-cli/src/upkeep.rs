//! `rivus verify`, `rivus repair`, `rivus backup` and `rivus restore`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use rivus::{Damaged, Db, Error, StoreError, Verification};
use serde::Serialize;

use crate::args::Global;
use crate::database;
use crate::output::Output;
use crate::table::printable;

#[derive(Serialize)]
struct Found {
    sound: bool,
    /// The digest that is kept, and that of the rows.
    digest: [String; 2],
    /// The same of what is confirmed.
    confirmed: [String; 2],
    /// How many registers are said to be confirmed, and how many are.
    registers: [u64; 2],
    /// The scopes whose digest is not that of their rows.
    scopes: Vec<String>,
    /// How many entries of the rules' index are missing, wrong or too many.
    wrong_in_index: usize,
}

impl Found {
    fn new(found: &Verification) -> Self {
        let hex = |digest: u128| format!("{digest:032x}");
        let (kept, made) = (found.kept, found.made);
        Self {
            sound: found.is_sound(),
            digest: [hex(kept.shown), hex(made.shown)],
            confirmed: [hex(kept.confirmed), hex(made.confirmed)],
            registers: [kept.count, made.count],
            scopes: found.scopes.clone(),
            wrong_in_index: found.index,
        }
    }

    fn lines(&self) -> Vec<String> {
        let [kept, made] = &self.digest;
        let mut lines = Vec::new();
        if kept != made {
            lines.push(format!("the digest is {kept}, and the rows make {made}"));
        }
        let [kept, made] = &self.confirmed;
        if kept != made {
            lines.push(format!("the digest of what is confirmed is {kept}, and the rows make {made}"));
        }
        let [kept, made] = self.registers;
        if kept != made {
            lines.push(format!("{kept} registers are counted, and there are {made}"));
        }
        for scope in &self.scopes {
            lines.push(format!("the digest of scope `{scope}` is not that of its rows"));
        }
        if self.wrong_in_index > 0 {
            lines.push(format!("{} entries of the rules' index are wrong", self.wrong_in_index));
        }
        lines
    }
}

/// `rivus verify`.
pub(crate) fn verify(global: &Global, out: &mut Output) -> Result<ExitCode> {
    let db = database::open_as_it_is(global)?;
    let found = match db.verify() {
        Ok(found) => Found::new(&found),
        Err(Error::Store(StoreError::Damaged(what))) => return unreadable(&db, &what, out),
        Err(error) => return Err(error.into()),
    };
    if out.is_json() {
        out.json(&found)?;
    } else if found.sound {
        writeln!(out, "sound: {} registers, digest {}", found.registers[0], found.digest[0])?;
    } else {
        for line in found.lines() {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "mend it with `rivus repair`, then sync")?;
    }
    Ok(if found.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Names the rows that keep the database from being checked.
fn unreadable(db: &Db, what: &str, out: &mut Output) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Unreadable<'d> {
        sound: bool,
        /// Where the check ended.
        reason: &'d str,
        damaged: &'d [Damaged],
        /// Whether there are more than those.
        more: bool,
    }
    // If not even that can be found out, the first one is told all the same.
    let mut damaged = db.damaged(DAMAGED_MAX + 1).unwrap_or_default();
    let more = damaged.len() > DAMAGED_MAX;
    damaged.truncate(DAMAGED_MAX);
    if out.is_json() {
        out.json(&Unreadable { sound: false, reason: what, damaged: &damaged, more })?;
        return Ok(ExitCode::FAILURE);
    }
    if !damaged.iter().any(|one| one.reason == what) {
        writeln!(out, "damaged: {}", printable(what))?;
    }
    for Damaged { kind, id, reason, .. } in &damaged {
        writeln!(out, "{} `{}` cannot be read: {}", printable(kind), printable(id), printable(reason))?;
    }
    if more {
        writeln!(out, "and more")?;
    }
    writeln!(
        out,
        "restore a backup, or write everything else with `rivus export --skip-damaged` and import it into a new file"
    )?;
    Ok(ExitCode::FAILURE)
}

/// `rivus repair`.
pub(crate) fn repair(global: &Global, out: &mut Output) -> Result<()> {
    let found = Found::new(&database::open(global)?.repair()?);
    if out.is_json() {
        return Ok(out.json(&found)?);
    }
    for line in found.lines() {
        writeln!(out, "mended: {line}")?;
    }
    let what = if found.sound { "nothing was wrong" } else { "made anew from the rows" };
    writeln!(out, "{what}; the next sync compares everything")?;
    Ok(())
}

#[derive(Serialize)]
struct Copied<'c> {
    from: &'c str,
    to: &'c str,
}

/// `rivus backup`.
pub(crate) fn backup(global: &Global, file: &Path, out: &mut Output) -> Result<()> {
    database::open_as_it_is(global)?.backup_to(file)?;
    let (from, to) = (global.db.display().to_string(), file.display().to_string());
    Ok(out.say(format_args!("{from} is backed up to {to}"), &Copied { from: &from, to: &to })?)
}

/// `rivus restore`.
pub(crate) fn restore(global: &Global, file: &Path, out: &mut Output) -> Result<()> {
    let (from, to) = (file.display().to_string(), global.db.display().to_string());
    if !file.exists() {
        bail!("there is no backup at {from}");
    }
    for left in ["", "-wal"].map(|ending| format!("{to}{ending}")) {
        if Path::new(&left).exists() {
            bail!("{left} is there already: move it away first, or name another with --db");
        }
    }
    let backup = database::open_as_it_is(&Global { db: file.to_owned(), ..global.clone() })?;
    let is_sound = backup.verify()?.is_sound();
    backup.backup_to(&global.db)?;
    let then = if is_sound { "" } else { "; mend it with `rivus repair`" };
    Ok(out.say(format_args!("{to} is restored from {from}{then}"), &Copied { from: &from, to: &to })?)
}

/// How many damaged rows `verify` names.
const DAMAGED_MAX: usize = 1_000;
