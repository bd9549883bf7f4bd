//! A process that writes into a store and says each time what is durable: something for tests to kill.
//!
//! `rivus-test-writer FILE count ID N` increments a counter N times; `... write ID` puts numbers until killed or
//! failed. Each line `ack N STAMP` on standard output follows the commit that it tells of.

use std::io::Write;

use anyhow::{Context, bail};
use rivus::{Action, Db, Edited, Op, Schema};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, what, id, rest @ ..] = args.as_slice() else { bail!("give FILE, count or write, and ID") };
    let db = Db::open(file, schema()?)?;
    let mut out = std::io::stdout().lock();
    let times: u64 = rest.first().map_or(Ok(u64::MAX), |times| times.parse()).context("N is a number")?;
    for n in 1..=times {
        let action = match what.as_str() {
            "count" => Action::Inc { field: "views".to_owned(), by: 1 },
            "write" => Action::Put(vec![("n".to_owned(), i64::try_from(n)?.into())]),
            other => bail!("`{other}` is neither count nor write"),
        };
        if let Edited::Committed { stamp, .. } = db.apply(&[Op::new("task", id.as_str(), action)])? {
            writeln!(out, "ack {n} {}", stamp.time)?;
            out.flush()?;
        }
    }
    Ok(())
}

fn schema() -> anyhow::Result<Schema> {
    Ok(Schema::builder().kind("task", |kind| kind.value("n").counter("views")).build()?)
}
