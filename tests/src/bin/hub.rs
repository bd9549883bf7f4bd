//! A hub in a process of its own, whose memory tests look at.
//!
//! `rivus-test-hub FILE` writes its URL and serves until its standard input ends.

use anyhow::{Context, Result};
use rivus::{Db, HubOptions};

fn main() -> Result<()> {
    let file = std::env::args().nth(1).context("give FILE")?;
    let db = Db::open(file, rivus_tests::hostile::schema()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let hub = runtime.block_on(db.serve("127.0.0.1:0", HubOptions::open().connections_max(1000)))?;
    println!("{}", hub.url());
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    runtime.block_on(hub.shutdown());
    Ok(())
}
