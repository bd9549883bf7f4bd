//! Crashes, losses of power and failing systems, all of them: `tests/` runs a share of the same.
//!
//! `rivus-test-crash kill|power|fail|fleet` runs a campaign with a progress bar and prints its figures; `RIVUS_TEST_SEED`
//! sets the seed. The other commands are the processes that the campaigns stop.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rivus_sqlite::{Options, SqliteStore, Synchronous};
use rivus_tests::crash::campaign::{self, Campaign, Patience};
use rivus_tests::crash::workload::{LOG_PAGES, Step, World, steps};
use rivus_tests::fleet;
use rivus_tests::random::seed;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kills the writer before and after each call that writes.
    Kill {
        /// Every so-manieth call only.
        #[arg(default_value_t = 1)]
        each: usize,
    },
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
    Fail {
        /// Every so-manieth call only.
        #[arg(default_value_t = 1)]
        each: usize,
    },
    /// Refuses each request for a lock of a writer that waits.
    Busy,
    /// Runs so many fleets of a hub and three clients under faults.
    Fleet {
        /// How many.
        #[arg(default_value_t = 200)]
        runs: u64,
    },
    /// A process of a fleet.
    #[command(hide = true)]
    Member {
        file: PathBuf,
        #[arg(long)]
        connect: Option<String>,
    },
    /// A process that edits another one's file.
    #[command(hide = true)]
    Side {
        file: PathBuf,
        #[arg(long)]
        name: String,
        #[arg(long)]
        edits: usize,
    },
    /// The writer.
    #[command(hide = true)]
    Work {
        file: PathBuf,
        #[arg(value_parser = synchronous)]
        synchronous: Synchronous,
        seed: u64,
        /// Tries a failed step again, so many times, the last time with the store opened again.
        retries: usize,
        busy_ms: u64,
    },
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Member { file, connect } => fleet::member::member(&file, connect.as_deref())?,
        Command::Side { file, name, edits } => fleet::member::side(&file, &name, edits)?,
        Command::Fleet { runs } => fleets(runs)?,
        Command::Work { file, synchronous, seed, retries, busy_ms } => {
            return Ok(work(&file, synchronous, seed, retries, Duration::from_millis(busy_ms)));
        }
        Command::Kill { each } => {
            println!("{:?}", here(Synchronous::Full)?.kill(each, &mut bar("kills"))?);
        }
        Command::Power { images, synchronous } => {
            println!("{:?}", here(synchronous)?.power(images, &mut bar("images"))?);
        }
        Command::Busy => {
            let campaign = here(Synchronous::Full)?;
            println!("{:?}", campaign.busy(1, Patience::Some, &mut bar("refused locks"))?);
        }
        Command::Fail { each } => {
            let campaign = here(Synchronous::Full)?;
            println!("{:?}", campaign.fail(each, &mut bar("failing calls"))?);
            for patience in [Patience::None, Patience::Some] {
                println!("{patience:?} {:?}", campaign.busy(each, patience, &mut bar("refused locks"))?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the fleets of so many seeds, and says what was slowest.
fn fleets(runs: u64) -> Result<()> {
    let program = std::env::current_exe()?;
    let mut progress = bar("fleets");
    let mut all = Vec::new();
    for seed in (seed(campaign::SEED)..).take(usize::try_from(runs)?) {
        all.push(fleet::run(&program, seed).with_context(|| format!("fleet of seed {seed}"))?);
        progress(all.len(), usize::try_from(runs)?);
    }
    let sum = |of: fn(&fleet::Healed) -> usize| all.iter().map(of).sum::<usize>();
    println!(
        "{} fleets: {} edits acknowledged, {} kills, {} pauses, {} storms; slowest to converge {:?}, most round trips {:.2}, over open connections {:.2}",
        all.len(),
        sum(|healed| healed.acked),
        sum(|healed| healed.kills),
        sum(|healed| healed.pauses),
        sum(|healed| healed.storms),
        all.iter().map(|healed| healed.time).max().unwrap_or_default(),
        all.iter().filter_map(|healed| healed.trips).fold(0.0, f64::max),
        all.iter().filter_map(|healed| healed.trips_open).fold(0.0, f64::max),
    );
    Ok(())
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
            // An opening that the system would not let write stays so: SQLite opens for reading what it may not
            // open for writing. What helps is to open again.
            if left == 0
                && let Err(error) = world.take(number, &Step::Open)
            {
                eprintln!("step {number}: {error:#}");
            }
        }
        if writeln!(out, "acked {}", number + 1).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
