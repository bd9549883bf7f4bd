//! A process that attacks a hub from one core, until it is killed: something for tests to measure beside.
//!
//! `rivus-test-attacker URL ATTACK` writes a line for everything that it has sent.

use std::io::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;
use rivus_tests::hostile::Attack;

/// How many connections it has at a time.
const CONNECTIONS: u64 = 16;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, attack] = args.as_slice() else { anyhow::bail!("give URL and ATTACK") };
    let attack = Attack::from_str(attack, true).ok().context("there is no such attack")?;
    #[cfg(target_os = "linux")]
    {
        let mut one = nix::sched::CpuSet::new();
        one.set(0)?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let attackers = (0..CONNECTIONS).map(|n| async move {
            loop {
                // Whatever it is told, it comes again.
                let sent = || drop(writeln!(std::io::stdout()));
                let _ = attack.once(url, 10_000 + n, sent).await;
                tokio::task::yield_now().await;
            }
        });
        futures_util::future::join_all(attackers).await;
    });
    Ok(())
}
