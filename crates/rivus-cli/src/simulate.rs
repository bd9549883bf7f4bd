//! Simulated worlds.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rivus_testkit::sim::{self, Flavour};
use rivus_testkit::sim_rules;
use rivus_testkit::sometimes::Situation;
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
        let token = Token::whole(arguments, seed);
        let outcome =
            if seed.is_multiple_of(TWICE_EVERY) { Outcome::of_two(&token) } else { Outcome::of(&token) };
        state.done += 1;
        state.add(&outcome.counts);
        if let Some(found) = &outcome.found {
            let account = (accounts < ACCOUNTS_MAX).then(|| found.account());
            accounts += 1;
            let finding = found.finding();
            bar.suspend(|| tell(out, seed, &finding, account.as_ref()))?;
            let token = account.map_or_else(|| token.to_string(), |told| told.token);
            state.failures.push(Failed { seed, token, finding });
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
    let rare = state.below(arguments.each);
    summary(out, &state, rate, &rare)?;
    Ok(if state.failures.is_empty() && rare.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Names a run of one of the simulators.
#[derive(Clone, Debug)]
pub(crate) enum Token {
    /// Replicas under faults.
    Faults(sim::Token),
    /// Histories under rules.
    Rules(sim_rules::Token),
}

impl FromStr for Token {
    type Err = sim::BadToken;

    fn from_str(text: &str) -> Result<Self, sim::BadToken> {
        text.parse().map(Self::Rules).or_else(|_| text.parse().map(Self::Faults))
    }
}

impl Display for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faults(token) => token.fmt(f),
            Self::Rules(token) => token.fmt(f),
        }
    }
}

impl Token {
    fn whole(arguments: &Simulate, seed: u64) -> Self {
        if arguments.rules {
            return Self::Rules(sim_rules::Token::whole(seed));
        }
        let flavour = if arguments.full { Flavour::Full } else { Flavour::Core };
        Self::Faults(sim::Token::of(&sim::Plan::new(flavour, seed)))
    }
}

/// What came of a run.
struct Outcome {
    seed: u64,
    trace_hash: u64,
    /// By situation.
    counts: Vec<u64>,
    found: Option<Found>,
}

enum Found {
    Faults(sim::Plan, sim::Failure),
    Rules(sim_rules::Plan, sim_rules::Failure),
}

/// A failure made small.
struct Told {
    token: String,
    account: String,
}

impl Outcome {
    fn of(token: &Token) -> Self {
        match token {
            Token::Faults(token) => {
                let plan = token.plan();
                let sim::Outcome { trace_hash, coverage, failure, .. } = sim::run(&plan);
                let (seed, counts) = (plan.seed, coverage.counts().to_vec());
                Self { seed, trace_hash, counts, found: failure.map(|failure| Found::Faults(plan, failure)) }
            }
            Token::Rules(token) => {
                let plan = token.plan();
                let sim_rules::Outcome { trace_hash, coverage, failure } = sim_rules::run(&plan);
                let (seed, counts) = (plan.seed, coverage.counts().to_vec());
                Self { seed, trace_hash, counts, found: failure.map(|failure| Found::Rules(plan, failure)) }
            }
        }
    }
}

impl Outcome {
    /// A second trace that is not the first is a finding.
    fn of_two(token: &Token) -> Self {
        let (mut first, second) = (Self::of(token), Self::of(token));
        if first.found.is_none() && first.trace_hash != second.trace_hash {
            let traces = (first.trace_hash, second.trace_hash);
            let finding =
                format!("the first run's trace is {:016x}, the second's {:016x}", traces.0, traces.1);
            first.found = Some(match token {
                Token::Faults(token) => {
                    let oracle = sim::Oracle::Determinism;
                    Found::Faults(token.plan(), sim::Failure { oracle, step: None, finding })
                }
                Token::Rules(token) => {
                    let oracle = sim_rules::Oracle::Determinism;
                    Found::Rules(token.plan(), sim_rules::Failure { oracle, step: None, finding })
                }
            });
        }
        first
    }
}

impl Found {
    fn finding(&self) -> String {
        match self {
            Self::Faults(_, failure) => failure.to_string(),
            Self::Rules(_, failure) => failure.to_string(),
        }
    }

    fn account(&self) -> Told {
        match self {
            Self::Faults(plan, failure) => {
                let account = sim::Account::of(plan, failure);
                Told { token: account.shrunk.token.to_string(), account: account.to_string() }
            }
            Self::Rules(plan, failure) => {
                let account = sim_rules::Account::of(plan, failure);
                Told { token: account.shrunk.token.to_string(), account: account.to_string() }
            }
        }
    }
}

/// The situations that are counted, in words.
fn situations(is_ruled: bool) -> Vec<&'static str> {
    fn texts<E: Situation>() -> Vec<&'static str> {
        E::ALL.iter().map(|event| event.text()).collect()
    }
    if is_ruled { texts::<sim_rules::coverage::Sometimes>() } else { texts::<sim::coverage::Sometimes>() }
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
    let outcome = Outcome::of(token);
    let Some(found) = &outcome.found else {
        let trace = format!("{:016x}", outcome.trace_hash);
        let text = format!("nothing found, trace {trace}");
        out.say(text, &Ran { trace, failure: None })?;
        return Ok(ExitCode::SUCCESS);
    };
    tell(out, outcome.seed, &found.finding(), Some(&found.account()))?;
    Ok(ExitCode::FAILURE)
}

#[derive(Serialize)]
struct Ran {
    trace: String,
    failure: Option<String>,
}

fn tell(out: &mut Output, seed: u64, finding: &str, account: Option<&Told>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'t> {
        seed: u64,
        finding: &'t str,
        token: Option<&'t str>,
        account: Option<&'t str>,
    }
    let (token, account) = account.map(|told| (told.token.as_str(), told.account.as_str())).unzip();
    let text = account.map_or_else(|| format!("{finding}\n"), str::to_owned);
    out.say(format_args!("seed {seed}: {text}"), &Line { seed, finding, token, account })?;
    out.flush()
}

fn summary(out: &mut Output, state: &State, rate: f64, rare: &[&str]) -> Result<()> {
    #[derive(Serialize)]
    struct Summary<'s> {
        runs: u64,
        failures: usize,
        runs_per_second: f64,
        situations: Vec<(&'s str, u64)>,
        too_rare: &'s [&'s str],
    }
    let situations: Vec<_> = situations(state.rules).into_iter().zip(state.counts.iter().copied()).collect();
    if !out.is_json() {
        for (text, count) in &situations {
            writeln!(out, "{count:>12}  {text}")?;
        }
    }
    let failures = state.failures.len();
    let mut text = format!("{} runs, {failures} failures, {rate:.0} runs a second", state.done);
    if !rare.is_empty() {
        text += &format!("; too rare: {}", rare.join(", "));
    }
    let (runs, runs_per_second, too_rare) = (state.done, rate, rare);
    out.say(text, &Summary { runs, failures, runs_per_second, situations, too_rare })?;
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
    #[serde(default)]
    rules: bool,
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
            rules: arguments.rules,
            shard: (part, parts),
            done: 0,
            failures: Vec::new(),
            counts: vec![0; situations(arguments.rules).len()],
        }
    }

    /// What an earlier call has left, if it was about the same.
    fn load(arguments: &Simulate) -> Result<Self> {
        let fresh = Self::new(arguments);
        let Some(path) = arguments.state.as_deref().filter(|path| path.exists()) else { return Ok(fresh) };
        let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let state: Self =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is no state file", path.display()))?;
        let about =
            |state: &Self| (state.version, state.seed, state.runs, state.full, state.rules, state.shard);
        if about(&state) != about(&fresh) || state.counts.len() != fresh.counts.len() {
            bail!("{} is about other seeds: give the same options, or another file", path.display());
        }
        Ok(state)
    }

    fn add(&mut self, counts: &[u64]) {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum += count;
        }
    }

    /// The situations that came up less than `least` times.
    fn below(&self, least: u64) -> Vec<&'static str> {
        let all = situations(self.rules).into_iter().zip(&self.counts);
        all.filter(|(_, count)| **count < least).map(|(text, _)| text).collect()
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
