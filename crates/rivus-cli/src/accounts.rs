//! `rivus accounts` and `rivus disown`: whose the databases are that have connected to a hub.

use std::io::Write;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::args::Global;
use crate::database;
use crate::output::Output;
use crate::table::printable;

/// `rivus accounts`.
pub(crate) fn list(global: &Global, out: &mut Output) -> Result<()> {
    let accounts = database::open_as_it_is(global)?.accounts()?;
    for account in &accounts {
        let text = format!("{}  has {}", printable(&account.subject), account.stores.join(", "));
        out.say(text, account)?;
    }
    if !out.is_json() && accounts.is_empty() {
        writeln!(out, "no accounts: no database has connected with a token")?;
    }
    Ok(())
}

/// `rivus disown`.
pub(crate) fn disown(global: &Global, subject: &str, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Done<'s> {
        disowned: &'s str,
        stores: usize,
    }
    let db = database::open_as_it_is(global)?;
    let accounts = db.accounts()?;
    let Some(account) = accounts.iter().find(|account| account.subject == subject) else {
        bail!("nobody has databases here as `{}`: `accounts` lists who has", printable(subject));
    };
    db.disown(subject)?;
    let stores = account.stores.len();
    let databases = match stores {
        1 => "1 database is nobody's now, and whose token it connects with next".to_owned(),
        _ => format!("{stores} databases are nobody's now, and whose token each connects with next"),
    };
    Ok(out.say(databases, &Done { disowned: subject, stores })?)
}
