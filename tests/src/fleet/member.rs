//! What the processes of the fleet run: a hub, a client, or a helper that edits a client's file.

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rivus::{Action, Connection, Db, HubOptions, Op, Phase, Remote, Schema, Shown};

/// Serves, or stays connected to `url`; does what each line of standard input says.
///
/// # Errors
/// If the store or a line cannot be used.
pub fn member(file: &Path, url: Option<&str>) -> Result<()> {
    let db = open(file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _inside = runtime.enter();
    let mut out = std::io::stdout().lock();
    let mut connection = None;
    let _hub = match url {
        Some(url) => {
            connection = Some(db.connect(Remote::new(url)));
            None
        }
        None => {
            let hub = runtime.block_on(db.serve("127.0.0.1:0", HubOptions::open()))?;
            writeln!(out, "serving {}", hub.address())?;
            Some(hub)
        }
    };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["put", id, n] => {
                db.put("task", id, [("n", n.parse::<i64>()?.into())])?;
                writeln!(out, "acked {id} {n}")?;
            }
            ["count"] => {
                count(&db)?;
                writeln!(out, "acked count")?;
            }
            ["nudge"] => {
                nudge(&db, url, &mut connection);
                writeln!(out, "nudged")?;
            }
            ["status"] => {
                nudge(&db, url, &mut connection);
                let status = db.status()?;
                writeln!(out, "status {} {} {}", status.pending, status.rejected, status.digest)?;
            }
            ["dump"] => dump(&db, &mut out)?,
            other => bail!("{other:?} is no order"),
        }
        out.flush()?;
    }
    Ok(())
}

/// Tries again at once instead of after a pause: what an application does when its user asks for it.
fn nudge(db: &Db, url: Option<&str>, connection: &mut Option<Connection>) {
    let waits = connection.as_ref().is_some_and(|now| now.state().phase == Phase::Waiting);
    if let Some(url) = url.filter(|_| waits) {
        *connection = Some(db.connect(Remote::new(url)));
    }
}

/// Makes some edits in a file that another process has open.
///
/// # Errors
/// If the store cannot be used.
pub fn side(file: &Path, name: &str, edits: usize) -> Result<()> {
    let db = open(file)?;
    let mut out = std::io::stdout().lock();
    for n in 0..edits {
        db.put("task", &format!("{name}-{n}"), [("n", i64::try_from(n)?.into())])?;
        writeln!(out, "acked {name}-{n} {n}")?;
        count(&db)?;
        writeln!(out, "acked count")?;
        out.flush()?;
    }
    Ok(())
}

fn open(file: &Path) -> Result<Db> {
    let schema = Schema::builder().kind("task", |kind| kind.value("n").counter("views")).build()?;
    Db::open(file, schema).with_context(|| file.display().to_string())
}

fn count(db: &Db) -> Result<()> {
    db.apply(&[Op::new("task", "sum", Action::Inc { field: "views".to_owned(), by: 1 })])?;
    Ok(())
}

/// What shows: the count, and each task with its number.
fn dump(db: &Db, out: &mut impl Write) -> Result<()> {
    let mut held = Vec::new();
    let mut views = 0;
    for (id, view) in db.views("task")? {
        if let Some(Shown::Value(n)) = view.fields.get("n") {
            held.push(format!("{id} {}", number_text(n)));
        }
        if let Some(Shown::Counter(sum)) = view.fields.get("views") {
            views = *sum;
        }
    }
    writeln!(out, "views {views}")?;
    writeln!(out, "held {}", held.join(","))?;
    Ok(())
}

fn number_text(value: &rivus::Value) -> String {
    if let rivus::Value::Int(n) = value { n.to_string() } else { "?".to_owned() }
}
