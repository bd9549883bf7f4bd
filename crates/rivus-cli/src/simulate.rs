//! Simulated worlds.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rivus_testkit::sim::coverage::{Coverage, Sometimes};
use rivus_testkit::sim::{self, Account, Flavour, Plan, Token};
use serde::{Deserialize, Serialize};

use crate::args::{Shard, Simulate};
use crate::output::Output;

/// How often the state file is written anew.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// One seed in so many is run twice, and must do the same.
const TWICE_EVERY: u64 = 100;

/// How many failures are told in full: each takes hundreds of runs to make small.
const ACCOUNTS_MAX: usize = 5;

/// `rivus simulate`.
pub(crate) fn run(arguments: &Simulate, out: &mut Output) -> Result<ExitCode> {
    if let Some(token) = &arguments.token {
        return again(token, out);
    }
    let mut state = State::load(arguments)?;
    let begun = Instant::now();
    let before = state.done;
    let all = count(arguments);
    let bar = bar(all);
    let mut saved = Instant::now();
    let mut accounts = 0;
    while state.done < all {
        let seed = seed(arguments, state.done);
        let plan = Plan::new(flavour(arguments), seed);
        let outcome = if seed.is_multiple_of(TWICE_EVERY) { sim::run_twice(&plan) } else { sim::run(&plan) };
        state.done += 1;
        state.add(&outcome.coverage);
        if let Some(failure) = &outcome.failure {
            let account = (accounts < ACCOUNTS_MAX).then(|| Account::of(&plan, failure));
            accounts += 1;
            bar.suspend(|| tell(out, seed, &failure.to_string(), account.as_ref()))?;
            let token = account.map_or_else(|| Token::of(&plan), |account| account.shrunk.token);
            state.failures.push(Failed { seed, token: token.to_string(), finding: failure.to_string() });
        }
        bar.set_position(state.done);
        if saved.elapsed() > SAVE_EVERY {
            saved = Instant::now();
            state.save(arguments)?;
        }
    }
    bar.finish_and_clear();
    state.save(arguments)?;
    let rate = (state.done - before) as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    summary(out, &state, rate)?;
    Ok(if state.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn flavour(arguments: &Simulate) -> Flavour {
    if arguments.full { Flavour::Full } else { Flavour::Core }
}

fn shard(arguments: &Simulate) -> Shard {
    arguments.shard.unwrap_or(Shard { part: 0, parts: 1 })
}

/// How many runs there are in the shard.
fn count(arguments: &Simulate) -> u64 {
    let Shard { part, parts } = shard(arguments);
    arguments.runs.saturating_sub(part).div_ceil(parts)
}

fn seed(arguments: &Simulate, number: u64) -> u64 {
    let Shard { part, parts } = shard(arguments);
    arguments.seed.wrapping_add(number * parts + part)
}

fn bar(all: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} runs {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Runs what a token names.
fn again(token: &Token, out: &mut Output) -> Result<ExitCode> {
    let plan = token.plan();
    let outcome = sim::run(&plan);
    let Some(failure) = &outcome.failure else {
        let text = format!("nothing found, trace {:016x}", outcome.trace_hash);
        out.say(text, &Ran { trace: format!("{:016x}", outcome.trace_hash), failure: None })?;
        return Ok(ExitCode::SUCCESS);
    };
    tell(out, plan.seed, &failure.to_string(), Some(&Account::of(&plan, failure)))?;
    Ok(ExitCode::FAILURE)
}

#[derive(Serialize)]
struct Ran {
    trace: String,
    failure: Option<String>,
}

fn tell(out: &mut Output, seed: u64, finding: &str, account: Option<&Account>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Told<'t> {
        seed: u64,
        finding: &'t str,
        token: Option<String>,
        account: Option<String>,
    }
    let told = Told {
        seed,
        finding,
        token: account.map(|account| account.shrunk.token.to_string()),
        account: account.map(ToString::to_string),
    };
    let text = told.account.clone().unwrap_or_else(|| format!("{finding}\n"));
    out.say(format_args!("seed {seed}: {text}"), &told)?;
    out.flush()
}

fn summary(out: &mut Output, state: &State, rate: f64) -> Result<()> {
    #[derive(Serialize)]
    struct Summary<'s> {
        runs: u64,
        failures: usize,
        runs_per_second: f64,
        situations: Vec<(&'s str, u64)>,
    }
    let counts = Sometimes::ALL.iter().map(|event| event.text()).zip(state.counts.iter().copied());
    let situations: Vec<_> = counts.collect();
    if !out.is_json() {
        for (text, count) in &situations {
            writeln!(out, "{count:>12}  {text}")?;
        }
    }
    let failures = state.failures.len();
    let text = format!("{} runs, {failures} failures, {rate:.0} runs a second", state.done);
    out.say(text, &Summary { runs: state.done, failures, runs_per_second: rate, situations })?;
    if !state.failures.is_empty() && !out.is_json() && io::stderr().is_terminal() {
        writeln!(io::stderr(), "run one again with --token")?;
    }
    Ok(())
}

/// How far a shard is.
#[derive(Serialize, Deserialize, Debug)]
struct State {
    version: u32,
    seed: u64,
    runs: u64,
    full: bool,
    shard: (u64, u64),
    /// Runs done; the next is that of this number.
    done: u64,
    failures: Vec<Failed>,
    /// By situation, in the order of the table.
    counts: Vec<u64>,
}

#[derive(Serialize, Deserialize, Debug)]
struct Failed {
    seed: u64,
    token: String,
    finding: String,
}

impl State {
    fn new(arguments: &Simulate) -> Self {
        let Shard { part, parts } = shard(arguments);
        Self {
            version: 1,
            seed: arguments.seed,
            runs: arguments.runs,
            full: arguments.full,
            shard: (part, parts),
            done: 0,
            failures: Vec::new(),
            counts: vec![0; Sometimes::ALL.len()],
        }
    }

    /// What an earlier call has left, if it was about the same.
    fn load(arguments: &Simulate) -> Result<Self> {
        let fresh = Self::new(arguments);
        let Some(path) = arguments.state.as_deref().filter(|path| path.exists()) else { return Ok(fresh) };
        let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let state: Self =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is no state file", path.display()))?;
        let about = |state: &Self| (state.version, state.seed, state.runs, state.full, state.shard);
        if about(&state) != about(&fresh) || state.counts.len() != fresh.counts.len() {
            bail!("{} is about other seeds: give the same options, or another file", path.display());
        }
        Ok(state)
    }

    fn add(&mut self, coverage: &Coverage) {
        for (sum, event) in self.counts.iter_mut().zip(Sometimes::ALL) {
            *sum += coverage.count(*event);
        }
    }

    /// Whole or not at all: an interrupted call leaves the file before it.
    fn save(&self, arguments: &Simulate) -> Result<()> {
        let Some(path) = arguments.state.as_deref() else { return Ok(()) };
        let next = path.with_extension("next");
        let write = |path: &Path| fs::write(path, serde_json::to_vec(self)?).map_err(anyhow::Error::from);
        write(&next)
            .and_then(|()| Ok(fs::rename(&next, path)?))
            .with_context(|| format!("{} cannot be written", path.display()))
    }
}
