//! Crashes, losses of power and failing systems, all of them: `tests/` runs a share of the same.
//!
//! `rivus-test-crash kill|power|fail|busy|all` runs a campaign with a progress bar. `... work FILE` is the process that
//! the campaigns stop.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rivus_sqlite::{Options, SqliteStore, Synchronous};
use rivus_tests::crash::campaign::{self, Campaign, Patience};
use rivus_tests::crash::workload::{LOG_PAGES, World, steps};
use rivus_tests::random::seed;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kills the writer before and after each call that writes.
    Kill,
    /// Makes so many images of what a loss of power leaves.
    Power {
        /// How many.
        #[arg(default_value_t = 10_000)]
        images: usize,
        /// As the store is opened: full, normal or off.
        #[arg(default_value = "full", value_parser = synchronous)]
        synchronous: Synchronous,
    },
    /// Fails each call that writes, and each request for a lock.
    Fail,
    /// The writer.
    #[command(hide = true)]
    Work {
        file: PathBuf,
        #[arg(value_parser = synchronous)]
        synchronous: Synchronous,
        seed: u64,
        /// Tries a failed step again, so many times.
        retries: usize,
        busy_ms: u64,
    },
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Work { file, synchronous, seed, retries, busy_ms } => {
            return Ok(work(&file, synchronous, seed, retries, Duration::from_millis(busy_ms)));
        }
        Command::Kill => {
            println!("{:?}", here(Synchronous::Full)?.kill(1, &mut bar("kills"))?);
        }
        Command::Power { images, synchronous } => {
            println!("{:?}", here(synchronous)?.power(images, &mut bar("images"))?);
        }
        Command::Fail => {
            let campaign = here(Synchronous::Full)?;
            println!("{:?}", campaign.fail(1, &mut bar("failing calls"))?);
            for patience in [Patience::None, Patience::Some] {
                println!("{patience:?} {:?}", campaign.busy(1, patience, &mut bar("refused locks"))?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn here(synchronous: Synchronous) -> Result<Campaign> {
    Ok(Campaign { program: std::env::current_exe()?, seed: seed(campaign::SEED), synchronous })
}

fn synchronous(text: &str) -> Result<Synchronous, String> {
    campaign::SYNCHRONOUS
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, synchronous)| *synchronous)
        .ok_or_else(|| format!("`{text}` is not full, normal or off"))
}

/// A progress bar that says how far a campaign is.
fn bar(what: &'static str) -> impl FnMut(usize, usize) {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    move |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    }
}

/// Takes the steps. Says `acked N` once the N-th is durable. What fails is said on standard error.
fn work(
    file: &std::path::Path,
    synchronous: Synchronous,
    seed: u64,
    retries: usize,
    busy_timeout: Duration,
) -> ExitCode {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).is_err() {
        return ExitCode::FAILURE;
    }
    let options = Options { synchronous, busy_timeout, log_pages: LOG_PAGES, ..Options::default() };
    let world = World::new(|store: Option<SqliteStore>| {
        drop(store);
        Ok(SqliteStore::open(file, options)?)
    });
    let Ok(mut world) = world else { return ExitCode::FAILURE };
    let mut out = std::io::stdout().lock();
    for (number, step) in steps(seed).iter().enumerate() {
        let mut left = retries;
        while let Err(error) = world.take(number, step) {
            eprintln!("step {number}: {error:#}");
            if left == 0 {
                return ExitCode::FAILURE;
            }
            left -= 1;
        }
        if writeln!(out, "acked {}", number + 1).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
